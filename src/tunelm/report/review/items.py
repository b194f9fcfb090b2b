"""What people are shown: rows of a run with all routes' answers, under letters drawn by chance."""

from __future__ import annotations

import dataclasses
import random
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from tunelm.data.signs import is_hidden
from tunelm.errors import ConfigError, RunDirError
from tunelm.report.read import RouteRun, Run
from tunelm.report.review.criteria import Criterion
from tunelm.scoring.dialogue_metrics import TALKS
from tunelm.tutor.teaching import without_note
from tunelm.types import Example, content_hash

LETTERS = string.ascii_uppercase
_ASKED_FOR = re.compile(r"^Teacher, asked for [A-Za-z ]+: ", re.MULTILINE)
_ROLES = {"user": "User", "assistant": "Assistant", "system": "System"}
_SPEAKERS = {"user": "Student", "assistant": "Teacher"}


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of an item: its letter, its text, and the routes that gave it."""

    letter: str
    text: str
    routes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Item:
    """One row or conversation: what was asked (who, text), the data's answer, all answers."""

    number: int
    example: str
    group: str
    asked: tuple[tuple[str, str], ...]
    reference: str
    answers: tuple[Answer, ...]

    def answer_of(self, route: str) -> Answer:
        """The answer that a route gave."""
        return next(answer for answer in self.answers if route in answer.routes)


@dataclass(frozen=True, slots=True)
class Sheet:
    """A whole sheet with its key.

    `seeds` says under which of its seeds each route was taken; `unanswered` how many rows were
    not drawn from because a route failed on them, by route, and `rows` how many there were.
    """

    task: str
    kind: str
    instructions: str
    part: str
    criteria: tuple[Criterion, ...]
    seeds: Mapping[str, int]
    items: tuple[Item, ...]
    rows: int
    unanswered: Mapping[str, int]

    @property
    def hash(self) -> str:
        """What every row of the sheet carries: a hash of all that raters are shown.

        It begins with letters, so that no spreadsheet takes it for a number.
        """
        shown = [
            [item.number, item.asked, item.reference, [[a.letter, a.text] for a in item.answers]]
            for item in self.items
        ]
        criteria = [[c.name, c.question] for c in self.criteria]
        return f"sheet-{content_hash([self.task, self.instructions, criteria, shown])}"

    @property
    def routes(self) -> tuple[str, ...]:
        """The routes, in the run's order."""
        return tuple(self.seeds)

    @property
    def of_conversations(self) -> bool:
        """Whether items are whole conversations."""
        return self.part.endswith(TALKS)

    def to_json(self) -> dict[str, Any]:
        """A plain dict, for JSON."""
        return {"sheet": self.hash, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        fields = {name: value for name, value in data.items() if name != "sheet"}
        fields["criteria"] = tuple(Criterion(**c) for c in fields["criteria"])
        fields["items"] = tuple(_item(item) for item in fields["items"])
        return cls(**fields)


def _item(data: Mapping[str, Any]) -> Item:
    fields = dict(data)
    fields["asked"] = tuple((who, text) for who, text in data["asked"])
    fields["answers"] = tuple(
        Answer(a["letter"], a["text"], tuple(a["routes"])) for a in data["answers"]
    )
    return Item(**fields)


def draw(
    run: Run, names: Sequence[str], criteria: Sequence[Criterion], most: int, seed: int
) -> Sheet:
    """A sheet of up to `most` test rows, or test conversations where the task has them.

    Rows are drawn among those that every route answered, one of each group before any group has
    a second. All routes' answers to a row stand together in an order drawn anew for each; the
    same text is shown once. Each route is taken under its first finished seed: what is served.

    Args:
        run: a run with finished routes.
        names: of routes; none: all finished ones but controls and parity checks.
        criteria: what each answer is rated by.
        most: rows to draw.
        seed: of the drawing and of the order of answers.

    Raises:
        ConfigError: a name that is no finished route, too many routes, or a task of running text.
        RunDirError: no route has finished, or no row was answered by all.
    """
    routes = _routes(run, names)
    part = f"test{TALKS}" if f"test{TALKS}" in run.parts else "test"
    rows = run.parts[part]
    if run.task["kind"] == "text":
        raise ConfigError(f"{run.path}: a task of running text has no answers that could be rated.")
    outputs = {r.name: r.finished[0].outputs[part] for r in routes}
    answered = [e for e in rows if all(o.get(e.id) is not None for o in outputs.values())]
    unanswered = {n: sum(o.get(e.id) is None for e in rows) for n, o in outputs.items()}
    if not answered:
        failed = ", ".join(f"{name} {count}" for name, count in unanswered.items())
        raise RunDirError(
            f"{run.path}: no row was answered by all of these routes; failed of {len(rows)} rows: "
            f"{failed}. Name fewer routes with --routes."
        )
    drawn = _by_group(answered, most, random.Random(f"rows {seed}"))
    items = tuple(
        _shuffled(number, example, outputs, run.task["kind"], part, seed)
        for number, example in enumerate(drawn, 1)
    )
    return Sheet(
        run.task["name"],
        run.task["kind"],
        run.task["instructions"],
        part,
        tuple(criteria),
        {r.name: r.finished[0].seed for r in routes},
        items,
        len(rows),
        unanswered,
    )


def _routes(run: Run, names: Sequence[str]) -> list[RouteRun]:
    done = {route.name: route for route in run.routes if route.finished}
    if not done:
        raise RunDirError(f"{run.path}: no route has finished. Go on with --resume.")
    for name in names:
        if name not in done:
            raise ConfigError(
                f"{run.path}: no finished route {name!r}. There are: {', '.join(done)}."
            )
    usual = [r for r in done.values() if not r.control and r.parity_of is None]
    chosen = [r for r in done.values() if r.name in names] if names else usual or [*done.values()]
    if len(chosen) > len(LETTERS):
        raise ConfigError(
            f"{len(chosen)} routes, and there are {len(LETTERS)} letters. Name fewer with --routes."
        )
    return chosen


def _by_group(rows: Sequence[Example], most: int, chance: random.Random) -> list[Example]:
    """Rows in an order drawn by chance, every group's first before any group's second."""
    groups: dict[str, list[Example]] = {}
    for row in chance.sample(rows, len(rows)):
        groups.setdefault(row.group, []).append(row)
    order = chance.sample(list(groups.values()), len(groups))
    longest = max(map(len, order))
    return [g[turn] for turn in range(longest) for g in order if turn < len(g)][:most]


def _shuffled(
    number: int,
    example: Example,
    outputs: Mapping[str, Mapping[str, str | None]],
    kind: str,
    part: str,
    seed: int,
) -> Item:
    routes_of: dict[str, list[str]] = {}
    for name, texts in outputs.items():
        text = as_shown(texts[example.id] or "", part)
        routes_of.setdefault(text, []).append(name)
    texts = sorted(routes_of)
    random.Random(f"letters {seed} {example.id}").shuffle(texts)
    answers = tuple(
        Answer(letter, text, tuple(routes_of[text]))
        for letter, text in zip(LETTERS, texts, strict=False)
    )
    asked, reference = _asked(example, kind, part)
    return Item(number, example.id, example.group, asked, reference, answers)


def _asked(example: Example, kind: str, part: str) -> tuple[tuple[tuple[str, str], ...], str]:
    """What was asked, by whom, and the data's own answers."""
    reference = clean("\n".join(example.answers))
    if part.endswith(TALKS):
        return (("Problem", clean(str(example.metadata["problem"]))),), reference
    names, text_of = (_SPEAKERS, without_note) if kind == "dialogue" else (_ROLES, str)
    asked = [(names.get(m.role, m.role), clean(text_of(m.content))) for m in example.messages]
    if len(asked) == 1:
        asked = [("Asked", asked[0][1])]
    given = [("Given", clean(example.context))] if example.context else []
    return (*given, *asked), reference


def as_shown(output: str, part: str) -> str:
    """An answer as raters see it: of a conversation without the strategies that were asked for."""
    return clean(_ASKED_FOR.sub("Teacher: ", output) if part.endswith(TALKS) else output)


def clean(text: str) -> str:
    r"""A text with signs that are not seen made visible, and its line ends made one.

    Files of cells cannot hold some of them; others turn the direction of writing.

    >>> clean(" a\r\nb\x00\u202e") == "a\nb‹U+0000›‹U+202E›"
    True
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").strip()
    return "".join(f"‹U+{ord(c):04X}›" if is_hidden(c) else c for c in lines)
