"""Whole conversations with simulated students: a row each, answered by an adapted model as teacher.

Rows of a part become talks: each of its problems with each kind of student. The teacher is the
model's own words: rules read the student and name a strategy a turn, as they do for a tutor that is
served, but nothing of what the model wrote is mended, and no student is told which strategy was
asked for. So what is measured is the model, and not the rules around it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from tunelm.models.base import ChatModel
from tunelm.scoring.said import tokens
from tunelm.tutor.dialogues import STUDENT, TEACHER, Dialogue, Ending, Problem, Turn
from tunelm.tutor.solved import ending_of, is_right, reveals
from tunelm.tutor.students import FROZEN, PROFILES, Student, make_student
from tunelm.tutor.teaching import SILENCE
from tunelm.tutor.tutor import Reply, TeacherStudentDialogueModel, TutorSettings
from tunelm.types import ZERO_USAGE, Example, FinishReason, Message, Prediction, content_hash

MOST_TURNS = 8
"""Teacher's turns after which a conversation is broken off."""


def talks_of(rows: Sequence[Example], most: int) -> list[Example]:
    """The conversations to hold about the problems of some rows (`turn_examples`), at most `most`.

    Every problem has one before any has a second, each with another kind of student. A problem
    without known solutions has none, and one without a wrong answer those whose student is right.
    """
    problems = {row.metadata.get("problem"): row for row in rows if row.metadata.get("solutions")}
    ordered = sorted(problems.values(), key=lambda row: content_hash(row.metadata["problem"]))
    names = list(PROFILES)
    pairs = (
        (row, PROFILES[names[(place + turn) % len(names)]])
        for turn in range(len(names))
        for place, row in enumerate(ordered)
    )
    fitting = ((r, p) for r, p in pairs if r.metadata.get("wrong") or p.opens == "right")
    return [_talk(row, p.name) for row, p in itertools.islice(fitting, most)]


def _talk(row: Example, profile: str) -> Example:
    names = ("problem", "subject", "solutions", "wrong", "misconception")
    known = {name: row.metadata[name] for name in names if name in row.metadata}
    metadata = {
        **known,
        "profile": profile,
        "held_out": PROFILES[profile].held_out,
        "students": FROZEN,
    }
    bare = Example("", (), tuple(known["solutions"]), row.group, metadata=metadata)
    opening = make_student(profile).answer(_problem_of(bare)).messages()
    messages = tuple(Message(m["role"], m["content"]) for m in opening)
    return dataclasses.replace(
        bare, id=content_hash([known, profile, FROZEN, row.group]), messages=messages
    )


def _problem_of(talk: Example) -> Dialogue:
    its = talk.metadata
    problem = Problem(
        text=its["problem"],
        subject=its.get("subject", "unknown"),
        group=talk.group,
        solutions=tuple(its["solutions"]),
        wrong=tuple(its.get("wrong", ())),
        misconception=its.get("misconception"),
    )
    return Dialogue(problem, profile=its["profile"])


@dataclasses.dataclass
class _Talk:
    """One conversation while it goes on."""

    example: Example
    dialogue: Dialogue
    student: Student
    replies: list[Reply] = dataclasses.field(default_factory=list[Reply])
    error: str | None = None

    @property
    def over(self) -> bool:
        """Whether there is nothing more to say."""
        closed = bool(self.replies) and self.replies[-1].closes
        return closed or self.error is not None or len(self.replies) == MOST_TURNS

    def hear(self, reply: Reply) -> None:
        """The teacher's words as the model wrote them, and the student's next."""
        self.replies.append(reply)
        self.dialogue = self.dialogue.plus(Turn(TEACHER, reply.raw.text.strip() or SILENCE))
        if not self.over:
            self.dialogue = self.student.answer(self.dialogue)


def hold(
    model: ChatModel, talks: Sequence[Example], part: str, max_tokens: int
) -> list[Prediction]:
    """Hold all conversations, turn by turn side by side.

    Returns a Prediction each, in order: `output` is all that was said, `usage` and `latency_s` are
    sums, and `facts` as in `facts_of`. One in which the model failed has its error and no output.
    """
    settings = TutorSettings(max_tokens=max_tokens, safety=None)  # the model's words alone count
    tutor = TeacherStudentDialogueModel(model, settings=settings)
    held = [_opened(talk) for talk in talks]
    while going := [talk for talk in held if not talk.over]:
        for talk, reply in zip(going, tutor.replies([t.dialogue for t in going]), strict=True):
            if isinstance(reply, Reply):
                talk.hear(reply)
            else:
                talk.error = str(reply)
    return [_prediction(talk, part) for talk in held]


def _opened(example: Example) -> _Talk:
    student = make_student(example.metadata["profile"])
    return _Talk(example, student.answer(_problem_of(example)), student)


def _prediction(talk: _Talk, part: str) -> Prediction:
    raws = [reply.raw for reply in talk.replies]
    seconds = [raw.latency_s for raw in raws]
    known = [s for s in seconds if s is not None]
    failed = talk.error is not None
    return Prediction(
        talk.example.id,
        part,
        None if failed else _transcript(talk),
        FinishReason.ERROR if failed else FinishReason.STOP,
        sum((raw.usage for raw in raws), ZERO_USAGE),
        sum(known) if len(known) == len(seconds) else None,
        talk.error,
        facts=facts_of(talk.dialogue, talk.replies),
    )


def facts_of(dialogue: Dialogue, replies: Sequence[Reply]) -> dict[str, Any]:
    """What is counted in a conversation, for the metrics that are named so, and for costs.

    `solved_unaided`, `solved_after_telling` and `telling_rate` are 1 or 0, the last for a teacher
    who says the answer before the student has; `turns_to_solve` is only there where the student
    got there unaided. `strategies` are those that were asked for, turn by turn. `prompt_tokens` is
    how the prompt grew, turn by turn, and `shared` which part of each prompt's words stood at the
    beginning of the prompt before: what a provider can have kept.
    """
    ending = ending_of(dialogue)
    before = list(itertools.takewhile(lambda t: not _right(t, dialogue), dialogue.turns))
    taught = [i for i, turn in enumerate(before) if turn.role == TEACHER]
    facts: dict[str, Any] = {
        "solved_unaided": float(ending is Ending.SOLVED),
        "solved_after_telling": float(ending is Ending.TOLD),
        "telling_rate": float(any(reveals(dialogue, i) for i in taught)),
        "teacher_turns": len(replies),
        "strategies": [reply.strategy.value for reply in replies],
        "prompt_tokens": [reply.raw.usage.prompt_tokens for reply in replies],
        "completion_tokens": [reply.raw.usage.completion_tokens for reply in replies],
        "shared": [
            round(_shared(a.sent, b.sent), 4)
            for a, b in zip([None, *replies], replies, strict=False) if a is not None
        ],
    }  # fmt: skip
    if ending is Ending.SOLVED:
        facts["turns_to_solve"] = len(taught)
    return facts


def _right(turn: Turn, dialogue: Dialogue) -> bool:
    return turn.role == STUDENT and is_right(turn.text, dialogue.problem)


def _shared(before: Sequence[Message], after: Sequence[Message]) -> float:
    """Which part of the second prompt's words stands at the beginning of the first, too."""
    first, second = ([f"{m.role} {w}" for m in chat for w in tokens(m.content)]
                     for chat in (before, after))  # fmt: skip
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
    return sum(1 for _ in same) / len(second) if second else 0.0


def _transcript(talk: _Talk) -> str:
    lines: list[str] = []
    asked = iter(talk.replies)
    for turn in talk.dialogue.turns:
        who = "Student" if turn.role == STUDENT else f"Teacher, asked for {next(asked).strategy}"
        lines.append(f"{who}: {turn.text}")
    return "\n".join(lines)
