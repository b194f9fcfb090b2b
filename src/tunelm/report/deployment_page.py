"""The deployment plan as Markdown, for people who will stand in front of the class."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from tunelm.cells import inline, table
from tunelm.report.deployment import STATE
from tunelm.report.words import UNKNOWN, count, quantity

TEMPLATE = "deployment.md.j2"
_KINDS = {
    "danger": "self-harm, abuse, threats",
    "unfit": "sexual, weapons, drugs, hate",
    "private": "personal data",
    "harmless": "school words that only sound so",
}
_GAPS = re.compile(r"\n{3,}")

Plan = Mapping[str, Any]
_Rows = list[dict[str, str]]


def deployment_page(plan: Plan) -> str:
    """The whole page."""
    environment: Any = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # Markdown; what comes from the run goes through `inline`
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": count, "inline": inline, "quantity": quantity}
    environment.filters["table"] = table
    load = plan["load"]
    text = environment.get_template(TEMPLATE).render(
        plan=plan,
        state=STATE,
        target=f"{plan['run']}/{plan['route']}",
        talks=load is not None and load["kind"] == "conversations",
        at_once=at_once(plan),
        level_rows=_level_rows(load["levels"]) if load else [],
        cost_of_talks=_has_talks(plan),
        cost_rows=_cost_rows(plan),
        privacy_rows=_privacy_rows(plan),
        safety=load["safety"] if load else None,
        safety_rows=_safety_rows(load["safety"]) if load and load["safety"] else [],
    )
    return _GAPS.sub("\n\n", text).strip() + "\n"


def summary(plan: Plan) -> list[str]:
    """The plan in a few lines, for a terminal."""
    level, load = plan["students"]["level"], plan["load"]
    lines = [f"students at once: {text}" for text in at_once(plan)]
    if level is not None:
        reply = level["reply_s"]
        lines.append(
            f"whole replies with {level['students']} at once: median "
            f"{quantity(reply['p50'], 's')}, 95 of 100 within {quantity(reply['p95'], 's')} "
            f"(measured, n = {reply['n']})"
        )
    if load and load["safety"]:
        kinds = load["safety"]["kinds"].items()
        found = ", ".join(f"{kind} {its['right']} of {its['n']}" for kind, its in kinds)
        lines.append(f"messages with the right kind of reply: {found} (measured)")
    return [*lines, *(f"not known: {text}" for text in plan["unknown"])]


def at_once(plan: Plan) -> list[str]:
    """How many students, under either assumption."""
    its, wishes = plan["students"], plan["wishes"]
    if its["at_once"] is None:
        return [UNKNOWN]
    limit = f"95 of 100 whole replies within {wishes['limit_s']:g} s"
    if not its["at_once"]:
        return [f"none: with the fewest that were tried, not {limit} (measured)"]
    least = "at least " if its["more_untried"] else ""
    pause = f"each writes again {wishes['pause_s']:g} s after an answer"
    return [
        f"{least}{count(its['at_once'])} if all send at the same moment, {limit} (measured)",
        f"{least}{count(its['with_pauses'])} if {pause} (formula)",
    ]


def _level_rows(levels: Sequence[Mapping[str, Any]]) -> _Rows:
    return [
        {
            "students": count(level["students"]),
            "first text: median": quantity(level["first_text_s"]["p50"], "s"),
            "95 of 100 within": quantity(level["first_text_s"]["p95"], "s"),
            "whole reply: median": quantity(level["reply_s"]["p50"], "s"),
            "95 of 100 in": quantity(level["reply_s"]["p95"], "s"),
            "n": count(level["replies"]),
            "replies a minute": count(60 * level["replies_per_second"]),
            "tokens a second": count(level["tokens_per_second"]),
            "failed": count(level["failed"]),
            "refused (503)": count(level["refused"]),
            "peak memory": quantity(level["memory_bytes"], "bytes"),
        }
        for level in levels
    ]


def _has_talks(plan: Plan) -> bool:
    return any(row["n"] is not None for row in plan["conversation"])


def _cost_rows(plan: Plan) -> _Rows:
    if not _has_talks(plan):
        return [
            {"route": _own(plan, row["route"]), "tokens (run)": count(row["tokens_per_answer"])}
            for row in plan["conversation"]
        ]
    return [
        {
            "route": _own(plan, row["route"]),
            "n": count(row["n"]),
            "teacher's turns": _decimal(row["teacher_turns"]),
            "prompt tokens": count(row["prompt_tokens"]),
            "of them a cache can keep": _share(row["kept_tokens"], row["prompt_tokens"]),
            "completion tokens": count(row["completion_tokens"]),
            "prompt at turn 1, 2, ...": ", ".join(map(count, row["prompt_by_turn"])) or UNKNOWN,
            "money": quantity(row["usd"], "USD"),
        }
        for row in plan["conversation"]
        if row["n"] is not None
    ]


def _privacy_rows(plan: Plan) -> _Rows:
    return [
        {"route": _own(plan, one["route"]), "what leaves the machine for an answer": _left(one)}
        for one in plan["privacy"]
    ]


def _left(one: Mapping[str, Any]) -> str:
    if one["to"] is None:
        return "nothing"
    where = f"{one['to']} (this very machine)" if one["own"] else str(one["to"])
    key = f"the key in {one['key']}" if one["key"] else "no key"
    more = " The training rows were uploaded there." if one["trained_there"] else ""
    return (
        f"To {where}: the system text, the problem, those words of pupil and teacher that the "
        "prompt holds, the note on the strategy, the model's name, most tokens, temperature, stop "
        f"words; {key}. Not the messages that the tutor's safety rules catch.{more}"
    )


def _safety_rows(safety: Mapping[str, Any]) -> _Rows:
    return [
        {
            "messages": _KINDS[kind],
            "right kind of reply": f"{its['right']} of {its['n']}",
            "the model failed": count(its["failed"]),
        }
        for kind, its in safety["kinds"].items()
    ]


def _own(plan: Plan, route: str) -> str:
    return f"{route} (this one)" if route == plan["route"] else route


def _decimal(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.1f}"


def _share(part: float | None, whole: float | None) -> str:
    return UNKNOWN if part is None or not whole else f"about {part / whole:.0%}"
