"""Dialogues from published sets of tutoring: MathDial, Bridge, CIMA.

Their own labels are kept as each turn's `move`; `strategy` is ours, by the tables below. A label
that says nothing of ours maps to None: unlabelled is better than wrong. The licences are the sets'
own: MathDial CC BY-SA 4.0, Bridge MIT, CIMA CC BY 2.5.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunelm.data.read import raw_rows
from tunelm.data.records import Fault
from tunelm.errors import ConfigError, DataError
from tunelm.tutor.dialogues import STUDENT, TEACHER, Dialogue, Ending, Problem, Turn, group_of
from tunelm.tutor.strategies import Strategy

MATHDIAL: Mapping[str, Strategy | None] = {
    "focus": Strategy.SCAFFOLDING,
    "probing": Strategy.SOCRATIC,
    "telling": Strategy.TELLING,
    "generic": None,
}
"""MathDial's moves (Macina et al. 2023, table 1).

focus: constrains the student to make progress (seek a strategy, guide the focus, recall what is
relevant). probing: generalises beyond the step (asks for an explanation, self-correction, a
changed problem). telling: reveals a strategy or the answer. generic: greetings, general inquiries
and closings, which are several of ours or none.
"""

BRIDGE: Mapping[tuple[str, str | None], Strategy | None] = {
    ("ask_question", "diagnose_mistake"): Strategy.CLARIFICATION,
    ("ask_question", "elaborate_answer"): Strategy.CLARIFICATION,
    ("ask_question", None): Strategy.SOCRATIC,
    ("explain_concept", None): Strategy.TELLING,
    ("provide_hint", None): Strategy.HINT,
    ("provide_strategy", None): Strategy.SCAFFOLDING,
    ("simplify_question", None): Strategy.SCAFFOLDING,
    ("provide_similar_problem", None): Strategy.SCAFFOLDING,
    ("provide_correction", None): Strategy.MISCONCEPTION,
    ("provide_example", None): Strategy.EXAMPLE,
    ("encourage_student", None): Strategy.ENCOURAGEMENT,
    ("affirm_correct_answer", None): Strategy.ENCOURAGEMENT,
}
"""Bridge's (strategy `z_what`, intention `z_why`) of the expert (Wang et al. 2024).

None as intention stands for every other one. What experts wrote in free text maps to None.
"""

CIMA = ("question", "hint", "correction", "confirmation", "other")
"""CIMA's action vector, in the order of the file (Stasaski et al. 2020): several may be set.

A correction is misconception handling, whatever else is done; a hint with a question is
scaffolding, each alone a hint or a Socratic question; a confirmation alone is encouragement;
other alone is None.
"""

_ENDINGS = {
    "Yes": Ending.SOLVED,
    "Yes, but I had to reveal the answer": Ending.TOLD,
    "No": Ending.UNSOLVED,
}
_MOVE = re.compile(r"\((\w+)\)(.*)", re.DOTALL)


def import_dialogues(path: Path, source: str) -> list[Dialogue]:
    """All dialogues of a published file; `source` is a name of `SOURCES`.

    What one speaker says in several messages is one turn, with the last label given in it; a
    message without text is left out. Of CIMA, each of the replies to one history is a dialogue.

    Raises:
        ConfigError: no such source.
        DataError: the file is not that source's, or broken, with file:line.
    """
    if source not in SOURCES:
        raise ConfigError(
            f"no source {source!r} of dialogues, expected one of {', '.join(SOURCES)}"
        )
    found: list[Dialogue] = []
    problems: list[str] = []
    for item in raw_rows(path, "jsonl"):
        if isinstance(item, Fault):
            problems += [str(item)] if item.level == "error" else []
            continue
        try:
            found += SOURCES[source](item.fields)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            what = f"no field {error}" if isinstance(error, KeyError) else str(error)
            problems.append(f"{item.file}:{item.line}: no row of {source} ({what})")
    if problems:
        raise DataError(problems)
    return found


def _mathdial(row: Mapping[str, Any]) -> Iterator[Dialogue]:
    said: list[Turn] = []
    for part in row["conversation"].split("|EOM|"):
        speaker, _, text = part.partition(":")
        if speaker.strip() != "Teacher":  # the file writes Student, or a student's first name
            said.append(Turn(STUDENT, text.strip()))
            continue
        labelled = _MOVE.match(text.strip())
        if labelled is None:
            raise ValueError(f"a teacher turn without its move: {text.strip()[:60]!r}")
        move = labelled[1]
        said.append(Turn(TEACHER, labelled[2].strip(), MATHDIAL[move], move))
    wrong = _last_line(row["student_incorrect_solution"])
    solution = _last_line(row["ground_truth"])
    yield Dialogue(
        problem=Problem(
            text=" ".join(row["question"].split()),
            subject="mathematics",
            group=row["group"],
            solutions=(solution,) if solution else (),
            wrong=(wrong,) if wrong and wrong != solution else (),
            misconception=row["teacher_described_confusion"] or None,
        ),
        turns=_joined(said),
        ending=_ENDINGS.get(row["self-correctness"]),
    )


def _bridge(row: Mapping[str, Any]) -> Iterator[Dialogue]:
    what, why = row["z_what"], row["z_why"]
    strategy = BRIDGE.get((what, why), BRIDGE.get((what, None)))
    roles = {"tutor": TEACHER, "student": STUDENT}
    history = [Turn(roles[m["user"]], m["text"].strip()) for m in row["c_h"]]
    move = f"{what} / {why}"
    reply = [Turn(TEACHER, m["text"].strip(), strategy, move) for m in row["c_r_"]]
    text = f"Lesson: {row['lesson_topic']}"
    yield Dialogue(
        # The file names no problem: sessions of one lesson work through the same ones.
        problem=Problem(text, "mathematics", group_of(text)),
        turns=_joined([*history, *reply]),
    )


def _cima(row: Mapping[str, Any]) -> Iterator[Dialogue]:
    phrase = f"{row['engPrep']} {row['engColor']} {row['engObj']}"
    text = f'Say it in Italian: "... {phrase}".'
    solution = f"{row['prep']} {row['obj']} {row['color']}"
    # An article that ends in an apostrophe stands before its noun without a space.
    problem = Problem(text, "language", group_of(text), (solution.replace("' ", "'"),))
    roles = (TEACHER, STUDENT)  # the tutor opens, and they take turns
    history = [Turn(roles[i % 2], said.strip()) for i, said in enumerate(row["past_convo"])]
    for said, actions in zip(row["tutorResponses"], row["tutorActions"], strict=True):
        done = {name for name, set_ in zip(CIMA, actions, strict=True) if set_}
        move = " + ".join(name for name in CIMA if name in done) or None
        reply = Turn(TEACHER, said.strip(), _of_actions(done), move)
        yield Dialogue(problem, _joined([*history, reply]))


def _of_actions(done: set[str]) -> Strategy | None:
    """See `CIMA`."""
    if "correction" in done:
        return Strategy.MISCONCEPTION
    if {"hint", "question"} <= done:
        return Strategy.SCAFFOLDING
    for name, strategy in (
        ("hint", Strategy.HINT),
        ("question", Strategy.SOCRATIC),
        ("confirmation", Strategy.ENCOURAGEMENT),
    ):
        if name in done:
            return strategy
    return None


SOURCES: Mapping[str, Callable[[Mapping[str, Any]], Iterator[Dialogue]]] = {
    "mathdial": _mathdial,
    "bridge": _bridge,
    "cima": _cima,
}
"""The sets that can be imported, and who reads a row of each."""


def _joined(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """Speaker-complete turns: neighbours of one speaker become one, empty ones go."""
    found: list[Turn] = []
    for turn in turns:
        if not turn.text:
            continue
        if found and found[-1].role == turn.role:
            last = found.pop()
            labelled = turn if turn.move else last
            text = f"{last.text} {turn.text}"
            turn = Turn(turn.role, text, labelled.strategy, labelled.move)
        found.append(turn)
    return tuple(found)


def _last_line(text: str) -> str:
    """Where MathDial's solutions have their answer."""
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""
