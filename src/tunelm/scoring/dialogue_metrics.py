"""The metrics of a tutor: of a turn beside the one that a teacher said, and of whole conversations.

A turn is answered behind a dialogue that was written before. Whole conversations are held with
simulated students (tunelm.tutor.talks), which say in `Prediction.facts` how each one went.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tunelm.scoring import text
from tunelm.scoring.metric import Metric, OfPrediction, gold_answers, ratio, row_metric
from tunelm.scoring.said import gives_away
from tunelm.types import Example, Prediction

TALKS = "_talks"
"""What stands behind a part's name where its rows are whole conversations: dev_talks."""

TELLING = "telling"
"""The strategy of a turn that is to say the answer."""


def tells_unasked(output: str, example: Example) -> bool | None:
    """Whether a turn gives away what its strategy does not ask it to say.

    None where the row has no `solutions` in its metadata.
    """
    solutions = example.metadata.get("solutions")
    if not solutions:
        return None
    if example.metadata.get("strategy") == TELLING:
        return False
    return gives_away(output, solutions, [message.content for message in example.messages])


def _turn_f1(output: str, example: Example) -> float:
    if tells_unasked(output, example):
        return 0.0
    return max(text.token_f1(output, a) for a in gold_answers("turn_f1", example))


@dataclass(frozen=True)
class _Telling(Metric):
    """The share of turns that give the answer away unasked."""

    def signature(self, examples: Sequence[Example] = ()) -> str:
        return "telling|keys:solutions|match:tokens,undenied|said before:not counted"

    def row_value(self, output: str, example: Example) -> float | None:
        tells = tells_unasked(output, example)
        return None if tells is None else float(tells)

    def statistics(self, output: str, example: Example) -> tuple[float, ...]:
        value = self.row_value(output, example)
        return (math.nan, math.nan) if value is None else (value, 1.0)

    def prediction_statistics(
        self, prediction: Prediction, example: Example
    ) -> tuple[float, ...] | None:
        found = super().prediction_statistics(prediction, example)
        return None if found is None or math.isnan(found[0]) else found

    @property
    def lower_is_better(self) -> bool:
        return True

    @property
    def aggregate(self) -> Callable[[Sequence[float]], float]:
        return ratio


@dataclass(frozen=True)
class _Fact(OfPrediction):
    """The mean of a prediction's fact of this name, over those that have it."""

    less: bool = False
    talks: bool = True

    def signature(self, examples: Sequence[Example] = ()) -> str:
        if not self.talks:
            return f"{self.name}|judge:of the run, from its train rows"
        hashes = {str(e.metadata.get("students")) for e in examples}
        return f"{self.name}|students:{hashes.pop() if len(hashes) == 1 else 'var'}|match:tokens"

    def prediction_statistics(
        self, prediction: Prediction, example: Example
    ) -> tuple[float, ...] | None:
        value = (prediction.facts or {}).get(self.name)
        return None if prediction.output is None or value is None else (value, 1.0)

    @property
    def of_conversations(self) -> bool:
        return self.talks

    @property
    def lower_is_better(self) -> bool:
        return self.less


HELD: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        _Fact(
            "solved_unaided",
            "share of conversations in which the student finds the answer before it is told",
            1.0,
            True,
            2,
        ),
        _Fact(
            "solved_after_telling",
            "share of conversations in which the student says the answer only once it was told; "
            "less is better",
            1.0,
            True,
            2,
            less=True,
        ),
        _Fact(
            "telling_rate",
            "share of conversations in which the teacher tells before the student has found it; "
            "less is better",
            1.0,
            True,
            2,
            less=True,
        ),
        _Fact(
            "turns_to_solve",
            "teacher's turns until the student finds the answer unaided, where it does; less is "
            "better",
            None,
            True,
            2,
            less=True,
        ),
    )
}
"""Those of whole conversations, by name."""

OF_TURNS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        row_metric(
            "turn_f1",
            "turn_f1|tokens:multiset|norm:squad|refs:max|tells unasked:0",
            _turn_f1,
            "SQuAD F1 of tokens with what the teacher said, 0 for a turn that gives the answer "
            "away unasked; it measures form, not teaching",
        ),
        _Telling(
            "telling",
            "share of turns that give the answer away unasked; less is better",
            1.0,
            True,
            2,
        ),
        _Fact(
            "strategy_kept",
            "share of turns in which a judge, trained on this run's train rows, sees the strategy "
            "that was asked for",
            1.0,
            True,
            2,
            talks=False,
        ),
    )
}
"""Those of single turns, by name."""
