"""Which texts to compare with which: MinHash signatures in bands, and the buckets of equal ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelm.data.shingles import Hashes

SIGNATURE = 128
"""MinHash values a text."""
CANDIDATES = 32
"""Most earlier texts that one text is compared with, those most likely alike first: it keeps the
work linear where many rows are cut from one template."""
_MISSED = 0.005
"""Highest chance that a pair right at the threshold shares no band."""


def bands_for(threshold: float) -> tuple[int, int]:
    """(bands, values a band): the widest bands that still miss almost no pair at the threshold."""
    for width in range(SIGNATURE, 1, -1):
        bands = SIGNATURE // width
        if (1 - threshold**width) ** bands <= _MISSED:
            return bands, width
    return SIGNATURE, 1


class Signer:
    """MinHash signatures cut into bands, one 32-bit key a band."""

    def __init__(self, threshold: float) -> None:
        from datasketch import MinHash  # brings scipy: not where it is not needed

        self._bands, self._width = bands_for(threshold)
        self._sketch = MinHash(num_perm=self._bands * self._width, hashfunc=int)
        self._factors = np.random.RandomState(5).randint(1, 1 << 62, self._width).astype(np.uint64)
        self._factors = self._factors * np.uint64(2) + np.uint64(1)

    def keys(self, texts: Sequence[Hashes]) -> Hashes:
        """(texts, bands) keys of texts that have at least one shingle each."""
        values = np.empty((len(texts), self._bands * self._width), np.uint64)
        for place, own in enumerate(texts):
            self._sketch.clear()
            self._sketch.update_batch(own.tolist())
            values[place] = self._sketch.hashvalues
        whole = (values.reshape(len(texts), self._bands, self._width) * self._factors).sum(axis=2)
        return (whole >> np.uint64(32)).astype(np.uint32)


class Buckets:
    """Rows by band: a bucket for each key that at least two rows have, filled as rows are put."""

    def __init__(self, blocks: Iterator[tuple[list[int], Hashes]], rows: int) -> None:
        collected = list(blocks)
        numbers = np.array([n for block, _ in collected for n in block], np.int64)
        bands = collected[0][1].shape[1] if collected else 0
        self._bucket = np.full((bands, rows), -1, np.int32)
        starts: list[NDArray[np.int64]] = []
        places = buckets = 0
        for band in range(bands):
            keys = np.concatenate([block[:, band] for _, block in collected])
            order = np.argsort(keys, kind="stable")
            changes = np.flatnonzero(np.diff(keys[order])) + 1
            first = np.concatenate(([0], changes))
            sizes = np.diff(np.concatenate((first, [keys.size])))
            shared = sizes > 1
            members = numbers[order[np.repeat(shared, sizes)]]
            sizes = sizes[shared]
            self._bucket[band, members] = np.repeat(
                np.arange(buckets, buckets + sizes.size, dtype=np.int32), sizes
            )
            starts.append(places + np.cumsum(sizes) - sizes)
            places += int(sizes.sum())
            buckets += sizes.size
        self._starts = np.concatenate(starts) if starts else np.zeros(0, np.int64)
        self._filled = np.zeros(buckets, np.int32)
        self._members = np.empty(places, np.int32)

    def rows(self) -> Iterator[int]:
        """Rows that share a bucket with another one."""
        if self._bucket.size:
            yield from np.flatnonzero((self._bucket >= 0).any(axis=0)).tolist()

    def earlier(self, row: int) -> list[NDArray[np.int32]]:
        """The rows put before into this row's buckets, smallest bucket first, some of each."""
        own = self._own(row)
        filled = self._filled[own]
        found: list[NDArray[np.int32]] = []
        for place in np.argsort(filled, kind="stable").tolist():
            count = min(int(filled[place]), CANDIDATES)
            if count:
                start = self._starts[own[place]]
                found.append(self._members[start : start + count])
        return found

    def put(self, row: int) -> None:
        """Let later rows find this one."""
        own = self._own(row)
        self._members[self._starts[own] + self._filled[own]] = row
        self._filled[own] += 1

    def _own(self, row: int) -> NDArray[np.int32]:
        own = self._bucket[:, row]
        return own[own >= 0]


def likely(buckets: Sequence[NDArray[Any]]) -> list[int]:
    """Up to `CANDIDATES` rows of the buckets, those in most of them first."""
    if not buckets:
        return []
    rows, times = np.unique(np.concatenate(buckets), return_counts=True)
    return rows[np.argsort(-times, kind="stable")[:CANDIDATES]].tolist()
