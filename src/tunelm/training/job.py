"""What a training process reads: `job.json`, `train.jsonl` and `dev.jsonl` in its work folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tunelm.config import ModelConfig
from tunelm.errors import DataError, TrainingError
from tunelm.models.prompted import with_prompt
from tunelm.route_settings import LocalSettings, what_is_made
from tunelm.rundir import write_text
from tunelm.types import Example, Message, as_messages, content_hash

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
    work: Path, job: TrainingJob, train: Sequence[TrainingRow], dev: Sequence[TrainingRow]
) -> None:
    """Write a job's three files into `work`.

    Raises:
        TrainingError: `work` holds another job already; nothing is changed then.
    """
    files = {
        "job.json": json.dumps(json.loads(job.model_dump_json()), indent=2, ensure_ascii=False),
        "train.jsonl": _lines(train),
        "dev.jsonl": _lines(dev),
    }
    for name, text in files.items():
        path = work / name
        if path.is_file() and not _same(name, path.read_text(encoding="utf-8"), text):
            raise TrainingError(_changed(work, name))
    work.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        write_text(work / name, text)


def _same(name: str, before: str, now: str) -> bool:
    if name != "job.json" or before == now:
        return before == now
    return what_is_made(json.loads(before)) == what_is_made(json.loads(now))


def read_job(work: Path) -> tuple[TrainingJob, list[TrainingRow], list[TrainingRow]]:
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
    return job, _read_rows(work / "train.jsonl"), _read_rows(work / "dev.jsonl")


def digest(job: TrainingJob, rows: Sequence[TrainingRow]) -> str:
    """Of everything a run depends on, beside the base model's files."""
    return content_hash({"job": _made(job), "rows": [row.to_json() for row in rows]})


def _made(job: TrainingJob) -> Any:
    """The job as JSON, without what only says how a machine trains: that may change midway."""
    return what_is_made(json.loads(job.model_dump_json()))


def claim(
    work: Path, job: TrainingJob, rows: Sequence[TrainingRow], identity: object = None
) -> None:
    """Tie `work` to its job and rows, and to the base's identity once that is known.

    Raises:
        TrainingError: `work` was begun with other rows, another job or another base.
    """
    parts = {
        "job.json": content_hash(_made(job)),
        "rows": content_hash([row.to_json() for row in rows]),
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


def _lines(rows: Sequence[TrainingRow]) -> str:
    return "".join(json.dumps(row.to_json(), ensure_ascii=False) + "\n" for row in rows)


def _read_rows(path: Path) -> list[TrainingRow]:
    rows: list[TrainingRow] = []
    problems: list[str] = []
    try:
        # not splitlines(): that also breaks at characters JSON strings may hold
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise TrainingError(f"{path}: no such file. It may be empty, but must exist.") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
            row = TrainingRow.from_json(data)
        except (ValueError, KeyError, TypeError) as error:
            problems.append(f"{path}:{number}: not a row with id and messages: {error!r}")
            continue
        rows.append(row)
    if problems:
        raise DataError(problems)
    return rows
