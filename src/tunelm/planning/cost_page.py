"""The analysis as text: rows of tables for a terminal and a page, and cost.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunelm.cells import table
from tunelm.planning.breakeven import BETWEEN, FROM, FROM_THE_FIRST, NEVER, SAME, UP_TO

UNKNOWN = "unknown"
PLOT, TORNADO = "cost.svg", "cost-sensitivity.svg"

Analysis = Mapping[str, Any]
Rows = list[dict[str, str]]


def money(value: float | None) -> str:
    """Dollars with the digits that matter, never in powers of ten.

    >>> money(1234.5), money(2.5), money(0.000105), money(0), money(None), money(-3)
    ('$1,234', '$2.50', '$0.000105', '$0', 'unknown', '-$3.00')
    """
    if value is None:
        return UNKNOWN
    size = abs(value)
    if size >= 100:
        text = f"{size:,.0f}"
    elif size >= 1:
        text = f"{size:.2f}"
    else:
        text = f"{size:.3g}"
        if "e" in text:
            digits, power = text.split("e")
            text = f"{size:.{max(0, -int(power) + len(digits.replace('.', '')) - 1)}f}"
    return f"{'-' if value < 0 else ''}${text}"


def number(value: float | None) -> str:
    """A plain number.

    >>> number(1200000.0), number(0.25), number(None), number(28124.6)
    ('1,200,000', '0.25', 'unknown', '28,125')
    """
    if value is None:
        return UNKNOWN
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def verdict(analysis: Analysis) -> str:
    """The first sentence: which route is the cheapest, or why nobody can say."""
    unit, routes = analysis["unit"], _rivals(analysis)
    best, volume = analysis["cheapest"], assumed(analysis, "volume")
    if best is None:
        why = "; ".join(f"{r['name']}: {r['why']}" for r in routes) or "no route has finished"
        return f"No route's cost is known: {why}."
    its = next(r for r in routes if r["name"] == best)
    known = [r for r in routes if r["month_usd"] is not None]
    said = (
        f"At {volume:,.0f} {unit}s a month {best} costs least: {money(its['month_usd'])} a month, "
        f"all in, over {its['months']:.3g} months"
    )
    others = sorted((r["month_usd"], r["name"]) for r in known if r["name"] != best)
    if others:
        said += f"; next is {others[0][1]} with {money(others[0][0])}"
    unknown = [r["name"] for r in routes if r["month_usd"] is None]
    rest = f" Unknown, and so not compared: {', '.join(unknown)}." if unknown else ""
    return f"{said}.{rest}"


def assumed(analysis: Analysis, name: str) -> Any:
    """The value of an assumption; None where it is not said."""
    found = (a["value"] for a in analysis["assumptions"] if a["name"] == name)
    return next(found, None)


def month_rows(analysis: Analysis) -> Rows:
    """What each route costs, the cheapest first; controls are left out.

    A unit is at the volume assumed, rent included; one more is what another one adds.
    """
    routes = sorted(_rivals(analysis), key=_rank)
    unit = analysis["unit"]
    return [
        {
            "route": r["name"] + (" (cheapest)" if r["name"] == analysis["cheapest"] else ""),
            "answers": (r["as_if"] and f"as if at {r['as_if']}") or f"{r['model']}, {r['where']}",
            "once": money(r["once_usd"]),
            f"an {unit}" if unit == "answer" else f"a {unit}": money(r["running_usd"]),
            "one more": money(r["one_more_usd"]),
            "rent a month": money(r["rent_a_month"]) if r["curve"] else UNKNOWN,
            "busy": "-" if r["busy"] is None else f"{r['busy']:.2%}",
            "a month, all in": money(r["month_usd"]),
            "note": r["why"] or _until(r),
        }
        for r in routes
    ]


def _until(route: Mapping[str, Any]) -> str:
    return f"until {route['ends']}" if route["ends"] else ""


def _rank(route: Mapping[str, Any]) -> tuple[bool, float]:
    return route["month_usd"] is None, route["month_usd"] or 0.0


def once_rows(analysis: Analysis) -> Rows:
    """What was paid once, a row a part."""
    rows: Rows = []
    for route in _rivals(analysis):
        for part in route["once"]:
            rows.append(
                {
                    "route": route["name"],
                    "once": part["item"],
                    "USD": money(part["usd"]),
                    "how": part["how"],
                }
            )
        if route["refits"]:
            again = (route["again_usd"] or 0.0) * route["refits"]
            rows.append(
                {
                    "route": route["name"],
                    "once": "retraining",
                    "USD": money(again if route["again_usd"] is not None else None),
                    "how": f"{route['refits']} x {money(route['again_usd'])}",
                }
            )
    return rows


def running_rows(analysis: Analysis) -> Rows:
    """What a unit costs, a row a part; of conversations a teacher's turn too."""
    rows: Rows = []
    for route in _rivals(analysis):
        for part in route["parts"]:
            rows.append(
                {
                    "route": route["name"],
                    "part": part["item"],
                    "USD": money(part["usd"]),
                    "how": part["how"],
                }
            )
        if analysis["unit"] == "conversation" and route["running_usd_a_turn"] is not None:
            rows.append(
                {
                    "route": route["name"],
                    "part": "a single answer",
                    "USD": money(route["running_usd_a_turn"]),
                    "how": f"of {route['turns']:.1f} a conversation, rent included",
                }
            )
    return rows


def passing_rows(analysis: Analysis) -> Rows:
    """Dollars for a passing unit, with the interval."""
    return [
        {
            "route": route["name"],
            "pass": "unknown" if p["share"] is None else f"{p['share']:.1%}",
            "rows": f"{p['n']} in {p['n_groups']} groups" if p.get("n_groups") else "-",
            "running": _passing(p),
            "all in": _passing(route["passing_all_in"]),
        }
        for route in _rivals(analysis)
        if (p := route["passing"])["n"] or p["why"]
    ]


def _passing(found: Mapping[str, Any]) -> str:
    if found["usd"] is None:
        return f"{UNKNOWN}: {found['why'].removeprefix('unknown: ')}" if found["why"] else UNKNOWN
    if found["low"] is None:
        return money(found["usd"])
    high = "no limit" if found["high"] is None else money(found["high"])
    return f"{money(found['usd'])} ({money(found['low'])} to {high})"


def pair_rows(analysis: Analysis) -> Rows:
    """From which volume on one route costs less than another."""
    unit = analysis["unit"]
    return [
        {
            "pair": f"{p['second']} against {p['first']}",
            f"{p['second']} is the cheaper"
            if len(analysis["break_even"]) == 1
            else "the first named is the cheaper": _spans(p, unit),
            f"{unit}s in all": _in_all(p),
        }
        for p in analysis["break_even"]
    ]


def _spans(pair: Mapping[str, Any], unit: str) -> str:
    kind, spans = pair["kind"], pair["spans"]
    if kind is None:
        return f"{UNKNOWN}: {pair['why']}"
    if kind in (NEVER, SAME, FROM_THE_FIRST):
        return {SAME: "never: they cost the same"}.get(kind, kind)
    if kind == FROM:
        return f"from {number(spans[0][0])} {unit}s a month on"
    if kind == UP_TO:
        return f"up to {number(spans[0][1])} {unit}s a month"
    told = [f"{number(a)} to {number(b) if b is not None else 'any'}" for a, b in spans]
    return f"{BETWEEN} {' and '.join(told)} {unit}s a month"


def _in_all(pair: Mapping[str, Any]) -> str:
    if pair["kind"] != FROM:
        return "-"
    return f"{number(pair['spans'][0][0] * pair['months'])} in {pair['months']:.3g} months"


def sensitivity_rows(analysis: Analysis) -> Rows:
    """At which value of each assumption another route becomes the cheapest."""
    return [
        {
            "assumption": s["title"],
            "now": number(s["value"]),
            "the answer flips below": _flip(s["below"]),
            "above": _flip(s["above"]),
            "lead over the next, a month": f"{money(s['lead_low'])} at {number(s['low'])}, "
            f"{money(s['lead_high'])} at {number(s['high'])}",
        }
        for s in analysis["sensitivity"]
    ]


def _flip(flip: Mapping[str, Any] | None) -> str:
    return "-" if flip is None else f"{number(flip['value'])}: {flip['route']}"


def assumption_rows(analysis: Analysis) -> Rows:
    """What is assumed, and by which option one says otherwise."""
    return [
        {
            "assumption": a["title"],
            "value": str(a["value"]) if isinstance(a["value"], bool) else number(a["value"]),
            "from": a["from"],
            "option": a["flag"],
        }
        for a in analysis["assumptions"]
    ]


def price_rows(analysis: Analysis) -> Rows:
    """Every price with its source and day."""
    return [
        {
            "price of": p["what"],
            "figure": p["figure"],
            "as of": (p["as_of"] or "-") + (" (stale)" if p["stale"] else ""),
            "source": "; ".join(filter(None, (p["source"], p["note"]))),
        }
        for p in analysis["prices"]
    ]


TABLES = (
    ("What each route costs", month_rows),
    ("When one pays off", pair_rows),
    ("What flips the answer", sensitivity_rows),
    ("A passing one", passing_rows),
    ("Paid once", once_rows),
    ("Paid for each", running_rows),
    ("Assumed", assumption_rows),
    ("Prices", price_rows),
)
"""(heading, rows) of each table, in the order of the page."""

LEFT_OUT = (
    "Not in these figures: people's time but for --hours-of-work, what a machine draws when idle, "
    "machine time of answering the test rows, taxes, storage and traffic. Seconds are of one "
    "request at a time: a server that answers many at once needs fewer of them."
)


def markdown(analysis: Analysis) -> str:
    """The page."""
    unit = analysis["unit"]
    about = (
        f"From the run `{analysis['run']}` of {analysis['run_made']}, reckoned on "
        f"{analysis['made']}; {analysis['n']} test {unit}s."
    )
    lines = [
        f"# What {analysis['task']} costs",
        "",
        verdict(analysis),
        "",
        about,
        "",
    ]
    if analysis["warnings"]:
        lines += [*(f"- {warning}" for warning in analysis["warnings"]), ""]
    for heading, rows_of in TABLES:
        rows = rows_of(analysis)
        if rows:
            lines += [f"## {heading}", "", table(rows), ""]
        if rows_of is pair_rows and analysis["cheapest"]:
            lines += [f"![Cost a month by volume]({PLOT})", ""]
        if rows_of is sensitivity_rows and rows:
            lines += [f"![What moves the lead of the cheapest route]({TORNADO})", ""]
        if rows_of is passing_rows and rows:
            lines += [f"Intervals of 95%: {analysis['interval']}.", ""]
    lines += ["## How it is reckoned", "", "```", analysis["formula"].rstrip(), "```", "", LEFT_OUT]
    return "\n".join(lines) + "\n"


def _rivals(analysis: Analysis) -> list[Mapping[str, Any]]:
    return [r for r in analysis["routes"] if r["status"] == "done" and not r["control"]]
