"""What is counted of rows, one at a time: the input of a profile and of its findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tunelm.data import wording
from tunelm.data.records import Record, Turn

ANSWER = "(the answer)"
"""Stands among the fields where the answers themselves are a few labels."""
_CONTENT = frozenset(("answer", "answers", "context", "functions", "id", "key_answer"))


class Facts(NamedTuple):
    """What is counted of one row.

    `marks` is what is true of it: the families of pronouns in its question and answer, whether
    only he or only she stands in it, whether its answer sounds positive or negative.
    """

    source: str
    words: int
    marks: frozenset[str]
    names: frozenset[str]
    inside: frozenset[str]


@dataclass(slots=True)
class Tally:
    """Running counts over some rows. `units` holds the groups they are in, as hashes."""

    rows: int = 0
    units: set[int] = field(default_factory=set[int])
    words: Counter[int] = field(default_factory=Counter[int])
    marks: Counter[str] = field(default_factory=Counter[str])
    names: Counter[str] = field(default_factory=Counter[str])
    where: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def add(self, facts: Facts, unit: int | None) -> None:
        """Count one row; of each mark the first few rows that have it are kept by name."""
        self.rows += 1
        if unit is not None:
            self.units.add(unit)
        self.words[facts.words] += 1
        self.marks.update(facts.marks)
        self.names.update(facts.names)
        for mark in facts.marks:
            seen = self.where.setdefault(mark, [])
            if len(seen) < 5:
                seen.append(facts.source)

    def per_row(self, clustered: bool) -> float:
        """Independent units a row: 1, or groups over rows where rows come in groups."""
        return min(1.0, len(self.units) / self.rows) if clustered and self.units else 1.0


@dataclass(frozen=True, slots=True)
class Counts:
    """All that was counted of a file. `clustered`: its rows come in groups of related ones.

    `fields` are those that sort rows into kinds; `group` is none, it says what belongs together.
    """

    overall: Tally
    fields: Mapping[str, Mapping[str, Tally]]
    groups: Counter[str]
    clustered: bool
    inside: Counter[str]

    def names(self, tally: Tally, most: int) -> tuple[tuple[str, int], ...]:
        """The most frequent names among some rows, each with its rows (two at least).

        A word counts as a name where two of its rows, and a tenth, have it inside a sentence:
        so `The`, which heads many sentences, is none.
        """
        known: list[tuple[str, int]] = []
        for name, rows in tally.names.most_common():
            if rows < 2 or len(known) == most:
                break
            if self.inside[name] >= max(2, self.overall.names[name] / 10):
                known.append((name, rows))
        return tuple(known)


def facts_of(record: Record) -> Facts:
    """What is counted of a row."""
    question, answer = sides(record)
    question_words, answer_words = wording.english_words(question), wording.english_words(answer)
    asked, said = wording.pronouns(question_words), wording.pronouns(answer_words)
    marks = {f"question {name}" for name in asked} | {f"answer {name}" for name in said}
    persons = (asked | said) & {"he", "she"}
    if len(persons) == 1:
        marks.add(f"only {next(iter(persons))}")
    tone = wording.tone(answer_words)
    if tone:
        marks.add("positive" if tone > 0 else "negative")
    if wording.looks_english(question_words) or wording.looks_english(answer_words):
        marks.add("english")
    every, inside = wording.names(f"{question}\n{answer}")
    return Facts(record.source, len(answer.split()), frozenset(marks), every, inside)


def sides(record: Record) -> tuple[str, str]:
    """(all that comes before the answer, the answer) of a row. Only the last turn answers."""
    if record.text is not None:
        return "", record.text
    turns = (*record.messages, *record.preferred)
    answered = bool(turns) and turns[-1].get("role") == "assistant"
    before = turns[:-1] if answered else turns
    return _text(before), _text(turns[-1:] if answered else ())


def categories(record: Record) -> Iterator[tuple[str, str]]:
    """(field, value) of what may sort rows into kinds: single values, and the answer."""
    for name, value in record.extra.items():
        if name not in _CONTENT and isinstance(value, str | bool | int) and value != "":
            yield name, str(value)
    if record.text is None:
        yield ANSWER, sides(record)[1].strip()


def _text(turns: Sequence[Turn]) -> str:
    return "\n".join(_content(turn.get("content")) for turn in turns)


def _content(content: object) -> str:
    """A turn's text; of content in parts, the text parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts: list[Any] = content
    return "\n".join(str(p["text"]) for p in parts if isinstance(p, dict) and "text" in p)
