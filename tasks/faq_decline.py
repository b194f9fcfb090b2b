"""The task `faq-decline`: the FAQ of a public library, questions to it, and others besides.

The library is invented, as is all that its FAQ says. Sources: faq_decline/entries.md (each entry's
question, answer and key answers, and four other wordings of the question) and
faq_decline/negatives.md (questions that the FAQ does not answer, by kind).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunelm.data.shingles import jaccard, shingles

SOURCES = Path(__file__).parent / "faq_decline"
DECLINE = "I do not know: the FAQ does not say."
FAMILY = 0.5
"""Two wordings that share this part of their words and pairs of neighbours are one family."""


@dataclass(frozen=True)
class Entry:
    """One entry of the FAQ. `wordings` are other ways to ask its question."""

    id: str
    heading: str
    question: str
    answer: str
    keys: tuple[str, ...]
    wordings: tuple[str, ...]


def build(target: Path) -> None:
    """Write faq.md and faq_questions.jsonl into `target`."""
    entries = read_entries()
    text, lines = faq_page(entries)
    (target / "faq.md").write_text(text, encoding="utf-8", newline="\n")
    rows = [*answerable(entries, lines), *unanswerable()]
    written = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (target / "faq_questions.jsonl").write_text(written, encoding="utf-8", newline="\n")


def read_entries() -> list[Entry]:
    """The entries, numbered in order: faq-01, faq-02, ..."""
    entries: list[Entry] = []
    heading = ""
    for block in (SOURCES / "entries.md").read_text(encoding="utf-8").split("\n\n"):
        lines = block.strip().split("\n")
        if lines[0].startswith("## "):
            heading = lines.pop(0).removeprefix("## ")
        question, answer, keys, *wordings = lines
        entries.append(
            Entry(
                f"faq-{len(entries) + 1:02d}",
                heading,
                question.removeprefix("Q: "),
                answer.removeprefix("A: "),
                tuple(keys.removeprefix("K: ").split(" | ")),
                tuple(wording.removeprefix("- ") for wording in wordings),
            )
        )
    return entries


def faq_page(entries: list[Entry]) -> tuple[str, dict[str, int]]:
    """The FAQ as a page, and the line on which each entry stands: one paragraph each."""
    lines = ["# Questions to the Quillbrook Public Library", ""]
    places: dict[str, int] = {}
    heading = ""
    for entry in entries:
        if entry.heading != heading:
            heading = entry.heading
            lines += [f"## {heading}", ""]
        lines += [f"[{entry.id}] {entry.question} {entry.answer}", ""]
        places[entry.id] = len(lines) - 1
    return "\n".join(lines[:-1]) + "\n", places


def answerable(entries: list[Entry], places: dict[str, int]) -> Iterator[dict[str, Any]]:
    """A row for each wording of each entry's question. A group is a family of wordings."""
    for entry in entries:
        questions = (entry.question, *entry.wordings)
        for question, family in zip(questions, families(questions), strict=True):
            yield {
                "question": question,
                "answer": f"{entry.answer} [{entry.id}]",
                "key_answer": list(entry.keys),
                "faq": entry.id,
                "negative": None,
                "source": f"faq.md:{places[entry.id]}",
                "group": f"{entry.id}/{family}",
            }


def families(questions: tuple[str, ...]) -> list[int]:
    """For each question the number of the first one that it is like, directly or through others."""
    first = list(range(len(questions)))
    for late, question in enumerate(questions):
        for early in range(late):
            if jaccard(shingles(question), shingles(questions[early])) >= FAMILY:
                joined = {first[late], first[early]}
                first = [min(joined) if own in joined else own for own in first]
    return first


def unanswerable() -> Iterator[dict[str, Any]]:
    """A row, and a group, for each question that the FAQ does not answer."""
    kind = ""
    numbers: dict[str, int] = {}
    for line in (SOURCES / "negatives.md").read_text(encoding="utf-8").split("\n"):
        if line.startswith("## "):
            kind = line.removeprefix("## ")
        elif line.startswith("- "):
            numbers[kind] = numbers.get(kind, 0) + 1
            yield {
                "question": line.removeprefix("- "),
                "answer": DECLINE,
                "faq": None,
                "negative": kind,
                "group": f"{kind}/{numbers[kind]}",
            }
