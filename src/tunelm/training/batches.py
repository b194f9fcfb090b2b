"""Which rows make up each step. Deterministic for (seed, epoch), with hardly any padding.

Rows are shuffled, sorted by length within windows, cut into batches, and the batches are
shuffled again: neighbours in a batch are about equally long, yet the order stays random.
(The same idea as `group_by_length` of Transformers and PEFT's bucket iterator.) An epoch is two
arrays of numbers, 16 bytes a row, however many rows there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from tunelm.route_settings import LocalSettings

_WINDOW = 100
"""Batches sorted together. Larger: less padding, less random batches."""

Lengths = Sequence[int] | NDArray[np.int64]


class Batches(Sequence[list[int]]):
    """Batches of row numbers, made into lists when they are asked for."""

    def __init__(
        self, rows: NDArray[np.int64], ends: NDArray[np.int64], order: NDArray[np.int64]
    ) -> None:
        self._rows, self._ends, self._order = rows, ends, order

    def __len__(self) -> int:
        return int(self._order.size)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    @overload
    def __getitem__(self, at: int) -> list[int]: ...
    @overload
    def __getitem__(self, at: slice) -> Batches: ...
    def __getitem__(self, at: int | slice) -> list[int] | Batches:
        if isinstance(at, slice):
            return Batches(self._rows, self._ends, self._order[at])
        batch = int(self._order[at])
        start = int(self._ends[batch - 1]) if batch else 0
        return self._rows[start : int(self._ends[batch])].tolist()


def lengths_of(rows: Iterable[Any]) -> NDArray[np.int64]:
    """The length of each row, known or looked up one by one."""
    known = getattr(rows, "lengths", None)
    return np.array([row.length for row in rows], np.int64) if known is None else known


def supervised_of(rows: Iterable[Any]) -> NDArray[np.int64]:
    """The tokens of each row that carry loss, known or counted one by one."""
    known = getattr(rows, "supervised", None)
    return np.array([len(row.supervised) for row in rows], np.int64) if known is None else known


def epoch_batches(lengths: Lengths, settings: LocalSettings, seed: int, epoch: int) -> Batches:
    """One epoch's batches, as indices into `lengths`; each index occurs exactly once.

    With `settings.batch_tokens`, a batch's rows times its longest row stay within that number
    (a row longer than that is a batch of its own). Without, batches hold `settings.batch_size`
    rows; where that does not divide the rows, several hold one row less, rather than one
    batch holding only a few.
    """
    known = np.asarray(lengths, np.int64)
    none = np.zeros(0, np.int64)
    if not known.size:
        return Batches(none, none, none)
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(known.size)
    rows_a_batch = settings.batch_size
    if settings.batch_tokens is not None:
        rows_a_batch = max(1, round(settings.batch_tokens / (int(known.sum()) / known.size)))
    windows = max(1, round(known.size / (_WINDOW * rows_a_batch)))
    sizes: list[NDArray[np.int64]] = []
    for window in np.array_split(order, windows):  # pieces of `order`, sorted in place
        window[:] = window[np.argsort(known[window], kind="stable")]
        if settings.batch_tokens is None:
            count = math.ceil(window.size / settings.batch_size)
            each, more = divmod(window.size, count)
            sizes.append(np.full(count, each) + (np.arange(count) < more))
        else:
            sizes.append(_filled(known[window], settings.batch_tokens))
    ends = np.cumsum(np.concatenate(sizes))
    return Batches(order, ends, rng.permutation(ends.size))


def _filled(lengths: NDArray[np.int64], tokens: int) -> NDArray[np.int64]:
    """The sizes of the batches that `micro_batches` makes of rows with these lengths."""
    sizes: list[int] = []
    start = 0
    while start < lengths.size:
        most = max(1, tokens // max(1, int(lengths[start])))
        piece = lengths[start : start + most]
        too_many = np.arange(1, piece.size + 1) * piece > tokens
        size = max(1, int(np.argmax(too_many))) if too_many.any() else piece.size
        sizes.append(size)
        start += size
    return np.array(sizes, np.int64)


def micro_batches(batch: Iterable[int], lengths: Lengths, tokens: int) -> list[list[int]]:
    """The pieces that a batch of row numbers is computed in: rows of like length together.

    Shortest first, each piece of at most so many padded tokens, or of one row.

    >>> micro_batches([2, 0, 1], [2, 3, 5], tokens=6)
    [[0, 1], [2]]
    """
    pieces: list[list[int]] = []
    for row in sorted(batch, key=lambda row: lengths[row]):
        if pieces and (len(pieces[-1]) + 1) * lengths[row] <= tokens:
            pieces[-1].append(row)
        else:
            pieces.append([row])
    return pieces


def all_epochs(lengths: Lengths, settings: LocalSettings, seed: int) -> Iterator[Batches]:
    """The batches of each epoch of a run, the last of which may be a part of one.

    `max_steps` is a cap: training ends there or after `epochs`, whichever comes first.
    """
    left = settings.max_steps
    for epoch in range(math.ceil(settings.epochs)):
        batches = epoch_batches(lengths, settings, seed, epoch)
        share = min(1.0, settings.epochs - epoch)
        count = max(1, round(len(batches) * share)) if batches else 0
        if left is not None:
            count = min(count, left)
            left -= count
            if not count:
                return
        yield batches[:count]


def steps_by_epoch(lengths: Lengths, settings: LocalSettings, seed: int) -> list[int]:
    """Steps of each epoch of `all_epochs`."""
    return [len(batches) for batches in all_epochs(lengths, settings, seed)]


def heaviest(lengths: Lengths, settings: LocalSettings, seed: int, micro_tokens: int) -> list[int]:
    """The rows of the micro batch with the most padded tokens of a whole run, as indices."""
    best: list[int] = []
    most = 0
    for batches in all_epochs(lengths, settings, seed):
        for batch in batches:
            for piece in micro_batches(batch, lengths, micro_tokens):
                tokens = len(piece) * max(int(lengths[i]) for i in piece)
                if tokens > most:
                    best, most = piece, tokens
    return best
