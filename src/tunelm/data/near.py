"""Near-duplicates: texts that share most of their words and pairs of neighbouring words.

What is compared are a text's *shingles*: its words, folded, and its pairs of neighbours, with the
start and the end of the text as neighbours too. Two texts are near-duplicates when the Jaccard
similarity of their shingle sets (shared / all) is at least the threshold. Up to `LIMIT` shingles
(about 250 words) the figure is exact; of a longer text the `LIMIT` smallest hashes stand for it, a
uniform sample (bottom-k sketch; Cohen and Kaplan, PODC 2007) with a standard error below 0.025.

At 0.8, two texts of w words, all different, may differ in about one word in 13: 13 words and one
changed: 24 of 30. Three changed of 60: 112 of 130 = 0.86. A pair counts as much as a word so that
"is 3 more than 5" and "is 5 more than 3" stay apart.

Which pairs to look at is found by MinHash and banding (`tunelm.data.banding`). Everything that
grows with the texts lies in files; of a row some 20 bytes stay in memory.
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelm.data.banding import Buckets, Signer
from tunelm.data.shingles import LIMIT, Hashes, jaccard, shingles, shingles_of, word_hashes

COMMON_SHARE, COMMON_ROWS = 0.25, 50
"""A shingle in more than a quarter of the rows, and in more than 50, is the form of the data."""

PART_SIMILARITY, PART_WORDS = 0.4, 64
"""How alike the parts of two rows must be that are alike as a whole; words looked at of a part."""

_BLOCK = 4096
_WORDS = 1 << 20
"""Rows, and words, worked on at once."""
_TABLE = 1 << 22
_PAIRS = 1 << 13


@dataclass(frozen=True)
class Sketches:
    """What is compared of some rows, one after the other; picklable."""

    shingles: Hashes
    sizes: NDArray[np.uint16]
    """How many shingles are each row's; 0: alike to none."""
    parts: Hashes
    part_sizes: NDArray[np.int32]


class Sketcher:
    """Makes the sketches of rows, block by block: see `NearRows.add` for what is given."""

    def __init__(self) -> None:
        self._words: list[Hashes] = []
        self._size = 0
        self._parts: list[Hashes] = []
        self._part_sizes: list[int] = []
        self._done: list[tuple[Hashes, NDArray[np.int64]]] = []

    def __len__(self) -> int:
        """Rows added since `take`."""
        return len(self._part_sizes)

    def add(self, text: str | Hashes, same: str, parts: Sequence[str | Hashes]) -> None:
        """One more row."""
        own = word_hashes(text) if isinstance(text, str) else text
        self._words.append(own)
        self._size += own.size
        if self._size >= _WORDS:
            self._hash()
        size = 0
        if same or parts:
            hashes = [word_hashes(p) if isinstance(p, str) else p for p in parts]
            hashes = [part[:PART_WORDS] for part in hashes]
            head = [zlib.crc32(same.encode("utf-8", "replace")), len(parts)]
            self._parts += [np.array(head + [part.size for part in hashes], np.uint32), *hashes]
            size = 2 + sum(1 + part.size for part in hashes)
        self._part_sizes.append(size)

    def take(self) -> Sketches:
        """The sketches of all rows added since the last call."""
        self._hash()
        made = Sketches(
            np.concatenate([shingles for shingles, _ in self._done]),
            np.concatenate([sizes for _, sizes in self._done]).astype(np.uint16),
            np.concatenate([*self._parts, _NOTHING]),
            np.array(self._part_sizes, np.int32),
        )
        self._done, self._parts, self._part_sizes = [], [], []
        return made

    def _hash(self) -> None:
        sizes = np.array([words.size for words in self._words], np.int64)
        self._done.append(shingles_of(np.concatenate([*self._words, _NOTHING]), sizes))
        self._words, self._size = [], 0


class NearRows:
    """Near-duplicates among many rows: all rows in first, the pairs out afterwards.

    It knows all rows before it compares two, so it can leave out the shingles that are the form of
    the data (an instruction that stands in every prompt, the words of a template): two rows must
    be alike with them *and* without them. The shingles lie in files in `folder`.

    >>> story = "Ann has twelve red apples and gives seven of them to her brother Tom at school"
    >>> with NearRows() as rows:
    ...     for text in (story, "Quite another story", story.replace("red", "green")):
    ...         rows.add(text)
    ...     [(row, earlier) for row, earlier, _ in rows.matches(drop=True)]
    [(2, 0)]
    """

    def __init__(self, threshold: float = 0.8, folder: Path | None = None) -> None:
        self.threshold = threshold
        self._folder = tempfile.TemporaryDirectory(dir=folder, prefix=".near.")
        self._files: list[Any] = [
            (Path(self._folder.name) / name).open("w+b") for name in ("shingles", "parts")
        ]
        self._sketcher = Sketcher()
        self._blocks: list[Sketches] = []
        """Sizes alone: what they are of lies in the files."""
        self._buckets: Buckets | None = None

    def __enter__(self) -> NearRows:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the temporary files."""
        if self._buckets is not None:
            self._buckets.close()
        for file in self._files:
            file.close()
        self._folder.cleanup()

    def __len__(self) -> int:
        """Rows added so far, those of no text included."""
        return sum(block.sizes.size for block in self._blocks) + len(self._sketcher)

    def add(self, text: str | Hashes, same: str = "", parts: Sequence[str | Hashes] = ()) -> None:
        """One more row; its number is how many were added before. No text: alike to none.

        Texts may be given as their `word_hashes`.

        Rows that are alike as a whole may still say different things: two questions on one long
        passage, or one question with two answers. They are near-duplicates only if `same` is
        equal, and their `parts`, one by one, are at least `PART_SIMILARITY` alike.
        """
        self._sketcher.add(text, same, parts)
        if len(self._sketcher) >= _BLOCK:
            self.extend(self._sketcher.take())

    def extend(self, rows: Sketches) -> None:
        """More rows, whose sketches were made before."""
        if len(self._sketcher):
            waiting, self._sketcher = self._sketcher, Sketcher()
            self.extend(waiting.take())
        self._files[0].write(rows.shingles.tobytes())
        self._files[1].write(rows.parts.tobytes())
        self._blocks.append(Sketches(_NOTHING, rows.sizes, _NOTHING, rows.part_sizes))

    def matches(
        self, drop: bool, left_out: NDArray[np.bool_] | None = None
    ) -> Iterator[tuple[int, int, float]]:
        """(row, earlier row, similarity), rows in order; those in `left_out` (a mask) are passed.

        With `drop`, a row that matches is dropped: it is given once, and no later row is compared
        with it. Otherwise the pairs connect all rows that are alike, directly or through others.
        To be called once.
        """
        self._settle()
        live = self._sizes > 0
        if left_out is not None:
            live &= ~left_out
        self._common = self._common_shingles(live)
        self._buckets = self._signed(live)
        dropped: set[int] = set()
        root: dict[int, int] = {}
        for rows, others in self._buckets.candidates():
            for row, other, similarity in self._alike(rows, others):
                if drop and (row in dropped or other in dropped):
                    continue
                if not drop and _root(root, row) == _root(root, other):
                    continue
                if not self._same_parts(row, other):
                    continue
                yield row, other, similarity
                if drop:
                    dropped.add(row)
                else:
                    root[_root(root, row)] = _root(root, other)

    def _settle(self) -> None:
        """All rows into the files, and the files open for reading."""
        self.extend(self._sketcher.take())
        for file in self._files:
            file.flush()
        self._sizes = np.concatenate([block.sizes for block in self._blocks])
        self._ends = np.cumsum(np.concatenate(([0], self._sizes)), dtype=np.int64)
        part_sizes = np.concatenate([block.part_sizes for block in self._blocks])
        self._part_ends = np.cumsum(np.concatenate(([0], part_sizes)), dtype=np.int64)

    def _read(self, start: int, stop: int) -> Hashes:
        """The shingles of these rows."""
        return _piece(self._files[0], int(self._ends[start]), int(self._ends[stop]))

    def _blocks_of(
        self, live: NDArray[np.bool_]
    ) -> Iterator[tuple[NDArray[np.int64], Hashes, NDArray[np.int64]]]:
        """(numbers, shingles, sizes) of the live rows, block by block."""
        for start in range(0, live.size, _BLOCK):
            stop = min(start + _BLOCK, live.size)
            found = self._read(start, stop)
            here, sizes = live[start:stop], self._sizes[start:stop].astype(np.int64)
            if not here.all():
                found, sizes = found[np.repeat(here, sizes)], sizes[here]
            yield np.flatnonzero(here) + start, found, sizes

    def _common_shingles(self, live: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which places of the table hold shingles that are the form of the data."""
        counts = np.zeros(_TABLE, np.int32)
        for _, found, _ in self._blocks_of(live):
            places, times = np.unique(found & np.uint32(_TABLE - 1), return_counts=True)
            counts[places] += times.astype(np.int32)
        return counts > max(COMMON_ROWS, COMMON_SHARE * int(live.sum()))

    def _signed(self, live: NDArray[np.bool_]) -> Buckets:
        signer = Signer(self.threshold)
        buckets = Buckets(Path(self._folder.name), signer.bands)
        for numbers, found, sizes in self._blocks_of(live):
            rare = ~self._common[found & np.uint32(_TABLE - 1)]
            sizes = np.bincount(np.repeat(np.arange(sizes.size), sizes)[rare], minlength=sizes.size)
            filled = sizes > 0
            if filled.any():
                buckets.add(numbers[filled], signer.keys(found[rare], sizes[filled]))
        return buckets

    def _alike(
        self, rows: NDArray[np.int64], others: NDArray[np.int64]
    ) -> Iterator[tuple[int, int, float]]:
        """Of the pairs those that reach the threshold, with common shingles and without."""
        for start in range(0, rows.size, _PAIRS):
            piece = slice(start, start + _PAIRS)
            pair = rows[piece], others[piece]
            keys = [self._keyed(numbers) for numbers in pair]
            ends = np.minimum(*(self._complete_to(numbers) for numbers in pair))
            keys = [k[(k & _LOW).astype(np.int64) <= ends[(k >> _HIGH).astype(np.int64)]]
                    for k in keys]  # fmt: skip
            whole = _jaccard(keys, ends.size)
            rare = [k[~self._common[(k & np.uint64(_TABLE - 1)).astype(np.int64)]] for k in keys]
            near = (whole >= self.threshold) & (_jaccard(rare, ends.size) >= self.threshold)
            found = np.flatnonzero(near)
            yield from zip(
                pair[0][found].tolist(), pair[1][found].tolist(), whole[found].tolist(), strict=True
            )

    def _keyed(self, numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The shingles of rows, each with the row's place among them above it."""
        sizes = self._sizes[numbers].astype(np.int64)
        ramp = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        places = np.repeat(self._ends[numbers], sizes) + ramp
        stored = np.memmap(self._files[0], np.uint32, "r")
        of = np.repeat(np.arange(sizes.size, dtype=np.uint64), sizes)
        return of << _HIGH | stored[places]

    def _complete_to(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The largest hash up to which each row's shingles are all there."""
        ends = np.full(numbers.size, 1 << 32, np.int64)
        for place in np.flatnonzero(self._sizes[numbers] >= LIMIT):
            row = int(numbers[place])
            ends[place] = int(self._read(row, row + 1)[-1])
        return ends

    def _same_parts(self, row: int, other: int) -> bool:
        (same, parts), (other_same, other_parts) = self._parts_of(row), self._parts_of(other)
        return (
            same == other_same
            and len(parts) == len(other_parts)
            and all(
                (not a.size and not b.size) or jaccard(a, b) >= PART_SIMILARITY
                for a, b in zip(parts, other_parts, strict=True)
            )
        )

    def _parts_of(self, row: int) -> tuple[int, list[Hashes]]:
        start, stop = int(self._part_ends[row]), int(self._part_ends[row + 1])
        if start == stop:
            return 0, []
        block = _piece(self._files[1], start, stop)
        count = int(block[1])
        ends = np.cumsum(block[2 : 2 + count])[:-1]
        parts = np.split(block[2 + count :], ends) if count else []
        return int(block[0]), [shingles(part) for part in parts]


_NOTHING: Hashes = np.zeros(0, np.uint32)
_HIGH, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)


def _piece(file: Any, start: int, stop: int) -> Hashes:
    file.seek(start * 4)
    return np.frombuffer(file.read((stop - start) * 4), np.uint32)


def _jaccard(keys: Sequence[NDArray[np.uint64]], pairs: int) -> NDArray[np.float64]:
    """The Jaccard similarity of each pair: shared of all."""
    both = np.concatenate(keys)
    both.sort()
    all_of = np.bincount((both >> _HIGH).astype(np.int64), minlength=pairs)
    shared = both[1:][both[1:] == both[:-1]]
    common = np.bincount((shared >> _HIGH).astype(np.int64), minlength=pairs)
    return common / np.maximum(all_of - common, 1)


def _root(parent: dict[int, int], row: int) -> int:
    while row in parent:
        row = parent[row]
    return row
