"""The strategy proposal as Markdown, for people who decide and people who carry it out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from tunelm.cells import inline, table
from tunelm.report.words import count, points, quantity

TEMPLATE = "proposal.md.j2"
_GAPS = re.compile(r"\n{3,}")


def proposal_page(proposal: Mapping[str, Any]) -> str:
    """The whole page."""
    environment: Any = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # Markdown; what comes from the user's files goes through `inline`
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": count, "inline": inline, "points": points, "table": table}
    data = proposal["data"]
    text = environment.get_template(TEMPLATE).render(
        p=proposal,
        forecasts=forecast_table(proposal),
        unknown=unknown_forecasts(proposal),
        example=None if data is None else json.dumps(data["example"], ensure_ascii=False, indent=2),
    )
    return _GAPS.sub("\n\n", text).strip() + "\n"


def forecast_table(proposal: Mapping[str, Any]) -> list[dict[str, str]]:
    """Forecasts as text: value, interval, and how each was made."""
    rows: list[dict[str, str]] = []
    for found in proposal["forecasts"]:
        if found["value"] is None:
            continue
        value = quantity(found["value"], found["unit"])
        row = {"route": found["route"], "quantity": found["quantity"], "forecast": value}
        rows.append({**row, "interval": _interval(found), "method": found["method"]})
    return rows


def unknown_forecasts(proposal: Mapping[str, Any]) -> list[str]:
    """What nobody can forecast yet, a line for each reason."""
    reasons: dict[str, dict[str, list[str]]] = {}
    for found in proposal["forecasts"]:
        if found["value"] is None:
            why = found["method"].removeprefix("unknown: ")
            reasons.setdefault(why, {}).setdefault(found["quantity"], []).append(found["route"])
    return [
        "; ".join(f"{what} of {', '.join(routes)}" for what, routes in its.items()) + f": {why}"
        for why, its in reasons.items()
    ]


def _interval(found: Mapping[str, Any]) -> str:
    low, high, unit, exact = found["low"], found["high"], found["unit"], found["method"] == "exact"
    if found["method"].startswith("exact") and found["value"] in (low, high or low):
        return "none: exact"
    if exact and low is not None and high is None:  # it may stop early
        high = found["value"]
    if low is not None and high is not None:
        return f"{quantity(low, unit)} to {quantity(high, unit)}"
    return "-"


def summary(proposal: Mapping[str, Any]) -> list[str]:
    """The proposal in a few lines, for a terminal."""
    lines = list(proposal["summary"])
    lines += [f"needed from you: {text}" for text in proposal["needed"]]
    return [*lines, *(f"risk: {row['risk']}" for row in proposal["risks"])]
