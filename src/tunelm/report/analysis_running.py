"""In words: what fitting and answering take, and what would be served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunelm.planning.facts import WITHOUT_MODEL
from tunelm.report.analysis_setup import contenders
from tunelm.report.evidence import find_pair
from tunelm.report.phrases import counted, each, listed
from tunelm.report.verdict import headline
from tunelm.report.words import (
    UNKNOWN,
    count,
    quantity,
    route_of,
    scale_of,
    signed,
    signed_between,
    unit_of,
)

Report = Mapping[str, Any]
Section = dict[str, Any]

_PLAN = "How many users it bears at once, alarms and the way back: tunelm report RUN --deployment."

NOT_FITTING = ("evaluate_", "timing")
"""How the phases begin whose tokens were spent on measuring, not on making."""


def cost_section(report: Report) -> Section:
    """Tokens, seconds, memory and money."""
    routes = [r for r in contenders(report) if r["scores"] is not None]
    said = [_tokens(routes), _seconds(report, routes), _memory(routes), _money(report)]
    return {"heading": "Compute and API cost", "paragraphs": [text for text in said if text]}


def _tokens(routes: Sequence[Mapping[str, Any]]) -> str | None:
    if not routes:
        return None
    answers = each((r["name"], count(r["tokens_per_answer"]["test"])) for r in routes)
    text = f"Tokens an answer, prompt included: {answers}."
    spent = [(r["name"], count(fitting_tokens(r))) for r in routes if _fitting(r)]
    return f"{text} Tokens spent on fitting, all seeds: {each(spent)}." if spent else text


def fitting_tokens(route: Mapping[str, Any]) -> int | None:
    """All tokens of the phases that made the route; None: some are unknown."""
    counts = [
        usage[key]
        for usage in _fitting(route).values()
        for key in ("prompt_tokens", "completion_tokens")
    ]
    known = [n for n in counts if n is not None]
    return sum(known) if len(known) == len(counts) else None


def _fitting(route: Mapping[str, Any]) -> Mapping[str, Mapping[str, int | None]]:
    return {k: v for k, v in route["usage"].items() if not k.startswith(NOT_FITTING)}


def _seconds(report: Report, routes: Sequence[Mapping[str, Any]]) -> str | None:
    found = [(r["name"], seconds_cell(r)) for r in routes]
    if not found or all(value == UNKNOWN for _, value in found):
        return "How long one answer takes is unknown." if found else None
    return (
        f"One request alone takes, as the median of a few dev rows: {each(found)}. "
        f"Measured on {machine(report)}."
    )


def seconds_cell(route: Mapping[str, Any]) -> str:
    """How long one answer takes."""
    found = route["latency"].get("seconds_per_answer")
    return UNKNOWN if found is None else quantity(found["value"], "s")


def machine(report: Report) -> str:
    """The machine of the run, as a noun."""
    host = report["host"]
    if not host:
        return "a machine that is not known"
    gpu = host.get("gpu") or "no GPU"
    return f"{counted(host.get('cpu_count'), 'core')} and {gpu}"


def _memory(routes: Sequence[Mapping[str, Any]]) -> str | None:
    """What training peaked at; what the comparing process held is of all routes in it together."""
    found: list[tuple[str, str]] = []
    for route in routes:
        peak = route["memory"].get("peak_memory")
        if peak is not None and peak["value"] is not None and "training process" in peak["method"]:
            found.append((route["name"], quantity(peak["value"], "bytes")))
    return f"Memory of training, at its peak: {each(found)}." if found else None


def _money(report: Report) -> str:
    routes = [r for r in report["routes"] if r["status"] == "done" and not r["control"]]
    day = str(report["created"])[:10]
    told = [
        f"{r['name']} {quantity(r['cost']['value'], 'USD')} "
        f"({r['cost']['method'].replace('the prices given', f'the prices given on {day}')})"
        for r in routes
        if r["cost"]
    ]
    unknown: dict[str, list[str]] = {}
    for route in routes:
        if not route["cost"]:
            unknown.setdefault(route["cost_reason"], []).append(route["name"])
    told += [f"unknown for {listed(names)} ({why})" for why, names in unknown.items()]
    text = f"Money spent: {'; '.join(told)}." if told else "Money spent: unknown."
    return (
        f"{text} What a machine's time costs, and from which volume on one route costs less than "
        "another, is reckoned by tunelm cost RUN."
    )


def deployment_section(report: Report) -> Section:
    """What the winner, and those not shown to be behind it, would be served as."""
    winner = report["winner"]["name"]
    said: list[str]
    if winner is None:
        said = ["No route finished, so there is nothing to serve."]
    else:
        names = _candidates(report, winner)
        said = [
            _first_choice(report, winner, names),
            " ".join(served(report, route_of(report, name)) for name in names),
            _until(report, names),
            *_parity(report),
            _PLAN,
        ]
    return {"heading": "Deployment", "paragraphs": said}


def _candidates(report: Report, winner: str) -> list[str]:
    """The winner, then routes that the test rows do not put behind it."""
    metric, names = report["task"]["primary_metric"], [winner]
    for route in contenders(report):
        if route["parity_of"] is not None or route["scores"] is None:
            continue
        pair = find_pair(report["pairs"], metric, route["name"], winner)
        if pair is not None and pair["diff"] is not None and pair["verdict"] != "worse":
            names.append(route["name"])
    return names


def _first_choice(report: Report, winner: str, names: Sequence[str]) -> str:
    others = [name for name in names if name != winner]
    if headline(report).startswith("Ship "):
        lead = f"To be served: {winner}"
    elif winner == report["baseline"]:
        lead = f"What is served stays the model as it is: {winner}"
    else:
        lead = f"The verdict does not say to ship. Served all the same, it would be {winner}"
    if not others:
        return f"{lead}."
    return f"{lead}. Not shown to be worse than it: {listed(others)}."


def served(report: Report, route: Mapping[str, Any]) -> str:
    """What answers in place of a route, and how fast."""
    first = route["latency"].get("time_to_first_token") or {"value": None}
    if route["kind"] in WITHOUT_MODEL:  # has no tokens to wait for
        first = {"value": None}
    token = "" if first["value"] is None else f", the first token {quantity(first['value'], 's')}"
    seconds = seconds_cell(route)
    return f"{route['name']}: {what_is_served(report, route)}; an answer takes {seconds}{token}."


def _until(report: Report, names: Sequence[str]) -> str:
    """Until when it answers: weights of one's own for ever, a provider's until a day."""
    here = [name for name in names if route_of(report, name)["endpoint"] is None]
    told: list[str] = []
    if here:
        told.append(
            f"What {listed(here)} answer{'s' if len(here) == 1 else ''} with is on this machine, "
            "and no provider can switch it off; tunelm serve RUN/ROUTE puts a route on line."
        )
    for name in names:
        taken = route_of(report, name)["taken"]
        if name in here:
            continue
        if taken["ends"]:
            told.append(f"{name} shuts down on {taken['ends']} ({taken['ends_source']}).")
        else:
            why = f" ({taken['ends_source']})" if taken["ends_source"] else ""
            told.append(f"On which day {name} shuts down is unknown{why}: ask who serves it.")
    return " ".join(told)


def what_is_served(report: Report, route: Mapping[str, Any]) -> str:
    """The thing that answers, in a few words."""
    endpoint, taken = route["endpoint"], route["taken"]
    if endpoint is not None:
        name = endpoint.get("fine_tuned_model") or endpoint["model"]
        return f"the model {name} at {endpoint['base_url']}"
    base = taken["student"] or (report["base"] or {}).get("name") or UNKNOWN
    base = Path(str(base)).name
    kinds = {
        "baseline": f"{base} with the task's instructions",
        "prompt": f"{base} with a prompt program",
        "rag": f"{base} with an index of {counted(taken['passages'], 'passage')}",
        "rule": "a rule without a model",
        "nearest": "a search among the train questions",
        "classifier": "a classifier without a language model",
    }
    weights = _weights(report, route)
    if taken["stage"] is not None:
        what = kinds["prompt"] if taken["stage"] == "prompt" else f"{weights} {base}"
        return f"the stage {taken['stage']}, {what}"
    if route["kind"] not in kinds:
        return f"{weights} {base}"
    added = f", and {weights} it" if route["measured"].get("adapter_bytes") else ""
    return kinds[route["kind"]] + added


def _weights(report: Report, route: Mapping[str, Any]) -> str:
    """What training wrote, and what it belongs to."""
    found = route["measured"].get("adapter_bytes") or {"value": None}
    size = "" if found["value"] is None else f" of {quantity(found['value'], 'bytes')}"
    if report["settings"][route["name"]].get("method") == "full":
        return f"weights{size} that take the place of those of"
    return f"an adapter{size} on"


def _parity(report: Report) -> list[str]:
    told: list[str] = []
    for route in report["routes"]:
        peer, metric = route["parity_of"], report["task"]["primary_metric"]
        if peer is None or route["scores"] is None:
            continue
        pair = find_pair(report["pairs"], metric, route["name"], peer)
        if pair is None or pair["diff"] is None:
            continue
        scale = scale_of(report, metric)
        than = "from" if pair["verdict"] == "not distinguishable" else "than"
        told.append(
            f"{route['name']} went through the fine-tuning protocol on this machine, and is a "
            f"check of {peer}, not of a hosted model: it is {pair['verdict']} {than} {peer} "
            f"({signed(pair['diff'], scale)} {unit_of(report, metric)}, 95% interval "
            f"{signed_between(pair['ci_low'], pair['ci_high'], scale)})."
        )
    return told
