"""Answers under way on the chat page: events as JSON lines, while the browser listens."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tunelm.chat.session import Chat, Piece, Said
from tunelm.errors import ModelError, TunelmError
from tunelm.server import chat_shapes as shapes
from tunelm.server.chat_models import StreamingModel
from tunelm.server.connection import disconnected
from tunelm.server.errors import ApiError

Event = Mapping[str, Any]
Events = Generator[Event]

log = logging.getLogger(__name__)


class Talks:
    """Which conversations are being answered: each has one answer at a time.

    Args:
        workers: most answers that are written at once.
    """

    def __init__(self, workers: int) -> None:
        self.pool = ThreadPoolExecutor(workers, thread_name_prefix="chat")
        self._lock = threading.Lock()
        self._stops: dict[str, Callable[[], None]] = {}

    @contextmanager
    def holding(self, id: str, stop: Callable[[], None]) -> Generator[None]:
        """A conversation while it is answered; `stop` ends the answer.

        Raises ApiError (409) where it is being answered already.
        """
        with self._lock:
            if id in self._stops:
                raise ApiError(409, "this conversation is being answered: stop that first.", "busy")
            self._stops[id] = stop
        try:
            yield
        finally:
            with self._lock:
                del self._stops[id]

    def stop(self, id: str) -> bool:
        """End the answer of a conversation; whether there was one."""
        with self._lock:
            stop = self._stops.get(id)
        if stop is not None:
            stop()
        return stop is not None


class Lines(Response):
    """Events as JSON lines, made in a thread; a browser that leaves calls `stop`.

    An error becomes the last event, `failed` with its `message`: the status has been sent by then.
    """

    def __init__(self, talks: Talks, work: Callable[[], Events], stop: Callable[[], None]) -> None:
        super().__init__()
        self._talks, self._work, self._stop = talks, work, stop

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        loop = asyncio.get_running_loop()
        lines: asyncio.Queue[bytes] = asyncio.Queue()

        def put(line: bytes) -> None:
            loop.call_soon_threadsafe(lines.put_nowait, line)

        work = loop.run_in_executor(self._talks.pool, self._run, put)
        gone = asyncio.ensure_future(disconnected(receive))
        sending = asyncio.ensure_future(_send(lines, send))
        try:
            await asyncio.wait((sending, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._stop()
            for task in (sending, gone):
                task.cancel()
            # what was said until now is in the store when the connection ends
            await asyncio.gather(sending, gone, work, return_exceptions=True)

    def _run(self, put: Callable[[bytes], None]) -> None:
        try:
            with closing(self._work()) as events:
                for event in events:
                    put(_line(event))
        except (ApiError, TunelmError) as error:
            put(_line({"event": "failed", "message": str(error)}))
        except Exception as error:
            log.exception("a conversation failed")
            said = f"the server failed at this message ({type(error).__name__})."
            put(_line({"event": "failed", "message": said}))
        finally:
            put(b"")


async def _send(lines: asyncio.Queue[bytes], send: Send) -> None:
    headers = [(b"content-type", b"application/x-ndjson"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    while line := await lines.get():
        await send({"type": "http.response.body", "body": line, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def _line(event: Event) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"


def answered(chat: Chat, source: Generator[Piece | Said], inner: StreamingModel) -> Events:
    """The events of one answer: `strategy`, `piece` after `piece`, and `said` with the whole turn.

    Of an answer that was stopped, the turn is what there is of it; null where there is nothing.

    Raises:
        TunelmError: as `Chat.say`.
    """
    try:
        with closing(source):
            for item in source:
                if isinstance(item, Said):
                    yield {"event": "said", "turn": shapes.turn(item.turn)}
                elif item.text:
                    yield {"event": "piece", "text": item.text}
                elif item.strategy is not None:
                    yield {"event": "strategy", **shapes.strategy(item.strategy, item.why)}
    except (KeyboardInterrupt, ModelError):
        if not inner.stopped:
            raise
        last = chat.turns()[-1]
        yield {"event": "said", "turn": shapes.turn(last) if last.role == "assistant" else None}
