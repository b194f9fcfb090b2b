"""Kept turns as what a model is sent: messages, or a dialogue for a tutor."""

from __future__ import annotations

from collections.abc import Sequence

from tunelm.chat.records import Turn
from tunelm.tutor.dialogues import STUDENT, TEACHER, Dialogue, Problem
from tunelm.tutor.dialogues import Turn as DialogueTurn
from tunelm.tutor.strategies import Strategy
from tunelm.tutor.teaching import SILENCE
from tunelm.types import Message


def dialogue_of(problem: Problem, turns: Sequence[Turn]) -> Dialogue:
    """Kept turns as a dialogue; a first message that is the problem itself is no turn."""
    merged = messages_of(turns)
    strategies = [t.strategy for t in turns if t.role == "assistant"]
    if merged and merged[0].role == "user" and merged[0].content.strip() == problem.text:
        merged = merged[1:]
    if len(strategies) != sum(m.role == "assistant" for m in merged):
        strategies = [None] * len(merged)
    labels = iter(strategies)
    found: list[DialogueTurn] = []
    for message in merged:
        if message.role == "user":
            found.append(DialogueTurn(STUDENT, message.content.strip() or SILENCE))
        else:
            label = next(labels)
            text = message.content.strip() or SILENCE
            found.append(DialogueTurn(TEACHER, text, Strategy(label) if label else None))
    return Dialogue(problem, tuple(found))


def up_to_the_last_of_the_user(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """The turns without the answer to the last message."""
    last = max((i for i, turn in enumerate(turns) if turn.role == "user"), default=-1)
    return tuple(turns[: last + 1])


def messages_of(turns: Sequence[Turn]) -> list[Message]:
    """Turns as messages, those of one speaker in a row joined to one."""
    found: list[Message] = []
    for turn in turns:
        if found and found[-1].role == turn.role:
            text = f"{found.pop().content}\n\n{turn.text}"
            found.append(Message(turn.role, text))
        else:
            found.append(Message(turn.role, turn.text))
    return found
