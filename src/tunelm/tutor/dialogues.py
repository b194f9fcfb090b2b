"""Dialogues of a student and a teacher: the record, its file, and the rows it is trained on.

A file has a dialogue a line, as the chat rows that every reader here takes (docs/formats.md):
`messages` with the roles user and assistant, and beside it `strategies`, one a teacher turn. The
first message opens with the problem. So a file trains as it stands, on its last answers, and
`to_examples` makes a row of each teacher turn.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar, cast

from tunelm.data.read import scan
from tunelm.data.records import Fault, Record, to_example
from tunelm.data.strict_json import shorten
from tunelm.errors import DataError
from tunelm.rundir import write_text
from tunelm.tutor.strategies import Strategy
from tunelm.types import Example, content_hash, label_form

_E = TypeVar("_E", bound=StrEnum)
STUDENT, TEACHER = "student", "teacher"
_ROLES = {"user": STUDENT, "assistant": TEACHER}
_NAMES = {STUDENT: "user", TEACHER: "assistant"}


class Ending(StrEnum):
    """How a dialogue ended: by the first student turn that says the right answer."""

    SOLVED = "solved"
    TOLD = "solved after telling"
    UNSOLVED = "not solved"


@dataclass(frozen=True, slots=True)
class Problem:
    """What a dialogue is about.

    `solutions` are forms of the right answer, `wrong` answers that students give, the first being
    the one that follows from `misconception`, a belief in the student's words. All three may be
    unknown. Dialogues of one `group` stay on one side of a split.
    """

    text: str
    subject: str
    group: str
    solutions: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    misconception: str | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """All that one speaker says before the other speaks again.

    `strategy` is a teacher's; None is unlabelled. `move` is what the file it came from calls it.
    """

    role: str
    text: str
    strategy: Strategy | None = None
    move: str | None = None


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Turns of a student and a teacher on one problem, speaker after speaker.

    `profile` is the kind of student (tunelm.tutor.students), `ending` how it went, both None where
    unknown. `small` marks the few that make up a first look.
    """

    problem: Problem
    turns: tuple[Turn, ...] = ()
    profile: str | None = None
    ending: Ending | None = None
    small: bool = False

    @property
    def id(self) -> str:
        """Hash of the problem and of what was said."""
        return content_hash([self.problem.text, [[t.role, t.text] for t in self.turns]])

    def by(self, role: str) -> tuple[Turn, ...]:
        """The turns of one speaker."""
        return tuple(turn for turn in self.turns if turn.role == role)

    def plus(self, *turns: Turn) -> Dialogue:
        """The same dialogue, gone on."""
        return replace(self, turns=(*self.turns, *turns))

    def messages(self) -> tuple[dict[str, str], ...]:
        """It as chat: student is user, teacher is assistant, the problem opens the first message.

        Where the teacher opens, the first message is the problem alone.
        """
        rest = [{"role": _NAMES[turn.role], "content": turn.text} for turn in self.turns]
        opening = self.problem.text
        if self.turns and self.turns[0].role == STUDENT:
            opening = f"{opening}\n\n{rest.pop(0)['content']}"
        return ({"role": "user", "content": opening}, *rest)

    def to_json(self) -> dict[str, Any]:
        """A row of a file: what is unknown or empty is left out, but for strategies."""
        teacher, problem = self.by(TEACHER), self.problem
        row: dict[str, Any] = {
            "messages": list(self.messages()),
            "strategies": [turn.strategy for turn in teacher],
            "group": problem.group,
            "problem": problem.text,
            "subject": problem.subject,
            "solutions": list(problem.solutions),
            "wrong": list(problem.wrong),
            "misconception": problem.misconception,
            "profile": self.profile,
            "ending": self.ending,
            "small": self.small,
        }
        if any(turn.move for turn in teacher):
            row["moves"] = [turn.move for turn in teacher]
        return {k: v for k, v in row.items() if v not in (None, (), [], False)}


def group_of(problem: str) -> str:
    """The group of a problem that has no name: a hash of its words, whatever their case.

    >>> group_of("What is 2 + 2?") == group_of(" what is  2 + 2?")
    True
    """
    return content_hash(label_form(problem))


def faults_of(dialogue: Dialogue) -> tuple[str, ...]:
    """What is wrong with a dialogue, each with what is valid; none for a good one."""
    problem = dialogue.problem
    found = [
        f"the problem's {name} is empty" for name in ("text", "subject", "group")
        if not getattr(problem, name).strip()
    ]  # fmt: skip
    for number, turn in enumerate(dialogue.turns, 1):
        if turn.role not in _NAMES:
            found.append(f"turn {number} has role {turn.role!r}, expected student or teacher")
        if not turn.text.strip():
            found.append(f"turn {number} ({turn.role}) is empty: fill it, or join its neighbours")
        if turn.role == STUDENT and turn.strategy:
            found.append(f"turn {number} is a student's and has a strategy")
        if number > 1 and turn.role == dialogue.turns[number - 2].role:
            found.append(f"two {turn.role} turns in a row ({number - 1} and {number}): join them")
    if not dialogue.by(TEACHER):
        found.append("no teacher turn: there is nothing to learn from it")
    return tuple(found)


# --- files ------------------------------------------------------------------------------------


def read_dialogues(path: Path) -> list[Dialogue]:
    """All dialogues of a file, as `located_dialogues` reads them."""
    return [dialogue for _, dialogue in located_dialogues(path)]


def located_dialogues(path: Path) -> list[tuple[Record, Dialogue]]:
    """(row, dialogue) of all dialogues of a file (`Dialogue.to_json`, a line each).

    A row without `problem` is about its first user message; without `group`, its group is the
    problem's hash. A system message is refused: instructions belong to the task.

    Raises:
        DataError: naming every broken row as file:line, and a problem that has two groups.
    """
    found: list[tuple[Record, Dialogue]] = []
    problems: list[str] = []
    groups: dict[str, tuple[str, str]] = {}
    for item in scan(path, "messages"):
        if isinstance(item, Fault):
            problems += [str(item)] if item.level == "error" else []
            continue
        try:
            dialogue = from_record(item)
        except ValueError as error:
            problems.append(f"{item.source}: {error}")
            continue
        problems += [f"{item.source}: {fault}" for fault in faults_of(dialogue)]
        its = dialogue.problem
        group, where = groups.setdefault(label_form(its.text), (its.group, item.source))
        if group != its.group:
            problems.append(
                f"{item.source}: the problem has group {its.group!r} here and {group!r} in {where}:"
                " give it one, so that all its dialogues stand on one side of a split"
            )
        found.append((item, dialogue))
    if problems:
        raise DataError(problems)
    return found


def write_dialogues(path: Path, dialogues: Iterable[Dialogue]) -> None:
    """A line a dialogue, readable by `read_dialogues` and as chat rows."""
    lines = (json.dumps(d.to_json(), ensure_ascii=False) + "\n" for d in dialogues)
    write_text(path, "".join(lines))


def from_record(record: Record) -> Dialogue:
    """A chat row as a dialogue; whether its turns make sense is `faults_of`'s to say.

    Raises:
        ValueError: what cannot even be read, and what is valid.
    """
    extra = record.extra
    turns = [_turn(turn, number) for number, turn in enumerate(record.messages, 1)]
    if not turns or turns[0].role != STUDENT:
        raise ValueError('the first message must be the user\'s: it opens with the "problem"')
    opening = turns[0].text
    text = _string(extra, "problem") or opening
    if opening == text:
        turns = turns[1:]
    elif opening.startswith(f"{text}\n\n"):
        turns[0] = Turn(STUDENT, opening[len(text) + 2 :])
    else:
        raise ValueError(
            f'message 1 is {shorten(opening)} and must open with the "problem", {shorten(text)},'
            " and an empty line"
        )
    return Dialogue(
        problem=Problem(
            text=text,
            subject=_string(extra, "subject") or "unknown",
            group=_string(extra, "group") or group_of(text),
            solutions=_strings(extra, "solutions"),
            wrong=_strings(extra, "wrong"),
            misconception=_string(extra, "misconception"),
        ),
        turns=_labelled(turns, extra),
        profile=_string(extra, "profile"),
        ending=_member(Ending, "ending", _string(extra, "ending")),
        small=_flag(extra, "small"),
    )


def _turn(turn: Mapping[str, Any], number: int) -> Turn:
    role, content = turn["role"], turn.get("content")
    if role == "system":
        raise ValueError(f"message {number} is a system message: put instructions in [task]")
    if role not in _ROLES:
        raise ValueError(f"message {number} has role {role!r}, expected user or assistant")
    if not isinstance(content, str):
        raise ValueError(f"message {number} is {shorten(content)}, expected a text")
    return Turn(_ROLES[role], content)


def _labelled(turns: Sequence[Turn], extra: Mapping[str, Any]) -> tuple[Turn, ...]:
    """The turns with their `strategies` and `moves`."""
    count = sum(turn.role == TEACHER for turn in turns)
    strategies = _labels(extra, "strategies", count)
    moves = _labels(extra, "moves", count)
    found: list[Turn] = []
    for turn in turns:
        if turn.role == TEACHER:
            strategy = _member(Strategy, "strategy", next(strategies))
            turn = replace(turn, strategy=strategy, move=next(moves))
        found.append(turn)
    return tuple(found)


def _labels(extra: Mapping[str, Any], name: str, count: int) -> Iterator[str | None]:
    given = extra.get(name)
    if given is None:
        return iter([None] * count)
    items = cast(list[Any], given) if isinstance(given, list) else []
    if len(items) != count or not all(i is None or isinstance(i, str) for i in items):
        raise ValueError(
            f'"{name}" is {shorten(given)}, expected a list of {count}: a name or null for each'
            " assistant message"
        )
    return iter(cast(list[str | None], items))


def _member(kind: type[_E], name: str, value: str | None) -> _E | None:
    if value is None:
        return None
    try:
        return kind(value)
    except ValueError:
        raise ValueError(f"unknown {name} {value!r}, expected one of {', '.join(kind)}") from None


def _flag(extra: Mapping[str, Any], name: str) -> bool:
    value = extra.get(name, False)
    if not isinstance(value, bool):
        raise ValueError(f'"{name}" is {shorten(value)}, expected true or false')
    return value


def _string(extra: Mapping[str, Any], name: str) -> str | None:
    value = extra.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f'"{name}" is {shorten(value)}, expected a text')
    return value


def _strings(extra: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = extra.get(name, [])
    if not isinstance(value, list) or not all(isinstance(v, str) for v in cast(list[Any], value)):
        raise ValueError(f'"{name}" is {shorten(value)}, expected a list of texts')
    return tuple(cast(list[str], value))


# --- rows to train on -------------------------------------------------------------------------


def to_examples(dialogues: Iterable[Dialogue]) -> Iterator[Example]:
    """A row for each teacher turn: the whole history before it, and what the teacher said.

    A last turn of the student's has no answer to learn and is in no row. Metadata: `dialogue` (its
    id), `turn` (from 1, among the teacher's), `strategy`, `move`, `profile`, `subject`, and of the
    problem `problem`, `solutions`, `wrong` and `misconception`; what is unknown is left out. The
    group is the problem's.

    Raises:
        DataError: a dialogue is broken (`faults_of`).
    """
    for dialogue in dialogues:
        if faults := faults_of(dialogue):
            raise DataError([f"dialogue {dialogue.id}: {fault}" for fault in faults])
        messages = dialogue.messages()
        ends = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
        for number, (end, turn) in enumerate(zip(ends, dialogue.by(TEACHER), strict=True), 1):
            extra: dict[str, Any] = {
                "group": dialogue.problem.group,
                "dialogue": dialogue.id,
                "turn": number,
                "strategy": turn.strategy and turn.strategy.value,
                "move": turn.move,
                "profile": dialogue.profile,
                "subject": dialogue.problem.subject,
                "problem": dialogue.problem.text,
                "solutions": list(dialogue.problem.solutions) or None,
                "wrong": list(dialogue.problem.wrong) or None,
                "misconception": dialogue.problem.misconception,
            }
            known = {k: v for k, v in extra.items() if v is not None}
            yield to_example(Record("", 0, "messages", messages[: end + 1], extra=known))
