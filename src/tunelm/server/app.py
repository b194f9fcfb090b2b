"""The server as an ASGI application."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from fastapi import APIRouter, FastAPI

from tunelm.errors import ModelError
from tunelm.models.identity import base_identity, check_adapter
from tunelm.models.loading import resolve_base
from tunelm.server.auth import Guard
from tunelm.server.catalog import Target, open_target
from tunelm.server.connection import deliver_to
from tunelm.server.engines import Engine, make_engine
from tunelm.server.errors import ApiError, install
from tunelm.server.inference import router
from tunelm.server.settings import ServerSettings
from tunelm.server.verify import evaluated, verify

if TYPE_CHECKING:
    from tunelm.server.chat_desk import Desk


class _Runner(Protocol):
    def start(self) -> None: ...

    def stop(self) -> None: ...


def create_app(settings: ServerSettings) -> FastAPI:
    """Load the model, check what is to be checked, and put the endpoints together.

    Its `state` has the `target` that is served, the `engine` with `which` it is and why, whether
    it was `alone` to be chosen, and what was `verified`.

    Raises:
        TunelmError: the target cannot be served, or `verify` found another model than the run's.
    """
    settings.check()
    target = open_target(settings.target, settings.name)
    if settings.max_length is not None:
        config = target.config.model_copy(update={"max_length": settings.max_length})
        target = dataclasses.replace(target, config=config)
    check_base(target)
    asked = evaluated(settings.verify, target.catalog) if settings.verify else []
    chosen = make_engine(settings, target)
    engine = chosen.engine
    target = dataclasses.replace(target, left_out=(*target.left_out, *chosen.refused))
    target.catalog.on_remove = lambda served: served.adapter and engine.forget(served.adapter)
    verified = verify(asked, engine) if asked else []
    runner: _Runner | None = None
    page: tuple[APIRouter, Desk] | None = None
    if settings.chat:
        from tunelm.server.chat import build as build_page

        page = build_page(settings, target, engine)
    app = FastAPI(
        title="tunelm",
        lifespan=_lifespan(engine, lambda: runner, page[1] if page else None),
        docs_url=None,
        redoc_url=None,
    )
    install(app)
    app.state.target, app.state.verified = target, verified
    app.state.engine, app.state.which = engine, chosen.which
    app.state.alone = chosen.alone
    app.include_router(router(target.catalog, engine))
    if settings.train:
        from tunelm.server.finetuning import build

        training, runner = build(settings, target.catalog, target.config)
        app.include_router(training)
    if page is not None:
        app.include_router(page[0])
    _add_health(app, engine)
    app.add_middleware(Guard, settings=settings)
    return app


def check_base(target: Target) -> None:
    """Raise ModelError where a run or an adapter was made with another base than is here."""
    adapters = [served.adapter for served in target.catalog.all() if served.adapter is not None]
    if not adapters and target.weights is None:
        return
    identity = base_identity(resolve_base(target.config), target.config.revision)
    if target.weights not in (None, identity["weights"]):
        raise ModelError(
            f"{target.config.base} is not the model that the run was made with: its weights are "
            "others now. Serve the run where they are the same, or compare again."
        )
    for adapter in adapters:
        check_adapter(adapter, identity)


def _lifespan(
    engine: Engine, runner: Callable[[], _Runner | None], desk: Desk | None
) -> Callable[[FastAPI], Any]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        engine.deliver = deliver_to(asyncio.get_running_loop())
        engine.start()
        training = runner()
        if training is not None:
            await asyncio.to_thread(training.start)
        try:
            yield
        finally:
            await asyncio.to_thread(engine.stop)
            if desk is not None:
                await asyncio.to_thread(desk.close)
            if training is not None:
                await asyncio.to_thread(training.stop)

    return lifespan


def _add_health(app: FastAPI, engine: Engine) -> None:
    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", **engine.counts()}

    @app.get("/ready")
    async def ready() -> dict[str, str]:
        if not engine.alive:
            raise ApiError(503, "the engine is not running.", "not_ready")
        return {"status": "ready"}
