"""Rows on disk become Records, one at a time; every fault is named with file and line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tunelm.data import documents, files, tables
from tunelm.data.detect import DOCUMENTS, TABLES, detect_container, parse_format, shards_of
from tunelm.data.files import Item, RawRow
from tunelm.data.opening import cannot_read
from tunelm.data.records import Fault, Record, to_example
from tunelm.data.shapes import (
    SHAPES,
    VALID_ROW,
    ShapeError,
    detect,
    family_of,
    required,
    to_record,
    unknown,
)
from tunelm.data.strict_json import StrictJson, shorten
from tunelm.errors import ConfigError, DataError
from tunelm.types import Example

CODES: Mapping[str, str] = {
    # --- the bytes and the text
    "not-utf-8": "bytes that are no UTF-8 text",
    "nul-byte": "a NUL byte in the text",
    "line-too-long": "a line of more than 64 MiB",
    "lone-surrogate": "half of a surrogate pair, which no file can hold",
    # --- JSON
    "not-json": "a line or file that is not valid JSON",
    "duplicate-key": "a key that stands twice in one object",
    "bad-number": "NaN, Infinity, or a number too large",
    "nested-too-deep": "lists and objects in each other beyond 64 levels",
    "not-an-object": "a row that is no object",
    "several-lists": "an object with more than one list of rows",
    "outside-rows": "fields of a JSON file that stand outside of its rows",
    # --- tables
    "ragged-row": "a row with more or fewer cells than there are columns",
    "bad-quotes": "quotation marks in a CSV row that are not CSV",
    "unclosed-quote": "a quotation mark in a CSV row that is never closed",
    "column-left-out": "a column of bytes, which is left out",
    "column-not-found": "a name of data.columns that no row has",
    "column-clash": "a field mapped to a name that another field of the row has",
    # --- the shape of the row
    "unknown-shape": "a row of none of the shapes, or not of the one that was asked for",
    "mixed-forms": "a row that is half text and half list of turns",
    "answers-not-a-list": "answers that are no list",
    "turns-not-a-list": "a conversation that is no list",
    "turn-not-object": "a turn that is no object",
    "missing-role": "a turn without a role",
    "missing-content": "a turn without content",
    "not-text": "a text that is a number, a list or an object",
    # --- folders
    "unreadable-document": "a document without text, damaged, encrypted or not to be opened",
    "not-a-document": "a file of a folder that is no document, and is left out",
    "link-loop": "a link to a folder that is read already",
}
"""Every code of a fault that `scan` can yield -> what it is."""

_ROWS: Mapping[str, Callable[[Path, Mapping[str, str]], Iterator[Item]]] = {
    "jsonl": files.jsonl_rows,
    "json": files.json_rows,
    "csv": files.csv_rows,
    "tsv": files.tsv_rows,
    "lines": files.plain_lines,
    "parquet": tables.parquet_rows,
    "dataset": tables.dataset_rows,
    "shards": lambda path, columns: _raw_shards(path, columns),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One row and where it stands, as `file:line`."""

    source: str
    example: Example


def scan(
    path: Path, format: str | None = None, columns: Mapping[str, str] | None = None
) -> Iterator[Record | Fault]:
    """Every row of a file or folder as a Record, or what is wrong with it as a Fault.

    `format` is a container, a shape or both (`csv`, `alpaca`, `jsonl:messages`); None finds it out
    from the content. `columns` maps our names to the file's.

    Raises:
        DataError: the file as a whole cannot be read, or has no rows; one line.
        ConfigError: no such format.
        PrerequisiteError: the library for the format is not installed.
    """
    columns = columns or {}
    _, shape = parse_format(format)
    container, items = open_rows(path, format, columns)
    if container == "shards":
        yield from _scan_shards(path, shape, columns)
        return
    naming = _Naming(path, columns)
    found = False
    for item in _records(path, container in TABLES, items, shape, naming):
        found = True
        yield item
    if not found:
        raise DataError(_empty(path, container))
    yield from naming.unused()


def _records(
    path: Path, table: bool, items: Iterator[Item], shape: str | None, naming: _Naming
) -> Iterator[Record | Fault]:
    family = family_of(shape) if shape else None
    for item in items:
        if isinstance(item, Fault):
            yield item
            continue
        if table and family is None:
            family = _table_family(path, item, naming)
        fields = naming.apply(item)
        if isinstance(fields, Fault):
            yield fields
            continue
        if item.blank and family:
            fields = _without_blanks(fields, naming.ours(item.blank), family)
        yield _record(fields, item, family)


def read_group(
    path: Path, group: int, format: str | None, columns: Mapping[str, str]
) -> list[Example]:
    """The rows of one row group of a Parquet file, as `read_rows` gives them."""
    items = tables.group_rows(path, group)
    records = _records(path, True, items, parse_format(format)[1], _Naming(path, columns))
    return [to_example(item) for item in records if isinstance(item, Record)]


def _scan_shards(
    path: Path, shape: str | None, columns: Mapping[str, str]
) -> Iterator[Record | Fault]:
    """Each file by itself, so that what one of them lacks is said of that one."""
    files = shards_of(path)
    if not files:
        raise DataError(_empty(path, "shards"))
    for file in files:
        yield from scan(file, shape, columns)


def raw_rows(path: Path, format: str | None = None) -> Iterator[Item]:
    """The rows as they stand in the file, for what needs their texts whatever their shape.

    Raises what `scan` raises.
    """
    return open_rows(path, format, {})[1]


def read_rows(
    path: Path,
    most_problems: int = 100,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> Iterator[Row]:
    """The rows of a file or folder, as examples to train and score on.

    A JSONL row has "question" and "answer" (or a list "answers"), or OpenAI-style "messages" whose
    last one is the assistant's; optional "context", "group" (default: the row's own content)
    and "key_answer" (the part that must be in an answer for it to be right). Other fields are
    kept as metadata. A leading system message is refused: instructions belong to the task.
    docs/formats.md lists the other formats.

    Raises DataError naming every broken row (up to `most_problems`) once the file is read, so a
    caller who needs all or nothing must read to the end before acting.
    """
    problems: list[str] = []
    for item in scan(path, format, columns):
        if isinstance(item, Fault):
            problems += [str(item)] if item.level == "error" else []
        else:
            try:
                yield Row(_source(path, item), to_example(item))
            except ValueError as error:
                problems.append(f"{item.source}: {error}")
        if len(problems) >= most_problems:
            break
    if problems:
        raise DataError(problems)


def parse_row(text: str) -> Example:
    """One line of JSON as an Example. Raises ValueError with what was found and what is valid.

    >>> row = parse_row('{"question": "1 + 1?", "answer": "2"}')
    >>> row.messages[0].content, row.answers
    ('1 + 1?', ('2',))
    """
    value = StrictJson().parse(text)
    if not isinstance(value, dict):
        raise ValueError(f"found {type(value).__name__}, expected {VALID_ROW}")
    return to_example(to_record(value, "", 1))


def open_rows(
    path: Path, format: str | None, columns: Mapping[str, str]
) -> tuple[str, Iterator[Item]]:
    """(container, its rows); nothing but the first bytes is read yet."""
    container, _ = parse_format(format)
    try:
        folder = path.is_dir()
        container = container or detect_container(path, columns)
    except OSError as error:
        raise cannot_read(path, error) from None
    if folder and container in (*DOCUMENTS, "folder"):
        rows = partial(documents.folder_rows, kind=container)
    elif container in DOCUMENTS:
        rows = partial(documents.document_rows, kind=container)
    elif folder != (container in ("dataset", "folder", "shards")):
        what = "is a folder" if folder else "is no folder"
        raise DataError(f"{path}: {what}, which the format {container} is not read from.")
    else:
        rows = _ROWS[container]
    if columns and container not in (*TABLES, "jsonl", "json", "shards"):
        raise ConfigError(f"data.columns names fields, and {path} is text without any.")
    return container, rows(path, columns)


def _raw_shards(path: Path, columns: Mapping[str, str]) -> Iterator[Item]:
    for file in shards_of(path):
        yield from open_rows(file, None, columns)[1]


class _Naming:
    """Our names for the file's fields."""

    def __init__(self, path: Path, columns: Mapping[str, str]) -> None:
        self._file = str(path)
        self._columns = columns
        self._missing = dict(columns)
        self._ours = {theirs: ours for ours, theirs in columns.items()}

    def apply(self, item: RawRow) -> dict[str, Any] | Fault:
        """The row's fields by our names."""
        if not self._columns:
            return item.fields
        fields = dict(item.fields)
        moved: dict[str, Any] = {}
        for ours, theirs in self._columns.items():
            if theirs in item.fields:
                moved[ours] = item.fields[theirs]
                fields.pop(theirs, None)
                self._missing.pop(ours, None)
        clash = sorted(moved.keys() & fields.keys())
        if clash:
            name = clash[0]
            found = f"{shorten(name)} is the name of another field already."
            mend = f'Give that one another name: data.columns = {{ other = "{name}", ... }}.'
            return Fault("column-clash", "error", item.file, item.line, found, mend)
        return moved | fields

    def ours(self, names: Sequence[str]) -> set[str]:
        """Our names for these of the file's."""
        return {self._ours.get(name, name) for name in names}

    def unused(self) -> Iterator[Fault]:
        """Names that no row had: a typing error, most likely."""
        for ours, theirs in self._missing.items():
            found = f"data.columns maps {ours} to {shorten(theirs)}, which no row has."
            yield Fault("column-not-found", "error", self._file, 0, found)


def _table_family(path: Path, item: RawRow, naming: _Naming) -> str:
    """What all rows of a table are, by its columns; one error for the table, not one a row."""
    fields = naming.apply(item)
    if isinstance(fields, Fault):
        raise DataError(f"{path}: {fields.found} {fields.mend}")
    family = detect(fields)
    if family is None:
        error = unknown(fields)
        raise DataError(f"{path}: {error.found} {error.mend}".replace("fields", "columns", 1))
    return family


def _without_blanks(fields: dict[str, Any], blank: set[str], family: str) -> dict[str, Any]:
    """A blank cell is a field that the row does not have, unless it makes the row what it is."""
    needed = required(family, fields)
    if {"answer", "answers"} <= needed:  # either will do
        needed -= {"answers"} if "answers" in blank else {"answer"}
    return {name: v for name, v in fields.items() if name not in blank or name in needed}


def _record(fields: dict[str, Any], item: RawRow, family: str | None) -> Record | Fault:
    try:
        return to_record(fields, item.file, item.line, family)
    except ShapeError as error:
        return Fault(error.code, "error", item.file, item.line, error.found, error.mend)


def _source(path: Path, record: Record) -> str:
    """How ledgers name a row: short, and the same wherever the file lies."""
    inner = Path(record.file)
    within = inner.relative_to(path).as_posix() if inner != path else path.name
    return f"{within}:{record.line}"


def _empty(path: Path, container: str) -> str:
    if container == "jsonl":
        return f"{path}: the file is empty. Each line should be {VALID_ROW}."
    return f"{path}: holds no rows. A row should be {VALID_ROW}, or {SHAPES['text'].what}."
