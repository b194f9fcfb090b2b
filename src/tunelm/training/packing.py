"""Several short texts in one row, each blind to the others.

A packed row's positions start at zero in every text, and its attention mask is block-diagonal:
the loss is that of the texts one by one. Not every architecture keeps to such a mask, so the
worker compares the two before it trains (`training.worker`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tunelm.training.batches import lengths_of, supervised_of
from tunelm.training.rows import EncodedRow
from tunelm.types import Lazy


@dataclass(frozen=True)
class PackedRow:
    """Rows one after the other; the same questions as to a row, answered for all of them."""

    rows: tuple[EncodedRow, ...]

    @property
    def id(self) -> str:
        """The first row's."""
        return self.rows[0].id

    @cached_property
    def length(self) -> int:
        """Tokens fed to the model."""
        return sum(row.length for row in self.rows)

    @property
    def inputs(self) -> tuple[int, ...]:
        """Tokens fed to the model."""
        return tuple(token for row in self.rows for token in row.inputs)

    @property
    def supervised(self) -> tuple[int, ...]:
        """The tokens that carry loss."""
        return tuple(token for row in self.rows for token in row.supervised)

    @property
    def places(self) -> list[int]:
        """For each supervised token the position of the input that predicts it."""
        found: list[int] = []
        start = 0
        for row in self.rows:
            found += [start + place for place in row.places]
            start += row.length
        return found

    @property
    def pieces(self) -> tuple[int, ...]:
        """The length of each text."""
        return tuple(row.length for row in self.rows)


class PackedRows(Lazy[PackedRow]):
    """Packed rows as numbers of the rows they are made of; each is made when it is asked for."""

    def __init__(self, rows: Sequence[EncodedRow], bins: Sequence[Sequence[int]]) -> None:
        self._rows, self._bins = rows, bins
        lengths = lengths_of(rows)
        self.lengths: NDArray[np.int64] = np.array(
            [sum(int(lengths[i]) for i in own) for own in bins], np.int64
        )

    @cached_property
    def supervised(self) -> NDArray[np.int64]:
        """Of each packed row, the tokens that carry loss."""
        counts = supervised_of(self._rows)
        return np.array([counts[list(own)].sum() for own in self._bins], np.int64)

    def __len__(self) -> int:
        return len(self._bins)

    def at(self, index: int) -> PackedRow:
        """The texts of one row."""
        return PackedRow(tuple(self._rows[i] for i in self._bins[index]))

    @property
    def most_crowded(self) -> PackedRow:
        """The row that is made of most others."""
        return self[max(range(len(self)), key=lambda at: len(self._bins[at]))]


def pack(rows: Sequence[EncodedRow], length: int) -> PackedRows:
    """Fill rows of at most `length` tokens, the longest texts first, each into the fullest
    row that still has room (best-fit decreasing).

    Every row is in exactly one packed row. Deterministic.
    """  # noqa: D205
    bins: dict[int, list[list[int]]] = {}  # room left -> numbers of the rows being filled
    lengths: list[int] = lengths_of(rows).tolist()
    name = getattr(rows, "name", None) or (lambda at: rows[at].id)
    for at in sorted(range(len(rows)), key=lambda at: (-lengths[at], name(at))):
        own = lengths[at]
        room = next((r for r in range(own, length + 1) if bins.get(r)), None)
        chosen = bins[room].pop() if room is not None else []
        left = (length if room is None else room) - own
        chosen.append(at)
        bins.setdefault(left, []).append(chosen)
    return PackedRows(rows, [own for room in sorted(bins) for own in bins[room]])
