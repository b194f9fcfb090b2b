"""A Record as the row it was read from, or as one of another shape that holds all of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tunelm.data.records import Record, Turn
from tunelm.data.shapes import (
    ROLES,
    SHAPES,
    SPEAKERS,
    Fields,
    ShapeError,
    family_of,
    reply_start,
    to_record,
)
from tunelm.data.strict_json import shorten


def to_row(record: Record, shape: str | None = None) -> Fields:
    """The row that reads as this record; `shape` None writes it as it was read.

    `shape` is a family, or one of its forms such as `trl-dpo-messages`. The fields that only
    repeat what the turns say are left out when the shape changes.

    Raises:
        ShapeError: the shape cannot hold all of the record; says what would be lost.
    """
    name = record.shape if shape is None or shape == family_of(record.shape) else shape
    if name not in _WRITE:
        raise ShapeError("unknown-shape", f"no shape {name!r}", f"Valid: {', '.join(SHAPES)}.")
    extra = dict(record.extra)
    if name != record.shape:
        _require_as_many_answers(record, name)
        for key in _embodied(record):
            del extra[key]
    row = _WRITE[name](record, extra)
    clash = sorted(row.keys() & extra.keys())
    if clash:
        raise _lost(f"the row's own field {shorten(clash[0])}")
    row |= extra
    if name != record.shape:
        _require_same_meaning(record, row, name)
    return row


def preferred_only(record: Record) -> Record:
    """A preference pair as the conversation that ends in the preferred answer."""
    extra = dict(record.extra)
    for key in _embodied(record):
        del extra[key]
    turns = (*record.messages, *record.preferred)
    return replace(record, shape="messages", messages=turns, preferred=(), rejected=(), extra=extra)


def _write_messages(record: Record, extra: Fields) -> Fields:
    turns, system = _without_system(record, extra)
    return {"messages": _dicts(turns), **_with_tools(record), **system}


def _write_question(record: Record, extra: Fields) -> Fields:
    answers = extra.pop("answers", None)
    if answers == [] and len(record.messages) == 1:
        return {"question": record.messages[0]["content"], "answers": []}
    question, answer = _pair(record)
    if isinstance(answers, list):
        return {"question": question, "answers": [answer, *answers[1:]]}
    if answers is not None:
        raise _lost(f'the field "answers" ({shorten(answers)})')
    return {"question": question, "answer": answer}


def _write_prompt(record: Record, extra: Fields) -> Fields:
    prompt, completion = _pair(record)
    return {"prompt": prompt, "completion": completion}


def _write_prompt_messages(record: Record, extra: Fields) -> Fields:
    _no_pair(record)
    start = reply_start(record.messages)
    turns = _dicts(record.messages)
    return {"prompt": turns[:start], "completion": turns[start:], **_with_tools(record)}


def _write_alpaca(record: Record, extra: Fields) -> Fields:
    turns, row = _without_system(record, extra)
    if not row and turns and turns[0]["role"] == "system":
        (row["system"],), turns = _contents(turns[:1]), turns[1:]
    roles = [turn["role"] for turn in turns]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2) or record.tools:
        raise _lost("the tools" if record.tools else f"the order of {len(roles)} turns")
    *before, question, answer = _contents(turns)
    if before:
        row["history"] = [before[i : i + 2] for i in range(0, len(before), 2)]
    given = extra.get("input")
    if isinstance(given, str) and given:
        if question == given:
            question = ""
        elif isinstance(question, str) and question.endswith("\n\n" + given):
            question = question[: -len(given) - 2]
        else:  # the turn was changed since: it holds the input, and cannot be taken apart
            extra["input"] = ""
    return {"instruction": question, "output": answer, **row}


def _write_sharegpt(record: Record, extra: Fields) -> Fields:
    turns, system = _without_system(record, extra)
    written: list[Fields] = []
    for turn in turns:
        role = turn["role"]
        usual = SPEAKERS.get(role, role)
        speaker = turn.get("from", usual)
        odd = turn.keys() & {"value"} or ("from" in turn and speaker == usual)
        if odd or "content" not in turn or ROLES.get(speaker, speaker) != role:
            raise _lost(f"something of the turn {shorten(turn)}")
        beside = {k: v for k, v in turn.items() if k not in ("role", "content", "from")}
        written.append({"from": speaker, "value": turn["content"], **beside})
    return {"conversations": written, **_with_tools(record), **system}


def _write_sharegpt_messages(record: Record, extra: Fields) -> Fields:
    turns, system = _without_system(record, extra)
    return {"conversations": _dicts(turns), **_with_tools(record), **system}


def _write_openai_dpo(record: Record, extra: Fields) -> Fields:
    given: Fields = {"messages": _dicts(record.messages), **_with_tools(record)}
    rest = extra.pop("input", None)
    if isinstance(rest, dict):
        given |= rest
    elif rest is not None:
        raise _lost('the field "input"')
    elif "parallel_tool_calls" in extra:
        given["parallel_tool_calls"] = extra.pop("parallel_tool_calls")
    row: Fields = {"input": given}
    if record.preferred:
        row["preferred_output"] = _dicts(record.preferred)
    if record.rejected:
        row["non_preferred_output"] = _dicts(record.rejected)
    return row


def _write_trl(record: Record, extra: Fields) -> Fields:
    row: Fields = {}
    for name, turns in (
        ("prompt", record.messages),
        ("chosen", record.preferred),
        ("rejected", record.rejected),
    ):
        if name == "prompt" and not turns:
            continue
        role = "user" if name == "prompt" else "assistant"
        if len(turns) != 1 or turns[0]["role"] != role or record.tools:
            raise _lost(f'the turns of "{name}": a text holds one turn, the {role}\'s')
        (row[name],) = _contents(turns)
    return row


def _write_trl_messages(record: Record, extra: Fields) -> Fields:
    return {
        "prompt": _dicts(record.messages),
        "chosen": _dicts(record.preferred),
        "rejected": _dicts(record.rejected),
        **_with_tools(record),
    }


def _write_trl_mixed(record: Record, extra: Fields) -> Fields:
    (prompt,) = _contents(record.messages)
    return {**_write_trl_messages(record, extra), "prompt": prompt}


def _write_trl_implicit(record: Record, extra: Fields) -> Fields:
    start = _dicts(record.messages)
    return {
        "chosen": [*start, *_dicts(record.preferred)],
        "rejected": [*start, *_dicts(record.rejected)],
        **_with_tools(record),
    }


def _write_text(record: Record, extra: Fields) -> Fields:
    if record.text is None:
        raise _lost("who says what")
    return {"text": record.text}


_WRITE: Mapping[str, Callable[[Record, Fields], Fields]] = {
    "messages": _write_messages,
    "openai-dpo": _write_openai_dpo,
    "trl-dpo": _write_trl,
    "trl-dpo-messages": _write_trl_messages,
    "trl-dpo-mixed": _write_trl_mixed,
    "trl-dpo-implicit": _write_trl_implicit,
    "sharegpt": _write_sharegpt,
    "sharegpt-messages": _write_sharegpt_messages,
    "question-answer": _write_question,
    "prompt-completion": _write_prompt,
    "prompt-completion-messages": _write_prompt_messages,
    "alpaca": _write_alpaca,
    "text": _write_text,
}


def _embodied(record: Record) -> list[str]:
    """Fields that only repeat what the turns say: another shape does without them."""
    extra = record.extra
    said = {
        "messages": ("system",),
        "sharegpt": ("system",),
        "alpaca": ("input", "system", "history"),
        "openai-dpo": ("preferred_output", "non_preferred_output"),
    }.get(family_of(record.shape), ())
    found = [key for key in said if key in extra]
    if record.shape == "trl-dpo-implicit" and "prompt" in extra:
        found.append("prompt")
    answers = extra.get("answers")
    if record.shape == "question-answer" and isinstance(answers, list) and len(answers) == 1:
        found.append("answers")
    return found


def _require_same_meaning(record: Record, row: Fields, shape: str) -> None:
    """A field that meant nothing in the old shape may mean something in the new one."""
    try:
        again = to_record(row, record.file, record.line)
    except ShapeError as error:
        raise _lost(f"its form ({error.found})") from None
    if family_of(again.shape) != family_of(shape):
        raise ShapeError("cannot-hold", f"with its other fields it would read as {again.shape}")
    for part in ("messages", "text", "preferred", "rejected", "tools"):
        if getattr(again, part) != getattr(record, part):
            raise ShapeError("cannot-hold", f"with its other fields its {part} would differ")


def _require_as_many_answers(record: Record, shape: str) -> None:
    if "dpo" in shape and not (record.preferred and record.rejected):
        raise ShapeError("cannot-hold", "a pair needs two answers, and the row has one")


def _dicts(turns: Sequence[Turn]) -> list[Fields]:
    return [dict(turn) for turn in turns]


def _with_tools(record: Record) -> Fields:
    return {"tools": _dicts(record.tools)} if record.tools else {}


def _contents(turns: Sequence[Turn]) -> list[Any]:
    """What the turns say, where role and content are all they have."""
    for turn in turns:
        beside = sorted(turn.keys() - {"role", "content"})
        if beside or "content" not in turn:
            raise _lost(
                f'the field "{beside[0]}" of a turn' if beside else "a turn without content"
            )
    return [turn["content"] for turn in turns]


def _pair(record: Record) -> tuple[Any, Any]:
    """Question and answer, of a record that is no more than that."""
    _no_pair(record)
    if [turn["role"] for turn in record.messages] != ["user", "assistant"] or record.tools:
        what = "the tools" if record.tools else f"the order of {len(record.messages)} turns"
        raise _lost(f"{what}: this shape holds one question and one answer")
    question, answer = _contents(record.messages)
    return question, answer


def _without_system(record: Record, extra: Fields) -> tuple[Sequence[Turn], Fields]:
    """The turns without a system prompt that had a field of its own, and that field."""
    _no_pair(record)
    turns, field = record.messages, extra.get("system")
    if not isinstance(field, str) or not field:
        return turns, {}
    if not turns or turns[0]["role"] != "system":
        raise _lost('the field "system", which would become a turn,')
    del extra["system"]
    (content,) = _contents(turns[:1])
    return turns[1:], {"system": content}


def _no_pair(record: Record) -> None:
    if record.text is not None:
        raise ShapeError("cannot-hold", "running text has no turns")
    if record.preferred or record.rejected:
        raise _lost("the rejected answer of the pair")


def _lost(what: str) -> ShapeError:
    return ShapeError("cannot-hold", f"{what} would be lost")
