"""Checks of one row: the order of its turns, their weights, its answers, the text itself."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from tunelm.data.check_codes import fault
from tunelm.data.check_text import check_text, encoding_checker, excerpt
from tunelm.data.check_tools import check_tools, is_call
from tunelm.data.records import Fault, Record, Turn, turn_text

ROLES = ("system", "developer", "user", "assistant", "tool", "function")

Found = tuple[str, str]


@dataclass(frozen=True)
class RowChecker:
    """Checks rows, one at a time. `own_special`: special tokens of the model at hand."""

    own_special: Collection[str] = ()
    bad_encoding: Callable[[str], bool] | None = None

    @classmethod
    def make(cls, own_special: Collection[str] = ()) -> RowChecker:
        """With ftfy's judgement on encodings, where ftfy is installed."""
        return cls(tuple(own_special), encoding_checker())

    def check(self, record: Record) -> Iterator[Fault]:
        """Every fault of the row, those of its form before those of its text."""
        for code, found in (*_form(record), *self._text(record)):
            yield fault(code, record, found)

    def _text(self, record: Record) -> Iterator[Found]:
        """Faults of the text, one a code: a long conversation is not reported turn by turn."""
        seen: dict[str, list[str]] = {}
        for place, text in texts(record):
            for code, found in check_text(text, self.own_special, self.bad_encoding):
                seen.setdefault(code, []).append(f"{place} {found}")
        for code, found in seen.items():
            more = f" (and {len(found) - 1} more turns)" if len(found) > 1 else ""
            yield code, found[0] + more


def texts(record: Record) -> Iterator[tuple[str, str]]:
    """(where, text) of everything in a row that is written, not structure."""
    if record.text is not None:
        yield "the text", record.text
    for part, turns in record.parts:
        for number, turn in enumerate(turns, 1):
            if isinstance(turn, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
                place = name(part, number, turn)
                yield place, turn_text(turn)
                for call in _list(turn.get("tool_calls")):
                    function = call.get("function") if isinstance(call, Mapping) else None
                    arguments = function.get("arguments") if isinstance(function, Mapping) else None
                    if isinstance(arguments, str):
                        yield f"{place} tool call", arguments
    context = record.extra.get("context")
    if isinstance(context, str):
        yield "the context", context


def name(part: str, number: int, turn: Turn) -> str:
    """What messages call a turn: `message 2 (assistant)`."""
    role = turn.get("role")
    return f"{part}message {number}" + (f" ({role})" if role in ROLES else "")


def fold(text: str) -> str:
    """What counts as the same text: words alone, without case, punctuation and spacing."""
    return " ".join(re.findall(r"\w+", text.casefold())) or " ".join(text.split())


# --- the form --------------------------------------------------------------------------------


def _form(record: Record) -> Iterator[Found]:
    if record.text is not None:
        if not record.text.strip():
            yield "empty-text", "the text is empty"
    else:
        yield from _preference(record) if is_pair(record) else _conversation(record)
        yield from check_tools(record)


def is_pair(record: Record) -> bool:
    """Whether the row is a preference pair."""
    return bool(record.preferred or record.rejected) or "dpo" in record.shape


def _conversation(record: Record) -> Iterator[Found]:
    turns = record.messages
    if not turns:
        yield "no-messages", "the conversation has no turns"
        return
    yield from _turns("", turns)
    roles = [_role(turn) for turn in turns]
    if not all(role in ROLES for role in roles):
        return  # the order of turns nobody can name says nothing
    yield from _order(roles)
    if "assistant" not in roles:
        yield "no-assistant", "no turn is the assistant's"
    elif roles[-1] != "assistant":
        yield "last-not-assistant", f"the last turn is the {roles[-1]}'s"
    else:
        yield from _weights(turns)
        answer, question = fold(turn_text(turns[-1])), _last_question(turns)
        if answer and answer == question:
            shown = excerpt(turn_text(turns[-1]))
            yield "answer-is-question", f"question and answer are both {shown!r}"


def _turns(part: str, turns: Sequence[Turn]) -> Iterator[Found]:
    for number, turn in enumerate(turns, 1):
        if not isinstance(turn, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            yield "turn-not-object", f"{part}message {number} is {excerpt(repr(turn))}"
            continue
        place, role = name(part, number, turn), turn.get("role")
        if role is None:
            yield "missing-role", f'{place} has no "role"'
        elif role not in ROLES:
            yield "unknown-role", f"{place} has the role {excerpt(repr(role))}"
        yield from _content(place, turn)
        yield from _weight(place, turn)


def _content(place: str, turn: Turn) -> Iterator[Found]:
    content, role = turn.get("content"), turn.get("role")
    if content is None:
        if not (role == "assistant" and (is_call(turn) or turn.get("refusal"))):
            yield "missing-content", f'{place} has no "content"'
        return
    parts = content if isinstance(content, list) else []
    fine = all(isinstance(p, Mapping) and isinstance(p.get("type"), str) for p in parts)
    if not isinstance(content, str | list) or not fine:
        yield "content-type", f"{place} has content {excerpt(repr(content))}"
        return
    pictures = any(p.get("type") != "text" for p in parts)
    if turn_text(turn).strip() or pictures or is_call(turn):
        return
    empty = {"assistant": "empty-answer", "user": "empty-question"}
    code = empty.get(str(role), "empty-system" if role in ("system", "developer") else None)
    if code:
        yield code, f"{place} is {'empty' if turn_text(turn) == '' else 'white space alone'}"


def _weight(place: str, turn: Turn) -> Iterator[Found]:
    weight = turn.get("weight")
    if weight is None:
        return
    if turn.get("role") != "assistant":
        yield "weight-role", f"{place} has weight {weight!r}"
    elif type(weight) is not int or weight not in (0, 1):
        yield "weight-value", f"{place} has weight {excerpt(repr(weight))}"


def _weights(turns: Sequence[Turn]) -> Iterator[Found]:
    weights = [t.get("weight") for t in turns if t.get("role") == "assistant"]
    if all(type(w) is int and w == 0 for w in weights):
        yield "weight-all-zero", f"all {len(weights)} assistant turns have weight 0"


def _order(roles: Sequence[str]) -> Iterator[Found]:
    talk = ("user", "assistant")
    for number, role in enumerate(roles[1:], 2):
        if role in ("system", "developer"):
            yield "system-not-first", f"message {number} is the {role}'s"
    # a system turn between two user turns is one fault, not two: neighbours alone count
    for number, (one, two) in enumerate(itertools.pairwise(roles), 2):
        if one == two and one in talk:
            code = "two-users" if one == "user" else "two-assistants"
            yield code, f"messages {number - 1} and {number} are both the {one}'s"
    first = next((r for r in roles if r not in ("system", "developer")), None)
    if first in ("assistant", "tool", "function"):
        yield "first-not-user", f"the first turn is the {first}'s"


def _preference(record: Record) -> Iterator[Found]:
    yield from _turns("", record.messages)
    roles = [_role(turn) for turn in record.messages]
    if not roles:
        yield "no-messages", "the pair has no prompt"
    elif all(role in ROLES for role in roles):
        yield from _order(roles)
        if roles[-1] == "assistant":
            yield "preference-prompt", f"message {len(roles)} of the prompt is the assistant's"
    for part, turns in (("preferred", record.preferred), ("rejected", record.rejected)):
        if not turns:
            yield "preference-missing", f"there is no {part} answer"
            continue
        yield from _turns(f"{part} ", turns)
        wrong = next((r for r in map(_role, turns) if r in ROLES and r != "assistant"), None)
        if wrong and wrong != "tool":
            yield "preference-role", f"the {part} answer is the {wrong}'s"
    both = [[_said(t) for t in turns] for turns in (record.preferred, record.rejected)]
    if both[0] and both[0] == both[1] and any(text for text, _ in both[0]):
        yield "preference-equal", f"both answers are {excerpt(both[0][0][0])!r}"


def _said(turn: Turn) -> tuple[str, str]:
    return turn_text(turn).strip(), repr(turn.get("tool_calls"))


def _role(turn: Any) -> str:
    role = turn.get("role") if isinstance(turn, Mapping) else None
    return role if isinstance(role, str) else ""


def _last_question(turns: Sequence[Turn]) -> str:
    return next((fold(turn_text(t)) for t in reversed(turns) if t.get("role") == "user"), "")


def _list(value: Any) -> list[Any]:
    return cast(list[Any], value) if isinstance(value, list | tuple) else []
