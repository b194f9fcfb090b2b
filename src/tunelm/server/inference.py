"""Models, chat completions and text completions under /v1."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from tunelm.server.catalog import Catalog, Served
from tunelm.server.composed import Compose, Composing, EngineModel
from tunelm.server.connection import Answering
from tunelm.server.engines import Engine
from tunelm.server.replies import Reply, TextReply, model_object
from tunelm.server.wire import ChatBody, CompletionBody


def router(catalog: Catalog, engine: Engine) -> APIRouter:
    """The endpoints that answer."""
    api = APIRouter(prefix="/v1")

    @api.get("/models")
    async def list_models() -> dict[str, Any]:
        data = [model_object(served, catalog.base) for served in catalog.all()]
        return {"object": "list", "data": data}

    @api.get("/models/{model:path}")
    async def retrieve_model(model: str) -> dict[str, Any]:
        return model_object(catalog.get(model), catalog.base)

    @api.post("/chat/completions")
    async def chat(body: ChatBody) -> Response:
        served = catalog.get(body.model)
        if served.compose is not None:
            return _composing(served, served.compose, engine, body)
        asks = body.asks(served, engine)
        reply = Reply(served.id, engine.vocabulary, len(asks[0].prompt), body.counts_stream)
        return Answering(engine, asks, reply)

    @api.post("/completions")
    async def complete(body: CompletionBody) -> Response:
        served = catalog.get(body.model)
        asks = body.asks(served, engine)
        prompt_tokens = sum(len(ask.prompt) for ask in asks[:: body.n])
        reply = TextReply(
            served.id,
            engine.vocabulary,
            prompt_tokens,
            body.counts_stream,
            body.echoes(asks, engine.vocabulary),
        )
        return Answering(engine, asks, reply)

    return api


def _composing(served: Served, compose: Compose, engine: Engine, body: ChatBody) -> Composing:
    """The answer of a route that is more than one prompt."""
    inner = EngineModel(engine, served.adapter)

    def reply(prompt_tokens: int) -> Reply:
        return Reply(served.id, engine.vocabulary, prompt_tokens, body.counts_stream)

    return Composing(compose(inner), inner, body.requests(engine), reply, body.stream)
