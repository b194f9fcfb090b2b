"""Demonstrations without an optimizer: gold rows, or rows that the program answered itself.

A gold row has no reasoning, and no answers of earlier steps. A program that writes those can only
be shown rows that it answered itself, and well: then with all that it wrote on the way.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from tunelm.routes.programs.engine import ChatEngine, Metered
from tunelm.routes.programs.form import read, render, with_given, write
from tunelm.routes.programs.model import open_program
from tunelm.routes.programs.program import Demo, gold_demo, turns_of
from tunelm.routes.programs.start import PASS, bare, shows_more
from tunelm.routes.programs.tracker import Score, Steps
from tunelm.types import Completion, Example, Message, Request

Worked = tuple[Demo, ...]
"""One row carried out: a demonstration for each step."""


def labeled(pool: Sequence[Example], demos: int) -> Worked:
    """`demos` gold rows of the pool, the same that DSPy's LabeledFewShot draws."""
    drawn = random.Random(0).sample(list(pool), min(demos, len(pool)))
    return tuple(gold_demo(row) for row in drawn)


def with_demos(steps: Steps, worked: Sequence[Worked]) -> Steps:
    """The steps, each with its demonstrations of these rows."""
    return tuple(
        replace(step, demos=tuple(row[i] for row in worked)) for i, step in enumerate(steps)
    )


def self_taught(
    engine: ChatEngine,
    steps: Steps,
    rows: Sequence[Example],
    max_tokens: int,
    score: Score,
) -> list[Worked]:
    """The rows that the program answers well by itself, in order, with all that it wrote.

    Well is a score of PASS or more, in the form that was asked for.
    """
    given: list[dict[str, str]] = [{} for _ in rows]
    worked: list[list[Demo]] = [[] for _ in rows]
    good = list(range(len(rows)))
    output = ""
    for step in steps:
        last = step is steps[-1]
        room = step.extra_tokens + (max_tokens if last else 0)
        asked = [(rows[i].messages if last else _without_system(rows[i])) for i in good]
        pairs = zip(good, asked, strict=True)
        requests = [Request(render(step, m, given[i]), max_tokens=room) for i, m in pairs]
        answers = dict(zip(good, engine.answer(requests), strict=True))
        good = []
        for i, got in answers.items():
            values, broken = read(step.outputs, got.text)
            output = values[step.outputs[-1]]
            if got.error is not None or broken or (last and score(output, rows[i]) < PASS):
                continue
            shown = with_given(_without_system(rows[i]), given[i])
            said = Message("assistant", write(step.outputs, values))
            worked[i].append(Demo(rows[i].id, "bootstrapped", (*shown, said)))
            given[i] = {**given[i], step.name: output}
            good.append(i)
    return [tuple(worked[i]) for i in good]


def taught(
    engine: ChatEngine, steps: Steps, pool: Sequence[Example], max_tokens: int
) -> list[Completion]:
    """The program's answers to the pool as one batch, each without the row's own demonstration."""
    if shows_more(steps):
        program = open_program(bare(steps), Metered(engine))
        return program.complete([Request(row.messages, max_tokens) for row in pool])
    (step,) = steps
    requests: list[Request] = []
    for row in pool:
        turns = turns_of([demo for demo in step.demos if demo != gold_demo(row)])
        messages = render(step, row.messages, turns=turns)
        requests.append(Request(messages, max_tokens + step.extra_tokens))
    return engine.answer(requests)


def _without_system(row: Example) -> tuple[Message, ...]:
    return tuple(m for m in row.messages if m.role != "system")
