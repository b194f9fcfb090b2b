"""Near-duplicates: texts that share most of their words and pairs of neighbouring words.

What is compared are a text's *shingles*: its words, folded, and its pairs of neighbours, with the
start and the end of the text as neighbours too. Two texts are near-duplicates when the Jaccard
similarity of their shingle sets (shared / all) is at least the threshold. Up to `LIMIT` shingles
(about 250 words) the figure is exact; of a longer text the `LIMIT` smallest hashes stand for it, a
uniform sample (bottom-k sketch; Cohen and Kaplan, PODC 2007) with a standard error below 0.025.

At 0.8, two texts of w words, all different, may differ in about one word in 13: 13 words and one
changed: 24 of 30. Three changed of 60: 112 of 130 = 0.86. A pair counts as much as a word so that
"is 3 more than 5" and "is 5 more than 3" stay apart.

Which pairs to look at is found by MinHash (datasketch) and banding, as its `MinHashLSH` does. The
buckets are our own: that class keeps some 3.5 KB a row, these below 0.3 KB.
"""

from __future__ import annotations

import tempfile
import zlib
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelm.data.banding import Buckets, Signer, likely
from tunelm.data.shingles import Hashes, comparable, jaccard, shingles, word_hashes

COMMON_SHARE, COMMON_ROWS = 0.25, 50
"""A shingle in more than a quarter of the rows, and in more than 50, is the form of the data."""

PART_SIMILARITY, PART_WORDS = 0.4, 64
"""How alike the parts of two rows must be that are alike as a whole; words looked at of a part."""

_BLOCK = 4096
_TABLE = 1 << 22


class NearRows:
    """Near-duplicates among many rows: all rows in first, the pairs out afterwards.

    It knows all rows before it compares two, so it can leave out the shingles that are the form of
    the data (an instruction that stands in every prompt, the words of a template): two rows must
    be alike with them *and* without them. Memory is about 0.3 KB a row; the shingles lie in a
    temporary file in `folder`.

    >>> story = "Ann has twelve red apples and gives seven of them to her brother Tom at school"
    >>> with NearRows() as rows:
    ...     for text in (story, "Quite another story", story.replace("red", "green")):
    ...         rows.add(text)
    ...     [(row, earlier) for row, earlier, _ in rows.matches(drop=True)]
    [(2, 0)]
    """

    def __init__(self, threshold: float = 0.8, folder: Path | None = None) -> None:
        self.threshold = threshold
        self._signer = Signer(threshold)
        self._file: Any = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._ends = array("q", [0])
        self._counts = np.zeros(_TABLE, np.int32)
        self._rows = 0
        self._waiting: list[Hashes] = []
        self._parts: Any = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._part_ends = array("q", [0])

    def __enter__(self) -> NearRows:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the temporary files."""
        self._file.close()
        self._parts.close()

    def __len__(self) -> int:
        """Rows added so far, those of no text included."""
        return len(self._ends) - 1

    def add(self, text: str | Hashes, same: str = "", parts: Sequence[str | Hashes] = ()) -> None:
        """One more row; its number is how many were added before. No text: alike to none.

        Texts may be given as their `word_hashes`.

        Rows that are alike as a whole may still say different things: two questions on one long
        passage, or one question with two answers. They are near-duplicates only if `same` is
        equal, and their `parts`, one by one, are at least `PART_SIMILARITY` alike.
        """
        own = shingles(text)
        self._ends.append(self._ends[-1] + own.size)
        if own.size:
            self._rows += 1
            self._waiting.append(own)
            if len(self._waiting) >= _BLOCK:
                self._store()
        size = 0
        if same or parts:
            hashes = [word_hashes(p) if isinstance(p, str) else p for p in parts]
            hashes = [part[:PART_WORDS] for part in hashes]
            head = [zlib.crc32(same.encode("utf-8", "replace")), len(parts)]
            head += [part.size for part in hashes]
            block = np.concatenate((np.array(head, np.uint32), *hashes))
            self._parts.write(block.tobytes())
            size = block.size
        self._part_ends.append(self._part_ends[-1] + size)

    def matches(
        self, drop: bool, left_out: NDArray[np.bool_] | None = None
    ) -> Iterator[tuple[int, int, float]]:
        """(row, earlier row, similarity), rows in order; those in `left_out` (a mask) are passed.

        With `drop`, a row that matches is dropped: it is given once, and no later row is compared
        with it. Otherwise the pairs connect all rows that are alike, directly or through others.
        """
        self._store()
        common = self._counts > max(COMMON_ROWS, COMMON_SHARE * self._rows)
        buckets = Buckets(self._band_keys(common), len(self))
        root: dict[int, int] = {}
        for row in buckets.rows():
            if left_out is not None and left_out[row]:
                continue
            own = self._read(row)
            matched = False
            for other in likely(buckets.earlier(row)):
                if root and _root(root, row) == _root(root, other):
                    continue
                alike = self._alike(own, self._read(other), common)
                if alike is None or not self._same_parts(row, other):
                    continue
                matched = True
                yield row, other, alike
                if drop:
                    break
                root[_root(root, row)] = _root(root, other)
            if not (drop and matched):
                buckets.put(row)

    def _alike(self, a: Hashes, b: Hashes, common: NDArray[np.bool_]) -> float | None:
        a, b = comparable(a, b)
        whole = jaccard(a, b)
        if whole < self.threshold or jaccard(_rare(a, common), _rare(b, common)) < self.threshold:
            return None
        return whole

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
        start, stop = self._part_ends[row], self._part_ends[row + 1]
        if start == stop:
            return 0, []
        self._parts.seek(start * 4)
        block = np.frombuffer(self._parts.read((stop - start) * 4), np.uint32)
        count = int(block[1])
        ends = np.cumsum(block[2 : 2 + count])[:-1]
        parts = np.split(block[2 + count :], ends) if count else []
        return int(block[0]), [shingles(part) for part in parts]

    def _store(self) -> None:
        if not self._waiting:
            return
        block = np.concatenate(self._waiting)
        self._waiting.clear()
        self._file.seek(0, 2)
        self._file.write(block.tobytes())
        np.add.at(self._counts, block & np.uint32(_TABLE - 1), 1)

    def _read(self, row: int, end: int | None = None) -> Hashes:
        start, stop = self._ends[row], self._ends[row + 1 if end is None else end]
        self._file.seek(start * 4)
        return np.frombuffer(self._file.read((stop - start) * 4), np.uint32)

    def _band_keys(self, common: NDArray[np.bool_]) -> Iterator[tuple[list[int], Hashes]]:
        """For each block of rows: their numbers, and a key a band; rows without text left out."""
        for start in range(0, len(self), _BLOCK):
            stop = min(start + _BLOCK, len(self))
            block = self._read(start, stop)
            rare = ~common[block & np.uint32(_TABLE - 1)]
            numbers: list[int] = []
            kept: list[Hashes] = []
            for row in range(start, stop):
                place = slice(
                    self._ends[row] - self._ends[start], self._ends[row + 1] - self._ends[start]
                )
                own = block[place][rare[place]]
                if own.size:
                    numbers.append(row)
                    kept.append(own)
            if kept:
                yield numbers, self._signer.keys(kept)


def _rare(own: Hashes, common: NDArray[np.bool_]) -> Hashes:
    return own[~common[own & np.uint32(_TABLE - 1)]]


def _root(parent: dict[int, int], row: int) -> int:
    while row in parent:
        row = parent[row]
    return row
