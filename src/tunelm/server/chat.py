"""The chat page, and what it asks: conversations kept in the state folder, under /chat/api/.

Everything comes from this server alone, and is for its own page alone: a browser is told to load
nothing from elsewhere, and requests that another page has sent are refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Query
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from tunelm.chat.records import Choice
from tunelm.chat.session import LIMIT
from tunelm.chat.store import ChatStore
from tunelm.errors import ConfigError, TunelmError
from tunelm.server import chat_shapes as shapes
from tunelm.server.catalog import Target
from tunelm.server.chat_desk import Begin, Desk, problems
from tunelm.server.chat_talks import Lines
from tunelm.server.engines import Engine
from tunelm.server.errors import ApiError
from tunelm.server.settings import ServerSettings
from tunelm.tutor.tutor import TutorSettings

STYLES: Mapping[str, str] = {
    "socratic": "Asks, and never says the answer.",
    "directive": "Shows the next step, and says the answer sooner.",
    "adaptive": "Helps as little as you need, and more when you are stuck.",
}
"""The tutor's styles as a student should read of them."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "object-src 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
"""Of the page and its files: nothing from elsewhere, no script but its own, in nobody's frame."""
_FOLDER = Path(__file__).parent / "chat_page"
_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_OWN = ("same-origin", "none")


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid")
    text: str


class _Title(BaseModel):
    model_config = ConfigDict(extra="forbid")
    title: Annotated[str, Field(min_length=1, max_length=1000)]


class _Rating(BaseModel):
    model_config = ConfigDict(extra="forbid")
    value: Literal[-1, 0, 1]


class _Vote(BaseModel):
    model_config = ConfigDict(extra="forbid")
    choice: Choice


def build(settings: ServerSettings, target: Target, engine: Engine) -> tuple[APIRouter, Desk]:
    """(the page with what it asks for, what is to be closed when the server ends).

    Raises:
        TunelmError: see Desk.
    """
    desk = Desk(settings, target.catalog, engine)
    api = APIRouter(prefix="/chat/api", route_class=_Told, dependencies=[Depends(same_origin)])
    _add_lists(api, desk, target)
    _add_changes(api, desk)
    _add_answers(api, desk)
    whole = APIRouter()
    whole.include_router(api)
    _add_files(whole)
    return whole, desk


def same_origin(request: Request) -> None:
    """Raise ApiError (403) for what another page has a browser send, or a form of it.

    A browser that writes Sec-Fetch-Site is believed, since no page can change that; of another
    one, Origin must name the host that was asked. What is sent must be JSON, which a form cannot
    send, and another page only after asking, which is refused.
    """
    headers = request.headers
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    foreign = site not in _OWN if site else _elsewhere(origin, headers.get("host", ""))
    if foreign:
        raise ApiError(403, "pages from elsewhere may not use this server.", "wrong_origin")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.method in ("POST", "PATCH") and kind != "application/json":
        raise ApiError(415, "the body must be application/json.", "invalid_request")


def _elsewhere(origin: str | None, host: str) -> bool:
    try:
        return origin is not None and urlsplit(origin).netloc.lower() != host.lower()
    except ValueError:
        return True


class _Told(APIRoute):
    """Errors of the conversations' own become answers in words."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See APIRoute."""
        handle = super().get_route_handler()

        async def told(request: Request) -> Response:
            try:
                return await handle(request)
            except TunelmError as error:
                status = 400 if isinstance(error, ConfigError) else 500
                raise ApiError(status, str(error), "chat_error") from None

        return told


def _add_files(app: APIRouter) -> None:
    """The page and its files, read once."""
    for path in sorted(_FOLDER.iterdir()):
        if path.suffix in _TYPES:
            kind = f"{_TYPES[path.suffix]}; charset=utf-8"
            reply = _file(path.read_bytes(), kind)
            where = "/" if path.name == "index.html" else f"/chat/{path.name}"
            app.add_api_route(where, reply, methods=["GET", "HEAD"], include_in_schema=False)


def _file(body: bytes, kind: str) -> Callable[[], Coroutine[Any, Any, Response]]:
    async def reply() -> Response:
        return Response(body, media_type=kind, headers=HEADERS)

    return reply


def _add_lists(api: APIRouter, desk: Desk, target: Target) -> None:
    """What can be looked at."""

    @api.get("/start")
    def start() -> dict[str, Any]:
        return {
            "models": [served.id for served in target.catalog.all()],
            "model": target.winner or target.catalog.base,
            "limit": LIMIT,
            "style": TutorSettings().style,
            "styles": STYLES,
            "problems": [
                {"id": id, "subject": one.subject, "text": one.text}
                for id, one in problems().items()
            ],
            "notes": list(desk.store.notes),
        }

    @api.get("/conversations")
    def conversations(
        q: Annotated[str, Query(max_length=1000)] = "",
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        offset: Annotated[int, Query(ge=0)] = 0,
    ) -> dict[str, Any]:
        found = desk.store.conversations(q, limit + 1, offset)
        return {
            "conversations": [shapes.summary(one) for one in found[:limit]],
            "more": len(found) > limit,
        }

    @api.get("/conversations/{id}")
    def conversation(id: str) -> dict[str, Any]:
        return desk.shown(id)

    @api.get("/conversations/{id}/export")
    def export(id: str, form: str = "json") -> Response:
        desk.kept(id)
        return PlainTextResponse(desk.store.export(id, form))

    @api.get("/export")
    def export_all(form: str = "json") -> Response:
        return PlainTextResponse(desk.store.export(None, form))

    @api.get("/training-rows")
    def training_rows() -> Response:
        rows = desk.store.training_rows()
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        return PlainTextResponse("".join(lines))


def _add_changes(api: APIRouter, desk: Desk) -> None:
    """What can be done to what was said."""

    @api.patch("/conversations/{id}")
    def rename(id: str, body: _Title) -> dict[str, Any]:
        desk.kept(id)
        desk.store.rename(id, body.title)
        return {"title": desk.kept(id).title}

    @api.delete("/conversations/{id}")
    def delete(id: str) -> dict[str, Any]:
        desk.kept(id)
        desk.talks.stop(id)
        return {"notes": desk.erased(lambda store: store.delete(id))}

    @api.delete("/conversations")
    def delete_all() -> dict[str, Any]:
        return {"notes": desk.erased(ChatStore.delete_all)}

    @api.post("/turns/{id}/rating")
    def rate(id: str, body: _Rating) -> dict[str, Any]:
        desk.store.rate(id, body.value)
        return {"rating": body.value}

    @api.post("/pairs/{id}/vote")
    def vote(id: str, body: _Vote) -> dict[str, Any]:
        return desk.vote(id, body.choice)


def _add_answers(api: APIRouter, desk: Desk) -> None:
    """What models are asked; the answers come as events (see chat_talks)."""

    @api.post("/conversations")
    def begin(body: Begin) -> Lines:
        return desk.begin(body)

    @api.post("/conversations/{id}/messages")
    def say(id: str, body: _Message) -> Lines:
        return desk.say(id, body.text)

    @api.post("/conversations/{id}/again")
    def again(id: str) -> Lines:
        return desk.again(id)

    @api.post("/conversations/{id}/stop")
    def stop(id: str) -> dict[str, Any]:
        return {"stopped": desk.talks.stop(id)}
