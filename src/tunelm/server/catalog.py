"""What a server serves: one base model, and what stands on it, by name."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tunelm.config import ModelConfig, TaskConfig
from tunelm.errors import ConfigError, TunelmError
from tunelm.models import remote_name
from tunelm.models.base import ChatModel
from tunelm.models.labels import answering
from tunelm.models.prompted import PromptedModel
from tunelm.route_settings import ConstantSettings, RagSettings
from tunelm.routes import make_route
from tunelm.routes.programs.model import open_program
from tunelm.routes.programs.program import FILE, Program
from tunelm.rundir import read_json
from tunelm.server.errors import ApiError
from tunelm.target import find_run, is_adapter, read_adapter, read_route, winner_of
from tunelm.training.job import WHOLE
from tunelm.types import Adapted, Message

OWNER = "tunelm"


@dataclass(frozen=True)
class Served:
    """A model by the name that clients give.

    Attributes:
        id: the name.
        created: when it was made, in Unix seconds.
        owned_by: shown to clients.
        adapter: the folder of its adapter; None: the base model's own weights.
        system, demos: what stands before a caller's messages (see `models.prompted`).
        compose: what a route makes of the model that answers, where it is more than one prompt;
            None: `system` and `demos` are all.
    """

    id: str
    created: int
    owned_by: str
    adapter: Path | None = None
    system: str = ""
    demos: tuple[Message, ...] = ()
    compose: Callable[[ChatModel], ChatModel] | None = None


class Catalog:
    """The models that are served; safe to use from several threads.

    Attributes:
        base: the id of the base model.
        on_remove: called with what was removed.
    """

    def __init__(self, base: Served) -> None:
        self.base = base.id
        self.on_remove: Callable[[Served], None] = lambda served: None
        self._served = {base.id: base}
        self._lock = threading.Lock()

    def add(self, served: Served) -> None:
        """Serve a model from now on."""
        with self._lock:
            self._served[served.id] = served

    def remove(self, name: str) -> None:
        """Serve it no longer. What is being answered with it is answered to the end."""
        with self._lock:
            served = self._served.pop(name, None)
        if served is not None:
            self.on_remove(served)

    def get(self, name: str) -> Served:
        """The model of that name. Raises ApiError (404) where there is none."""
        with self._lock:
            served, names = self._served.get(name), list(self._served)
        if served is None:
            shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
            raise ApiError(
                404,
                f"The model {name[:200]!r} does not exist. Served here: {shown}.",
                "model_not_found",
                "model",
            )
        return served

    def all(self) -> list[Served]:
        """Every model, the base first."""
        with self._lock:
            return list(self._served.values())


WITHOUT_MODEL = ("rule", "nearest", "classifier")
"""Kinds of route that answer by themselves, whatever base is served beside them."""


@dataclass(frozen=True)
class Target:
    """A TARGET of the command line, read: what to serve and on which base.

    Attributes:
        winner: the id of the route that a run's report says to ship; None where there is none.
        left_out: routes of a run that cannot be served, with the reason.
        weights: the hash of the base's weights that a run was made with; None where unknown.
    """

    catalog: Catalog
    config: ModelConfig
    winner: str | None = None
    left_out: tuple[str, ...] = ()
    weights: str | None = None


def open_target(target: str, name: str | None = None) -> Target:
    """Read a run, RUN/ROUTE, an adapter's folder or the name of a model; loads no weights.

    `name` is what clients call the base model; None: as it is called here.

    Raises:
        ConfigError: nothing of the kind is there, or it cannot be served.
        RunDirError: a route's prompt program is broken.
    """
    path = Path(target)
    if found := find_run(path):
        return _open_run(*found, name)
    if is_adapter(path):
        config, system = read_adapter(path)
        catalog = Catalog(_base(config, name))
        adapter = path.resolve().name
        catalog.add(Served(adapter, _made(path), OWNER, path.resolve(), system))
        return Target(catalog, config, adapter)
    if remote_name(target):
        raise ConfigError(f"{target}: a model behind an API is served there, and not from here.")
    config = ModelConfig(base=target)
    return Target(Catalog(_base(config, name)), config)


def _open_run(run: Path, only: str | None, base: str | None) -> Target:
    whole = read_json(run / "config.json")
    stored, weights = whole["config"], (whole.get("base") or {}).get("weights_sha256")
    task, config = stored["task"]["name"], ModelConfig.model_validate(stored["model"])
    if only is not None and (own := _base_of(run, only)) is not None:
        config, weights = own, None
    catalog = Catalog(_base(config, base))
    left_out: list[str] = []
    for name in [only] if only else stored["compare"]["routes"]:
        try:
            catalog.add(_served(run, name, f"{task}/{name}", own_base=only is not None))
        except TunelmError as error:
            if only is not None:
                raise
            left_out.append(f"{name} ({error})")
    if only is None:
        only = winner_of(run) if (run / "report.json").exists() else None
    served = f"{task}/{only}"
    known = {one.id for one in catalog.all()}
    winner = served if served in known else None
    return Target(catalog, config, winner, tuple(left_out), weights)


def _served(run: Path, route: str, name: str, own_base: bool) -> Served:
    """A route of a run. `own_base`: whether it may stand on weights of its own."""
    settings, adapted = read_route(run, route)
    folder = Path(adapted.folder).resolve()
    created = _made(folder.with_name("adapted.json"))
    whole = _is_whole(folder)
    elsewhere = "endpoint" in adapted.detail
    if getattr(settings, "shuffle_answers", False) and not own_base:
        raise ConfigError("a control, trained on the wrong answers")
    if not own_base and _base_of(run, route) is not None:
        raise ConfigError(f"has a base of its own: serve it alone, as {run / route}")
    if isinstance(settings, ConstantSettings):
        raise ConfigError(f"{run / route}: a route of kind 'constant' has no model to serve.")
    if elsewhere:
        raise ConfigError("its model is behind an API, and is served there")
    adapter = folder if (folder / "adapter_config.json").exists() and not whole else None
    program = Program.load(folder) if (folder / FILE).exists() else None
    turns = program.last.turns if program else ()
    task = TaskConfig.model_validate(read_json(run / "config.json")["config"]["task"])
    compose: Callable[[ChatModel], ChatModel] | None = None
    if isinstance(settings, RagSettings):
        compose, adapter = _retrieval(settings, adapted)
    elif settings.kind in WITHOUT_MODEL:
        compose = partial(_itself, make_route(settings).open(adapted))
    elif program is not None and not program.plain:
        compose = partial(open_program, program)
    elif task.kind == "classification":
        compose = partial(PromptedModel, system=adapted.system, demos=turns)
    if compose is not None:
        made = compose

        def whole_route(inner: ChatModel) -> ChatModel:
            return answering(made(inner), task, run)

        return Served(name, created, OWNER, adapter, compose=whole_route)
    return Served(name, created, OWNER, adapter, adapted.system, turns)


def _itself(model: ChatModel, _: ChatModel) -> ChatModel:
    """A model that needs no base."""
    return model


def _retrieval(
    settings: RagSettings, adapted: Adapted
) -> tuple[Callable[[ChatModel], ChatModel], Path | None]:
    """(what retrieval makes of a model, the adapter of its generator); passages are loaded once."""
    from tunelm.routes.rag import RagRoute

    route = RagRoute(settings)
    return route.around(adapted), route.adapter(adapted)


def _base_of(run: Path, route: str) -> ModelConfig | None:
    """The base of a fully fine-tuned route, or of a distilled student; None for the run's own."""
    adapted = read_route(run, route)[1]
    if "config" not in adapted.base:
        return None
    config = ModelConfig.model_validate(adapted.base["config"])
    folder = Path(adapted.folder)
    if _is_whole(folder):
        return config.model_copy(update={"base": str(folder / WHOLE), "revision": None})
    of_the_run = read_json(run / "config.json")["config"]["model"]["base"]
    return None if config.base == of_the_run else config


def _is_whole(folder: Path) -> bool:
    """Whether the result is a whole model, rather than an adapter or a prompt."""
    return (folder / WHOLE).is_dir() and not (folder / "adapter_config.json").exists()


def _base(config: ModelConfig, name: str | None) -> Served:
    folder = Path(config.base)
    own = folder.resolve().name if folder.is_dir() else config.base
    return Served(name or own, _made(folder), OWNER)


def _made(path: Path) -> int:
    """When a file or folder was last written, in Unix seconds; that of this package for others."""
    return int((path if path.exists() else Path(__file__)).stat().st_mtime)
