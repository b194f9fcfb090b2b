"""A server from its start to its end: the state's lock, the port, readiness, a calm stop."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator

import filelock
import uvicorn
from starlette.datastructures import State

from tunelm.errors import ConfigError, RunDirError
from tunelm.lifeline import Parent
from tunelm.server.app import create_app
from tunelm.server.settings import ServerSettings

GRACE_S = 5
"""How long answers under way may go on when the server is told to end."""
KEEP_ALIVE_S = 75
"""How long an idle connection stays open; clients keep theirs for less."""
SWITCH_S = 0.001
"""How long one thread of Python may keep another waiting. The one that answers gives way at each of
its many short operations, and with Python's 5 ms gets its turn back too late: a tenth slower."""
PARENT_S = 0.5
"""How often a server looks whether the process it belongs to is still there."""


def listen(
    settings: ServerSettings,
    on_ready: Callable[[str, State], None],
    parent: int | None = None,
) -> None:
    """Serve until the process is told to end by SIGINT or SIGTERM, or `parent` is gone.

    Args:
        settings: what to serve and where.
        on_ready: called with the address that clients take as base_url, and with the app's state,
            when requests are answered.
        parent: a process without which the server has no purpose.

    Raises:
        TunelmError: the target cannot be served, the port is taken, the state is in use.
        SystemExit: 0 after SIGTERM.
        KeyboardInterrupt: after SIGINT.
    """
    settings.check()
    signal.signal(signal.SIGTERM, _end)
    if parent is not None:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    with _locked(settings), _bound(settings) as bound:
        app = create_app(settings)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=GRACE_S,
        )
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        url = f"http://{host}:{bound.getsockname()[1]}/v1"
        _Server(config, lambda: on_ready(url, app.state)).run([bound])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        sys.setswitchinterval(SWITCH_S)
        gc.collect()
        gc.freeze()  # else a collection walks over all that was imported, and all answers wait
        await super().startup(sockets)
        if self.started:
            self._on_ready()


@contextlib.contextmanager
def _locked(settings: ServerSettings) -> Generator[None]:
    """Hold the state folder; a server that trains nothing has none."""
    if not settings.train:
        yield
        return
    settings.state.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(settings.state / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise RunDirError(
            f"{settings.state}: another server uses this folder. Stop that one, give this one "
            "another --state, or let it only answer: --no-train."
        ) from None
    with lock:
        yield


def _bound(settings: ServerSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # asyncio switches Nagle's algorithm off only where the protocol is named; with it on, the
    # first text of a stream waits 40 ms for the client to acknowledge the headers
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # elsewhere it would let two servers have one port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((settings.host, settings.port))
        bound.listen(1024)
        return bound
    except OSError as error:
        bound.close()
        raise ConfigError(
            f"{settings.host}:{settings.port}: cannot listen there ({error}). Choose another "
            "--port (0 takes a free one) or --host."
        ) from None


def _end(*_: object) -> None:
    raise SystemExit(0)


def _watch(parent: int) -> None:
    Parent(parent).wait(PARENT_S)
    os.kill(os.getpid(), signal.SIGTERM)
