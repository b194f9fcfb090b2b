"""Which way to try first, and why: rules from a table (`tables/rules.toml`) held against facts."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunelm.price_list import TABLES

WAYS: Mapping[str, str] = {
    "control": "controls: a constant answer, and the base model with the task's instructions",
    "classifier": "a classifier without a language model (TF-IDF, logistic regression)",
    "nearest": "the answer of the nearest known question, or none",
    "rule": "answers written by a rule, without any model",
    "prompt": "an optimized prompt, with demonstrations",
    "rag": "retrieval: passages found for each question",
    "local": "LoRA on your own machine",
    "hybrid": "prompt, then weights on the optimized program",
    "hosted": "a hosted model with a prompt",
    "hosted-tune": "a hosted fine-tune",
    "qlora": "QLoRA: LoRA on weights in 4 bits",
    "dora": "DoRA and other variants of LoRA",
    "full": "full fine-tuning",
}
"""What can be recommended or ruled out, in words."""

FACTS: Mapping[str, str] = {
    "kind": "the kind of task",
    "train_rows": "rows to train on",
    "text": "whether it is running text",
    "dialogue": "whether it is a task of dialogues",
    "corpus": "whether text that states the facts is given",
    "knowledge": "whether it asks for facts",
    "form": "whether form or tone is what is asked for",
    "faq": "whether answers are those of a fixed list, or a refusal",
    "ruled": "whether there is a rule that writes answers of this form",
    "private": "whether data must not leave",
    "broke": "whether the budget is 0",
    "only_qlora": "whether no model of a billion parameters fits but in 4 bits",
}
"""What conditions may ask for."""

Facts = Mapping[str, str | float | bool]


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition and what follows; `place` 0 rules the way out."""

    id: str
    when: tuple[str, ...]
    way: str
    place: int
    reason: str
    source: str
    changes: str


@dataclass(frozen=True, slots=True)
class Setting:
    """A key parameter of a way, and why."""

    id: str
    way: str
    key: str
    value: str | int
    reason: str
    source: str


@dataclass(frozen=True, slots=True)
class Advice:
    """Ways in the order to try them, and those that were ruled out; with the rules behind each."""

    order: tuple[tuple[str, tuple[Rule, ...]], ...]
    against: tuple[tuple[str, tuple[Rule, ...]], ...]

    @property
    def ways(self) -> tuple[str, ...]:
        """The recommended ways, in order."""
        return tuple(way for way, _ in self.order)


@functools.cache
def rules() -> tuple[Rule, ...]:
    """All rules of the table."""
    return tuple(Rule(when=tuple(r.pop("when")), **r) for r in _table()["rule"])


@functools.cache
def settings() -> tuple[Setting, ...]:
    """All settings of the table."""
    return tuple(Setting(**s) for s in _table()["setting"])


def advise(facts: Facts) -> Advice:
    """What to try, in order, and what not.

    A way that any rule rules out is not tried, whatever others say for it.

    >>> advice = advise({**dict.fromkeys(FACTS, False), "kind": "qa", "train_rows": 20})
    >>> advice.ways[:2], "local" in advice.ways
    (('control', 'prompt'), False)
    """
    fired = [rule for rule in rules() if all(holds(c, facts) for c in rule.when)]
    against = {rule.way for rule in fired if rule.place == 0}
    wanted = {rule.way for rule in fired} - against

    def of(way: str, out: bool) -> tuple[Rule, ...]:
        return tuple(r for r in fired if r.way == way and (r.place == 0) == out)

    def place(way: str) -> int:
        return min(rule.place for rule in of(way, out=False))

    order = sorted(wanted, key=lambda way: (place(way), list(WAYS).index(way)))
    return Advice(
        tuple((way, of(way, out=False)) for way in order),
        tuple((way, of(way, out=True)) for way in WAYS if way in against),
    )


def holds(condition: str, facts: Facts) -> bool:
    """Whether a condition of the table is met.

    >>> holds("train_rows >= 50", {"train_rows": 50}), holds("not text", {"text": True})
    (True, False)
    """
    found = re.fullmatch(r"(not )?(\w+)(?: (<|>=|==) ([\w.]+))?", condition)
    if found is None or found[2] not in FACTS:
        raise ValueError(f"{condition!r} is no condition on one of {', '.join(FACTS)}")
    value = facts[found[2]]
    if found[3] is None:
        return bool(value) != bool(found[1])
    if found[3] == "==":
        return str(value) == found[4]
    return (float(value) < float(found[4])) == (found[3] == "<")


_FORM = re.compile(
    r"\b(tone|polite\w*|empath\w*|style|format\w*|voice|wording|friendly|brand|template|concise"
    r"|docstring\w*|structured|consisten\w+)\b",
    re.IGNORECASE,
)
_KNOWLEDGE = re.compile(
    r"\b(knowledge|facts?|faq\w*|documents?|documentation|manuals?|handbooks?|polic(?:y|ies)"
    r"|textbooks?|catalog\w*|regulations?|wiki|look up)\b",
    re.IGNORECASE,
)
_PRIVATE = re.compile(
    r"\b(confidential|private|patients|patient (?:data|records?)|medical records?|personal data"
    r"|gdpr|on.premises?|must not leave)\b",
    re.IGNORECASE,
)


_KINDS = {
    "dialogue": r"\b(tutor\w*|teacher|dialogues?|conversations?|chat\s?bot)\b",
    "classification": r"\b(classif\w+|categor\w+|label\w*|sort(?:ing)? (?:into|by)|topics?)\b",
    "generation": r"\b(writ\w+|draft\w*|repl(?:y|ies)|e-?mails?|summar\w+|docstrings?)\b",
}


def kind_said(scenario: str) -> str:
    """The kind of task that a scenario's words speak of, where there are no rows to tell it.

    >>> kind_said("Sort headlines by topic"), kind_said("Answer questions about our products")
    ('classification', 'qa')
    """
    found = (k for k, words in _KINDS.items() if re.search(words, scenario, re.IGNORECASE))
    return next(found, "qa")


def words_for(what: str, texts: Sequence[str]) -> list[str]:
    """The words in a scenario or in instructions that speak for form, knowledge or private.

    >>> words_for("form", ["Write in a polite tone."])
    ['polite', 'tone']
    """
    pattern = {"form": _FORM, "knowledge": _KNOWLEDGE, "private": _PRIVATE}[what]
    return list(dict.fromkeys(m.group().lower() for t in texts for m in pattern.finditer(t)))


def _table() -> dict[str, list[dict[str, Any]]]:
    return tomllib.loads((TABLES / "rules.toml").read_text(encoding="utf-8"))
