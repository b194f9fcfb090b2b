"""What the chat page asks for, done: conversations with the served models, kept in one file."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from functools import cache, partial
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tunelm.chat.records import Choice, Conversation, Pair
from tunelm.chat.session import Chat, tutor_of
from tunelm.chat.store import ChatStore
from tunelm.chat.targets import problems_in
from tunelm.chat.votes import Versus, tally
from tunelm.config import TASKS
from tunelm.errors import ConfigError, ModelError
from tunelm.server import chat_shapes as shapes
from tunelm.server.catalog import Catalog
from tunelm.server.chat_models import StreamingModel, open_served
from tunelm.server.chat_talks import Event, Events, Lines, Talks, answered
from tunelm.server.engines import Engine
from tunelm.server.errors import ApiError
from tunelm.server.settings import ServerSettings
from tunelm.tutor.dialogues import Problem
from tunelm.tutor.policy import Style
from tunelm.tutor.safety import Safety
from tunelm.tutor.tutor import TutorSettings, as_problem
from tunelm.types import content_hash

FILE = "chat.sqlite"
"""Of the server's state: all conversations."""
FILES = ("edu_dialogues.jsonl", "tutor_dialogues.jsonl")
"""Whose problems a tutor can be given by name."""


class Topic(BaseModel):
    """A problem to talk about: one of the bundled by its `id`, or a text of one's own."""

    model_config = ConfigDict(extra="forbid")
    id: str | None = None
    text: str = Field("", max_length=8000)
    solution: str = Field("", max_length=500)


class Begin(BaseModel):
    """A conversation's first message, and with whom it is to be.

    `style` makes the model a tutor, `other` sets a second one beside it.
    """

    model_config = ConfigDict(extra="forbid")
    text: str
    model: str
    other: str | None = None
    style: Style | None = None
    problem: Topic | None = None


@cache
def problems() -> dict[str, Problem]:
    """The problems of the bundled dialogues by id, the hand-made ones first."""
    found = (problem for name in FILES for problem in problems_in(TASKS / name))
    return {content_hash(problem.text)[:12]: problem for problem in found}


class Desk:
    """The conversations of one server.

    Args:
        file: where they are kept; made with the first of them.
        catalog: the models to talk with.
        engine: what answers.
        workers: most answers that are written at once.

    Raises:
        ConfigError: `file` was written by a later version, or is another program's.
        PrerequisiteError: it cannot be opened.
    """

    def __init__(self, settings: ServerSettings, catalog: Catalog, engine: Engine) -> None:
        self.talks = Talks(settings.max_batch)
        self._file, self._catalog, self._engine = settings.state / FILE, catalog, engine
        self._safety = Safety(settings.contact)
        self._lock = threading.Lock()
        self._store = ChatStore(self._file) if self._file.exists() else None

    @property
    def store(self) -> ChatStore:
        """The file, which nobody who does not chat needs to have."""
        with self._lock:
            if self._store is None:
                self._store = ChatStore(self._file)
            return self._store

    def close(self) -> None:
        """Let go of the file when what is under way has ended."""
        self.talks.pool.shutdown()
        if self._store is not None:
            self._store.close()

    def kept(self, id: str) -> Conversation:
        """A conversation. Raises ApiError (404) where there is none of that id."""
        try:
            return self.store.conversation(id)
        except ConfigError as error:
            raise ApiError(404, str(error), "not_found") from None

    def shown(self, id: str) -> dict[str, Any]:
        """A conversation as the page shows it."""
        kept = self.kept(id)
        return shapes.conversation(kept, self.store.pairs(id), self._tally(kept))

    def erased(self, delete: Callable[[ChatStore], object]) -> list[str]:
        """Delete something for good; where text is left all the same, in words."""
        before = len(self.store.notes)
        delete(self.store)
        notes = list(self.store.notes[before:])
        if copies := [path.name for path in self.store.copies]:
            notes.append(f"Not touched: {', '.join(copies)}, kept beside the file as it was.")
        return notes

    # --- answers -------------------------------------------------------------------------------

    def begin(self, asked: Begin) -> Lines:
        """The answer to a first message, or the two answers."""
        tutor = TutorSettings(asked.style) if asked.style else None
        chat, inner = self._chat(asked.model, tutor, {})
        chat.problem = _problem(asked.problem)
        if asked.other is None:
            return Lines(self.talks, partial(self._say, chat, inner, asked.text), inner.stop)
        if tutor is not None:
            raise ApiError(400, "two models side by side are no tutors.", "invalid_value", "style")
        other, second = self._chat(asked.other, None, {})
        return self._compare(Versus(chat, other), asked.text, (inner, second))

    def say(self, id: str, text: str) -> Lines:
        """The answer to a further message, or the two answers."""
        kept = self.kept(id)
        chat, inner = self._chat(kept.model, tutor_of(kept), kept.settings)
        chat.go_on(id)
        if kept.other is None:
            return Lines(self.talks, partial(self._say, chat, inner, text), inner.stop)
        other, second = self._chat(kept.other, None, kept.settings)
        versus = Versus(chat, other)
        pairs = self.store.pairs(id)
        versus.pending = pairs[-1] if pairs and pairs[-1].choice is None else None
        return self._compare(versus, text, (inner, second))

    def again(self, id: str) -> Lines:
        """Another answer to the last message, or the one that it never got."""
        kept = self.kept(id)
        if kept.other is not None:
            raise ApiError(400, "two answers side by side are given once.", "invalid_value")
        chat, inner = self._chat(kept.model, tutor_of(kept), kept.settings)
        chat.go_on(id)

        def work() -> Events:
            with self.talks.holding(id, inner.stop):
                yield from answered(chat, chat.regenerate(), inner)

        return Lines(self.talks, work, inner.stop)

    def vote(self, pair_id: str, choice: Choice) -> dict[str, Any]:
        """What a person says of two answers; whose they were, and how the two stand."""
        pair = self.store.vote(pair_id, choice)
        kept = self.store.conversation(pair.conversation)
        return shapes.pair(pair, (kept.model, kept.other or ""), self._tally(kept))

    # --- parts ---------------------------------------------------------------------------------

    def _say(self, chat: Chat, inner: StreamingModel, text: str) -> Events:
        if chat.id is None:
            source = chat.say(text)
            with self.talks.holding(chat.id or "", inner.stop):
                yield self._begun(chat)
                yield self._heard(chat)
                yield from answered(chat, source, inner)
        else:
            with self.talks.holding(chat.id, inner.stop):
                source = chat.say(text)
                yield self._heard(chat)
                yield from answered(chat, source, inner)

    def _compare(self, versus: Versus, text: str, inner: tuple[StreamingModel, ...]) -> Lines:
        def stop() -> None:
            for model in inner:
                model.stop()

        def work() -> Events:
            try:
                yield from self._pair(versus, text, stop)
            except (KeyboardInterrupt, ModelError):
                if not inner[0].stopped:
                    raise
                yield {"event": "said", "turn": None}

        return Lines(self.talks, work, stop)

    def _pair(self, versus: Versus, text: str, stop: Callable[[], None]) -> Events:
        """Two answers, told when both are there: how fast one is would tell whose it is."""
        chat, told = versus.model, False
        new = chat.id is None
        with ExitStack() as held:
            if not new:
                held.enter_context(self.talks.holding(chat.id or "", stop))
            source = held.enter_context(closing(versus.say(text)))
            for item in source:
                if not told and new:
                    held.enter_context(self.talks.holding(chat.id or "", stop))
                    yield self._begun(chat)
                if not told:
                    yield self._heard(chat)
                    told = True
                if isinstance(item, Pair):
                    pair = shapes.pair(item, (chat.label, versus.other.label), ())
                    yield {"event": "pair", "pair": pair}

    def _begun(self, chat: Chat) -> Event:
        return {"event": "begun", "conversation": self.shown(chat.id or "") | {"turns": []}}

    def _heard(self, chat: Chat) -> Event:
        kept = self.store.conversation(chat.id or "")
        said = next(turn for turn in reversed(kept.turns) if turn.role == "user")
        return {"event": "heard", "turn": shapes.turn(said), "title": kept.title}

    def _tally(self, kept: Conversation) -> tuple[str, ...]:
        return () if kept.other is None else tally(self.store, kept.model, kept.other).lines()

    def _chat(
        self, name: str, tutor: TutorSettings | None, settings: Mapping[str, Any]
    ) -> tuple[Chat, StreamingModel]:
        """(a chat with a served model, what is to be stopped)."""
        model, inner = open_served(self._catalog.get(name), self._engine)
        how = {k: settings[k] for k in ("instructions", "max_tokens") if k in settings}
        tutor = tutor and dataclasses.replace(tutor, safety=self._safety)
        chat = Chat(model, self.store, tutor=tutor, **how)
        chat.label = name
        return chat, inner


def _problem(asked: Topic | None) -> Problem | None:
    if asked is None:
        return None
    if asked.id is not None:
        found = problems().get(asked.id)
        if found is None:
            raise ApiError(404, f"there is no bundled problem {asked.id[:80]!r}.", "not_found")
        return found
    solution = asked.solution.strip()
    return dataclasses.replace(as_problem(asked.text), solutions=(solution,) if solution else ())
