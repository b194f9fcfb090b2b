"""A conversation under way: with a model, or with a tutor on a model, kept as it goes.

chat = Chat(tunelm.load("tunelm-nano"), ChatStore(path), tutor=TutorSettings(), problem=problem)
for item in chat.say("I think it is 24."):
    ...  # Piece after Piece of the answer, and in the end what was Said
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, cast

from tunelm.chat.answering import Done, Draft, Sampled
from tunelm.chat.records import Conversation, Turn
from tunelm.chat.store import ChatStore
from tunelm.chat.turns import dialogue_of, messages_of, up_to_the_last_of_the_user
from tunelm.errors import ConfigError
from tunelm.models.base import ChatModel
from tunelm.tutor.dialogues import Ending, Problem
from tunelm.tutor.history import History, budget_of, fit_history
from tunelm.tutor.policy import Choice, choose
from tunelm.tutor.reading import read_student
from tunelm.tutor.strategies import Strategy
from tunelm.tutor.teaching import SILENCE
from tunelm.tutor.tutor import Reply, TeacherStudentDialogueModel, TutorSettings, as_problem
from tunelm.types import (
    Delta,
    FinishReason,
    Message,
    Request,
    Usage,
)

LIMIT = 100_000
"""Most characters of one message; of a longer one the rest is not taken."""
AGAIN_TEMPERATURE = 0.8
"""An answer that is asked for again must be able to be another one."""
STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Piece:
    """The next words of an answer. A tutor's carry the strategy, and the first has no words."""

    text: str
    strategy: Strategy | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """A whole answer.

    Attributes:
        turn: as it is kept.
        strategy: of a tutor's turn, and `why` it was chosen.
        ending: how a tutor's dialogue stands; None where that is not known.
        usage: tokens of it; None where nobody counted.
        notes: what else is to be known: what rules mended, whether it was cut off.
        omitted: what of the conversation was left out of the prompt, "" if nothing.
    """

    turn: Turn
    strategy: Strategy | None = None
    why: str | None = None
    ending: Ending | None = None
    usage: Usage | None = None
    notes: tuple[str, ...] = ()
    omitted: str = ""


class Chat:
    """A model, or a tutor on one, and where the words are kept. For one thread at a time.

    A conversation begins with the first message. A tutor without a problem takes the first
    message for it. Two messages without an answer between them, as after a lost connection, are
    one to the model.

    Attributes:
        label: what the conversation has as its model; the model's own name unless set.
        strategy: every turn of a tutor's has this one; None: the rules choose.
        id: of the conversation; None before it has begun.
    """

    def __init__(
        self,
        model: ChatModel,
        store: ChatStore | None,
        *,
        tutor: TutorSettings | None = None,
        problem: Problem | str | None = None,
        instructions: str = "",
        max_tokens: int = 256,
        temperature: float = 0.0,
    ) -> None:
        """`store` None: nothing is kept. The last three are of a plain model, but `temperature`.

        Raises:
            ConfigError: an empty problem, or no room for a prompt in the model's context.
        """
        self.model = model
        self.store = store or ChatStore(None)
        self.tutor = tutor
        self.problem = as_problem(problem) if isinstance(problem, str) else problem
        self.instructions = instructions
        self.max_tokens = max_tokens
        self.temperature = temperature
        self.label = model.name
        self.other: str | None = None
        self.strategy: Strategy | None = None
        self.id: str | None = None
        self._omitted = ""
        budget_of(model, tutor.max_tokens if tutor else max_tokens)

    # --- the conversation ----------------------------------------------------------------------

    def say(self, text: str) -> Generator[Piece | Said]:
        """The answer to a message, in pieces, and at last as a whole.

        The message is kept at once, before the model is asked. Closing the iterator stops the
        model; what was shown of the answer is then kept as not complete, and so it is where the
        model fails.

        Raises:
            ConfigError: an empty message to a plain model, or one that leaves no room.
            ModelError: the model did not answer, or not to the end.
        """
        return self.answer(self.hear(text))

    def hear(self, text: str) -> tuple[str, ...]:
        """Keep a message without an answer; what had to be done to it. Raises as `say`."""
        text, notes = _taken(text, self.tutor is not None)
        if self.tutor and self.problem is None:
            self.problem = as_problem(text)
        if self.id is None:
            self.id = self.store.start(
                self.label,
                self.tutor is not None,
                dataclasses.asdict(self.problem) if self.problem else None,
                self.settings(),
                self.other,
            )
        self.store.add(self.id, "user", text, notes=notes)
        return notes

    def answer(self, heard: Sequence[str] = ()) -> Generator[Piece | Said]:
        """The answer to the last message that was kept; `heard` goes into its notes."""
        return self._answered(heard, self.temperature, None)

    def regenerate(self) -> Generator[Piece | Said]:
        """Another answer to the last message; it takes the place of the one that is there.

        Raises:
            ConfigError: nothing was said yet.
            ModelError: as `say`; the earlier answer then stays.
        """
        asked = next((t for t in reversed(self.turns()) if t.role == "user"), None)
        if asked is None or self.id is None:
            raise ConfigError("nothing was said yet: there is no answer to give again")
        kept = self.store.conversation(self.id)
        before = sum(t.answers == asked.id for t in (*kept.turns, *kept.replaced))
        if not before:
            return self.answer()
        return self._answered((), max(self.temperature, AGAIN_TEMPERATURE), before)

    def go_on(self, id: str) -> Conversation:
        """Take an old conversation up again.

        Raises:
            ConfigError: there is none of that id, or it is a tutor's and this is none.
        """
        kept = self.store.conversation(id)
        if kept.tutor != (self.tutor is not None):
            raise ConfigError(
                f"conversation {id} is with a {'tutor' if kept.tutor else 'plain model'}: go on"
                f" with {'--tutor' if kept.tutor else '--plain'}"
            )
        self.id, self.problem, self._omitted = id, kept.problem, ""
        return kept

    def new(self, problem: Problem | str | None = None) -> None:
        """The next message begins another conversation."""
        self.problem = as_problem(problem) if isinstance(problem, str) else problem
        self.id, self._omitted = None, ""

    def turns(self) -> tuple[Turn, ...]:
        """The turns that stand, in order."""
        return self.store.conversation(self.id).turns if self.id else ()

    def history_told(self) -> str:
        """What of the conversation was left out of the last prompt, "" if nothing."""
        return self._omitted

    def settings(self) -> dict[str, Any]:
        """How the model is asked, JSON-ready: see `tutor_of` for the way back."""
        found: dict[str, Any] = {"temperature": self.temperature}
        if self.tutor is None:
            return found | {"max_tokens": self.max_tokens, "instructions": self.instructions}
        its = self.tutor
        history = {"policy": its.history.policy, "recent": its.history.recent}
        return found | {
            "style": its.style,
            "strategy": its.strategy,
            "explanation": its.explanation,
            "max_tokens": its.max_tokens,
            "context": its.context,
            "history": {**history, "pinned": list(its.history.pinned)},
        }

    # --- parts ---------------------------------------------------------------------------------

    def _answered(
        self, heard: Sequence[str], temperature: float, seed: int | None
    ) -> Generator[Piece | Said]:
        """The answer to the user's last message, written down as it comes."""
        asked = up_to_the_last_of_the_user(self.turns())
        model = Sampled(self.model, temperature, seed)
        choice, source = (self._taught if self.tutor else self._plain)(model, asked)
        strategy = choice.strategy if choice else None
        why = choice.why if choice else None
        draft = Draft(self.store, self.id or "", strategy, why, self.label)
        done: Done | None = None
        try:
            with closing(source):
                if choice:
                    yield Piece("", strategy, why)
                for item in source:
                    if isinstance(item, str):
                        draft.grow(item)
                        yield Piece(item, strategy, why)
                    else:
                        done = item
            assert done is not None
            self._omitted = done.fitted.told()
            notes = (*heard, *done.notes, *((self._omitted,) if self._omitted else ()))
            turn = draft.finish(done, notes, model.sent)
        except (GeneratorExit, KeyboardInterrupt):
            draft.cut(STOPPED, model.sent)
            raise
        except BaseException as error:
            draft.cut(f"broke off: {error}", model.sent)
            raise
        usage = None if done.usage == Usage() else done.usage
        yield Said(turn, strategy, why, done.ending, usage, notes, self._omitted)

    def _taught(
        self, model: ChatModel, turns: Sequence[Turn]
    ) -> tuple[Choice, Generator[str | Done]]:
        assert self.tutor is not None
        problem = self.problem or as_problem(turns[0].text)
        dialogue = dialogue_of(problem, turns)
        teacher = TeacherStudentDialogueModel(model, problem, self.tutor)
        fixed = self.strategy or self.tutor.strategy
        if fixed:
            choice = Choice(fixed, "it was asked for")
        else:
            reading = read_student(dialogue, self.tutor.explanation)
            choice = choose(dialogue, reading, self.tutor.style, self.tutor.explanation)

        def pieces() -> Generator[str | Done]:
            source = teacher.stream_reply(dialogue, fixed)
            with closing(cast(Generator[str | Reply], source)):
                for item in source:
                    if isinstance(item, str):
                        yield item
                        continue
                    raw, notes = item.raw, item.mended
                    yield Done(item.text, raw.usage, item.fitted, notes, item.ending)

        return choice, pieces()

    def _plain(self, model: ChatModel, turns: Sequence[Turn]) -> tuple[None, Generator[str | Done]]:
        head = [Message("system", self.instructions)] if self.instructions else []
        budget = budget_of(self.model, self.max_tokens)
        fitted = fit_history([*head, *messages_of(turns)], budget)
        request = Request(fitted.messages, self.max_tokens)

        def pieces() -> Generator[str | Done]:
            text, finish, usage = "", FinishReason.STOP, Usage()
            deltas = model.stream(request)
            with closing(cast(Generator[Delta], deltas)):
                for delta in deltas:
                    finish, usage = delta.finish_reason or finish, delta.usage or usage
                    text += delta.text
                    if delta.text:
                        yield delta.text
            notes: tuple[str, ...] = ()
            if finish is FinishReason.LENGTH:
                notes = (f"cut off at the most tokens, {self.max_tokens}",)
            if not text.strip():
                notes = (*notes, "the model said nothing")
            yield Done(text, usage, fitted, notes)

        return None, pieces()


def tutor_of(kept: Conversation) -> TutorSettings | None:
    """The settings a conversation was held with; None for one with a plain model."""
    if not kept.tutor:
        return None
    its = kept.settings
    history = dict(its.get("history", {}))
    pinned = tuple(history.pop("pinned", ()))
    return TutorSettings(
        style=its.get("style", "adaptive"),
        strategy=Strategy(its["strategy"]) if its.get("strategy") else None,
        explanation=its.get("explanation"),
        history=History(pinned=pinned, **history),
        max_tokens=its.get("max_tokens", TutorSettings().max_tokens),
        context=its.get("context"),
    )


def _taken(text: str, tutor: bool) -> tuple[str, tuple[str, ...]]:
    """A message as it is kept, and what was done to it."""
    text = text.replace("\x00", "").strip()
    if not any(c.isprintable() and not c.isspace() for c in text):
        if not tutor:
            raise ConfigError("the message is empty: say something")
        return SILENCE, ()
    if len(text) <= LIMIT:
        return text, ()
    note = f"the message had {len(text):,} characters: the first {LIMIT:,} were taken"
    return text[:LIMIT], (note,)
