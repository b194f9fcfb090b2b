"""A TARGET, as the commands take it, becomes a model: a run, a route of it, an adapter, a model."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import TypeAdapter

from tunelm.config import ModelConfig, TaskConfig
from tunelm.errors import ConfigError
from tunelm.models.base import ChatModel
from tunelm.models.budget import Wallet
from tunelm.models.labels import answering
from tunelm.route_settings import RouteSettings
from tunelm.routes import make_route
from tunelm.rundir import read_json
from tunelm.types import Adapted


def load(target: str | Path, wallet: Wallet | None = None) -> ChatModel:
    """Open a model that answers.

    Args:
        target: a run directory (its winner), `RUN/ROUTE` (its first seed), the folder of an
            adapter that tunelm trained, `tunelm-nano`, a model's folder, a hub id, or
            `ollama/NAME` or `openai/NAME` for one behind an API.
        wallet: what pays for a model whose endpoint charges; None: nothing may be spent.

    Raises:
        ConfigError: nothing of the kind is there.
        ModelError: an adapter whose base is another, or weights that cannot be loaded.
    """
    path = Path(target)
    if found := find_run(path):
        run, name = found
        return open_route(run, name or winner_of(run), wallet)
    if is_adapter(path):
        return open_adapter(path)
    from tunelm.models import open_model

    return open_model(ModelConfig(base=str(target)), wallet=wallet)


def find_run(path: Path) -> tuple[Path, str | None] | None:
    """(the run, None) of a run directory, (the run, the route) of RUN/ROUTE, None of others."""
    if (path / "config.json").exists() and (path / "routes").is_dir():
        return path, None
    if (path.parent / "config.json").exists() and (path.parent / "routes" / path.name).is_dir():
        return path.parent, path.name
    return None


def is_adapter(path: Path) -> bool:
    """Whether an adapter is there. Raises ConfigError for a folder with nothing to load."""
    if (path / "adapter_config.json").exists():
        return True
    if path.is_dir() and not (path / "config.json").exists():
        raise ConfigError(
            f"{path}: neither a run, nor an adapter, nor a model. Give a run directory, RUN/ROUTE, "
            "an adapter's folder, or a model's."
        )
    return False


def winner_of(run: Path) -> str:
    """The route a run's report says to ship."""
    if not (run / "report.json").exists():
        raise ConfigError(
            f"{run}: has no report yet. Finish it: tunelm compare --resume --out {run}"
        )
    winner = read_json(run / "report.json").get("winner")
    if not winner or not winner.get("name"):
        raise ConfigError(f"{run}: its report names no winner. Name a route: {run}/ROUTE")
    return str(winner["name"])


def open_route(
    run: Path, name: str, wallet: Wallet | None = None, seed: int | None = None
) -> ChatModel:
    """The model that one route of a run made, with a seed; with its first one when None."""
    settings, adapted = read_route(run, name, seed)
    task = TaskConfig.model_validate(read_json(run / "config.json")["config"]["task"])
    return answering(make_route(settings, wallet).open(adapted), task, run)


def read_route(run: Path, name: str, seed: int | None = None) -> tuple[RouteSettings, Adapted]:
    """The settings of one route of a run, and what it made with a seed; its first one when None.

    Raises ConfigError where it has not been fitted.
    """
    stored = read_json(run / "config.json")["config"]
    which = "seed-*" if seed is None else f"seed-{seed}"
    folders = sorted((run / "routes" / name).glob(which), key=lambda p: int(p.name[5:]))
    if not folders or not (folders[0] / "adapted.json").exists():
        raise ConfigError(f"{run}: route {name!r} has not been fitted there.")
    settings = TypeAdapter[RouteSettings](RouteSettings).validate_python(stored["routes"][name])
    adapted = Adapted.from_json(read_json(folders[0] / "adapted.json"), str(folders[0] / "adapted"))
    return settings, adapted


def open_adapter(folder: Path) -> ChatModel:
    """An adapter's folder, by the card that lies beside it: base, system prompt, identity."""
    from tunelm.models import open_model
    from tunelm.models.prompted import PromptedModel

    config, system = read_adapter(folder)
    return PromptedModel(open_model(config, folder), system)


def read_adapter(folder: Path) -> tuple[ModelConfig, str]:
    """The base of an adapter, and its system prompt. Raises ConfigError without a card."""
    from tunelm.models.identity import CARD

    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{folder}: an adapter without {CARD}: tunelm did not train it."
        ) from None
    return ModelConfig.model_validate(card["base"]), str(card.get("system", ""))
