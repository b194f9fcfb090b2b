"""The check of a file, or of the parts of a split: rows stream by, every fault is collected."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tunelm.data.check_codes import CODES, fault, file_fault, shown_from
from tunelm.data.check_rows import RowChecker
from tunelm.data.check_whole import Place, WholeFile, alike_or_reason
from tunelm.data.given import find_given
from tunelm.data.openai_rules import Method, TokenCount, check_file, check_openai, openai_counter
from tunelm.data.overlap import Document, Overlap, OverlapIndex, document, documents
from tunelm.data.personal import redact_excerpt
from tunelm.data.read import scan
from tunelm.data.records import Fault, Record

Measure = Callable[[Record], tuple[int, int] | None]
"""A row's tokens by the model's own tokenizer: (of its prompt, of prompt and answer together).

None: not known (tool calls). Raises ValueError when the row cannot be rendered.
"""


@dataclass(frozen=True)
class Model:
    """The model the rows are for: how it counts them, the most it takes, its special tokens."""

    measure: Measure
    limit: int
    special_tokens: Collection[str] = ()


@dataclass(frozen=True)
class CheckOptions:
    """What to check beside the rows themselves; see `tunelm data check --help`."""

    format: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    model: Model | None = None
    openai: bool = False
    openai_model: str | None = None
    method: Method = "supervised"
    validation: Path | None = None
    against: tuple[Path, ...] = ()


@dataclass
class CheckReport:
    """Every fault found, by file and line; nothing in it shows a secret."""

    path: str
    rows: int = 0
    """Rows that could be read."""
    parts: dict[str, int] | None = None
    """Of a folder with the parts of a split, how many of them each part has."""
    unreadable: int = 0
    validation_rows: int | None = None
    faults: list[Fault] = field(default_factory=list[Fault])
    notes: list[str] = field(default_factory=list[str])
    """What could not be checked, or was left out of a comparison, and why."""
    tokens: int | None = None
    """Tokens of one epoch as the provider counts them; None: unknown, or not asked."""

    @property
    def errors(self) -> int:
        """How many faults are errors."""
        return sum(one.level == "error" for one in self.faults)

    @property
    def warnings(self) -> int:
        """How many faults are warnings."""
        return len(self.faults) - self.errors

    def add(self, one: Fault) -> None:
        """Keep a fault, without the secrets it may quote."""
        self.faults.append(replace(one, found=redact_excerpt(one.found)))

    def by_code(self) -> dict[str, list[Fault]]:
        """Faults grouped by code: errors first, then the most frequent."""
        groups: dict[str, list[Fault]] = defaultdict(list)
        for one in self.faults:
            groups[one.code].append(one)
        order = sorted(groups, key=lambda c: (groups[c][0].level, -len(groups[c]), c))
        return {code: groups[code] for code in order}

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data: the counts, the codes found and what they mean, every fault."""
        return {
            "schema_version": 1,
            "file": self.path,
            "rows": self.rows,
            "parts": self.parts,
            "unreadable": self.unreadable,
            "validation_rows": self.validation_rows,
            "errors": self.errors,
            "warnings": self.warnings,
            "tokens": self.tokens,
            "codes": {
                code: {
                    "level": group[0].level,
                    "count": len(group),
                    "what": CODES[code].what,
                    "mend": group[0].mend or CODES[code].mend,
                }
                for code, group in self.by_code().items()
            },
            "faults": [
                {"code": f.code, "level": f.level, "file": f.file, "line": f.line, "found": f.found}
                for f in self.faults
            ],
            "notes": self.notes,
        }


def check(path: Path, options: CheckOptions | None = None) -> CheckReport:
    """Check every row of a file, the file as a whole, and what it shares with others.

    Of a folder that `tunelm data prepare` wrote every part is checked, and what they share.

    Raises:
        DataError: a file cannot be read at all.
    """
    run = _Run(path, options or CheckOptions())
    try:
        run.checked_files()
        run.validation_file()
        for number, other in enumerate(run.options.against, len(run.files) + 1):
            run.other_file(number, other)
        run.almost_alike()
    finally:
        if run.alike:
            run.alike.__exit__()
    run.say_what_was_not_checked()
    return run.report


class _Run:
    """One check, with what its stages share.

    Files have numbers: 0 the file (or train), then dev and test, validation, the others.
    """

    def __init__(self, path: Path, options: CheckOptions) -> None:
        given = find_given(path, all_parts=False)
        self.files = tuple(given.files.values()) if given else (path,)
        self.names = tuple(given.files) if given else ()
        self.format = options.format or (given.format if given else None)
        self.options = options
        self.report = CheckReport(str(path))
        model = options.model
        self.row_checker = RowChecker.make(model.special_tokens if model else ())
        self.wholes: list[WholeFile] = []
        self.index = OverlapIndex()
        self.alike, no_alike = alike_or_reason()
        self.counter, no_tokens = None, ""
        if options.openai:
            count, no_tokens = openai_counter(options.openai_model)
            self.counter = TokenCount(options.openai_model, count) if count else None
        self.missing = [reason for reason in (no_alike, no_tokens) if reason]
        self.unmeasured = 0
        self.overlapping: set[tuple[str, int]] = set()

    def checked_files(self) -> None:
        """The file, or every part of the split."""
        report = self.report
        counts = [self._checked_file(number, path) for number, path in enumerate(self.files)]
        report.rows = sum(counts)
        if self.names:
            report.parts = dict(zip(self.names, counts, strict=True))

    def _checked_file(self, number: int, path: Path) -> int:
        """A file's rows, one by one and beside each other; how many there are."""
        report, whole, rows = self.report, WholeFile(str(path)), 0
        broken: set[str] = set()
        for record in self._records(path, broken):
            rows += 1
            found = self._shared(record) or whole.add(record)
            if found:
                report.add(found)
            elif self.alike:
                self.alike.add(number, record)
            if self.options.against:
                self.index.add(document(record))
        self.wholes.append(whole)
        report.unreadable += len(broken)
        if self.options.against and broken:
            for one, _ in documents(path, self.format, self.options.columns):
                if one.source in broken:  # no example, but text all the same
                    self.index.add(one)
        if number == 0:  # what is learned from: only there balance, size and tokens matter
            report.tokens = self.counter.total if self.counter else None
            for one in whole.finish():
                report.add(one)
            if self.options.openai:
                for one in check_file(path, rows + len(broken)):
                    report.add(one)
        return rows

    def _shared(self, record: Record) -> Fault | None:
        """The fault of a row that stands in a file before its own."""
        places = (whole.shared(record) for whole in self.wholes)
        where = next(filter(None, places), None)
        return fault("validation-overlap", record, where) if where else None

    def validation_file(self) -> None:
        """The validation file's own rows, and which of them stand in the file."""
        path = self.options.validation
        if path is None:
            return
        self.report.validation_rows = 0
        for record in self._records(path, set()):
            self.report.validation_rows += 1
            if found := self._shared(record):
                self.report.add(found)
            elif self.alike:
                self.alike.add(len(self.files), record)

    def other_file(self, number: int, path: Path) -> None:
        """Which rows of the file share pieces with a file it must not share any with."""
        found = self.index.compare(self._documents(number, path))
        for one in found.rows:
            file, line = one.source.rsplit(":", 1)
            self.overlapping.add((file, int(line)))
            self.report.add(file_fault("overlap", file, _say(one), int(line)))
        if found.common:
            self.report.notes.append(
                f"{path}: {found.common} pieces of 13 words stand in more than ten texts of both "
                f"files and were not counted, such as {found.common_piece!r}"
            )

    def almost_alike(self) -> None:
        """Rows almost the same, within a file and across the files."""
        if self.alike is None:
            return
        own = len(self.files)
        for group in self.alike.groups():
            first: Place | None = None
            for number in range(own + 1):
                places = group.get(number, [])
                if first:
                    for place in places:
                        self._almost("validation-overlap", place, first)
                elif places and number < own:
                    first = places[0]
                    for place in places[1:]:
                        self._almost("near-duplicate", place, first)
            ours = [place for number in range(own) for place in group.get(number, [])]
            for number in range(own + 1, own + 1 + len(self.options.against)):
                for place in ours if number in group else []:
                    if place not in self.overlapping:
                        self._almost("overlap", place, group[number][0])

    def _almost(self, code: str, place: Place, other: Place) -> None:
        found = f"almost the same row as {shown_from(place.file, str(other))}"
        self.report.add(file_fault(code, place.file, found, place.line))

    def say_what_was_not_checked(self) -> None:
        """Notes: what is unknown, rather than taken for clean."""
        report = self.report
        report.notes += [f"not checked: {reason}" for reason in self.missing]
        if self.row_checker.bad_encoding is None:
            report.notes.append(
                "not checked: mojibake, which needs ftfy: pip install 'tunelm[data]'"
            )
        if self.unmeasured:
            report.notes.append(
                f"not checked: the length of {self.unmeasured} rows with tool calls"
            )
        if self.counter and self.counter.limit is None:
            model = self.options.openai_model
            what = f"{model} takes" if model else "the model takes (--openai-model)"
            report.notes.append(f"not checked: the longest example, as it is not known what {what}")

    def _records(self, path: Path, broken: set[str]) -> Iterator[Record]:
        """Rows that can be read, after their own checks; `broken` gets the others' FILE:LINE."""
        for item in scan(path, self.format, self.options.columns):
            if isinstance(item, Fault):
                self.report.add(item)
                if item.level == "error" and item.code != "column-not-found":
                    broken.add(f"{item.file}:{item.line}")
                continue
            faults = list(self.row_checker.check(item))
            if self.options.openai:
                faults += check_openai(item, self.options.method)
            if self.counter:
                faults += self.counter.check(item)
            if self.options.model and not any(one.level == "error" for one in faults):
                faults += self._length(item, self.options.model)
            for one in faults:
                self.report.add(one)
            yield item

    def _length(self, record: Record, model: Model) -> Iterator[Fault]:
        """By the model's own tokenizer. Running text has no answer to lose: it is cut in pieces."""
        if record.text is not None:
            return
        ends = [turns for turns in (record.preferred, record.rejected) if turns] or [()]
        for turns in ends:
            row = replace(record, messages=(*record.messages, *turns), preferred=(), rejected=())
            try:
                tokens = model.measure(row)
            except ValueError as error:
                yield fault("template", record, str(error))
                return
            if tokens is None:
                self.unmeasured += 1
                return
            prompt, total = tokens
            if prompt >= model.limit:
                yield fault("over-long", record, f"the prompt has {prompt} tokens of {model.limit}")
                return
            if total > model.limit:
                found = f"{total} tokens with its answer, which ends at {model.limit}"
                yield fault("cut-answer", record, found)
                return

    def _documents(self, number: int, path: Path) -> Iterator[Document]:
        """The rows of another file; what is wrong with them is not ours to report."""
        for one, record in documents(path):
            if self.alike and record:
                self.alike.add(number, record)
            yield one


def _say(one: Overlap) -> str:
    others = ", ".join(one.others[:3])
    rest = len(one.others) - 3 + one.more
    where = others + (f" and {rest} more" if rest > 0 else "")
    if one.pieces == 0:
        return f"{one.piece!r} also stands in {where}"
    return f"{one.pieces} pieces of 13 words also stand in {where}, such as {one.piece!r}"
