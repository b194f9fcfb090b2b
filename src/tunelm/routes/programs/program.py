"""A prompt program as data: its steps with their demonstrations, and how they were found.

Reading and writing one needs neither DSPy nor pickle.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from tunelm.errors import RunDirError
from tunelm.rundir import write_json
from tunelm.types import Example, Message, Usage, as_messages

FORMAT = "tunelm-prompt-program/2"
FILE = "program.json"


@dataclass(frozen=True, slots=True)
class Demo:
    """One worked example: the row's messages, then the answer as an assistant message.

    `source` is labeled (the gold answer) or bootstrapped (the model's own answer, which the
    search took for good).
    """

    example_id: str
    source: Literal["labeled", "bootstrapped"]
    messages: tuple[Message, ...]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `dataclasses.asdict`."""
        return cls(data["example_id"], data["source"], as_messages(data["messages"]))


@dataclass(frozen=True, slots=True)
class Step:
    """One call of a program.

    Attributes:
        name: what later steps see its answer under.
        instructions: the system message, before the form of several outputs (see `form`).
        outputs: the fields it answers; the last one is its answer. One: the whole completion.
            Several: a line `Field: text` each.
        demos: worked examples before the question.
        extra_tokens: room beside the answer: a step before the last has this alone, the last
            one this and the request's own.
    """

    name: str
    instructions: str
    outputs: tuple[str, ...] = ("answer",)
    demos: tuple[Demo, ...] = ()
    extra_tokens: int = 0

    @property
    def turns(self) -> tuple[Message, ...]:
        """The demonstrations as one run of messages."""
        return turns_of(self.demos)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `dataclasses.asdict`."""
        return cls(
            data["name"],
            data["instructions"],
            tuple(data["outputs"]),
            tuple(Demo.from_json(demo) for demo in data["demos"]),
            data["extra_tokens"],
        )


@dataclass(frozen=True, slots=True)
class Near:
    """Demonstrations chosen for each question: the `k` nearest of `pool`, nearest last."""

    k: int
    pool: tuple[Demo, ...]


@dataclass(frozen=True, slots=True)
class Program:
    """What is sent around the user's messages, with its provenance.

    The last of `steps` answers; `near` chooses its demonstrations for each question. `made_from`
    holds all that the result depends on; a program is reused only for the same. `model` names
    the base model, with the hashes of its files where it has any. `search` says how it was
    found: candidates, metric, threshold, calls.
    """

    steps: tuple[Step, ...]
    near: Near | None
    made_from: Mapping[str, Any]
    model: Mapping[str, Any]
    search: Mapping[str, Any]
    usage: Usage
    versions: Mapping[str, str]

    @property
    def plain(self) -> bool:
        """Whether it is one call, whose whole completion is the answer, with fixed examples."""
        return len(self.steps) == 1 and len(self.steps[0].outputs) == 1 and self.near is None

    @property
    def last(self) -> Step:
        """The step that answers."""
        return self.steps[-1]

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
            data["steps"] = tuple(Step.from_json(step) for step in data["steps"])
            if (near := data["near"]) is not None:
                pool = tuple(Demo.from_json(demo) for demo in near["pool"])
                data["near"] = Near(near["k"], pool)
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
