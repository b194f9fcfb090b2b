"""Who said the right answer first: the rule by which a conversation counts as solved."""

from __future__ import annotations

from tunelm.scoring.said import gives_away, settles_on
from tunelm.tutor.dialogues import STUDENT, TEACHER, Dialogue, Ending, Problem
from tunelm.tutor.strategies import Strategy, guess_strategy


def is_right(text: str, problem: Problem) -> bool:
    """Whether a student's words give a solution as the answer (`settles_on`)."""
    return settles_on(text, problem.solutions, problem.wrong)


def reveals(dialogue: Dialogue, position: int) -> bool:
    """Whether the turn at `position` (from 0) gives the answer away.

    It does where it says a solution that stands neither in an earlier turn nor in the problem; in
    a turn labelled as telling, the problem may name it (as one of two to choose from).
    """
    turn, its = dialogue.turns[position], dialogue.problem
    before = [earlier.text for earlier in dialogue.turns[:position]]
    if turn.strategy is not Strategy.TELLING:
        before.append(its.text)
    return gives_away(turn.text, its.solutions, before)


def strategy_of(dialogue: Dialogue, position: int) -> Strategy:
    """The label of the teacher's turn at `position` (from 0), or a guess (`guess_strategy`)."""
    turn = dialogue.turns[position]
    if turn.strategy:
        return turn.strategy
    students = (t for t in dialogue.turns[:position] if t.role == STUDENT)
    solved = any(is_right(t.text, dialogue.problem) for t in students)
    return guess_strategy(turn.text, reveals(dialogue, position), solved)


def ending_of(dialogue: Dialogue) -> Ending | None:
    """How it ended; None where the problem has no known solution.

    Solved is said by the student before the teacher said it; solved after telling is said by the
    student only then.
    """
    if not dialogue.problem.solutions:
        return None
    told = False
    for position, turn in enumerate(dialogue.turns):
        if turn.role == TEACHER:
            told = told or reveals(dialogue, position)
        elif is_right(turn.text, dialogue.problem):
            return Ending.TOLD if told else Ending.SOLVED
    return Ending.UNSOLVED


def solved_at(dialogue: Dialogue) -> int | None:
    """The number (from 1, among the student's) of the first right turn; None if there is none."""
    turns = (turn for turn in dialogue.turns if turn.role == STUDENT)
    right = (n for n, turn in enumerate(turns, 1) if is_right(turn.text, dialogue.problem))
    return next(right, None)
