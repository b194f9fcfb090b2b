"""People's labels on a judge's scale, and what they say of the judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelm.errors import ConfigError
from tunelm.judging.check import Error, Judged, agreement, error_of
from tunelm.judging.coding import Coding
from tunelm.judging.judge import Judge, Rating
from tunelm.judging.labels import Labelled, place_of
from tunelm.judging.learned import LearnedJudge
from tunelm.judging.llm import LLMJudge
from tunelm.judging.ranking import Known
from tunelm.judging.rubrics import RUBRICS
from tunelm.tutor.teaching import without_note
from tunelm.types import Example, content_hash

Array = NDArray[np.float64]
Said = tuple[tuple[tuple[str, str], ...], str]
"""What tells a reply from others: the dialogue before it, and its text."""

NOBODY = float("nan")


@dataclass(frozen=True)
class People:
    """Labelled replies with the values that people's labels have on the judge's scale."""

    rows: tuple[Labelled, ...]
    values: tuple[float | None, ...]

    def digest(self) -> str:
        """A hash of the labels."""
        return content_hash([[row.example.id, row.label] for row in self.rows])

    def by_reply(self) -> dict[Said, float]:
        """The value of each reply, by the dialogue before it and its text."""
        pairs = zip(self.rows, self.values, strict=True)
        return {said(row.example, row.output): v for row, v in pairs if v is not None}


def people_of(judge: Judge, rows: Sequence[Labelled]) -> People:
    """Labels as values on the judge's scale. Raises ConfigError where none has a place on it."""
    values = tuple(_value(judge, row.label) for row in rows)
    ordered = not isinstance(judge, LLMJudge) or bool(judge.rubric.values)
    if ordered and all(value is None for value in values):
        known = ", ".join(sorted({str(row.label) for row in rows})[:6])
        raise ConfigError(
            f"none of the labels ({known}) has a value on the scale of the judge {judge.name}:"
            " --target names another label, or the judge another dimension."
        )
    return People(tuple(rows), values)


def people_on(target: str, rows: Sequence[Labelled]) -> People:
    """Labels by their usual order: enough to say which of two replies people prefer.

    Raises ConfigError where none has a place in it.
    """
    rubric = RUBRICS.get(target)
    values = tuple(rubric.value_of(r.label) if rubric else place_of(target, r.label) for r in rows)
    if all(value is None for value in values):
        raise ConfigError(
            f"the labels {target!r} have no order, so nobody prefers a reply by them."
        )
    return People(tuple(rows), values)


def known_of(judge: Judge, people: People | None, labelled: Sequence[Rating]) -> Known:
    """The judge's error: on people's labels, else as it was measured when it was trained."""
    if people is not None:
        values = [NOBODY if r.value is None else r.value for r in labelled]
        return known_from(people.rows, golds(people), np.array(values))
    if isinstance(judge, LearnedJudge):
        found = judge.about["error"]
        return Known(Error(found["row_sd"], found["system_sd"], found["systems"]))
    return Known(Error.unknown())


def agreement_of(
    judge: Judge, people: People | None, labelled: Sequence[Rating]
) -> dict[str, Any] | None:
    """Agreement with people: on their labels, else as it was measured when it was trained."""
    if people is None:
        if not isinstance(judge, LearnedJudge):
            return None
        unseen = judge.about["agreement_unseen_systems"]
        by = "cross-validation, replies" + (" and system unseen" if unseen else " unseen")
        return {"source": by, "figures": unseen or judge.about["agreement"], "not_judged": 0}
    coding = _coding(judge, people)
    kept = [
        i
        for i, row in enumerate(people.rows)
        if (row.label in coding.labels if coding.labels else people.values[i] is not None)
    ]
    given = [labelled[i] for i in kept]
    values = np.array([NOBODY if r.value is None else r.value for r in given])
    judged = Judged(values, values, [r.label for r in given])
    rows = [people.rows[i] for i in kept]
    found = agreement(rows, coding, golds(people)[kept], judged)
    lost = sum(r.value is None and r.label is None for r in given)
    return {"source": "the labels given", "figures": found.to_json(), "not_judged": lost}


def known_from(rows: Sequence[Labelled], gold: Array, values: Array) -> Known:
    """The error of a judge's `values` on labelled rows whose labels are `gold`; NaN: none."""
    errors = values - gold
    there = ~np.isnan(errors)
    groups = tuple(r.group for r, ok in zip(rows, there.tolist(), strict=True) if ok)
    error = error_of(rows, gold, Judged(values, values, [None] * len(rows)))
    return Known(error, errors[there], groups)


def golds(people: People) -> Array:
    """(m,) the values of the labels; NaN where one has none."""
    return np.array([NOBODY if v is None else v for v in people.values])


def _coding(judge: Judge, people: People) -> Coding:
    """The judge's labels as classes; none where people's are numbers."""
    if not isinstance(people.rows[0].label, str):
        return Coding((), True, judge.scale)
    if isinstance(judge, LearnedJudge):
        return judge.learned.coding
    rubric = judge.rubric if isinstance(judge, LLMJudge) else None
    if rubric is None:
        return Coding((), True, judge.scale)
    if not rubric.values or rubric.name.startswith("strategy="):
        return Coding(tuple(rubric.labels), False, judge.scale)
    return Coding(tuple(sorted(rubric.labels, key=rubric.values.__getitem__)), True, judge.scale)


def said(example: Example, output: str) -> Said:
    """What tells a reply from others: the dialogue before it, and its text."""
    turns = tuple((m.role, without_note(m.content).strip()) for m in example.messages)
    return turns, output.strip()


def _value(judge: Judge, label: str | float) -> float | None:
    """A person's label on the judge's scale."""
    if isinstance(judge, LLMJudge):
        return judge.rubric.value_of(label)
    if isinstance(label, float):
        return label
    coding = judge.learned.coding if isinstance(judge, LearnedJudge) else None
    if coding is None or not coding.ordered or label not in coding.labels:
        return None
    return coding.labels.index(label) / (len(coding.labels) - 1)
