"""Who said the right answer first: the rule by which a conversation counts as solved.

It reads words, not meaning: an answer counts where one of the problem's solutions stands in a
turn, word by word, and is neither denied nor one of several offered.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tunelm.tutor.dialogues import STUDENT, TEACHER, Dialogue, Ending, Problem
from tunelm.tutor.strategies import Strategy, guess_strategy

_TOKEN = re.compile(
    r"(?<![\w.])-?\d+(?:[.,/:]\d+)*(?![^\W_])|[^\W_]+(?:['’][^\W_]+)*", re.IGNORECASE
)
_ARTICLES = frozenset(("a", "an", "the"))
_DENIALS = frozenset(("not", "isn't", "never", "wasn't", "aren't", "doesn't", "neither", "nor"))


def tokens(text: str) -> list[str]:
    """Words in one case without articles; numbers in one form.

    >>> tokens("It's the 1,000.50 $")
    ["it's", '1000.5']
    """
    found = (match.group().casefold().replace("’", "'") for match in _TOKEN.finditer(text))
    return [_number(token) for token in found if token not in _ARTICLES]


def states(text: str, answers: Sequence[str]) -> bool:
    """Whether one of the answers is said and not denied in the text.

    >>> states("Then it is 10.", ["10"]), states("It is 100.", ["10"])
    (True, False)
    >>> states("So it is not the newton.", ["newton"])
    False
    """
    return bool(_places(tokens(text), answers))


def is_right(text: str, problem: Problem) -> bool:
    """Whether a student's words give a solution as the answer.

    Where a wrong answer of the problem is said as well, the later one counts, and none does where
    both are offered with "or".
    """
    said = tokens(text)
    right = _places(said, problem.solutions)
    if not right:
        return False
    # A wrong answer inside the right one ("carbon" in "carbon dioxide") is no answer of its own.
    covered = {i for start, end in right for i in range(start, end)}
    wrong = [p for p in _places(said, problem.wrong) if p[0] not in covered]
    if not wrong:
        return True
    first, last = sorted((right[-1], wrong[-1]))
    return "or" not in said[first[1] : last[0]] and last == right[-1]


def reveals(dialogue: Dialogue, position: int) -> bool:
    """Whether the turn at `position` (from 0) gives the answer away.

    It does where it says a solution that stands neither in an earlier turn nor in the problem; in
    a turn labelled as telling, the problem may name it (as one of two to choose from).
    """
    turn, its = dialogue.turns[position], dialogue.problem
    before = [earlier.text for earlier in dialogue.turns[:position]]
    if turn.strategy is not Strategy.TELLING:
        before.append(its.text)
    return states(turn.text, its.solutions) and not any(
        states(text, its.solutions) for text in before
    )


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


def _places(said: Sequence[str], answers: Sequence[str]) -> list[tuple[int, int]]:
    """Where an answer stands undenied, as (start, end) in tokens, in order."""
    found: list[tuple[int, int]] = []
    for answer in answers:
        wanted = tokens(answer)
        for start in range(len(said) - len(wanted) + 1) if wanted else ():
            end = start + len(wanted)
            if said[start:end] == wanted and not _denied(said[max(0, start - 2) : start]):
                found.append((start, end))
    return sorted(found)


def _denied(before: Sequence[str]) -> bool:
    """Whether the two words before turn it around: "not", "rather than", "instead of"."""
    if not before:
        return False
    pair = tuple(before[-2:])
    return bool(_DENIALS & set(before)) or pair in {("instead", "of"), ("rather", "than")}


def _number(token: str) -> str:
    if not token.lstrip("-")[0].isdigit() or not re.fullmatch(r"-?[\d.,]+", token):
        return token
    plain = re.sub(r",(?=\d{3}(?:\D|$))", "", token)
    return plain.rstrip("0").rstrip(".") if "." in plain else plain
