"""Dollars for an answer that passes, with an interval by group bootstrap."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tunelm.planning.costs import TokenPrices
from tunelm.planning.facts import Answered, Array
from tunelm.scoring.statistics import interval

METHOD = (
    "passes a dollar, by the group bootstrap of the scores (groups drawn with both their passes "
    "and their costs), turned over: its limits stay finite where a ratio of dollars to passes has "
    "none"
)


@dataclass(frozen=True, slots=True)
class PassingCost:
    """Dollars for one passing unit; None is unknown, or for `high`, without a limit.

    `share` is the share that passes, of `n` rows in `n_groups` groups.
    """

    usd: float | None
    low: float | None
    high: float | None
    share: float | None
    n: int
    n_groups: int
    why: str = ""


def passing_cost(
    answered: Answered | None,
    usd_a_unit: float,
    prices: TokenPrices | None,
    cached: float = 0.0,
) -> PassingCost:
    """What a passing unit costs.

    Args:
        answered: the test rows; None: nothing was answered.
        usd_a_unit: the mean cost of a unit, idle hours and one-off costs included if they are to
            be.
        prices: of its tokens, so that a row that took more costs more; None: all cost the same.
        cached: tokens a unit read from a cache.
    """
    if answered is None or answered.passes is None:
        return PassingCost(None, None, None, None, 0, 0, answered.why if answered else "no answers")
    costs = _costs(answered, usd_a_unit, prices, cached)
    stats = np.stack([answered.passes, costs], axis=-1)
    known = ~np.isnan(stats).any(axis=2)
    n, groups = int(known.any(axis=0).sum()), len(set(answered.groups))
    if not known.any():
        return PassingCost(None, None, None, None, 0, 0, "no row was scored")
    share = float(answered.passes[known].mean())
    if not share:
        return PassingCost(None, None, None, share, n, groups, f"none of {n} test rows passed")
    if not costs[known].sum():
        return PassingCost(0.0, None, None, share, n, groups)
    found = interval(stats, answered.groups)
    return PassingCost(
        _over(found.value), _over(found.high), _over(found.low), share, n, found.n_groups
    )


def _costs(
    answered: Answered, usd_a_unit: float, prices: TokenPrices | None, cached: float
) -> Array:
    """Dollars of each row: by its tokens where they are priced, moved to the mean that is given."""
    shape = answered.prompt.shape
    if prices is None:
        return np.full(shape, usd_a_unit)
    rows = prices.cost(answered.prompt, answered.completion, cached)  # pyright: ignore[reportArgumentType]
    costs = np.asarray(rows, dtype=float)
    costs = np.where(np.isnan(costs), np.nanmean(costs) if not np.isnan(costs).all() else 0, costs)
    return np.maximum(costs + usd_a_unit - costs.mean(), 0.0)


def _over(value: float | None) -> float | None:
    return None if value is None or value <= 0 or math.isinf(value) else 1 / value
