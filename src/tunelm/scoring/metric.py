"""What a metric is: one shape for all, so that every one of them can be resampled by group.

A metric turns one row into a short vector of sufficient statistics. Vectors add up, and
`aggregate` turns a sum over any rows into the value for those rows: a mean for metrics that
score each row, sacrebleu's corpus score for BLEU and chrF. Standard library only.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tunelm.errors import DataError
from tunelm.types import Example, Prediction


def ratio(vector: Sequence[float]) -> float:
    """The mean from (sum of values, number of values); NaN where nothing was counted."""
    return vector[0] / vector[1] if vector[1] else math.nan


@dataclass(frozen=True)
class Metric(ABC):
    """One metric. `scale` is the best possible value: 1, or 100 where sacrebleu uses 100.

    It is None for metrics without a best value, which are given as they are, in `unit`, and
    of which less is better. `lower_is_better` says so of others too: a share of failures.

    `per_row` metrics score each row by itself; the others exist for a whole corpus only.
    `width` is the length of the vector of statistics.
    """

    name: str
    description: str
    scale: float | None
    per_row: bool
    width: int

    @abstractmethod
    def signature(self, examples: Sequence[Example] = ()) -> str:
        """Everything needed to compute the same number elsewhere.

        For BLEU and chrF it is sacrebleu's own string. It names the number of references,
        which is known only with `examples`; without them it stands as `var`.
        """

    @abstractmethod
    def row_value(self, output: str, example: Example) -> float | None:
        """The value for one row, on `scale`; None for a metric of whole corpora."""

    @abstractmethod
    def statistics(self, output: str, example: Example) -> tuple[float, ...]:
        """Sufficient statistics of one row: `width` numbers, to be added over rows."""

    def bound(self, examples: Sequence[Example]) -> Metric:
        """The metric for just these rows; itself, where it does not depend on the rows."""
        return self

    def prediction_statistics(
        self, prediction: Prediction, example: Example
    ) -> tuple[float, ...] | None:
        """`statistics` of a prediction; None where it failed or the model cannot tell."""
        return None if prediction.output is None else self.statistics(prediction.output, example)

    @property
    def lower_is_better(self) -> bool:
        """Whether less of it is better."""
        return self.scale is None

    @property
    def of_conversations(self) -> bool:
        """Whether its rows are whole conversations, and not the rows of the task's file."""
        return False

    @property
    def sign(self) -> float:
        """What a value is multiplied by so that more is better."""
        return -1.0 if self.lower_is_better else 1.0

    @property
    @abstractmethod
    def aggregate(self) -> Callable[[Sequence[float]], float]:
        """The function from a sum of statistics to the value, on `scale`, for those rows.

        For every per-row metric it is `ratio` itself, which lets tunelm.scoring.statistics
        compute the means of thousands of resamples at once.
        """


@dataclass(frozen=True)
class OfPrediction(Metric):
    """A mean of what stands in the prediction beside its text: no output is looked at."""

    def row_value(self, output: str, example: Example) -> float | None:
        """None: the text alone has no value."""
        return None

    def statistics(self, output: str, example: Example) -> tuple[float, ...]:
        """NaN: see `prediction_statistics`."""
        return (math.nan,) * self.width

    @property
    def aggregate(self) -> Callable[[Sequence[float]], float]:
        """The mean."""
        return ratio


@dataclass(frozen=True)
class _RowMetric(Metric):
    """A mean of values between 0 and 1, one a row."""

    value_of: Callable[[str, Example], float]
    signature_text: Callable[[], str]

    def signature(self, examples: Sequence[Example] = ()) -> str:
        return self.signature_text()

    def row_value(self, output: str, example: Example) -> float:
        return self.value_of(output, example)

    def statistics(self, output: str, example: Example) -> tuple[float, ...]:
        return (self.value_of(output, example), 1.0)

    @property
    def aggregate(self) -> Callable[[Sequence[float]], float]:
        return ratio


def gold_answers(metric: str, example: Example) -> tuple[str, ...]:
    """The row's answers. Raises DataError where it has none."""
    if not example.answers:
        raise DataError(
            f"row {example.id} has no answer, and {metric} needs at least one to compare with; "
            "give the row an answer or leave it out"
        )
    return example.answers


def row_metric(
    name: str, signature: str | Callable[[], str], value: Callable[[str, Example], float], what: str
) -> Metric:
    """A mean of `value`, between 0 and 1, over rows; `what` describes it."""
    written = (lambda: signature) if isinstance(signature, str) else signature
    return _RowMetric(name, what, 1.0, True, 2, value, written)
