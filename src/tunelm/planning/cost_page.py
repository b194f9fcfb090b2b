"""The analysis as text: rows of tables for a terminal and a page, and cost.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunelm.cells import table
from tunelm.planning.breakeven import BETWEEN, FROM, FROM_THE_FIRST, NEVER, SAME, UP_TO
from tunelm.planning.reckon import NO_MACHINE

UNKNOWN = "unknown"
PLOT, TORNADO = "cost.svg", "cost-sensitivity.svg"

CENT = 0.01
_LEAST = 1e-6
"""Dollars below which digits tell nobody anything."""

Analysis = Mapping[str, Any]
Rows = list[dict[str, str]]


def money(value: float | None) -> str:
    """Dollars with the digits that matter, never in powers of ten.

    >>> money(1234.5), money(2.5), money(0.000105), money(0), money(None), money(-3)
    ('$1,234', '$2.50', '$0.000105', '$0', 'unknown', '-$3.00')
    >>> money(0.4), money(0.0000000006)
    ('$0.40', 'under $0.000001')
    """
    if value is None:
        return UNKNOWN
    if 0 < value < _LEAST:
        return f"under ${_LEAST:.6f}"
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
        if len(text) == len("0.4"):
            text += "0"
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
        return " ".join([_nothing_known(routes), *_of_the_choice(analysis)])
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
    return " ".join([f"{said}.{rest}", *_of_the_choice(analysis)])


def _nothing_known(routes: list[Mapping[str, Any]]) -> str:
    """Why no cost is known, once for all routes that share the reason."""
    by_why: dict[str, list[str]] = {}
    for route in routes:
        by_why.setdefault(route["why"].removeprefix(f"{UNKNOWN}: "), []).append(route["name"])
    if list(by_why) == [NO_MACHINE.removeprefix(f"{UNKNOWN}: ")]:
        return (
            "What a route costs depends on the machine that answers, and nobody has said what it "
            "costs: give --watts and --usd-per-kwh, --gpu, or --price-as."
        )
    why = "; ".join(f"{', '.join(names)}: {why}" for why, names in by_why.items())
    return f"No route's cost is known: {why or 'no route has finished'}."


def _of_the_choice(analysis: Analysis) -> list[str]:
    """What the route that the comparison chose costs, where that is not said yet."""
    chosen = next((r for r in _rivals(analysis) if r["name"] == analysis["winner"]), None)
    if chosen is None or chosen["name"] == analysis["cheapest"]:
        return []
    if chosen["month_usd"] is not None:
        return [f"The comparison chose {chosen['name']}, which costs {money(chosen['month_usd'])}."]
    told = [
        f"{_cents(usd)} a month on {case['name']}"
        for case in analysis["cases"]
        if (usd := case["month_usd"].get(chosen["name"])) is not None
    ]
    if not told:
        return []
    return [f"For example, the comparison's choice, {chosen['name']}: {'; '.join(told)}."]


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
    rows = [
        {
            "route": r["name"] + (" (cheapest)" if r["name"] == analysis["cheapest"] else ""),
            analysis["metric"]: _score(r["score"], analysis["metric_best"]),
            "answers": (r["as_if"] and f"as if at {r['as_if']}") or f"{r['model']}, {r['where']}",
            "once": money(r["once_usd"]),
            f"an {unit}" if unit == "answer" else f"a {unit}": money(r["running_usd"]),
            "one more": money(r["one_more_usd"]),
            "rent a month": money(r["rent_a_month"]) if r["curve"] else UNKNOWN,
            "busy": "-" if r["busy"] is None else f"{r['busy']:.2%}",
            "machine time a month": "-"
            if r["seconds_a_month"] is None
            else f"{number(r['seconds_a_month'])} s",
            "a month, all in": money(r["month_usd"]),
            "note": r["why"] or _until(r),
        }
        for r in routes
    ]
    return _known_columns(rows)


def _score(value: float | None, best: float | None) -> str:
    """In points of 100; of a metric without a best value, as it is."""
    if value is None:
        return UNKNOWN
    return f"{value:.3f}" if best is None else f"{100 * value / best:.1f}"


def _cents(usd: float) -> str:
    """Dollars of an example, to the cent."""
    return money(usd) if usd >= CENT else f"under ${CENT:.2f}"


def _known_columns(rows: Rows) -> Rows:
    """The columns in which anything is known of any route."""
    names = list(rows[0]) if rows else []
    empty = {name for name in names if all(row[name] in (UNKNOWN, "-") for row in rows)}
    return [{name: cell for name, cell in row.items() if name not in empty} for row in rows]


def case_rows(analysis: Analysis) -> Rows:
    """What each route would cost a month in common cases."""
    return [
        {
            "case": case["name"],
            "price": case["price"],
            **{
                f"{name}, a month": "-" if usd is None else _cents(usd)
                for name, usd in case["month_usd"].items()
            },
            "option": case["option"],
        }
        for case in analysis["cases"]
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
    """Dollars for a passing unit, with the interval; nothing where no share that passes is."""
    if all(r["passing"]["share"] is None for r in _rivals(analysis)):
        return []
    rows = [
        {
            "route": route["name"],
            "pass": "unknown" if p["share"] is None else f"{p['share']:.1%}",
            "rows": f"{p['n']} in {p['n_groups']} groups" if p.get("n_groups") else "-",
            "running": _passing(p, route),
            "all in": _passing(route["passing_all_in"], route),
        }
        for route in _rivals(analysis)
        if (p := route["passing"])["n"] or p["why"]
    ]
    return _known_columns(rows)


def _passing(found: Mapping[str, Any], route: Mapping[str, Any]) -> str:
    if found["usd"] is None:
        if found["share"] == 0:
            return "none passed"
        if found["why"] == route["why"]:  # said of the route itself
            return UNKNOWN
        return f"{UNKNOWN}: {found['why'].removeprefix('unknown: ')}" if found["why"] else UNKNOWN
    if found["low"] is None:
        return money(found["usd"])
    high = "no limit" if found["high"] is None else money(found["high"])
    return f"{money(found['usd'])} ({money(found['low'])} to {high})"


def pair_rows(analysis: Analysis) -> Rows:
    """From which volume on one route costs less than another; nothing where no pair is known."""
    unit = analysis["unit"]
    if all(p["kind"] is None for p in analysis["break_even"]):
        return []
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
    ("In common cases, as examples", case_rows),
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
        if rows_of is passing_rows and any(
            r["passing"]["low"] is not None for r in _rivals(analysis)
        ):
            lines += [f"Intervals of 95%: {analysis['interval']}.", ""]
    lines += ["## How it is reckoned", "", "```", analysis["formula"].rstrip(), "```", "", LEFT_OUT]
    return "\n".join(lines) + "\n"


def _rivals(analysis: Analysis) -> list[Mapping[str, Any]]:
    return [r for r in analysis["routes"] if r["status"] == "done" and not r["control"]]
