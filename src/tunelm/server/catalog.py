"""What a server serves: one base model, and what stands on it, by name."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tunelm.config import BaselineSettings, LocalSettings, ModelConfig
from tunelm.errors import ConfigError, TunelmError
from tunelm.models import remote_name
from tunelm.routes.programs.program import FILE, Program
from tunelm.rundir import read_json
from tunelm.server.errors import ApiError
from tunelm.target import find_run, is_adapter, read_adapter, read_route, winner_of
from tunelm.training.job import WHOLE
from tunelm.types import Message

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
    """

    id: str
    created: int
    owned_by: str
    adapter: Path | None = None
    system: str = ""
    demos: tuple[Message, ...] = ()


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


def open_target(target: str) -> Target:
    """Read a run, RUN/ROUTE, an adapter's folder or the name of a model; loads no weights.

    Raises:
        ConfigError: nothing of the kind is there, or it cannot be served.
        RunDirError: a route's prompt program is broken.
    """
    path = Path(target)
    if found := find_run(path):
        return _open_run(*found)
    if is_adapter(path):
        config, system = read_adapter(path)
        catalog = Catalog(_base(config))
        name = path.resolve().name
        catalog.add(Served(name, _made(path), OWNER, path.resolve(), system))
        return Target(catalog, config, name)
    if remote_name(target):
        raise ConfigError(f"{target}: a model behind an API is served there, and not from here.")
    config = ModelConfig(base=target)
    return Target(Catalog(_base(config)), config)


def _open_run(run: Path, only: str | None) -> Target:
    whole = read_json(run / "config.json")
    stored, weights = whole["config"], (whole.get("base") or {}).get("weights_sha256")
    task, config = stored["task"]["name"], ModelConfig.model_validate(stored["model"])
    if only is not None and (own := _base_of(run, only)) is not None:
        config, weights = own, None
    catalog = Catalog(_base(config))
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
    whole = isinstance(settings, LocalSettings) and settings.method == "full"
    elsewhere = isinstance(settings, BaselineSettings) and (settings.model or settings.base_url)
    if getattr(settings, "shuffle_answers", False) and not own_base:
        raise ConfigError("a control, trained on the wrong answers")
    if whole and not own_base:
        raise ConfigError(f"has weights of its own: serve it alone, as {run / route}")
    if whole or (folder / "adapter_config.json").exists():
        return Served(name, created, OWNER, None if whole else folder, adapted.system)
    if (folder / FILE).exists():
        return Served(name, created, OWNER, None, adapted.system, Program.load(folder).turns)
    if isinstance(settings, BaselineSettings) and not elsewhere:
        return Served(name, created, OWNER, None, adapted.system)
    raise ConfigError(f"{run / route}: a route of kind {settings.kind!r} has no model to serve.")


def _base_of(run: Path, route: str) -> ModelConfig | None:
    """The base of a fully fine-tuned route: its own weights; None for others."""
    settings, adapted = read_route(run, route)
    if not (isinstance(settings, LocalSettings) and settings.method == "full"):
        return None
    config = ModelConfig.model_validate(adapted.base["config"])
    whole = str(Path(adapted.folder) / WHOLE)
    return config.model_copy(update={"base": whole, "revision": None})


def _base(config: ModelConfig) -> Served:
    folder = Path(config.base)
    name = folder.resolve().name if folder.is_dir() else config.base
    return Served(name, _made(folder), OWNER)


def _made(path: Path) -> int:
    """When a file or folder was last written, in Unix seconds; that of this package for others."""
    return int((path if path.exists() else Path(__file__)).stat().st_mtime)
