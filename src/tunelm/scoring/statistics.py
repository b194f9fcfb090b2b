"""Intervals, paired tests and verdicts, all by group.

Rows of one group (paraphrases of one fact, turns of one dialogue) are not independent, so
groups are what is resampled, flipped and counted. Statistics are arrays (n rows, d) or
(S seeds, n rows, d) as `tunelm.scoring.metrics.row_statistics` makes them; a row of NaN was
not scored and is left out, never zero. Several seeds are pooled, and what they differ by
becomes part of the interval and of p. The same input and seed give the same result.

Every value is None where it cannot be known: no row was scored, or fewer than two groups.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from tunelm.scoring.metric import ratio
from tunelm.scoring.resampling import (
    Aggregate,
    Array,
    StandardError,
    Theta,
    Totals,
    as_stats,
    bootstrap,
    difference_of,
    flip_p,
    known_rows,
    standard_error,
    sum_groups,
    theta_of,
)

ALPHA = 0.05
POWER = 0.8
RESAMPLES = 10_000

Verdict = Literal["better", "worse", "not distinguishable"]


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its 95% interval, from `n` scored rows in `n_groups` groups."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    n_groups: int


@dataclass(frozen=True, slots=True)
class Paired:
    """A's value less B's on the `n` rows that both scored, with its 95% interval and p.

    `agrees` is False where interval and p point different ways at 5%.
    """

    diff: float | None
    low: float | None
    high: float | None
    p: float | None
    n: int
    n_groups: int
    agrees: bool


def interval(
    stats: ArrayLike,
    groups: Sequence[Hashable],
    aggregate: Aggregate = ratio,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    scale: float | None = None,
) -> Interval:
    """The value of one system over all scored rows, with its 95% interval.

    A percentile interval of the group bootstrap, corrected for the two things that make the
    plain one too narrow when groups are few (Hesterberg 2015, The American Statistician 69,
    371-386): G - 1 groups are drawn instead of G, and the limits are moved away from the
    value by t / z, Student's quantile over the normal one. Percentiles keep the skew that
    `value +- t * se` loses. With several seeds, normal deviates with the jackknife variance
    over seeds are added to the resampled values, and t has Satterthwaite's degrees of
    freedom: resampling two or three seeds would give only a handful of values.

    Args:
        stats: (n, d) or (S, n, d).
        groups: the group of each of the n rows.
        aggregate: from summed statistics to the value: a metric's `aggregate`.
        seed: of the resampling.
        resamples: number of bootstrap samples.
        scale: the metric's best value; the interval is then kept between 0 and it, and a mean
            of exactly 0 or `scale`, where resampling sees no variation, gets the exact
            binomial limit for 0 of G groups (Clopper and Pearson 1934).

    Raises:
        ConfigError: `stats` and `groups` do not fit together.
    """
    system = sum_groups(as_stats(stats, groups), groups)
    theta, count = theta_of(aggregate), len(system.parts)
    if not count:
        return Interval(None, None, None, 0, 0)
    value = _at_total(system.parts, theta)
    if math.isnan(value):  # a share of no rows
        return Interval(None, None, None, system.n, count)
    if count < 2:
        return Interval(value, None, None, system.n, count)
    error = standard_error(system.parts, theta, [system], theta)
    low, high = _limits(system.parts, theta, error, seed, resamples)
    if scale is not None:
        low, high = _on_scale(value, (low, high), count, aggregate, (0.0, scale))
    return Interval(value, low, high, system.n, count)


def paired(
    a_stats: ArrayLike,
    b_stats: ArrayLike,
    groups: Sequence[Hashable],
    aggregate: Aggregate = ratio,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    scale: float | None = None,
) -> Paired:
    """Compare two systems on the same rows: A's value less B's, its 95% interval and p.

    Rows that a system failed on (under any seed) are left out for both. p is that of the
    group sign-flip test, two-sided: in every group the two systems' statistics are swapped
    or not, which for a mean flips the sign of the group's difference. The interval is that of
    `interval`, for the difference, with the same groups drawn for both.

    Flipping takes the trained models as given. Where a system has several seeds the claim is
    about its training, so p is then the larger of the flip test's and of the t test's with
    the variance over seeds in its standard error.

    Args:
        a_stats: (n, d) or (S, n, d).
        b_stats: the same rows; the number of seeds may be another.
        groups: the group of each of the n rows.
        aggregate: from summed statistics to the value: a metric's `aggregate`.
        seed: of the resampling.
        resamples: number of bootstrap samples, and of random flips.
        scale: the metric's best value; the interval is then kept between -`scale` and it, and
            where the systems never differ, or in all groups as much as they can, it gets the
            limits that `interval` gives a mean without variation.

    Raises:
        ConfigError: statistics and `groups` do not fit together.
    """
    a, b = _pair(a_stats, b_stats, groups)
    parts, count = np.concatenate([a.parts, b.parts], axis=1), len(a.parts)
    theta = difference_of(aggregate)
    if not count:
        return Paired(None, None, None, None, 0, 0, True)
    diff = _at_total(parts, theta)
    if count < 2:
        return Paired(diff, None, None, None, a.n, count, True)
    error = standard_error(parts, theta, [a, b], theta_of(aggregate))
    low, high = _limits(parts, theta, error, seed, resamples)
    if scale is not None:
        low, high = _on_scale(diff, (low, high), count, aggregate, (-scale, scale))
    p = flip_p(parts, theta, resamples, np.random.default_rng([seed, 1]))
    if len(a.seeds) > 1 or len(b.seeds) > 1:
        p = max(p, _t_test_p(diff, error))
    agrees = (p <= ALPHA) == (low > 0 or high < 0)
    return Paired(diff, low, high, p, a.n, count, agrees)


def mde(
    a_stats: ArrayLike,
    b_stats: ArrayLike,
    groups: Sequence[Hashable],
    aggregate: Aggregate = ratio,
) -> float | None:
    """The smallest true difference that this paired comparison would find 4 times in 5.

    (t(.975) + t(.8)) times the standard error of the difference by group (and seed): the
    usual formula for 80% power at a two-sided 5% (Bloom 1995, Evaluation Review 19, 547-556).
    Without Holm's correction, which needs more. None with fewer than two groups.
    """
    from scipy.special import stdtrit

    a, b = _pair(a_stats, b_stats, groups)
    if len(a.parts) < 2:
        return None
    parts = np.concatenate([a.parts, b.parts], axis=1)
    error = standard_error(parts, difference_of(aggregate), [a, b], theta_of(aggregate))
    return float(stdtrit(error.df, 1 - ALPHA / 2) + stdtrit(error.df, POWER)) * error.se


def unseen_share(groups: int) -> float:
    """The most groups, as a share, that may be unlike all of those seen.

    The exact binomial limit for 0 of G (Clopper and Pearson 1934, Biometrika 26, 404-413).

    >>> round(unseen_share(30), 3)
    0.116
    """
    return 1 - (ALPHA / 2) ** (1 / groups)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's (1979) adjusted p-values, in the order given; an unknown p is no test.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        adjusted[i] = largest
    return adjusted


def verdict(diff: float | None, p_holm: float | None) -> Verdict:
    """What may be said of A beside B at 5%.

    >>> verdict(0.2, 0.01), verdict(-0.2, 0.01), verdict(0.2, 0.06), verdict(0.2, None)
    ('better', 'worse', 'not distinguishable', 'not distinguishable')
    """
    if diff is None or p_holm is None or p_holm > ALPHA or diff == 0:
        return "not distinguishable"
    return "better" if diff > 0 else "worse"


def _at_total(parts: Array, theta: Theta) -> float:
    return float(theta(parts.sum(axis=0)[None])[0])


def _pair(
    a_stats: ArrayLike, b_stats: ArrayLike, groups: Sequence[Hashable]
) -> tuple[Totals, Totals]:
    """Both systems on the rows that both always scored, each weighing the same in all."""
    a, b = as_stats(a_stats, groups), as_stats(b_stats, groups)
    both = np.logical_and.reduce(known_rows(np.concatenate([a, b])))
    kept = [group for group, keep in zip(groups, both.tolist(), strict=True) if keep]
    # Whole factors, and not means over seeds: BLEU's smoothing wants counts.
    common = math.lcm(len(a), len(b))
    return (
        sum_groups(a[:, both], kept).times(common // len(a)),
        sum_groups(b[:, both], kept).times(common // len(b)),
    )


def _limits(
    parts: Array, theta: Theta, error: StandardError, seed: int, resamples: int
) -> tuple[float, float]:
    from scipy.special import ndtri, stdtrit

    rng = np.random.default_rng([seed, 0])
    values = bootstrap(parts, theta, resamples, rng)
    if error.seed_variance:
        values = values + rng.normal(0.0, math.sqrt(error.seed_variance), resamples)
    centre = _at_total(parts, theta)
    low, high = np.quantile(values, [ALPHA / 2, 1 - ALPHA / 2])
    stretch = float(stdtrit(error.df, 1 - ALPHA / 2) / ndtri(1 - ALPHA / 2))
    return centre + stretch * (float(low) - centre), centre + stretch * (float(high) - centre)


def _on_scale(
    value: float,
    limits: tuple[float, float],
    groups: int,
    aggregate: Aggregate,
    scale: tuple[float, float],
) -> tuple[float, float]:
    """The limits, kept between the least and the most that there is.

    Where a mean of 0 or of either end shows no variation, what groups unlike those seen leave open.
    """
    (low, high), (least, most) = limits, scale
    if low == high and aggregate is ratio and value in (least, 0, most):
        share = unseen_share(groups)
        low, high = value + share * (least - value), value + share * (most - value)
    return max(low, least), min(high, most)


def _t_test_p(diff: float, error: StandardError) -> float:
    from scipy.special import stdtr

    if not error.se:
        return 1.0 if diff == 0 else 0.0
    return float(2 * stdtr(error.df, -abs(diff) / error.se))
