"""In words: what had to be done before a route could answer, and what it learned from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunelm.report.phrases import all_of, counted, each, listed
from tunelm.report.words import UNKNOWN, count, points, quantity, scale_of, unit_of

Report = Mapping[str, Any]
Section = dict[str, Any]

TIMES_GROUPS = 4
"""Independent groups needed to find half as large a difference: it falls with their square root."""


def contenders(report: Report) -> list[Mapping[str, Any]]:
    """The routes that are no controls, those that did not finish among them."""
    return [route for route in report["routes"] if not route["control"]]


def effort_section(report: Report) -> Section:
    """Installation, settings, time, calls, and what went wrong."""
    routes = contenders(report)
    said = [_installed(routes), _changed(routes), _spent(routes), _failures(report)]
    return {"heading": "Effort and set-up", "paragraphs": [text for text in said if text]}


def _installed(routes: Sequence[Mapping[str, Any]]) -> str:
    by_extras: dict[tuple[str, ...], list[str]] = {}
    for route in routes:
        by_extras.setdefault(tuple(route["taken"]["extras"]), []).append(route["name"])
    told = [
        f"{listed(names)} {_takes(names)} {named_extras(extras)}"
        for extras, names in by_extras.items()
    ]
    text = f"To install: {'; '.join(told)}."
    keys = {r["taken"]["key"]: r["name"] for r in routes if r["taken"]["key"]}
    if keys:
        text += f" Keys: {', '.join(f'{key} for {name}' for key, name in keys.items())}."
    return text


def _takes(names: Sequence[str]) -> str:
    return "needs" if len(names) == 1 else "need"


def named_extras(extras: Sequence[str]) -> str:
    """What of the package has to be installed."""
    if not extras:
        return "the core alone"
    return f"the extra{'' if len(extras) == 1 else 's'} {listed(extras)}"


def _changed(routes: Sequence[Mapping[str, Any]]) -> str:
    told = [
        f"{counted(len(changed), 'setting')} of {route['name']} ({', '.join(changed)})"
        for route in routes
        if (changed := route["taken"]["changed"])
    ]
    if not told:
        return "Every route ran with its default settings."
    others = "; all other settings are defaults" if len(told) < len(routes) else ""
    return f"Set by hand: {', '.join(told)}{others}."


def _spent(routes: Sequence[Mapping[str, Any]]) -> str | None:
    fitted = [r for r in routes if r["kind"] not in ("baseline", "rule")]
    if not fitted:
        return "Nothing was fitted: these routes answer as they are."
    times = each((r["name"], quantity(r["taken"]["seconds"], "s")) for r in fitted)
    text = f"Fitting took, over all seeds: {times}."
    seeds = [f"{r['name']} {n}" for r in fitted if (n := r["taken"]["attempts"]) > 1]
    if seeds:
        text += f" Seeds: {', '.join(seeds)}."
    calls = [f"{r['name']} {count(r['taken']['calls'])}" for r in fitted if r["taken"]["calls"]]
    return f"{text} Calls of a model on the way: {', '.join(calls)}." if calls else text


def _failures(report: Report) -> str:
    routes = report["routes"]
    broken = [r for r in routes if r["status"] != "done"]
    lost_seeds = [r for r in routes if r["status"] == "done" and r["reason"]]
    told = [f"{r['name']} ({r['status']}: {r['reason']})" for r in broken]
    text = (
        f"{counted(len(broken), 'route')} of {len(routes)} did not finish: {'; '.join(told)}."
        if broken
        else f"{all_of(len(routes), 'route')} finished."
        if len(routes) > 1
        else f"{routes[0]['name']} finished."
    )
    for route in lost_seeds:
        missing = route["taken"]["attempts"] - len(route["seeds"])
        text += f" {route['name']} lost {counted(missing, 'seed')}: {route['reason']}."
    lost = [f"{r['name']} {r['taken']['lost']}" for r in routes if r["taken"]["lost"]]
    if lost:
        text += f" Paid calls that ended without a count of tokens: {', '.join(lost)}."
    return text


def data_section(report: Report) -> Section:
    """Rows, labels and corpus, by route, and what more rows would bring."""
    split = report["split"]
    rows = [counted(split[part]["rows"], f"{part} row") for part in ("train", "dev", "test")]
    head = (
        f"{report['source']['file']} gave {listed(rows)}, split by group with near-copies on one "
        f"side. Every route needs dev rows{_answered(report)} to be chosen by, and test rows to be "
        "judged by."
    )
    routes = [route for route in contenders(report) if route["scores"] is not None]
    said = [head, *_used(report, routes), _curve(report), _more_groups(report)]
    return {"heading": "Data needs", "paragraphs": [text for text in said if text]}


def _answered(report: Report) -> str:
    """What a row must have; running text needs no answers."""
    return "" if report["task"]["kind"] == "text" else " with answers"


def _used(report: Report, routes: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was learned from, and by whom, in one paragraph."""
    told: list[str] = []
    train = report["split"]["train"]["rows"]
    took = {route["name"]: route["taken"] for route in routes}
    if none := [name for name, taken in took.items() if taken["rows"] == 0]:
        told.append(f"{listed(none)} learned from no train row.")
    learned = [(name, count(taken["rows"])) for name, taken in took.items() if taken["rows"]]
    if learned:
        told.append(
            f"Train rows{_answered(report)} that were learned from, of {train:,}: {each(learned)}."
        )
    answered = [
        f"{name} kept {count(taken['rows'])} of {taken['asked']:,}"
        for name, taken in took.items()
        if taken["asked"]
    ]
    if answered:
        told.append(f"Of answers that a model gave to train rows, {listed(answered)}.")
    shown = [_prompt(name, taken) for name, taken in took.items() if _shows(taken)]
    if shown:
        told.append(f"Prompts were made from train rows: {'; '.join(shown)}.")
    found = [
        f"{name} {taken['passages']:,}"
        for name, taken in took.items()
        if taken["passages"] is not None
    ]
    if found:
        told.append(f"Passages of a corpus, which needs no answers: {', '.join(found)}.")
    unknown = [n for n, taken in took.items() if taken["rows"] is None and not _shows(taken)]
    if unknown:
        told.append(f"How many rows {listed(unknown)} used is unknown.")
    return [" ".join(told)] if told else []


def _shows(taken: Mapping[str, Any]) -> bool:
    return any(taken[key] is not None for key in ("pool", "examples", "candidates"))


def _prompt(name: str, taken: Mapping[str, Any]) -> str:
    parts: list[str] = []
    if taken["examples"] is not None:
        parts.append(counted(taken["examples"], "example"))
    if taken["pool"] is not None:
        parts.append(f"a pool of {counted(taken['pool'], 'row')}")
    if taken["candidates"] is not None:
        parts.append(f"{counted(taken['candidates'], 'program')} scored on dev")
    return f"{name} ({', '.join(parts)})"


def _curve(report: Report) -> str | None:
    """Forecasts of the score by a learning curve, beside what was measured."""
    metric = report["task"]["primary_metric"]
    told: list[str] = []
    for route in report["routes"]:
        planned = (route["forecast"] or {"quantities": {}})["quantities"]
        for found in planned.values():
            if not str(found["method"]).startswith("learning curve") or found["value"] is None:
                continue
            known = found["unit"] in report["metrics"]
            scale = scale_of(report, found["unit"]) if known else 1.0
            got = route["scores"][metric]["value"] if route["scores"] else None
            measured = points(got, scale) if found["unit"] == metric else UNKNOWN
            told.append(
                f"for {route['name']} a {found['method']} said {points(found['value'], scale)} "
                f"({points(found['low'], scale)} to {points(found['high'], scale)}), and "
                f"{measured} was measured"
            )
    if told:
        return f"Of the score, {'; '.join(told)}."
    return (
        "What more train rows would bring is not known from this run: tunelm plan TASK --learn "
        "draws the learning curve."
    )


def _more_groups(report: Report) -> str | None:
    mde, groups = report["mde"], report["split"]["test"]["groups"]
    if mde["value"] is None:
        return None
    scale = scale_of(report, mde["metric"])
    return (
        f"The {counted(groups, 'test group')} can show a difference of "
        f"{points(mde['value'], scale)} {unit_of(report, mde['metric'])} between {mde['a']} and "
        f"{mde['b']}; half as large a one takes about {TIMES_GROUPS * groups:,} (formula: the "
        "square root of the groups)."
    )
