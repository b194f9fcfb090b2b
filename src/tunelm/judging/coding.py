"""Labels as the numbers that models learn, and the models' numbers as labels and values again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from tunelm.errors import DataError
from tunelm.judging.labels import Labelled, order_of
from tunelm.scoring.label_metrics import macro_f1

Matrix = NDArray[np.float64]
Places = NDArray[np.int64]
_STEPS = (-0.3, -0.2, -0.1, -0.05, 0.05, 0.1, 0.2, 0.3)


@dataclass(frozen=True, slots=True)
class Coding:
    """What kind of labels there are.

    `labels` are classes, from worst to best where `ordered`; empty where labels are numbers.
    `scale` is the lowest and the highest value: 0 and 1 for ordered labels.
    """

    labels: tuple[str, ...]
    ordered: bool
    scale: tuple[float, float]

    @classmethod
    def of(cls, rows: Sequence[Labelled], name: str, order: Sequence[str] = ()) -> Coding:
        """That of some labelled replies.

        Raises:
            ConfigError: `order` leaves a label out.
            DataError: all labels are the same: there is nothing to learn.
        """
        labels = [row.label for row in rows]
        if len(set(labels)) < 2:
            raise DataError(
                f"all {len(rows)} labels of {name!r} are {labels[0]!r}: give others too"
            )
        ordered = order_of(name, labels, order)
        if ordered:
            return cls(tuple(ordered), True, (0.0, 1.0))
        if isinstance(labels[0], float):
            numbers = cast(list[float], labels)
            return cls((), True, (min(numbers), max(numbers)))
        return cls(tuple(sorted(cast(set[str], set(labels)))), False, (0.0, 1.0))

    @property
    def width(self) -> int:
        """Outputs of a model: one a class, or one for numbers."""
        return len(self.labels) or 1

    def encode(self, rows: Sequence[Labelled]) -> Matrix:
        """(n, width): one-hot for classes."""
        if not self.labels:
            return np.array([[cast(float, row.label)] for row in rows], dtype=np.float64)
        at = {label: place for place, label in enumerate(self.labels)}
        return np.eye(len(self.labels))[[at[cast(str, row.label)] for row in rows]]

    def score(self, outputs: Matrix) -> Matrix | None:
        """(n,) the outputs as one number, higher is better; None for classes without an order."""
        if not self.ordered:
            return None
        return outputs @ np.linspace(0, 1, self.width) if self.labels else outputs[:, 0]


def choose(outputs: Matrix, offsets: Matrix) -> Places:
    """The class of each row: the largest output once `offsets` are added."""
    return (outputs + offsets).argmax(axis=1)


def tune_offsets(outputs: Matrix, gold: Places, start: Matrix) -> Matrix:
    """What to add to each class's output so that macro-F1 is best on these rows.

    Least squares leans to common classes; macro-F1 counts all alike. Found class by class, twice,
    from `start`.
    """
    width = outputs.shape[1]
    best = start
    reached = f1_of(choose(outputs, best), gold, width)
    for _ in range(2):
        for column in range(width):
            for step in _STEPS:
                tried = best.copy()
                tried[column] += step
                value = f1_of(choose(outputs, tried), gold, width)
                if value > reached + 1e-9:
                    best, reached = tried, value
    return best


def f1_of(chosen: Places, gold: Places, width: int) -> float:
    """Macro-F1 of the classes that occur in `gold`."""
    table = np.bincount(gold * width + chosen, minlength=width * width).reshape(width, width)
    counts = np.stack([table.diagonal(), table.sum(axis=1), table.sum(axis=0)], axis=1)
    return macro_f1(counts.ravel().tolist())
