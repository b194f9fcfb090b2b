"""A run directory becomes one dict: `report.json`, and from it the pages for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunelm.report import spending
from tunelm.report.analysis import analysis_of
from tunelm.report.beside import beside_of
from tunelm.report.conversations import conversations_of
from tunelm.report.curation import forgetting, settings_of, source_of
from tunelm.report.eight_rows import eight_rows
from tunelm.report.evidence import (
    RULE,
    Answers,
    answers_of,
    choose_winner,
    compare_pairs,
    dev_scores,
    floors_of,
    interval_scores,
    outcomes,
    smallest_difference,
    wins_and_losses,
)
from tunelm.report.html import html_page
from tunelm.report.markdown import markdown_page
from tunelm.report.read import RouteRun, Run, read_run
from tunelm.report.special import special_tables
from tunelm.report.taken import taken_by
from tunelm.report.verdict import sentences, warnings_of
from tunelm.rundir import SCHEMA_VERSION, write_json, write_text

Report = dict[str, Any]

NO_BREAK_EVEN = (
    "it depends on a volume, a horizon and the price of a machine, which a run does not measure: "
    "tunelm cost RUN reckons it"
)


def write_report(run: Path, beside: Path | None = None) -> Report:
    """Build the report and write report.json, report.md and report.html into the run.

    Returns the report. Arguments and errors are those of `build_report`.
    """
    report = build_report(run, beside)
    write_json(run / "report.json", report)
    write_text(run / "report.md", markdown_page(report))
    write_text(run / "report.html", html_page(report))
    return report


def build_report(run: Path, beside: Path | None = None) -> Report:
    """Everything that `report.json` holds, from the files of a run alone.

    The same files give the same report. Values are on each metric's own scale; None is
    unknown, with a reason beside it.

    Args:
        run: its folder.
        beside: the folder of a run of the same routes on a second task, to say whether what each
            gains carries over.

    Raises:
        RunDirError: one of them is no run directory, stopped before its rows were split, or its
            files do not belong together.
        ConfigError: the two cannot stand side by side.
    """
    other = None if beside is None else build_report(beside)
    found = read_run(run)
    answers = [answers_of(found, route, "test") for route in found.routes if route.finished]
    pairs = compare_pairs(answers, found.primary, floors_of(found))
    routes = _routes(found, answers)
    winner, runner_up = choose_winner(routes, found.primary)
    baseline = _baseline(routes)
    rival = runner_up if winner == baseline or baseline is None else baseline
    report: Report = {
        **_about(found),
        "source": source_of(found),
        "split": _split(found),
        "settings": settings_of(found),
        "routes": routes,
        "forgetting": forgetting(found, baseline),
        "judges": dict(found.judges),
        "conversations": conversations_of(found, answers, baseline),
        "tables": special_tables(found, answers),
        "pairs": pairs,
        "mde": smallest_difference(pairs, found.primary, winner, rival),
        "winner": {"name": winner, "rule": RULE.format(metric=found.primary)},
        "baseline": baseline,
        "runner_up": runner_up,
        "break_even": None,
        "break_even_reason": NO_BREAK_EVEN,
        "examples": _examples(found, winner, rival),
    }
    report["beside"] = None if other is None else beside_of(report, other)
    report["verdict"] = sentences(report)
    report["warnings"] = warnings_of(report)
    report["analysis"] = analysis_of(report)
    report["eight_rows"] = eight_rows(report)
    return report


def _about(found: Run) -> Report:
    """What was run: when, where, on what, and by which metrics."""
    return {
        "schema_version": SCHEMA_VERSION,
        "tunelm": found.config["tunelm"],
        "created": found.config["created"],
        "task": {**found.task, "primary_metric": found.primary},
        "base": found.config.get("base"),
        "host": found.config.get("host"),
        "versions": found.config.get("versions"),
        "metrics": {
            name: {
                "description": metric.description,
                "scale": metric.scale,
                "of": "conversations" if metric.of_conversations else "rows",
            }
            for name, metric in found.metrics.items()
        },
    }


def _baseline(routes: Sequence[Mapping[str, Any]]) -> str | None:
    """The route that the others are measured against: the first finished baseline.

    One behind an API stands in only where there is no base model's.
    """
    done = [r for r in routes if r["kind"] == "baseline" and r["status"] == "done"]
    done.sort(key=lambda r: r["endpoint"] is not None)
    return done[0]["name"] if done else None


def _split(run: Run) -> dict[str, Any]:
    parts = {
        name: {key: part[key] for key in ("rows", "groups", "hash")}
        for name, part in run.split["parts"].items()
    }
    kept = {key: run.split[key] for key in ("seed", "leaks", "min_test_groups", "test_looks")}
    kept["contamination"] = run.split.get("contamination")
    return {**parts, **kept, "ledger": dict(run.ledger)}


def _routes(run: Run, answers: Sequence[Answers]) -> list[dict[str, Any]]:
    tested = {found.route.name: found for found in answers}
    return [_route(run, route, tested.get(route.name)) for route in run.routes]


def _route(run: Run, route: RouteRun, tested: Answers | None) -> dict[str, Any]:
    quantities = spending.measured(route)
    planned = spending.forecast(route)
    dev = answers_of(run, route, "dev") if tested else None
    scores = interval_scores(tested) if tested else None
    seeds = route.finished
    usd, why_not = spending.cost(route)
    return {
        "name": route.name,
        "kind": route.kind,
        "control": route.control,
        "backend": route.backend,
        "parity_of": route.parity_of,
        "endpoint": spending.endpoint_of(route),
        "status": route.status,
        "reason": route.reason,
        "seeds": [seed.seed for seed in seeds],
        "scores": scores,
        "scores_dev": dev_scores(dev) if dev else None,
        "outcomes": outcomes(seeds, "test", len(run.parts["test"])) if tested else None,
        "failed_rows": {"dev": dev.failed, "test": tested.failed} if dev and tested else None,
        "first_error": _first_error(route),
        "usage": spending.usage_by_phase(route),
        "tokens_per_answer": spending.tokens_per_answer(route),
        "cost": usd,
        "cost_reason": why_not,
        "notes": list(dict.fromkeys(note for seed in seeds for note in seed.fit.get("notes", ()))),
        "latency": spending.latency(quantities),
        "memory": spending.memory(quantities),
        "forecast": planned,
        "measured": quantities,
        "forecast_errors": spending.forecast_errors(route, planned, quantities, scores),
        "prompt": seeds[0].prompt if seeds else None,
        "taken": taken_by(run, route),
    }


def _first_error(route: RouteRun) -> str | None:
    rows = [row for seed in route.finished for row in seed.predictions["test"]]
    return next((row.error for row in rows if row.error), None)


def _examples(run: Run, winner: str | None, rival: str | None) -> dict[str, Any] | None:
    by_name = {route.name: route for route in run.routes}
    if winner is None or rival is None:
        return None
    return wins_and_losses(run, by_name[winner], by_name[rival])
