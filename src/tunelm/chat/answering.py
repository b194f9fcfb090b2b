"""An answer on its way: asked for at a temperature, saved while it grows, whole in the end."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tunelm.chat.records import Details, Turn
from tunelm.chat.store import ChatStore
from tunelm.models.base import ChatModel
from tunelm.models.render import rendered
from tunelm.tutor.dialogues import Ending
from tunelm.tutor.history import Fitted
from tunelm.tutor.strategies import Strategy
from tunelm.types import Completion, Delta, Message, Request, TokenLogprobs, Usage

DRAFT_S = 0.5
"""How often an answer that is being written is saved: so much is lost with the program."""


@dataclass(frozen=True, slots=True)
class Done:
    """What there is to an answer beside its words, once the model has ended."""

    text: str
    usage: Usage
    fitted: Fitted
    notes: tuple[str, ...] = ()
    ending: Ending | None = None


class Draft:
    """An answer on its way into the store: saved now and then while it grows."""

    def __init__(
        self,
        store: ChatStore,
        id: str,
        strategy: Strategy | None,
        why: str | None,
        model: str,
    ) -> None:
        self.text = ""
        self._store, self._id = store, id
        self._head: Details = {"strategy": strategy, "why": why, "model": model}
        self._turn: Turn | None = None
        self._began = self._saved = time.monotonic()

    def grow(self, piece: str) -> None:
        """The next words."""
        self.text += piece
        now = time.monotonic()
        if self._turn is None:
            head: Details = {**self._head, "complete": False}
            self._turn = self._store.add(self._id, "assistant", self.text, **head)
        elif now - self._saved >= DRAFT_S:
            self._store.amend(self._turn.id, self.text)
            self._saved = now

    def cut(self, why: str, sent: Sequence[Message]) -> None:
        """There will be no more of it. Of an answer without a word nothing is kept."""
        if self._turn is not None:
            seconds = time.monotonic() - self._began
            self._store.amend(self._turn.id, self.text, seconds=seconds, notes=(why,), sent=sent)

    def finish(self, done: Done, notes: Sequence[str], sent: Sequence[Message]) -> Turn:
        """It is whole."""
        seconds = time.monotonic() - self._began
        if self._turn is None:
            self._turn = self._store.add(self._id, "assistant", done.text, **self._head)
        return self._store.amend(
            self._turn.id,
            done.text,
            usage=None if done.usage == Usage() else done.usage,
            seconds=seconds,
            sent=sent,
            complete=True,
            notes=notes,
        )


class Sampled:
    """A model that is asked at another temperature, with a seed: for a tutor, who has none.

    `sent`: the exact messages of the last stream.
    """

    def __init__(self, inner: ChatModel, temperature: float, seed: int | None) -> None:
        self.inner = inner
        self.name = inner.name
        self.capabilities = inner.capabilities
        self.sent: tuple[Message, ...] = ()
        self._temperature, self._seed = temperature, seed

    def render(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """The exact messages the inner model gets."""
        return rendered(self.inner, messages)

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """See ChatModel."""
        return self.inner.complete([self._asked(r) for r in requests])

    def stream(self, request: Request) -> Iterator[Delta]:
        """See ChatModel."""
        self.sent = self.render(request.messages)
        return self.inner.stream(self._asked(request))

    def score(self, pairs: Sequence[tuple[tuple[Message, ...], str]]) -> list[TokenLogprobs]:
        """See ChatModel."""
        return self.inner.score(pairs)

    def _asked(self, request: Request) -> Request:
        return dataclasses.replace(request, temperature=self._temperature, seed=self._seed)
