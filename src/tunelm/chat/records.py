"""What a conversation consists of, as the store gives it back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, get_args

from tunelm.tutor.dialogues import Problem
from tunelm.types import Message, Usage

Choice = Literal["a", "b", "=", "skip"]
"""What a person said of a pair: A is better, B is, they are alike; `skip` says nothing."""
CHOICES: tuple[Choice, ...] = get_args(Choice)


@dataclass(frozen=True, slots=True)
class Turn:
    """One message as it was said.

    Attributes:
        id: of the turn; a uuid.
        role: `user` (of a tutor the student) or `assistant`.
        at: seconds since 1970.
        strategy: of a tutor's turn, with `why` it was chosen.
        model: who said it: the name the conversation has for it.
        usage: None where nobody counted.
        seconds: from the question to the last word; None for a person's.
        complete: False where the answer was cut off: stopped, or the connection lost.
        notes: what else is to be known of it.
        rating: 1 thumbs up, -1 thumbs down, 0 none.
        answers: the id of the user's turn it answers; None for a user's own.
        replaced: another answer stands in its place, and the conversation went on from that.
    """

    id: str
    role: str
    text: str
    at: float
    strategy: str | None = None
    why: str | None = None
    model: str | None = None
    usage: Usage | None = None
    seconds: float | None = None
    complete: bool = True
    notes: tuple[str, ...] = ()
    rating: int = 0
    answers: str | None = None
    replaced: bool = False

    def to_json(self) -> dict[str, Any]:
        """A plain dict, for JSON."""
        return dataclasses.asdict(self)


class Details(TypedDict, total=False):
    """What may be written down with a turn: see Turn. `sent`: the exact messages the model got."""

    strategy: str | None
    why: str | None
    model: str | None
    usage: Usage | None
    seconds: float | None
    sent: Sequence[Message] | None
    complete: bool
    notes: Sequence[str]


@dataclass(frozen=True, slots=True)
class Summary:
    """A conversation in a list. `turns` counts those that stand; `other`: see ChatStore.start."""

    id: str
    title: str
    model: str
    other: str | None
    tutor: bool
    started: float
    updated: float
    turns: int


@dataclass(frozen=True, slots=True)
class Conversation:
    """A whole conversation.

    `turns` are those that stand, in order, `replaced` the answers that another one stands for.
    """

    id: str
    title: str
    model: str
    other: str | None
    tutor: bool
    started: float
    updated: float
    problem: Problem | None
    settings: Mapping[str, Any]
    turns: tuple[Turn, ...]
    replaced: tuple[Turn, ...] = ()


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one message, side by side.

    Attributes:
        asked: the id of the message.
        a, b: the answers, in the order in which they are shown.
        a_is_model: whether A is by the conversation's `model` (and B by its `other`).
        choice: what the person said; None: nothing yet.
    """

    id: str
    conversation: str
    asked: str
    a: Turn
    b: Turn
    a_is_model: bool
    choice: Choice | None = None


@dataclass(frozen=True, slots=True)
class Vote:
    """A pair as far as it counts; `a_is_model` is of the first of the two that are compared."""

    conversation: str
    a_is_model: bool
    choice: Choice | None


def problem_of(data: Mapping[str, Any]) -> Problem:
    """The inverse of `dataclasses.asdict` for a Problem."""
    fields = dict(data)
    for name in ("solutions", "wrong"):
        fields[name] = tuple(fields.get(name) or ())
    return Problem(**fields)
