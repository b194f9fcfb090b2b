"""Which assumption flips the answer: one at a time, all others as they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date

from tunelm.planning.assumptions import Assumptions, within
from tunelm.planning.facts import RouteFacts
from tunelm.planning.reckon import RouteCost, cheapest, reckon

_STEPS = 200
_HALVINGS = 60
_WIDE = 1e4
"""How many times as large or small a value is looked at, to find where the answer flips."""


@dataclass(frozen=True, slots=True)
class Varied:
    """An assumption that is varied: its name, what it is called, and its usual range.

    `share` marks one between 0 and 1, whose range is all of that.
    """

    name: str
    title: str
    factor: float = 2.0
    share: bool = False


VARIED = (
    Varied("volume", "volume a month", 10),
    Varied("cache_hit_rate", "cache hit rate", share=True),
    Varied("token_prices", "prices of tokens, times"),
    Varied("usd_per_hour", "rent, USD an hour"),
    Varied("utilization", "utilization", share=True),
    Varied("speed", "speed of the machine, times"),
    Varied("watts", "power, W"),
    Varied("usd_per_kwh", "price of power, USD a kWh"),
    Varied("hardware_usd", "price of the machine, USD"),
    Varied("hardware_months", "life of the machine, months"),
    Varied("months", "months for what is paid once"),
    Varied("retrain_every", "months between two fits"),
    Varied("hours", "hours of work on the data"),
    Varied("usd_an_hour", "USD an hour of work"),
)


@dataclass(frozen=True, slots=True)
class Flip:
    """The value nearest to the one assumed at which another route becomes the cheapest."""

    value: float
    route: str


@dataclass(frozen=True, slots=True)
class Swing:
    """What varying one assumption does to the lead of the cheapest route.

    Leads are dollars a month that the next route costs more; below 0 the cheapest no longer is.
    """

    varied: Varied
    value: float
    low: float
    high: float
    lead_low: float
    lead_high: float
    below: Flip | None
    above: Flip | None


def swings(routes: Sequence[RouteFacts], given: Assumptions, today: date) -> list[Swing]:
    """Each assumption that is said and changes anything, the one that moves the lead most first.

    None of them where fewer than two routes have a known cost.
    """

    def costs(assumed: Assumptions) -> dict[str, RouteCost]:
        return {facts.name: reckon(facts, assumed, today) for facts in routes}

    now = costs(given)
    best = cheapest(now, given.volume)
    if best is None or sum(c.curve is not None for c in now.values()) < 2:
        return []
    found: list[Swing] = []
    for varied in VARIED:
        value = getattr(given, varied.name)
        if value is None or (not value and not varied.share):
            continue
        found.append(_swing(varied, float(value), best, given, costs))
    found = [s for s in found if s.lead_low != s.lead_high or s.below or s.above]
    return sorted(found, key=lambda s: -abs(s.lead_high - s.lead_low))


Costs = Callable[[Assumptions], dict[str, RouteCost]]


def _swing(varied: Varied, value: float, best: str, given: Assumptions, costs: Costs) -> Swing:
    def winner(at: float) -> str:
        assumed = _with(given, varied, at)
        return cheapest(costs(assumed), assumed.volume) or best

    def lead(at: float) -> float:
        assumed = _with(given, varied, at)
        known = {
            name: c.curve.at(assumed.volume)
            for name, c in costs(assumed).items()
            if c.curve is not None
        }
        others = [usd for name, usd in known.items() if name != best]
        return min(others, default=math.inf) - known[best]

    if varied.share:
        low, high = (0.05, 1.0) if varied.name == "utilization" else (0.0, 1.0)
        grid = [low + (high - low) * i / _STEPS for i in range(_STEPS + 1)]
    else:
        low, high = value / varied.factor, value * varied.factor
        grid = [value * _WIDE ** (2 * i / _STEPS - 1) for i in range(_STEPS + 1)]
    below = _flip([x for x in reversed(grid) if x < value], value, best, winner)
    above = _flip([x for x in grid if x > value], value, best, winner)
    return Swing(varied, value, low, high, lead(low), lead(high), below, above)


def _with(given: Assumptions, varied: Varied, value: float) -> Assumptions:
    return replace(given, **{varied.name: within(varied.name, value)})


def _flip(
    grid: Sequence[float], start: float, best: str, winner: Callable[[float], str]
) -> Flip | None:
    """The first value along the grid, by halving, at which `best` no longer wins."""
    inside = start
    for outside in grid:
        if winner(outside) != best:
            for _ in range(_HALVINGS):
                middle = (inside + outside) / 2
                if winner(middle) == best:
                    inside = middle
                else:
                    outside = middle
            return Flip(outside, winner(outside))
        inside = outside
    return None
