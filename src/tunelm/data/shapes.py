"""The shapes people write rows in, and how a row of each becomes a Record.

Each reader takes its own fields out of the row; what is left is the record's `extra`, so nothing
is lost (`unshape` writes it back). The layouts are those of OpenAI's fine-tuning files, of TRL's
dataset formats, of Stanford Alpaca and of ShareGPT.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from tunelm.data.records import Record, Turn
from tunelm.data.strict_json import shorten

VALID_ROW = (
    'a JSON object with "question" and "answer" (or "answers"), or with "messages" that end in'
    " an assistant message"
)


class ShapeError(ValueError):
    """A row that is not of its shape, or that a shape cannot hold; `code` names the fault."""

    def __init__(self, code: str, found: str, mend: str = "") -> None:
        self.code = code
        self.found = found
        self.mend = mend
        super().__init__(f"{found} {mend}".strip())


Fields = dict[str, Any]
Place = tuple[str, int]


class Shape(NamedTuple):
    """A family of rows: what it is, and the fields that show it (any of the sets)."""

    what: str
    needs: tuple[frozenset[str], ...]


def _shape(what: str, *needs: str) -> Shape:
    return Shape(what, tuple(frozenset(n.split()) for n in needs))


SHAPES: Mapping[str, Shape] = {
    "messages": _shape('"messages" as OpenAI writes them, with weight and tools', "messages"),
    "openai-dpo": _shape(
        "a preference pair as OpenAI writes it: input, preferred_output, non_preferred_output",
        "input preferred_output",
        "input non_preferred_output",
    ),
    "trl-dpo": _shape("a preference pair as TRL writes it: prompt, chosen, rejected",
                      "chosen rejected"),
    "sharegpt": _shape('"conversations" of turns with from and value', "conversations"),
    "question-answer": _shape(
        '"question" and "answer", or several "answers"', "question answer", "question answers"
    ),
    "prompt-completion": _shape('"prompt" and "completion"', "prompt completion"),
    "alpaca": _shape('"instruction", "input", "output"', "instruction output"),
    "text": _shape('running text, as "text"', "text"),
}  # fmt: skip
"""Family -> what it is. The order decides where a row has the fields of several."""

_ALIASES = {
    "question": ("question", "query", "problem", "prompt", "instruction", "input", "user"),
    "answer": ("answer", "response", "output", "completion", "solution", "ground_truth", "reply"),
    "text": ("text", "content", "document", "body", "passage", "sentence"),
}
CALLS = {"tool_calls", "function_call", "refusal", "audio"}
ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant",
          "bard": "assistant", "model": "assistant"}  # fmt: skip
SPEAKERS = {"user": "human", "assistant": "gpt"}


def detect(fields: Collection[str]) -> str | None:
    """The family that a row with these fields belongs to."""
    names = set(fields)
    for family, shape in SHAPES.items():
        if any(needed <= names for needed in shape.needs):
            return family
    return None


def required(family: str, fields: Collection[str]) -> frozenset[str]:
    """The fields that make a row with these fields one of the family."""
    names = set(fields)
    return frozenset[str]().union(*(n for n in SHAPES[family].needs if n <= names))


def to_record(row: Mapping[str, Any], file: str, line: int, family: str | None = None) -> Record:
    """A row as a Record; `family` None finds out which.

    Raises:
        ShapeError: it has none of the shapes, or is not what its fields promise.
    """
    family = family or detect(row)
    if family is None or not any(needed <= row.keys() for needed in SHAPES[family].needs):
        raise unknown(row, family)
    return _READ[family](dict(row), (file, line))


def family_of(shape: str) -> str:
    """`trl-dpo` for `trl-dpo-messages`."""
    return max((f for f in SHAPES if shape.startswith(f)), key=len, default=shape)


def unknown(fields: Collection[str], family: str | None = None) -> ShapeError:
    """The fault of a row or table with these fields, with a guess at what they mean."""
    names = sorted(fields)
    found = f"found the fields {', '.join(map(_plain_name, names)) or 'nothing'}"
    expected = VALID_ROW if family is None else SHAPES[family].what
    return ShapeError(
        "unknown-shape",
        f"{found if len(found) < 300 else found[:297] + '...'}; expected {expected}.",
        _guess(names),
    )


def _guess(names: Sequence[str]) -> str:
    """How to map the fields, by names that people use for ours."""
    folded = {name.casefold().strip(): name for name in reversed(names)}
    near = {
        ours: next((folded[a] for a in aliases if a in folded), None)
        for ours, aliases in _ALIASES.items()
    }
    pair = near["question"] and near["answer"] and near["question"] != near["answer"]
    wanted = ("question", "answer") if pair else ("text",) if near["text"] else ()
    pairs = ", ".join(f"{o} = {json.dumps(near[o])}" for o in wanted if near[o] != o)
    if not pairs:
        return 'Name its fields by data.columns = { question = "...", answer = "..." }.'
    return f"Perhaps data.columns = {{ {pairs} }}."


def _plain_name(name: str) -> str:
    return name if name.isprintable() and name.strip() else repr(name)


# --- reading: each takes what it knows out of the row ------------------------------------------


def _read_messages(row: Fields, at: Place) -> Record:
    turns = (*_system(row), *_turns(row.pop("messages"), "messages"))
    return Record(*at, "messages", messages=turns, tools=_tools(row), extra=row)


def _read_question(row: Fields, at: Place) -> Record:
    question = _turn("user", row.pop("question"))
    if "answers" not in row:
        messages = (question, _turn("assistant", row.pop("answer")))
        return Record(*at, "question-answer", messages=messages, extra=row)
    answers = row["answers"]
    if not isinstance(answers, list):
        raise ShapeError(
            "answers-not-a-list", f'"answers" is {shorten(answers, 200)}, expected a list of texts'
        )
    gold = [_turn("assistant", answers[0])] if answers else []
    return Record(*at, "question-answer", messages=(question, *gold), extra=row)


def _read_prompt(row: Fields, at: Place) -> Record:
    prompt, completion = row.pop("prompt"), row.pop("completion")
    if not isinstance(prompt, list) and not isinstance(completion, list):
        messages = (_turn("user", prompt), _turn("assistant", completion))
        return Record(*at, "prompt-completion", messages=messages, extra=row)
    if not isinstance(prompt, list) or not isinstance(completion, list):
        raise _mixed("prompt", "completion")
    first, second = _turns(prompt, "prompt"), _turns(completion, "completion")
    messages = (*first, *second)
    if reply_start(messages) != len(first):
        raise ShapeError(
            "mixed-forms",
            'the "completion" is not the turns after the last user turn',
            'Write the row as "messages", with "weight" 0 on answers that are not to be learned.',
        )
    return Record(
        *at, "prompt-completion-messages", messages=messages, tools=_tools(row), extra=row
    )


def _read_alpaca(row: Fields, at: Place) -> Record:
    instruction, answer, given = row.pop("instruction"), row.pop("output"), row.get("input")
    turns = _system(row)
    if row.get("history"):
        for pair in _list(row.pop("history"), "history"):
            if not isinstance(pair, list) or len(pair) != 2:
                raise ShapeError(
                    "turns-not-a-list",
                    f'"history" holds {shorten(pair, 200)}, expected pairs of question and answer',
                )
            turns += [_turn("user", pair[0]), _turn("assistant", pair[1])]
    if given not in (None, ""):
        if not isinstance(instruction, str) or not isinstance(given, str):
            what = f'"instruction" or "input" is no text: {shorten(instruction)}, {shorten(given)}'
            raise ShapeError("not-text", what)
        instruction = f"{instruction}\n\n{given}" if instruction else given
    turns += [_turn("user", instruction), _turn("assistant", answer)]
    return Record(*at, "alpaca", messages=tuple(turns), extra=row)


def _read_sharegpt(row: Fields, at: Place) -> Record:
    items = _list(row.pop("conversations"), "conversations")
    if items and all(isinstance(item, dict) and "role" in item for item in items):
        turns = (*_system(row), *_turns(items, "conversations"))
        return Record(*at, "sharegpt-messages", messages=turns, tools=_tools(row), extra=row)
    turns = _system(row)
    for position, item in enumerate(items, 1):
        if not isinstance(item, dict):
            raise _broken("turn-not-object", position, item, '"from" and "value"')
        if not isinstance(item.get("from"), str) or {"role", "content"} & item.keys():
            raise _broken("missing-role", position, item, '"from" and "value"')
        if "value" not in item:
            raise _broken("missing-content", position, item, '"from" and "value"')
        speaker = str(item["from"])
        role = ROLES.get(speaker, speaker)
        turn = {"role": role, "content": item["value"]}
        turn |= {k: v for k, v in item.items() if k not in ("from", "value")}
        if SPEAKERS.get(role, role) != speaker:
            turn["from"] = speaker
        turns.append(turn)
    return Record(*at, "sharegpt", messages=tuple(turns), tools=_tools(row), extra=row)


def _read_openai_dpo(row: Fields, at: Place) -> Record:
    given = row.pop("input")
    if not isinstance(given, dict) or "messages" not in given:
        raise ShapeError("unknown-shape", f'"input" is {shorten(given)}, expected {{"messages"}}')
    rest = dict(given)
    messages, tools = _turns(rest.pop("messages"), "input.messages"), _tools(rest)
    if rest and rest.keys() == {"parallel_tool_calls"} - row.keys():
        row |= rest  # where the other shapes have it
    elif rest or "parallel_tool_calls" in row:
        row["input"] = rest
    parts = [_answer(row, key) for key in ("preferred_output", "non_preferred_output")]
    return Record(*at, "openai-dpo", messages, None, parts[0], parts[1], tools, row)


def _read_trl_dpo(row: Fields, at: Place) -> Record:
    chosen, rejected = row.pop("chosen"), row.pop("rejected")
    if not isinstance(chosen, list) and not isinstance(rejected, list):
        if isinstance(row.get("prompt"), list):
            raise _mixed("prompt", "chosen")
        if "prompt" not in row and row.keys() & set(_ALIASES["question"]):
            raise ShapeError(
                "unknown-shape",
                f'found "chosen" and "rejected" without "prompt", but {", ".join(sorted(row))}.',
                'Say which is the prompt: data.columns = { prompt = "..." }.',
            )
        messages = (_turn("user", row.pop("prompt")),) if "prompt" in row else ()
        pair = (_turn("assistant", chosen),), (_turn("assistant", rejected),)
        return Record(*at, "trl-dpo", messages, None, *pair, extra=row)
    if not isinstance(chosen, list) or not isinstance(rejected, list):
        raise _mixed("chosen", "rejected")
    good, bad = _turns(chosen, "chosen"), _turns(rejected, "rejected")
    tools = _tools(row)
    if isinstance(row.get("prompt"), list):
        messages = _turns(row.pop("prompt"), "prompt")
        return Record(*at, "trl-dpo-messages", messages, None, good, bad, tools, row)
    same = _common_start(good, bad)
    if not same and isinstance(row.get("prompt"), str):
        messages = (_turn("user", row.pop("prompt")),)
        return Record(*at, "trl-dpo-mixed", messages, None, good, bad, tools, row)
    return Record(*at, "trl-dpo-implicit", good[:same], None, good[same:], bad[same:], tools, row)


def _read_text(row: Fields, at: Place) -> Record:
    text = row.pop("text")
    if not isinstance(text, str):
        raise ShapeError("not-text", f'"text" is {shorten(text, 200)}, expected a text')
    return Record(*at, "text", text=text, extra=row)


_READ: Mapping[str, Callable[[Fields, Place], Record]] = {
    "messages": _read_messages,
    "openai-dpo": _read_openai_dpo,
    "trl-dpo": _read_trl_dpo,
    "sharegpt": _read_sharegpt,
    "question-answer": _read_question,
    "prompt-completion": _read_prompt,
    "alpaca": _read_alpaca,
    "text": _read_text,
}


def _turn(role: str, content: Any) -> Turn:
    return {"role": role, "content": content}


def _turns(value: Any, field: str) -> tuple[Turn, ...]:
    """Checked so far that every turn has a role and something to say."""
    name = "message" if field == "messages" else f"{field} message"
    expected = '"role" and "content"'
    for position, item in enumerate(_list(value, field), 1):
        if not isinstance(item, dict):
            raise _broken("turn-not-object", position, item, expected, name)
        if not isinstance(item.get("role"), str):
            raise _broken("missing-role", position, item, expected, name)
        if "content" not in item and not CALLS & item.keys():
            raise _broken("missing-content", position, item, expected, name)
    return tuple(value)


def _list(value: Any, field: str) -> list[Any]:
    if not isinstance(value, list):
        what = "at least a user and an assistant message" if field == "messages" else "turns"
        raise ShapeError("turns-not-a-list", f'"{field}" must be a list of {what}')
    return value


def _tools(row: Fields) -> tuple[Mapping[str, Any], ...]:
    """The row's tools, taken out of it; anything but a list of objects stays where it is."""
    tools = row.get("tools")
    if not isinstance(tools, list) or not tools or not all(isinstance(t, dict) for t in tools):
        return ()
    del row["tools"]
    return tuple(tools)


def _system(row: Fields) -> list[Turn]:
    """A system prompt in a field of its own is a turn; the field stays, to say where it stood."""
    system = row.get("system")
    return [_turn("system", system)] if isinstance(system, str) and system else []


def _answer(row: Fields, key: str) -> tuple[Turn, ...]:
    """One side of a pair; an empty list stays in the row, so that it is not taken for none."""
    turns = _turns(row[key], key) if key in row else ()
    if turns:
        del row[key]
    return turns


def reply_start(turns: Sequence[Turn]) -> int:
    """Where the turns after the last user turn begin."""
    return max((i for i, turn in enumerate(turns, 1) if turn["role"] == "user"), default=0)


def _common_start(good: Sequence[Turn], bad: Sequence[Turn]) -> int:
    """How many turns both begin with, at least one being left to each."""
    most = max(min(len(good), len(bad)) - 1, 0)
    alike = (json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)
             for a, b in zip(good, bad, strict=False))  # fmt: skip
    return next((i for i, same in enumerate(alike) if not same or i >= most), most)


def _broken(
    code: str, position: int, item: Any, expected: str, name: str = "message"
) -> ShapeError:
    return ShapeError(code, f"{name} {position} is {shorten(item, 200)}; expected {expected}")


def _mixed(one: str, other: str) -> ShapeError:
    return ShapeError(
        "mixed-forms",
        f'one of "{one}" and "{other}" is a text and the other a list of turns',
        "Write both as texts, or both as lists.",
    )
