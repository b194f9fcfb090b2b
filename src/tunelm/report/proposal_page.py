"""The strategy proposal as Markdown: two to three pages to decide by, and an appendix."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from tunelm.cells import inline, table
from tunelm.report.words import UNKNOWN, count, points, quantity

PAGE, APPENDIX = "proposal.md", "appendix.md"
SHOWN_PRICES = 3
"""Hosts on the page, the cheapest first; the appendix has all."""
SHOWN_SIGNS = 400
"""Of the instructions on the page; the appendix has them whole."""

Rows = list[dict[str, str]]

_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "time": ("seconds", "seconds fit"),
    "peak memory": ("peak memory bytes",),
    "tokens": ("train tokens", "prompt tokens"),
    "trained": ("trainable parameters",),
    "calls": ("calls",),
    "score": ("score",),
}
"""The columns of the page's table of forecasts, and the quantities that each may hold."""
_GAPS = re.compile(r"\n{3,}")
_SENTENCE = re.compile(r"\.(?= [A-Z])")


def proposal_page(proposal: Mapping[str, Any]) -> str:
    """The page to decide by."""
    data = proposal["data"]
    evaluation, method = proposal["evaluation"], proposal["method"]
    return _page(
        PAGE,
        p=proposal,
        constraints=constraint_lines(proposal["constraints"]),
        ways=way_rows(method["order"]),
        against=[{"way": row["way"], "why": _first(row["why"])} for row in method["against"]],
        others=_other_metrics(evaluation),
        forecasts=forecasts_by_route(proposal),
        unknown=unknown_forecasts(proposal, ("seconds",)),
        prices=price_rows(proposal["costs"]["rows"]),
        example=None if data is None else json.dumps(data["example"], ensure_ascii=False, indent=2),
    )


def appendix_page(proposal: Mapping[str, Any]) -> str:
    """Sources and whole tables."""
    return _page(
        APPENDIX,
        p=proposal,
        forecasts=forecast_table(proposal),
        unknown=unknown_forecasts(proposal),
    )


def _page(name: str, **values: Any) -> str:
    environment: Any = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # Markdown; what comes from the user's files goes through `inline`
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": count,
        "first_part": first_part,
        "inline": inline,
        "pick": pick,
        "points": points,
        "table": table,
    }
    text = environment.get_template(f"{name}.j2").render(**values)
    return _GAPS.sub("\n\n", text).strip() + "\n"


def pick(rows: Iterable[Mapping[str, str]], *names: str) -> Rows:
    """Some columns of a table."""
    return [{name: row[name] for name in names} for row in rows]


def first_part(text: str) -> str:
    """Text as far as the page has room for it.

    >>> first_part("Short."), len(first_part("word " * 200)) < SHOWN_SIGNS + 20
    ('Short.', True)
    """
    if len(text) <= SHOWN_SIGNS:
        return text
    return f"{text[:SHOWN_SIGNS].rsplit(' ', 1)[0]} ..."


def constraint_lines(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """What was given, what is assumed and by which option one says otherwise, and what is open."""
    said: dict[str, list[str]] = {"Given": [], "Assumed": [], "Not said": []}
    for row in rows:
        what, value, how = row["constraint"], row["as understood"], row["from"]
        flag = how.removeprefix("default: ")
        if value == "not said":
            said["Not said"].append(f"{what} ({flag})")
        elif flag != how:
            said["Assumed"].append(f"{what} = {value} ({flag})")
        else:
            said["Given"].append(f"{what} = {value}" + ("" if how == "you" else f" ({how})"))
    return [f"{kind}: {'; '.join(parts)}." for kind, parts in said.items() if parts]


def way_rows(order: Sequence[Mapping[str, str]]) -> Rows:
    """A row for each way, with the first reason for it."""
    found: dict[str, dict[str, str]] = {}
    for row in order:
        why = _first(row["why"])
        found.setdefault(row["way"], {"order": row["order"], "way": row["way"], "why": why})
    return list(found.values())


def _first(reason: str) -> str:
    """The first sentence of a reason."""
    return _SENTENCE.split(reason, maxsplit=1)[0].rstrip(".") + "."


def _other_metrics(evaluation: Mapping[str, Any]) -> str:
    names = [row["metric"] for row in evaluation["metrics"]]
    others = [f"`{name}`" for name in names if name.split()[0] != evaluation["primary"]]
    if not others:
        return "It has its n and a 95% interval by group."
    return (
        f"The others explain: {', '.join(others)} (what each measures: appendix). Each has its n "
        "and a 95% interval by group."
    )


def price_rows(rows: Sequence[Mapping[str, str]]) -> Rows:
    """The cheapest hosts, and every machine to rent."""
    known = [row for row in rows if row["a month"] != UNKNOWN]
    rented = [row for row in known if "rented" in row["way"]]
    hosts = [row for row in known if row not in rented]
    return pick([*hosts[:SHOWN_PRICES], *rented], "way", "a month", "once", "note", "price from")


# --- forecasts --------------------------------------------------------------------------------


def forecasts_by_route(proposal: Mapping[str, Any]) -> Rows:
    """A row for each route that takes something to fit: what, with interval and method."""
    routes: dict[str, dict[str, str]] = {}
    for found in proposal["forecasts"]:
        column = next((c for c, names in _COLUMNS.items() if found["quantity"] in names), None)
        if column is not None and found["value"]:
            cells = routes.setdefault(found["route"], {})
            cells.setdefault(column, _cell(found))
    used = [column for column in _COLUMNS if any(column in cells for cells in routes.values())]
    return [
        {"route": route, **{column: cells.get(column, "-") for column in used}}
        for route, cells in routes.items()
    ]


def _cell(found: Mapping[str, Any]) -> str:
    method = re.split(r"[:(;,]| at ", found["method"])[0].strip()
    value, low, high = found["value"], found["low"], found["high"]
    if found["quantity"] == "score":
        return f"{points(value)} {found['unit']} ({points(low)} to {points(high)}; {method})"

    def shown(number: float) -> str:
        return quantity(number, found["unit"]) if found["unit"] in ("s", "bytes") else count(number)

    if low == 0 and high in (None, value):
        return f"{shown(value)} at most ({method})"
    if None in (low, high) or low == high:
        return f"{shown(value)} ({method})"
    return f"{shown(value)} ({shown(low)} to {shown(high)}; {method})"


def forecast_table(proposal: Mapping[str, Any]) -> Rows:
    """Forecasts as text: value, interval, and how each was made."""
    rows: Rows = []
    for found in proposal["forecasts"]:
        if found["value"] is None:
            continue
        value = quantity(found["value"], found["unit"])
        row = {"route": found["route"], "quantity": found["quantity"], "forecast": value}
        rows.append({**row, "interval": _interval(found), "method": found["method"]})
    return rows


def unknown_forecasts(proposal: Mapping[str, Any], wanted: Sequence[str] = ()) -> list[str]:
    """What nobody can forecast yet, a line for each reason; of the `wanted` quantities, or all."""
    reasons: dict[str, dict[str, list[str]]] = {}
    for found in proposal["forecasts"]:
        if found["value"] is None and (not wanted or found["quantity"] in wanted):
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
