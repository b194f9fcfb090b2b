"""The contract of a route: one way to adapt a model to a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tunelm.config import BudgetConfig, ModelConfig, TaskConfig
from tunelm.models.base import ChatModel
from tunelm.route_settings import RouteSettings
from tunelm.types import Adapted, Example, Plan

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, how much is done, of how much)."""


def no_progress(what: str, done: int, total: int) -> None:
    """Swallows progress, for callers who show none."""


MODEL_KEYS = ("base", "revision", "base_url", "dtype", "max_length")
"""What of a [model] section the answers depend on."""

ELSEWHERE = "unknown: the model runs at its endpoint, which does not say"
"""Why a measurement of a model behind an API is missing."""

EVERY = "*"
"""In `needs`: every route of the comparison that is neither a control nor needs this one."""


@dataclass(frozen=True)
class Upstream:
    """What another route made under the same seed; open it by `make_route(settings).open(adapted)`.

    `dev_score`: the primary metric on dev, failed rows as wrong; None where there is none.
    """

    settings: RouteSettings
    adapted: Adapted
    dev_score: float | None


@dataclass(frozen=True)
class FitContext:
    """All a route may look at. It holds no test rows, on purpose.

    `work` is the route's own folder, empty or as a killed run left it. `upstream` holds, by
    name, what the routes that `needs` asks for made. `metric` is the primary metric's name.
    """

    name: str
    task: TaskConfig
    model: ModelConfig
    metric: str
    train: Sequence[Example]
    dev: Sequence[Example]
    work: Path
    seed: int = 0
    corpus: Path | None = None
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    upstream: Mapping[str, Upstream] = field(default_factory=dict[str, Upstream])
    progress: Progress = no_progress


def endpoint_detail(ctx: FitContext) -> dict[str, Any]:
    """What the report needs to know of a base model behind an API; empty for one that is here."""
    from tunelm.models import remote_base

    endpoint = remote_base(ctx.model)
    if endpoint is None:
        return {}
    from tunelm.models.remote import describe_endpoint

    return {"endpoint": describe_endpoint(endpoint), "route": ctx.name}


class Route(Protocol):
    """One way to adapt a model to a task.

    Contract
    - Built with its own settings (a frozen pydantic model from tunelm.config), and the wallet
      where its kind may pay (see tunelm.routes.KINDS).
    - `needs` names the kinds of route whose results it builds on, or EVERY.
    - `plan` has no side effects: no network, no spending. A cost may be unknown, never a
      false zero.
    - `fit` sees train and dev rows only and writes only under `ctx.work`. Called again on the
      same folder it goes on, or returns the finished result; it never starts a second paid
      job. It raises a TunelmError when the route as a whole cannot go on; the comparison then
      shows the reason and goes on with the others. What it returns stands under
      `ctx.work / "adapted"`.
    - `open` returns a model that takes an example's own messages (without instructions) and
      behaves the same in predict, in the server and in the chat.
    - The same rows, config and seed give the same result, remote training apart.
    """

    kind: str
    needs: tuple[str, ...]

    def __init__(self, settings: Any) -> None: ...

    def plan(self, ctx: FitContext) -> Plan:
        """Forecast tokens, time, memory and money."""
        ...

    def fit(self, ctx: FitContext) -> Adapted:
        """Adapt the model."""
        ...

    def open(self, adapted: Adapted) -> ChatModel:
        """The adapted model, ready to answer."""
        ...
