"""Which strategy a student's turn calls for: documented rules, in three styles.

A dialogue has two parts. Until the student has said the right answer the teacher helps: the table
`HELP` says how, the help grows after so many turns (`EXAMPLE_AFTER`, `TELL_AFTER`), and no strategy
is used three times running. Once the answer is there the teacher checks whether it was understood,
and closes with a word of praise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from tunelm.tutor.dialogues import STUDENT, TEACHER, Dialogue
from tunelm.tutor.reading import Mark, Reading, Situation, got_there
from tunelm.tutor.safety import FIXED
from tunelm.tutor.solved import reveals, strategy_of
from tunelm.tutor.strategies import Strategy

Style = Literal["socratic", "directive", "adaptive"]
STYLES: tuple[Style, ...] = get_args(Style)
S = Strategy
W = Situation


@dataclass(frozen=True, slots=True)
class Choice:
    """A strategy and the rule that chose it, in words. `closes`: the dialogue ends with it."""

    strategy: Strategy
    why: str
    closes: bool = False


HELP: Mapping[Situation, Mapping[Style, Strategy]] = {
    situation: dict(zip(STYLES, row, strict=True))
    for situation, row in {
        #          socratic         directive       adaptive
        W.OPENING: (S.SOCRATIC, S.SCAFFOLDING, S.SOCRATIC),
        W.WRONG: (S.SOCRATIC, S.MISCONCEPTION, S.HINT),
        W.BELIEF: (S.MISCONCEPTION, S.MISCONCEPTION, S.MISCONCEPTION),
        W.AGAIN: (S.MISCONCEPTION, S.HINT, S.MISCONCEPTION),
        W.PLEADS: (S.SOCRATIC, S.HINT, S.HINT),
        W.STUCK: (S.SCAFFOLDING, S.HINT, S.SCAFFOLDING),
        W.SILENT: (S.ENCOURAGEMENT, S.SCAFFOLDING, S.ENCOURAGEMENT),
        W.ASKS: (S.SOCRATIC, S.HINT, S.HINT),
        W.VAGUE: (S.CLARIFICATION, S.CLARIFICATION, S.CLARIFICATION),
        W.IDEA: (S.SOCRATIC, S.SCAFFOLDING, S.SOCRATIC),
    }.items()
}
"""What a turn calls for while the answer is not there, by style."""

EXAMPLE_AFTER: Mapping[Style, int] = {"socratic": 4, "directive": 2, "adaptive": 3}
"""Teacher turns after which a student who is not thinking of anything sees a worked example."""
TELL_AFTER: Mapping[Style, int | None] = {"socratic": None, "directive": 4, "adaptive": 6}
"""Teacher turns after which the answer is told; the Socratic style never tells."""
MOST_CHECKS = 2

_GETS_ON = frozenset((W.IDEA, W.ASKS))
_ONCE = frozenset((S.ENCOURAGEMENT, S.CLARIFICATION, S.EXAMPLE))
"""Strategies that are not used twice running; others are not used three times."""
_OTHERWISE = (S.SCAFFOLDING, S.HINT, S.SOCRATIC)
_NOT_SHOWN = frozenset(
    (W.SILENT, W.STUCK, W.VAGUE, W.PLEADS, W.ASKS, W.WRONG, W.BELIEF, W.AGAIN)
)  # fmt: skip


def choose(
    dialogue: Dialogue, reading: Reading, style: Style, explanation: str | None = None
) -> Choice:
    """The strategy for the next turn, whose dialogue ends with the student's."""
    if reading.found is not None:
        return Choice(S.ENCOURAGEMENT, f"{reading.found.flag}: {FIXED}")
    used = used_by(dialogue)
    if got_there(dialogue, explanation):
        return _after_the_answer(dialogue, reading, style, used, explanation)
    situation = reading.situation
    calmed = used[-1:] == [S.ENCOURAGEMENT] or situation in (W.WRONG, W.BELIEF, W.AGAIN)
    if Mark.UPSET in reading.marks and not calmed:
        return Choice(S.ENCOURAGEMENT, "the student swears: calm first")
    if Mark.LONG in reading.marks and situation in _GETS_ON and used[-1:] != [S.CLARIFICATION]:
        return Choice(S.CLARIFICATION, "the turn is very long: its point is asked for")
    helped, tell = len(used), TELL_AFTER[style]
    if _told(dialogue):
        return _varied(S.CHECK, f"was told, and {_is(situation)}", used)
    if tell is not None and helped >= tell and situation not in _GETS_ON:
        return Choice(S.TELLING, f"{helped} turns of help, and the student {_is(situation)}")
    stuck = situation not in (*_GETS_ON, W.OPENING)
    if stuck and helped >= EXAMPLE_AFTER[style] and S.EXAMPLE not in used:
        return Choice(S.EXAMPLE, f"{helped} turns of help, and the student {_is(situation)}")
    return _varied(HELP[situation][style], _is(situation), used)


def used_by(dialogue: Dialogue) -> list[Strategy]:
    """The strategies of the teacher's turns so far."""
    turns = enumerate(dialogue.turns)
    return [strategy_of(dialogue, i) for i, turn in turns if turn.role == TEACHER]


def closes(dialogue: Dialogue, strategy: Strategy, explanation: str | None = None) -> bool:
    """Whether a turn of this strategy ends the dialogue: praise once the answer is there."""
    return strategy is S.ENCOURAGEMENT and got_there(dialogue, explanation) is True


def _after_the_answer(
    dialogue: Dialogue,
    reading: Reading,
    style: Style,
    used: list[Strategy],
    explanation: str | None,
) -> Choice:
    since = used[_helped_before(dialogue, explanation) :]
    checks, situation = since.count(S.CHECK), reading.situation
    if any(strategy is S.ENCOURAGEMENT for strategy in since) and situation is not W.ASKS:
        return Choice(S.ENCOURAGEMENT, "the student has got there, and it was said", closes=True)
    if checks >= MOST_CHECKS:
        return Choice(S.ENCOURAGEMENT, f"checked {checks} times: enough for today", closes=True)
    if not checks:
        if style == "directive" and situation is W.EXPLAINED:
            return Choice(S.ENCOURAGEMENT, "right, with a reason", closes=True)
        return Choice(S.CHECK, "the right answer: is it understood?")
    if situation in _NOT_SHOWN:
        if situation in (W.WRONG, W.BELIEF, W.AGAIN):
            return Choice(S.MISCONCEPTION, "the wrong answer is back")
        if situation is W.ASKS:
            return Choice(S.HINT, "a question about what was found")
        if since[-1] is S.CHECK:
            return Choice(S.SCAFFOLDING, "right, but it could not be explained: a smaller step")
        return Choice(S.CHECK, "after help, is it understood?")
    return Choice(S.ENCOURAGEMENT, "right, and shown to be understood", closes=True)


def _helped_before(dialogue: Dialogue, explanation: str | None) -> int:
    """Teacher turns before the student first said the right answer."""
    count = 0
    for position, turn in enumerate(dialogue.turns):
        if turn.role == TEACHER:
            count += 1
        elif turn.role == STUDENT and got_there(_until(dialogue, position), explanation):
            return count
    return count


def _until(dialogue: Dialogue, position: int) -> Dialogue:
    return Dialogue(dialogue.problem, dialogue.turns[: position + 1])


def _told(dialogue: Dialogue) -> bool:
    turns = enumerate(dialogue.turns)
    return any(
        turn.strategy is S.TELLING or (turn.role == TEACHER and reveals(dialogue, i))
        for i, turn in turns
    )


def _varied(strategy: Strategy, why: str, used: list[Strategy]) -> Choice:
    """The strategy, or another one where it was used too often running."""
    run = 1 if strategy in _ONCE else 2
    if used[-run:] != [strategy] * run:
        return Choice(strategy, f"the student {why}")
    other = next(s for s in _OTHERWISE if s is not strategy and s is not used[-1])
    return Choice(other, f"the student {why}, and {strategy} did not help {run} times running")


def _is(situation: Situation) -> str:
    """The situation as what "the student" is or does."""
    plain = (W.WRONG, W.BELIEF, W.AGAIN, W.VAGUE, W.RIGHT, W.EXPLAINED)
    return f"is {situation}" if situation in plain else situation.value
