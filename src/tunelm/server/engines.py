"""What answers: the engine of this package, or vLLM where there is one and a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from tunelm.doctor import find_vllm
from tunelm.errors import ConfigError, ModelError
from tunelm.models.loading import choose_device
from tunelm.route_settings import LocalSettings
from tunelm.server.asking import Ask, Piece
from tunelm.server.catalog import Target
from tunelm.server.engine import LightEngine
from tunelm.server.rows import Event, Ticket
from tunelm.server.settings import ServerSettings
from tunelm.server.text import Vocabulary
from tunelm.server.vllm import VllmEngine
from tunelm.server.vllm_process import rank_for, refused

SHARE, SHARE_TRAINING = 0.9, 0.45
"""Of the GPU's memory that vLLM may take; less where fine-tuning jobs run beside it."""


class Engine(Protocol):
    """Answers Asks on one base model and adapters for it; see `LightEngine` for what is what."""

    tokenizer: Any
    vocabulary: Vocabulary
    max_length: int
    deliver: Callable[[list[Event]], None]
    tokens: int
    dtype: torch.dtype
    ends: set[int]
    why_single: str | None

    @property
    def alive(self) -> bool:
        """Whether requests are being answered."""
        ...

    def counts(self) -> dict[str, int]:
        """How many answers are under way, wait and were given; how many adapters are loaded."""
        ...

    def start(self) -> None:
        """Begin to answer; nothing happens when it has begun already."""
        ...

    def stop(self) -> None:
        """End; what is under way or waits gets an error."""
        ...

    def submit(self, asks: Sequence[Ask], emit: Callable[[int, Piece], None]) -> Ticket:
        """Queue the asks of one request. Raises QueueFullError where too many wait."""
        ...

    def cancel(self, ticket: Ticket) -> None:
        """Give a request up."""
        ...

    def forget(self, adapter: Path) -> None:
        """Drop an adapter from memory."""
        ...

    def complete(self, asks: Sequence[Ask]) -> list[Piece]:
        """The whole answer to each ask, for callers that can wait. Not while `deliver` is set."""
        ...


@dataclass(frozen=True)
class Chosen:
    """An engine that is ready to answer.

    Attributes:
        engine: itself.
        which: its name and why it is the one.
        refused: models of the target that vLLM does not take, with the reason, which are no
            longer in its catalog then.
        alone: whether there was no other to choose, as without a GPU.
    """

    engine: Engine
    which: str
    refused: tuple[str, ...] = ()
    alone: bool = False


def make_engine(settings: ServerSettings, target: Target) -> Chosen:
    """The engine that `settings.engine` names, ready to answer.

    `auto` takes vLLM where the model computes on an NVIDIA GPU and the command `vllm` is there,
    and the light engine where vLLM does not come up or does not take all that is to be served.

    Raises:
        ModelError, PrerequisiteError: as the engine has it.
        ConfigError: vLLM was asked for, and does not take the one model that is to be served.
    """
    if settings.engine == "vllm":
        left_out = _leave_out(target)
        return Chosen(_vllm(settings, target), "vllm: asked for", left_out)
    why, alone = "asked for", False
    if settings.engine == "auto":
        device = choose_device(target.config.device)
        alone = device != "cuda"
        why = f"the model computes on {device}" if alone else _why_light(target)
        if not why:
            try:
                return Chosen(_vllm(settings, target), "vllm: a GPU, and vLLM is installed")
            except ModelError as error:
                why = str(error)
    light = LightEngine(
        target.config,
        settings.max_batch,
        settings.max_waiting,
        settings.max_adapters,
        settings.threads,
    )
    return Chosen(light, f"light: {why}", alone=alone)


def _why_light(target: Target) -> str:
    """Why `auto` does not even try vLLM on a GPU; empty where it does."""
    if find_vllm() is None:
        return "vLLM is not installed"
    return next((f"{name}: {why}" for name, why in _refused(target)), "")


def _vllm(settings: ServerSettings, target: Target) -> VllmEngine:
    adapters = [served.adapter for served in target.catalog.all() if served.adapter is not None]
    least = LocalSettings().r if settings.train else 1  # what fine-tuning jobs here make
    return VllmEngine(
        target.config,
        settings.max_batch,
        settings.max_waiting,
        settings.max_adapters,
        rank_for(adapters, least) if adapters or settings.train else None,
        SHARE_TRAINING if settings.train else SHARE,
    )


def _refused(target: Target) -> list[tuple[str, str]]:
    """(name, reason) of the models whose adapters vLLM does not take."""
    found = [(s.id, refused(s.adapter)) for s in target.catalog.all() if s.adapter is not None]
    return [(name, why) for name, why in found if why is not None]


def _leave_out(target: Target) -> tuple[str, ...]:
    """Take what vLLM does not take out of the catalog; lines that say so.

    Raises ConfigError where that is the one to be served.
    """
    found = _refused(target)
    for name, why in found:
        if name == target.winner:
            raise ConfigError(f"{name}: {why}. Serve it by --engine light.")
        target.catalog.remove(name)
    return tuple(f"{name} ({why}: serve it by --engine light)" for name, why in found)
