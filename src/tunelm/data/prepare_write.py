"""Second pass of `tunelm data prepare`: the parts, and a line in the ledger for every row.

Parts are one file each, in any format, written by one process; or folders of Parquet shards, each
made from `SHARD` input rows, which several processes write side by side.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from tunelm.data.deal import NONE, Dealt
from tunelm.data.given import LEDGER, LEDGER_SHARDS, file_hash
from tunelm.data.likeness import Tally
from tunelm.data.prepare_job import Preparation
from tunelm.data.processes import Progress, in_processes
from tunelm.data.read import scan
from tunelm.data.records import Fault, Record
from tunelm.data.shingles import word_hashes
from tunelm.data.split import PARTS
from tunelm.data.survey import (
    BROKEN,
    CHUNK,
    DROPPED,
    DUPLICATE,
    EVERY,
    KEPT,
    NOTHING_LEFT,
    STATUS,
    Cleaner,
    Survey,
    items_with_rows,
    label_of,
    row_id,
)
from tunelm.data.tables import arrow
from tunelm.data.write import Held, write_records, written_rows
from tunelm.data.write_arrow import write_arrow
from tunelm.errors import DataError

SHARD = 8 * CHUNK
"""Input rows whose kept ones stand in one shard of each part."""
SHARD_SIGNS = 1 << 26
"""Signs of text from which on a shard is continued in another file: what is held in memory."""

Written = dict[str, dict[str, Any]]
Line = dict[str, Any]


def write_parts(
    job: Preparation,
    staging: Path,
    ending: str,
    survey: Survey,
    dealt: Dealt,
    cleaner: Cleaner,
    progress: Progress,
) -> tuple[dict[str, Tally], Written]:
    """Write parts and ledger into `staging`: what is counted of each part, and known of its file.

    Raises:
        DataError: the input changed, a part cannot be written as asked, the counts do not add up.
    """
    cleaner.boilerplate.removed.clear()
    lines = Lines(job, survey, dealt.parts, _places(dealt.parts), cleaner)
    if job.to.partition(":")[0] == "shards":
        tallies, written, count = _write_shards(lines, staging, progress)
    else:
        tallies, written, count = _write_files(lines, staging, ending, progress)
    _require_sums(survey, dealt, written, count)
    return tallies, written


def counts_of(survey: Survey) -> dict[str, int]:
    """How many rows have each status."""
    changed = survey.changed != 0
    counts = {name: int(np.sum(survey.status == n)) for n, name in enumerate(STATUS)}
    cleaned = int(np.sum(changed & (survey.status == KEPT)))
    return {"kept": counts.pop("kept") - cleaned, "cleaned": cleaned, **counts}


@dataclass
class Lines:
    """What the ledger says of each row, and the row as it is to be written."""

    job: Preparation
    survey: Survey
    parts: NDArray[np.uint8]
    places: NDArray[np.int32]
    """Of each row its number in its part, from 1."""
    cleaner: Cleaner

    def items(self) -> Iterator[Record | Fault]:
        """The rows of the input. Raises DataError where there are not as many as before."""
        rows = 0
        for item in items_with_rows(scan(self.job.source, self.job.format, self.job.columns)):
            if rows >= len(self.survey):
                raise self.job.changed()
            yield item
            rows += 1
        if rows != len(self.survey):
            raise self.job.changed()

    def line(
        self, row: int, item: Record | Fault, tallies: Mapping[str, Tally]
    ) -> tuple[Line, Record | None]:
        """The row's line in the ledger, and the record where it goes into a part."""
        survey = self.survey
        status = int(survey.status[row])
        line: Line = {
            "source": self.job.short(item.file, item.line),
            "status": STATUS[status],
            "reason": None,
            "part": None,
            "row": None,
        }
        if isinstance(item, Fault):
            if status != BROKEN:
                raise self.job.changed()
            line["reason"] = f"{item.code}: {item.found}"
            return line, None
        cleaned = self.cleaner.clean(item)
        record, label = cleaned.record, label_of(cleaned.record, self.job.label)
        if status == BROKEN or row_id(record, label) != int(survey.ids[row]):
            raise self.job.changed()
        reasons = [self._reason(row, status)] if status != KEPT else []
        if cleaned.changes:
            reasons.append(f"changed: {', '.join(cleaned.changes)}")
        line["reason"] = "; ".join(reasons) or None
        if status != KEPT:
            return line, None
        if cleaned.changes:
            line["status"] = "cleaned"
        part = PARTS[int(self.parts[row])]
        said = f"{record.extra.get('context') or ''}\n{record.plain()}"
        tallies[part].add(word_hashes(said), label)
        line |= {"part": part, "row": int(self.places[row])}
        return line, record

    def _reason(self, row: int, status: int) -> str:
        survey = self.survey
        if status == DROPPED:
            return NOTHING_LEFT
        of = int(survey.of[row])
        first = self.job.short(survey.files[survey.file[of]], int(survey.line[of]))
        if status == DUPLICATE:
            return f"of {first}"
        return f"of {first}, similarity {survey.similarity[row]:.2f}"


def _places(parts: NDArray[np.uint8]) -> NDArray[np.int32]:
    places = np.zeros(parts.size, np.int32)
    for part in range(NONE):
        own = parts == part
        places[own] = np.arange(1, int(own.sum()) + 1)
    return places


# --- one file a part ----------------------------------------------------------------------------


def _write_files(
    lines: Lines, staging: Path, ending: str, progress: Progress
) -> tuple[dict[str, Tally], Written, int]:
    tallies = {name: Tally() for name in PARTS}
    total = len(lines.survey)
    with ExitStack() as stack:
        spools: dict[str, IO[bytes]] = {
            name: stack.enter_context((staging / f".{name}.rows").open("w+b")) for name in PARTS
        }
        ledger = stack.enter_context((staging / LEDGER).open("w", encoding="utf-8"))
        for row, item in enumerate(lines.items()):
            line, record = lines.line(row, item, tallies)
            if record is not None:
                pickle.dump(record, spools[line["part"]], pickle.HIGHEST_PROTOCOL)
            ledger.write(json.dumps(line, ensure_ascii=False) + "\n")
            if (row + 1) % EVERY == 0:
                progress("writing", row + 1, total)
        ledger.flush()
        os.fsync(ledger.fileno())
        written: Written = {}
        for name in PARTS:
            if tallies[name].rows:
                path = staging / f"{name}{ending}"
                spools[name].seek(0)
                rows = write_records(_unpickled(spools[name]), path, lines.job.to)
                written[name] = {"file": path.name, "rows": rows, "sha256": file_hash(path)}
    for name in PARTS:
        (staging / f".{name}.rows").unlink()
    with (staging / LEDGER).open("rb") as file:
        return tallies, written, sum(1 for _ in file)


def _unpickled(spool: IO[bytes]) -> Iterator[Record]:
    """The records of a temporary file of our own."""
    while True:
        try:
            yield pickle.load(spool)
        except EOFError:
            return


# --- shards -------------------------------------------------------------------------------------


def _write_shards(
    lines: Lines, staging: Path, progress: Progress
) -> tuple[dict[str, Tally], Written, int]:
    for name in (*PARTS, LEDGER_SHARDS):
        (staging / name).mkdir()
    found = in_processes(_write_share, (lines, staging), lines.job.processes, progress)
    tallies, written = {name: Tally() for name in PARTS}, {}
    for own, _, removed in found:
        for name, tally in own.items():
            tallies[name].join(tally)
        if removed is not lines.cleaner.boilerplate.removed:
            for text, times in removed.items():
                known = lines.cleaner.boilerplate.removed
                known[text] = known.get(text, 0) + times
    for name in PARTS:
        path = staging / name
        if tallies[name].rows:
            shards = sorted(path.iterdir())
            rows = sum(arrow().parquet.read_metadata(shard).num_rows for shard in shards)
            written[name] = {"file": name, "rows": rows, "sha256": file_hash(path)}
            written[name]["shards"] = len(shards)
        else:
            path.rmdir()
    return tallies, written, sum(count for _, count, _ in found)


def _write_share(
    task: tuple[Lines, Path], share: int, progress: Progress
) -> tuple[dict[str, Tally], int, dict[str, int]]:
    """This process's shards; what is counted, lines written, boilerplate lines taken out."""
    lines, staging = task
    tallies = {name: Tally() for name in PARTS}
    written, total = 0, len(lines.survey)
    shard = _Shard(lines.job, staging, 0)
    for row, item in enumerate(lines.items()):
        number = row // SHARD
        if number % lines.job.processes == share:
            if number != shard.number:
                written += shard.finish()
                shard = _Shard(lines.job, staging, number)
            shard.add(*lines.line(row, item, tallies))
        if (row + 1) % EVERY == 0:
            progress("writing", row + 1, total)
    written += shard.finish()
    for tally in tallies.values():
        tally.settle()
    return tallies, written, lines.cleaner.boilerplate.removed


class _Shard:
    """The rows of one shard, held until it is written."""

    def __init__(self, job: Preparation, staging: Path, number: int) -> None:
        self.number = number
        self._job, self._staging = job, staging
        self._lines: list[Line] = []
        self._records: dict[str, list[Record]] = {name: [] for name in PARTS}
        self._signs: dict[str, int] = dict.fromkeys(PARTS, 0)
        self._files: dict[str, int] = dict.fromkeys(PARTS, 0)

    def add(self, line: Line, record: Record | None) -> None:
        self._lines.append(line)
        if record is not None:
            part = line["part"]
            self._records[part].append(record)
            self._signs[part] += len(record.plain())
            if self._signs[part] >= SHARD_SIGNS:
                self._write(part)

    def finish(self) -> int:
        """Write what is left; the lines of the ledger that were written."""
        for part in PARTS:
            self._write(part)
        if self._lines:
            pa = arrow()
            table = pa.Table.from_pylist(self._lines, schema=_ledger_schema(pa))
            path = self._staging / LEDGER_SHARDS / f"{self.number:05d}.parquet"
            with path.open("wb") as file:
                pa.parquet.write_table(table, file, compression="zstd")
                file.flush()
                os.fsync(file.fileno())
        return len(self._lines)

    def _write(self, part: str) -> None:
        records = self._records[part]
        if not records:
            return
        more = f"-{self._files[part]}" if self._files[part] else ""
        path = self._staging / part / f"{self.number:05d}{more}.parquet"
        held = Held()
        held.fill(written_rows(records, self._job.to))
        write_arrow(held, path, "parquet")
        self._files[part] += 1
        self._records[part], self._signs[part] = [], 0


def _ledger_schema(pa: Any) -> Any:
    names = ("source", "status", "reason", "part")
    return pa.schema([*((name, pa.string()) for name in names), ("row", pa.int64())])


def _require_sums(
    survey: Survey, dealt: Dealt, written: Mapping[str, Mapping[str, Any]], lines: int
) -> None:
    """Every input row has one line, and every kept one is in one part."""
    counts = counts_of(survey)
    rows = {name: int(np.sum(dealt.parts == n)) for n, name in enumerate(PARTS)}
    in_files = {name: written[name]["rows"] if name in written else 0 for name in PARTS}
    kept = counts["kept"] + counts["cleaned"]
    if rows != in_files or sum(rows.values()) != kept or lines != len(survey):
        raise DataError(
            f"the counts do not add up: {lines} lines in {LEDGER} for {len(survey)} input"
            f" rows, {kept} rows kept, {rows} dealt out, {in_files} in the files. This is a"
            " fault of tunelm; nothing was written. Please report it."
        )
