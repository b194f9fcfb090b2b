"""Simulated students beside the students of MathDial, on the same problems and teacher's turns.

Each dialogue is played again: the teacher's turns as they were, with their moves as strategies,
and a simulated student in the place of the one who was there. "Right after k" is the share of
dialogues in which one of the student's first k turns gives the right answer, by the same rule for
all (tunelm.tutor.solved); intervals are by problem. MathDial's students are a language model that
was given a wrong solution and teachers who are people (Macina et al. 2023), which is why they are
wordy. A recorded teacher answers somebody else, so the simulated students are at a disadvantage
that grows with the turns.

    python benchmarks/students.py --rows ../shared/data/mathdial/mathdial.jsonl
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tunelm.tutor.dialogues import STUDENT, TEACHER, Dialogue
from tunelm.tutor.imports import import_dialogues
from tunelm.tutor.solved import ending_of, solved_at
from tunelm.tutor.students import FROZEN, PROFILES, make_student

AFTER = (1, 2, 3, 4, 5)


def main() -> None:
    """Print a row for the real students and one for each profile; `--out` writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default="../shared/data/mathdial/mathdial.jsonl", type=Path)
    parser.add_argument("--seed", default=0, type=int)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    usable = [d for d in import_dialogues(args.rows, "mathdial") if d.problem.wrong]
    rows = {"MathDial": rates(usable)}
    played = {name: [replay(d, name, args.seed) for d in usable] for name in PROFILES}
    rows |= {name: rates(dialogues) for name, dialogues in played.items()}
    rows["all profiles"] = rates([d for dialogues in played.values() for d in dialogues])
    groups = len({d.problem.group for d in usable})
    print(f"{len(usable)} dialogues on {groups} problems; students {FROZEN}, seed {args.seed}")
    heads = [f"right after {k}" for k in AFTER] + ["words a turn", "questions", "told first"]
    print("| students | " + " | ".join(heads) + " |\n" + "|---" * (len(heads) + 1) + "|")
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(shown(row[head]) for head in heads) + " |")
    agree = agreement(usable)
    print("teacher's own word on the outcome, and the rule's: " + json.dumps(agree))
    if args.out:
        args.out.write_text(json.dumps({"rates": rows, "agreement": agree}, indent=2) + "\n")


def replay(dialogue: Dialogue, profile: str, seed: int) -> Dialogue:
    """The dialogue with a simulated student where the real one spoke."""
    student = make_student(profile, seed)
    played = dataclasses.replace(dialogue, turns=())
    for turn in dialogue.turns:
        played = played.plus(turn) if turn.role == TEACHER else student.answer(played)
    return played


def rates(dialogues: Sequence[Dialogue]) -> dict[str, tuple[float, float, float]]:
    """Name to (value, low, high): shares of dialogues, and means over student turns."""
    row = {
        f"right after {k}": of_groups(dialogues, lambda d, k=k: [(solved_at(d) or k + 1) <= k])
        for k in AFTER
    }
    row["words a turn"] = of_groups(
        dialogues, lambda d: [len(t.text.split()) for t in d.by(STUDENT)]
    )
    row["questions"] = of_groups(dialogues, lambda d: ["?" in t.text for t in d.by(STUDENT)])
    row["told first"] = of_groups(dialogues, lambda d: [ending_of(d) == "solved after telling"])
    return row


def of_groups(
    dialogues: Sequence[Dialogue], values: Callable[[Dialogue], Sequence[float]]
) -> tuple[float, float, float]:
    """The mean of the dialogues' values, with a 95% bootstrap interval over problems."""
    sums: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for dialogue in dialogues:
        found = values(dialogue)
        sums[dialogue.problem.group] += float(sum(found))
        counts[dialogue.problem.group] += len(found)
    total, number = (np.array([c[g] for g in counts], float) for c in (sums, counts))
    picks = np.random.default_rng(0).integers(len(total), size=(1000, len(total)))
    low, high = np.quantile(total[picks].sum(1) / number[picks].sum(1), (0.025, 0.975))
    return float(total.sum() / number.sum()), float(low), float(high)


def agreement(dialogues: Sequence[Dialogue]) -> dict[str, Any]:
    """How often `ending_of` says what the teacher said about the outcome."""
    known = [d for d in dialogues if d.ending]
    pairs = Counter((str(d.ending), str(ending_of(d))) for d in known)
    same = sum(n for (theirs, rule), n in pairs.items() if theirs == rule)
    return {
        "n": len(known),
        "same": same / len(known),
        "pairs": {" -> ".join(pair): n for pair, n in sorted(pairs.items())},
    }


def shown(value: tuple[float, float, float]) -> str:
    """Value and interval."""
    digits = 1 if value[0] > 1 else 2
    return "{:.{d}f} [{:.{d}f}, {:.{d}f}]".format(*value, d=digits)


if __name__ == "__main__":
    main()
