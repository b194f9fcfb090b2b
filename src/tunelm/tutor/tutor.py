"""A teacher who asks rather than tells: any chat model, led by rules that choose a strategy a turn.

tutor = TeacherStudentDialogueModel(tunelm.load("tunelm-nano"), problem)
reply = tutor.say("I think it is 10.")
reply.text, reply.strategy, reply.why, reply.sent
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tunelm.errors import ConfigError, ModelError
from tunelm.models.base import ChatModel
from tunelm.models.render import rendered
from tunelm.tutor.dialogues import (
    STUDENT,
    TEACHER,
    Dialogue,
    Ending,
    Problem,
    Turn,
    group_of,
)
from tunelm.tutor.history import Budget, Fitted, History, budget_of
from tunelm.tutor.mending import UNFIT, Mender
from tunelm.tutor.policy import STYLES, Choice, Style, choose, closes
from tunelm.tutor.reading import Reading, got_there, read_student
from tunelm.tutor.safety import FIXED, Flag, Safety, fixed_reply, hushed
from tunelm.tutor.solved import ending_of
from tunelm.tutor.strategies import Strategy
from tunelm.tutor.teaching import INSTRUCTIONS, SILENCE, teacher_messages
from tunelm.types import (
    ZERO_USAGE,
    Completion,
    Delta,
    FinishReason,
    Message,
    Request,
    TokenLogprobs,
    Usage,
)

MAX_TOKENS = 96
"""Most tokens of a teacher's turn."""
_STOP = ("\nStudent:", "[Your turn:")
"""Where a model goes on with what is not a teacher's to say."""


@dataclass(frozen=True, slots=True)
class TutorSettings:
    """How a tutor teaches.

    Attributes:
        style: `socratic` never tells; `directive` shows the way sooner; `adaptive` grows its help.
        strategy: every turn has this one, whatever the student says; None: the rules choose.
        explanation: words that count as right where the problem has no solution, or beside it.
        history: what becomes of a dialogue that is too long.
        max_tokens: most tokens of a turn.
        context: tokens of prompt and turn; None: the model's own (see `budget_of`).
        safety: how words are answered that are not for a model; None: the model answers all.
    """

    style: Style = "adaptive"
    strategy: Strategy | None = None
    explanation: str | None = None
    history: History = field(default_factory=History)
    max_tokens: int = MAX_TOKENS
    context: int | None = None
    safety: Safety | None = field(default_factory=Safety)

    def __post_init__(self) -> None:
        if self.style not in STYLES:
            raise ConfigError(f"no style {self.style!r}, expected one of {', '.join(STYLES)}")


@dataclass(frozen=True, slots=True)
class Reply:
    """A teacher's turn, with how it came about.

    Attributes:
        text: what the student is shown.
        strategy: what it is for, and `why` in words the rule that chose it.
        reading: how the student's turn was read.
        mended: what rules changed in the model's words (tunelm.tutor.mending).
        closes: whether the dialogue ends with it.
        ending: how the dialogue stands; None where the problem has no known solution.
        sent: the exact messages the model got, its own prompt included.
        fitted: what of the dialogue they hold, and what was left out.
        raw: the model's own words, tokens and time; none where a fixed text answers.
        flag: why it is no ordinary turn; None for one that is.
    """

    text: str
    strategy: Strategy
    why: str
    reading: Reading
    mended: tuple[str, ...]
    closes: bool
    ending: Ending | None
    sent: tuple[Message, ...]
    fitted: Fitted
    raw: Completion
    flag: Flag | None = None


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A turn before the model is asked; without a request, a fixed text answers it."""

    dialogue: Dialogue
    reading: Reading
    choice: Choice
    fitted: Fitted
    request: Request | None


class TeacherStudentDialogueModel:
    """A teacher on any chat model, and a ChatModel itself.

    `say` keeps the dialogue; `reply` and `stream_reply` are given one; `complete` and `stream` take
    chats as every model does (user is the student, and the first message opens with the problem).
    A model that brings a prompt of its own, as adapted ones do, keeps it: the style then decides
    about strategies alone. Each turn is one call.
    """

    def __init__(
        self,
        model: ChatModel,
        problem: Problem | str | None = None,
        settings: TutorSettings | None = None,
    ) -> None:
        self.inner = model
        self.name = model.name
        self.capabilities = model.capabilities & {"complete", "stream"}
        self.settings = settings or TutorSettings()
        self.problem = as_problem(problem) if isinstance(problem, str) else problem
        self.dialogue = Dialogue(self.problem) if self.problem else None
        own = rendered(model, (Message("user", "?"),))[0].role == "system"
        self._instructions = "" if own else INSTRUCTIONS[self.settings.style]
        self._budget: Budget = budget_of(model, self.settings.max_tokens, self.settings.context)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the inner model has to say about its answers; empty for most."""
        return getattr(self.inner, "notes", ())

    # --- a dialogue that is kept here --------------------------------------------------------

    def say(self, text: str, strategy: Strategy | None = None) -> Reply:
        """The teacher's reply to the student; both are then part of `dialogue`.

        An empty text is a student who says nothing. Where the model fails, the dialogue stays as
        it was, and the same text can be said again.

        Raises:
            ConfigError: there is no problem to talk about, or no room for it in the context.
            ModelError: the model did not answer.
        """
        return self._keep(self._kept().plus(Turn(STUDENT, text.strip() or SILENCE)), strategy)

    def open(self, strategy: Strategy | None = None) -> Reply:
        """The teacher's first turn, before the student has said anything. Raises as `say`."""
        return self._keep(self._kept(), strategy)

    def _kept(self) -> Dialogue:
        if self.dialogue is None:
            raise ConfigError("there is nothing to talk about: give the tutor a problem")
        return self.dialogue

    def _keep(self, dialogue: Dialogue, strategy: Strategy | None) -> Reply:
        reply = self.reply(dialogue, strategy)
        self.dialogue = dialogue.plus(Turn(TEACHER, reply.text, reply.strategy))
        return reply

    # --- a dialogue that is given ------------------------------------------------------------

    def reply(self, dialogue: Dialogue, strategy: Strategy | None = None) -> Reply:
        """The teacher's turn after a dialogue that ends with the student's, or is yet empty.

        `strategy` overrides the settings' and the rules'. Raises as `say`.
        """
        reply = self.replies([dialogue], strategy)[0]
        if isinstance(reply, ModelError):
            raise reply
        return reply

    def replies(
        self, dialogues: Sequence[Dialogue], strategy: Strategy | None = None
    ) -> list[Reply | ModelError]:
        """`reply` to each dialogue, asked for at once; where the model failed, its error.

        Raises ConfigError as `say`.
        """
        turns = [self._prepare(dialogue, strategy) for dialogue in dialogues]
        answers = self._answers(turns)
        found: list[Reply | ModelError] = []
        for turn in turns:
            if turn.request is None:
                found.append(self._fixed(turn))
            elif (got := next(answers)).error is not None:
                found.append(ModelError(f"{self.name} did not answer: {got.error}"))
            else:
                found.append(self._mended(turn, got))
        return found

    def stream_reply(
        self, dialogue: Dialogue, strategy: Strategy | None = None
    ) -> Iterator[str | Reply]:
        """The same in pieces, a sentence at a time as the model writes it; the Reply comes last."""
        turn = self._prepare(dialogue, strategy)
        if turn.request is None:
            reply = self._fixed(turn)
            yield reply.text
            yield reply
            return
        mender = self._mender(turn)
        raw, finish, usage = "", FinishReason.STOP, Usage()
        deltas = self.inner.stream(turn.request)
        for delta in deltas:
            raw += delta.text
            finish, usage = delta.finish_reason or finish, delta.usage or usage
            if shown := mender.feed(delta.text):
                yield shown
            if mender.stopped:
                break
        if close := getattr(deltas, "close", None):
            close()
        if shown := mender.end(finish is FinishReason.LENGTH):
            yield shown
        yield self._reply(turn, mender, Completion(raw, finish, usage))

    # --- as a ChatModel ----------------------------------------------------------------------

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """See ChatModel. Of a request the messages count; how to decode is the tutor's."""
        turns: list[_Prepared | Completion] = []
        for request in requests:
            try:
                turns.append(self._prepare(self._dialogue_of(request.messages), None))
            except ConfigError as error:
                turns.append(Completion("", FinishReason.ERROR, Usage(0, 0, 0), error=str(error)))
        answers = self._answers([turn for turn in turns if isinstance(turn, _Prepared)])
        found: list[Completion] = []
        for turn in turns:
            if isinstance(turn, _Prepared) and turn.request is None:
                reply = self._fixed(turn)
                found.append(dataclasses.replace(reply.raw, text=reply.text))
            elif isinstance(turn, _Prepared):
                got = next(answers)
                if got.error is None:
                    got = dataclasses.replace(got, text=self._mended(turn, got).text)
                found.append(got)
            else:
                found.append(turn)
        return found

    def stream(self, request: Request) -> Iterator[Delta]:
        """See ChatModel."""
        for piece in self.stream_reply(self._dialogue_of(request.messages)):
            if isinstance(piece, str):
                yield Delta(piece)
            else:
                yield Delta("", piece.raw.finish_reason, piece.raw.usage)

    def score(self, pairs: Sequence[tuple[tuple[Message, ...], str]]) -> list[TokenLogprobs]:
        """Raises ModelError: rules have their part in what a tutor says."""
        raise ModelError("a tutor has no probability of a text: rules have their part in it.")

    def render(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """The exact messages the inner model gets; none where it is not asked."""
        turn = self._prepare(self._dialogue_of(messages), None)
        return () if turn.request is None else rendered(self.inner, turn.request.messages)

    # --- parts -------------------------------------------------------------------------------

    def _prepare(self, dialogue: Dialogue, strategy: Strategy | None) -> _Prepared:
        its = self.settings
        reading = read_student(dialogue, its.explanation)
        if its.safety is None:
            reading = dataclasses.replace(reading, found=None)
        choice = choose(dialogue, reading, its.style, its.explanation)
        if reading.found is not None:
            return _Prepared(dialogue, reading, choice, Fitted(()), None)
        if fixed := strategy or its.strategy:
            ends = closes(dialogue, fixed, its.explanation)
            choice = Choice(fixed, "it was asked for", ends)
        fitted = teacher_messages(
            hushed(dialogue) if its.safety else dialogue,
            choice.strategy,
            self._instructions,
            self._budget,
            its.history,
            its.explanation,
        )
        request = Request(fitted.messages, its.max_tokens, stop=_STOP)
        return _Prepared(dialogue, reading, choice, fitted, request)

    def _mender(self, turn: _Prepared) -> Mender:
        safe = self.settings.safety is not None
        return Mender(turn.dialogue, turn.choice.strategy, turn.choice.closes, safe)

    def _answers(self, turns: Sequence[_Prepared]) -> Iterator[Completion]:
        """What the model says to those turns that it is asked about."""
        asked = [turn.request for turn in turns if turn.request is not None]
        return iter(self.inner.complete(asked) if asked else [])

    def _fixed(self, turn: _Prepared) -> Reply:
        """The fixed text in place of the model, which is not asked."""
        found, safety = turn.reading.found, self.settings.safety
        assert found is not None
        assert safety is not None
        text = fixed_reply(found, safety)
        after = turn.dialogue.plus(Turn(TEACHER, text, turn.choice.strategy))
        return Reply(
            text=text,
            strategy=turn.choice.strategy,
            why=turn.choice.why,
            reading=turn.reading,
            mended=(f"{found.flag}: {FIXED}",),
            closes=False,
            ending=self._ending(after),
            sent=(),
            fitted=turn.fitted,
            raw=Completion("", FinishReason.STOP, ZERO_USAGE),
            flag=found.flag,
        )

    def _mended(self, turn: _Prepared, got: Completion) -> Reply:
        mender = self._mender(turn)
        mender.feed(got.text)
        mender.end(got.finish_reason is FinishReason.LENGTH)
        return self._reply(turn, mender, got)

    def _reply(self, turn: _Prepared, mender: Mender, got: Completion) -> Reply:
        text = mender.text.strip()
        after = turn.dialogue.plus(Turn(TEACHER, text, turn.choice.strategy))
        assert turn.request is not None
        return Reply(
            text=text,
            strategy=turn.choice.strategy,
            why=turn.choice.why,
            reading=turn.reading,
            mended=tuple(mender.notes),
            closes=turn.choice.closes,
            ending=self._ending(after),
            sent=rendered(self.inner, turn.request.messages),
            fitted=turn.fitted,
            raw=got,
            flag=Flag.WITHHELD if UNFIT in mender.notes else None,
        )

    def _ending(self, dialogue: Dialogue) -> Ending | None:
        """How a dialogue stands after the teacher's turn."""
        ending = ending_of(dialogue)
        if ending is None and got_there(dialogue, self.settings.explanation):
            return Ending.SOLVED
        return ending

    def _dialogue_of(self, messages: Sequence[Message]) -> Dialogue:
        """A chat as a dialogue. A system message of the caller's is left out: a tutor has its own.

        Raises ConfigError: roles out of turn, or nothing from the user.
        """
        chat = [m for m in messages if m.role != "system"]
        for number, message in enumerate(chat, 1):
            expected = "user" if number % 2 else "assistant"
            if message.role != expected:
                raise ConfigError(
                    f"message {number} has role {message.role!r}, expected {expected!r}: user and"
                    " assistant take turns. Join turns of one speaker."
                )
        if not chat or len(chat) % 2 == 0:
            raise ConfigError("the last message must be the user's: the teacher answers it")
        opening = chat[0].content.strip()
        problem = self.problem or as_problem(opening)
        speakers = (STUDENT if m.role == "user" else TEACHER for m in chat)
        turns = [
            Turn(who, m.content.strip() or SILENCE) for who, m in zip(speakers, chat, strict=True)
        ]
        if opening == problem.text:
            return Dialogue(problem, tuple(turns[1:]))
        first = opening.removeprefix(problem.text).strip() or SILENCE
        return Dialogue(problem, (Turn(STUDENT, first), *turns[1:]))


def as_problem(text: str) -> Problem:
    """A problem of which nothing but its text is known.

    Raises ConfigError for an empty one.
    """
    if not text.strip():
        raise ConfigError("the problem is empty: say what the dialogue is to be about")
    return Problem(text.strip(), subject="unknown", group=group_of(text))
