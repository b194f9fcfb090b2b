"""First pass of `tunelm data prepare`: what is kept of each row, and what becomes of it.

A row leaves some sixty bytes in arrays: hashes of its content, its group and its question, its
label's number, its place. Its words lie in temporary files (`NearRows`). No text stays in memory.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelm.data.clean import Boilerplate, clean_record, text_and_calls
from tunelm.data.near import NearRows
from tunelm.data.records import Fault, Record, Turn
from tunelm.data.shingles import Hashes, word_hashes
from tunelm.data.split import NEAR_WORDS
from tunelm.data.unshape import preferred_only
from tunelm.errors import DataError
from tunelm.types import content_hash

KEPT, DUPLICATE, NEAR, DROPPED, BROKEN = range(5)
STATUS = ("kept", "duplicate", "near-duplicate", "dropped", "broken")
MOST_PROBLEMS = 100
NOTHING_LEFT = "nothing is left of it after cleaning"

RESULT_WORDS = 12
"""A last sentence of no more words may state the result."""

_NO_WORDS: Hashes = np.zeros(0, np.uint32)
_SENTENCE = re.compile(r"(?<=[.!?\u3002\uff01\uff1f])\s+|\n+")
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Cleaned:
    """A row in order, what was changed, and the row before boilerplate was taken out."""

    record: Record
    changes: tuple[str, ...]
    whole: Record


class Cleaner:
    """Puts rows in order; the same row always comes out the same.

    With `single_answer` a preference pair becomes the conversation with its preferred answer.
    """

    def __init__(self, boilerplate: Boilerplate, single_answer: bool = False) -> None:
        self.boilerplate = boilerplate
        self._single_answer = single_answer

    def clean(self, record: Record) -> Cleaned:
        """The row in order."""
        after, changes = clean_record(record)
        if self._single_answer and (after.preferred or after.rejected):
            after = preferred_only(after)
            changes = (*changes, "rejected answer left out")
        whole = after
        if after.text is not None and "\n" in after.text:
            text, lines = self.boilerplate.strip(after.text)
            if lines:
                after = dataclasses.replace(after, text=text)
                changes = (*changes, f"{lines} boilerplate line{'s' * (lines > 1)}")
        return Cleaned(after, changes, whole)


@dataclass
class Survey:
    """What is known of all rows, in the order of the input, after the first pass."""

    labels: list[str] = field(default_factory=list[str])
    files: list[str] = field(default_factory=list[str])
    warnings: list[str] = field(default_factory=list[str])
    texts: int = 0
    """Rows of running text."""
    ids: Any = field(default_factory=lambda: array("Q"))
    groups: Any = field(default_factory=lambda: array("Q"))
    """Hash of the group each row belongs to: its own content where it belongs to none."""
    questions: Any = field(default_factory=lambda: array("Q"))
    label: Any = field(default_factory=lambda: array("i"))
    """Place in `labels`; -1 none."""
    status: Any = field(default_factory=lambda: array("B"))
    changed: Any = field(default_factory=lambda: array("B"))
    file: Any = field(default_factory=lambda: array("i"))
    line: Any = field(default_factory=lambda: array("q"))
    of: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    """The row that a duplicate repeats; -1 none."""
    similarity: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    alike: NDArray[np.int32] = field(default_factory=lambda: np.zeros((0, 2), np.int32))
    """Pairs of kept rows that are alike and must stand on one side."""

    def __len__(self) -> int:
        return len(self.ids)

    def source(self, row: int) -> str:
        """FILE:LINE of a row."""
        return f"{self.files[self.file[row]]}:{self.line[row]}"

    def settle(self) -> None:
        """Turn the lists that grew into arrays."""
        for name in ("ids", "groups", "questions", "label", "status", "changed", "file", "line"):
            values = getattr(self, name)
            setattr(self, name, np.frombuffer(values, values.typecode).copy())
        self.of = np.full(len(self), -1, np.int32)
        self.similarity = np.zeros(len(self), np.float32)


@dataclass(frozen=True)
class Wanted:
    """What decides about rows: fields that hold label and group, and how alike is too alike."""

    label: str | None
    group: str | None
    near: float
    keep_near: bool
    skip_broken: bool


class Surveyor:
    """Takes all rows once; `finish` says what became of them."""

    def __init__(self, wanted: Wanted, cleaner: Cleaner, folder: Path) -> None:
        self._wanted = wanted
        self._cleaner = cleaner
        self.survey = Survey()
        self._seen: set[int] = set()
        self._labels: dict[str, int] = {}
        self._files: dict[str, int] = {}
        self._fields: dict[str, None] = {}
        self._found = {"label": False, "group": False}
        self._problems: list[str] = []
        self._whole = NearRows(wanted.near, folder)
        self._questions = NearRows(wanted.near, folder)

    def __enter__(self) -> Surveyor:
        return self

    def __exit__(self, *exc: object) -> None:
        self._whole.close()
        self._questions.close()

    def add(self, item: Record | Fault) -> None:
        """One row, or what is wrong with one. Raises DataError at the hundredth broken one."""
        if isinstance(item, Record):
            self._record(item)
        elif item.code == "column-not-found":  # of the call, not of a row
            raise DataError(str(item))
        elif item.level == "warning":
            if len(self.survey.warnings) < MOST_PROBLEMS:
                self.survey.warnings.append(str(item))
        else:
            self._broken(item)

    def finish(self) -> Survey:
        """What became of every row. Raises DataError when rows are broken, or there are none."""
        survey = self.survey
        if self._problems:
            raise DataError([*self._problems, _MEND])
        survey.settle()
        if not np.any(survey.status == KEPT):
            raise DataError("there is no row to prepare: the input holds none, or none is whole.")
        for option, given in (("label", self._wanted.label), ("group", self._wanted.group)):
            if given and not self._found[option]:
                known = ", ".join(self._fields) or "none beside the text"
                raise DataError(f"--{option} {given}: no row has that field. Fields: {known}.")
        survey.labels = list(self._labels)
        self._duplicates()
        self._near()
        return survey

    def _record(self, record: Record) -> None:
        cleaned = self._cleaner.clean(record)
        record, wanted, survey = cleaned.record, self._wanted, self.survey
        if len(self._fields) < MOST_PROBLEMS:
            self._fields |= dict.fromkeys(record.extra)
        label, group = label_of(record, wanted.label), record.extra.get(wanted.group or "group")
        self._found["label"] |= label is not None
        self._found["group"] |= group is not None
        identity = row_id(record, label)
        status = KEPT
        if not has_content(record):
            status = DROPPED
        elif identity in self._seen:
            status = DUPLICATE
        else:
            self._seen.add(identity)
        # by its content before boilerplate was taken out, which depends on the other documents
        name = cleaned.whole.id if group is None else _name(group)
        said = _Said(record) if status == KEPT else None
        survey.texts += record.text is not None
        survey.ids.append(identity)
        survey.groups.append(_hash(name.encode("utf-8", "replace")))
        survey.questions.append(_hash(said.question.tobytes()) if said else 0)
        survey.label.append(-1 if label is None else self._number(self._labels, label))
        survey.status.append(status)
        survey.changed.append(bool(cleaned.changes))
        survey.file.append(self._number(self._files, record.file))
        survey.line.append(record.line)
        if said is None:
            self._add_none()
            return
        if wanted.keep_near:
            self._whole.add(said.whole)
        else:
            self._whole.add(said.whole, *said.parts(label))
        # a text is held against others as a whole already, unless its label keeps it
        again = record.text is None or (label is not None and not wanted.keep_near)
        long = again and said.question.size >= NEAR_WORDS
        self._questions.add(said.question if long else "")

    def _broken(self, fault: Fault) -> None:
        if not self._wanted.skip_broken:
            self._problems.append(str(fault))
            if len(self._problems) >= MOST_PROBLEMS:
                raise DataError([*self._problems, _MEND])
        survey = self.survey
        for values in (survey.ids, survey.groups, survey.questions, survey.changed):
            values.append(0)
        survey.label.append(-1)
        survey.status.append(BROKEN)
        survey.file.append(self._number(self._files, fault.file))
        survey.line.append(fault.line)
        self._add_none()

    def _add_none(self) -> None:
        self._whole.add("")
        self._questions.add("")

    def _number(self, numbers: dict[str, int], name: str) -> int:
        number = numbers.setdefault(name, len(numbers))
        if number == len(self.survey.files) and numbers is self._files:
            self.survey.files.append(name)
        return number

    def _duplicates(self) -> None:
        survey = self.survey
        rows = np.flatnonzero((survey.status == KEPT) | (survey.status == DUPLICATE))
        _, first, place = np.unique(survey.ids[rows], return_index=True, return_inverse=True)
        again = survey.status[rows] == DUPLICATE
        survey.of[rows[again]] = rows[first[place[again]]]

    def _near(self) -> None:
        survey = self.survey
        pairs = array("i")
        for row, other, similarity in self._whole.matches(drop=not self._wanted.keep_near):
            if self._wanted.keep_near:
                pairs.extend((row, other))
                continue
            survey.status[row] = NEAR
            survey.of[row] = other
            survey.similarity[row] = similarity
        self._whole.close()
        for row, other, _ in self._questions.matches(drop=False, left_out=survey.status != KEPT):
            pairs.extend((row, other))
        self._questions.close()
        survey.alike = np.frombuffer(pairs, np.int32).reshape(-1, 2).copy()


_MEND = "Mend these rows, or go on without them: --skip-broken (each gets a line in rows.jsonl)."


def label_of(record: Record, named: str | None) -> str | None:
    """The row's label: the field `named`, else `label`; `answer` may name the gold answer."""
    value = record.extra.get(named or "label")
    if value is None and named == "answer" and record.messages:
        value = text_and_calls(record.messages[-1])
    return None if value is None else _name(value)


def row_id(record: Record, label: str | None) -> int:
    """64 bits: equal rows have equal ids; a text with another label is another row."""
    own = record.id
    return int(own if label is None else content_hash([own, label]), 16)


def has_content(record: Record) -> bool:
    """Whether every turn still says something, the answers above all."""
    if record.text is not None:
        return bool(record.text.strip())
    turns = (*record.messages, *record.preferred, *record.rejected)
    return bool(turns) and all(text_and_calls(turn).strip() for turn in turns if _is_said(turn))


class _Said:
    """What a row says, as hashes of its words, without the system prompt that many rows share."""

    def __init__(self, record: Record) -> None:
        self._record = record
        context = record.extra.get("context")
        self._context = word_hashes(context) if isinstance(context, str) else _NO_WORDS
        if record.text is not None:
            self._answers: tuple[Hashes, ...] = ()
            self.question = self.whole = np.concatenate((self._context, word_hashes(record.text)))
            return
        turns, answers = _asked_and_answered(record)
        asked = [self._context, *(word_hashes(text_and_calls(turn)) for turn in turns)]
        self._answers = tuple(word_hashes(text_and_calls(turn)) for turn in answers)
        self.question = np.concatenate(asked)
        """All before the last answer; of running text, the text."""
        self.whole = np.concatenate((*asked, *self._answers))

    def parts(self, label: str | None) -> tuple[str, tuple[str | Hashes, ...]]:
        """What near-duplicates must have in common besides: see `NearRows.add`."""
        record = self._record
        if record.text is not None:
            return label or "", ()
        turns, answers = _asked_and_answered(record)
        asked = next((text_and_calls(t) for t in reversed(turns) if _role(t) == "user"), "")
        results = [_result(text_and_calls(turn)) for turn in answers]
        same = f"{len(turns)} {results} {label or ''}"
        first = _SENTENCE.split(asked[:1000].strip(), maxsplit=1)[0]
        last = _SENTENCE.split(asked[-1000:].strip())[-1]
        return same, (first, last, self._context, *self._answers)


def _result(answer: str) -> list[str]:
    """The number that a short last sentence ends on: "#### 72", "The answer is 8."."""
    last = _SENTENCE.split(answer[-1000:].strip())[-1]
    return _NUMBER.findall(last)[-1:] if len(last.split()) <= RESULT_WORDS else []


def _asked_and_answered(record: Record) -> tuple[list[Turn], list[Turn]]:
    """The turns before the last answer, and that answer, or the two of a pair."""
    turns = [turn for turn in record.messages if _role(turn) not in ("system", "developer")]
    if record.preferred or record.rejected:
        return turns, [*record.preferred, *record.rejected]
    if turns and _role(turns[-1]) == "assistant":
        return turns[:-1], turns[-1:]
    return turns, []


def _role(turn: Turn) -> str:
    return str(turn.get("role", ""))


def _is_said(turn: Turn) -> bool:
    return _role(turn) in ("user", "assistant")


def _name(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") if data else 0


def items_with_rows(items: Iterable[Record | Fault]) -> Iterator[Record | Fault]:
    """The items that are rows: warnings about a file are none."""
    return (i for i in items if isinstance(i, Record) or i.level == "error")
