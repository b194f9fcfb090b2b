"""The train rows of a split that does not fit into memory: read from its shards when asked for."""

from __future__ import annotations

import bisect
import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tunelm.data.detect import shards_of
from tunelm.data.read import read_group, read_rows
from tunelm.data.tables import group_sizes
from tunelm.errors import DataError
from tunelm.types import Example, Lazy

_HELD = 8
"""Row groups held after they were read, of a thousand rows each."""
_BLOCK = 1 << 16


class ShardExamples(Lazy[Example]):
    """Some rows of a folder of Parquet shards, in order; made when they are asked for.

    In memory are their numbers, the few that were changed on the way, and the last groups read.
    """

    def __init__(
        self,
        folder: Path,
        format: str | None,
        columns: Mapping[str, str],
        rows: NDArray[np.int64],
        ids: NDArray[np.uint64],
    ) -> None:
        self._folder, self._format, self._columns = folder, format, columns
        self._rows = rows
        self.changed: dict[int, Example] = {}
        """Row number -> what stands in its place."""
        self.hash = hash_of_ids(ids)
        """As `split.part_hash` says."""
        self.known: dict[str, str] = {}
        """What was found out about all rows and is not to be found out twice."""
        self._groups: list[tuple[Path, int]] = []
        self._starts: list[int] = []
        self._held: OrderedDict[int, list[Example]] = OrderedDict()

    def __len__(self) -> int:
        return int(self._rows.size)

    def __iter__(self) -> Iterator[Example]:
        wanted = iter(self._rows.tolist())
        next_row = next(wanted, -1)
        found = 0
        everything = read_rows(self._folder, format=self._format, columns=self._columns)
        for number, row in enumerate(everything):
            if number == next_row:
                yield self.changed.get(number, row.example)
                found += 1
                next_row = next(wanted, -1)
        if found != len(self):
            raise self._fewer()

    def at(self, index: int) -> Example:
        """One row, its row group read where it is not held."""
        number = int(self._rows[index])
        if number in self.changed:
            return self.changed[number]
        if not self._groups:
            self._look()
        group = bisect.bisect_right(self._starts, number) - 1
        if group not in self._held:
            path, place = self._groups[group]
            self._held[group] = read_group(path, place, self._format, self._columns)
            if len(self._held) > _HELD:
                self._held.popitem(last=False)
        try:
            return self._held[group][number - self._starts[group]]
        except IndexError:
            raise self._fewer() from None

    def _look(self) -> None:
        start = 0
        for path in shards_of(self._folder):
            for place, size in enumerate(group_sizes(path)):
                self._groups.append((path, place))
                self._starts.append(start)
                start += size

    def _fewer(self) -> DataError:
        return DataError(f"{self._folder}: changed while it was read: rows are missing.")


def hash_of_ids(ids: NDArray[np.uint64]) -> str:
    """`types.content_hash` of the sorted list of ids, each given as the number it is."""
    digest = hashlib.sha256(b"[")
    ids = np.sort(ids)
    for start in range(0, ids.size, _BLOCK):
        block = ids[start : start + _BLOCK].tolist()
        text = ",".join(f'"{one:016x}"' for one in block)
        digest.update(("," * (start > 0) + text).encode())
    digest.update(b"]")
    return digest.hexdigest()[:16]
