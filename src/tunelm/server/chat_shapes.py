"""What the chat page is told of conversations: plain dicts, ready for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunelm.chat.records import Conversation, Pair, Summary, Turn
from tunelm.tutor.mending import ASKED, EMPTY, SHORTENED, UNASKED, WITHHELD
from tunelm.tutor.safety import FIXED
from tunelm.tutor.strategies import STRATEGIES, Strategy

_MENDED = frozenset((ASKED, EMPTY, SHORTENED, UNASKED, WITHHELD))
"""What rules put right in a tutor's words: shown with the strategy, to whoever asks why."""


def summary(found: Summary) -> dict[str, Any]:
    """A conversation in the list."""
    return {
        "id": found.id,
        "title": found.title,
        "model": None if found.other else found.model,
        "other": found.other is not None,
        "tutor": found.tutor,
        "updated": found.updated,
    }


def strategy(name: str | None, why: str | None) -> dict[str, Any]:
    """What a tutor's turn is for, `what` that is, and `why` it was chosen.

    Nothing but the name of a turn that a fixed text answers: what it was taken for is not the
    pupil's to read.
    """
    if why and why.endswith(FIXED):
        return {"strategy": name, "what": None, "why": None}
    known = name in set(Strategy)
    what = STRATEGIES[Strategy(name)].what if known else None
    return {"strategy": name, "what": what, "why": why}


def turn(said: Turn) -> dict[str, Any]:
    """One message. Which model said it is not told: see `conversation`."""
    return {
        "id": said.id,
        "role": said.role,
        "text": said.text,
        **strategy(said.strategy, said.why),
        "complete": said.complete,
        "notes": [n for n in said.notes if n not in _MENDED and not n.endswith(FIXED)],
        "mended": [note for note in said.notes if note in _MENDED],
        "rating": said.rating,
    }


def pair(two: Pair, models: tuple[str, str], tally: Sequence[str]) -> dict[str, Any]:
    """Two answers side by side. Who A and B are is told once there is a choice, and not before.

    `models` are the conversation's own and its other one.
    """
    found: dict[str, Any] = {
        "id": two.id,
        "role": "pair",
        "a": _answer(two.a),
        "b": _answer(two.b),
        "vote": two.choice,
    }
    if two.choice is not None:
        a, b = models if two.a_is_model else models[::-1]
        found |= {"names": {"a": a, "b": b}, "tally": list(tally)}
    return found


def _answer(said: Turn) -> dict[str, Any]:
    return {"text": said.text, "complete": said.complete, "notes": list(said.notes)}


def conversation(kept: Conversation, pairs: Sequence[Pair], tally: Sequence[str]) -> dict[str, Any]:
    """A whole conversation; two answers to one message are one entry of `turns`."""
    versus = kept.other is not None
    models = (kept.model, kept.other or "")
    by_question = {two.asked: two for two in pairs}
    turns: list[dict[str, Any]] = []
    for said in kept.turns:
        if said.role == "user":
            turns.append(turn(said))
            if two := by_question.get(said.id):
                turns.append(pair(two, models, tally if two is pairs[-1] else ()))
        elif said.answers not in by_question:
            # of two models one failed: its answer is no part of a comparison, and is not rated
            turns.append(turn(said) | ({"id": None} if versus else {}))
    return {
        "id": kept.id,
        "title": kept.title,
        "model": None if versus else kept.model,
        "other": versus,
        "tutor": kept.tutor,
        "style": kept.settings.get("style"),
        "problem": kept.problem.text if kept.problem else None,
        "turns": turns,
    }
