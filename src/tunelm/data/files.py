"""Rows of the text containers: JSON lines, JSON, CSV and TSV, plain lines. One row at a time."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunelm.data.detect import delimiter_of, first_cells, require_text
from tunelm.data.opening import BLOCK, LINE_LIMIT, MIB, Stream, head, lines, opened
from tunelm.data.records import Fault
from tunelm.data.shapes import VALID_ROW
from tunelm.data.strict_json import JsonError, StrictJson, shorten
from tunelm.errors import DataError

_ROW_LISTS = """
messages conversations answers prompt completion chosen rejected preferred_output
non_preferred_output input history tools functions
"""
ROW_LISTS = frozenset(_ROW_LISTS.split())
"""Lists that are a row's own, so an object that has one is no container of rows."""
_TOO_LONG = f"longer than {LINE_LIMIT // MIB} MiB"
_SPACE = " \t\n\r"


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row before anything is known of its shape: a JSON object, a table's row, or a text."""

    file: str
    line: int
    fields: dict[str, Any]
    blank: tuple[str, ...] = ()
    """Columns of a table that are empty in this row: they may stand for no such field."""


Item = RawRow | Fault


def jsonl_rows(path: Path, columns: Mapping[str, str]) -> Iterator[Item]:
    """A JSON object a line; blank lines are passed over."""
    json, file = StrictJson(), str(path)
    for line, text in _text_lines(path):
        if isinstance(text, Fault):
            yield text
            continue
        if not (text := text.strip(_SPACE)):
            continue
        try:
            value = json.parse(text)
        except JsonError as error:
            mend = _JSON_MENDS.get(error.code, "")
            yield Fault(error.code, "error", file, line, str(error), mend)
            continue
        yield _object(value, file, line)


def plain_lines(path: Path, columns: Mapping[str, str]) -> Iterator[Item]:
    """Each line that is not blank, as a text."""
    for line, text in _text_lines(path):
        if isinstance(text, Fault):
            yield text
        elif text.strip():
            yield RawRow(str(path), line, {"text": text})


def json_rows(path: Path, columns: Mapping[str, str]) -> Iterator[Item]:
    """The objects of a list, of the one list in an object, or of one object after the other."""
    with opened(path) as stream:
        yield from _JsonFile(path, stream).rows()


def csv_rows(path: Path, columns: Mapping[str, str]) -> Iterator[Item]:
    """The rows of a table with names in its first row; what stands between cells is found out."""
    start = head(path)
    text = start.decode("utf-8-sig", errors="replace")
    most = max(",\t;|", key=lambda d: len(first_cells(text, d)))
    yield from _table_rows(path, delimiter_of(text, columns) or most)


def tsv_rows(path: Path, columns: Mapping[str, str]) -> Iterator[Item]:
    """The rows of a table with tabs between cells."""
    yield from _table_rows(path, "\t")


_JSON_MENDS = {
    "duplicate-key": "Readers differ in which one they keep: leave one.",
    "bad-number": "Write null, or leave the field out.",
    "lone-surrogate": "No file can hold it: write the character itself.",
}


def _object(value: Any, file: str, line: int) -> Item:
    if isinstance(value, dict):
        return RawRow(file, line, value)
    found = f"found {type(value).__name__}, expected {VALID_ROW}"
    return Fault("not-an-object", "error", file, line, found)


def _text_lines(path: Path) -> Iterator[tuple[int, str | Fault]]:
    """(number, text without its line end, or what is wrong with it) of each line."""
    file = str(path)
    with opened(path) as stream:
        for line, raw in lines(stream):
            if raw is None:
                mend = "Is it one JSON list in one line? Then name the file .json."
                yield line, Fault("line-too-long", "error", file, line, _TOO_LONG, mend)
                continue
            if line == 1:
                require_text(path, raw[: 64 * 1024])
            try:
                text = raw.decode("utf-8-sig" if line == 1 else "utf-8")
            except UnicodeDecodeError as error:
                byte = f"byte {error.start + 1} of the line is 0x{raw[error.start]:02x}"
                found, mend = f"not UTF-8 text ({byte}).", "Save the file as UTF-8."
                yield line, Fault("not-utf-8", "error", file, line, found, mend)
                continue
            if "\0" in text:
                yield line, _nul(file, line, f"byte {raw.index(0) + 1} of the line")
            else:
                yield line, text.rstrip("\r\n")


def _nul(file: str, line: int, where: str) -> Fault:
    mend = "Was the file cut off, or is it UTF-16? Remove it, or save the file as UTF-8."
    return Fault("nul-byte", "error", file, line, f"{where} is NUL.", mend)


# --- JSON that is no line format -----------------------------------------------------------------


class _JsonFile:
    """A JSON text read value by value; in memory is the row at hand and no more."""

    def __init__(self, path: Path, stream: Stream) -> None:
        self._path, self._stream = path, stream
        self._decode = codecs.getincrementaldecoder("utf-8-sig")()
        self._json = StrictJson()
        self._text, self._at = "", 0
        self._line, self._counted = 1, 0  # the line number at this place in `_text`
        self._done = False

    def rows(self) -> Iterator[Item]:
        """Every row; after a fault whose end cannot be told, no more."""
        try:
            while char := self._peek():
                if char == "[":
                    yield from self._list()
                elif char == "{":
                    yield from self._outer_object()
                else:
                    yield self._checked(*self._value())
        except JsonError as error:
            mend = "What comes after it was not read."
            found = str(error)
            if error.code == "not-json":
                near = shorten(self._text[max(error.at - 20, 0) : error.at + 40])
                found = f"not valid JSON ({error} near {near})."
            line = self._line_at(error.at)
            yield Fault(error.code, "error", str(self._path), line, found, mend)

    def _list(self) -> Iterator[Item]:
        self._at += 1
        if self._peek() == "]":
            self._at += 1
            return
        while True:
            yield self._checked(*self._value())
            if self._step(",]") == "]":
                return

    def _outer_object(self) -> Iterator[Item]:
        """One row, or the object around the list of rows; what stands beside them is reported."""
        line, beside, rows_in = self._line_now(), dict[str, Any](), ""
        for key, at in self._members():
            if key not in ROW_LISTS and self._begins_rows():
                if rows_in:
                    found = f"the lists {rows_in} and {shorten(key)} both hold rows."
                    mend = "Put each in a file of its own."
                    yield self._fault("several-lists", at, found, mend)
                rows_in = rows_in or shorten(key)
                yield from self._list()
                continue
            value, error, _ = self._value()
            if error or key in beside:
                error = error or JsonError("duplicate-key", f"the key {shorten(key)} stands twice")
                yield self._fault(error.code, at, str(error), _JSON_MENDS.get(error.code, ""))
            beside[key] = value
        if rows_in and beside:
            names = ", ".join(map(shorten, beside))
            yield self._fault(
                "outside-rows", line, f"the fields {names} stand outside of the rows in {rows_in}.",
                "They are not read.",
            )  # fmt: skip
        elif not rows_in:
            yield RawRow(str(self._path), line, beside)

    def _members(self) -> Iterator[tuple[str, int]]:
        """(key, line) of each member; the caller reads its value in between."""
        self._at += 1
        if self._peek() == "}":
            self._at += 1
            return
        while True:
            if self._peek() != '"':
                raise JsonError("not-json", "Expecting a key in double quotes", self._at)
            line = self._line_now()
            key, error, _ = self._value()
            if error:
                raise error
            self._step(":")
            yield key, line
            if self._step(",}") == "}":
                return

    def _begins_rows(self) -> bool:
        """Whether a list follows whose first element is an object."""
        if self._peek() != "[":
            return False
        before = self._at
        self._at += 1
        first = self._peek(trim=False)
        self._at = before
        return first == "{"

    def _value(self) -> tuple[Any, JsonError | None, int]:
        """The next value, what is wrong with it, and its line."""
        self._peek()
        line = self._line_now()
        while True:
            try:
                value, end, error = self._json.value_at(self._text, self._at)
                if end < len(self._text) or not self._more():
                    self._at = end
                    return value, error, line
            except JsonError as error:
                if not error.incomplete or not self._more():
                    raise

    def _checked(self, value: Any, error: JsonError | None, line: int) -> Item:
        if error:
            return self._fault(error.code, line, str(error), _JSON_MENDS.get(error.code, ""))
        return _object(value, str(self._path), line)

    def _fault(self, code: str, line: int, found: str, mend: str) -> Fault:
        level = "warning" if code == "outside-rows" else "error"
        return Fault(code, level, str(self._path), line, found, mend)

    def _step(self, expected: str) -> str:
        """Pass over one of these signs, which must come next."""
        char = self._peek()
        if not char or char not in expected:
            what = " or ".join(repr(sign) for sign in expected)
            raise JsonError("not-json", f"Expecting {what}", self._at)
        self._at += 1
        return char

    def _peek(self, trim: bool = True) -> str:
        """The next sign that is no white space; "" at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text):
                break
            if not self._more():
                return ""
        if trim and self._at > BLOCK:
            self._line_now()
            self._text, self._at, self._counted = self._text[self._at :], 0, 0
        return self._text[self._at]

    def _more(self) -> bool:
        """Read as much again as is unread, so that a long value is not parsed too often."""
        if self._done:
            return False
        unread = len(self._text) - self._at
        if unread > LINE_LIMIT:
            raise DataError(f"{self._path}:{self._line_now()}: one row is {_TOO_LONG}.")
        parts: list[str] = []
        size = 0
        while size < max(unread, BLOCK):
            data = self._stream.read(BLOCK)
            try:
                parts.append(self._decode.decode(data, final=not data))
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{self._path}: not UTF-8 text (a byte is 0x{error.object[error.start]:02x}, "
                    f"after line {self._line_at(len(self._text))}). Save the file as UTF-8."
                ) from None
            size += len(data)
            if not data:
                self._done = True
                break
        self._text += "".join(parts)
        return bool(size)

    def _line_now(self) -> int:
        self._line, self._counted = self._line_at(self._at), self._at
        return self._line

    def _line_at(self, at: int) -> int:
        ends = (self._text.count(end, self._counted, at) for end in ("\n", "\r", "\r\n"))
        newlines, returns, pairs = ends
        return self._line + newlines + returns - pairs


# --- tables ------------------------------------------------------------------------------------


def _table_rows(path: Path, delimiter: str) -> Iterator[Item]:
    # the module's own limit on a cell, 128 KiB, is no limit of memory: ours is on the row
    csv.field_size_limit(max(csv.field_size_limit(), LINE_LIMIT))
    file = str(path)
    with opened(path) as stream:
        feeder = _Feeder(path, lines(stream))
        reader = csv.reader(feeder, delimiter=delimiter, strict=True)
        names: list[str] = []
        while True:
            begin = reader.line_num + 1
            feeder.row_begins(begin)
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield _csv_fault(file, begin, str(error))
                continue
            if not cells:
                continue
            fault = feeder.fault(file, begin) if feeder.bad else None
            if not names:
                if fault:
                    raise DataError(str(fault))
                names = _header(path, begin, cells)
            elif fault:
                yield fault
            elif len(cells) != len(names):
                yield _ragged(file, begin, cells, names)
            else:
                fields = dict(zip(names, cells, strict=True))
                yield RawRow(file, begin, fields, tuple(n for n in names if not fields[n]))


class _Feeder:
    """Decoded lines for the CSV reader, within the limit of a row; remembers what was wrong."""

    def __init__(self, path: Path, source: Iterable[tuple[int, bytes | None]]) -> None:
        self._path, self._source = path, iter(source)
        self._begin, self._size = 1, 0
        self.bad: tuple[str, str] | None = None

    def row_begins(self, line: int) -> None:
        """The next line begins a row."""
        self._begin, self._size, self.bad = line, 0, None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line, raw = next(self._source)
        self._size += LINE_LIMIT + 1 if raw is None else len(raw)
        if raw is None or self._size > LINE_LIMIT:
            raise DataError(
                f"{self._path}:{self._begin}: the row that begins here is {_TOO_LONG}. Is a "
                "quotation mark not closed?"
            )
        if line == 1:
            require_text(self._path, raw[: 64 * 1024])
            raw = raw.removeprefix(codecs.BOM_UTF8)
        if b"\0" in raw:
            self.bad = ("nul-byte", f"byte {raw.index(0) + 1} of line {line}")
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            byte = f"byte {error.start + 1} of line {line} is 0x{raw[error.start]:02x}"
            self.bad = ("not-utf-8", f"not UTF-8 text ({byte}).")
            return raw.decode(errors="replace")

    def fault(self, file: str, line: int) -> Fault:
        """What was wrong with the lines of the row."""
        code, found = self.bad or ("", "")
        if code == "nul-byte":
            return _nul(file, line, found)
        mend = 'Save the file as UTF-8 (Excel: "CSV UTF-8").'
        return Fault(code, "error", file, line, found, mend)


def _header(path: Path, line: int, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    if "" in names:
        raise DataError(
            f"{path}:{line}: column {names.index('') + 1} of {len(names)} has no name. The first "
            "row must name every column."
        )
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}:{line}: two columns are named {shorten(twice)}. Rename one.")
    return names


def _ragged(file: str, line: int, cells: list[str], names: list[str]) -> Fault:
    if len(cells) < len(names):
        which = f"nothing for {', '.join(names[len(cells) :])}"
    else:
        which = f"beyond the last, {', '.join(map(shorten, cells[len(names) :][:5]))}"
    return Fault(
        "ragged-row", "error", file, line,
        f"{len(cells)} cells, but the first row names {len(names)} columns: {shorten(which, 200)}.",
        "A comma or line break inside a cell needs quotation marks around the cell.",
    )  # fmt: skip


def _csv_fault(file: str, line: int, error: str) -> Fault:
    if "end of data" in error:
        found = "a quotation mark opened in this row is never closed; the file's rest is in it."
        return Fault("unclosed-quote", "error", file, line, found, "Close it.")
    found = f"quotation marks that are no CSV ({error})."
    return Fault("bad-quotes", "error", file, line, found, 'Write a " inside a cell as "".')
