"""What a teacher's answers teach: which of them are kept, and as what rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunelm.data.files import RawRow
from tunelm.data.read import raw_rows
from tunelm.errors import ConfigError, DataError
from tunelm.routes.base import FitContext
from tunelm.routes.programs.form import read, write
from tunelm.routes.programs.program import Step
from tunelm.routes.teacher import Teacher, ask
from tunelm.scoring.text import normalise
from tunelm.types import (
    ZERO_USAGE,
    Example,
    FinishReason,
    Message,
    Prediction,
    Usage,
    content_hash,
)


@dataclass(frozen=True, slots=True)
class Lesson:
    """What the student may learn for one row.

    Attributes:
        text: what is trained on: the answer, or reasoning and answer in their form.
        answer: the answer alone.
        sound: whether it kept the form, was not cut, and says something.
        agreed: the share of samples that say the same; None for one greedy answer.
    """

    text: str
    answer: str
    sound: bool
    agreed: float | None = None


def lesson(step: Step, got: Prediction) -> Lesson | None:
    """The lesson in one answer; None where the teacher failed or said nothing."""
    if got.output is None or not got.output.strip():
        return None
    values, broken = read(step.outputs, got.output)
    answer = values[step.outputs[-1]]
    cut = got.finish_reason is FinishReason.LENGTH
    sound = broken is None and got.format_error is None and not cut and bool(answer.strip())
    return Lesson(write(step.outputs, values) if sound else got.output, answer, sound)


def agreed_lesson(step: Step, samples: Sequence[Prediction]) -> Lesson | None:
    """What most of the samples say, in the words of the first of them that says it.

    Answers are compared in the SQuAD form (`scoring.text.normalise`). Failed and unsound samples
    agree with nothing, but count among the samples. Of equally many the first is taken.
    """
    said: dict[str, list[Lesson]] = {}
    for got in samples:
        one = lesson(step, got)
        if one is not None and one.sound:
            said.setdefault(normalise(one.answer) or one.answer.strip(), []).append(one)
    if not said:
        return None
    most = max(said.values(), key=len)
    return dataclasses.replace(most[0], agreed=len(most) / len(samples))


@dataclass(frozen=True, slots=True)
class Filter:
    """What is kept: sound answers that score `threshold` or more; None: all of them."""

    threshold: float | None
    score: Callable[[Lesson, Example], float]

    def passes(self, one: Lesson, row: Example) -> bool:
        """Whether the row's lesson is kept."""
        return self.threshold is None or (one.sound and self.score(one, row) >= self.threshold)


@dataclass(frozen=True, slots=True)
class Taught:
    """What the teacher said about some rows; `lessons` is what is kept of `answered`."""

    lessons: tuple[tuple[Lesson, Example], ...]
    answered: tuple[tuple[Lesson, Example], ...]
    asked: int
    failed: int
    unsound: int
    calls: int
    usage: Usage
    shared: frozenset[str]
    """The routes whose answers were taken over."""

    @property
    def kept(self) -> list[Example]:
        """The rows to train on, with the teacher's words as their answers."""
        return [dataclasses.replace(row, answers=(one.text,)) for one, row in self.lessons]

    def counts(self) -> dict[str, int]:
        """For JSON. `answered` are those with something to learn, for samples: to agree on."""
        return {
            "asked": self.asked,
            "failed": self.failed,
            "answered": len(self.answered),
            "unsound": self.unsound,
            "kept": len(self.lessons),
            "calls": self.calls,
        }

    def right(self, score: Callable[[str, Example], float], threshold: float) -> dict[str, Any]:
        """How often the teacher is right, before any filter, by the gold answers: for JSON.

        `mean` is over the `n` rows with an answer; `pass` of them score the threshold or more. Of
        several samples it is what most of them say that is judged.
        """
        values = [score(one.answer, row) for one, row in self.answered]
        return {
            "mean": sum(values) / len(values) if values else None,
            "n": len(values),
            "pass": sum(value >= threshold for value in values),
            "threshold": threshold,
        }


def teach(
    ctx: FitContext, teacher: Teacher, step: Step, rows: Sequence[Example], times: int, by: Filter
) -> Taught:
    """Ask about `rows`, and keep what passes the filter `by`.

    `times` 1: one greedy answer a row; more: so many samples, which must agree.
    """
    room = ctx.task.max_tokens + step.extra_tokens
    numbers = [None] if times == 1 else range(times)
    asked = [ask(ctx, teacher, rows, room, number) for number in numbers] if rows else []
    sets = list(zip(*(answers.predictions for answers in asked), strict=True))
    if times == 1:
        lessons = [lesson(step, got) for (got,) in sets]
    else:
        lessons = [agreed_lesson(step, samples) for samples in sets]
    answered = [(one, row) for one, row in zip(lessons, rows, strict=True) if one is not None]
    return Taught(
        lessons=tuple((one, row) for one, row in answered if by.passes(one, row)),
        answered=tuple(answered),
        asked=len(rows),
        failed=sum(all(got.output is None for got in samples) for samples in sets),
        unsound=sum(not one.sound for one, _ in answered),
        calls=sum(answers.own for answers in asked),
        usage=sum((answers.usage for answers in asked), ZERO_USAGE),
        shared=frozenset(a.from_route for a in asked if a.from_route is not None),
    )


@dataclass(frozen=True, slots=True)
class Further:
    """Questions without answers, and how many were dropped, by why."""

    rows: tuple[Example, ...]
    dropped: Mapping[str, int]


def read_questions(path: Path, train: Sequence[Example], dev: Sequence[Example]) -> Further:
    """The questions of a file, without those that stand in train or dev, or twice.

    Questions are compared in the SQuAD form. Any format that `tunelm.data` reads as rows with a
    field `question`; answers in it are not looked at.

    Raises:
        ConfigError: no such file.
        DataError: it cannot be read, or rows without a question, with file and line.
    """
    if not path.is_file():
        raise ConfigError(f"unlabelled = {str(path)!r}: no such file.")
    known = {normalise(row.question): "in_train" for row in train}
    known |= {normalise(row.question): "in_dev" for row in dev}
    rows: list[Example] = []
    problems: list[str] = []
    dropped = {"in_train": 0, "in_dev": 0, "twice": 0}
    for item in raw_rows(path):
        question = item.fields.get("question") if isinstance(item, RawRow) else None
        if not isinstance(item, RawRow):
            problems += [str(item)] if item.level == "error" else []
        elif not isinstance(question, str) or not question.strip():
            problems.append(f"{item.file}:{item.line}: has no text as 'question'.")
        elif (why := known.get(normalise(question))) is not None:
            dropped[why] += 1
        else:
            known[normalise(question)] = "twice"
            key = content_hash(["unlabelled", question])
            rows.append(Example(key, (Message("user", question),), (), key))
    if problems:
        raise DataError(problems)
    return Further(tuple(rows), dropped)


def reasoned(step: Step, one: Lesson, row: Example) -> Example:
    """A dev row with the teacher's reasoning and the gold answer."""
    values, _ = read(step.outputs, one.text)
    return dataclasses.replace(
        row, answers=(write(step.outputs, {**values, step.outputs[-1]: row.answers[0]}),)
    )
