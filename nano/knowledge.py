"""The facts that everything here is written from, and who gets to see which.

Each file under `facts/` is one subject: relations with templates, and (key, value) pairs.
Every fact belongs to one of three shelves, by a hash of its id, so that adding a fact moves
no other:

    asked     stated in prose and asked about in the pretraining text
    stated    stated in prose there, never asked about
    unseen    never in the pretraining text; only the textbook states it

The bundled tasks are made of `stated` and `unseen` facts only: the model has never been asked
about any of them, and cannot know the unseen ones without the textbook.
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path

FACTS = Path(__file__).parent / "facts"
OWN_DOMAIN = "biology"
"""The subject that is a task of its own, and therefore asked about less in pretraining."""


@dataclass(frozen=True)
class Relation:
    """Templates with {k}, {v} (as given) and {K}, {V} (first letter upper-cased)."""

    subject: str
    name: str
    questions: tuple[str, ...]
    answer: str
    prose: tuple[str, ...]
    wordy: tuple[str, ...]


@dataclass(frozen=True)
class Fact:
    """One key and its value under a relation."""

    relation: Relation
    key: str
    value: str

    @property
    def id(self) -> str:
        """Subject, relation and key: the group of every row made from this fact."""
        return f"{self.relation.subject}/{self.relation.name}/{self.key}".replace(" ", "_")

    @property
    def shelf(self) -> str:
        """asked, stated or unseen."""
        asked, stated = (25, 72) if self.relation.subject == OWN_DOMAIN else (45, 79)
        point = spread(self.id) % 100
        return "asked" if point < asked else "stated" if point < stated else "unseen"

    def fill(self, template: str, value: str | None = None) -> str:
        """The template with this fact in it, or with another value in its place."""
        v = self.value if value is None else value
        text = template.replace("{k}", self.key).replace("{v}", v)
        return text.replace("{K}", capital(self.key)).replace("{V}", capital(v))

    @property
    def answer(self) -> str:
        """The gold answer: one concise sentence."""
        return capital(self.fill(self.relation.answer))


def spread(text: str) -> int:
    """A stable pseudo-random number for a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def capital(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def load_facts(folder: Path = FACTS) -> list[Fact]:
    """All facts of all subjects, in file order."""
    facts: list[Fact] = []
    for path in sorted(folder.glob("*.toml")):
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        for entry in data["relation"]:
            relation = Relation(
                subject=data["subject"],
                name=entry["name"],
                questions=tuple(entry["questions"]),
                answer=entry["answer"],
                prose=tuple(entry["prose"]),
                wordy=tuple(entry["wordy"]),
            )
            facts.extend(Fact(relation, str(k), str(v)) for k, v in entry["facts"])
    return facts
