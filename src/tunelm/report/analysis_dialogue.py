"""In words, for tasks of dialogues: what the teachers did in whole conversations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tunelm.report.conversations import judge_notes
from tunelm.report.evidence import find_pair
from tunelm.report.phrases import counted, each, listed
from tunelm.report.words import (
    UNKNOWN,
    between,
    count,
    points,
    quantity,
    route_of,
    scale_of,
    signed,
    signed_between,
)
from tunelm.scoring.metrics import get_metric
from tunelm.scoring.statistics import verdict

Report = Mapping[str, Any]
Section = dict[str, Any]
Held = dict[str, Mapping[str, Any]]

ASKED = 3
"""Strategies named, those that were asked for most."""

MANY = 1000
"""Conversations by which the cost at scale is told."""


def dialogue_sections(report: Report) -> list[Section]:
    """Five sections; none where no conversations were held."""
    if not report["conversations"]:
        return []
    held = {
        name: its
        for name, its in report["conversations"]["routes"].items()
        if not route_of(report, name)["control"]
    }
    if not held:
        return []
    found = {
        "Natural dialogue kept up": _kept_up(report, held),
        "Strategies carried out": _strategies(report, held),
        "Data and complexity": _complexity(report, held),
        "Classroom practice": _practice(report, held),
        "Cost at scale": _scale(held),
    }
    return [{"heading": h, "paragraphs": [t for t in said if t]} for h, said in found.items()]


def _kept_up(report: Report, held: Held) -> Iterable[str | None]:
    for name, its in held.items():
        ends = its["endings"]
        failed = f"; {its['failed']} failed" if its["failed"] else ""
        turns = "an unknown number of" if its["teacher_turns"] is None else its["teacher_turns"]
        turns = turns if isinstance(turns, str) else f"{turns:.1f}"
        yield (
            f"{name} held {counted(its['n'], 'conversation')} of {turns} teacher's turns on "
            f"average: {ends['solved']} ended with the answer found unaided, "
            f"{ends['solved after telling']} after it was told, {ends['not solved']} without "
            f"it{failed}."
        )
    yield _pair(report, "solved_unaided", "Answers found unaided")
    yield _pair(report, "telling_rate", "Answers told before they were found")
    yield "Whether people find the turns natural was not measured: tunelm review RUN asks them."


def _pair(report: Report, metric: str, what: str) -> str | None:
    """The winner against the baseline on one metric; None where either is missing."""
    winner, baseline = report["winner"]["name"], report["baseline"]
    pair = find_pair(report["pairs"], metric, winner, baseline)
    if pair is None or pair["diff"] is None:
        return None
    scale = scale_of(report, metric)
    than = "from" if pair["verdict"] == "not distinguishable" else "than"
    alone = "" if pair["family"] else ", tested alone"
    interval = signed_between(pair["ci_low"], pair["ci_high"], scale)
    return (
        f"{what}: {winner} is {pair['verdict']} {than} {baseline} "
        f"({signed(pair['diff'], scale)} points, 95% interval {interval}{alone})."
    )


def _strategies(report: Report, held: Held) -> Iterable[str | None]:
    for name, its in held.items():
        asked = sorted(its["strategies"].items(), key=lambda item: (-item[1], item[0]))
        if not asked:
            continue
        total = sum(its["strategies"].values())
        most = ", ".join(f"{strategy} {count(n)}" for strategy, n in asked[:ASKED])
        yield f"Of {name}, rules asked for a strategy {total:,} times, most for: {most}."
    found = [
        (name, _value(report, name, "strategy_kept"))
        for name in held
        if "strategy_kept" in (route_of(report, name)["scores"] or {})
    ]
    if found:
        yield (
            f"The strategy asked for was seen in so many of a hundred test turns: {each(found)}."
        )
        yield _pair(report, "strategy_kept", "Strategies carried out")
    notes = judge_notes(report)
    yield " ".join(notes) if notes else "How far the judge agrees with people is not in this run."


def _value(report: Report, name: str, metric: str) -> str:
    score, scale = route_of(report, name)["scores"][metric], scale_of(report, metric)
    if score["value"] is None:
        return UNKNOWN
    interval = between(score["ci_low"], score["ci_high"], scale)
    return f"{points(score['value'], scale)} (95% interval {interval})"


def _complexity(report: Report, held: Held) -> Iterable[str | None]:
    train = report["split"]["train"]
    groups = counted(train["groups"], "independent group")
    yield (
        "The data are turns of a teacher, each with the whole dialogue before it: "
        f"{counted(train['rows'], 'train turn')} in {groups}. They need a teacher's words and, for "
        "the judge of strategies, a strategy a turn."
    )
    longest = [
        f"from {count(turns[0])} tokens at the first turn to {count(turns[-1])} at turn "
        f"{len(turns)} with {name}"
        for name, its in held.items()
        if len(turns := its["prompt_by_turn"]) > 1 and None not in turns
    ]
    if longest:
        yield f"The prompt grows with the dialogue: {listed(longest)}."


def _practice(report: Report, held: Held) -> Iterable[str | None]:
    winner = report["winner"]["name"]
    if winner in held:
        yield _students(winner, held[winner]["students"])
    for pair in report["conversations"]["held_out"]:
        if pair["a"] == winner:
            yield _held_out(pair)
    yield report["conversations"]["note"] + " No pupil has used it yet."


def _students(name: str, students: Mapping[str, Any]) -> str | None:
    """The kinds of student with whom a teacher did most and least."""
    solved = {kind: its["solved_unaided"]["value"] for kind, its in students.items()}
    known = {kind: value for kind, value in solved.items() if value is not None}
    if not known:
        return None
    most, least = (choose(known, key=lambda k: known[k]) for choose in (max, min))
    told: list[str] = []
    for kind in dict.fromkeys((most, least)):
        found = students[kind]["solved_unaided"]
        told.append(
            f"'{kind}' {points(known[kind])} (n = {students[kind]['n']}, 95% interval "
            f"{between(found['ci_low'], found['ci_high'])})"
        )
    return (
        f"Of a hundred conversations with {name}, found unaided, by the kind of student, at most "
        f"and at least: {listed(told)}."
    )


def _held_out(pair: Mapping[str, Any]) -> str | None:
    found = pair["solved_unaided"]
    if found["diff"] is None:
        return None
    said = verdict(get_metric("solved_unaided").sign * found["diff"], found["p"])
    than = "from" if said == "not distinguishable" else "than"
    return (
        f"With students in no training data (n = {found['n']}) {pair['a']} is {said} {than} "
        f"{pair['b']} ({signed(found['diff'])} points, 95% interval "
        f"{signed_between(found['ci_low'], found['ci_high'])}, tested alone)."
    )


def _scale(held: Held) -> Iterable[str | None]:
    tokens = [(name, _thousand(its)) for name, its in held.items()]
    yield f"{MANY:,} conversations take, in tokens: {each(tokens)}."
    kept = [(name, _kept(its["kept_tokens"], its["prompt_tokens"])) for name, its in held.items()]
    yield (
        "Of the prompts a provider's cache can hold what stood there a turn before, estimated by "
        f"words: {each(kept)}."
    )
    money = [
        (name, UNKNOWN if its["usd"] is None else quantity(MANY * its["usd"], "USD"))
        for name, its in held.items()
    ]
    yield (
        f"Money for {MANY:,} conversations, nothing cached: {each(money)}. tunelm cost RUN "
        "--conversations-a-month N reckons it for a machine, a rent or a list price."
    )


def _thousand(its: Mapping[str, Any]) -> str:
    counts = (its["prompt_tokens"], its["completion_tokens"])
    return UNKNOWN if None in counts else count(MANY * sum(counts))


def _kept(part: float | None, whole: float | None) -> str:
    return UNKNOWN if part is None or not whole else f"about {part / whole:.0%}"
