"""The ways to adapt a model, in one lazy table: listing them imports none."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tunelm.config import RouteSettings
    from tunelm.models.budget import Wallet
    from tunelm.routes.base import Route


class RouteKind(NamedTuple):
    """A kind of route. `seeded`: another seed gives another result, so each seed is run.

    `paid`: it may call an endpoint that charges, and is built with the wallet that pays.
    """

    target: str
    seeded: bool
    extra: str
    summary: str
    paid: bool = False


KINDS = {
    "constant": RouteKind(
        "tunelm.routes.constant:ConstantRoute", False, "", "control: one fixed answer to everything"
    ),
    "baseline": RouteKind(
        "tunelm.routes.baseline:BaselineRoute",
        False,
        "local",
        "control: a model with the task's instructions: the base, or one behind an API",
        paid=True,
    ),
    "prompt": RouteKind(
        "tunelm.routes.prompt:PromptRoute",
        True,
        "prompt",
        "worked examples chosen by DSPy: labelled few-shot or random search",
    ),
    "cloud": RouteKind(
        "tunelm.routes.cloud:CloudRoute",
        True,
        "cloud",
        "a job by the OpenAI fine-tuning protocol: at our own server, or at a named provider",
        paid=True,
    ),
    "local": RouteKind(
        "tunelm.routes.local:LocalRoute",
        True,
        "local",
        "a LoRA adapter trained on this machine by PEFT",
    ),
}


def make_route(settings: RouteSettings, wallet: Wallet | None = None) -> Route:
    """The route that carries out these settings, and pays from `wallet` where it must."""
    kind = KINDS[settings.kind]
    module, _, name = kind.target.partition(":")
    route = getattr(importlib.import_module(module), name)
    return route(settings, wallet) if kind.paid else route(settings)
