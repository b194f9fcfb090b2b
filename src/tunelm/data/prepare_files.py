"""`tunelm data prepare`: from a file of rows to clean parts, a ledger, and how the parts compare.

Two passes over the input (three for documents, whose boilerplate must be known first). The first
keeps a few numbers of each row and decides (`survey`, `deal`); the second writes. Everything is
written into a folder of its own beside the wanted one, checked, and renamed: the folder appears
whole or not at all.
"""

from __future__ import annotations

import functools
import json
import os
import pickle
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import numpy as np

from tunelm.data.clean import Boilerplate, clean_record
from tunelm.data.deal import NONE, Dealt, deal, pairs_of_equals, seed_that_fills
from tunelm.data.detect import parse_format
from tunelm.data.given import ABOUT, LEDGER, file_hash
from tunelm.data.likeness import Tally, compare_parts, sentences
from tunelm.data.read import scan
from tunelm.data.records import Fault, Record
from tunelm.data.shingles import word_hashes
from tunelm.data.split import PARTS
from tunelm.data.survey import (
    BROKEN,
    DROPPED,
    DUPLICATE,
    KEPT,
    NOTHING_LEFT,
    STATUS,
    Cleaner,
    Survey,
    Surveyor,
    Wanted,
    items_with_rows,
    label_of,
    row_id,
)
from tunelm.data.write import ONLY_READ, write_records
from tunelm.errors import ConfigError, DataError
from tunelm.rundir import write_json

Progress = Callable[[str, int, int], None]
MOST_SHOWN = 100
LOOK_AT = 1000
"""Where so many texts have one line each, they are no documents."""
EVERY = 10_000

# a folder for those that are one
_ENDINGS = {
    "jsonl": ".jsonl",
    "json": ".json",
    "csv": ".csv",
    "tsv": ".tsv",
    "parquet": ".parquet",
    "lines": ".txt",
    "txt": "",
    "markdown": "",
    "html": "",
    "dataset": "",
}


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


def prepare_files(
    job: Preparation,
    progress: Progress = lambda what, done, total: None,
    finish: Callable[[Path], None] | None = None,
) -> dict[str, Any]:
    """Clean, dedupe and split `job.source` into `job.out`; what was done, as `split.json` has it.

    `finish` is called with the folder before it is put in its place, to add to it.

    Raises:
        DataError: rows are broken (and `skip_broken` is off), the input changed in between, a part
            got no rows, or the disk is full; the folder is then not there.
        ConfigError: settings that cannot be.
    """
    ending = _checked(job)
    before = _state(job.source)
    staging = job.out.parent / f".{job.out.name}.{os.getpid()}.tmp"
    try:
        job.out.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        about = _prepare(job, staging, ending, progress)
        if _state(job.source) != before:
            raise _changed(job)
        write_json(staging / ABOUT, about)
        if finish is not None:
            finish(staging)
        _put_in_place(staging, job.out)
    except OSError as error:
        raise DataError(
            f"{error.filename or job.out}: {error.strerror or error}. Nothing was written to"
            f" {job.out}."
        ) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return about


def _prepare(job: Preparation, staging: Path, ending: str, progress: Progress) -> dict[str, Any]:
    boilerplate = _boilerplate(job, progress)
    _, shape = parse_format(job.to)
    cleaner = Cleaner(boilerplate, single_answer=shape is not None and "dpo" not in shape)
    wanted = Wanted(job.label, job.group, job.near, job.keep_near, job.skip_broken)
    with Surveyor(wanted, cleaner, staging) as surveyor:
        for number, item in enumerate(scan(job.source, job.format, job.columns), 1):
            surveyor.add(item)
            if number % EVERY == 0:
                progress("reading", number, number)
        progress("comparing", 0, len(surveyor.survey))
        survey = surveyor.finish()
    dealt = _deal(job, survey)
    boilerplate.removed.clear()
    tallies, written = _Writer(job, staging, ending, survey, dealt, cleaner).write(progress)
    groups = {
        name: int(np.unique(dealt.groups[dealt.parts == number]).size)
        for number, name in enumerate(PARTS)
    }
    compared = compare_parts({n: t for n, t in tallies.items() if t.rows}, groups)
    return _about(job, survey, dealt, compared, written) | {
        "boilerplate": dict(Counter(boilerplate.removed).most_common(MOST_SHOWN))
    }


def _checked(job: Preparation) -> str:
    """The ending of the parts' names. Raises where the job cannot be done, before it is begun."""
    container = parse_format(job.to)[0] or "jsonl"
    if container in ONLY_READ:
        why = ONLY_READ[container]
        raise ConfigError(f"--to {job.to}: is only read: {why}. Valid: {', '.join(_ENDINGS)}.")
    ending = _ENDINGS[container]
    if job.dev < 0 or job.test < 0 or job.dev + job.test >= 1:
        raise ConfigError(
            f"--dev {job.dev:g} and --test {job.test:g}: shares from 0 on, together below 1, so"
            " that something is left to train on."
        )
    if not 0 < job.near <= 1:
        raise ConfigError(f"--near {job.near:g}: a similarity above 0, at most 1.")
    out, source = job.out.resolve(), job.source.resolve()
    if job.out.is_symlink() or (job.out.exists() and not (_is_folder(out) and _is_empty(out))):
        raise DataError(
            f"{job.out}: exists already, and is never overwritten. Take another --out, or move or"
            " remove it."
        )
    if source == out or source in out.parents:
        raise DataError(
            f"{job.out}: lies in the folder that is read, {job.source}. Take an --out elsewhere."
        )
    return ending


def _boilerplate(job: Preparation, progress: Progress) -> Boilerplate:
    """Look for lines that documents share, where the input is documents."""
    boilerplate = Boilerplate()
    if job.keep_boilerplate:
        return boilerplate  # has seen no line twice, so it takes none out
    for number, item in enumerate(scan(job.source, job.format, job.columns), 1):
        if not isinstance(item, Record):
            continue
        if item.text is None or (number > LOOK_AT and not boilerplate.documents):
            break
        boilerplate.look(clean_record(item)[0].text or "")
        if number % EVERY == 0:
            progress("looking for boilerplate", number, number)
    return boilerplate


def _deal(job: Preparation, survey: Survey) -> Dealt:
    kept = survey.status == KEPT
    alike = np.concatenate((pairs_of_equals(survey.questions, kept), survey.alike))
    shares = (job.dev, job.test)
    dealt = deal(survey.groups, alike, survey.label, kept, shares, job.seed)
    for number, (name, share) in enumerate(
        zip(PARTS, (1 - job.dev - job.test, job.dev, job.test), strict=True)
    ):
        if share and not np.any(dealt.parts == number):
            count = np.unique(dealt.groups[kept]).size
            other = None if dealt.stratified else seed_that_fills(survey.groups, kept, shares)
            way = f" --seed {other} gives each part some." if other is not None else ""
            if survey.texts == len(survey) == 1:
                way = (
                    " A document is never cut in two: give a folder of documents, or read each line"
                    " as a text of its own with --format lines."
                )
            raise DataError(
                f"{job.source}: the {name} part got no rows: {_count(count, 'group')} in"
                f" {_count(int(kept.sum()), 'row')}.{way} More rows, or larger --dev and --test,"
                " help too; 0 leaves a part out."
            )
    return dealt


class _Writer:
    """The second pass: the parts, and the ledger beside them."""

    def __init__(
        self,
        job: Preparation,
        staging: Path,
        ending: str,
        survey: Survey,
        dealt: Dealt,
        cleaner: Cleaner,
    ) -> None:
        self._job, self._staging, self._ending = job, staging, ending
        self._survey, self._dealt, self._cleaner = survey, dealt, cleaner
        self._tallies = {name: Tally() for name in PARTS}

    def write(self, progress: Progress) -> tuple[dict[str, Tally], dict[str, dict[str, Any]]]:
        """Write all; the tallies, and what is known of each part's file."""
        total = len(self._survey)
        with ExitStack() as stack:
            spools: dict[str, IO[bytes]] = {
                name: stack.enter_context((self._staging / f".{name}.rows").open("w+b"))
                for name in PARTS
            }
            ledger = stack.enter_context((self._staging / LEDGER).open("w", encoding="utf-8"))
            rows = 0
            for item in items_with_rows(
                scan(self._job.source, self._job.format, self._job.columns)
            ):
                if rows >= total:
                    raise _changed(self._job)
                line, record = self._line(rows, item)
                if record is not None:
                    pickle.dump(record, spools[line["part"]], pickle.HIGHEST_PROTOCOL)
                ledger.write(json.dumps(line, ensure_ascii=False) + "\n")
                rows += 1
                if rows % EVERY == 0:
                    progress("writing", rows, total)
            if rows != total:
                raise _changed(self._job)
            ledger.flush()
            os.fsync(ledger.fileno())
            written = {
                name: self._write_part(name, spools[name])
                for name in PARTS
                if self._tallies[name].rows
            }
        for name in PARTS:
            (self._staging / f".{name}.rows").unlink()
        self._require_sums(written)
        return self._tallies, written

    def _line(self, row: int, item: Record | Fault) -> tuple[dict[str, Any], Record | None]:
        """The row's line in the ledger, and the record where it goes into a part."""
        survey = self._survey
        status = int(survey.status[row])
        line: dict[str, Any] = {
            "source": _short(self._job.source, item.file, item.line),
            "status": STATUS[status],
            "reason": None,
            "part": None,
            "row": None,
        }
        if isinstance(item, Fault):
            if status != BROKEN:
                raise _changed(self._job)
            line["reason"] = f"{item.code}: {item.found}"
            return line, None
        cleaned = self._cleaner.clean(item)
        record, label = cleaned.record, label_of(cleaned.record, self._job.label)
        if status == BROKEN or row_id(record, label) != int(survey.ids[row]):
            raise _changed(self._job)
        reasons = [self._reason(row, status)] if status != KEPT else []
        if cleaned.changes:
            reasons.append(f"changed: {', '.join(cleaned.changes)}")
        line["reason"] = "; ".join(reasons) or None
        if status != KEPT:
            return line, None
        if cleaned.changes:
            line["status"] = "cleaned"
        part = PARTS[int(self._dealt.parts[row])]
        said = f"{record.extra.get('context') or ''}\n{record.plain()}"
        self._tallies[part].add(word_hashes(said), label)
        line |= {"part": part, "row": self._tallies[part].rows}
        return line, record

    def _reason(self, row: int, status: int) -> str:
        survey = self._survey
        if status == DROPPED:
            return NOTHING_LEFT
        of = int(survey.of[row])
        first = _short(self._job.source, survey.files[survey.file[of]], int(survey.line[of]))
        if status == DUPLICATE:
            return f"of {first}"
        return f"of {first}, similarity {survey.similarity[row]:.2f}"

    def _write_part(self, name: str, spool: IO[bytes]) -> dict[str, Any]:
        path = self._staging / f"{name}{self._ending}"
        spool.seek(0)
        rows = write_records(_unpickled(spool), path, self._job.to)
        return {"file": path.name, "rows": rows, "sha256": file_hash(path)}

    def _require_sums(self, written: Mapping[str, Mapping[str, Any]]) -> None:
        """Every input row has one line, and every kept one is in one part."""
        counts = _counts(self._survey)
        rows = {name: int(np.sum(self._dealt.parts == n)) for n, name in enumerate(PARTS)}
        in_files = {name: written[name]["rows"] if name in written else 0 for name in PARTS}
        with (self._staging / LEDGER).open("rb") as ledger:
            lines = sum(1 for _ in ledger)
        kept = counts["kept"] + counts["cleaned"]
        if rows != in_files or sum(rows.values()) != kept or lines != len(self._survey):
            raise DataError(
                f"the counts do not add up: {lines} lines in {LEDGER} for {len(self._survey)} input"
                f" rows, {kept} rows kept, {rows} dealt out, {in_files} in the files. This is a"
                " fault of tunelm; nothing was written. Please report it."
            )


def _about(
    job: Preparation,
    survey: Survey,
    dealt: Dealt,
    compared: Mapping[str, Any],
    written: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    settings = {k: v for k, v in asdict(job).items() if k not in ("source", "out")}

    def short(row: int) -> str:
        return _short(job.source, survey.files[survey.file[row]], int(survey.line[row]))

    sizes = np.bincount(dealt.groups[dealt.parts != NONE])
    return {
        "schema_version": 1,
        "made_by": "tunelm data prepare",
        "tunelm": metadata.version("tunelm"),
        "source": str(job.source),
        "settings": settings,
        "written_as": ":".join(filter(None, parse_format(job.to))),
        "rows": len(survey),
        "counts": _counts(survey),
        "parts": {name: {**written[name], **compared[name]} for name in written},
        "sentences": sentences(compared),
        "stratified_by": (job.label or "label") if dealt.stratified else None,
        "largest_group_rows": int(sizes.max()),
        "leaks_mended": {
            "count": len(dealt.joined),
            "rows": [[short(a), short(b)] for a, b in dealt.joined[:MOST_SHOWN].tolist()],
        },
        "warnings": survey.warnings,
    }


def _counts(survey: Survey) -> dict[str, int]:
    changed = survey.changed != 0
    counts = {name: int(np.sum(survey.status == n)) for n, name in enumerate(STATUS)}
    cleaned = int(np.sum(changed & (survey.status == KEPT)))
    return {"kept": counts.pop("kept") - cleaned, "cleaned": cleaned, **counts}


def _state(source: Path) -> list[tuple[str, int, int]]:
    """What shows that a file changed: name, size and time of all that is read."""
    if not source.is_dir():
        return [_stamp(source)] if source.exists() else []
    return sorted(_stamp(path) for path in source.rglob("*") if path.is_file())


def _stamp(path: Path) -> tuple[str, int, int]:
    known = path.stat()
    return str(path), known.st_size, known.st_mtime_ns


def _changed(job: Preparation) -> DataError:
    return DataError(
        f"{job.source}: changed while it was read. Nothing was written; wait until it is complete,"
        " or prepare a copy."
    )


def _put_in_place(staging: Path, out: Path) -> None:
    if _is_folder(out):
        out.rmdir()  # empty, as was checked
    os.replace(staging, out)


def _is_folder(path: Path) -> bool:
    return path.is_dir()


def _is_empty(path: Path) -> bool:
    return not any(path.iterdir())


@functools.lru_cache(maxsize=1 << 12)
def _within(source: Path, file: str) -> str:
    """How the ledger names a file: short, and the same wherever the input lies."""
    inner = Path(file)
    return inner.relative_to(source).as_posix() if inner != source else source.name


def _short(source: Path, file: str, line: int) -> str:
    return f"{_within(source, file)}:{line}"


def _unpickled(spool: IO[bytes]) -> Iterator[Record]:
    """The records of a temporary file of our own."""
    while True:
        try:
            yield pickle.load(spool)
        except EOFError:
            return


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
