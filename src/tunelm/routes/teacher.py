"""The teacher of the route `distill`: who it is, and what it answers.

Its answers stand in files whose names are hashes of all that they depend on. A killed run goes
on with them, and another route of the same run that asks the same takes them over.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunelm.config import ModelConfig
from tunelm.errors import ConfigError
from tunelm.models import open_model, remote_base
from tunelm.models.base import ChatModel
from tunelm.models.budget import Prices, Wallet
from tunelm.models.labels import held_to_labels
from tunelm.models.prompted import PromptedModel
from tunelm.predict import read_predictions
from tunelm.route_settings import DistillSettings, EndpointSettings
from tunelm.routes import make_route
from tunelm.routes.base import FitContext, Upstream
from tunelm.routes.programs.rows import ask_once
from tunelm.rundir import read_json, write_json
from tunelm.types import (
    ZERO_USAGE,
    Completion,
    Delta,
    Example,
    Message,
    Prediction,
    Request,
    TokenLogprobs,
    Usage,
    content_hash,
)

TEMPERATURE = 0.8
"""Of the samples that must agree."""


@dataclass(frozen=True)
class Teacher:
    """Who answers.

    Attributes:
        name: a route's, or a model's at its endpoint.
        key: all that its answers depend on.
        open: opens it; called only if something is left to ask.
        base: the model on this machine that it stands on; None: it is behind an API.
        dev_score: of a route, the primary metric on dev.
        prices: what asking it costs; unknown for a model of one's own.
        reasons: whether it is asked for its reasoning with each answer.
    """

    name: str
    key: Mapping[str, Any]
    open: Callable[[], ChatModel]
    base: ModelConfig | None
    dev_score: float | None = None
    prices: Prices = field(default_factory=Prices)
    reasons: bool = False


def find_teacher(
    settings: DistillSettings, ctx: FitContext, wallet: Wallet, system: str
) -> Teacher:
    """The model of the settings, the route they name, or the best route on dev so far.

    A model is asked with `system`; a route as it is. Ties go to the earlier route. Nothing is
    opened or sent.

    Raises:
        ConfigError: there is none, or it cannot be asked for its reasoning.
    """
    section = f"routes.{ctx.name}"
    if settings.teacher is not None:
        if settings.teacher_route is not None:
            raise ConfigError(f"{section} has both teacher and teacher_route: set one of them.")
        found = _model(settings.teacher, ctx, wallet, system)
        return dataclasses.replace(found, reasons=settings.rationale)
    if settings.rationale:
        raise ConfigError(
            f"{section}.rationale = true asks the teacher to reason first, and a route as a "
            f"teacher answers in its own form. Name a model: {section}.teacher.model."
        )
    made = ctx.upstream
    if settings.teacher_route is not None and settings.teacher_route not in made:
        raise ConfigError(
            f"{section}.teacher_route = {settings.teacher_route!r} is no finished route of this "
            f"run that can teach. There are: {', '.join(made) or 'none'}."
        )
    if not made:
        raise ConfigError(
            f"route {ctx.name!r} has no teacher: add a route to compare.routes that can teach, "
            f"such as 'local', or name a model: {section}.teacher.model and .base_url."
        )
    name = settings.teacher_route or max(made, key=lambda n: _or_least(made[n].dev_score))
    return _route(name, made[name], wallet)


def _or_least(score: float | None) -> float:
    return float("-inf") if score is None else score


def _model(endpoint: EndpointSettings, ctx: FitContext, wallet: Wallet, system: str) -> Teacher:
    key = {"endpoint": endpoint.model_dump(mode="json", exclude={"api_key_env"}), "system": system}
    if endpoint.model is None and endpoint.base_url is None:
        config = ctx.model.model_dump(mode="json")
        return Teacher(
            ctx.model.base,
            {**key, "model": config},
            lambda: PromptedModel(open_model(ctx.model, wallet=wallet), system),
            None if remote_base(ctx.model) else ctx.model,
        )
    from tunelm.models.remote import open_endpoint, place_of

    return Teacher(
        f"{endpoint.model} at {place_of(endpoint)[0].url}",
        key,
        lambda: PromptedModel(open_endpoint(endpoint, wallet, ctx.name), system),
        None,
        prices=place_of(endpoint)[2],
    )


def _route(name: str, upstream: Upstream, wallet: Wallet) -> Teacher:
    adapted = upstream.adapted
    config = adapted.base.get("config")
    endpoint = adapted.detail.get("endpoint")
    local = config is not None and not endpoint
    return Teacher(
        name,
        {"route": upstream.settings.model_dump(mode="json"), "made": adapted.to_json()},
        lambda: make_route(upstream.settings, wallet).open(adapted),
        ModelConfig.model_validate(config) if local else None,
        upstream.dev_score,
        Prices(**endpoint["prices"]) if endpoint else Prices(),
    )


# --- asking -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answers:
    """One answer to each of some rows. `own`: how many were asked for here; `usage` is theirs.

    The others were taken over from the route `from_route`.
    """

    predictions: tuple[Prediction, ...]
    own: int
    usage: Usage
    from_route: str | None


def ask(
    ctx: FitContext, teacher: Teacher, rows: Sequence[Example], max_tokens: int, sample: int | None
) -> Answers:
    """The teacher's answers to `rows`: greedy, or the `sample`-th of several at TEMPERATURE."""
    seed = None if sample is None else 1000 * ctx.seed + sample
    wanted = {
        "teacher": teacher.key,
        "rows": [[[m.role, m.content] for m in row.messages] for row in rows],
        "max_tokens": max_tokens,
        "sampled": None if seed is None else [TEMPERATURE, seed],
    }
    path = ctx.work / "teacher" / f"answers-{content_hash(wanted)}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    _take_over(ctx, path)

    def opened() -> ChatModel:
        model = teacher.open()
        if seed is not None:  # samples must be able to differ
            return _Sampled(model, seed)
        return model if teacher.reasons else held_to_labels(model, ctx.task)

    which = "" if sample is None else f", sample {sample + 1}"
    ctx.progress(f"{teacher.name} answers{which}", 0, len(rows))
    found = ask_once(opened, rows, "teacher", path, max_tokens)
    taken = read_json(_note(path), {"rows": 0, "route": None})
    own = found[taken["rows"] :]
    usage = sum((p.usage for p in own), ZERO_USAGE)
    return Answers(tuple(found), len(own), usage, taken["route"])


def _take_over(ctx: FitContext, path: Path) -> None:
    """Copy what another route of the same run has been answered, and note how much that was.

    The note is written first: what a kill then leaves uncopied is copied by the next call.
    """
    own_place = ctx.work.parent.name == ctx.name  # RUN/routes/NAME/seed-K
    if path.exists():
        return
    _note(path).unlink(missing_ok=True)
    if not own_place:
        return
    for other in sorted(ctx.work.parent.parent.glob(f"*/*/teacher/{path.name}")):
        rows = len(read_predictions(other))
        write_json(_note(path), {"route": other.parts[-4], "rows": rows})
        part = path.with_suffix(".part")
        shutil.copyfile(other, part)
        part.replace(path)
        return


def _note(path: Path) -> Path:
    return path.with_suffix(".from.json")


class _Sampled:
    """A ChatModel whose greedy requests are sampled instead, all with one seed."""

    def __init__(self, inner: ChatModel, seed: int) -> None:
        self.inner = inner
        self.seed = seed
        self.name = inner.name
        self.capabilities = inner.capabilities

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """See ChatModel."""
        return self.inner.complete([self._sampled(request) for request in requests])

    def stream(self, request: Request) -> Iterator[Delta]:
        """See ChatModel."""
        return self.inner.stream(self._sampled(request))

    def score(self, pairs: Sequence[tuple[tuple[Message, ...], str]]) -> list[TokenLogprobs]:
        """See ChatModel."""
        return self.inner.score(pairs)

    def _sampled(self, request: Request) -> Request:
        return dataclasses.replace(request, temperature=TEMPERATURE, seed=self.seed)
