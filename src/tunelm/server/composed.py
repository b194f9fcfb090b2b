"""Routes that ask the model more than once, or look something up first, behind the engine.

A retrieval route, a program of several steps, a classification held to its labels: each is a
ChatModel around an inner one. Here the inner one is the engine, so that their calls are batched
with everybody else's. An answer comes whole, also in a stream.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tunelm.errors import ModelError, TunelmError
from tunelm.models.base import ChatModel, as_stream
from tunelm.models.render import encode_prompt
from tunelm.server.asking import Ask, Piece, Sampling
from tunelm.server.connection import disconnected, failure, overloaded
from tunelm.server.engine import STOPPED, QueueFullError
from tunelm.server.engines import Engine
from tunelm.server.errors import ApiError
from tunelm.server.replies import Reply
from tunelm.server.rows import Ticket
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

Compose = Callable[[ChatModel], ChatModel]
"""From the model that is served to what a route makes of it."""


class EngineModel:
    """The engine, with one adapter or none, as a ChatModel. For threads other than the loop's.

    `stop` gives up what is under way; every later call raises ModelError.
    """

    capabilities = frozenset({"complete", "stream", "score"})

    def __init__(self, engine: Engine, adapter: Path | None) -> None:
        self.engine = engine
        self.tokenizer = engine.tokenizer
        self.max_length = engine.max_length
        self.name = "served"
        self._adapter = adapter
        self._lock = threading.Lock()
        self._tickets: set[Ticket] = set()
        self._stopped = False

    def stop(self) -> None:
        """End the work for a client that has left."""
        with self._lock:
            self._stopped = True
            tickets = list(self._tickets)
        for ticket in tickets:
            self.engine.cancel(ticket)
            ticket.emit(0, Piece("", error=STOPPED))

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """See ChatModel. Raises QueueFullError as the engine does."""
        prompts = [encode_prompt(self.tokenizer, request.messages) for request in requests]
        answers: list[Completion | None] = [None] * len(requests)
        asks: dict[int, Ask] = {}
        for i, (request, prompt) in enumerate(zip(requests, prompts, strict=True)):
            room = self.max_length - len(prompt)
            if room < 1:
                said = f"the prompt has {len(prompt)} tokens, the context {self.max_length}"
                error = f"context_length_exceeded: {said}"
                answers[i] = Completion("", FinishReason.ERROR, ZERO_USAGE, error=error)
                continue
            seed = None if request.seed is None else str(request.seed)
            sampling = Sampling(request.temperature, seed=seed)
            limit = min(request.max_tokens, room)
            asks[i] = Ask(prompt, limit, self._adapter, sampling, request.stop)
        for i, piece in zip(asks, self._wait(list(asks.values())), strict=True):
            usage = Usage(len(prompts[i]), piece.tokens, 0)
            answers[i] = Completion(piece.text, piece.finish or FinishReason.LENGTH, usage)
        return [answer for answer in answers if answer is not None]

    def stream(self, request: Request) -> Iterator[Delta]:
        """See ChatModel; the answer is one piece."""
        return as_stream(self.complete([request])[0])

    def score(self, pairs: Sequence[tuple[tuple[Message, ...], str]]) -> list[TokenLogprobs]:
        """See ChatModel. Raises ModelError where a prompt and its text do not fit."""
        asks: list[Ask] = []
        tails: list[list[int]] = []
        for prompt, text in pairs:
            head = encode_prompt(self.tokenizer, prompt)
            tail = list(self.tokenizer.encode(text, add_special_tokens=False))
            if len(head) + len(tail) > self.max_length:
                raise ModelError(
                    f"prompt and text have {len(head) + len(tail)} tokens; the context is "
                    f"{self.max_length}."
                )
            asks.append(Ask([*head, *tail], 0, self._adapter, top=0, score_prompt=True))
            tails.append(tail)
        found: list[TokenLogprobs] = []
        for tail, piece in zip(tails, self._wait(asks), strict=True):
            scored = piece.prompt[len(piece.prompt) - len(tail) :]
            names = tuple(self.tokenizer.convert_ids_to_tokens(tail))
            found.append(TokenLogprobs(names, tuple(s.logprob or 0.0 for s in scored)))
        return found

    def _wait(self, asks: Sequence[Ask]) -> list[Piece]:
        """The whole answer to each ask."""
        found: dict[int, Piece] = {}
        done = threading.Event()

        def emit(number: int, piece: Piece) -> None:
            found[number] = piece
            if len(found) == len(asks) or piece.error is not None:
                done.set()

        if not asks:
            return []
        with self._lock:
            if self._stopped:
                raise ModelError(STOPPED)
            ticket = self.engine.submit(asks, emit)
            self._tickets.add(ticket)
        try:
            done.wait()
        finally:
            with self._lock:
                self._tickets.discard(ticket)
        failed = [piece.error for piece in found.values() if piece.error is not None]
        if failed:
            raise ModelError(failed[0])
        return [found[i] for i in range(len(asks))]


class Composing(Response):
    """The answer to one request by a composed model, worked on while its client is there.

    Args:
        model: composed around `inner`.
        inner: what is stopped when the client leaves.
        requests: one for each answer.
        reply: makes a Reply from the number of prompt tokens.
        stream: whether it is sent as events.
    """

    def __init__(
        self,
        model: ChatModel,
        inner: EngineModel,
        requests: Sequence[Request],
        reply: Callable[[int], Reply],
        stream: bool,
    ) -> None:
        super().__init__()
        self._model, self._inner, self._requests = model, inner, requests
        self._reply, self._stream = reply, stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        work = asyncio.ensure_future(asyncio.to_thread(self._answer))
        gone = asyncio.ensure_future(disconnected(receive))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                self._inner.stop()
                await asyncio.gather(work, return_exceptions=True)
                return
            await work.result()(scope, receive, send)
        finally:
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)

    def _answer(self) -> Response:
        try:
            answers = self._model.complete(self._requests)
        except QueueFullError as full:
            return overloaded(full).response()
        except TunelmError as error:
            return failure(str(error)).response()
        if failed := next((a.error for a in answers if a.error is not None), None):
            code = "context_length_exceeded"
            if code in failed:
                return ApiError(400, failed, code, "messages").response()
            return failure(failed).response()
        return self._written(answers)

    def _written(self, answers: Sequence[Completion]) -> Response:
        reply = self._reply(sum(a.usage.prompt_tokens or 0 for a in answers))
        tokens = [a.usage.completion_tokens or 0 for a in answers]
        pieces = [
            Piece(a.text, finish=a.finish_reason, tokens=n)
            for a, n in zip(answers, tokens, strict=True)
        ]
        if not self._stream:
            return Response(reply.whole(pieces), media_type="application/json")
        events = b"".join(reply.events(i, piece) for i, piece in enumerate(pieces))
        body = reply.opening(len(pieces)) + events + reply.closing(sum(tokens))
        return Response(body, media_type="text/event-stream", headers={"cache-control": "no-cache"})
