"""Raters' files read back: comma, semicolon or tab, whatever the spreadsheet made of the sheet.

What a rater left open stays open: it is counted, and is neither a no nor a reason to stop. What
cannot be understood is named by file, line, item and column, all of it at once.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tunelm.errors import ConfigError, DataError
from tunelm.report.review.criteria import LEVELS
from tunelm.report.review.items import Item, Sheet, clean
from tunelm.report.review.sheet import restored

Place = tuple[int, str]
"""An answer: its item's number and its letter."""

_MARKS = {word: place / 2 for place, level in enumerate(LEVELS) for word in (level, level[0])}
_HINT = re.compile(r"\s*\(.*\)\s*$", re.DOTALL)
_BETWEEN = re.compile(r"\band\b|[\s,;=/+&]", re.IGNORECASE)
_NEEDED = ("sheet", "item", "letter", "best")


@dataclass(frozen=True, slots=True)
class Ratings:
    """One rater's file.

    `marks` has for each answer a value by criterion, 0 to 1, without those that were left open;
    `best` the letters of each item's best; `comments` what was written about an answer.
    """

    rater: str
    file: str
    marks: Mapping[Place, Mapping[str, float]]
    best: Mapping[int, frozenset[str]]
    comments: Mapping[Place, str]


def read_all(files: Sequence[Path], sheet: Sheet) -> list[Ratings]:
    """Every rater's file.

    Raises:
        ConfigError: two files of one rater.
        DataError: files that cannot be read, of another sheet, or with marks that are none.
    """
    found: list[Ratings] = []
    problems: list[str] = []
    for path in files:
        try:
            found.append(read_ratings(path, sheet))
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
    by_name: dict[str, Ratings] = {}
    for one in found:
        twin = by_name.setdefault(one.rater.casefold(), one)
        if twin is not one:
            raise ConfigError(
                f"{twin.file} and {one.file} are both by {one.rater!r}. A rater counts once: leave "
                "one out, or rename a file, or write names into the column rater."
            )
    return found


def read_ratings(path: Path, sheet: Sheet) -> Ratings:
    """One rater's file. Raises DataError with all that is wrong in it, as file:line."""
    reading = _Reading(path, sheet)
    for line, cells in _rows(path, _text_of(path)):
        reading.take(line, cells)
    return reading.done()


def _text_of(path: Path) -> str:
    """The file's text: UTF-8, UTF-16 (Excel's "Unicode text"), else Western European as Excel has.

    Raises DataError where it is no text.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from None
    if raw[:4] in (b"PK\x03\x04", b"\xd0\xcf\x11\xe0"):
        raise DataError(f"{path}: is a spreadsheet's own file. Save it as CSV, and give that.")
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return raw.decode("utf-16", errors="replace")
    if b"\0" in raw:
        raise DataError(f"{path}: is no text: it holds zero bytes. Save the sheet as CSV.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        # Only comments hold letters outside ASCII, so at worst one of those is spoilt.
        return raw.decode("cp1252", errors="replace")


def _rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that hold anything, each with the line that it begins in."""
    begin = 1
    if re.match(r"sep=.\r?\n", text):  # Excel's own first line
        text, begin = text.split("\n", 1)[1], 2
    delimiter = _delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = begin + reader.line_num
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{path}:{line}: cannot be read as cells from here on ({error}). Is a quotation "
                "mark not closed?"
            ) from None
        if any(cell.strip() for cell in cells):
            yield line, cells


def _delimiter(text: str) -> str:
    """What stands between cells: what the first line has most of, outside quotation marks."""
    first = re.sub(r'"[^"]*"', "", text.lstrip().split("\n", 1)[0])
    return max(",;\t", key=first.count)


@dataclass
class _Reading:
    """One file while it is read."""

    path: Path
    sheet: Sheet
    names: list[str] = field(default_factory=list[str])
    problems: list[str] = field(default_factory=list[str])
    raters: dict[str, int] = field(default_factory=dict[str, int])
    marks: dict[Place, dict[str, float]] = field(default_factory=dict[Place, dict[str, float]])
    best: dict[int, frozenset[str]] = field(default_factory=dict[int, frozenset[str]])
    comments: dict[Place, str] = field(default_factory=dict[Place, str])
    lines: dict[Place, int] = field(default_factory=dict[Place, int])

    def take(self, line: int, cells: Sequence[str]) -> None:
        """The next row: the first one holds the names."""
        texts = [restored(cell.strip()) for cell in cells]
        if not self.names:
            self.names = self._header(line, texts)
            return
        if len(texts) < len(self.names):  # some programs leave out empty cells at the end
            texts += [""] * (len(self.names) - len(texts))
        if any(texts[len(self.names) :]):
            self._problem(line, f"has {len(texts)} cells, the first row {len(self.names)}")
            return
        self._row(line, dict(zip(self.names, texts, strict=False)))

    def done(self) -> Ratings:
        """What was read. Raises DataError with everything that was wrong."""
        if not self.problems and not self.names:
            self.problems.append(f"{self.path}: is empty; give a sheet that was filled in")
        if len(self.raters) > 1:
            named = ", ".join(f"{name!r} in line {line}" for name, line in self.raters.items())
            self.problems.append(f"{self.path}: has several raters ({named}); give a file for each")
        filled = any(self.marks.values()) or self.best
        if not self.problems and not filled:
            self.problems.append(f"{self.path}: nothing is filled in; leave this file out")
        if self.problems:
            raise DataError(self.problems)
        rater = next(iter(self.raters), self.path.stem)
        return Ratings(rater, str(self.path), self.marks, self.best, self.comments)

    def _problem(self, line: int, what: str) -> None:
        self.problems.append(f"{self.path}:{line}: {what}")

    def _header(self, line: int, cells: Sequence[str]) -> list[str]:
        known = {c.name.casefold(): c.name for c in self.sheet.criteria}
        names = [_HINT.sub("", cell).casefold().strip() for cell in cells]
        found = [known.get(name, name) for name in names]
        wanted = [*_NEEDED, *known.values()]
        missing = [name for name in wanted if name not in found]
        twice = sorted({name for name in wanted if found.count(name) > 1})
        if missing or twice:
            what = f"has no column {', '.join(missing)}" if missing else f"has twice {twice[0]}"
            raise DataError(
                f"{self.path}:{line}: {what}. The first row must be that of the sheet: "
                f"{', '.join(wanted)}, in any order, between commas, semicolons or tabs."
            )
        return found

    def _row(self, line: int, row: Mapping[str, str]) -> None:
        if row["sheet"] != self.sheet.hash:
            raise DataError(
                f"{self.path}:{line}: is of another sheet ({clean(row['sheet'])[:40] or 'none'}); "
                f"this run's is {self.sheet.hash}. Give ratings of that one, or the folder of the "
                "other as --out."
            )
        item = self._item(line, row["item"])
        if item is None:
            return
        letters = [answer.letter for answer in item.answers]
        letter = row["letter"].upper()
        if letter not in letters:
            has = f"item {item.number} has {', '.join(letters)}"
            self._problem(line, f"there is no answer {_quoted(row['letter'])}; {has}")
            return
        place = (item.number, letter)
        if place in self.lines:
            where = f"item {item.number}, answer {letter}"
            self._problem(line, f"{where} stands in line {self.lines[place]} already")
            return
        self.lines[place] = line
        self._check_text(line, item, letter, row.get("answer", ""))
        self.marks[place] = dict(self._marks(line, place, row))
        self._best(line, item, row["best"])
        if row.get("rater"):
            self.raters.setdefault(clean(row["rater"]), line)
        if row.get("comment"):
            self.comments[place] = clean(row["comment"])

    def _item(self, line: int, text: str) -> Item | None:
        number = re.fullmatch(r"(\d{1,6})(?:[.,]0+)?", text)
        place = int(number[1]) if number else 0
        if 1 <= place <= len(self.sheet.items):
            return self.sheet.items[place - 1]
        last = len(self.sheet.items)
        self._problem(line, f"there is no item {_quoted(text)}; items are 1 to {last}")
        return None

    def _check_text(self, line: int, item: Item, letter: str, text: str) -> None:
        """A column sorted by itself puts a letter beside another's text."""
        own = {a.letter: " ".join(a.text.split()) for a in item.answers}
        given = " ".join(text.split())
        others = [other for other, its in own.items() if its == given and given]
        if others and letter not in others:
            self._problem(
                line,
                f"the text beside item {item.number}, answer {letter}, is that of {others[0]}: "
                "were columns sorted by themselves? Rate a fresh copy of the sheet",
            )

    def _marks(
        self, line: int, place: Place, row: Mapping[str, str]
    ) -> Iterator[tuple[str, float]]:
        for criterion in self.sheet.criteria:
            text = row[criterion.name]
            value = _MARKS.get(text.casefold())
            if value is not None:
                yield criterion.name, value
            elif text:
                where = f"item {place[0]}, answer {place[1]}, column {criterion.name}"
                self._problem(
                    line, f"{where}: {_quoted(text)} is no mark; valid are yes, partly, no or empty"
                )

    def _best(self, line: int, item: Item, text: str) -> None:
        if not text:
            return
        letters = [answer.letter for answer in item.answers]
        said = frozenset(_BETWEEN.sub("", text).upper())
        if not said or said - set(letters):
            self._problem(
                line,
                f"item {item.number}, column best: {_quoted(text)}; valid are "
                f"{', '.join(letters)}, or several for a tie, as in {'='.join(letters[:2])}",
            )
        elif self.best.setdefault(item.number, said) != said:
            before = "=".join(sorted(self.best[item.number]))
            self._problem(
                line, f"item {item.number}, column best: {_quoted(text)} here, {before} above"
            )


def _quoted(text: str) -> str:
    return repr(clean(text)[:30])
