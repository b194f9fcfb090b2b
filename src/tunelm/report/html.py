"""The report as one HTML page that needs nothing else: no network, no fonts, no scripts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from tunelm.report import words
from tunelm.report.conversations import TABLES, judge_notes
from tunelm.report.eight_rows import EIGHT, EIGHT_NOTE
from tunelm.report.evidence import find_pair
from tunelm.report.svg import axis_for, scale_strip, strip
from tunelm.report.tradeoff import tradeoff_rows

TEMPLATE = "report.html.j2"

Report = Mapping[str, Any]


def html_page(report: Report) -> str:
    """The whole page. All text of the run is escaped."""
    environment = page_environment(Path(__file__).parent)
    environment.filters |= {
        "count": words.count,
        "p_cell": words.p_cell,
        "plain": lambda name: str(name).replace("_", " "),
    }
    metric = report["task"]["primary_metric"]
    return environment.get_template(TEMPLATE).render(
        report=report,
        metric=metric,
        scale=words.scale_of(report, metric),
        scale_of=lambda name: words.scale_of(report, name),
        unit=words.unit_of(report, metric),
        points=words.points,
        signed=words.signed,
        between=words.between,
        signed_between=words.signed_between,
        quantity=words.quantity,
        tone=_tone(report),
        table={row["route"].removesuffix(" (winner)"): row for row in words.table(report)},
        usage=words.usage_rows(report),
        tradeoff=tradeoff_rows(report),
        money=words.money_rows(report),
        forecasts=words.forecast_rows(report),
        meanings=words.meaning_rows(report),
        judge_notes=judge_notes(report),
        talks=[
            (heading, note, found)
            for heading, note, rows in TABLES
            if report["conversations"] and (found := rows(report))
        ],
        routes_plot=_routes_plot(report),
        pairs_plot=_pairs_plot(report),
        aside=[p for p in report["pairs"] if not _is_shown(report, p)],
        eight=EIGHT,
        eight_note=EIGHT_NOTE,
        new_warnings=[text for text in report["warnings"] if text not in report["verdict"]],
    )


def page_environment(folder: Path) -> jinja2.Environment:
    """For the HTML templates in a folder: all text is escaped, a missing name is an error."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _tone(report: Report) -> str:
    """The colour of the verdict: `ship` only for a clear one."""
    headline = next((t for t in report["verdict"] if t.startswith("Ship ")), None)
    return "ship" if headline == report["verdict"][0] else "hold"


def _routes_plot(report: Report) -> dict[str, Any]:
    """A strip for each scored route, on one axis, with the baseline's value marked."""
    metric = report["task"]["primary_metric"]
    scale = words.scale_of(report, metric)
    factor = _factor(scale)
    shown = [r for r in report["routes"] if r["scores"] is not None]
    scores = {r["name"]: r["scores"][metric] for r in shown}
    axis = axis_for(_known(scores.values(), "value", factor), 0, 100 if scale else None)
    base = scores[report["baseline"]]["value"] if report["baseline"] else None
    rows: list[dict[str, Any]] = []
    for route in shown:
        score = scores[route["name"]]
        value, low, high = (_times(score[key], factor) for key in ("value", "ci_low", "ci_high"))
        aside = route["control"] or route["parity_of"] is not None
        kind = "winner" if route["name"] == report["winner"]["name"] else "plain"
        rows.append(
            {
                "name": route["name"],
                "aside": ("control" if route["control"] else "parity check") if aside else None,
                "winner": kind == "winner",
                "value": words.points(score["value"], scale),
                "interval": words.between(score["ci_low"], score["ci_high"], scale),
                "svg": strip(
                    axis,
                    value,
                    low,
                    high,
                    "control" if aside else kind,
                    _times(base, factor),
                    f"{route['name']}: {words.points(score['value'], scale)}",
                ),
            }
        )
    return {"rows": rows, "scale": scale_strip(axis)}


def _pairs_plot(report: Report) -> dict[str, Any]:
    """A strip for each pair that the verdict turns on, the winner's first and seen from it."""
    metric, winner = report["task"]["primary_metric"], report["winner"]["name"]
    scale = words.scale_of(report, metric)
    factor = _factor(scale)
    pairs = [p for p in report["pairs"] if _is_shown(report, p)]
    seen = [
        (winner in (p["a"], p["b"]) and find_pair([p], metric, winner, _other(p, winner))) or p
        for p in pairs
    ]
    seen.sort(key=lambda p: (p["a"] != winner, not p["family"]))
    axis = axis_for([0.0, *_known(seen, "diff", factor)])
    rows: list[dict[str, Any]] = []
    for pair in seen:
        diff, low, high = (_times(pair[key], factor) for key in ("diff", "ci_low", "ci_high"))
        kind = pair["verdict"].split()[0]
        label = f"{pair['a']} less {pair['b']}: {words.signed(pair['diff'], scale)}"
        rows.append({"pair": pair, "svg": strip(axis, diff, low, high, kind, 0.0, label)})
    return {"rows": rows, "scale": scale_strip(axis, sign=True)}


def _factor(scale: float | None) -> float:
    """From a metric's own value to what the axis shows."""
    return 1.0 if scale is None else 100 / scale


def _is_shown(report: Report, pair: Mapping[str, Any]) -> bool:
    """Whether a pair is of Holm's family, or sets the winner beside a control."""
    with_winner = report["winner"]["name"] in (pair["a"], pair["b"])
    return pair["family"] or (
        with_winner and pair["control"] and pair["metric"] == report["task"]["primary_metric"]
    )


def _other(pair: Mapping[str, Any], name: str) -> str:
    return pair["b"] if pair["a"] == name else pair["a"]


def _known(found: Any, value: str, factor: float) -> list[float]:
    """All known values and interval ends, in points."""
    keys = (value, "ci_low", "ci_high")
    return [item[key] * factor for item in found for key in keys if item[key] is not None]


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
