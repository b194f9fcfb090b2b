"""A judge's scores put right by people's labels: prediction-powered inference, by group.

A judge rates every row; people have rated some of them. The mean of the judge's ratings is
precise and may be wrong; the mean of people's labels is right and imprecise. Prediction-powered
inference takes the judge's mean and adds what the judge is off by where people have looked

    w * mean(judge, unlabelled rows) + mean(people - w * judge, labelled rows)

(Angelopoulos, Bates, Fannjiang, Jordan and Zrnic 2023, Science 382, 669-674, with w = 1;
Angelopoulos, Duchi and Zrnic 2023, PPI++, arXiv 2311.01453, with the w that gives the smallest
variance). It is right for any judge, however bad: a useless one gets the weight 0, and what is left
is the mean of people's labels.

One thing must hold: the labelled rows are a random part of what was judged, so that the judge errs
on the others as it does there. Labels of other systems' replies do not give that; `transferred`
is for them, and says what it needs instead.

Rows of one group are not independent, so the variance is that of the jackknife over groups (Efron
and Stein 1981), with w tuned again each time: that w is estimated too is then part of it.
Limits are Student's, with Satterthwaite's degrees of freedom, so that few labels give a wide
interval and not a wrong one.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tunelm.errors import ConfigError
from tunelm.scoring.statistics import ALPHA, unseen_share

Array = NDArray[np.float64]

LEAST_GROUPS = 5
"""With fewer labelled groups nothing is corrected: error could not be told from luck."""

_COLUMNS = 5
"""Of a group: labelled rows, people's sum and the judge's there; other rows, the judge's there."""


@dataclass(frozen=True, slots=True)
class Corrected:
    """A mean, or a difference of means, as people would have given it, with its 95% interval.

    Attributes:
        value: the estimate; None where there are too few labels.
        low: the interval's lower limit.
        high: the interval's upper limit.
        se: standard error, of the sampling by group.
        df: its degrees of freedom.
        weight: how much the judge was believed, 0 to 1.
        n_labelled: rows with people's label.
        n_judged: rows with the judge's rating alone.
        labelled_groups: groups with a labelled row.
    """

    value: float | None
    low: float | None
    high: float | None
    se: float | None
    df: float
    weight: float | None
    n_labelled: int
    n_judged: int
    labelled_groups: int


def corrected(
    judged: ArrayLike,
    people: ArrayLike,
    groups: Sequence[Hashable],
    *,
    weight: float | None = None,
    scale: tuple[float, float] | None = None,
) -> Corrected:
    """The mean that people would have given to all rows.

    For the difference of two systems give the differences of their ratings, and of their labels,
    on the same rows.

    Args:
        judged: (n,), the judge's ratings; NaN where it failed. Such a row counts with the mean of
            the other ratings, so that people's label of it is not lost.
        people: (n,), NaN where nobody has labelled the row.
        groups: the group of each of the n rows.
        weight: w of the module's formula; None: the best one, between 0 and 1.
        scale: the least and the most that a value can be. Where the judge was never wrong on a
            labelled row, or people's labels are all the same, the interval is widened by the share
            of other rows that 0 of so many groups leaves open (Clopper and Pearson 1934). Nothing
            leaves the scale.

    Raises:
        ConfigError: arrays and groups of different lengths.
    """
    f, y = _same_length(judged, people, groups)
    known = ~np.isnan(y)
    f = np.where(np.isnan(f), np.nanmean(f) if (~np.isnan(f)).any() else 0.0, f)
    parts = _sums(f, y, known, groups)
    labelled, only = parts[:, 0] > 0, parts[:, 0] == 0
    counts = int(known.sum()), int((~known).sum()), int(labelled.sum())
    if counts[2] < LEAST_GROUPS:
        return Corrected(None, None, None, None, 0.0, None, *counts)
    value, used = _estimate(parts.sum(axis=0), _products(parts).sum(axis=0), weight)
    se, df = _error(parts, labelled, only, weight)
    if scale is not None and (_flat((y - f)[known]) or _flat(y[known])):
        se = math.hypot(se, _unseen(scale, counts[2]) / student(df))
    return _limited(float(value), se, df, float(used), counts, scale)


def transferred(
    judged: ArrayLike,
    groups: Sequence[Hashable],
    errors: ArrayLike,
    error_groups: Sequence[Hashable],
    between: tuple[float, float] | None = None,
    scale: tuple[float, float] | None = None,
) -> Corrected:
    """The judge's mean less its mean error on replies of *other* systems. Not guaranteed.

    The judge is believed whole (w = 1): what people said of other systems' replies says nothing of
    these ones but through the judge's error. That the error carries over cannot be checked here;
    how much it varies from system to system can, and is `between`.

    Args:
        judged: (n,), ratings of the system at hand; NaN where the judge failed: left out.
        groups: their groups.
        errors: (m,), judge less people on labelled replies of other systems.
        error_groups: their groups; taken as others than those of `groups`.
        between: standard deviation of a system's mean error over systems, and its degrees of
            freedom; None: unknown, and the interval is then too narrow.
        scale: as in `corrected`; nothing leaves it.
    """
    f, e = np.asarray(judged, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    rows = [g for g, bad in zip(groups, np.isnan(f), strict=True) if not bad]
    error_rows = [g for g, bad in zip(error_groups, np.isnan(e), strict=True) if not bad]
    f, e = f[~np.isnan(f)], e[~np.isnan(e)]
    counts = len(e), len(f), len(set(error_rows))
    if counts[2] < LEAST_GROUPS or len(set(rows)) < 2:
        return Corrected(None, None, None, None, 0.0, None, *counts)
    pieces = [mean_error(f, rows), mean_error(e, error_rows)] + ([between] if between else [])
    se, df = add_errors(pieces)
    for values, count in ((f, len(set(rows))), (e, counts[2])) if scale else ():
        if _flat(values):
            se = math.hypot(se, _unseen(scale or (0.0, 0.0), count) / student(df))
    return _limited(float(f.mean() - e.mean()), se, df, 1.0, counts, scale)


def mean_error(values: Array, groups: Sequence[Hashable]) -> tuple[float, float]:
    """(standard error, degrees of freedom) of a mean of rows in groups: the jackknife's."""
    index = _index(groups)
    count = int(index.max()) + 1
    sums, sizes = np.bincount(index, values, count), np.bincount(index, minlength=count)
    left = (sums.sum() - sums) / (sizes.sum() - sizes)
    return _jackknife(left), count - 1.0


def add_errors(pieces: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Independent (standard error, degrees of freedom) added up, with Satterthwaite's (1946) df."""
    total = sum(se**2 for se, _ in pieces)
    below = sum(se**4 / df for se, df in pieces if se and df)
    return math.sqrt(total), total**2 / below if below else max(df for _, df in pieces)


def student(df: float, probability: float = 1 - ALPHA / 2) -> float:
    """Student's quantile."""
    from scipy.special import stdtrit

    return float(stdtrit(max(df, 1.0), probability))


# --- how it is computed -------------------------------------------------------------------------


def _same_length(
    judged: ArrayLike, people: ArrayLike, groups: Sequence[Hashable]
) -> tuple[Array, Array]:
    f, y = np.asarray(judged, dtype=np.float64), np.asarray(people, dtype=np.float64)
    if f.ndim != 1 or f.shape != y.shape or len(groups) != len(f):
        raise ConfigError(
            f"ratings of shape {f.shape}, labels of shape {y.shape} and {len(groups)} groups: all"
            " three need one entry a row"
        )
    return f, y


def _index(groups: Sequence[Hashable]) -> NDArray[np.int64]:
    seen: dict[Hashable, int] = {}
    return np.array([seen.setdefault(g, len(seen)) for g in groups], dtype=np.int64)


def _sums(f: Array, y: Array, known: NDArray[np.bool_], groups: Sequence[Hashable]) -> Array:
    """(G, 5): `_COLUMNS` of each group."""
    if not len(f):
        return np.zeros((0, _COLUMNS))
    index = _index(groups)
    count = int(index.max()) + 1
    said = np.where(known, y, 0.0)
    columns = (known, said, f * known, ~known, f * ~known)
    return np.stack([np.bincount(index, column, count) for column in columns], axis=1).astype(
        np.float64
    )


def _products(parts: Array) -> Array:
    """(G, 5, 5): each group's columns times each other."""
    return parts[:, :, None] * parts[:, None, :]


def _estimate(
    sums: Array, products: Array, weight: float | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(estimate, w) for sums (..., 5) and summed products (..., 5, 5) over any choice of groups.

    The estimate is the mean of people's labels plus w times b, with b the judge's mean on other
    rows less that on labelled ones. A group adds a to the first and b to the second, both
    linear in its columns; the variance of the sum over groups is least at w = - sum(ab) / sum(bb).
    For independent rows this is the w of PPI++ (its section 6).
    """
    n, said, there, others, elsewhere = np.moveaxis(sums, -1, 0)
    rest = np.maximum(others, 1.0)
    zero, one = np.zeros_like(n), np.ones_like(n)
    a = np.stack([-said / n, one, zero, zero, zero], axis=-1) / n[..., None]
    b = np.stack([there / n / n, zero, -one / n, -elsewhere / rest / rest, one / rest], axis=-1)
    ab = np.einsum("...i,...ij,...j->...", a, products, b)
    bb = np.einsum("...i,...ij,...j->...", b, products, b)
    tiny = bb <= 1e-15 * (1 + np.abs(ab))
    w = np.clip(np.where(tiny, 0.0, -ab / np.where(tiny, 1.0, bb)), 0.0, 1.0)
    if weight is not None:
        w = np.full_like(w, weight)
    w = np.where(others > 0, w, 0.0)
    return said / n + w * (elsewhere / rest - there / n), w


def _error(
    parts: Array, labelled: NDArray[np.bool_], only: NDArray[np.bool_], weight: float | None
) -> tuple[float, float]:
    """Standard error and degrees of freedom: labelled groups and the others are two samples."""
    products = _products(parts)
    left, _ = _estimate(parts.sum(axis=0) - parts, products.sum(axis=0) - products, weight)
    count, se = int(labelled.sum()), _jackknife(left[labelled])
    if weight is None:  # w is a fitted slope, and costs a degree of freedom as one does
        count, se = count - 1, se * math.sqrt((count - 1) / (count - 2))
    pieces = [(se, count - 1.0)]
    if only.sum() > 1:
        pieces.append((_jackknife(left[only]), only.sum() - 1.0))
    return add_errors(pieces)


def _jackknife(left: Array) -> float:
    """Standard error from the values that leave out one group each."""
    count = len(left)
    return math.sqrt((count - 1) / count * float(((left - left.mean()) ** 2).sum()))


def _flat(values: Array) -> bool:
    """Whether the values do not differ."""
    return bool(np.ptp(values) <= 1e-12)


def _unseen(scale: tuple[float, float], groups: int) -> float:
    """How far off a mean may be though all of so many groups agree: the exact limit for 0 of G."""
    return (scale[1] - scale[0]) * unseen_share(groups)


def _limited(
    value: float,
    se: float,
    df: float,
    weight: float,
    counts: tuple[int, int, int],
    scale: tuple[float, float] | None,
) -> Corrected:
    """The estimate with its interval, which keep to the scale as the truth does."""
    low, high = scale or (-math.inf, math.inf)
    reach = student(df) * se
    kept, least, most = np.clip([value, value - reach, value + reach], low, high).tolist()
    return Corrected(kept, least, most, se, df, weight, *counts)
