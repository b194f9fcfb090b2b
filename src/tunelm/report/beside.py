"""A second run beside the first: whether what each route gains carries over to another task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunelm.config import MIN_TEST_GROUPS
from tunelm.errors import ConfigError
from tunelm.report.evidence import find_pair
from tunelm.report.phrases import counted, listed
from tunelm.report.words import UNKNOWN, route_of, scale_of, signed, signed_between, unit_of
from tunelm.scoring.metrics import get_metric

Report = Mapping[str, Any]
Found = dict[str, Any]

NOT_MEASURED = (
    "How the routes do in another domain was not measured. To measure it, run the same routes on a "
    "second task (tunelm compare OTHER_TASK --out OTHER_RUN), then tunelm report RUN --beside "
    "OTHER_RUN."
)


def beside_of(here: Report, there: Report) -> Found:
    """Each route's gain over the baseline in two runs, and what their difference is.

    The result has `here` and `there` (task, primary metric and its n), `routes` (for each that
    finished in both: `gains` of both with interval and verdict, `change` the gain here less that
    there, with its interval, or `change_reason` why there is none), `only_here`, `only_there`, and
    `notes`. Gains are differences to the baseline by each task's primary metric.

    The two test sets share no rows, so the two gains are independent estimates, and the interval of
    their difference is put together from theirs (MOVER: Zou and Donner, Statistics in Medicine 27,
    2008, equation 2).

    Raises:
        ConfigError: the same test rows, a run without a baseline, or no route in both.
    """
    if here["split"]["test"]["hash"] == there["split"]["test"]["hash"]:
        raise ConfigError(
            "--beside: both runs have the same test rows. A second task is wanted, with the same "
            "routes: tunelm compare OTHER_TASK --out OTHER_RUN"
        )
    for report, name in ((here, "this run"), (there, "the other run")):
        if report["baseline"] is None:
            raise ConfigError(f"--beside: no baseline finished in {name}, so no gain is known.")
    mine, other = _gaining(here), _gaining(there)
    common = [n for n in mine if other.get(n) == mine[n]]
    if not common:
        raise ConfigError(
            "--beside: no route with the same name and kind finished in both runs. This one has "
            f"{listed(mine) if mine else 'none'}, the other {listed(other) if other else 'none'}."
        )
    return {
        "here": _about(here),
        "there": _about(there),
        "routes": [_route(here, there, name) for name in common],
        "only_here": [n for n in mine if n not in common],
        "only_there": [n for n in other if n not in common],
        "notes": _notes(here, there, common),
    }


def _gaining(report: Report) -> dict[str, str]:
    """Names and kinds of finished routes that have a gain over the baseline."""
    metric, baseline = report["task"]["primary_metric"], report["baseline"]
    return {
        r["name"]: r["kind"]
        for r in report["routes"]
        if not r["control"] and find_pair(report["pairs"], metric, r["name"], baseline) is not None
    }


def _about(report: Report) -> Found:
    metric = report["task"]["primary_metric"]
    return {
        "task": report["task"]["name"],
        "metric": metric,
        "unit": unit_of(report, metric),
        "scale": scale_of(report, metric),
        "rows": report["split"]["test"]["rows"],
        "groups": report["split"]["test"]["groups"],
        "created": report["created"],
    }


def _route(here: Report, there: Report, name: str) -> Found:
    gains = [_gain(report, name) for report in (here, there)]
    change, reason = _change(here, there, gains)
    return {
        "name": name,
        "kind": route_of(here, name)["kind"],
        "gains": gains,
        "change": change,
        "change_reason": reason,
    }


def _gain(report: Report, name: str) -> Found:
    metric = report["task"]["primary_metric"]
    pair = find_pair(report["pairs"], metric, name, report["baseline"]) or {}
    keys = ("diff", "ci_low", "ci_high", "verdict", "n", "n_groups")
    return {key: pair.get(key) for key in keys}


def _change(here: Report, there: Report, gains: Sequence[Found]) -> tuple[Found | None, str | None]:
    metrics = [report["task"]["primary_metric"] for report in (here, there)]
    if metrics[0] != metrics[1]:
        return None, f"{metrics[0]} and {metrics[1]} are different metrics"
    if any(gain[key] is None for gain in gains for key in ("diff", "ci_low", "ci_high")):
        return None, "one of the gains, or its interval, is unknown"
    return mover(*gains), None


def mover(a: Mapping[str, Any], b: Mapping[str, Any]) -> Found:
    """The difference of two independent estimates, with an interval made from theirs.

    >>> a = {"diff": 0.5, "ci_low": 0.2, "ci_high": 0.8}
    >>> b = {"diff": 0.1, "ci_low": -0.3, "ci_high": 0.5}
    >>> [round(mover(a, b)[key], 9) for key in ("diff", "ci_low", "ci_high")]
    [0.4, -0.1, 0.9]
    """
    diff = a["diff"] - b["diff"]
    below = math.hypot(a["diff"] - a["ci_low"], b["ci_high"] - b["diff"])
    above = math.hypot(a["ci_high"] - a["diff"], b["diff"] - b["ci_low"])
    return {"diff": diff, "ci_low": diff - below, "ci_high": diff + above}


def _notes(here: Report, there: Report, common: Sequence[str]) -> list[str]:
    """What beside the domain differs between the runs."""
    notes: list[str] = []
    bases = [str((report["base"] or {}).get("name") or UNKNOWN) for report in (here, there)]
    if bases[0] != bases[1]:
        notes.append(f"The base models differ: {listed(Path(base).name for base in bases)}.")
    if changed := [n for n in common if _settings(here, n) != _settings(there, n)]:
        notes.append(f"The settings of {listed(changed)} differ between the runs.")
    for report in (here, there):
        groups = report["split"]["test"]["groups"]
        if groups < MIN_TEST_GROUPS:
            notes.append(
                f"{report['task']['name']} has only {counted(groups, 'test group')}, which proves "
                "nothing."
            )
    return notes


def _settings(report: Report, name: str) -> object:
    return route_of(report, name)["taken"]["changed"]


# --- as words ---------------------------------------------------------------------------------


def beside_section(report: Report) -> Found:
    """The section on flexibility; without a second run, how to measure it."""
    heading, found = "Flexibility for another domain", report["beside"]
    if found is None:
        return {"heading": heading, "paragraphs": [NOT_MEASURED]}
    names, other = _names(found), found["there"]
    head = (
        f"The same routes ran on a second task, {names[1]} ({counted(other['rows'], 'test row')} "
        f"in {counted(other['groups'], 'group')}, by {other['metric']}; run of "
        f"{str(other['created'])[:10]}). Gains are over each task's own baseline."
    )
    said = [head, _carried(found, names), _changes(found), *found["notes"], _missing(found, names)]
    said.append("Two tasks are two points: a third can turn out otherwise.")
    return {"heading": heading, "paragraphs": [t for t in said if t], "rows": beside_rows(found)}


def beside_rows(found: Mapping[str, Any]) -> list[dict[str, str]]:
    """A row a route: what it gains on each of the two tasks."""
    sides = [found["here"], found["there"]]
    names = [f"{n}, {side['unit']}" for n, side in zip(_names(found), sides, strict=True)]
    return [
        {
            "route": route["name"],
            **{
                name: _gain_cell(gain, side["scale"])
                for name, gain, side in zip(names, route["gains"], sides, strict=True)
            },
            "first less second": _change_cell(route, found["here"]["scale"]),
        }
        for route in found["routes"]
    ]


def _names(found: Mapping[str, Any]) -> list[str]:
    """The two tasks, told apart where they have one name."""
    names = [found[side]["task"] for side in ("here", "there")]
    if names[0] != names[1]:
        return names
    return [f"{names[0]} (this run)", f"{names[1]} (the other)"]


def _gain_cell(gain: Mapping[str, Any], scale: float | None) -> str:
    if gain["diff"] is None:
        return "unknown"
    interval = signed_between(gain["ci_low"], gain["ci_high"], scale)
    return f"{signed(gain['diff'], scale)} ({interval}), {gain['verdict']}"


def _change_cell(route: Mapping[str, Any], scale: float | None) -> str:
    change = route["change"]
    if change is None:
        return f"unknown: {route['change_reason']}"
    interval = signed_between(change["ci_low"], change["ci_high"], scale)
    return f"{signed(change['diff'], scale)} ({interval})"


def _carried(found: Mapping[str, Any], names: Sequence[str]) -> str:
    """Which gains are shown on both tasks, by the paired verdicts alone."""
    told: dict[str, list[str]] = {}
    for route in found["routes"]:
        told.setdefault(_outcome(route["gains"], names), []).append(route["name"])
    return " ".join(f"{listed(routes)}: {outcome}." for outcome, routes in told.items())


def _outcome(gains: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    here, there = (gain["verdict"] for gain in gains)
    if here == there:
        return {
            "better": "the gain carries over, better than the baseline on both tasks",
            "worse": "worse than the baseline on both tasks",
        }.get(here, "not distinguishable from the baseline on either task")
    first, second = (
        f"{verdict} {'from' if verdict == 'not distinguishable' else 'than'} the baseline on {name}"
        for verdict, name in zip((here, there), names, strict=True)
    )
    if "better" in (here, there):
        return f"the gain is not shown to carry over, {first} and {second}"
    return f"{first}, {second}"


def _changes(found: Mapping[str, Any]) -> str | None:
    """Whose gains differ between the tasks beyond chance, and whose are not shown to."""
    names, scale = _names(found), found["here"]["scale"]
    sign = get_metric(found["here"]["metric"]).sign
    larger: list[str] = []
    rest: list[str] = []
    for route in found["routes"]:
        change = route["change"]
        if change is None:
            continue
        if change["ci_low"] <= 0 <= change["ci_high"]:
            rest.append(route["name"])
            continue
        side = 0 if sign * change["diff"] > 0 else 1
        interval = signed_between(change["ci_low"], change["ci_high"], scale)
        larger.append(
            f"{route['name']} gains more on {names[side]} "
            f"({signed(change['diff'], scale)}, 95% interval {interval})"
        )
    told = [*larger, f"no difference is shown for {listed(rest)}"] if rest else larger
    if not told:
        return None
    return f"The two gains compared, without correction for several routes: {'; '.join(told)}."


def _missing(found: Mapping[str, Any], names: Sequence[str]) -> str | None:
    told = [
        f"{listed(found[key])} on {name} alone"
        for key, name in zip(("only_here", "only_there"), names, strict=True)
        if found[key]
    ]
    return f"Not compared, as they finished in one run only: {'; '.join(told)}." if told else None
