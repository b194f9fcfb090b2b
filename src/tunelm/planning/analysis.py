"""The whole cost-benefit analysis of a run as one dict: what cost.json holds."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any

from tunelm.planning.assumptions import FLAGS, Assumptions
from tunelm.planning.breakeven import break_even
from tunelm.planning.costs import FORMULA, TokenPrices
from tunelm.planning.facts import MACHINE, WITHOUT_MODEL, RouteFacts, RunFacts
from tunelm.planning.machines import Chosen
from tunelm.planning.passing import METHOD, passing_cost
from tunelm.planning.reckon import RouteCost, cheapest, reckon
from tunelm.planning.sensitivity import VARIED, Flip, Swing, swings
from tunelm.prices import STALE_DAYS, Price, is_stale

SCHEMA_VERSION = 1
Analysis = dict[str, Any]


def analyse(
    run: RunFacts, given: Assumptions, said: Sequence[str], chosen: Chosen, today: date
) -> Analysis:
    """The analysis.

    Args:
        run: what was measured.
        given: what is assumed.
        said: the names of the assumptions that the user gave; the others are defaults.
        chosen: the machine, as it was named and looked up.
        today: the day on which ends and ages of prices are reckoned.
    """
    done = [facts for facts in run.routes if facts.status == "done"]
    costs = {facts.name: reckon(facts, given, today) for facts in done}
    rivals = [facts for facts in done if not facts.control]
    ranked = {facts.name: costs[facts.name] for facts in rivals}
    found: Analysis = {
        "schema_version": SCHEMA_VERSION,
        "run": run.path,
        "task": run.task,
        "unit": run.unit,
        "metric": run.metric,
        "metric_best": run.best,
        "winner": run.winner,
        "n": run.n,
        "run_made": run.made.isoformat(),
        "made": today.isoformat(),
        "assumptions": _assumptions(given, said, chosen),
        "machine": chosen.name,
        "prices": _prices(rivals, costs, chosen, today),
        "routes": [_route(facts, costs.get(facts.name), given) for facts in run.routes],
        "cheapest": cheapest(ranked, given.volume),
        "cases": [],
        "break_even": _pairs(rivals, ranked),
        "lead": _lead(ranked, given.volume),
        "sensitivity": [_swing(swing) for swing in swings(rivals, given, today)],
        "other_calls": {"calls": run.other_calls, "usd": run.other_usd},
        "formula": FORMULA,
        "interval": METHOD,
    }
    found["warnings"] = _warnings(run, given, said, costs, chosen, found)
    return found


def _assumptions(given: Assumptions, said: Sequence[str], chosen: Chosen) -> list[dict[str, Any]]:
    def source(name: str) -> str:
        looked_up = name in ("usd_per_hour", "watts") and chosen.prices
        return "you" if name in said else "the price table" if looked_up else "default"

    titles = {varied.name: varied.title for varied in VARIED} | {"batch": "in batches"}
    return [
        {
            "name": field.name,
            "title": titles[field.name],
            "flag": FLAGS[field.name],
            "value": getattr(given, field.name),
            "from": source(field.name),
        }
        for field in dataclasses.fields(given)
        if getattr(given, field.name) is not None
    ]


# --- routes -----------------------------------------------------------------------------------


def _route(facts: RouteFacts, cost: RouteCost | None, given: Assumptions) -> dict[str, Any]:
    shared: dict[str, Any] = {
        "name": facts.name,
        "kind": facts.kind,
        "control": facts.control,
        "status": facts.status,
        "where": facts.where,
        "as_if": facts.as_if,
        "model": facts.model,
        "score": facts.score,
        "lost_calls": facts.lost_calls,
        "lost_usd": facts.lost_usd,
        "spent": [
            {"phase": s.phase, "item": s.item, "prompt": s.prompt, "completion": s.completion}
            for s in facts.spent
        ],
    }
    if cost is None:
        return shared | {"why": facts.status}
    month = cost.curve.at(given.volume) if cost.curve else None
    running = (month - cost.curve.base) / given.volume if cost.curve and month is not None else None
    return shared | {
        "prompt_tokens": facts.prompt,
        "cacheable_tokens": facts.cacheable,
        "cacheable_how": facts.cacheable_how,
        "completion_tokens": facts.completion,
        "turns": facts.turns,
        "seconds": facts.seconds,
        "seconds_a_month": _seconds_a_month(facts, given),
        "seeds": facts.seeds,
        "once": [dataclasses.asdict(part) for part in cost.once],
        "once_usd": cost.once_usd,
        "again_usd": cost.again,
        "refits": cost.refits,
        "months": cost.months,
        "ends": facts.ends.isoformat() if facts.ends else None,
        "ends_source": facts.ends_source,
        "one_more_usd": cost.per_unit,
        "running_usd": running,
        "running_usd_a_turn": running / facts.turns if running and facts.turns else running,
        "parts": [dataclasses.asdict(part) for part in cost.parts],
        "rent_a_month": cost.curve.rent if cost.curve else None,
        "busy": _busy(cost, given),
        "month_usd": month,
        "curve": _curve(cost),
        "passing": _passing(facts, cost, running, given),
        "passing_all_in": _passing(facts, cost, month and month / given.volume, given),
        "why": cost.why,
    }


def _seconds_a_month(facts: RouteFacts, given: Assumptions) -> float | None:
    """How long the machine works for a month's units, one at a time."""
    return None if facts.seconds is None else facts.seconds / given.speed * given.volume


def _curve(cost: RouteCost) -> dict[str, Any] | None:
    if cost.curve is None:
        return None
    kept = dataclasses.asdict(cost.curve)
    return kept | {"capacity": None if math.isinf(cost.curve.capacity) else cost.curve.capacity}


def _busy(cost: RouteCost, given: Assumptions) -> float | None:
    """The share of paid hours in which a machine that is all for this answers."""
    if cost.curve is None or not cost.curve.rent or math.isinf(cost.curve.capacity):
        return None
    return min(1.0, given.volume / cost.curve.capacity)


def _passing(
    facts: RouteFacts, cost: RouteCost, usd: float | None, given: Assumptions
) -> dict[str, Any]:
    if usd is None:  # how many pass is known all the same
        found = passing_cost(facts.answered, 0.0, None)
        unpriced = replace(found, usd=None, low=None, high=None, why=found.why or cost.why)
        return dataclasses.asdict(unpriced)
    hits = (facts.cacheable or 0.0) * given.cache_hit_rate
    return dataclasses.asdict(passing_cost(facts.answered, usd, cost.prices, hits))


def _pairs(rivals: Sequence[RouteFacts], costs: Mapping[str, RouteCost]) -> list[dict[str, Any]]:
    """From which volume on the second costs less than the first; report order."""
    found: list[dict[str, Any]] = []
    for a, b in itertools.combinations(rivals, 2):
        first, second = costs[a.name], costs[b.name]
        row: dict[str, Any] = {"first": a.name, "second": b.name, "kind": None, "spans": []}
        if first.curve is None or second.curve is None:
            unknown = a.name if first.curve is None else b.name
            found.append(row | {"why": f"{unknown}: {costs[unknown].why}"})
            continue
        even = break_even(first.curve, second.curve)
        months = min(first.months, second.months)
        row["kind"] = even.kind
        row["spans"] = [[low, None if math.isinf(high) else high] for low, high in even.spans]
        row["months"] = months
        found.append(row | {"why": ""})
    return found


def _lead(costs: Mapping[str, RouteCost], volume: float) -> float | None:
    """What the next route costs more than the cheapest, a month; None where there is no next."""
    known = sorted(cost.curve.at(volume) for cost in costs.values() if cost.curve)
    return known[1] - known[0] if len(known) > 1 else None


def _swing(swing: Swing) -> dict[str, Any]:
    def flip(one: Flip | None) -> dict[str, Any] | None:
        return dataclasses.asdict(one) if one else None

    def finite(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return {
        "name": swing.varied.name,
        "title": swing.varied.title,
        "flag": FLAGS[swing.varied.name],
        "value": swing.value,
        "low": swing.low,
        "high": swing.high,
        "lead_low": finite(swing.lead_low),
        "lead_high": finite(swing.lead_high),
        "below": flip(swing.below),
        "above": flip(swing.above),
    }


# --- prices and what one must know ------------------------------------------------------------


def _prices(
    rivals: Sequence[RouteFacts], costs: Mapping[str, RouteCost], chosen: Chosen, today: date
) -> list[dict[str, Any]]:
    """Every price that was used, with its source and day."""
    rows: list[dict[str, Any]] = []
    for facts in rivals:
        used = costs[facts.name].prices
        prices = [used] if used else []
        prices += [s.prices for s in facts.spent if s.prices and s.prices is not facts.prices]
        rows += [_tokens_row(facts, price, today) for price in prices]
        if facts.hosting is not None:
            rows.append(_listed_row(f"{facts.name}: its deployment", facts.hosting, today))
        if facts.training is not None:
            rows.append(_listed_row(facts.name, facts.training, today))
    rows += [_listed_row(str(chosen.name), price, today) for price in chosen.prices]
    rows += [_listed_row(f"{chosen.name}, not used", p, today) for p in chosen.others]
    unique: dict[str, dict[str, Any]] = {}
    for row in rows:
        unique.setdefault(f"{row['figure']}|{row['source']}|{row['as_of']}", row)
    return list(unique.values())


def _tokens_row(facts: RouteFacts, price: TokenPrices, today: date) -> dict[str, Any]:
    cached = "" if price.usd_cached_in is None else f", {price.usd_cached_in:g} in from a cache"
    figure = f"{price.usd_in:g} in{cached}, {price.usd_out:g} out, USD per 1M tokens"
    row = _row(f"{facts.name}: answers", figure, price.source, price.as_of, today)
    return row | {"listed": True}


def _listed_row(what: str, price: Price, today: date) -> dict[str, Any]:
    value = "unknown" if price.value is None else f"{price.value:g}"
    note = f"; {price.note}" if price.note else ""
    checked = "" if price.verified else ", not verified"
    kind = {"gpu": "rent", "host": "rent", "hosting": "an hour"}.get(price.method, price.method)
    row = _row(f"{what}: {kind}", f"{value} {price.unit}", price.source, price.as_of, today)
    row["note"] = f"{price.provider}{checked}{note}"
    # what a card draws does not grow old
    return row | {"stale": False} if price.method == "power" else row


def _row(what: str, figure: str, source: str, as_of: date | None, today: date) -> dict[str, Any]:
    return {
        "what": what,
        "figure": figure,
        "source": source,
        "as_of": as_of.isoformat() if as_of else None,
        "stale": as_of is not None and is_stale(as_of, today),
        "listed": False,
        "note": "",
    }


def _warnings(
    run: RunFacts,
    given: Assumptions,
    said: Sequence[str],
    costs: Mapping[str, RouteCost],
    chosen: Chosen,
    found: Analysis,
) -> list[str]:
    told: list[str] = []
    if "volume" not in said:
        told.append(
            f"The volume is assumed: {given.volume:,.0f} {run.unit}s a month. Yours: "
            f"--{'conversations' if run.unit == 'conversation' else 'requests'}-a-month"
        )
    for row in found["prices"]:
        if row["stale"] and not row["what"].endswith(", not used: rent"):
            told.append(
                f"A price is older than {STALE_DAYS} days, of {row['as_of']}: {row['what']}, "
                f"{row['figure']}. Look it up anew"
                + (": tunelm prices --update" if row["listed"] else f" at {row['source']}")
            )
    told += _route_warnings(run, given, costs)
    if chosen.name and any(r.where == MACHINE and r.seconds for r in run.routes):
        told.append(
            f"How long an answer takes was measured on the machine of the run, one at a time, and "
            f"not on {chosen.name}: --speed says how many times as fast that is."
        )
    spare = [r.name for r in run.routes if r.kind in WITHOUT_MODEL and not r.control]
    if given.usd_per_hour is not None and spare:
        told.append(
            f"{', '.join(spare)} answer{'s' if len(spare) == 1 else ''} without a language model, "
            "and would do so on any machine: what it is reckoned with here is the rent of the "
            "models' machine."
        )
    whys = {r.answered.why for r in run.routes if r.answered and r.answered.passes is None}
    told += [f"No cost of a passing {run.unit}: {why}." for why in sorted(whys)]
    if run.other_calls:
        told.append(
            f"{run.other_calls} paid calls of ${run.other_usd:.4g} belong to no route of the run, "
            "such as a judge's: they are in no route's cost."
        )
    return told


def _route_warnings(run: RunFacts, given: Assumptions, costs: Mapping[str, RouteCost]) -> list[str]:
    """What is to be known of routes, once for all of which it holds."""
    told: dict[str, list[str]] = {}
    for facts in run.routes:
        for text in _of_route(facts, given, costs.get(facts.name)):
            told.setdefault(text, []).append(facts.name)
    return [f"{', '.join(names)}: {text}" for text, names in told.items()]


def _of_route(facts: RouteFacts, given: Assumptions, cost: RouteCost | None) -> Iterator[str]:
    if cost is None:
        if facts.lost_calls or facts.spent:
            yield f"{facts.status}; what was spent on it buys nothing."
        return
    if facts.control:
        return
    if cost.months < given.months and cost.months > 0:
        yield (
            f"{facts.model} shuts down on {facts.ends} ({facts.ends_source}), so what is paid once "
            f"is spread over {cost.months:.1f} months, not {given.months:g}."
        )
    if facts.prices is None:
        return
    if given.cache_hit_rate and facts.cacheable == 0:
        least = facts.prices.least_prefix
        yield (
            f"nothing is cached: prefixes of fewer than {least:,} tokens are not."
            if least
            else (f"nothing is cached: {facts.cacheable_how}.")
        )
    elif given.cache_hit_rate and (facts.prices.usd_cached_in is None or given.batch):
        yield "no price from a cache is known, so all tokens cost in full."
    if given.batch and facts.prices.in_batches() is None:
        yield "no price in batches is known, so the usual one is taken."
