"""Quality against cost: what an answer of each route takes, beside how good it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunelm.planning.facts import WITHOUT_MODEL
from tunelm.report.words import UNKNOWN, between, count, points, quantity, scale_of

Report = Mapping[str, Any]


def tradeoff_rows(report: Report) -> list[dict[str, str]]:
    """Each scored route's quality and the price of an answer, the best on the test rows first.

    `seconds an answer` is for one request alone. The parameters are those of the language model
    that answers, an adapter's own left out; unknown behind an API.
    """
    metric = report["task"]["primary_metric"]
    scale = scale_of(report, metric)
    routes = [r for r in report["routes"] if r["scores"] is not None and not r["control"]]
    routes.sort(key=lambda r: _rank(r["scores"][metric]["value"], scale))
    return [
        {
            "route": route["name"],
            metric: points(route["scores"][metric]["value"], scale),
            "95% interval": between(
                route["scores"][metric]["ci_low"], route["scores"][metric]["ci_high"], scale
            ),
            "tokens an answer": count(route["tokens_per_answer"]["test"]),
            "an answer takes": _seconds(route),
            "parameters": _parameters(report, route),
            "fitting took": _measured(route, "seconds_fit"),
        }
        for route in routes
    ]


def _rank(value: float | None, scale: float | None) -> float:
    if value is None:
        return float("inf")
    return value if scale is None else -value


def _seconds(route: Mapping[str, Any]) -> str:
    found = route["latency"].get("seconds_per_answer")
    return UNKNOWN if found is None else quantity(found["value"], "s")


def _measured(route: Mapping[str, Any], name: str) -> str:
    found = route["measured"].get(name)
    return UNKNOWN if found is None else quantity(found["value"], found["unit"])


def _parameters(report: Report, route: Mapping[str, Any]) -> str:
    if route["endpoint"] is not None:
        return UNKNOWN
    if route["kind"] in WITHOUT_MODEL:
        return "no language model"
    own = route["measured"].get("student_parameters")
    return count(own["value"] if own else (report["base"] or {}).get("parameters"))
