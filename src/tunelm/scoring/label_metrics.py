"""The metrics of a classification that are no mean of rights and wrongs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from tunelm.scoring.metric import Metric, OfPrediction, gold_answers
from tunelm.types import NO_LABEL, Example, Prediction, label_form

BINS = 10
"""Of equal width, in which confidence is compared with the share of right answers."""


@dataclass(frozen=True)
class _MacroF1(Metric):
    """The mean over labels of each label's F1: a rare label weighs as much as a common one.

    The labels are the gold answers of the rows that are scored (see `bound`). For each there
    are three counts: rows right, rows of that label, rows answered with it. An answer that is
    none of them still misses its row's label.
    """

    labels: tuple[str, ...] = ()

    def bound(self, examples: Sequence[Example]) -> Metric:
        if self.labels or not examples:
            return self
        found = tuple(sorted({label_form(gold_answers(self.name, e)[0]) for e in examples}))
        return replace(self, labels=found, width=3 * len(found))

    def signature(self, examples: Sequence[Example] = ()) -> str:
        return "macro_f1|labels:gold|norm:case,spaces|refs:any"

    def row_value(self, output: str, example: Example) -> None:
        return None

    def statistics(self, output: str, example: Example) -> tuple[float, ...]:
        accepted = [label_form(a) for a in gold_answers(self.name, example)]
        gold = accepted[0]
        got = gold if label_form(output) in accepted else label_form(output)
        counts = ((gold == got == label, gold == label, got == label) for label in self.labels)
        return tuple(float(count) for label in counts for count in label)

    @property
    def aggregate(self) -> Callable[[Sequence[float]], float]:
        return macro_f1


@dataclass(frozen=True)
class _InvalidLabel(OfPrediction):
    """The share of answers that are none of the task's labels, as `models.labels` found them."""

    def signature(self, examples: Sequence[Example] = ()) -> str:
        return "invalid_label|as:answered"

    def prediction_statistics(
        self, prediction: Prediction, example: Example
    ) -> tuple[float, ...] | None:
        if prediction.output is None:
            return None
        return (float((prediction.format_error or "").startswith(NO_LABEL)), 1.0)

    @property
    def lower_is_better(self) -> bool:
        return True


def is_right(output: str, example: Example) -> bool:
    """Whether an answer is one of the row's labels. Raises DataError where it has none."""
    return label_form(output) in map(label_form, gold_answers("accuracy", example))


def sure_and_right(prediction: Prediction, example: Example) -> tuple[float, float] | None:
    """(confidence, 1.0 where right); None where it failed or no confidence was given."""
    sure = (prediction.facts or {}).get("confidence")
    if prediction.output is None or sure is None:
        return None
    return float(sure), float(is_right(prediction.output, example))


def bin_of(confidence: float) -> int:
    """The place of its bin, 0 to BINS - 1; a border belongs to the bin above it, 1 to the last.

    >>> bin_of(0.0), bin_of(0.1), bin_of(0.99), bin_of(1.0)
    (0, 1, 9, 9)
    """
    return min(int(confidence * BINS), BINS - 1)


@dataclass(frozen=True)
class _CalibrationError(OfPrediction):
    """The expected calibration error (Naeini, Cooper and Hauskrecht 2015; Guo et al. 2017).

    Of each bin of confidence there are three sums: rows, confidence, rows that are right.
    """

    def signature(self, examples: Sequence[Example] = ()) -> str:
        return f"ece|bins:{BINS},equal-width|of:chosen-label|norm:case,spaces|refs:any"

    def prediction_statistics(
        self, prediction: Prediction, example: Example
    ) -> tuple[float, ...] | None:
        found = sure_and_right(prediction, example)
        if found is None:
            return None
        place = 3 * bin_of(found[0])
        vector = [0.0] * self.width
        vector[place : place + 3] = 1.0, *found
        return tuple(vector)

    @property
    def lower_is_better(self) -> bool:
        return True

    @property
    def aggregate(self) -> Callable[[Sequence[float]], float]:
        return calibration_error


def calibration_error(vector: Sequence[float]) -> float:
    """The mean over rows of |share right - mean confidence| of their bin, from three sums a bin.

    >>> round(calibration_error([2, 1.2, 2, 2, 1.8, 1]), 3)
    0.4
    """
    rows = sum(vector[::3])
    gaps = (abs(right - sure) for sure, right in zip(vector[1::3], vector[2::3], strict=True))
    return sum(gaps) / rows if rows else math.nan


def macro_f1(vector: Sequence[float]) -> float:
    """The mean F1 of the labels that occur, from (right, gold, answered) of each label.

    >>> round(macro_f1([1, 2, 1, 1, 1, 2]), 3)
    0.667
    """
    found = [
        2 * right / (gold + answered)
        for right, gold, answered in zip(vector[::3], vector[1::3], vector[2::3], strict=True)
        if gold
    ]
    return sum(found) / len(found) if found else math.nan


OF_LABELS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        _MacroF1(
            "macro_f1",
            "mean over the labels of each label's F1, rare and common labels alike",
            1.0,
            False,
            0,
        ),
        _InvalidLabel(
            "invalid_label",
            "share of answers that are none of the labels; less is better",
            1.0,
            True,
            2,
        ),
        _CalibrationError(
            "ece",
            "expected calibration error: how far confidence is from the share that is right, "
            f"over {BINS} bins; noise adds to it where rows are few; less is better",
            1.0,
            False,
            3 * BINS,
        ),
    )
}
"""Those of classifications, by name."""
