"""Several short texts in one row, each blind to the others.

A packed row's positions start at zero in every text, and its attention mask is block-diagonal:
the loss is that of the texts one by one. Not every architecture keeps to such a mask, so the
worker compares the two before it trains (`training.worker`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from tunelm.training.rows import EncodedRow


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


def pack(rows: Sequence[EncodedRow], length: int) -> list[PackedRow]:
    """Fill rows of at most `length` tokens, the longest texts first, each into the fullest
    row that still has room (best-fit decreasing).

    Every row is in exactly one packed row. Deterministic.
    """  # noqa: D205
    bins: dict[int, list[list[EncodedRow]]] = {}  # room left -> rows being filled
    for row in sorted(rows, key=lambda r: (-r.length, r.id)):
        room = next((r for r in range(row.length, length + 1) if bins.get(r)), None)
        chosen = bins[room].pop() if room is not None else []
        left = (length if room is None else room) - row.length
        chosen.append(row)
        bins.setdefault(left, []).append(chosen)
    return [PackedRow(tuple(rows)) for room in sorted(bins) for rows in bins[room]]
