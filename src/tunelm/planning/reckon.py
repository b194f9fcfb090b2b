"""Facts of a run and a set of assumptions become what each route costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date

from tunelm.planning.assumptions import Assumptions
from tunelm.planning.costs import (
    HOURS_A_MONTH,
    Curve,
    TokenPrices,
    machine_share,
    months_until,
    retrainings,
)
from tunelm.planning.facts import MACHINE, RouteFacts

NO_MACHINE = "unknown: give --watts and --usd-per-kwh, or --gpu"
"""What stands for a route on this machine while nobody says what it costs."""

DATA, MACHINE_TIME, LOST = "work on the data", "machine time", "failed or uncounted calls, at most"


@dataclass(frozen=True, slots=True)
class Part:
    """One part of what is paid once. `usd` None: unknown, and `how` says why."""

    item: str
    usd: float | None
    how: str


@dataclass(frozen=True, slots=True)
class RouteCost:
    """What a route costs under one set of assumptions.

    Attributes:
        once: the parts of what is paid once.
        again: what one fit more costs, tests included.
        refits: how many of these fall into the months.
        months: over which all that is spread; 0: the model is gone by now.
        per_unit: the running cost of a unit, without idle hours.
        parts: the same by part: prompt, prefix from a cache, output, machine.
        curve: the whole, a month; None where anything of it is unknown, and then `why`.
        prices: those of its tokens as they are used, batches and factors applied.
    """

    once: tuple[Part, ...]
    again: float | None
    refits: int
    months: float
    per_unit: float | None
    parts: tuple[Part, ...]
    curve: Curve | None
    why: str = ""
    prices: TokenPrices | None = None

    @property
    def once_usd(self) -> float | None:
        """All that is paid once."""
        return _sum([part.usd for part in self.once])


def reckon(facts: RouteFacts, given: Assumptions, today: date) -> RouteCost:
    """What one finished route costs."""
    once = _once(facts, given)
    parts, running, prices, why = _running(facts, given)
    months = given.months
    if facts.ends is not None:
        months = min(months, months_until(facts.ends, today))
    again = _again(facts, once)
    refits = retrainings(months, given.retrain_every) if facts.learns else 0
    if months <= 0:
        why = f"{facts.model} shut down on {facts.ends}"
    fixed = _sum([part.usd for part in once])
    if fixed is None:
        why = why or next(part.how for part in once if part.usd is None)
    if refits and again is None:
        why = why or "unknown: what fitting it again costs"
    curve = None
    if not why and running is not None and fixed is not None:
        curve = replace(running, base=(fixed + refits * (again or 0.0)) / months)
    per_unit = _sum([part.usd for part in parts]) if parts else None
    return RouteCost(once, again, refits, months, per_unit, parts, curve, why, prices)


def cheapest(costs: dict[str, RouteCost], volume: float) -> str | None:
    """The route that costs least a month; None where no cost is known."""
    known = {name: c.curve.at(volume) for name, c in costs.items() if c.curve is not None}
    return min(known, key=lambda name: known[name]) if known else None


def _once(facts: RouteFacts, given: Assumptions) -> tuple[Part, ...]:
    found: list[Part] = []
    if given.hours is not None and given.usd_an_hour is not None and facts.learns:
        usd = given.hours * given.usd_an_hour
        found.append(Part(DATA, usd, f"{given.hours:g} h x ${given.usd_an_hour:g}"))
    by_item: dict[str, list[Part]] = {}
    for spent in facts.spent:
        if spent.on_machine:
            continue
        usd = spent.usd(given.token_prices)
        how = "measured tokens x list price" if usd is not None else _why_not(spent.why)
        by_item.setdefault(spent.item, []).append(Part(spent.item, usd, how))
    for item, parts in by_item.items():
        how = next((p.how for p in parts if p.usd is None), parts[0].how)
        found.append(Part(item, _sum([p.usd for p in parts]), how))
    if facts.where == MACHINE and not facts.control and facts.learns:
        found.append(_machine_time(facts, given))
    if facts.lost_calls:
        how = f"{facts.lost_calls} calls of which no cost was reported, at their worst case"
        found.append(Part(LOST, facts.lost_usd, how))
    return tuple(found)


def _why_not(why: str) -> str:
    return f"unknown: {why or 'some requests ended without a count of tokens'}"


def _machine_time(facts: RouteFacts, given: Assumptions) -> Part:
    machine = given.machine
    if facts.fit_seconds is None:
        return Part(MACHINE_TIME, None, "unknown: how long fitting took was not measured")
    seconds = facts.fit_seconds / given.speed
    if machine is None:
        return Part(MACHINE_TIME, None, f"{seconds:.4g} s of fitting; {NO_MACHINE}")
    return Part(MACHINE_TIME, machine.working(seconds), f"{seconds:.4g} s of fitting")


def _again(facts: RouteFacts, once: Sequence[Part]) -> float | None:
    """One seed's share of fitting and testing; people's work and failed calls are not repeated."""
    repeated = [part.usd for part in once if part.item not in (DATA, LOST)]
    total = _sum(repeated)
    return None if total is None else total / facts.seeds


def _running(
    facts: RouteFacts, given: Assumptions
) -> tuple[tuple[Part, ...], Curve | None, TokenPrices | None, str]:
    """(parts of a unit, the curve without what is paid once, prices used, why not)."""
    if facts.where == MACHINE:
        machine = given.machine
        if machine is None:
            return (), None, None, NO_MACHINE
        if facts.seconds is None:
            return (), None, None, "unknown: how long an answer takes was not measured"
        share = machine_share(machine, facts.seconds / given.speed)
        seconds = f"{facts.seconds / given.speed:.4g} s of the machine, one at a time"
        return (Part("machine", share.per_unit, seconds),), share, None, ""
    prices, how = _prices(facts, given)
    if prices is None:
        return (), None, None, _why_not(facts.why)
    if facts.prompt is None or facts.completion is None or facts.cacheable is None:
        return (), None, prices, _why_not("")
    hits = facts.cacheable * given.cache_hit_rate if prices.usd_cached_in is not None else 0.0
    fresh = facts.prompt - hits
    parts = (
        Part("prompt", prices.cost(fresh, 0), f"{fresh:,.1f} tokens{how}"),
        Part("prefix from a cache", prices.cost(hits, 0, hits), f"{hits:,.1f} tokens"),
        Part("output", prices.cost(0, facts.completion), f"{facts.completion:,.1f} tokens{how}"),
    )
    rent, why = 0.0, ""
    if facts.hosting is not None:
        hour = facts.hosting.value if given.usd_per_hour is None else given.usd_per_hour
        if hour is None:
            why = (
                f"unknown: what an hour of its deployment costs ({facts.hosting.source}). Give "
                "--gpu-usd-per-hour"
            )
        rent = (hour or 0.0) * HOURS_A_MONTH
    curve = Curve(0.0, sum(part.usd or 0.0 for part in parts), rent)
    return parts, None if why else curve, prices, why


def _prices(facts: RouteFacts, given: Assumptions) -> tuple[TokenPrices | None, str]:
    if facts.prices is None:
        return None, ""
    found, how = facts.prices, ""
    if given.batch:
        batches = found.in_batches()
        found, how = (batches, " in batches") if batches else (found, "; no price of batches")
    return found.times(given.token_prices), how


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
