"""An HTTP endpoint that speaks the OpenAI protocol, one try at a time.

Nothing here retries or decides; `tunelm.models.remote` does. The key is sent and kept nowhere
else: not in a repr, an error or a file, and it is blotted out of whatever a server says.
"""

from __future__ import annotations

import dataclasses
import email.utils
import json
import math
import re
import time
import weakref
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import httpx

from tunelm.errors import ModelError
from tunelm.models.address import Address, read_key

TIMEOUT_S = 120.0
"""Longest wait for an answer: a model on one's own machine may have to be loaded first."""
CONNECT_S = 10.0
CALLS_AT_ONCE = 8
"""Most requests under way at one endpoint."""
MAX_BYTES = 16 * 2**20
"""Longest answer read; one of a chat has kilobytes."""
_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Reply:
    """What came of one try.

    `data` is the JSON object of a good answer; else None, and `error` says why in one line.
    `status` None: no answer came. `sent` False: the request did not get there either.
    `code` and `param` are the fields of the server's error, `wait_s` what Retry-After asks.
    """

    status: int | None
    data: dict[str, Any] | None = None
    error: str = ""
    code: str = ""
    param: str = ""
    wait_s: float | None = None
    sent: bool = True
    seconds: float = 0.0


class Endpoint:
    """An address with its key and its open connections; safe to use from several threads.

    The key is read from the environment variable `variable` when this is made.
    """

    most = CALLS_AT_ONCE

    def __init__(
        self, address: Address, variable: str | None = None, timeout_s: float = TIMEOUT_S
    ) -> None:
        self.address = address
        self.variable = variable
        self.timeout_s = timeout_s
        self._key = key = read_key(variable)
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s), pool=None),
            trust_env=not address.own,  # a proxy of the environment is not for one's own machine
        )
        weakref.finalize(self, self._client.close)

    def __repr__(self) -> str:
        return f"Endpoint({self.address.url!r})"

    @property
    def has_key(self) -> bool:
        """Whether a key is sent."""
        return self._key is not None

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Reply:
        """One try: POST with a body, GET without. Never raises for what the network does."""
        began = time.monotonic()
        response = self._send(path, body)
        if isinstance(response, Reply):
            return response
        try:
            raw = b"".join(self._pieces(response, began + self.timeout_s))
            reply = self._reply(response, raw)
        except (httpx.HTTPError, ModelError) as error:
            reply = Reply(None, error=self.clean(f"the answer broke off: {_text_of(error)}"))
        finally:
            response.close()
        return dataclasses.replace(reply, seconds=time.monotonic() - began)

    @contextmanager
    def events(
        self, path: str, body: Mapping[str, Any]
    ) -> Generator[tuple[Reply, Iterator[dict[str, Any]]]]:
        """One try at a stream: a Reply without data, and the objects of its server-sent events.

        Where the reply has an error there are none. Leaving the context ends the stream.
        Iterating raises ModelError when the stream breaks off or the server reports an error.
        """
        response = self._send(path, body)
        if isinstance(response, Reply):
            yield response, iter(())
            return
        try:
            if response.status_code != 200:
                try:
                    raw = b"".join(self._pieces(response, time.monotonic() + self.timeout_s))
                except (httpx.HTTPError, ModelError):
                    raw = b""
                yield self._reply(response, raw), iter(())
            else:
                yield Reply(200), self._events(response)
        finally:
            response.close()

    def models(self) -> Reply:
        """What GET /models says; free of charge wherever it exists."""
        return self.ask("models")

    def clean(self, text: object) -> str:
        """A server's or a library's words as one short line without the key."""
        line = " ".join(printable(str(text)).split())
        if self._key:
            line = line.replace(self._key, "[key]")
        return line if len(line) <= 300 else line[:300] + "..."

    def _send(self, path: str, body: Mapping[str, Any] | None) -> httpx.Response | Reply:
        """A response whose body is still to be read, or why there is none."""
        content = None if body is None else json.dumps(body).encode("ascii")
        request = self._client.build_request(
            "GET" if body is None else "POST",
            f"{self.address.url}/{path}",
            content=content,
            headers={"Content-Type": "application/json"} if content else {},
        )
        try:
            return self._client.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout, UnicodeError) as error:
            # a host name with a label too long for DNS is a UnicodeError of the socket module
            return Reply(None, error=self.clean(f"no connection: {_text_of(error)}"), sent=False)
        except httpx.HTTPError as error:
            return Reply(None, error=self.clean(f"no answer: {_text_of(error)}"))

    def _pieces(self, response: httpx.Response, deadline: float) -> Iterator[bytes]:
        size = 0
        for piece in response.iter_bytes():
            size += len(piece)
            if size > MAX_BYTES:
                raise ModelError(f"longer than {MAX_BYTES // 2**20} MiB")
            yield piece
            if time.monotonic() > deadline:
                raise ModelError(f"not at its end after {self.timeout_s:g} s")

    def _reply(self, response: httpx.Response, raw: bytes) -> Reply:
        status = response.status_code
        try:
            data = json.loads(raw)
        except (ValueError, RecursionError):
            data = None
        if status == 200:
            if isinstance(data, dict):
                return Reply(status, cast(dict[str, Any], data))
            return Reply(status, error=self.clean(f"the answer is no JSON object: {_start(raw)}"))
        said = _error_of(data)
        message = said.get("message") or _start(raw) or response.reason_phrase
        if where := response.headers.get("location"):
            message = f"it redirects to {where}"
        return Reply(
            status,
            error=self.clean(f"HTTP {status} from {response.url.path}: {message}"),
            code=self.clean(said.get("code") or said.get("type") or ""),
            param=self.clean(said.get("param") or ""),
            wait_s=retry_after(response.headers.get("retry-after")),
        )

    def _events(self, response: httpx.Response) -> Iterator[dict[str, Any]]:
        # Lines end at \n alone: JSON may hold U+2028, at which a text's own splitting would cut.
        held = b""
        try:
            for piece in self._pieces(response, math.inf):
                *lines, held = (held + piece).split(b"\n")
                for line in lines:
                    if not line.startswith(b"data:"):
                        continue
                    payload = line[5:].strip()
                    if payload == b"[DONE]":
                        return
                    yield self._event(payload)
        except httpx.HTTPError as error:
            raise ModelError(self.clean(f"the stream broke off: {_text_of(error)}")) from None

    def _event(self, payload: bytes) -> dict[str, Any]:
        try:
            data = json.loads(payload)
        except (ValueError, RecursionError):
            data = None
        if not isinstance(data, dict):
            raise ModelError(self.clean(f"the stream holds what is no JSON: {_start(payload)}"))
        if data.get("error"):
            message = _error_of(cast(object, data)).get("message")
            raise ModelError(self.clean(f"the stream ended in an error: {message}"))
        return cast(dict[str, Any], data)


def printable(text: str) -> str:
    """A text that a file can hold: half a surrogate pair, which JSON can, becomes U+FFFD."""
    return _SURROGATES.sub("\ufffd", text)


def retry_after(header: str | None) -> float | None:
    """Seconds to wait by a Retry-After header: a number, or a date; None without one.

    >>> retry_after("2.5"), retry_after("soon"), retry_after("Thu, 01 Jan 1970 00:00:00 GMT")
    (2.5, None, 0.0)
    """
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _error_of(data: object) -> dict[str, Any]:
    """The error in an answer's body, in the forms that servers use."""
    if not isinstance(data, dict):
        return {}
    body = cast(dict[str, Any], data)
    for name in ("error", "detail", "message"):
        found = body.get(name)
        if isinstance(found, dict):
            return cast(dict[str, Any], found)
        if found:
            return {"message": found}
    return {}


def _start(raw: bytes) -> str:
    text = raw[:100].decode("utf-8", "replace")
    return repr(text) if text.strip() else ""


def _text_of(error: Exception) -> str:
    return str(error) or type(error).__name__
