"""The comparison in words: what was measured, section by section, as sentences.

A pure function of the report. Which of two routes is better is said by their paired verdict
alone; what was not measured is called unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunelm.report.analysis_dialogue import dialogue_sections
from tunelm.report.analysis_running import cost_section, deployment_section
from tunelm.report.analysis_setup import data_section, effort_section
from tunelm.report.beside import beside_section
from tunelm.report.evidence import find_pair
from tunelm.report.phrases import all_of, counted, listed
from tunelm.report.words import points, route_of, scale_of, signed, signed_between, unit_of
from tunelm.scoring.metrics import get_metric

Report = Mapping[str, Any]
Section = dict[str, Any]
"""`heading`, `paragraphs` of text, and `rows` of a table where there is one."""


def analysis_of(report: Report) -> list[Section]:
    """The sections, in the order in which a reader decides.

    Takes the report with all but its own keys, `analysis` and `eight_rows`.
    """
    return [
        effort_section(report),
        data_section(report),
        quality_section(report),
        cost_section(report),
        beside_section(report),
        deployment_section(report),
        *dialogue_sections(report),
    ]


def quality_section(report: Report) -> Section:
    """Who is shown to be better than whom, on the identical test rows."""
    scored = [r["name"] for r in report["routes"] if r["scores"] is not None]
    said = [_same_rows(report, scored)]
    if scored:
        said += [
            _against_baseline(report),
            _against_winner(report),
            _controls(report),
            _other_metrics(report),
            _forgotten(report),
        ]
    return {"heading": "Quality on the same test rows", "paragraphs": [t for t in said if t]}


def _same_rows(report: Report, scored: Sequence[str]) -> str:
    if not scored:
        return "No route answered the test rows, so nothing is known of quality."
    test, metric = report["split"]["test"], report["task"]["primary_metric"]
    rows = f"{counted(test['rows'], 'test row')} in {counted(test['groups'], 'independent group')}"
    who = f"{scored[0]} alone" if len(scored) == 1 else all_of(len(scored), "route")
    found = report["metrics"][metric]
    text = f"{who} answered the same {rows}"
    if found["of"] != "rows":
        held = max(its["n"] for its in report["conversations"]["routes"].values())
        text += f", and held {counted(held, 'conversation')} each"
    text += f". They are compared by {metric}: {found['description']}."
    failed = [
        f"{route['name']} on {route['failed_rows']['test']}"
        for route in report["routes"]
        if route["scores"] is not None and route["failed_rows"]["test"]
    ]
    if not failed:
        return f"{text} No test row failed."
    return f"{text} Rows failed, and are in no score and no pair: {', '.join(failed)}."


def _against_baseline(report: Report) -> str | None:
    baseline = report["baseline"]
    rivals = [name for name in _rivals(report) if name != baseline]
    if baseline is None:
        return "No baseline finished, so what adapting gains is unknown."
    if not rivals:
        return None
    metric = report["task"]["primary_metric"]
    value = points(route_of(report, baseline)["scores"][metric]["value"], scale_of(report, metric))
    other = f"{baseline} ({value} {unit_of(report, metric)})"
    return f"{_by_verdict(report, rivals, baseline, other)} {_brackets(report)}"


def _against_winner(report: Report) -> str | None:
    winner = report["winner"]["name"]
    rivals = [name for name in _rivals(report) if name not in (winner, report["baseline"])]
    if winner in (None, report["baseline"]) or not rivals:
        return None
    return _by_verdict(report, rivals, winner, f"the winner on dev, {winner}")


def _by_verdict(report: Report, names: Sequence[str], rival: str, called: str) -> str:
    """Names with their differences to another route, by what the paired test says of them."""
    metric = report["task"]["primary_metric"]
    found: dict[str, list[str]] = {"better": [], "not distinguishable": [], "worse": []}
    for name in names:
        pair = find_pair(report["pairs"], metric, name, rival)
        if pair is not None:
            found[pair["verdict"]].append(_difference(report, pair))
    told = [f"{_shown(kind)} {called}: {', '.join(v)}." for kind, v in found.items() if v]
    return " ".join([told[0], *(text.replace(called, "it") for text in told[1:])])


def _shown(verdict: str) -> str:
    return {
        "better": "Shown to be better than",
        "worse": "Shown to be worse than",
        "not distinguishable": "Not distinguishable from",
    }[verdict]


def _difference(report: Report, pair: Mapping[str, Any]) -> str:
    """A pair's difference with its interval, as seen from its first route."""
    scale = scale_of(report, pair["metric"])
    if pair["diff"] is None:
        return f"{pair['a']} (difference unknown)"
    interval = signed_between(pair["ci_low"], pair["ci_high"], scale)
    return f"{pair['a']} {signed(pair['diff'], scale)} ({interval})"


def _brackets(report: Report) -> str:
    family = sum(1 for pair in report["pairs"] if pair["family"])
    said = "In brackets: the 95% interval of the difference"
    if family < 2:
        return f"{said}."
    return f"{said}; the verdicts stand after Holm's correction over {family} pairs."


def _controls(report: Report) -> str | None:
    """Each contender against each control, which shows what form alone is worth."""
    metric, rivals = report["task"]["primary_metric"], _rivals(report)
    told: list[str] = []
    for route in report["routes"]:
        if not route["control"] or route["scores"] is None or not rivals:
            continue
        value = points(route["scores"][metric]["value"], scale_of(report, metric))
        called = f"the control {route['name']} ({value})"
        told.append(_by_verdict(report, rivals, route["name"], called))
    return " ".join(["A control shows what form alone is worth.", *told]) if told else None


def _other_metrics(report: Report) -> str | None:
    """The winner's other metrics against the baseline; exploratory."""
    winner, baseline = report["winner"]["name"], report["baseline"]
    if winner is None or baseline is None or winner == baseline:
        return None
    found: dict[str, list[str]] = {"better": [], "worse": [], "not distinguishable": []}
    for metric in report["metrics"]:
        pair = find_pair(report["pairs"], metric, winner, baseline)
        if metric == report["task"]["primary_metric"] or pair is None or pair["diff"] is None:
            continue
        less = ", less is better" if get_metric(metric).lower_is_better else ""
        diff = signed(pair["diff"], scale_of(report, metric))
        found[pair["verdict"]].append(f"{metric} ({diff}{less})")
    told = [f"{k} on {listed(v)}" for k, v in found.items() if v]
    if not told:
        return None
    return (
        f"By the other metrics, each tested alone and so exploratory, {winner} against {baseline} "
        f"is {'; '.join(told)}."
    )


def _forgotten(report: Report) -> str | None:
    rows = [row for row in report["forgetting"] if row["change"] is not None]
    if not rows:
        return None
    told = [
        f"{row['route']} {signed(row['change'], None)} "
        f"(95% interval {signed_between(row['change_low'], row['change_high'], None)})"
        for row in rows
    ]
    return (
        f"On {counted(rows[0]['n'], 'neutral text')} that no route was trained on, bits per byte "
        f"changed from {report['baseline']}'s, more being forgotten: {', '.join(told)}."
    )


def _rivals(report: Report) -> list[str]:
    """Scored routes that could be shipped."""
    return [
        r["name"]
        for r in report["routes"]
        if r["scores"] is not None and not r["control"] and r["parity_of"] is None
    ]
