"""`tunelm data prepare`: from a file of rows to clean parts, a ledger, and how the parts compare.

Two passes over the input (three for documents, whose boilerplate must be known first). The first
keeps a few numbers of each row and decides (`survey`, `deal`); the second writes. Everything is
written into a folder of its own beside the wanted one, checked, and renamed: the folder appears
whole or not at all.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from tunelm.data.clean import Boilerplate, clean_record
from tunelm.data.deal import NONE, Dealt, deal, pairs_of_equals, seed_that_fills
from tunelm.data.detect import parse_format
from tunelm.data.given import ABOUT
from tunelm.data.likeness import compare_parts, sentences
from tunelm.data.prepare_job import Preparation
from tunelm.data.prepare_write import counts_of, write_parts
from tunelm.data.processes import Progress, in_processes, silent
from tunelm.data.read import scan
from tunelm.data.records import Record
from tunelm.data.split import PARTS
from tunelm.data.survey import EVERY, KEPT, Cleaner, Looking, Survey, Wanted, look, merge
from tunelm.data.write import ONLY_READ
from tunelm.errors import ConfigError, DataError
from tunelm.rundir import write_json

MOST_SHOWN = 100
LOOK_AT = 1000
"""Where so many texts have one line each, they are no documents."""

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
    "shards": "",
}


def prepare_files(
    job: Preparation,
    progress: Progress = silent,
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
            raise job.changed()
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
    items = functools.partial(scan, job.source, job.format, job.columns)
    looking = Looking(items, wanted, cleaner, staging, job.processes)
    looked = in_processes(look, looking, job.processes, progress)
    progress("comparing", 0, looked[0][0])
    survey = merge(looking, looked)
    dealt = _deal(job, survey)
    tallies, written = write_parts(job, staging, ending, survey, dealt, cleaner, progress)
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
    if job.processes < 1:
        raise ConfigError(f"--processes {job.processes}: at least one.")
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


def _about(
    job: Preparation,
    survey: Survey,
    dealt: Dealt,
    compared: Mapping[str, Any],
    written: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    beside = ("source", "out", "processes")
    settings = {k: v for k, v in asdict(job).items() if k not in beside}

    def short(row: int) -> str:
        return job.short(survey.files[survey.file[row]], int(survey.line[row]))

    sizes = np.bincount(dealt.groups[dealt.parts != NONE])
    return {
        "schema_version": 1,
        "made_by": "tunelm data prepare",
        "tunelm": metadata.version("tunelm"),
        "source": str(job.source),
        "settings": settings,
        "written_as": ":".join(filter(None, parse_format(job.to))),
        "rows": len(survey),
        "counts": counts_of(survey),
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


def _state(source: Path) -> list[tuple[str, int, int]]:
    """What shows that a file changed: name, size and time of all that is read."""
    if not source.is_dir():
        return [_stamp(source)] if source.exists() else []
    return sorted(_stamp(path) for path in source.rglob("*") if path.is_file())


def _stamp(path: Path) -> tuple[str, int, int]:
    known = path.stat()
    return str(path), known.st_size, known.st_mtime_ns


def _put_in_place(staging: Path, out: Path) -> None:
    if _is_folder(out):
        out.rmdir()  # empty, as was checked
    os.replace(staging, out)


def _is_folder(path: Path) -> bool:
    return path.is_dir()


def _is_empty(path: Path) -> bool:
    return not any(path.iterdir())


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
