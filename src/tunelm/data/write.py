"""Records to disk, in every format that is written: all of them or none, and nothing lost.

What a format cannot hold is refused with the row and the field: what was written reads as the
same records. Tables need to know all columns before the first row, so their rows pass through a
temporary file: memory stays bounded.
"""

from __future__ import annotations

import csv
import gzip
import html
import io
import json
import os
import tempfile
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, BinaryIO, cast

from tunelm.data.detect import SUFFIXES, parse_format
from tunelm.data.documents import page_text
from tunelm.data.opening import DOCUMENT_LIMIT
from tunelm.data.records import Record
from tunelm.data.shapes import ShapeError, detect, required
from tunelm.data.strict_json import shorten
from tunelm.data.unshape import Fields, to_row
from tunelm.errors import ConfigError, DataError

Rows = Iterator[tuple[str, Fields]]
"""(FILE:LINE it was read from, the row) of each record."""

ONLY_READ: Mapping[str, str] = {
    "pdf": "it holds where letters stand on a page, and no text that reads back as it was",
    "folder": "it holds documents of any kind; txt, markdown and html write a folder of one",
}
"""The formats that are not written, and why."""
SHARD_ROWS = 1 << 16
"""Most rows of one file of a folder of shards."""
_DOCUMENTS: Mapping[str, str] = {"txt": ".txt", "markdown": ".md", "html": ".html"}
_PAGE = """\
<!doctype html>
<html>
<head><meta charset="utf-8"><title>text</title></head>
<body><pre>
{}</pre></body>
</html>
"""
"""A page whose text stays as it is; the line break after <pre> is no part of it."""


def write_records(records: Iterable[Record], path: Path, format: str) -> int:
    """Write the records and say how many they were.

    `format` is a container, a shape or both, as in `scan`; without a shape each record is written
    as it was read, without a container as JSONL. A path that ends in .gz is packed. `txt`,
    `markdown` and `html` write a file for one text, and a folder of numbered files where the path
    is no such file's; `dataset` writes a folder. A file is replaced, a folder never.

    Raises:
        DataError: a row holds what the format cannot, or the disk is full. Nothing is written.
        ConfigError: no such format, or one that is only read.
        PrerequisiteError: the library for the format is not installed.
    """
    container, shape = parse_format(format)
    container = container or "jsonl"
    if container in ONLY_READ:
        raise ConfigError(f"the format {container} is only read: {ONLY_READ[container]}.")
    rows = _rows(records, shape, container)
    try:
        if container == "shards":
            return _write_shards(rows, path)
        if container in ("jsonl", "json", "lines"):
            return _write_lines(rows, path, container)
        if container in ("csv", "tsv"):
            return _write_csv(rows, path, "\t" if container == "tsv" else ",")
        if container in _DOCUMENTS:
            return _write_documents(rows, path, container)
        from tunelm.data.write_arrow import write_arrow

        with spooled(rows, path) as spool:
            return write_arrow(spool, path, container)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written: {error.strerror or error}. Nothing was written."
        ) from None


def written_rows(records: Iterable[Record], format: str) -> Rows:
    """The records as rows of a table, for `write_arrow`."""
    return _rows(records, parse_format(format)[1], "parquet")


def _write_shards(rows: Rows, path: Path) -> int:
    """A folder of Parquet files of at most `SHARD_ROWS` rows each."""
    from tunelm.data.write_arrow import write_arrow

    count = 0
    with new_folder(path) as folder:
        while piece := list(islice(rows, SHARD_ROWS)):
            held = Held()
            held.fill(iter(piece))
            count += write_arrow(held, folder / f"{count // SHARD_ROWS:05d}.parquet", "parquet")
        if not count:
            raise DataError(f"{path}: there are no rows to write, and a table needs one.")
    return count


def _rows(records: Iterable[Record], shape: str | None, container: str) -> Rows:
    for record in records:
        try:
            yield record.source, to_row(record, shape)
        except ShapeError as error:
            raise cannot_hold(record.source, shape or container, str(error)) from None


def cannot_hold(source: str, what: str, why: str) -> DataError:
    """The refusal to write a row."""
    return DataError(f"{source}: cannot be written as {what}: {why}. Nothing was written.")


@contextmanager
def replacing(path: Path) -> Generator[BinaryIO]:
    """A new file that takes the place of the old one when the block ends without an error."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with partial.open("wb") as file:
            if path.suffix == ".gz":
                with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed:
                    yield cast(BinaryIO, packed)
            else:
                yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


# --- JSON and lines -----------------------------------------------------------------------------


def _write_lines(rows: Rows, path: Path, container: str) -> int:
    count = 0
    with replacing(path) as file:
        if container == "json":
            file.write(b"[")
        for source, row in rows:
            if container == "json":
                file.write(b",\n" if count else b"\n")
            text = _line(source, row) if container == "lines" else _dump(source, row, container)
            file.write(text + (b"" if container == "json" else b"\n"))
            count += 1
        if container == "json":
            file.write(b"\n]\n")
    return count


def _dump(source: str, value: object, container: str) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise cannot_hold(source, container, f"a value that is not JSON ({error})") from None


def _line(source: str, row: Fields) -> bytes:
    text = _only_text(source, row, "lines")
    if "\n" in text:
        raise cannot_hold(source, "lines", "the text has line breaks")
    return text.encode()


# --- tables of cells -------------------------------------------------------------------------


def _write_csv(rows: Rows, path: Path, delimiter: str) -> int:
    name = "tsv" if delimiter == "\t" else "csv"
    with spooled(_cells(rows, name), path) as spool, replacing(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        # the line end decides which cells get quotation marks: with this one, all that hold \r
        writer = csv.writer(text, delimiter=delimiter, lineterminator="\r\n")
        if spool.names:
            writer.writerow(spool.names)
        for _, row in spool:
            writer.writerow([row.get(key, "") for key in spool.names])
        text.detach()
    return spool.count


def _cells(rows: Rows, name: str) -> Rows:
    """The rows, checked: a cell holds text, and an empty one stands for no field at all."""
    for source, row in rows:
        needed = required(detect(row) or "", row)
        for key, value in row.items():
            field = shorten(key)
            if not key or key != key.strip():
                raise cannot_hold(source, name, f"{field} cannot name a column")
            if not isinstance(value, str):
                why = f"{field} is {shorten(value)}, and a cell holds text alone"
                raise cannot_hold(source, name, f"{why}; write jsonl or parquet")
            if "\0" in value or "\0" in key:
                raise cannot_hold(source, name, f"{field} holds a NUL character")
            if not value and key not in needed:
                why = f"{field} is empty, which a cell cannot tell from no {field}"
                raise cannot_hold(source, name, f"{why}; write jsonl or parquet")
        yield source, row


class Spool:
    """Rows in a temporary file, to be read as often as need be; their columns in order."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.names: list[str] = []
        self.needed: frozenset[str] = frozenset()
        """The columns that make the rows what they are."""
        self.nulls: frozenset[str] = frozenset()
        """The columns that every row has, and some with null."""
        self.count = 0

    def __iter__(self) -> Rows:
        self._file.seek(0)
        for line in self._file:
            source, row = json.loads(line)
            yield source, row

    def _put(self, source: str, row: Fields) -> None:
        self._file.write(_dump(source, [source, row], "a table") + b"\n")

    def fill(self, rows: Rows) -> None:
        """Take in the rows. Raises DataError where two are of different shapes."""
        rows_with: Counter[str] = Counter()
        nulls: set[str] = set()
        first: tuple[str, str | None] | None = None
        of_names: dict[tuple[str, ...], str | None] = {}
        for source, row in rows:
            names = tuple(row)
            if names not in of_names:
                of_names[names] = detect(row)
            family = of_names[names]
            first = first or (source, family)
            if family != first[1]:
                why = (
                    f"it is {family}, and {first[0]} is {first[1]}: a table holds rows of one shape"
                )
                raise cannot_hold(source, "a table", why)
            self.needed |= required(family, row) if family else frozenset[str]()
            rows_with.update(row.keys())
            nulls.update(name for name, value in row.items() if value is None)
            self._put(source, row)
            self.count += 1
        self.names = list(rows_with)
        self.nulls = frozenset(name for name in nulls if rows_with[name] == self.count)


class Held(Spool):
    """Rows in memory, where they are few."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO())
        self._rows: list[tuple[str, Fields]] = []

    def __iter__(self) -> Rows:
        return iter(self._rows)

    def _put(self, source: str, row: Fields) -> None:
        self._rows.append((source, row))


@contextmanager
def spooled(rows: Rows, path: Path) -> Generator[Spool]:
    """The rows in a temporary file beside `path`, which is gone afterwards."""
    with tempfile.TemporaryFile(dir=path.parent) as file:
        spool = Spool(file)
        spool.fill(rows)
        yield spool


# --- documents -------------------------------------------------------------------------------


def _write_documents(rows: Rows, path: Path, container: str) -> int:
    if SUFFIXES.get(Path(path.name.removesuffix(".gz")).suffix.lower()) == container:
        texts = list(_two(rows))
        if len(texts) != 1:
            raise DataError(
                f"{path}: is one file, and there are {'several' if texts else 'no'} texts. Give a "
                "folder's name. Nothing was written."
            )
        with replacing(path) as file:
            file.write(_text(*texts[0], container))
        return 1
    count = 0
    with new_folder(path) as folder:
        for count, (source, row) in enumerate(rows, 1):
            name = f"{count:08d}{_DOCUMENTS[container]}"
            (folder / name).write_bytes(_text(source, row, container))
    return count


def _two(rows: Rows) -> Rows:
    """The first two rows at most: enough to know that there is more than one."""
    for _, row in zip(range(2), rows, strict=False):
        yield row


@contextmanager
def new_folder(path: Path) -> Generator[Path]:
    """A folder that appears under its name, complete, when the block ends without an error."""
    if path.exists():
        raise DataError(
            f"{path}: exists already, and a folder is never overwritten. Choose another."
        )
    with tempfile.TemporaryDirectory(
        dir=path.parent, prefix=f".{path.name}.", suffix=".tmp", ignore_cleanup_errors=True
    ) as outer:
        folder = Path(outer) / "new"
        folder.mkdir()
        yield folder
        os.replace(folder, path)


def _text(source: str, row: Fields, container: str) -> bytes:
    text = _only_text(source, row, container)
    data = (_PAGE.format(html.escape(text, quote=False)) if container == "html" else text).encode()
    if len(data) > DOCUMENT_LIMIT:
        raise cannot_hold(source, container, "the text is too long for one document")
    # older parsers drop control characters
    if container == "html" and page_text(Path(source), data) != text:
        why = "the text holds a character that HTML has no place for"
        raise cannot_hold(source, container, f"{why}; write jsonl or txt")
    return data


def _only_text(source: str, row: Fields, container: str) -> str:
    """The text of a row that is no more than that, and reads as the same text."""
    beside = sorted(row.keys() - {"text"})
    text = row.get("text")
    if beside or not isinstance(text, str):
        what = f"the field {shorten(beside[0])} would be lost" if beside else "it has no text"
        raise cannot_hold(source, container, f"{what}; write jsonl")
    if "\r" in text or "\0" in text or text.startswith("\ufeff") or not text.strip():
        why = "the text is blank, or holds a carriage return, NUL or byte order mark"
        raise cannot_hold(source, container, f"{why}; write jsonl")
    return text
