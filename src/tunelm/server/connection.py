"""An answer that is worked on only while its client is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tunelm.server.asking import Ask, Piece
from tunelm.server.engine import DELETED, STOPPED, QueueFullError
from tunelm.server.engines import Engine
from tunelm.server.errors import ApiError
from tunelm.server.replies import Reply, event
from tunelm.server.rows import Event, Ticket


def deliver_to(loop: asyncio.AbstractEventLoop) -> Callable[[list[Event]], None]:
    """What an engine calls from its thread: the events of a step arrive in the loop together."""

    def spread(events: list[Event]) -> None:
        for ticket, number, piece in events:
            ticket.emit(number, piece)

    def deliver(events: list[Event]) -> None:
        loop.call_soon_threadsafe(spread, events)

    return deliver


class Answering(Response):
    """The answer to one request, from the engine to the client; a client that leaves ends it.

    Queued at once, so that a full queue is an error before anything is sent.

    Raises:
        ApiError: 503 where too many wait, or nothing is answered any more.
    """

    def __init__(self, engine: Engine, asks: Sequence[Ask], reply: Reply) -> None:
        super().__init__()
        self._engine, self._reply = engine, reply
        self._answers = len(asks)
        self._stream = asks[0].stream
        self._pieces: list[tuple[int, Piece]] = []
        self._arrived = asyncio.Event()
        if not engine.alive:
            raise failure(STOPPED)
        try:
            self._ticket: Ticket = engine.submit(asks, self._emit)
        except QueueFullError as full:
            raise overloaded(full) from None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        work = asyncio.ensure_future(self._send(scope, receive, send))
        gone = asyncio.ensure_future(disconnected(receive))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            self._engine.cancel(self._ticket)
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)

    def _emit(self, number: int, piece: Piece) -> None:
        self._pieces.append((number, piece))
        self._arrived.set()

    async def _next(self) -> list[tuple[int, Piece]]:
        """What has come since; waits until there is something."""
        await self._arrived.wait()
        self._arrived.clear()
        found, self._pieces = self._pieces, []
        return found

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._stream:
            await self._send_stream(scope, receive, send)
            return
        whole: dict[int, Piece] = {}
        while len(whole) < self._answers:
            for number, piece in await self._next():
                if piece.error is not None:
                    await failure(piece.error).response()(scope, receive, send)
                    return
                whole[number] = piece
        body = self._reply.whole([whole[i] for i in range(self._answers)])
        await Response(body, media_type="application/json")(scope, receive, send)

    async def _send_stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        pieces = await self._next()
        if (error := pieces[0][1].error) is not None:  # nothing was sent yet
            await failure(error).response()(scope, receive, send)
            return
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        body, ended, tokens = self._reply.opening(self._answers), 0, 0
        while True:
            for number, piece in pieces:
                if piece.error is not None:
                    body += event(failure(piece.error).body())
                    await send({"type": "http.response.body", "body": body})
                    return
                body += self._reply.events(number, piece)
                ended += piece.last
                tokens += piece.tokens if piece.last else 0
            if ended == self._answers:
                break
            if body:
                await send({"type": "http.response.body", "body": body, "more_body": True})
            body, pieces = b"", await self._next()
        await send({"type": "http.response.body", "body": body + self._reply.closing(tokens)})


def overloaded(full: QueueFullError) -> ApiError:
    """What a client is told when the queue is full."""
    return ApiError(
        503,
        "the server has more requests waiting than it takes on. Try again later.",
        "overloaded",
        headers={"Retry-After": str(full.retry_after)},
    )


def failure(error: str) -> ApiError:
    """What a client is told when an answer does not come."""
    if error == DELETED:
        return ApiError(404, error, "model_not_found", "model")
    return ApiError(503 if error == STOPPED else 500, error, "server_error")


async def disconnected(receive: Receive) -> None:
    """Returns when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
