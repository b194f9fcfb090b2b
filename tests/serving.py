"""A server in this process, on a free port of loopback."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import uvicorn

from tunelm.server.app import create_app
from tunelm.server.batch import Batch
from tunelm.server.settings import ServerSettings


@dataclass
class Running:
    url: str
    sdk: openai.OpenAI
    app: Any

    def post(self, path: str = "/chat/completions", **body: Any) -> httpx.Response:
        return httpx.post(
            f"{self.url}{path}",
            content=json.dumps(body),
            headers={"Content-Type": "application/json"},
            timeout=60,
        )

    def health(self) -> dict[str, Any]:
        return httpx.get(self.url.removesuffix("/v1") + "/health").json()

    def idle(self) -> dict[str, Any]:
        """What /health says once nothing is under way."""
        for _ in range(600):
            found = self.health()
            if found["running"] == found["waiting"] == 0:
                return found
            time.sleep(0.02)
        raise AssertionError(f"still at work: {found}")


@contextmanager
def serving(target: object, key: str = "none", **settings: Any) -> Iterator[Running]:
    """A server that trains nothing; the client checks every answer against the SDK's types."""
    app = create_app(ServerSettings(str(target), Path("nowhere"), train=False, **settings))
    with listening(app) as url, strict_client(url, key) as sdk:
        yield Running(url, sdk, app)


def slowly(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on its model ends no answer before the limit of tokens, and writes seven a second.

    For what must happen while it writes, however fast the machine is.
    """
    step = Batch.step

    def after_a_while(self: Batch, new: Any) -> Any:
        time.sleep(0.15)
        return step(self, new)

    monkeypatch.setattr(Batch, "step", after_a_while)
    monkeypatch.setattr(app.state.engine, "ends", set())


def strict_client(url: str, key: str = "none") -> openai.OpenAI:
    """The SDK, which then checks every answer against its types."""
    return openai.OpenAI(base_url=url, api_key=key, max_retries=0, _strict_response_validation=True)


@contextmanager
def listening(app: Any) -> Iterator[str]:
    """The address of an app while it runs."""
    # longer than a client keeps an idle connection: else both may end it at once
    config = uvicorn.Config(app, port=0, log_level="critical", timeout_keep_alive=75)
    http = uvicorn.Server(config)
    thread = threading.Thread(target=http.run)
    thread.start()
    while not http.started and thread.is_alive():
        time.sleep(0.02)
    url = f"http://127.0.0.1:{http.servers[0].sockets[0].getsockname()[1]}/v1"
    try:
        yield url
    finally:
        http.should_exit = True
        thread.join(60)
    assert not thread.is_alive()
