"""What a training process reads: `job.json`, `train.jsonl` and `dev.jsonl` in its work folder."""

from __future__ import annotations

import filecmp
import hashlib
import json
import os
import shutil
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tunelm.config import ModelConfig
from tunelm.errors import DataError, TrainingError
from tunelm.models.prompted import with_prompt
from tunelm.route_settings import LocalSettings, what_is_made
from tunelm.rundir import write_text
from tunelm.types import Example, Lazy, Message, as_messages, content_hash

WHOLE = "fine_tuned_model"
"""The folder, beside the card, in which a whole trained model stands as Transformers loads it."""


class TrainingJob(BaseModel):
    """Everything a training run depends on beside its rows."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: ModelConfig
    settings: LocalSettings
    seed: int = 0
    text: bool = False
    """Whether the rows are running text (one message with the role text) and no chats."""
    system: str = ""
    """The system prompt the rows hold; stored with the adapter."""
    metric: str | None = None
    """The metric of `stop_on = "metric"`, for the scorer."""
    max_tokens: Annotated[int, Field(ge=1)] = 64
    """Most tokens of an answer generated for that metric."""
    micro_tokens: Annotated[int, Field(ge=1)] = 8192
    """Most padded tokens in one forward pass. A larger batch runs in pieces whose gradients
    add up to the whole batch's: memory is bounded, the result is not changed."""
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 60
    """Longest time between two checkpoints; there is one after each evaluation anyway."""
    keep_epochs: bool = False
    """Whether `epochs/step-N` holds the adapter after each epoch, ready to be served."""

    @model_validator(mode="after")
    def _merges_what_can_be_merged(self) -> TrainingJob:
        if self.keep_epochs and self.text:
            raise ValueError(
                "keep_epochs is for chats: a text's adapter is merged when it is saved"
            )
        if self.settings.method == "qlora" and self.text:
            raise ValueError("qlora is for chats: weights in 4 bits are not merged")
        return self


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """One chat to learn from, whose last message is the assistant's gold answer; or a text.

    `example` is the dev row it was made from, as JSON, for a scorer; training ignores it.
    `learn` names the assistant messages that carry loss, by their places, ascending, the last
    message among them; None: the last message alone.
    """

    id: str
    messages: tuple[Message, ...]
    example: Mapping[str, Any] | None = None
    learn: tuple[int, ...] | None = None

    @property
    def learned(self) -> tuple[int, ...]:
        """The places of the messages that carry loss."""
        return (len(self.messages) - 1,) if self.learn is None else self.learn

    def to_json(self) -> dict[str, Any]:
        """A plain dict, for JSON."""
        row: dict[str, Any] = {
            "id": self.id,
            "messages": [{"role": m.role, "content": m.content} for m in self.messages],
        }
        if self.example is not None:
            row["example"] = dict(self.example)
        return row if self.learn is None else {**row, "learn": list(self.learn)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`. Raises ValueError, KeyError or TypeError for anything else."""
        learn = None if data.get("learn") is None else tuple(int(i) for i in data["learn"])
        row = cls(str(data["id"]), as_messages(data["messages"]), data.get("example"), learn)
        last = len(row.messages) - 1
        if last < 0 or row.messages[last].role not in ("assistant", "text"):
            raise ValueError("the last message must be the assistant's answer, or a text")
        roles = {row.messages[i].role for i in row.learned if 0 <= i <= last}
        ordered = list(row.learned) == sorted(set(row.learned))
        if not ordered or row.learned[-1:] != (last,) or len(roles) != 1:
            raise ValueError("learn names assistant messages in order, the last message at the end")
        return row


def training_row(example: Example, system: str, keep: bool = False) -> TrainingRow:
    """The row that is trained on for an example: the task's instructions, turns, gold answer.

    A system message of the row's own stands in the place of the instructions, as in answering.
    With `keep` the example goes with it, for a scorer. Raises DataError without an answer.
    """
    if not example.answers:
        raise DataError(f"row {example.id} has no answer to learn from.")
    if not example.messages:
        return TrainingRow(example.id, (Message("text", example.answers[0]),))
    asked = with_prompt(system, (), example.messages)
    gold = Message("assistant", example.answers[0])
    whole = example.to_json() if keep else None
    return TrainingRow(example.id, (*asked, gold), whole)


def write_job(
    work: Path, job: TrainingJob, train: Iterable[TrainingRow], dev: Iterable[TrainingRow]
) -> None:
    """Write a job's three files into `work`, row by row.

    Raises:
        TrainingError: `work` holds another job already; nothing is changed then.
    """
    whole = json.dumps(json.loads(job.model_dump_json()), indent=2, ensure_ascii=False)
    files = {"job.json": [whole], "train.jsonl": _lines(train), "dev.jsonl": _lines(dev)}
    work.mkdir(parents=True, exist_ok=True)
    parts = {name: work / f".{name}.{os.getpid()}.tmp" for name in files}
    try:
        for name, texts in files.items():
            with parts[name].open("w", encoding="utf-8") as file:
                file.writelines(texts)
                file.flush()
                os.fsync(file.fileno())
        for name, part in parts.items():
            path = work / name
            if path.is_file() and not _same(path, part):
                raise TrainingError(_changed(work, name))
        for name, part in parts.items():
            os.replace(part, work / name)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)


def _same(before: Path, now: Path) -> bool:
    """Whether two files say the same; of a job, whether the same comes out of it."""
    if filecmp.cmp(before, now, shallow=False):
        return True
    if before.name != "job.json":
        return False
    jobs = (json.loads(path.read_text(encoding="utf-8")) for path in (before, now))
    one, other = map(what_is_made, jobs)
    return one == other


def read_job(work: Path) -> tuple[TrainingJob, JobRows, JobRows]:
    """The job in `work`, and its train and dev rows.

    Raises:
        TrainingError: a file is missing or is no job.
        DataError: a row is broken, with file and line.
    """
    path = work / "job.json"
    try:
        job = TrainingJob.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise TrainingError(f"{path}: no such file. A work folder holds job.json.") from None
    except ValidationError as error:
        raise TrainingError(f"{path}: not a training job: {error}") from None
    return job, JobRows(work / "train.jsonl"), JobRows(work / "dev.jsonl")


class JobRows(Lazy[TrainingRow]):
    """The rows of a file of a job; in memory is where each begins, and what was asked for.

    Every row is looked at once, when this is made. Raises DataError where one is broken.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        starts, problems, digest, at = array("q"), list[str](), _RowsHash(), 0
        try:
            file = path.open("rb")
        except FileNotFoundError:
            raise TrainingError(f"{path}: no such file. It may be empty, but must exist.") from None
        with file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    try:
                        digest.add(TrainingRow.from_json(json.loads(line)))
                    except (ValueError, KeyError, TypeError) as error:
                        problem = f"{path}:{number}: not a row with id and messages: {error!r}"
                        problems.append(problem)
                    starts.append(at)
                at += len(line)
        if problems:
            raise DataError(problems)
        self._starts = starts
        self.hash = digest.done()
        """As `rows_hash` says."""

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[TrainingRow]:
        with self._path.open("rb") as file:
            for line in file:
                if line.strip():
                    yield TrainingRow.from_json(json.loads(line))

    def at(self, index: int) -> TrainingRow:
        """One row, read from its place in the file."""
        with self._path.open("rb") as file:
            file.seek(self._starts[index])
            return TrainingRow.from_json(json.loads(file.readline()))


class _RowsHash:
    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, row: TrainingRow) -> None:
        self._digest.update(json.dumps(row.to_json(), sort_keys=True).encode() + b"\n")

    def done(self) -> str:
        return self._digest.hexdigest()[:16]


def rows_hash(rows: Iterable[TrainingRow]) -> str:
    """16 hex digits of the SHA-256 of rows in their order, read one at a time."""
    if isinstance(rows, JobRows):
        return rows.hash
    known: dict[str, str] | None = getattr(rows, "known", None)
    if known is not None and "rows_hash" in known:
        return known["rows_hash"]
    digest = _RowsHash()
    for row in rows:
        digest.add(row)
    if known is not None:
        known["rows_hash"] = digest.done()
    return digest.done()


def digest(job: TrainingJob, *rows: Iterable[TrainingRow]) -> str:
    """Of everything a run depends on, beside the base model's files."""
    return content_hash({"job": _made(job), "rows": [rows_hash(part) for part in rows]})


def _made(job: TrainingJob) -> Any:
    """The job as JSON, without what only says how a machine trains: that may change midway."""
    return what_is_made(json.loads(job.model_dump_json()))


def claim(
    work: Path, job: TrainingJob, rows: Sequence[Iterable[TrainingRow]], identity: object = None
) -> None:
    """Tie `work` to its job and its (train, dev) rows, and to the base's identity once known.

    Raises:
        TrainingError: `work` was begun with other rows, another job or another base.
    """
    parts = {
        "job.json": content_hash(_made(job)),
        "rows": content_hash([rows_hash(part) for part in rows]),
    }
    if identity is not None:
        parts["base model"] = content_hash(identity)
    path = work / "started.json"
    begun = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for name, digest in parts.items():
        if begun.get(name, digest) != digest:
            raise TrainingError(_changed(work, name))
    if begun != begun | parts:
        write_text(path, json.dumps(begun | parts, indent=2))


def replace_folder(part: Path, final: Path) -> None:
    """Put a finished folder in its place. A reader sees the old one, none, or the new one."""
    if final.exists():
        shutil.rmtree(final)
    part.rename(final)


def _changed(work: Path, name: str) -> str:
    return (
        f"{work}: {name} changed since training began here, so it cannot go on. "
        "Put it back as it was, or use an empty folder."
    )


def _lines(rows: Iterable[TrainingRow]) -> Iterator[str]:
    return (json.dumps(row.to_json(), ensure_ascii=False) + "\n" for row in rows)
