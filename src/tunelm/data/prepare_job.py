"""What `tunelm data prepare` is asked to do, and how its rows are named."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tunelm.errors import DataError


@dataclass(frozen=True)
class Preparation:
    """What to prepare, and how."""

    source: Path
    out: Path
    format: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    to: str = "jsonl"
    """Format of the parts: a container, a shape of rows, or both."""
    dev: float = 0.1
    test: float = 0.1
    """Shares of the groups."""
    seed: int = 0
    label: str | None = None
    """Field whose values every part gets in their shares; None: `label`, where rows have it."""
    group: str | None = None
    """Field that names what must stand on one side; None: `group`, where rows have it."""
    near: float = 0.8
    """Similarity from which on two rows are near-duplicates; see `tunelm.data.near`."""
    keep_near: bool = False
    keep_boilerplate: bool = False
    skip_broken: bool = False
    processes: int = 1
    """How many work at it; what comes out is the same."""

    def short(self, file: str, line: int) -> str:
        """How the ledger names a row: short, and the same wherever the input lies."""
        return f"{_within(self.source, file)}:{line}"

    def changed(self) -> DataError:
        """What to raise where the two passes saw different rows."""
        return DataError(
            f"{self.source}: changed while it was read. Nothing was written; wait until it is"
            " complete, or prepare a copy."
        )


@functools.lru_cache(maxsize=1 << 12)
def _within(source: Path, file: str) -> str:
    inner = Path(file)
    return inner.relative_to(source).as_posix() if inner != source else source.name
