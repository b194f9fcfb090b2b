"""The ways to adapt a model, in one lazy table: listing them imports none."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tunelm.models.budget import Wallet
    from tunelm.route_settings import RouteSettings
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
    "rule": RouteKind(
        "tunelm.routes.rule:RuleRoute", False, "", "answers written by a rule, without any model"
    ),
    "nearest": RouteKind(
        "tunelm.routes.nearest:NearestRoute",
        False,
        "rag",
        "the answer of the nearest train row, or none where none is near",
    ),
    "classifier": RouteKind(
        "tunelm.routes.classifier:ClassifierRoute",
        True,
        "judge",
        "logistic regression on the words of a text, without a language model",
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
        "a prompt program: worked examples, reasoning, named steps; written, or found by DSPy",
        paid=True,
    ),
    "rag": RouteKind(
        "tunelm.routes.rag:RagRoute",
        True,
        "rag",
        "passages of the corpus found for each question and put before it",
        paid=True,
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
    "hybrid": RouteKind(
        "tunelm.routes.hybrid:HybridRoute",
        True,
        "local",
        "prompt, then weights on the program's rows, then prompt again",
        paid=True,
    ),
    "distill": RouteKind(
        "tunelm.routes.distill:DistillRoute",
        True,
        "local",
        "a smaller student, trained on a teacher's answers that the metric passes",
        paid=True,
    ),
}


def make_route(settings: RouteSettings, wallet: Wallet | None = None) -> Route:
    """The route that carries out these settings, and pays from `wallet` where it must."""
    kind = KINDS[settings.kind]
    module, _, name = kind.target.partition(":")
    route = getattr(importlib.import_module(module), name)
    return route(settings, wallet) if kind.paid else route(settings)
