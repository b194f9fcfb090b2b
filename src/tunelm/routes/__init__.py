"""The ways to adapt a model, in one lazy table: listing them imports none."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tunelm.config import RouteSettings
    from tunelm.routes.base import Route


class RouteKind(NamedTuple):
    """A kind of route. `seeded`: another seed gives another result, so each seed is run."""

    target: str
    seeded: bool
    extra: str
    summary: str


KINDS = {
    "constant": RouteKind(
        "tunelm.routes.constant:ConstantRoute", False, "", "control: one fixed answer to everything"
    ),
    "baseline": RouteKind(
        "tunelm.routes.baseline:BaselineRoute",
        False,
        "local",
        "control: the base model with the task's instructions",
    ),
    "prompt": RouteKind(
        "tunelm.routes.prompt:PromptRoute",
        True,
        "prompt",
        "worked examples chosen by DSPy: labelled few-shot or random search",
    ),
    "local": RouteKind(
        "tunelm.routes.local:LocalRoute",
        True,
        "local",
        "a LoRA adapter trained on this machine by PEFT",
    ),
}


def make_route(settings: RouteSettings) -> Route:
    """The route that carries out these settings."""
    module, _, name = KINDS[settings.kind].target.partition(":")
    return getattr(importlib.import_module(module), name)(settings)
