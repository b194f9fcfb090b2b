"""Who tests whom: folds that keep a group, and if asked a system, on one side."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]


def group_folds(groups: Sequence[Hashable], count: int, seed: int = 0) -> Places:
    """The fold (0 to `count` - 1) of each row: groups in random order, each to the smallest fold.

    >>> sorted(set(group_folds(["a", "a", "b", "c"], 2).tolist()))
    [0, 1]
    """
    names, index = np.unique(np.array([str(g) for g in groups]), return_inverse=True)
    sizes = np.bincount(index, minlength=len(names))
    order = np.random.default_rng(seed).permutation(len(names))
    # Large groups first, or the last one may unbalance what was even.
    order = order[np.argsort(-sizes[order], kind="stable")]
    filled = np.zeros(count, dtype=np.int64)
    fold_of = np.zeros(len(names), dtype=np.int64)
    for name in order:
        fold_of[name] = int(filled.argmin())
        filled[fold_of[name]] += sizes[name]
    return fold_of[index]


def splits(
    folds: Places, systems: Sequence[str | None] | None = None
) -> Iterator[tuple[Places, Places]]:
    """(rows to train on, rows to test on), every row once among the latter.

    With `systems`, a row is tested by what has seen neither its fold nor any reply of its system.
    """
    for fold in np.unique(folds):
        inside = folds == fold
        if systems is None:
            yield np.flatnonzero(~inside), np.flatnonzero(inside)
            continue
        names = np.array([str(system) for system in systems])
        for name in np.unique(names[inside]):
            yield (
                np.flatnonzero(~inside & (names != name)),
                np.flatnonzero(inside & (names == name)),
            )
