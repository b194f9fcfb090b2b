"""The other half of a judge: extremely randomised trees, kept as plain arrays.

scikit-learn grows them (Geurts, Ernst and Wehenkel 2006); they are exported node by node, so that
no pickle is ever opened and rating needs numpy alone. A test holds that both give the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
_LEAF = -1


@dataclass(frozen=True)
class Forest:
    """All nodes of all trees in one list.

    `left` and `right` are places of children (-1: a leaf), `feature` and `threshold` the question
    asked, `value` (nodes, k) the answer of a leaf, `roots` where each tree begins.
    """

    left: NDArray[np.int32]
    right: NDArray[np.int32]
    feature: NDArray[np.int32]
    threshold: Matrix
    value: NDArray[np.float64]
    roots: NDArray[np.int32]

    @classmethod
    def of(cls, grown: Any) -> Forest:
        """The arrays of a fitted scikit-learn forest of regression trees."""
        trees = [tree.tree_ for tree in grown.estimators_]
        sizes = [tree.node_count for tree in trees]
        roots = np.cumsum([0, *sizes[:-1]]).astype(np.int32)

        def shifted(side: str) -> NDArray[np.int32]:
            places = [
                np.where(getattr(t, side) == _LEAF, _LEAF, getattr(t, side) + root)
                for t, root in zip(trees, roots, strict=True)
            ]
            return np.concatenate(places).astype(np.int32)

        return cls(
            left=shifted("children_left"),
            right=shifted("children_right"),
            feature=np.concatenate([t.feature for t in trees]).astype(np.int32),
            threshold=np.concatenate([t.threshold for t in trees]).astype(np.float64),
            value=np.concatenate([t.value[:, :, 0] for t in trees]).astype(np.float64),
            roots=roots,
        )

    def predict(self, features: Matrix) -> Matrix:
        """(n, k): the mean of the leaves that each row falls into.

        Features are compared in single precision, as scikit-learn does.
        """
        rows = np.arange(len(features))
        single = features.astype(np.float32)
        total = np.zeros((len(features), self.value.shape[1]))
        for root in self.roots:
            at = np.full(len(features), root, dtype=np.int32)
            while (inner := self.left[at] != _LEAF).any():
                goes_left = single[rows, self.feature[at]] <= self.threshold[at]
                at = np.where(inner, np.where(goes_left, self.left[at], self.right[at]), at)
            total += self.value[at]
        return total / len(self.roots)

    def arrays(self) -> dict[str, Any]:
        """What `from_arrays` needs."""
        return {name: getattr(self, name) for name in _FIELDS}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> Forest:
        """The inverse of `arrays`."""
        return cls(*(arrays[name] for name in _FIELDS))


_FIELDS: Sequence[str] = ("left", "right", "feature", "threshold", "value", "roots")
