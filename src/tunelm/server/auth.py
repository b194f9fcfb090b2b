"""Who may ask, and how much they may send: looked at before a request reaches an endpoint."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunelm.models.address import is_loopback
from tunelm.server.errors import ApiError
from tunelm.server.settings import MEBIBYTE, ServerSettings

OPEN = ("/health", "/ready")
"""What needs no key: it says only whether the server works, and how busy it is."""
_PAGE, _PAGE_ASKS = "/chat/", "/chat/api/"
"""The chat page's files need no key either, or it could not ask for one; what it asks does."""
_SAID = "the request is too large: at most {} bytes are taken."
_CLOSE = {"Connection": "close"}  # what is left of the body is not read
FORM = MEBIBYTE
"""What a file's form may add to its bytes."""


class Guard:
    """ASGI middleware: keys, where requests may come from, and how large they may be.

    Keys are kept as hashes. Without keys only this machine is answered, and not on behalf of a
    web page: a page that names this server as its own host (DNS rebinding) or posts to it from
    elsewhere is refused by what browsers write into Host and Origin.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app = app
        self._keys = [_hash(key) for key in settings.api_keys]
        self._host = settings.host.lower()
        self._max_body = settings.max_body
        self._max_file = settings.max_file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, path = Headers(scope=scope), str(scope["path"])
        limit = self._limit(path)
        error = self._refused(headers, path) or _too_large(headers, limit)
        if error is not None:
            await error.response()(scope, receive, send)
            return
        await self._app(scope, _Meter(receive, limit).receive, send)

    def _refused(self, headers: Headers, path: str) -> ApiError | None:
        if self._keys:
            return None if _is_open(path) or self._has_key(headers) else _no_key(headers)
        named = _hostname(f"//{headers.get('host', '')}")
        origin = headers.get("origin")
        if not self._own(named):
            return ApiError(403, "the Host header does not name this server.", "wrong_host")
        if origin is not None and not self._own(_hostname(origin)):
            return ApiError(403, "pages from elsewhere may not use this server.", "wrong_origin")
        return None

    def _own(self, host: str) -> bool:
        return is_loopback(host) or host == self._host

    def _has_key(self, headers: Headers) -> bool:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = _hash(key.strip())
        same = [hmac.compare_digest(given, known) for known in self._keys]  # all, always
        return scheme.lower() == "bearer" and any(same)

    def _limit(self, path: str) -> int:
        file = path == "/v1/files" or (path.startswith("/v1/uploads/") and path.endswith("/parts"))
        return self._max_file + FORM if file else self._max_body


class _Meter:
    """Counts the bytes of a body as they come."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive, self._limit, self._got = receive, limit, 0

    async def receive(self) -> MutableMapping[str, Any]:
        message: Message = await self._receive()
        self._got += len(message.get("body", b""))
        if self._got > self._limit:
            # the one kind of error that FastAPI lets through while it reads a body
            raise HTTPException(413, _SAID.format(self._limit), _CLOSE)
        return message


def _is_open(path: str) -> bool:
    page = path == "/" or (path.startswith(_PAGE) and not path.startswith(_PAGE_ASKS))
    return page or path in OPEN


def _too_large(headers: Headers, limit: int) -> ApiError | None:
    length = headers.get("content-length", "0")
    return _large(limit) if length.isdecimal() and int(length) > limit else None


def _large(limit: int) -> ApiError:
    return ApiError(413, _SAID.format(limit), "invalid_request", headers=_CLOSE)


def _no_key(headers: Headers) -> ApiError:
    said = "Incorrect API key provided." if "authorization" in headers else "No API key provided."
    return ApiError(401, f"{said} Send it as 'Authorization: Bearer KEY'.", "invalid_api_key")


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _hostname(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""
