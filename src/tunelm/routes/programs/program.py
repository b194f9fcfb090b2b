"""A prompt program as data: the instructions and demonstrations, and how they were found.

Reading and writing one needs neither DSPy nor pickle.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from tunelm.errors import RunDirError
from tunelm.rundir import write_json
from tunelm.types import Example, Message, Usage, as_messages

FORMAT = "tunelm-prompt-program/1"
FILE = "program.json"


@dataclass(frozen=True, slots=True)
class Demo:
    """One worked example: the row's messages, then the answer as an assistant message.

    `source` is labeled (the gold answer) or bootstrapped (the model's own answer, which the
    metric passed).
    """

    example_id: str
    source: Literal["labeled", "bootstrapped"]
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One program that was tried.

    `dev_score` is the mean of the search metric over all dev rows, a failed row counting 0;
    None where nothing was evaluated. `failed_rows` are the dev rows without an answer.
    """

    name: str
    demos: tuple[Demo, ...]
    dev_score: float | None = None
    failed_rows: int | None = None

    def summary(self) -> dict[str, Any]:
        """The candidate without its texts, for JSON."""
        return {
            "name": self.name,
            "dev_score": self.dev_score,
            "failed_rows": self.failed_rows,
            "demos": [{"example_id": d.example_id, "source": d.source} for d in self.demos],
        }


@dataclass(frozen=True, slots=True)
class Program:
    """What is sent before the user's messages, with its provenance.

    `made_from` holds all that the result depends on; a program is reused only for the same.
    `model` names the base model, with the hashes of its files where it has any.
    `search` says how it was found: candidates, metric, threshold, calls.
    """

    instructions: str
    demos: tuple[Demo, ...]
    made_from: Mapping[str, Any]
    model: Mapping[str, Any]
    search: Mapping[str, Any]
    usage: Usage
    versions: Mapping[str, str]
    dspy_state: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def turns(self) -> tuple[Message, ...]:
        """The demonstrations as one run of messages."""
        return turns_of(self.demos)

    def save(self, folder: Path) -> Path:
        """Write `folder/program.json`, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / FILE
        write_json(path, {"format": FORMAT, **dataclasses.asdict(self)})
        return path

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote; RunDirError when the file is no such program."""
        path = folder / FILE
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data.pop("format") != FORMAT:
                raise ValueError("another format")
            data["demos"] = tuple(
                Demo(d["example_id"], d["source"], as_messages(d["messages"]))
                for d in data["demos"]
            )
            data["usage"] = Usage(**data["usage"])
            return cls(**data)
        except FileNotFoundError:
            raise RunDirError(f"{path}: no prompt program here. Fit the route first.") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunDirError(
                f"{path}: not a prompt program of the form {FORMAT} ({error!r})."
                " Remove its folder and fit the route again."
            ) from None


def gold_demo(row: Example) -> Demo:
    """A row with its gold answer. A system message of the row's own is left out."""
    return answered_demo(row, row.answers[0], "labeled")


def answered_demo(row: Example, answer: str, source: Literal["labeled", "bootstrapped"]) -> Demo:
    """A row with an answer; a demonstration stands mid-chat, so it has no system message."""
    turns = tuple(m for m in row.messages if m.role != "system")
    return Demo(row.id, source, (*turns, Message("assistant", answer)))


def turns_of(demos: Sequence[Demo]) -> tuple[Message, ...]:
    """The messages of several demonstrations, one after the other."""
    return tuple(message for demo in demos for message in demo.messages)
