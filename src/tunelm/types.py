"""The records that pass between the stages. Standard library only.

All are frozen. `None` means unknown and is never replaced by zero. `to_json` and
`from_json` give plain dicts for JSON files; fields unknown to this version are refused.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self, TypeVar, cast, overload

MAX_TOKENS = 64
"""Most tokens of an answer where nothing else is said."""

NO_LABEL = "no label"
"""What `format_error` begins with where an answer is none of a classification's labels."""


_Item = TypeVar("_Item")


class Lazy(Sequence[_Item], ABC):
    """A sequence whose items are made when they are asked for; a slice is a list of them."""

    @abstractmethod
    def at(self, index: int) -> _Item:
        """Make one item. Raises IndexError where there is none, as a list does."""

    @overload
    def __getitem__(self, at: int) -> _Item: ...
    @overload
    def __getitem__(self, at: slice) -> list[_Item]: ...
    def __getitem__(self, at: int | slice) -> _Item | list[_Item]:
        if isinstance(at, slice):
            return [self.at(index) for index in range(*at.indices(len(self)))]
        return self.at(at)


class FinishReason(StrEnum):
    """Why a completion ended."""

    STOP = "stop"
    LENGTH = "length"
    ERROR = "error"


class Outcome(StrEnum):
    """What became of one row when it was scored; the four counts add up to n."""

    SCORED = "scored"
    UNPARSED = "unparsed"
    DECLINED = "declined"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message. `role` is system, user or assistant.

    A single message with the role `text` is running text that a model goes on from as it
    stands: no chat template, no system prompt.
    """

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a task: what the model sees, and what it should answer.

    Of a text to be modelled, `messages` is empty and `answers[0]` the text. Otherwise
    `messages` never holds the task's instructions: the adapted model adds its own system
    prompt. `answers[0]` is the gold answer that is trained on; further ones are accepted
    by the metrics. Rows of one `group` stand on one side of the split.
    """

    id: str
    messages: tuple[Message, ...]
    answers: tuple[str, ...]
    group: str
    context: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def question(self) -> str:
        """The last message's text."""
        return self.messages[-1].content

    def to_json(self) -> dict[str, Any]:
        """A plain dict, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        fields = dict(data)
        fields["messages"] = tuple(Message(**m) for m in fields["messages"])
        fields["answers"] = tuple(fields["answers"])
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call. `cached_tokens` is the part of `prompt_tokens` read from a cache.

    A count that nobody reported is None; a sum with an unknown part is unknown.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None

    def __add__(self, other: Usage) -> Usage:
        def plus(a: int | None, b: int | None) -> int | None:
            return None if a is None or b is None else a + b

        return Usage(
            plus(self.prompt_tokens, other.prompt_tokens),
            plus(self.completion_tokens, other.completion_tokens),
            plus(self.cached_tokens, other.cached_tokens),
        )


ZERO_USAGE = Usage(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Request:
    """One thing to complete. `temperature` 0 is greedy; `seed` matters only above 0.

    `choices`: an endpoint that takes a JSON schema is held to {"label": one of these}; other
    models leave them alone.
    """

    messages: tuple[Message, ...]
    max_tokens: int = MAX_TOKENS
    temperature: float = 0.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model answered. `latency_s` is wall time of the call, shared by its batch.

    `error` is set when this request failed (`finish_reason` is then ERROR, `text` empty);
    a failed row is data, and the other requests of the batch are unaffected. `format_error`
    says how an answer broke the form that was asked for; `text` is then all that was written.
    `confidence`: how likely its answer is to be right, 0 to 1 by its own account; None: not said.
    """

    text: str
    finish_reason: FinishReason
    usage: Usage = Usage()
    latency_s: float | None = None
    error: str | None = None
    format_error: str | None = None
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a streamed completion; the last one carries the finish reason and usage."""

    text: str
    finish_reason: FinishReason | None = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Natural-log probabilities of each token of a continuation, given its prompt."""

    tokens: tuple[str, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Prediction:
    """One model's answer to one example. `part` is dev or test; `output` None means failed.

    Of a text, `nll` is minus the natural-log probability of all its `scored_tokens`, which are
    `scored_bytes` of UTF-8; None where the model cannot tell. `format_error` as in Completion.
    `facts` is what else was counted or found out: the `confidence` of a Completion, what the
    task's checks found, or what happened in a whole conversation, whose text `output` then is.
    """

    example_id: str
    part: str
    output: str | None
    finish_reason: FinishReason
    usage: Usage = Usage()
    latency_s: float | None = None
    error: str | None = None
    nll: float | None = None
    scored_tokens: int | None = None
    scored_bytes: int | None = None
    format_error: str | None = None
    facts: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """A plain dict, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        fields = dict(data)
        fields["finish_reason"] = FinishReason(fields["finish_reason"])
        fields["usage"] = Usage(**fields["usage"])
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class Score:
    """One metric's value for one example; None unless the outcome is SCORED."""

    example_id: str
    metric: str
    value: float | None
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Estimate:
    """A forecast or a measurement. `value` None is unknown, and `method` then says why.

    `method` is how it was made: exact, probe, formula, prior, measured, or unknown: REASON.
    """

    value: float | None
    unit: str
    method: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a route expects to need, made before anything is spent."""

    route: str
    kind: str
    forecasts: Mapping[str, Estimate]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A plain dict, for JSON."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class Adapted:
    """What a route made, with everything needed to open it again.

    `folder` holds its files (a prompt program, an adapter); `detail` is JSON-ready.
    `usage` is what fitting cost in model calls, by phase (optimize, train).
    """

    kind: str
    folder: str
    base: Mapping[str, Any]
    system: str
    detail: Mapping[str, Any] = field(default_factory=dict[str, Any])
    usage: Mapping[str, Usage] = field(default_factory=dict[str, Usage])

    def to_json(self) -> dict[str, Any]:
        """A plain dict, for JSON; the folder is left out: it is where the file stands."""
        data = dataclasses.asdict(self)
        del data["folder"]
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any], folder: str) -> Self:
        """The inverse of `to_json`, for a file found in `folder`."""
        fields = dict(data)
        fields["usage"] = {name: Usage(**u) for name, u in fields.get("usage", {}).items()}
        return cls(folder=folder, **fields)


def content_hash(value: object) -> str:
    """16 hex digits of the SHA-256 of `value` as canonical JSON (UTF-8, sorted keys).

    >>> content_hash({"b": 1, "a": 2}) == content_hash({"a": 2, "b": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def label_form(text: str) -> str:
    """The form in which labels are compared: one case, single spaces.

    >>> label_form(" Very  Good")
    'very good'
    """
    return " ".join(text.casefold().split())


def as_messages(items: object) -> tuple[Message, ...]:
    """Messages from a list of {"role", "content"} dicts."""
    return tuple(Message(m["role"], m["content"]) for m in cast(list[dict[str, str]], items))
