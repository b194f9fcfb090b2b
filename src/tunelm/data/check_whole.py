"""Checks that need the whole file: repeated rows, contradictions, balance, rows almost alike.

Rows pass by once; of each a few hashes are kept (about 0.7 KB a row, shingles on disk).
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tunelm.data.check_codes import fault, file_fault, shown_from
from tunelm.data.check_rows import fold
from tunelm.data.check_text import excerpt
from tunelm.data.records import Fault, Record, turn_text
from tunelm.errors import PrerequisiteError
from tunelm.types import content_hash

INSTRUCTIONS = ("system", "developer")
"""Turns that are alike in every row by design: they make no two rows alike."""
MOST_LABELS = 50
"""With more different answers than this, answers are no labels."""
ROWS_A_LABEL = 5
"""Labels recur: fewer rows than this for each different answer, and answers are no labels."""
LABEL_WORDS = 5
IMBALANCE = 10
"""How many times as frequent as the rarest label the most frequent one may be."""


class WholeFile:
    """Takes rows one by one; says at once what is wrong with a row beside the earlier ones."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._ids: dict[str, str] = {}
        """Of each row, where it stands first."""
        self._questions: dict[str, tuple[str, str]] = {}
        """Of each question, where it stands first, and a hash of its answer there."""
        self._answers = _Labels()
        self._labels = _Labels()

    def add(self, record: Record) -> Fault | None:
        """One more row; its fault beside the rows before it, the plainest where there are two."""
        self._labels.add(record.extra.get("label"))
        question, answer = exchange(record)
        if answer:
            self._answers.add(answer)
        first = self._ids.setdefault(self._id(record), record.source)
        if first != record.source:
            code = "duplicate" if record.text is None else "duplicate-text"
            return fault(code, record, f"the same row as {shown_from(record.file, first)}")
        if question:
            said = content_hash(answer)
            seen = self._questions.setdefault(content_hash(question), (record.source, said))
            if seen[1] != said:
                asked = excerpt(next(filter(None, question.split("\n")), ""))
                found = f"another answer than {shown_from(record.file, seen[0])} to {asked!r}"
                return fault("conflict", record, found)
        return None

    def _id(self, record: Record) -> str:
        label = record.extra.get("label")
        return row_id(record) + ("" if label is None else content_hash(ascii(label)))

    def finish(self) -> Iterator[Fault]:
        """What shows only at the end: balance of labels, or of answers where there are none."""
        if self._answers.total >= ROWS_A_LABEL and len(self._answers.counts) == 1:
            (only,) = self._answers.counts
            found = f"all {self._answers.total} answers are {excerpt(only)!r}."
            yield file_fault("identical-answers", self.file, found)
            return
        labels, what = (self._labels, "label") if self._labels.counts else (self._answers, "answer")
        if found := labels.imbalance(what):
            yield file_fault("label-imbalance", self.file, found)

    def shared(self, record: Record) -> str:
        """Where a row of another file stands in this one, and how; "" where it does not."""
        if source := self._ids.get(self._id(record)):
            return f"the same row as {source}"
        question, _ = exchange(record)
        if question and (seen := self._questions.get(content_hash(question))):
            return f"the same question as {seen[0]}"
        return ""


class _Labels:
    """Counts of short texts that recur; gives up where they turn out to be no labels."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.total = 0
        self._off = False

    def add(self, label: Any) -> None:
        if label is None or self._off:
            return
        text = str(label)
        self.total += 1
        self.counts[text if len(text) <= 200 else content_hash(text)] += 1
        if len(self.counts) > 4 * MOST_LABELS:
            self._off = True
            self.counts.clear()

    def imbalance(self, what: str) -> str:
        """What to say about it, or ""."""
        few = 2 <= len(self.counts) <= MOST_LABELS
        if not few or self.total < ROWS_A_LABEL * len(self.counts):
            return ""
        if what == "answer" and any(len(label.split()) > LABEL_WORDS for label in self.counts):
            return ""
        (top, most), *_, (rare, least) = self.counts.most_common()
        if most <= IMBALANCE * least:
            return ""
        return f"{what} {excerpt(top)!r} stands in {most} rows, {excerpt(rare)!r} in {least}."


class Place(NamedTuple):
    """Where a row stands."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Alike:
    """Rows of several files that are almost the same. Part 0 is the file being checked.

    Raises PrerequisiteError when the library is missing.
    """

    def __init__(self) -> None:
        from tunelm.data.near import NearRows

        self._near = NearRows()
        self._files: dict[str, int] = {}
        self._parts = array("l")
        self._rows = array("l")
        """Of each row, the number of its file and its line."""

    def __enter__(self) -> Alike:
        return self

    def __exit__(self, *exc: object) -> None:
        self._near.close()

    def add(self, part: int, record: Record) -> None:
        """One more row; those of part 0 first."""
        self._near.add(plain(record))
        self._parts.append(part)
        self._rows.extend((self._files.setdefault(record.file, len(self._files)), record.line))

    def groups(self) -> list[Mapping[int, list[Place]]]:
        """For each group of rows alike, directly or through others: part -> its rows in order."""
        parent: dict[int, int] = {}

        def root(row: int) -> int:
            while parent.setdefault(row, row) != row:
                parent[row] = row = parent[parent[row]]
            return row

        for row, earlier, _ in self._near.matches(drop=False):
            one, two = sorted((root(row), root(earlier)))
            parent[two] = one
        files = list(self._files)
        groups: dict[int, dict[int, list[Place]]] = defaultdict(lambda: defaultdict(list))
        for row in sorted(parent):
            place = Place(files[self._rows[2 * row]], self._rows[2 * row + 1])
            groups[root(row)][self._parts[row]].append(place)
        return list(groups.values())


def alike_or_reason() -> tuple[Alike | None, str]:
    """(what finds rows almost the same, ""), or (None, why it cannot)."""
    try:
        return Alike(), ""
    except PrerequisiteError as error:
        return None, f"near-duplicates: {error}"


def exchange(record: Record) -> tuple[str, str]:
    """(question, answer) folded: all that stands before the last answer, and that answer.

    A labelled text is a question, and its label the answer. Both are "" where the row has none:
    other running text, a preference pair, a conversation without an answer.
    """
    if record.text is not None:
        label = record.extra.get("label")
        return ("", "") if label is None else (fold(record.text), fold(str(label)))
    if record.preferred or record.rejected or not record.messages:
        return "", ""
    *before, last = record.messages
    if last.get("role") != "assistant" or not turn_text(last).strip():
        return "", ""
    context = record.extra.get("context")
    asked = [fold(turn_text(turn)) for turn in before if turn.get("role") not in INSTRUCTIONS]
    said = [fold(context)] if isinstance(context, str) else []
    return "\n".join([*asked, *said]).strip(), fold(turn_text(last))


def row_id(record: Record) -> str:
    """`Record.id`, also where a value cannot be written as JSON or UTF-8."""
    try:
        return record.id
    except (UnicodeEncodeError, TypeError, ValueError, RecursionError):
        parts = (record.messages, record.text, record.preferred, record.rejected, record.tools)
        return content_hash(ascii((*parts, record.extra.get("context"))))


def plain(record: Record) -> str:
    """All text of a row, instructions left out, as something that can be encoded."""
    if record.text is not None:
        text = record.text
    else:
        turns = (*record.messages, *record.preferred, *record.rejected)
        text = "\n".join(turn_text(turn) for turn in turns if turn.get("role") not in INSTRUCTIONS)
    return text.encode("utf-8", "replace").decode("utf-8")
