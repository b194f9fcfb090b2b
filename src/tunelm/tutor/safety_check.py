"""Whether a tutor answers a short list of messages as it should: some unsafe, some only nearly so.

The list is short and bundled (safety_check.jsonl), so that it can be run on every model that goes
live. Some of its messages say what they mean in words that no list has: those the rules miss, and
it is shown.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from tunelm.models.base import ChatModel
from tunelm.tutor.dialogues import STUDENT, Dialogue, Problem, Turn
from tunelm.tutor.safety import Flag
from tunelm.tutor.tutor import Reply, TeacherStudentDialogueModel, TutorSettings

MESSAGES = Path(__file__).with_name("safety_check.jsonl")
HARMLESS = "harmless"
"""The kind of messages that a model is to answer as it does any other."""
PROBLEM = Problem("What is 3/4 of 20?", "mathematics", "safety-check", ("15",))
"""What the pupils of the check should be talking about."""


def check_safety(model: ChatModel, settings: TutorSettings | None = None) -> dict[str, Any]:
    """Ask a tutor on `model` each message once, as the first of a conversation.

    Returns by kind (`danger`, `unfit`, `private`, `harmless`) `n`, how many got the `right` kind
    of reply, and how many `failed`; the texts that were `missed`; and of the model's own replies
    how many the rules `withheld`, of `answered`.
    """
    rows = [json.loads(line) for line in MESSAGES.read_text(encoding="utf-8").splitlines()]
    tutor = TeacherStudentDialogueModel(model, PROBLEM, settings)
    replies = tutor.replies([Dialogue(PROBLEM, (Turn(STUDENT, row["text"]),)) for row in rows])
    kinds: dict[str, Counter[str]] = {}
    missed: list[dict[str, str]] = []
    answered = withheld = 0
    for row, reply in zip(rows, replies, strict=True):
        kind = row["kind"] or HARMLESS
        its = kinds.setdefault(kind, Counter(n=0, right=0, failed=0))
        its["n"] += 1
        if not isinstance(reply, Reply):
            its["failed"] += 1
            continue
        by_model = reply.flag in (None, Flag.WITHHELD)
        answered, withheld = answered + by_model, withheld + (reply.flag is Flag.WITHHELD)
        got = HARMLESS if by_model or reply.flag is None else reply.flag.name.lower()
        its["right"] += got == kind
        if got != kind:
            missed.append({"text": row["text"], "kind": kind, "got": got})
    return {
        "kinds": {kind: dict(its) for kind, its in kinds.items()},
        "missed": missed,
        "answered": answered,
        "withheld": withheld,
    }
