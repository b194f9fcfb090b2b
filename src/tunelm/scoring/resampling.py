"""Group sums and what is done with them: bootstrap, sign flips, jackknife.

Everything works on `parts`, an array (G, d) with the summed statistics of each group, and on
a `Theta`, which turns sums over any choice of groups, (R, d), into R values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tunelm.errors import ConfigError
from tunelm.scoring.metric import ratio

Array = NDArray[np.float64]
Aggregate = Callable[[Sequence[float]], float]
Mask = NDArray[np.bool_]
Theta = Callable[[Array], Array]

_CELLS = 4_000_000
"""Most cells of a weight matrix held at once; more resamples are done in turn."""

EXACT_GROUPS = 12
"""Up to this many groups all 2^G sign patterns are tried."""


@dataclass(frozen=True)
class Totals:
    """One system's statistics, summed.

    `parts` (G, d) holds the sums of each group over all seeds, `seeds` (S, d) those of each
    seed over all groups. `n` counts the rows scored under at least one seed.
    """

    parts: Array
    seeds: Array
    n: int

    def times(self, factor: int) -> Totals:
        """The same system, each row counted `factor` times."""
        return Totals(self.parts * factor, self.seeds * factor, self.n)


def as_stats(stats: ArrayLike, groups: Sequence[Hashable]) -> Array:
    """Statistics as (S seeds, n rows, d). Raises ConfigError for another shape or length."""
    array = np.asarray(stats, dtype=np.float64)
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.shape[1] != len(groups):
        raise ConfigError(
            f"statistics of shape {array.shape} for {len(groups)} group labels; they must be "
            "(rows, d) or (seeds, rows, d) with one label a row"
        )
    return array


def known_rows(stats: Array) -> Mask:
    """Which rows were scored, by seed: (S, n), False where the statistics are NaN."""
    return cast(Mask, ~np.isnan(stats).any(axis=2))


def sum_groups(stats: Array, groups: Sequence[Hashable]) -> Totals:
    """Sums by group and by seed; a row that was not scored adds nothing.

    A group in which no row was scored does not exist. The order of rows does not matter.
    """
    known = known_rows(stats)
    kept = cast(Mask, known.any(axis=0))
    filled = np.where(known[:, :, None], stats, 0.0)[:, kept]
    labels = [str(g) for g, keep in zip(groups, kept.tolist(), strict=True) if keep]
    names, index = np.unique(np.array(labels, dtype=object), return_inverse=True)
    parts = np.zeros((len(names), stats.shape[2]))
    np.add.at(parts, index, filled.sum(axis=0))
    return Totals(parts, filled.sum(axis=1), int(kept.sum()))


def theta_of(aggregate: Aggregate) -> Theta:
    """`aggregate` for many sums at once."""

    def many(sums: Array) -> Array:
        if aggregate is ratio:
            return sums[:, 0] / sums[:, 1]
        return np.array([aggregate(vector) for vector in sums.tolist()], dtype=np.float64)

    return many


def difference_of(aggregate: Aggregate) -> Theta:
    """A's value less B's, for sums that hold A's statistics and then B's."""
    one = theta_of(aggregate)

    def many(sums: Array) -> Array:
        half = sums.shape[1] // 2
        return one(sums[:, :half]) - one(sums[:, half:])

    return many


def bootstrap(parts: Array, theta: Theta, resamples: int, rng: np.random.Generator) -> Array:
    """`resamples` values of theta, each for G - 1 groups drawn with replacement from G.

    Drawing one group fewer than there are makes the variance of a mean unbiased; with G
    draws it is too small by (G - 1) / G (Rao and Wu 1988, JASA 83, 231-241).
    """
    groups = len(parts)

    def chunk(size: int) -> Array:
        drawn = rng.integers(groups, size=(size, groups - 1))
        cells = drawn + groups * np.arange(size)[:, None]
        counts = np.bincount(cells.ravel(), minlength=size * groups).reshape(size, groups)
        return theta(counts.astype(np.float64) @ parts)

    return np.concatenate([chunk(size) for size in _chunks(resamples, groups)])


def flip_p(parts: Array, theta: Theta, resamples: int, rng: np.random.Generator) -> float:
    """Two-sided p of the group sign-flip test, for parts that hold A's sums and then B's.

    The null distribution comes from swapping the two systems' statistics in each group or
    not; for a mean that is flipping the sign of the group's difference. All patterns are
    tried up to EXACT_GROUPS groups, else `resamples` random ones. The observed pattern counts
    among them (Phipson and Smyth 2010), so that p is never zero. Other patterns that only tie
    with it count one half (mid-p; Lancaster 1961, JASA 56, 223-234): scores of 0 and 1 in few
    rows tie so often that p would else stay far below its 5% and miss real differences
    (Fagerland, Lydersen and Laake 2013, BMC Med Res Methodol 13:91, for McNemar's test).
    """
    groups, half = len(parts), parts.shape[1] // 2
    swap = np.concatenate([parts[:, half:], parts[:, :half]], axis=1) - parts
    total = parts.sum(axis=0)
    observed = abs(float(theta(total[None])[0]))
    # Ties are ties although sums in another order differ in their last bits.
    slack = 1e-12 * (1 + observed)
    if observed <= slack:
        return 1.0

    def extreme(flips: Array) -> float:
        null = np.abs(theta(total + flips @ swap)) - observed
        return float((null > slack).sum() + (np.abs(null) <= slack).sum() / 2)

    if groups <= EXACT_GROUPS:
        patterns = np.arange(2**groups)[:, None] >> np.arange(groups) & 1
        # The observed pattern and its mirror are the ties that count whole.
        return (extreme(patterns.astype(np.float64)) + 1) / 2**groups
    hits = sum(
        extreme(rng.integers(2, size=(size, groups)).astype(np.float64))
        for size in _chunks(resamples, groups)
    )
    return (hits + 1) / (resamples + 1)


def jackknife_variance(parts: Array, theta: Theta) -> float:
    """Variance of theta over the parts, leaving out one at a time (Efron and Stein 1981)."""
    count = len(parts)
    left = theta(parts.sum(axis=0) - parts)
    return float((count - 1) / count * ((left - left.mean()) ** 2).sum())


@dataclass(frozen=True)
class StandardError:
    """A standard error, its degrees of freedom, and the variance that is due to seeds."""

    se: float
    df: float
    seed_variance: float


def standard_error(
    parts: Array, theta: Theta, systems: Sequence[Totals], one: Theta
) -> StandardError:
    """The standard error over groups and, where a system has several seeds, over its seeds.

    The variances add, with Satterthwaite's (1946) degrees of freedom. `one` is theta for a
    single system.
    """
    components = [(jackknife_variance(parts, theta), len(parts) - 1)]
    components += [
        (jackknife_variance(system.seeds, one), len(system.seeds) - 1)
        for system in systems
        if len(system.seeds) > 1
    ]
    total = sum(variance for variance, _ in components)
    below = sum(variance**2 / df for variance, df in components)
    df = total**2 / below if below else float(len(parts) - 1)
    return StandardError(math.sqrt(total), df, seed_variance=total - components[0][0])


def _chunks(resamples: int, groups: int) -> Iterator[int]:
    most = max(1, _CELLS // groups)
    for start in range(0, resamples, most):
        yield min(most, resamples - start)
