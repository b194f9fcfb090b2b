"""A corpus becomes passages: short texts that can be found and put before a question.

A corpus is a document (text, Markdown, HTML, PDF), a folder of them, or rows (JSONL, CSV, ...)
with `text` and, if there are any, `id` and `title`. A passage is a paragraph, or as much of one
as fits. Two kinds of text are treated otherwise: a paragraph each of whose lines is a sentence is
a list of statements, and every line is a passage; and what stands in a Markdown fence is kept
together. Nothing is dropped but white space and exact duplicates.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunelm.data.files import RawRow
from tunelm.data.read import raw_rows
from tunelm.errors import DataError
from tunelm.rundir import write_text
from tunelm.types import content_hash

MARKDOWN = (".md", ".markdown", ".md.gz", ".markdown.gz")
_HEADING = re.compile(r"(#{1,6})\s+(.*?)\s*#*\s*$")
_FENCE = re.compile(r"\s*(```|~~~)")
_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*\s+|[。！？।][」』”’）]*\s*")
_ENDS = re.compile(r"[.!?…。！？।][\"'”’)\]]*$")


@dataclass(frozen=True, slots=True)
class Passage:
    """One text that can be found.

    Attributes:
        id: hash of title and text: the same in every corpus that holds them.
        text: what is shown.
        source: file and line where it begins, as `book.md:12`.
        title: the headings above it, or its row's title; empty where there is none.
        key: the `id` that its row has in the corpus; empty where there is none.
    """

    id: str
    text: str
    source: str
    title: str = ""
    key: str = ""

    @property
    def searched(self) -> str:
        """What is searched: the title with the text."""
        return f"{self.title}\n{self.text}" if self.title else self.text


@dataclass(frozen=True, slots=True)
class Corpus:
    """What was read.

    Attributes:
        passages: in order.
        duplicates: how many were left out since the same text had come before.
        left_out: of a folder, the files that are no documents, a line each.
    """

    passages: tuple[Passage, ...]
    duplicates: int
    left_out: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        """Of all passages, in order."""
        return passages_hash(self.passages)


def passages_hash(passages: Sequence[Passage]) -> str:
    """Of these passages, in order."""
    return content_hash([dataclasses.asdict(passage) for passage in passages])


def read_corpus(path: Path, most_words: int, overlap: int) -> Corpus:
    """The passages of a file or folder, in its order.

    Args:
        path: what to read; see the module.
        most_words: of a passage. A text in a script without spaces counts two characters a word.
        overlap: words at the end of a passage that the next one of its paragraph repeats, as
            whole sentences where there are short enough ones; less than `most_words`.

    Raises:
        DataError: it cannot be read, a row has no `text`, or there is nothing in it.
    """
    overlap = min(overlap, most_words // 2)
    found: dict[tuple[str, str], Passage] = {}
    problems: list[str] = []
    left_out: list[str] = []
    count = 0
    for item in raw_rows(path):
        if not isinstance(item, RawRow):
            (problems if item.level == "error" else left_out).append(str(item))
            continue
        try:
            passages = list(_of_row(path, item, most_words, overlap))
        except ValueError as error:
            problems.append(f"{item.file}:{item.line}: {error}")
            continue
        count += len(passages)
        for passage in passages:
            found.setdefault((passage.title, passage.text), passage)
    if problems:
        raise DataError(problems)
    if not found:
        raise DataError(
            f"{path}: the corpus holds no text. Give data.corpus a document, a folder of "
            "documents, or rows with a field 'text'."
        )
    return Corpus(tuple(found.values()), count - len(found), tuple(left_out))


def write_passages(path: Path, passages: Sequence[Passage]) -> None:
    """Write passages as JSONL, whole or not at all."""
    rows = (json.dumps(dataclasses.asdict(p), ensure_ascii=False) + "\n" for p in passages)
    write_text(path, "".join(rows))


def read_passages(path: Path) -> tuple[Passage, ...]:
    """What `write_passages` wrote."""
    with path.open(encoding="utf-8", newline="\n") as file:  # texts may hold U+2028
        return tuple(Passage(**json.loads(line)) for line in file)


@dataclass(frozen=True, slots=True)
class _Block:
    """A paragraph: its lines, the number of the first, and the headings above it."""

    lines: tuple[str, ...]
    line: int
    title: str
    whole: bool = False


def _of_row(path: Path, row: RawRow, most: int, overlap: int) -> Iterator[Passage]:
    document = set(row.fields) == {"text"}
    text, title, key = (_field(row.fields, name) for name in ("text", "title", "id"))
    if not text.strip() and not document:
        raise ValueError(f"a row of a corpus has 'text'; this one has {', '.join(row.fields)}.")
    name = Path(row.file).relative_to(path).as_posix() if path.is_dir() else Path(row.file).name
    markdown = row.file.lower().endswith(MARKDOWN)
    for block in _blocks(text, row.line, title, markdown):
        for line, part in _parts(block, most, overlap):
            identity = content_hash([block.title, part])
            yield Passage(identity, part, f"{name}:{line}", block.title, key)


def _field(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str | int):
        raise ValueError(f"{name!r} is a {type(value).__name__}; a text is expected.")
    return str(value)


def _blocks(text: str, start: int, title: str, markdown: bool) -> Iterator[_Block]:
    """The paragraphs, parted by blank lines, and by headings in Markdown."""
    headings: list[tuple[int, str]] = [(0, title)] if title else []
    lines: list[str] = []
    fence = ""

    def block(end: int, whole: bool = False) -> Iterator[_Block]:
        if any(line.strip() for line in lines):
            above = " > ".join(name for _, name in headings)
            yield _Block(tuple(lines), end - len(lines), above, whole)
        lines.clear()

    number = start
    for number, line in enumerate(text.split("\n"), start):
        if fence:
            lines.append(line)
            if line.strip().startswith(fence):
                fence = ""
                yield from block(number + 1, whole=True)
        elif markdown and (found := _FENCE.match(line)):
            yield from block(number)
            fence = found[1]
            lines.append(line)
        elif markdown and (found := _HEADING.match(line)):
            yield from block(number)
            level = len(found[1])
            headings = [(n, name) for n, name in headings if n < level]
            headings.append((level, found[2]))
        elif line.strip():
            lines.append(line)
        else:
            yield from block(number)
    yield from block(number + 1, whole=bool(fence))


def _parts(block: _Block, most: int, overlap: int) -> Iterator[tuple[int, str]]:
    """(number of a line, passage); the line is the paragraph's first but in a list."""
    lines = [line.strip() for line in block.lines]
    if block.whole:
        pieces = [f"{line}\n" for line in block.lines]
        yield from ((block.line, part.strip("\n")) for part in _pack(pieces, most, 0))
    elif len(lines) > 1 and all(_ENDS.search(line) for line in lines):
        for number, line in enumerate(lines, block.line):
            yield from ((number, part) for part in _pack(_sentences(line), most, overlap))
    elif _size(" ".join(lines)) <= most:
        yield block.line, "\n".join(lines)
    else:
        parts = _pack(_sentences(" ".join(lines)), most, overlap)
        yield from ((block.line, part) for part in parts)


def _sentences(text: str) -> list[str]:
    """The sentences, each with the white space behind it."""
    ends = [0, *(found.end() for found in _SENTENCE_END.finditer(text)), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(ends) if a < b]


def _pack(pieces: Sequence[str], most: int, overlap: int) -> Iterator[str]:
    """Pieces put together, as many as fit; one that is too long alone is cut."""
    held: list[str] = []
    for piece in (part for long in pieces for part in _cut(long, most)):
        if held and _size("".join([*held, piece])) > most:
            yield "".join(held).strip(" ")
            held = _tail(held, min(overlap, most - _size(piece)))
        held.append(piece)
    if "".join(held).strip():
        yield "".join(held).strip(" ")


def _tail(held: Sequence[str], most: int) -> list[str]:
    """The last pieces, as many as have at most `most` words together."""
    kept: list[str] = []
    for piece in reversed(held):
        if _size("".join([piece, *kept])) > most:
            break
        kept.insert(0, piece)
    return kept


def _cut(text: str, most: int) -> list[str]:
    """A text of more than `most` words in pieces of at most that many."""
    if _size(text) <= most:
        return [text]
    pieces = [""]
    for word in re.findall(r"\S+\s*|\s+", text):
        for part in (word[i : i + 2 * most] for i in range(0, len(word), 2 * most)):
            if pieces[-1] and _size(pieces[-1] + part) > most:
                pieces.append("")
            pieces[-1] += part
    return pieces


def _size(text: str) -> int:
    """Words of a text; of one in a script without spaces, half its characters.

    The two meet at a word of 40 letters, which is longer than words are: base64 and long
    addresses count by their characters as well.
    """
    return sum(1 if len(word) <= 40 and word.isascii() else _long(word) for word in text.split())


def _long(word: str) -> int:
    unspaced = sum(c >= "\u0e00" for c in word)
    return max(1, -(-unspaced // 2), -(-len(word) // 40))
