"""What two files share: pieces of 13 words, short rows whole, and rows almost alike.

After the decontamination of GPT-3 (Brown et al. 2020, appendix C): words without case and
punctuation, 13 in a row. A question shorter than that is compared whole. A piece that stands in
more than ten different texts of both files is wording that rows share (a fixed instruction), not
content: it is left out, and counted.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tunelm.data.check_text import excerpt
from tunelm.data.check_whole import INSTRUCTIONS
from tunelm.data.records import Record, turn_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Hashes = NDArray[np.uint64]

N = 13
COMMON = 10
"""A piece in more different texts than this, of both files, is shared wording."""
_MAX_PLACES = 16
"""Rows of the other file that are kept for one piece."""
_QUESTION = 4
"""Words a text of an unknown field has at least to be taken for a question."""
_WORD = re.compile(r"\w+")


class Document(NamedTuple):
    """A row to compare: pieces of its `texts`, and those of its `asked` that are short, whole."""

    source: str
    texts: tuple[str, ...]
    asked: tuple[str, ...] = ()


@dataclass(frozen=True)
class Overlap:
    """A row that shares something with rows of the other file.

    `others` are those rows, the one that shares most first; `more` counts further ones that are
    not named. `pieces` is the number of 13-word pieces shared with the first, 0 for a short row
    that is equal; `piece` is one of them as it stands in the other file, without secrets.
    """

    source: str
    others: tuple[str, ...]
    pieces: int
    piece: str
    more: int = 0


@dataclass
class Overlaps:
    """What was found; `common` counts the pieces left out as shared wording, with an example."""

    rows: list[Overlap] = field(default_factory=list[Overlap])
    common: int = 0
    common_piece: str = ""


def document(record: Record) -> Document:
    """A record as it is compared: all its texts but instructions, and what is asked."""
    if record.text is not None:
        return Document(record.source, (record.text,), (record.text,))
    turns = (*record.messages, *record.preferred, *record.rejected)
    said = [turn_text(t) for t in turns if t.get("role") not in INSTRUCTIONS]
    asked = record.messages if record.preferred or record.rejected else record.messages[:-1]
    question = " ".join(turn_text(t) for t in asked if t.get("role") not in INSTRUCTIONS)
    return Document(record.source, (*said, *strings(record.extra)), (question,))


def strings(value: Any) -> list[str]:
    """All texts in a nested value of lists and objects."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [s for v in value.values() for s in strings(v)]
    if isinstance(value, list | tuple):
        return [s for v in value for s in strings(v)]
    return []


def documents(
    path: Path, format: str | None = None, columns: Mapping[str, str] | None = None
) -> Iterator[tuple[Document, Record | None]]:
    """Every row of a file to compare, whatever its fields; and as a record, where it is one.

    A row that is no example is compared by all the texts in it. Rows that cannot be read at all
    are passed by; `scan` reports them. Raises DataError when the file cannot be read.
    """
    from tunelm.data.files import RawRow
    from tunelm.data.read import raw_rows
    from tunelm.data.shapes import ShapeError, to_record

    names = columns or {}
    for item in raw_rows(path, format):
        if not isinstance(item, RawRow):
            continue
        fields = dict(item.fields)
        fields |= {ours: fields.pop(theirs) for ours, theirs in names.items() if theirs in fields}
        try:
            record = to_record(fields, item.file, item.line)
            yield document(record), record
        except ShapeError:
            yield _loose(f"{item.file}:{item.line}", fields), None


def _loose(source: str, fields: Mapping[str, Any]) -> Document:
    """A row of unknown fields: a short text counts as a question if it is no name or label."""
    found = strings(fields)
    return Document(source, tuple(found), tuple(t for t in found if len(t.split()) >= _QUESTION))


def find_overlaps(ours: Iterable[Document], theirs: Iterable[Document]) -> Overlaps:
    """The rows of `ours` that share something with rows of `theirs`.

    Memory grows with `ours` (about 20 bytes a word) and with what is shared; `theirs` streams by.

    >>> a = [Document("a:1", (), ("What is the capital of Peru?",))]
    >>> b = [Document("b:9", (), ("what is the capital of peru",))]
    >>> find_overlaps(a, b).rows[0].others
    ('b:9',)
    """
    index = OverlapIndex()
    for one in ours:
        index.add(one)
    return index.compare(theirs)


class OverlapIndex:
    """Pieces of one file, to compare others with."""

    def __init__(self) -> None:
        self.hashes: list[Any] = []
        """Those of the pieces of each text, by the text's number."""
        self._texts: dict[int, int] = {}
        """Hash of a whole text -> its number: equal texts are indexed once."""
        self.owners: list[list[str]] = []
        """The rows in which each text stands, by the text's number."""
        self.order: dict[str, int] = {}
        """Where each row comes."""

    def add(self, doc: Document) -> None:
        """Index one row."""
        self.order.setdefault(doc.source, len(self.order))
        for hashes, _, _ in _pieces(doc):
            key = hash(hashes.tobytes())
            number = self._texts.setdefault(key, len(self.owners))
            if number == len(self.owners):
                self.owners.append([])
                self.hashes.append(hashes)
            if doc.source not in self.owners[number][-1:]:
                self.owners[number].append(doc.source)

    def compare(self, theirs: Iterable[Document]) -> Overlaps:
        """See `find_overlaps`."""
        if not self.hashes:  # nothing to share, so no need to read them
            return Overlaps()
        other = Comparison(self)
        for doc in theirs:
            other.look(doc)
        return other.found()


class Comparison:
    """What the rows of another file share with those of an index, which gets no more rows."""

    def __init__(self, index: OverlapIndex) -> None:
        import numpy as np

        self._index = index
        sizes = [len(h) for h in index.hashes]
        hashes: Hashes = np.concatenate([np.zeros(0, np.uint64), *index.hashes])
        order = np.argsort(hashes, kind="stable")
        self._texts = np.repeat(np.arange(len(sizes)), np.array(sizes, np.int64))[order]
        """Numbers of the texts that have a piece, piece by piece as in `_known`."""
        self._known, starts = np.unique(hashes[order], return_index=True)
        self._bounds = [*starts.tolist(), len(hashes)]
        """Where the texts of each piece begin; the last ones end."""
        self._hits: dict[int, _Hit] = {}
        """Place in `_known` -> where the piece stands in the other file."""
        self._seen: set[int] = set()
        """Hashes of the other file's texts that share something."""
        self._rows = 0
        """Of the other file."""

    def look(self, doc: Document) -> None:
        """Note what the next row of the other file shares."""
        import numpy as np

        self._rows += 1
        if not len(self._known):
            return
        mine: set[int] = set()
        for hashes, text, spans in _pieces(doc):
            at = np.minimum(np.searchsorted(self._known, hashes), len(self._known) - 1)
            positions = np.nonzero(self._known[at] == hashes)[0]
            if not len(positions):
                continue
            key = hash(hashes.tobytes())
            fresh = key not in self._seen
            self._seen.add(key)
            for position in positions.tolist():
                place = int(at[position])
                end = spans[min(position + N, len(spans)) - 1][1]
                hit = self._hits.get(place)
                if hit is None:
                    hit = self._hits[place] = _Hit(text[spans[position][0] : end])
                hit.texts += fresh
                if place not in mine:
                    mine.add(place)
                    hit.rows += 1
                    if len(hit.places) < _MAX_PLACES:
                        hit.places.append(doc.source)

    def found(self) -> Overlaps:
        """The rows of the index that share something."""
        index = self._index
        result = Overlaps()
        found: dict[str, _Shared] = defaultdict(_Shared)
        for place, hit in self._hits.items():
            here = set(self._texts[self._bounds[place] : self._bounds[place + 1]].tolist())
            sources = {s for number in here for s in index.owners[number]}
            if _is_common(len(here), len(sources), len(index.order)) and _is_common(
                hit.texts, hit.rows, self._rows
            ):
                result.common += 1
                result.common_piece = result.common_piece or excerpt(hit.piece, 120)
                continue
            for source in sources:
                found[source].add(hit)
        for source in sorted(found, key=index.order.__getitem__):
            result.rows.append(found[source].overlap(source))
        return result


class _Shared:
    """What one of our rows shares, piece by piece."""

    def __init__(self) -> None:
        self._others: dict[str, int] = defaultdict(int)
        self._piece: dict[str, str] = {}
        self._unnamed = 0

    def add(self, hit: _Hit) -> None:
        self._unnamed = max(self._unnamed, hit.rows - len(hit.places))
        for other in hit.places:
            self._others[other] += 1
            self._piece.setdefault(other, hit.piece)

    def overlap(self, source: str) -> Overlap:
        others = sorted(self._others, key=lambda o: -self._others[o])
        piece = self._piece[others[0]]
        pieces = 0 if len(_WORD.findall(piece)) < N else self._others[others[0]]
        return Overlap(source, tuple(others), pieces, excerpt(piece, 120), self._unnamed)


def _is_common(texts: int, rows: int, all_rows: int) -> bool:
    """Whether a piece in so many different texts and rows of a file is shared wording."""
    return texts > COMMON or rows > max(COMMON, all_rows / 2)


@dataclass(slots=True)
class _Hit:
    """One piece found in the other file."""

    piece: str
    texts: int = 0
    rows: int = 0
    places: list[str] = field(default_factory=list[str])


def _pieces(doc: Document) -> Iterator[tuple[Hashes, str, list[tuple[int, int]]]]:
    """For each text, the hashes of 13 words from each of its words on; the text; its words."""
    import numpy as np

    multiplier = np.uint64(0x9E3779B97F4A7C15)
    for text, whole in [(t, i >= len(doc.texts)) for i, t in enumerate((*doc.texts, *doc.asked))]:
        spans = [match.span() for match in _WORD.finditer(text)]
        if not spans or whole != (len(spans) < N):
            continue
        # Python's hash of a text has 64 bits, keyed anew in each process: good for this one.
        # Folded word by word: folding can change how many words there are.
        words = [text[a:b].casefold() for a, b in spans]
        values = np.fromiter(map(hash, words), np.int64, len(words)).view(np.uint64)
        width = min(N, len(words))
        hashes = np.full(len(words) - width + 1, width, dtype=np.uint64)
        for offset in range(width):
            hashes = hashes * multiplier + values[offset : len(values) - width + 1 + offset]
        yield hashes, text, spans
