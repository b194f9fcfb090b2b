"""Systems set beside each other by a judge, and the refusal to rank them where it cannot.

A judge's difference between two systems is off by two things. One is luck of the rows, and shrinks
with more of them. The other is the judge: it is a little too kind to one system and a little too
hard on the next, and no number of rows mends that. With s the standard error of the paired
difference by group, and b the standard deviation over systems of the judge's mean error against
people (`system_sd` of tunelm.judging.check), the difference of two new systems is off by
sqrt(s^2 + 2 b^2), and

    smallest difference = (t(.975) + t(.8)) * sqrt(s^2 + 2 b^2)

is found four times in five: the usual formula for 80% power at a two-sided 5% (Bloom 1995,
Evaluation Review 19, 547-556) with the variance between systems of a random-effects model added
(DerSimonian and Laird 1986, Controlled Clinical Trials 7, 177-188), t with Satterthwaite's (1946)
degrees of freedom. b is not freed of the sampling error of the labels it comes from, so it errs on
the safe side. Where people have labelled replies of the two systems themselves, the difference is
corrected instead (tunelm.judging.calibrate) and b has no part in it.

A judge of which no error is known ranks nothing: unknown is not zero.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tunelm.judging.calibrate import (
    LEAST_GROUPS,
    Corrected,
    add_errors,
    corrected,
    student,
    transferred,
)
from tunelm.judging.check import Error
from tunelm.scoring.metric import ratio
from tunelm.scoring.resampling import difference_of, standard_error, sum_groups, theta_of
from tunelm.scoring.statistics import ALPHA, POWER, RESAMPLES, Interval, holm, interval, paired

Array = NDArray[np.float64]
Verdict = Literal["better", "worse", "not distinguishable", "not ranked"]

UNKNOWN = (
    "how far this judge is from people, from system to system, is unknown: give labels"
    " of replies of three named systems or more, or of these ones"
)


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a judge's error against people.

    Attributes:
        error: in figures, from labels at hand or from those that it was trained on.
        errors: (m,), judge less people, a labelled reply each; None where no labels are at hand.
        groups: their groups.
    """

    error: Error
    errors: Array | None = None
    groups: tuple[Hashable, ...] = ()

    @property
    def between(self) -> tuple[float, float] | None:
        """Standard deviation of systems' mean errors, and its degrees of freedom; None: unknown."""
        sd = self.error.system_sd
        return None if sd is None else (sd, self.error.systems - 1.0)


@dataclass(frozen=True, slots=True)
class System:
    """One system's ratings on the rows of a test set, and people's labels of the same replies.

    Attributes:
        name: a route's.
        judged: (S seeds, n), NaN where there is no rating.
        people: (S seeds, n), NaN where nobody has labelled the reply.
    """

    name: str
    judged: Array
    people: Array

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """(S, n): which replies people have labelled."""
        return ~np.isnan(self.people)


@dataclass(frozen=True, slots=True)
class Standing:
    """One system's score.

    Attributes:
        name: the system's.
        raw: the judge's mean with its interval of sampling alone.
        corrected: as people would have given it; None where no labels are known.
        basis: `own labels`, `other systems' labels`, or None.
    """

    name: str
    raw: Interval
    corrected: Corrected | None
    basis: str | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two systems on the rows that both were judged on: a's mean less b's.

    Attributes:
        a: one system.
        b: the other.
        diff: the difference; corrected where `basis` is `own labels`, else the judge's own.
        low: of its 95% interval: of sampling alone where it is the judge's own.
        high: likewise.
        p: two-sided, with the judge's error in it; None where that is unknown.
        p_holm: corrected for the number of comparisons (Holm 1979).
        smallest: the smallest difference that can be shown; None: unknown.
        n: rows.
        n_groups: their groups.
        basis: `own labels`; `other systems' labels` where b is known; None where nothing is.
        verdict: what may be said of a beside b.
        reason: why they are not ranked, in words; "" where they are.
    """

    a: str
    b: str
    diff: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    smallest: float | None
    n: int
    n_groups: int
    basis: str | None
    verdict: Verdict
    reason: str


OWN, OTHERS = "own labels", "other systems' labels"


def standing(
    system: System,
    groups: Sequence[Hashable],
    known: Known,
    scale: tuple[float, float] = (0.0, 1.0),
) -> Standing:
    """One system's score; corrected by labels of its own replies, else by those of others."""
    raw = mean_of(system.judged, groups, scale)
    every = list(groups) * len(system.judged)
    if _enough(system.labelled, groups):
        kept = ~np.isnan(system.judged) | system.labelled
        rows = [g for g, keep in zip(every, kept.ravel().tolist(), strict=True) if keep]
        mended = corrected(system.judged[kept], system.people[kept], rows, scale=scale)
        return Standing(system.name, raw, mended, OWN)
    if known.errors is None or raw.value is None:
        return Standing(system.name, raw, None, None)
    mended = transferred(
        system.judged.ravel(), every, known.errors, known.groups, known.between, scale
    )
    return Standing(system.name, raw, mended if mended.value is not None else None, OTHERS)


def mean_of(values: Array, groups: Sequence[Hashable], scale: tuple[float, float]) -> Interval:
    """The mean of (S, n) values with the interval of sampling, by group and seed."""
    if np.isnan(values).all():
        return Interval(None, None, None, 0, 0)
    return interval(_stats(values), groups, scale=None if scale[0] else scale[1])


def compare(
    systems: Sequence[System],
    groups: Sequence[Hashable],
    known: Known,
    scale: tuple[float, float] = (0.0, 1.0),
    resamples: int = RESAMPLES,
) -> list[Comparison]:
    """Every pair of systems, with Holm's correction over all of them.

    Args:
        systems: their ratings on the same rows.
        groups: the group of each row.
        known: of the judge's error.
        scale: the judge's.
        resamples: of the bootstrap behind the intervals.
    """
    pairs = [(a, b) for i, a in enumerate(systems) for b in systems[i + 1 :]]
    found = [_pair(a, b, groups, known, scale, resamples) for a, b in pairs]
    return [_decided(one, p) for one, p in zip(found, holm([c.p for c in found]), strict=True)]


def _pair(
    a: System,
    b: System,
    groups: Sequence[Hashable],
    known: Known,
    scale: tuple[float, float],
    resamples: int,
) -> Comparison:
    seeds = min(len(a.judged), len(b.judged))
    both = a.labelled[:seeds] & b.labelled[:seeds]
    if _enough(both, groups):
        return _corrected_pair(a, b, groups, both, scale)
    found = paired(_stats(a.judged), _stats(b.judged), groups, resamples=resamples)
    if found.diff is None or found.low is None:
        return _unranked(a, b, found.diff, found.n, found.n_groups)
    error_of_rows = _sampling(a.judged, b.judged, groups)
    between = known.between
    p = smallest = None
    if between is not None:
        p, smallest = _power(
            found.diff, *add_errors([error_of_rows, (between[0] * math.sqrt(2), between[1])])
        )
    return Comparison(
        a=a.name,
        b=b.name,
        diff=found.diff,
        low=found.low,
        high=found.high,
        p=p,
        p_holm=None,
        smallest=smallest,
        n=found.n,
        n_groups=found.n_groups,
        basis=None if between is None else OTHERS,
        verdict="not ranked",
        reason=UNKNOWN,
    )


def _corrected_pair(
    a: System,
    b: System,
    groups: Sequence[Hashable],
    both: NDArray[np.bool_],
    scale: tuple[float, float],
) -> Comparison:
    """The difference that people would have found, from labels of replies of both systems."""
    seeds = len(both)
    judged = (a.judged[:seeds] - b.judged[:seeds]).ravel()
    people = np.where(both, a.people[:seeds] - b.people[:seeds], np.nan).ravel()
    kept = ~np.isnan(judged) | ~np.isnan(people)
    every = list(groups) * seeds
    rows = [g for g, keep in zip(every, kept.tolist(), strict=True) if keep]
    reach = scale[1] - scale[0]
    found = corrected(judged[kept], people[kept], rows, scale=(-reach, reach))
    p, smallest = _power(found.value or 0.0, found.se or 0.0, found.df)
    return Comparison(
        a=a.name,
        b=b.name,
        diff=found.value,
        low=found.low,
        high=found.high,
        p=p,
        p_holm=None,
        smallest=smallest,
        n=found.n_labelled + found.n_judged,
        n_groups=len(set(rows)),
        basis=OWN,
        verdict="not ranked",
        reason="",
    )


def _decided(one: Comparison, p_holm: float | None) -> Comparison:
    """The verdict: a difference below what can be shown is none."""
    one = dataclasses.replace(one, p_holm=p_holm)
    if one.diff is None or one.smallest is None or p_holm is None:
        return one
    if abs(one.diff) < one.smallest or p_holm > ALPHA:
        why = f"the smallest difference that this judge can show here is {one.smallest:.3f}"
        if abs(one.diff) >= one.smallest:
            why = f"with so many comparisons (p = {p_holm:.3f} by Holm's correction)"
        return dataclasses.replace(one, verdict="not distinguishable", reason=why)
    return dataclasses.replace(one, verdict="better" if one.diff > 0 else "worse", reason="")


def _unranked(a: System, b: System, diff: float | None, n: int, n_groups: int) -> Comparison:
    return Comparison(
        a=a.name,
        b=b.name,
        diff=diff,
        low=None,
        high=None,
        p=None,
        p_holm=None,
        smallest=None,
        n=n,
        n_groups=n_groups,
        basis=None,
        verdict="not ranked",
        reason=f"{n} rows in {n_groups} groups were judged for both",
    )


def _power(diff: float, se: float, df: float) -> tuple[float, float]:
    """(two-sided p, the smallest difference that is found four times in five)."""
    from scipy.special import stdtr

    smallest = (student(df) + student(df, POWER)) * se
    if se == 0:
        return (1.0 if diff == 0 else 0.0), smallest
    return float(2 * stdtr(max(df, 1.0), -abs(diff) / se)), smallest


def _sampling(a: Array, b: Array, groups: Sequence[Hashable]) -> tuple[float, float]:
    """(standard error, degrees of freedom) of the difference, by group and seed."""
    both = ~(np.isnan(a).any(axis=0) | np.isnan(b).any(axis=0))
    oks = np.asarray(both).tolist()
    kept = [g for g, ok in zip(groups, oks, strict=True) if ok]
    one, other = (sum_groups(_stats(x[:, both]), kept) for x in (a, b))
    parts = np.concatenate([one.parts, other.parts], axis=1)
    found = standard_error(parts, difference_of(ratio), [one, other], theta_of(ratio))
    return found.se, found.df


def _stats(values: Array) -> Array:
    """(S, n, 2): each value and that it counts."""
    return np.stack([values, np.where(np.isnan(values), np.nan, 1.0)], axis=2)


def _enough(labelled: NDArray[np.bool_], groups: Sequence[Hashable]) -> bool:
    """Whether enough groups have a labelled row to correct by."""
    has = np.asarray(labelled.any(axis=0)).tolist()
    return len({g for g, one in zip(groups, has, strict=True) if one}) >= LEAST_GROUPS
