"""One row of any file in one shape, with nothing of it lost; and a fault found in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from tunelm.data.strict_json import shorten
from tunelm.types import Example, Message, content_hash

Turn = Mapping[str, Any]
"""A chat turn as OpenAI writes it: role, content, and where there are any weight, name,
tool_calls, tool_call_id, parallel_tool_calls, refusal. `content` may be None beside tool calls."""


def turn_text(turn: Turn) -> str:
    """The text of a turn; of content parts, their texts a line each; "" where there is none."""
    content = turn.get("content")
    if isinstance(content, str):
        return content
    parts = cast(Sequence[Any], content) if isinstance(content, list | tuple) else ()
    texts = [part.get("text") for part in parts if isinstance(part, Mapping)]
    return "\n".join(text for text in texts if isinstance(text, str))


@dataclass(frozen=True, slots=True)
class Record:
    """One row as it was read, whatever the format.

    `messages` holds the whole conversation, gold answer included; prompt/completion, Alpaca and
    question/answer rows are a user turn and an assistant turn. A row of running text has `text`
    instead. A preference pair has the prompt in `messages`, and its two answers in `preferred`
    and `rejected`. `extra` keeps every other field (group, label, context, ...) as it stood.
    """

    file: str
    """Path of the file as it was given; of a document in a folder, folder included."""
    line: int
    """Line of the file; row number from 1 where a format has no lines."""
    shape: str
    """How the row was written: a name of `tunelm.data.shapes.SHAPES`."""
    messages: tuple[Turn, ...] = ()
    text: str | None = None
    preferred: tuple[Turn, ...] = ()
    rejected: tuple[Turn, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def source(self) -> str:
        """FILE:LINE, as messages and ledgers name a row."""
        return f"{self.file}:{self.line}"

    @property
    def id(self) -> str:
        """Hash of all content: equal rows have equal ids."""
        return content_hash(
            [
                self.messages,
                self.text,
                self.preferred,
                self.rejected,
                self.tools,
                self.extra.get("context"),
            ]
        )

    @property
    def parts(self) -> tuple[tuple[str, tuple[Turn, ...]], ...]:
        """Its turns, with what a message says before "message N" of each part."""
        return (
            ("", self.messages),
            ("preferred ", self.preferred),
            ("rejected ", self.rejected),
        )

    def plain(self) -> str:
        """All its text, turns in order, a line each: for comparing rows with each other."""
        if self.text is not None:
            return self.text
        turns = (*self.messages, *self.preferred, *self.rejected)
        return "\n".join(str(turn.get("content") or "") for turn in turns)


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with a file or a row.

    `code` names the kind of fault and never changes; `found` says what stands there, `mend` what
    to do about it. `line` 0 means the file as a whole.
    """

    code: str
    level: Literal["error", "warning"]
    file: str
    line: int
    found: str
    mend: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.found}" + (f" {self.mend}" if self.mend else "")


def to_example(record: Record) -> Example:
    """The record as a row to train and score on.

    Raises:
        ValueError: says why it cannot be one, and what to do.
    """
    context = record.extra.get("context")
    group = record.extra.get("group")
    known = {"context", "group", "key_answer", "answers"}
    if record.shape == "question-answer":
        known.add("answer")
    metadata: dict[str, Any] = {k: v for k, v in record.extra.items() if k not in known}
    key = record.extra.get("key_answer")
    if key is not None:
        metadata["key_answers"] = [str(k) for k in (key if isinstance(key, list) else [key])]
    messages, answers = _turns(record)
    content = {
        "messages": [[m.role, m.content] for m in messages],
        "answers": answers,
        "context": context,
    }
    identity = content_hash(content)
    return Example(
        id=identity,
        messages=messages,
        answers=answers,
        group=identity if group is None else str(group),
        context=None if context is None else str(context),
        metadata=metadata,
    )


def _turns(record: Record) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    if record.text is not None:
        return (), (_text(record.text, "text"),)
    if record.preferred or record.rejected:
        raise ValueError(
            "a preference pair: tunelm trains on single answers. Convert it: tunelm data prepare"
            " --to messages keeps the preferred answer"
        )
    if record.tools or record.extra.get("functions") or any(map(_calls, record.messages)):
        raise ValueError("tool calls cannot be trained on locally; leave the row out")
    answers = record.extra.get("answers")
    if record.shape == "question-answer" and answers == []:
        raise ValueError('"answers" is [], expected a list of texts')
    if len(record.messages) < 2:
        raise ValueError('"messages" must be a list of at least a user and an assistant message')
    messages: list[Message] = []
    for position, turn in enumerate(record.messages, 1):
        expected = "user" if position % 2 else "assistant"
        if turn["role"] != expected:
            hint = " Put instructions in [task]." if turn["role"] == "system" else ""
            raise ValueError(
                f"message {position} has role {turn['role']!r}, expected {expected!r}: user and"
                f" assistant take turns.{hint}"
            )
        messages.append(Message(expected, _text(turn.get("content"), _name(record, position))))
    if messages[-1].role != "assistant":
        raise ValueError("the last message must be the assistant's: it is the gold answer")
    if record.messages[-1].get("weight") == 0:
        raise ValueError("the last answer has weight 0: there is nothing to learn from this row")
    others = answers[1:] if isinstance(answers, list) else ()
    return tuple(messages[:-1]), (messages[-1].content, *(_text(a, "answer") for a in others))


_FIELDS = {
    "question-answer": ("question", "answer"),
    "prompt-completion": ("prompt", "completion"),
    "alpaca": ("instruction", "output"),
}


def _name(record: Record, position: int) -> str:
    """What the row itself calls a turn."""
    fields = _FIELDS.get(record.shape)
    if fields and len(record.messages) == 2:
        return fields[position - 1]
    return f"message {position}"


def _calls(turn: Turn) -> bool:
    return bool(turn.get("tool_calls") or turn.get("function_call"))


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f'"{what}" is {shorten(value, 200)}, expected a text')
    if not value.strip():
        raise ValueError(f'"{what}" is empty')
    return value
