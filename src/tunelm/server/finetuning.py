"""The fine-tuning half of the server, put together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter

from tunelm.config import ModelConfig
from tunelm.models.loading import BUNDLED
from tunelm.server import files, jobs, uploads
from tunelm.server.catalog import Catalog
from tunelm.server.errors import ApiError, not_supported
from tunelm.server.job_runner import Runner
from tunelm.server.settings import ServerSettings
from tunelm.server.store import Store, discard


def build(
    settings: ServerSettings, catalog: Catalog, base: ModelConfig
) -> tuple[APIRouter, Runner]:
    """Files, uploads, jobs and the deletion of models under /v1, and what trains the jobs.

    `Runner.start` puts the fine-tuned models of earlier times into the catalog and goes on with
    unfinished jobs; `Runner.stop` closes the store.

    Raises:
        ConfigError: the state folder was written by a later version.
    """
    if base.base not in BUNDLED and Path(base.base).is_dir():
        # a job may go on in a server that was started somewhere else
        base = base.model_copy(update={"base": str(Path(base.base).resolve())})
    store = Store(settings.state)
    runner = Runner(store, catalog)
    api = APIRouter(prefix="/v1")
    api.include_router(files.router(store, settings.max_file))
    api.include_router(uploads.router(store, settings.max_file))
    api.include_router(jobs.router(store, catalog.base, base, runner))

    @api.api_route("/fine_tuning/alpha/graders/{rest:path}", methods=["POST"])
    def graders(rest: str) -> None:
        raise not_supported("grader", "Grading")

    @api.api_route("/fine_tuning/checkpoints/{rest:path}", methods=["GET", "POST", "DELETE"])
    def permissions(rest: str) -> None:
        raise not_supported("project_ids", "Sharing checkpoints with other projects")

    @api.delete("/models/{model:path}")
    def delete_model(model: str) -> dict[str, Any]:
        row = store.one("SELECT folder FROM models WHERE id = ?", model)
        if row is None:
            catalog.get(model)  # 404 for what nobody serves
            raise ApiError(
                403,
                f"{model} was not made by a fine-tuning job of this server, and stays.",
                "model_not_deletable",
                "model",
            )
        catalog.remove(model)
        with store.write() as db:
            db.execute("DELETE FROM models WHERE id = ?", (model,))
        discard(store.models / row["folder"])
        return {"id": model, "object": "model", "deleted": True}

    return api, runner
