"""People's labels of replies: the file, and the published sets and own dialogues read as one.

A file has a reply a line: the dialogue before it as chat (`messages`; the student is the user), the
`reply`, and `labels` by name. docs/judge.md describes it with the forms of published sets.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tunelm.data.read import raw_rows
from tunelm.data.records import Fault
from tunelm.data.strict_json import shorten
from tunelm.errors import ConfigError, DataError
from tunelm.tutor.dialogues import Dialogue, group_of, read_dialogues, to_examples
from tunelm.tutor.imports import import_dialogues
from tunelm.types import Example, Message, as_messages, content_hash

LADDER = ("No", "To some extent", "Yes")
"""The usual order, from worst to best; a label file may use a part of it."""

ORDERS: Mapping[str, tuple[str, ...]] = {
    "revealing_of_the_answer": ("Yes", "To some extent", "No"),
}
"""Names of labels for which it is better not to do it."""

_SPEAKERS = {"tutor": "assistant", "teacher": "assistant", "student": "user"}
_SAYS = re.compile(r"(?:^|\n)\s*(Tutor|Teacher|Student)\s*:", re.IGNORECASE)
_PROBLEM = re.compile(r"The question is:\s*(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Labelled:
    """A reply and what people said of it.

    Replies of one `item` answer the same words and can be compared with each other; those of one
    `group` are never split between training and testing; `system` is who wrote the reply.
    """

    example: Example
    output: str
    label: str | float
    group: str
    system: str | None
    item: str


@dataclass(frozen=True, slots=True)
class Reply:
    """A row of a file with all its labels, before one of them is chosen."""

    where: str
    messages: tuple[Message, ...]
    reply: str
    labels: Mapping[str, str | float]
    group: str | None = None
    system: str | None = None
    item: str | None = None
    problem: str | None = None
    solutions: tuple[str, ...] = ()


def read_labels(path: Path, target: str, source: str = "labels") -> list[Labelled]:
    """The replies of a file that carry the label `target`.

    A target is the name of a label (`actionability`), several added up (`a+b`: the mean of their
    places between worst and best), or one class against the rest (`strategy=telling`: 1 or 0).

    Args:
        path: the file.
        target: what to read.
        source: a name of `SOURCES`: the form of the file.

    Raises:
        ConfigError: no such source, or labels that cannot be added up.
        DataError: broken rows as file:line, or no reply with that label; the names there are.
    """
    replies = read_replies(path, source)
    names = {name for reply in replies for name in reply.labels}
    label_of = _choice(target, names, path)
    found = [_labelled(reply, label) for reply in replies if (label := label_of(reply)) is not None]
    if not found:
        raise DataError(f"{path}: no reply has all of the labels {target!r}")
    kinds = Counter(type(row.label) for row in found)
    if len(kinds) > 1:
        raise DataError(
            f"{path}: the label {target!r} is a number in {kinds[float]} rows and a text in"
            f" {kinds[str]}: make it one of both"
        )
    return found


def read_replies(path: Path, source: str = "labels") -> list[Reply]:
    """All labelled replies of a file. Raises as `read_labels`."""
    if source not in SOURCES:
        raise ConfigError(f"no form {source!r} of labels, expected one of {', '.join(SOURCES)}")
    replies = list(SOURCES[source](Path(path)))
    if not replies:
        raise DataError(f"{path}: no labelled replies in the form {source!r}")
    return replies


def order_of(target: str, labels: Sequence[str | float], given: Sequence[str] = ()) -> list[str]:
    """The labels from worst to best; empty where they are numbers, or classes without an order.

    Raises:
        ConfigError: the order that was given leaves a label out.
    """
    if any(isinstance(label, float) for label in labels):
        return []
    present = cast(set[str], set(labels))
    order = tuple(given) or ORDERS.get(target, LADDER)
    missing = sorted(present - set(order))
    if given and missing:
        raise ConfigError(
            f"the order {', '.join(given)} leaves out {', '.join(missing)}: name every label,"
            " from worst to best"
        )
    return [] if missing else [label for label in order if label in present]


def place_of(target: str, label: str | float) -> float | None:
    """A label as a number: itself, or its place in the usual order from 0 to 1; None: it has none.

    >>> place_of("actionability", "To some extent"), place_of("revealing_of_the_answer", "Yes")
    (0.5, 0.0)
    """
    if isinstance(label, float):
        return label
    order = ORDERS.get(target, LADDER)
    return order.index(label) / (len(order) - 1) if label in order else None


def _choice(target: str, names: set[str], path: Path) -> Callable[[Reply], str | float | None]:
    """The function that takes the target's label from a reply; None where it has none."""
    if target in names:
        return lambda reply: reply.labels.get(target)
    name, equals, wanted = target.partition("=")
    if equals and name in names:

        def is_it(reply: Reply) -> float | None:
            return float(reply.labels[name] == wanted) if name in reply.labels else None

        return is_it
    parts = [part.strip() for part in target.split("+")]
    if missing := [part for part in parts if part not in names]:
        raise DataError(
            f"{path}: no reply has a label {missing[0]!r}, there are {', '.join(sorted(names))}"
        )

    def mean(reply: Reply) -> float | None:
        if any(part not in reply.labels for part in parts):
            return None
        places = [place_of(part, reply.labels[part]) for part in parts]
        known = [place for place in places if place is not None]
        if len(known) < len(parts):
            raise ConfigError(
                f"{reply.where}: {target} cannot be added up: labels must be numbers or among"
                f" {', '.join(LADDER)}"
            )
        return sum(known) / len(known)

    return mean


def _labelled(reply: Reply, label: str | float) -> Labelled:
    said = [[m.role, m.content] for m in reply.messages]
    item = reply.item or content_hash(said)
    metadata: dict[str, Any] = {}
    if reply.problem:
        metadata["problem"] = reply.problem
    if reply.solutions:
        metadata["solutions"] = list(reply.solutions)
    group = reply.group or (group_of(reply.problem) if reply.problem else item)
    example = Example(content_hash([said, reply.reply]), reply.messages, (), group, None, metadata)
    return Labelled(example, reply.reply, label, group, reply.system, item)


# --- the forms of files -------------------------------------------------------------------------


def _rows(path: Path, one: Callable[[Mapping[str, Any], str], Iterator[Reply]]) -> Iterator[Reply]:
    """What `one` makes of every row; all its complaints at once, as file:line."""
    problems: list[str] = []
    for row in raw_rows(path):
        if isinstance(row, Fault):
            problems += [str(row)] if row.level == "error" else []
            continue
        where = f"{row.file}:{row.line}"
        try:
            yield from one(row.fields, where)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"no field {error}" if isinstance(error, KeyError) else str(error)
            problems.append(f"{where}: {what}")
    if problems:
        raise DataError(problems)


def _own(fields: Mapping[str, Any], where: str) -> Iterator[Reply]:
    messages, reply, labels = (fields[name] for name in ("messages", "reply", "labels"))
    for message in messages if isinstance(messages, list) else [None]:
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise ValueError(
                f'"messages" holds {shorten(message)}, expected {{"role", "content"}} with the'
                " roles user (the student) and assistant (the teacher)"
            )
        if message["role"] not in ("user", "assistant"):
            raise ValueError(f"a message has role {message['role']!r}, expected user or assistant")
        if not isinstance(message["content"], str):
            raise ValueError(f'"content" is {shorten(message["content"])}, expected a text')
    if not isinstance(reply, str) or not reply.strip():
        raise ValueError(f'"reply" is {shorten(reply)}, expected a text')
    if not isinstance(labels, dict) or not labels:
        raise ValueError(f'"labels" is {shorten(labels)}, expected a name and a label at least')
    solutions = fields.get("solutions", [])
    if not isinstance(solutions, list) or not all(isinstance(s, str) for s in solutions):
        raise ValueError(f'"solutions" is {shorten(solutions)}, expected a list of texts')
    texts = {name: _text(fields, name) for name in ("group", "system", "item", "problem")}
    known = {str(k): _label(k, v) for k, v in labels.items() if v is not None}
    yield Reply(
        where, as_messages(messages), reply, known, solutions=tuple(solutions), **texts
    )  # fmt: skip


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str | int):
        raise ValueError(f'"{name}" is {shorten(value)}, expected a text')
    return None if value in (None, "") else str(value)


def _label(name: object, value: object) -> str | float:
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        raise ValueError(f"the label {name!r} is {shorten(value)}, expected a text or a number")
    return value if isinstance(value, str) else float(value)


def _mrbench(fields: Mapping[str, Any], where: str) -> Iterator[Reply]:
    """A reply a row, or MRBench's own file: a conversation with the replies of all its tutors."""
    history = str(fields["conversation_history"]).replace("\xa0", " ")
    pieces = _SAYS.split(history)
    messages = tuple(
        Message(_SPEAKERS[speaker.lower()], text.strip())
        for speaker, text in zip(pieces[1::2], pieces[2::2], strict=True)
    )
    opening = _PROBLEM.search(messages[0].content) if messages else None
    solution = str(fields.get("ground_truth_solution") or fields.get("Ground_Truth_Solution") or "")
    item = str(fields["conversation_id"])
    problem = " ".join(opening[1].split()) if opening else None
    if "response" in fields:
        replies = {str(fields["tutor"]): (fields["response"], fields["labels"])}
    else:
        given = fields.get("anno_llm_responses") or fields["tutor_responses"]
        replies = {who: (its["response"], its["annotation"]) for who, its in given.items()}
    for system, (reply, labels) in replies.items():
        yield Reply(
            where=where,
            messages=messages,
            reply=reply,
            labels={name.lower(): _mrbench_label(label) for name, label in labels.items()},
            group=fields.get("group") or (None if problem else item),
            system=system,
            item=item,
            problem=problem,
            solutions=() if solution in ("", "Not Available") else (solution.strip(),),
        )


def _mrbench_label(label: str) -> str:
    """Whether a revealed answer is right is another question: both are Yes."""
    return "Yes" if label.startswith("Yes (") else label


def _uptake(fields: Mapping[str, Any], where: str) -> Iterator[Reply]:
    """Mean uptake of three raters, 0 to 2; exchanges that they found off task have none."""
    if fields["uptake"] != "":
        yield Reply(
            where=where,
            messages=(Message("user", fields["student_text"]),),
            reply=fields["teacher_text"],
            labels={"uptake": float(fields["uptake"])},
            group=fields["obs_id"],
            item=f"{fields['obs_id']}:{fields['exchange_idx']}",
        )


def _of_dialogues(
    dialogues: Sequence[Dialogue], path: Path, labels: Callable[[Mapping[str, Any]], dict[str, str]]
) -> Iterator[Reply]:
    """Every labelled turn of a teacher's."""
    for example in to_examples(dialogues):
        meta = example.metadata
        if found := labels(meta):
            yield Reply(
                where=str(path),
                messages=example.messages,
                reply=example.answers[0],
                labels=cast(dict[str, str | float], found),
                group=example.group,
                problem=meta.get("problem"),
                solutions=tuple(meta.get("solutions", ())),
            )


def _turns(path: Path) -> Iterator[Reply]:
    def labels(meta: Mapping[str, Any]) -> dict[str, str]:
        return {"strategy": meta["strategy"]} if "strategy" in meta else {}

    return _of_dialogues(read_dialogues(path), path, labels)


def _mathdial(path: Path) -> Iterator[Reply]:
    """`move4` is what the file says; `move` joins focus and probing, which people mix up."""

    def labels(meta: Mapping[str, Any]) -> dict[str, str]:
        if (move := meta.get("move")) is None:
            return {}
        return {"move4": move, "move": "scaffold" if move in ("focus", "probing") else move}

    return _of_dialogues(import_dialogues(path, "mathdial"), path, labels)


SOURCES: Mapping[str, Callable[[Path], Iterator[Reply]]] = {
    "labels": lambda path: _rows(path, _own),
    "mrbench": lambda path: _rows(path, _mrbench),
    "uptake": lambda path: _rows(path, _uptake),
    "mathdial": _mathdial,
    "turns": _turns,
}
"""The forms of files and who reads them."""
