"""Numbers as people read them, and the table of routes. What is unknown reads "unknown"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunelm.report.evidence import find_pair

UNKNOWN = "unknown"

Report = Mapping[str, Any]


def points(value: float | None, scale: float | None = 1.0) -> str:
    """A score on a scale of 100, one decimal: metrics of 0..1 and sacrebleu's alike.

    A metric without a best value (scale None) is written as it is, with three decimals.

    >>> points(0.7823), points(34.56, scale=100.0), points(None), points(1.23456, None)
    ('78.2', '34.6', 'unknown', '1.235')
    """
    if scale is None:
        return UNKNOWN if value is None else f"{value + 0.0:.3f}".replace("-0.000", "0.000")
    return UNKNOWN if value is None else f"{value * 100 / scale + 0.0:.1f}".replace("-0.0", "0.0")


def signed(value: float | None, scale: float | None = 1.0) -> str:
    """A difference in points, with its sign.

    >>> signed(0.031), signed(-0.2), signed(0.00001)
    ('+3.1', '-20.0', '0.0')
    """
    text = points(value, scale)
    return f"+{text}" if value is not None and value > 0 and text.strip("0.") else text


def between(low: float | None, high: float | None, scale: float | None = 1.0) -> str:
    """An interval in points.

    >>> between(0.741, 0.8), between(None, None)
    ('74.1 to 80.0', 'unknown')
    """
    if low is None or high is None:
        return UNKNOWN
    return f"{points(low, scale)} to {points(high, scale)}"


def signed_between(low: float | None, high: float | None, scale: float | None = 1.0) -> str:
    """An interval of a difference, in points with their signs.

    >>> signed_between(-0.021, 0.3), signed_between(None, None)
    ('-2.1 to +30.0', 'unknown')
    """
    if low is None or high is None:
        return UNKNOWN
    return f"{signed(low, scale)} to {signed(high, scale)}"


def p_text(p: float | None) -> str:
    """A p-value as it is written in text.

    >>> p_text(0.0001), p_text(0.0344), p_text(None)
    ('p < 0.001', 'p = 0.034', 'p unknown')
    """
    if p is None:
        return "p unknown"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def p_cell(p: float | None) -> str:
    """A p-value in a table.

    >>> p_cell(0.0001), p_cell(0.5)
    ('< 0.001', '0.500')
    """
    return UNKNOWN if p is None else p_text(p).removeprefix("p ").removeprefix("= ")


def count(value: float | None) -> str:
    """A whole number with separators.

    >>> count(12345.4), count(None)
    ('12,345', 'unknown')
    """
    return UNKNOWN if value is None else f"{value:,.0f}"


def quantity(value: float | None, unit: str) -> str:
    """A measured quantity in the unit that fits its size.

    >>> quantity(95, "s"), quantity(0.0123, "s"), quantity(3_200_000, "bytes")
    ('1 min 35 s', '12.3 ms', '3.2 MB')
    >>> quantity(None, "USD"), quantity(1234.5, "tokens/s"), quantity(7, "steps")
    ('unknown', '1,234 tokens/s', '7 steps')
    """
    if value is None:
        return UNKNOWN
    if unit == "s":
        return _duration(value)
    if unit == "bytes":
        return _size(value)
    number = f"{value:,.0f}" if value == int(value) or abs(value) >= 100 else f"{value:.3g}"
    return f"{number} {unit}"


def _duration(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
    if seconds >= 60:
        return f"{seconds // 60:.0f} min {seconds % 60 // 1:.0f} s"
    if seconds >= 1 or seconds == 0:
        return f"{seconds:.3g} s"
    return f"{seconds * 1000:.3g} ms"


def _size(size: float) -> str:
    for unit, bytes_of in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= bytes_of:
            return f"{size / bytes_of:.1f} {unit}"
    return f"{size:.0f} bytes"


def scale_of(report: Report, metric: str) -> float | None:
    """The metric's best value; None where it has none, and less of it is better."""
    return report["metrics"][metric]["scale"]


def unit_of(report: Report, metric: str) -> str:
    """What stands behind a number of the metric."""
    return metric if scale_of(report, metric) is None else f"points of {metric}"


def route_of(report: Report, name: str) -> dict[str, Any]:
    """One route's record."""
    return next(route for route in report["routes"] if route["name"] == name)


def kind_of(route: Mapping[str, Any]) -> str:
    """The kind of a route, with where its job ran, and what it is there for."""
    said = [route["kind"]]
    if route["backend"] is not None:
        said.append(f"backend {route['backend']}")
    if route["control"]:
        said.append("control")
    if route["parity_of"] is not None:
        said.append(f"parity check of {route['parity_of']}")
    return ", ".join(said)


def failed_wholly(route: Mapping[str, Any]) -> bool:
    """Whether a route has no scores to show."""
    return route["scores"] is None


def table(report: Report) -> list[dict[str, str]]:
    """The routes as rows of text with the same keys each: for a terminal, or a page.

    Scores are in points of the primary metric, or as they are where it has no best value. A
    route without scores has its reason.
    """
    return [_row(report, route) for route in report["routes"]]


def money_rows(report: Report) -> list[dict[str, str]]:
    """What each route cost in money, or why that is not known."""
    return [
        {
            "route": route["name"],
            "money": quantity(route["cost"]["value"], "USD") if route["cost"] else UNKNOWN,
            "how": route["cost"]["method"] if route["cost"] else route["cost_reason"],
        }
        for route in report["routes"]
    ]


def usage_rows(report: Report) -> list[dict[str, str]]:
    """Tokens by route and phase, as text; those of a route that kept no count are unknown."""
    nothing = {"prompt_tokens": None, "completion_tokens": None, "cached_tokens": None}
    rows: list[dict[str, str]] = []
    for route in report["routes"]:
        uncounted = {"all": nothing} if route["status"] in ("failed", "unfinished") else {}
        for phase, usage in (route["usage"] or uncounted).items():
            rows.append(
                {
                    "route": route["name"],
                    "phase": phase.replace("_", " "),
                    "prompt tokens": count(usage["prompt_tokens"]),
                    "completion tokens": count(usage["completion_tokens"]),
                    "of the prompt, cached": count(usage["cached_tokens"]),
                }
            )
    return rows


def forecast_rows(report: Report) -> list[dict[str, str]]:
    """Each forecast beside what was measured, where one of the two says anything."""
    return [
        {
            "route": route["name"],
            "forecast of": row["name"].replace("_", " "),
            "said": quantity(row["forecast"], row["unit"]),
            "was": quantity(row["measured"], row["unit"]),
            "off by": UNKNOWN if row["error"] is None else f"{row['error']:+.0%}",
            "how": row["method"],
        }
        for route in report["routes"]
        for row in route["forecast_errors"]
        if row["forecast"] or (row["forecast"] is None and row["measured"] is not None)
    ]


def meaning_rows(report: Report) -> list[dict[str, str]]:
    """What each metric measures."""
    return [
        {"metric": name, "measures": found["description"]}
        for name, found in report["metrics"].items()
    ]


def _row(report: Report, route: Mapping[str, Any]) -> dict[str, str]:
    metric, baseline = report["task"]["primary_metric"], report["baseline"]
    scale = scale_of(report, metric)
    row = {
        "route": route["name"] + (" (winner)" if route["name"] == report["winner"]["name"] else ""),
        "kind": kind_of(route),
        "test": "-",
        "95% interval": "-",
        "rows": "-",
        "dev": "-",
        "against baseline": "-",
        "tokens an answer": "-",
        "time to fit": "-",
        "note": route["status"] if route["status"] != "done" else "",
    }
    if route["reason"]:
        row["note"] = f"{row['note']}: {route['reason']}".removeprefix(": ")
    if failed_wholly(route):
        return row
    score = route["scores"][metric]
    row["test"] = points(score["value"], scale)
    row["95% interval"] = between(score["ci_low"], score["ci_high"], scale)
    row["rows"] = f"{score['n']} in {score['n_groups']} groups"
    row["dev"] = points(route["scores_dev"][metric]["value"], scale)
    row["tokens an answer"] = count(route["tokens_per_answer"]["test"])
    fitted = route["measured"].get("seconds_fit", {"value": None})
    row["time to fit"] = quantity(fitted["value"], "s")
    pair = find_pair(report["pairs"], metric, route["name"], baseline)
    if pair:
        row["against baseline"] = f"{signed(pair['diff'], scale)}, {pair['verdict']}"
    if failed := route["failed_rows"]["test"]:
        wrong = points(score["value_failed_as_wrong"], scale)
        text = f"{failed} rows failed; {wrong} with them as wrong"
        row["note"] = f"{row['note']}; {text}".removeprefix("; ")
    return row
