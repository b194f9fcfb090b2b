"""Write the bundled tasks' files from the facts: rows, and the textbook.

    python nano/build_tasks.py

edu_qa.jsonl           all subjects but biology: two questions a fact, the fact is the group
edu_biology_qa.jsonl   biology: a domain of its own
small_edu_qa.jsonl     5 pairs, for a first look
edu_qa_extended.jsonl  20 pairs, the five among them
tutor_dialogues.jsonl  teacher and student on facts of all subjects, see dialogues.py
textbook.md            every fact in prose, also those the model never saw
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

from dialogues import generate
from knowledge import OWN_DOMAIN, Fact, capital, load_facts, spread

from tunelm.tutor.dialogues import write_dialogues

TASKS = Path(__file__).parents[1] / "src" / "tunelm" / "tasks"
QUESTIONS_A_FACT = 2


def row(fact: Fact, question: str) -> dict[str, str]:
    """One row of a task."""
    return {
        "question": capital(fact.fill(question)),
        "answer": fact.answer,
        "key_answer": fact.value,
        "subject": fact.relation.subject,
        "group": fact.id,
    }


def wordings(fact: Fact, count: int) -> list[str]:
    """`count` of the fact's question templates, chosen by its id."""
    templates = fact.relation.questions
    first = spread(fact.id + "?") % len(templates)
    return [templates[(first + i * 2) % len(templates)] for i in range(count)]


def write_rows(path: Path, facts: list[Fact], count: int) -> None:
    """A JSONL file, a line a question, in an order that mixes the subjects."""
    rows = [(f, q) for f in facts for q in wordings(f, count)]
    rows.sort(key=lambda item: spread(item[0].id + item[1]))
    lines = [json.dumps(row(f, q), ensure_ascii=False) for f, q in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{path.name}: {len(rows)} rows, {len(facts)} groups")


def pairs(facts: list[Fact], count: int) -> list[Fact]:
    """Well-spread facts the model was asked about, one subject after the other."""
    by_subject: dict[str, list[Fact]] = defaultdict(list)
    for fact in sorted(facts, key=lambda f: spread(f.id + "pair")):
        if fact.shelf == "asked":
            by_subject[fact.relation.subject].append(fact)
    chosen: list[Fact] = []
    for rank in range(count):
        chosen += [by_subject[s][rank] for s in sorted(by_subject)]
    return chosen[:count]


def textbook(facts: list[Fact]) -> str:
    """Chapters by subject, a paragraph a relation, every fact once."""
    text = ["# The textbook", "", "What the bundled tasks ask about, in plain prose.", ""]
    subject = name = ""
    for fact in facts:
        if fact.relation.subject != subject:
            subject = fact.relation.subject
            text += ["", f"## {capital(subject.replace('_', ' '))}"]
        if fact.relation.name != name:
            name = fact.relation.name
            text += ["", f"### {capital(name.replace('_', ' '))}", ""]
        prose = fact.relation.prose
        text.append(capital(fact.fill(prose[spread(fact.id + "!") % len(prose)])))
    return "\n".join(text) + "\n"


def main(out: Path) -> None:
    """Write all files."""
    facts = load_facts()
    asked_in_tasks = [f for f in facts if f.shelf != "asked"]
    own = [f for f in asked_in_tasks if f.relation.subject == OWN_DOMAIN]
    others = [f for f in asked_in_tasks if f.relation.subject != OWN_DOMAIN]
    write_rows(out / "edu_qa.jsonl", others, QUESTIONS_A_FACT)
    write_rows(out / "edu_biology_qa.jsonl", own, QUESTIONS_A_FACT)
    write_rows(out / "small_edu_qa.jsonl", pairs(facts, 5), 1)
    write_rows(out / "edu_qa_extended.jsonl", pairs(facts, 20), 1)
    dialogues = list(generate(facts))
    write_dialogues(out / "tutor_dialogues.jsonl", dialogues)
    groups = {dialogue.problem.group for dialogue in dialogues}
    print(f"tutor_dialogues.jsonl: {len(dialogues)} dialogues, {len(groups)} groups")
    (out / "textbook.md").write_text(textbook(facts), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=TASKS, help="another folder")
    main(parser.parse_args().out)
