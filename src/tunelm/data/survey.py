"""First pass of `tunelm data prepare`: what is kept of each row, and what becomes of it.

A row leaves some sixty bytes in arrays: hashes of its content, its group and its question, its
label's number, its place. Its words lie in temporary files (`NearRows`). No text stays in memory.
Several processes may look, each at chunks of its own; what they find is then merged.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelm.data.clean import Boilerplate, clean_record, text_and_calls
from tunelm.data.near import NearRows, Sketcher, Sketches
from tunelm.data.processes import Progress
from tunelm.data.records import Fault, Record, Turn
from tunelm.data.shingles import Hashes, word_hashes
from tunelm.data.split import NEAR_WORDS
from tunelm.data.unshape import preferred_only
from tunelm.errors import DataError
from tunelm.types import content_hash

KEPT, DUPLICATE, NEAR, DROPPED, BROKEN = range(5)
STATUS = ("kept", "duplicate", "near-duplicate", "dropped", "broken")
MOST_PROBLEMS = 100
EVERY = 10_000
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


_COLUMNS = ("ids", "groups", "questions", "label", "status", "changed", "file", "line")
CHUNK = 1 << 13
"""Rows that one process looks at in one go."""


@dataclass(frozen=True)
class Wanted:
    """What decides about rows: fields that hold label and group, and how alike is too alike."""

    label: str | None
    group: str | None
    near: float
    keep_near: bool
    skip_broken: bool


@dataclass
class _Chunk:
    """`CHUNK` rows, or fewer at the end; in a file until `merge`."""

    survey: Survey
    labels: dict[str, int] = field(default_factory=dict[str, int])
    files: dict[str, int] = field(default_factory=dict[str, int])
    fields: dict[str, None] = field(default_factory=dict[str, None])
    problems: list[str] = field(default_factory=list[str])
    whole: Sketches | None = None
    questions: Sketches | None = None


@dataclass(frozen=True)
class Looking:
    """What the first pass needs: the items of the input, how they are looked at, and where to."""

    items: Callable[[], Iterable[Record | Fault]]
    wanted: Wanted
    cleaner: Cleaner
    folder: Path
    processes: int


def look(task: Looking, share: int, progress: Progress) -> tuple[int, bool, bool]:
    """Look at this process's chunks of the input, and leave each in a file.

    Returns:
        How many rows there are in all; whether one of this share had a label, and a group.

    Raises:
        DataError: the input cannot be read, or a hundred rows of this share are broken.
    """
    surveyor = _Surveyor(task)
    rows = 0
    for item in task.items():
        if isinstance(item, Fault) and item.code == "column-not-found":  # of the call, not of a row
            raise DataError(str(item))
        chunk = rows // CHUNK
        if chunk % task.processes == share:
            surveyor.add(item, chunk)
        if isinstance(item, Record) or item.level == "error":
            rows += 1
            if rows % EVERY == 0:
                progress("reading", rows, rows)
    surveyor.store()
    return rows, surveyor.found["label"], surveyor.found["group"]


class _Surveyor:
    """What is kept of rows, chunk by chunk."""

    def __init__(self, task: Looking) -> None:
        self._wanted, self._cleaner, self._folder = task.wanted, task.cleaner, task.folder
        self.found = {"label": False, "group": False}
        self._broken_rows = 0
        self._number = -1
        self._chunk = _Chunk(Survey())
        self._whole, self._questions = Sketcher(), Sketcher()

    def add(self, item: Record | Fault, chunk: int) -> None:
        """One more item of this chunk; items come in order."""
        if chunk != self._number:
            self.store()
            self._number = chunk
        if isinstance(item, Record):
            self._record(item)
        elif item.level == "warning":
            if len(self._chunk.survey.warnings) < MOST_PROBLEMS:
                self._chunk.survey.warnings.append(str(item))
        else:
            self._broken(item)

    def store(self) -> None:
        """Put the chunk into its file, if there is one."""
        if self._number < 0:
            return
        chunk = self._chunk
        for name in _COLUMNS:
            values = getattr(chunk.survey, name)
            setattr(chunk.survey, name, np.frombuffer(values, values.typecode))
        chunk.whole, chunk.questions = self._whole.take(), self._questions.take()
        with _chunk_file(self._folder, self._number).open("wb") as file:
            pickle.dump(chunk, file, pickle.HIGHEST_PROTOCOL)
        self._chunk = _Chunk(Survey())

    def _record(self, record: Record) -> None:
        cleaned = self._cleaner.clean(record)
        record, wanted, chunk = cleaned.record, self._wanted, self._chunk
        survey = chunk.survey
        if len(chunk.fields) < MOST_PROBLEMS:
            chunk.fields |= dict.fromkeys(record.extra)
        label, group = label_of(record, wanted.label), record.extra.get(wanted.group or "group")
        self.found["label"] |= label is not None
        self.found["group"] |= group is not None
        status = KEPT if has_content(record) else DROPPED
        # by its content before boilerplate was taken out, which depends on the other documents
        own = record.id
        whole = own if cleaned.whole is record else cleaned.whole.id
        name = whole if group is None else _name(group)
        said = _Said(record) if status == KEPT else None
        survey.texts += record.text is not None
        survey.ids.append(_number_of(own, label))
        survey.groups.append(_hash(name.encode("utf-8", "replace")))
        survey.questions.append(_hash(said.question.tobytes()) if said else 0)
        survey.label.append(-1 if label is None else _numbered(chunk.labels, label))
        survey.status.append(status)
        survey.changed.append(bool(cleaned.changes))
        survey.file.append(_numbered(chunk.files, record.file))
        survey.line.append(record.line)
        if said is None:
            self._sketch_none()
            return
        parts = ("", ()) if wanted.keep_near else said.parts(label)
        self._whole.add(said.whole, *parts)
        # a text is held against others as a whole already, unless its label keeps it
        again = record.text is None or (label is not None and not wanted.keep_near)
        long = again and said.question.size >= NEAR_WORDS
        self._questions.add(said.question if long else _NO_WORDS, "", ())

    def _broken(self, fault: Fault) -> None:
        chunk = self._chunk
        if not self._wanted.skip_broken:
            chunk.problems.append(str(fault))
            self._broken_rows += 1
            if self._broken_rows >= MOST_PROBLEMS:
                raise DataError([*chunk.problems, MEND])
        survey = chunk.survey
        for values in (survey.ids, survey.groups, survey.questions, survey.changed):
            values.append(0)
        survey.label.append(-1)
        survey.status.append(BROKEN)
        survey.file.append(_numbered(chunk.files, fault.file))
        survey.line.append(fault.line)
        self._sketch_none()

    def _sketch_none(self) -> None:
        self._whole.add(_NO_WORDS, "", ())
        self._questions.add(_NO_WORDS, "", ())


def merge(task: Looking, looked: Sequence[tuple[int, bool, bool]]) -> Survey:
    """What became of every row, from what `look` found in each share.

    Raises DataError when rows are broken, or there are none.
    """
    survey, fields, problems = Survey(), dict[str, None](), list[str]()
    labels, files = dict[str, int](), dict[str, int]()
    columns: dict[str, list[NDArray[Any]]] = {name: [] for name in _COLUMNS}
    near = task.wanted.near
    with NearRows(near, task.folder) as whole, NearRows(near, task.folder) as questions:
        for number in range(-(-looked[0][0] // CHUNK)):
            chunk = _chunk_of(task.folder, number)
            of_label = np.array([_numbered(labels, n) for n in chunk.labels] + [-1], np.int32)
            of_file = np.array([_numbered(files, n) for n in chunk.files], np.int32)
            chunk.survey.label = of_label[chunk.survey.label]
            chunk.survey.file = of_file[chunk.survey.file]
            for name, parts in columns.items():
                parts.append(getattr(chunk.survey, name))
            survey.texts += chunk.survey.texts
            survey.warnings += chunk.survey.warnings
            problems += chunk.problems
            fields |= chunk.fields
            if chunk.whole and chunk.questions:
                whole.extend(chunk.whole)
                questions.extend(chunk.questions)
        if problems:
            raise DataError([*problems[:MOST_PROBLEMS], MEND])
        for name in _COLUMNS:
            setattr(survey, name, np.concatenate([*columns.pop(name), np.zeros(0, np.uint8)[:0]]))
        if not np.any(survey.status == KEPT):
            raise DataError("there is no row to prepare: the input holds none, or none is whole.")
        for place, (option, given) in enumerate(
            (("label", task.wanted.label), ("group", task.wanted.group)), 1
        ):
            if given and not any(share[place] for share in looked):
                known = ", ".join(fields) or "none beside the text"
                raise DataError(f"--{option} {given}: no row has that field. Fields: {known}.")
        survey.labels, survey.files = list(labels), list(files)
        survey.warnings = survey.warnings[:MOST_PROBLEMS]
        _mark_duplicates(survey)
        _mark_near(survey, whole, questions, task.wanted.keep_near)
    return survey


def _mark_duplicates(survey: Survey) -> None:
    """The first row of each content is kept."""
    survey.of = np.full(len(survey), -1, np.int32)
    survey.similarity = np.zeros(len(survey), np.float32)
    rows = np.flatnonzero(survey.status == KEPT)
    _, first, place = np.unique(survey.ids[rows], return_index=True, return_inverse=True)
    again = first[place] != np.arange(rows.size)
    survey.status[rows[again]] = DUPLICATE
    survey.of[rows[again]] = rows[first[place[again]]]


def _mark_near(survey: Survey, whole: NearRows, questions: NearRows, keep: bool) -> None:
    pairs = array("i")
    for row, other, similarity in whole.matches(not keep, survey.status != KEPT):
        if keep:
            pairs.extend((row, other))
            continue
        survey.status[row] = NEAR
        survey.of[row] = other
        survey.similarity[row] = similarity
    whole.close()
    for row, other, _ in questions.matches(drop=False, left_out=survey.status != KEPT):
        pairs.extend((row, other))
    survey.alike = np.frombuffer(pairs, np.int32).reshape(-1, 2).copy()


def _chunk_file(folder: Path, number: int) -> Path:
    return folder / f".chunk-{number}"


def _chunk_of(folder: Path, number: int) -> _Chunk:
    """A chunk out of its file, which is then gone."""
    path = _chunk_file(folder, number)
    try:
        with path.open("rb") as file:
            chunk: _Chunk = pickle.load(file)
    except FileNotFoundError:  # two processes saw inputs of different lengths
        raise DataError("the input changed while it was read. Nothing was written.") from None
    path.unlink()
    return chunk


def _numbered(numbers: dict[str, int], name: str) -> int:
    return numbers.setdefault(name, len(numbers))


MEND = "Mend these rows, or go on without them: --skip-broken (each gets a line in rows.jsonl)."


def label_of(record: Record, named: str | None) -> str | None:
    """The row's label: the field `named`, else `label`; `answer` may name the gold answer."""
    value = record.extra.get(named or "label")
    if value is None and named == "answer" and record.messages:
        value = text_and_calls(record.messages[-1])
    return None if value is None else _name(value)


def row_id(record: Record, label: str | None) -> int:
    """64 bits: equal rows have equal ids; a text with another label is another row."""
    return _number_of(record.id, label)


def _number_of(own: str, label: str | None) -> int:
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
