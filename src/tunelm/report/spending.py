"""What a route cost in tokens, time and memory, and how good its forecast was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from tunelm.report.read import EVALUATED, RouteRun, SeedRun
from tunelm.types import Usage

NO_PRICE = "no price is known for computing on one's own machine"

LATENCY = ("time_to_first_token", "seconds_per_answer", "tokens_per_second")

Quantity = dict[str, Any]
"""An Estimate as a dict: value (None is unknown), unit, method, low, high."""


def usage_by_phase(route: RouteRun) -> dict[str, dict[str, int | None]]:
    """Tokens by phase, over all seeds: all of them were spent, those of failed seeds too."""
    total: dict[str, Usage] = {}
    for seed in route.seeds:
        phases = dict(seed.fit.get("usage", {}))
        evaluated = seed.fit.get("evaluate_usage", {})
        phases |= {f"evaluate_{part}": usage for part, usage in evaluated.items()}
        for phase, usage in phases.items():
            spent = Usage(**usage)
            total[phase] = total[phase] + spent if phase in total else spent
    return {
        phase: {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "cached_tokens": usage.cached_tokens,
        }
        for phase, usage in total.items()
    }


def cost(route: RouteRun) -> tuple[Quantity | None, str | None]:
    """(US dollars for all the tokens of a route behind an API, None), or (None, why not).

    Measured tokens times the prices of the task file, or the price list's where it has none;
    cached tokens at the full price.
    """
    if route.backend is not None:
        return _cost_of_job(route)
    endpoint = endpoint_of(route)
    if endpoint is None:
        return _cost_of_help(route)
    usd_in, usd_out = endpoint["prices"]["usd_in"], endpoint["prices"]["usd_out"]
    if usd_in is None or usd_out is None:
        return None, "no price of its endpoint is given (usd_per_million_in and _out)"
    usd = _dollars(list(usage_by_phase(route).values()), usd_in, usd_out)
    if usd is None:
        return None, _UNCOUNTED
    source = endpoint["prices"].get("source", "the prices given")
    return _measured_usd(usd, f"measured: tokens reported, x {source}"), None


def _cost_of_help(route: RouteRun) -> tuple[Quantity | None, str | None]:
    """What the endpoints that a local route asked for help cost: a proposer, a teacher.

    `detail["paid"]` says, by phase, which endpoint answered and at what prices.
    """
    paid: dict[str, Any] = {}
    for seed in route.seeds:
        paid |= seed.detail.get("paid", {})
    if not paid:
        return None, NO_PRICE
    usage, usd = usage_by_phase(route), 0.0
    for phase, endpoint in paid.items():
        prices = endpoint["prices"]
        part = _dollars([usage.get(phase, {})], prices["usd_in"], prices["usd_out"])
        if part is None:
            return None, f"no price, or no count of tokens, of {endpoint['model']} ({phase})"
        usd += part
    names = ", ".join(endpoint["model"] for endpoint in paid.values())
    return _measured_usd(usd, f"measured: tokens of {names} x its prices; {NO_PRICE}"), None


def _cost_of_job(route: RouteRun) -> tuple[Quantity | None, str | None]:
    """What a job of fine-tuning and its answers cost, as `cost`; on one's own machine it is what
    they would at the list price that the task file names.
    """  # noqa: D205
    found = [seed.detail["prices"] for seed in route.seeds if "prices" in seed.detail]
    prices, phases = found[0], usage_by_phase(route)
    if route.backend == "local" and prices["listed"] is None:
        return None, f"{NO_PRICE}; price_as names whose list price to show instead"
    trained = _dollars([phases.pop("train", {})], prices["usd_train"], 0.0)
    answered = _dollars(list(phases.values()), prices["usd_in"], prices["usd_out"])
    if trained is None or answered is None:
        what = "training" if prices["usd_train"] is None else "its answers"
        priced = prices["usd_train"] is not None and prices["usd_in"] is not None
        return None, _UNCOUNTED if priced else f"no price of {what} is known"
    method = f"measured: tokens reported, x {prices['source']}"
    if prices["listed"] is not None:
        method = (
            f"list price of {prices['listed']} x the tokens counted here, no bill: "
            f"{prices['source']}"
        )
    return _measured_usd(trained + answered, method), None


_UNCOUNTED = "some requests ended without a count of tokens; see spending.jsonl of the run"


def _dollars(
    phases: Sequence[Mapping[str, int | None]], usd_in: float | None, usd_out: float | None
) -> float | None:
    """Dollars for the tokens of some phases; None where a price, or a count that costs, is not."""
    if usd_in is None or usd_out is None:
        return None
    usd = 0.0
    for phase in phases if usd_in or usd_out else ():
        prompt, completion = phase.get("prompt_tokens"), phase.get("completion_tokens")
        if prompt is None or completion is None:
            return None
        usd += (prompt * usd_in + completion * usd_out) / 1e6
    return usd


def _measured_usd(usd: float, method: str) -> Quantity:
    return {"value": usd, "unit": "USD", "method": method, "low": None, "high": None}


def endpoint_of(route: RouteRun) -> Mapping[str, Any] | None:
    """Which endpoint answered: model, base_url, prices; None for a model on this machine."""
    found = [seed.detail["endpoint"] for seed in route.finished if "endpoint" in seed.detail]
    return found[0] if found else None


def tokens_per_answer(route: RouteRun) -> dict[str, float | None]:
    """Prompt and completion tokens of one answer, on average over answered rows, by part."""
    return {part: _tokens_an_answer(route.finished, part) for part in EVALUATED}


def _tokens_an_answer(seeds: Sequence[SeedRun], part: str) -> float | None:
    counts: list[int] = []
    for seed in seeds:
        for row in seed.predictions[part]:
            if row.output is None:
                continue
            usage = row.usage
            if usage.prompt_tokens is None or usage.completion_tokens is None:
                return None
            counts.append(usage.prompt_tokens + usage.completion_tokens)
    return fmean(counts) if counts else None


def measured(route: RouteRun) -> dict[str, Quantity]:
    """What was measured; over several seeds the mean, with the least and most beside it."""
    runs = [seed.fit.get("measured", {}) for seed in route.finished]
    names = dict.fromkeys(name for run in runs for name in run)
    return {name: _over_seeds([run.get(name) for run in runs]) for name in names}


def _over_seeds(found: Sequence[Quantity | None]) -> Quantity:
    known = [quantity for quantity in found if quantity is not None]
    if len(found) == 1:
        return dict(known[0])
    values = [quantity["value"] for quantity in known]
    if len(values) < len(found) or None in values:
        method = "unknown: not measured under every seed"
        return {
            "value": None,
            "unit": known[0]["unit"],
            "method": method,
            "low": None,
            "high": None,
        }
    return {
        "value": fmean(values),
        "unit": known[0]["unit"],
        "method": f"{known[0]['method']}; mean of {len(values)} seeds",
        "low": min(values),
        "high": max(values),
    }


def latency(quantities: Mapping[str, Quantity]) -> dict[str, Quantity]:
    """The quantities that say how fast it answers."""
    return {name: quantities[name] for name in LATENCY if name in quantities}


def memory(quantities: Mapping[str, Quantity]) -> dict[str, Quantity]:
    """The quantities that are bytes: peak memory, the adapter's size."""
    return {name: q for name, q in quantities.items() if q["unit"] == "bytes"}


def forecast(route: RouteRun) -> dict[str, Any] | None:
    """What the route's plan said, and its notes; None where there is no plan."""
    plans = [seed.plan for seed in (*route.finished, *route.seeds) if seed.plan]
    if not plans:
        return None
    return {"quantities": dict(plans[0]["forecasts"]), "notes": list(plans[0]["notes"])}


def forecast_errors(
    route: RouteRun,
    planned: Mapping[str, Any] | None,
    quantities: Mapping[str, Quantity],
    scores: Mapping[str, Any] | None,
) -> list[dict[str, Any]]:
    """Each forecast quantity beside what was measured of the same seed runs.

    The forecast `score` has a metric as its unit, and is held against that one of `scores`, which
    are of the test rows.

    `error` is measured / forecast - 1; `inside` whether it fell into the forecast's range.
    Both are None where either side is unknown or no range was given.
    """
    actual = _actuals(route, quantities)
    rows: list[dict[str, Any]] = []
    for name, quantity in (planned or {"quantities": {}})["quantities"].items():
        got = actual.get(name)
        if name == "score":
            got = ((scores or {}).get(quantity["unit"]) or {}).get("value")
        said, low, high = quantity["value"], quantity["low"], quantity["high"]
        rows.append(
            {
                "name": name,
                "unit": quantity["unit"],
                "forecast": said,
                "low": low,
                "high": high,
                "method": quantity["method"],
                "measured": got,
                "error": None if got is None or not said else got / said - 1,
                "inside": _inside(got, low, high),
            }
        )
    return rows


def _inside(value: float | None, low: float | None, high: float | None) -> bool | None:
    if value is None or low is None or high is None:
        return None
    return low <= value <= high


def _actuals(route: RouteRun, quantities: Mapping[str, Quantity]) -> dict[str, float | None]:
    """Measured values under the names that plans use, per seed run."""
    actual: dict[str, float | None] = {n: q["value"] for n, q in quantities.items()}
    same = {
        "seconds": ("seconds_fit",),
        "peak_memory_bytes": ("peak_memory_above_imports", "peak_memory"),
    }
    for name, measured_as in same.items():
        known = [actual[other] for other in measured_as if other in actual]
        if known:
            actual.setdefault(name, known[0])
    fits = route.finished
    if len(fits) != 1:  # a forecast is for one seed, what follows is counted over all
        return actual
    spent = fits[0].fit.get("usage", {})
    if "optimize" in spent:
        actual["prompt_tokens"] = spent["optimize"]["prompt_tokens"]
        actual["completion_tokens"] = spent["optimize"]["completion_tokens"]
    if "train" in spent:
        actual["train_tokens"] = spent["train"]["prompt_tokens"]
    for part, usage in fits[0].fit.get("evaluate_usage", {}).items():
        actual[f"prompt_tokens_{part}"] = usage["prompt_tokens"]
        actual[f"completion_tokens_{part}"] = usage["completion_tokens"]
    detail = fits[0].detail
    if detail.get("calls"):
        actual["calls"] = detail["calls"].get("made")
    if "step" in detail:
        actual.setdefault("steps", detail["step"])
    return actual
