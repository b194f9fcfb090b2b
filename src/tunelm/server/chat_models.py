"""The served models as the chat page talks to them: a token at a time, and stopped at a word."""

from __future__ import annotations

import queue
from collections.abc import Iterator

from tunelm.errors import ModelError
from tunelm.models.base import ChatModel
from tunelm.models.prompted import PromptedModel
from tunelm.models.render import encode_prompt
from tunelm.server.asking import Ask, Piece, Sampling
from tunelm.server.catalog import Served
from tunelm.server.composed import EngineModel
from tunelm.server.engine import STOPPED, QueueFullError
from tunelm.server.engines import Engine
from tunelm.types import Delta, Request, Usage

FULL = "the server has more requests waiting than it takes on. Try again in {} s."


class StreamingModel(EngineModel):
    """The engine as a ChatModel whose `stream` gives out text as it is generated.

    After `stop` it ends with KeyboardInterrupt, as Ctrl-C ends it in a terminal: a person did not
    want to hear more, and nothing failed.
    """

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called: what then failed was given up, and has not broken."""
        return self._stopped

    def stream(self, request: Request) -> Iterator[Delta]:
        """See ChatModel. A queue that is full is a ModelError too: there is nobody to retry."""
        prompt = encode_prompt(self.tokenizer, request.messages)
        room = self.max_length - len(prompt)
        if room < 1:
            raise ModelError(
                f"the prompt has {len(prompt)} tokens; the context is {self.max_length}."
            )
        seed = None if request.seed is None else str(request.seed)
        ask = Ask(
            prompt,
            min(request.max_tokens, room),
            self._adapter,
            Sampling(request.temperature, seed=seed),
            request.stop,
            stream=True,
        )
        pieces: queue.SimpleQueue[Piece] = queue.SimpleQueue()
        with self._lock:
            if self._stopped:
                raise KeyboardInterrupt
            if not self.engine.alive:
                raise ModelError(STOPPED)
            try:
                ticket = self.engine.submit([ask], lambda _, piece: pieces.put(piece))
            except QueueFullError as full:
                raise ModelError(FULL.format(full.retry_after)) from None
            self._tickets.add(ticket)
        try:
            while not (piece := pieces.get()).last:
                yield Delta(piece.text)
            if piece.error is not None and self._stopped:
                raise KeyboardInterrupt
            if piece.error is not None:
                raise ModelError(piece.error)
            yield Delta(piece.text, piece.finish, Usage(len(prompt), piece.tokens, 0))
        finally:
            with self._lock:
                self._tickets.discard(ticket)
            self.engine.cancel(ticket)


def open_served(served: Served, engine: Engine) -> tuple[ChatModel, StreamingModel]:
    """(the model of that name with all that stands before it, what is to be stopped)."""
    inner = StreamingModel(engine, served.adapter)
    inner.name = served.id
    if served.compose is not None:
        return served.compose(inner), inner
    if served.system or served.demos:
        return PromptedModel(inner, served.system, served.demos), inner
    return inner, inner
