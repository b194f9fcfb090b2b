"""The classic table of eight rows, a column a kind of route: what is known, and what was measured.

What stands in WHAT_IS_KNOWN holds of the kinds in general, and of no run. Beside it stands what
this run measured of one route of the kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tunelm.planning.facts import WITHOUT_MODEL
from tunelm.report.analysis_running import (
    fitting_tokens,
    machine,
    seconds_cell,
    what_is_served,
)
from tunelm.report.analysis_setup import named_extras
from tunelm.report.phrases import counted, listed
from tunelm.report.words import UNKNOWN, count, quantity

Report = Mapping[str, Any]
Route = Mapping[str, Any]

ROWS = (
    "what changes",
    "data needed",
    "cost",
    "set-up difficulty",
    "control",
    "hardware",
    "deployment",
    "data privacy",
)

EIGHT = "The routes in eight rows"
EIGHT_NOTE = (
    "What comes first in a cell holds of the kind of route in general; what was measured is this "
    "run's, of the route named above."
)

WHAT_IS_KNOWN: dict[str, tuple[str, ...]] = {
    "baseline": (
        "nothing: the model as it is",
        "none",
        "the model's usual tokens or time",
        "none",
        "the instructions alone",
        "what the model needs",
        "the model with instructions",
        "as private as where the model runs",
    ),
    "prompt": (
        "the prompt; the weights stay",
        "tens of rows, for examples and to choose by",
        "calls to search, then longer prompts in every answer",
        "low: no training",
        "readable and edited by hand; bound to what the model can do",
        "what the model needs; none behind an API",
        "a text file beside the model",
        "examples are sent with every question",
    ),
    "rag": (
        "the passages before the question; the weights stay",
        "a corpus; rows only to judge by",
        "an index, then longer prompts in every answer",
        "medium: a corpus to cut, search and keep fresh",
        "facts are changed by editing the corpus",
        "what the model needs, and the index",
        "model and index together",
        "passages are sent with every question",
    ),
    "cloud": (
        "weights that the provider keeps",
        "tens to thousands of rows with answers",
        "training by the token, then answers at a fine-tune's price",
        "medium: a file, a job, waiting",
        "few settings; the weights cannot be had",
        "none of one's own",
        "by the provider, until it shuts the model down",
        "rows and questions go to the provider",
    ),
    "local": (
        "a small part of the weights, or all of them",
        "hundreds of rows with answers",
        "machine time once, then the machine",
        "high: a training to set up and watch",
        "all settings and the weights are one's own",
        "a GPU for models of billions of parameters",
        "an adapter beside the model",
        "nothing need leave the machine",
    ),
    "hybrid": (
        "the prompt, then weights on the prompt found",
        "hundreds of rows with answers",
        "a search and a training",
        "high: both",
        "both, and which helped is seen stage by stage",
        "as for training",
        "an adapter and its prompt together",
        "as of its two parts",
    ),
    "distill": (
        "the weights of a smaller model",
        "questions; the teacher writes the answers",
        "the teacher's answers once, then a smaller model",
        "high: a teacher, a filter and a training",
        "what the teacher gets wrong is learned or filtered",
        "less than the teacher needs",
        "a small model with an adapter",
        "questions go to the teacher",
    ),
    "rule": (
        "nothing is learned: a program writes the answer",
        "none",
        "a programmer's time",
        "low to write, high to keep up",
        "every word",
        "any",
        "a function",
        "nothing leaves the program",
    ),
    "nearest": (
        "nothing: answers of train questions are looked up",
        "rows with answers, the more the better",
        "next to none",
        "low",
        "answers are changed by editing rows",
        "any",
        "the rows and an index",
        "nothing leaves the machine",
    ),
    "classifier": (
        "a small model of its own",
        "hundreds of rows with labels",
        "next to none",
        "low",
        "weights of words can be read",
        "any",
        "a file of weights",
        "nothing leaves the machine",
    ),
}

TITLES = {
    "baseline": "the model as it is",
    "prompt": "prompt optimization",
    "rag": "retrieval",
    "cloud": "hosted fine-tuning",
    "local": "local LoRA",
    "hybrid": "prompt and weights",
    "distill": "distillation",
    "rule": "a rule",
    "nearest": "nearest question",
    "classifier": "small classifier",
}


def eight_rows(report: Report) -> list[dict[str, Any]]:
    """The table: for each of ROWS `row`, and `cells` with `kind`, `title`, `route`, `known`,
    `measured`.

    A column a kind that finished, controls left out; a baseline stands there only where it won, or
    nothing else does. Of several routes of a kind the winner is measured, else the first. Empty
    where no route finished.
    """  # noqa: D205
    routes = _of_each_kind(report)
    if not routes:
        return []
    return [
        {
            "row": row,
            "cells": [
                {
                    "kind": route["kind"],
                    "title": _title(report, route),
                    "route": route["name"],
                    "known": WHAT_IS_KNOWN[route["kind"]][ROWS.index(row)],
                    "measured": measure(report, route),
                }
                for route in routes
            ],
        }
        for row, measure in zip(ROWS, _MEASURES, strict=True)
    ]


def table_rows(found: list[dict[str, Any]]) -> list[dict[str, str]]:
    """The table as text, for Markdown."""
    return [
        {
            "": row["row"],
            **{
                f"{cell['title']} ({cell['route']})": f"{cell['known']}. Measured: "
                f"{cell['measured']}"
                for cell in row["cells"]
            },
        }
        for row in found
    ]


def _of_each_kind(report: Report) -> list[Route]:
    winner = report["winner"]["name"]
    done = [
        r
        for r in report["routes"]
        if r["scores"] is not None and not r["control"] and r["kind"] in WHAT_IS_KNOWN
    ]
    done.sort(key=lambda r: r["name"] != winner)
    chosen: dict[str, Route] = {}
    for route in done:
        chosen.setdefault(route["kind"], route)
    plain = chosen.get("baseline")
    if plain is not None and len(chosen) > 1 and plain["name"] != winner:
        del chosen["baseline"]
    order = [r["kind"] for r in report["routes"]]
    return sorted(chosen.values(), key=lambda r: order.index(r["kind"]))


def _title(report: Report, route: Route) -> str:
    if route["kind"] == "local" and report["settings"][route["name"]].get("method") == "full":
        return "local full fine-tuning"
    if route["kind"] == "baseline" and route["endpoint"] is not None:
        return "a hosted model as it is"
    return TITLES[route["kind"]]


def _changes(report: Report, route: Route) -> str:
    taken = route["taken"]
    found: list[str] = []
    if taken["trained"] is not None:
        found.append(f"{counted(taken['trained'], 'parameter')} trained")
    if taken["examples"]:
        found.append(f"{counted(taken['examples'], 'example')} in the prompt")
    if taken["passages"] is not None:
        found.append(f"{counted(taken['passages'], 'passage')} to search")
    if route["kind"] in ("baseline", "rule", "nearest"):
        found.append("nothing trained")
    return ", ".join(found) or UNKNOWN


def _data(report: Report, route: Route) -> str:
    taken = route["taken"]
    if taken["rows"] is not None:
        return counted(taken["rows"], "train row")
    if taken["pool"] is not None:
        return f"a pool of {counted(taken['pool'], 'train row')}"
    return UNKNOWN


def _cost(report: Report, route: Route) -> str:
    cost = route["cost"]
    money = quantity(cost["value"], "USD") if cost else f"money {UNKNOWN}"
    tokens = count(fitting_tokens(route))
    answer = count(route["tokens_per_answer"]["test"])
    return f"{money}; {tokens} tokens to fit, {answer} an answer"


def _set_up(report: Report, route: Route) -> str:
    taken = route["taken"]
    what = named_extras(taken["extras"])
    hand = f"{counted(len(taken['changed']), 'setting')} by hand"
    return f"{what}; {hand}; {quantity(taken['seconds'], 's')} to fit"


def _control(report: Report, route: Route) -> str:
    found = [counted(route["taken"]["settings"], "setting")]
    if route["prompt"] is not None and route["kind"] not in WITHOUT_MODEL:
        size = sum(len(message["content"]) for message in route["prompt"])
        found.append(f"a prompt of {counted(size, 'character')} to read")
    return ", ".join(found)


def _hardware(report: Report, route: Route) -> str:
    if route["endpoint"] is not None:
        return "answers came from an endpoint, whose hardware is unknown"
    peak = route["memory"].get("peak_memory")
    if peak is None or peak["value"] is None:
        size = "memory unknown"
    elif "training process" in peak["method"]:
        size = f"{quantity(peak['value'], 'bytes')} at the peak of training"
    else:
        size = f"{quantity(peak['value'], 'bytes')} at the peak, with the routes before it"
    return f"{machine(report)}; {size}"


def _deployment(report: Report, route: Route) -> str:
    seconds = seconds_cell(route)
    ends = route["taken"]["ends"]
    until = f"; until {ends}" if ends else ""
    return f"{what_is_served(report, route)}; {seconds} an answer{until}"


def _privacy(report: Report, route: Route) -> str:
    endpoint, helpers = route["endpoint"], route["taken"]["helpers"]
    shown = f"; train rows went to {listed(helpers)}" if helpers else ""
    if endpoint is None:
        return f"test questions stayed on this machine{shown}"
    own = ", one's own" if endpoint.get("own") else ""
    return f"test questions went to {endpoint['base_url']}{own}{shown}"


_MEASURES: tuple[Callable[[Report, Route], str], ...] = (
    _changes,
    _data,
    _cost,
    _set_up,
    _control,
    _hardware,
    _deployment,
    _privacy,
)
"""What this run knows of each of ROWS."""
