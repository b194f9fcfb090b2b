"""Which texts to compare with which: MinHash signatures in bands, and the buckets of equal ones.

MinHash is Broder's (Compression and Complexity of Sequences, 1997), banding as in Leskovec,
Rajaraman and Ullman, Mining of Massive Datasets, chapter 3. A permutation here is a random odd
factor and an offset modulo 2**32 on hashes that are mixed already: it runs over whole blocks of
texts at the speed of memory, where a library that takes text by text needs ten times as long.
What is kept of a text is a 32-bit key a band, on disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
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
_ELEMENTS = 1 << 18
"""Values worked on at once: they stay in the processor's cache."""
_ROWS = 1 << 14


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
        self.bands, self._width = bands_for(threshold)
        rng = np.random.RandomState(5)
        count = self.bands * self._width
        self._times = rng.randint(0, 1 << 31, count).astype(np.uint32) * np.uint32(2)
        self._times += np.uint32(1)
        self._plus = rng.randint(0, 1 << 32, count, dtype=np.uint64).astype(np.uint32)
        self._factors = rng.randint(1, 1 << 62, self._width).astype(np.uint64)
        self._factors = self._factors * np.uint64(2) + np.uint64(1)

    def keys(self, values: Hashes, sizes: NDArray[np.int64]) -> Hashes:
        """(texts, bands) keys.

        Args:
            values: the shingles of all texts, one after the other.
            sizes: how many of them are each text's, at least one.
        """
        least = np.empty((self._times.size, sizes.size), np.uint32)
        starts = np.cumsum(sizes) - sizes
        order = np.argsort(sizes, kind="stable")
        for texts in _even(order, sizes):
            # a column a text; a shorter one repeats its last value, which changes no minimum
            ramp = np.arange(int(sizes[texts].max()))[:, None]
            block = values[starts[texts] + np.minimum(ramp, sizes[texts] - 1)]
            work = np.empty_like(block)
            for number, (times, plus) in enumerate(zip(self._times, self._plus, strict=True)):
                np.multiply(block, times, out=work)
                np.add(work, plus, out=work)
                least[number, texts] = work.min(axis=0)
        bands = least.T.reshape(sizes.size, self.bands, self._width).astype(np.uint64)
        return ((bands * self._factors).sum(axis=2) >> np.uint64(32)).astype(np.uint32)


def _even(order: NDArray[np.int64], sizes: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """The texts, shortest first, in blocks of about the same length."""
    start = 0
    ordered = sizes[order]
    while start < order.size:
        longest = int(ordered[start] * 1.25) + 4
        stop = int(np.searchsorted(ordered, longest, "right"))
        stop = min(stop, start + max(1, _ELEMENTS // longest))
        yield order[start:stop]
        start = stop


class Buckets:
    """Rows by band, in files: which earlier rows share a bucket with a row.

    First `add` the keys of all rows, in order; then `candidates` once. Of a bucket's rows the
    first `CANDIDATES` are what later ones are compared with. In memory is one band at a time.
    """

    def __init__(self, folder: Path, bands: int) -> None:
        self._folder = folder
        self._files: list[Any] = [(folder / f"keys-{n}").open("wb") for n in range(bands)]
        self._numbers: list[NDArray[np.int32]] = []

    def add(self, numbers: NDArray[np.int64], keys: Hashes) -> None:
        """The keys (rows, bands) of rows with these numbers."""
        self._numbers.append(numbers.astype(np.int32))
        for band, file in enumerate(self._files):
            file.write(keys[:, band].tobytes())

    def close(self) -> None:
        """Close the files; they are left where they are."""
        for file in self._files:
            file.close()

    def candidates(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """(rows, earlier rows) to compare: rows in order, of each the likeliest first."""
        self.close()
        numbers = np.concatenate([*self._numbers, np.zeros(0, np.int32)])
        if not numbers.size:
            return
        bands = [self._sorted(band, numbers.size) for band in range(len(self._files))]
        for start in range(0, numbers.size, _ROWS):
            pairs = [_pairs(*band, start, min(start + _ROWS, numbers.size)) for band in bands]
            rows, others = _likeliest(np.concatenate(pairs))
            if rows.size:
                yield numbers[rows].astype(np.int64), numbers[others].astype(np.int64)

    def _sorted(self, band: int, rows: int) -> tuple[Any, Any, NDArray[np.int32]]:
        """Of each row: where its bucket begins in the members, and how many are earlier."""
        path = self._folder / f"keys-{band}"
        keys = np.fromfile(path, np.uint32)
        path.unlink()
        both = keys.astype(np.uint64) << np.uint64(32) | np.arange(rows, dtype=np.uint64)
        both.sort()
        key, row = (both >> np.uint64(32)).astype(np.uint32), both.astype(np.uint32)
        first = np.flatnonzero(np.concatenate(([True], key[1:] != key[:-1])))
        sizes = np.diff(np.concatenate((first, [rows])))
        rank = np.arange(rows) - np.repeat(first, sizes)
        shared = np.repeat(sizes > 1, sizes)
        head = shared & (rank < CANDIDATES)
        opens = np.repeat((np.cumsum(head) - head)[first], sizes)
        earlier = np.zeros(rows, np.uint8)
        earlier[row] = np.minimum(rank, CANDIDATES)
        begins = np.zeros(rows, np.int32)
        begins[row[shared]] = opens[shared]
        return self._stored(begins, band), self._stored(earlier, band), row[head].astype(np.int32)

    def _stored(self, values: NDArray[Any], band: int) -> Any:
        path = self._folder / f"{values.dtype.name}-{band}"
        values.tofile(path)
        return _Stored(path, values.dtype)


class _Stored:
    """An array in a file, of which pieces are read."""

    def __init__(self, path: Path, dtype: Any) -> None:
        self._path, self._dtype = path, dtype

    def piece(self, start: int, stop: int) -> NDArray[Any]:
        size = self._dtype.itemsize
        return np.fromfile(self._path, self._dtype, stop - start, offset=start * size)


def _pairs(
    begins: _Stored, earlier: _Stored, members: NDArray[np.int32], start: int, stop: int
) -> NDArray[np.uint64]:
    """Row and earlier row, one number a pair, of one band."""
    counts = earlier.piece(start, stop).astype(np.int64)
    rows = np.flatnonzero(counts)
    counts = counts[rows]
    opens = begins.piece(start, stop)[rows].astype(np.int64)
    ramp = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    others = members[np.repeat(opens, counts) + ramp].astype(np.uint64)
    return np.repeat(rows + start, counts).astype(np.uint64) << np.uint64(32) | others


def _likeliest(pairs: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each pair once; of a row's at most `CANDIDATES`, those in most of its buckets first."""
    pairs, times = np.unique(pairs, return_counts=True)
    rows = (pairs >> np.uint64(32)).astype(np.int64)
    others = (pairs & np.uint64(0xFFFFFFFF)).astype(np.int64)
    order = np.lexsort((others, -times, rows))
    rows, others = rows[order], others[order]
    _, first, sizes = np.unique(rows, return_index=True, return_counts=True)
    rank = np.arange(rows.size) - np.repeat(first, sizes)
    return rows[rank < CANDIDATES], others[rank < CANDIDATES]
