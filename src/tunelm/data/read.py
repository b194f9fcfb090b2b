"""Rows on disk become Examples, one at a time; every fault is named with file and line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunelm.errors import DataError
from tunelm.types import Example, Message, content_hash

VALID_ROW = (
    'a JSON object with "question" and "answer" (or "answers"), or with "messages" that end in'
    " an assistant message"
)
KNOWN = {"question", "answer", "answers", "messages", "context", "group", "key_answer"}


@dataclass(frozen=True, slots=True)
class Row:
    """One row and where it stands, as `file:line`."""

    source: str
    example: Example


def read_rows(path: Path, most_problems: int = 100) -> Iterator[Row]:
    """The rows of a JSONL file.

    A row has "question" and "answer" (or a list "answers"), or OpenAI-style "messages" whose
    last one is the assistant's; optional "context", "group" (default: the row's own content)
    and "key_answer" (the part that must be in an answer for it to be right). Other fields are
    kept as metadata. A leading system message is refused: instructions belong to the task.

    Raises DataError naming every broken row (up to `most_problems`) once the file is read, so a
    caller who needs all or nothing must read to the end before acting.
    """
    problems: list[str] = []
    rows = 0
    for number, text in _lines(path):
        source = f"{path.name}:{number}"
        try:
            yield Row(source, parse_row(text))
            rows += 1
        except ValueError as error:
            problems.append(f"{path}:{number}: {error}")
            if len(problems) >= most_problems:
                break
    if problems:
        raise DataError(problems)
    if rows == 0:
        raise DataError(f"{path}: the file is empty. Each line should be {VALID_ROW}.")


def parse_row(text: str) -> Example:
    """One line of JSON as an Example. Raises ValueError with what was found and what is valid.

    >>> row = parse_row('{"question": "1 + 1?", "answer": "2"}')
    >>> row.messages[0].content, row.answers
    ('1 + 1?', ('2',))
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        shown = text if len(text) <= 60 else text[:57] + "..."
        raise ValueError(
            f"not valid JSON ({error.msg} at column {error.colno}): {shown!r}"
        ) from None
    except RecursionError:
        raise ValueError("JSON nested too deeply") from None
    if not isinstance(data, dict):
        raise ValueError(f"found {type(data).__name__}, expected {VALID_ROW}")
    messages, answers = _messages(data) if "messages" in data else _pair(data)
    content = {
        "messages": [[m.role, m.content] for m in messages],
        "answers": answers,
        "context": data.get("context"),
    }
    identity = content_hash(content)
    key = data.get("key_answer")
    metadata = {k: v for k, v in data.items() if k not in KNOWN}
    if key is not None:
        metadata["key_answers"] = [str(k) for k in (key if isinstance(key, list) else [key])]
    return Example(
        id=identity,
        messages=messages,
        answers=answers,
        group=str(data.get("group", identity)),
        context=None if data.get("context") is None else str(data["context"]),
        metadata=metadata,
    )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number, text) of each line that is not blank."""
    if path.is_dir():
        raise DataError(f"{path}: is a folder; data.path must name a JSONL file.")
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                try:
                    text = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{path}:{number}: not UTF-8 text (byte {error.start + 1} of the line is "
                        f"0x{raw[error.start]:02x}). Save the file as UTF-8."
                    ) from None
                if text:
                    yield number, text
    except FileNotFoundError:
        raise DataError(f"{path}: no such file. data.path must name a JSONL file.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from None


def _pair(data: dict[str, Any]) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    if "question" not in data or not ("answer" in data or "answers" in data):
        found = ", ".join(sorted(data)) or "nothing"
        raise ValueError(f"found the fields {found}; expected {VALID_ROW}")
    answers = data["answers"] if "answers" in data else [data["answer"]]
    if not isinstance(answers, list) or not answers:
        raise ValueError(f'"answers" is {answers!r}, expected a list of texts')
    question = _text(data["question"], "question")
    return (Message("user", question),), tuple(_text(a, "answer") for a in answers)


def _messages(data: dict[str, Any]) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    items = data["messages"]
    if not isinstance(items, list) or len(items) < 2:
        raise ValueError('"messages" must be a list of at least a user and an assistant message')
    messages: list[Message] = []
    for position, item in enumerate(items, 1):
        if not isinstance(item, dict) or not {"role", "content"} <= set(item):
            raise ValueError(f'message {position} is {item!r}; expected "role" and "content"')
        expected = "user" if position % 2 else "assistant"
        if item["role"] != expected:
            hint = " Put instructions in [task]." if item["role"] == "system" else ""
            raise ValueError(
                f"message {position} has role {item['role']!r}, expected {expected!r}: user and"
                f" assistant take turns.{hint}"
            )
        messages.append(Message(expected, _text(item["content"], f"message {position}")))
    if messages[-1].role != "assistant":
        raise ValueError("the last message must be the assistant's: it is the gold answer")
    return tuple(messages[:-1]), (messages[-1].content,)


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f'"{what}" is {value!r}, expected a text')
    if not value.strip():
        raise ValueError(f'"{what}" is empty')
    return value
