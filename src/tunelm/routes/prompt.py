"""Adapting by prompt: a program written by hand, or searched for with DSPy."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tunelm.config import ModelConfig
from tunelm.data.split import part_hash
from tunelm.errors import ConfigError, PrerequisiteError, RunDirError
from tunelm.models import open_model, remote_base
from tunelm.models.base import ChatModel
from tunelm.models.budget import Wallet
from tunelm.models.labels import held_to_labels
from tunelm.route_settings import PromptSettings
from tunelm.routes.base import ELSEWHERE, MODEL_KEYS, FitContext, endpoint_detail
from tunelm.routes.baseline import CHARACTERS_A_TOKEN
from tunelm.routes.programs.answers import AnswerFile
from tunelm.routes.programs.engine import ChatEngine
from tunelm.routes.programs.find import BY_HAND, Finder, Found
from tunelm.routes.programs.forecast import forecasts
from tunelm.routes.programs.limits import Limits
from tunelm.routes.programs.model import open_program
from tunelm.routes.programs.program import FILE, Program
from tunelm.routes.programs.rows import row_metric
from tunelm.routes.programs.start import start_steps
from tunelm.routes.programs.tracker import demos_of
from tunelm.types import Adapted, Estimate, Example, Plan, Usage, content_hash

FALLBACK_METRIC = "token_f1"
"""Searched with where the task's own metric has no value for a single row."""

ANSWERS = "search.jsonl"
"""The answers of a search under way, in the route's folder; gone when it is finished."""

_UNTIMED = "unknown: depends on the machine; nothing was timed"
_SEARCHING = "searching for a prompt"


class PromptRoute:
    """A prompt program: instructions, worked examples, reasoning, named steps.

    Three strategies write one by hand: `zero-shot`, `labeled` (gold examples), `knn` (the gold
    examples nearest to each question, by BM25). The others search: `random-search` for examples,
    `mipro` for examples and instructions, `gepa` for instructions, `simba` for rules and examples;
    `auto` first asks whether a search looks worth it (see programs.headroom). Every one of them
    tries programs, and the best by all dev rows is kept. The start, which is zero-shot in the
    program's form, is scored first and ties keep the earlier, so the result is never worse on
    dev than the start.

    A program that reasons, or has steps, is only ever shown rows that it answered well itself,
    with all that it wrote: gold rows have nothing but the answer.

    Greedy decoding, seeds for what is sampled, and a fixed order of candidates make the result
    the same for the same rows and seed, whatever the number of threads, as far as the model's
    greedy answers are. A local model's are as far as its batches are alike.

    `wallet` pays for a base model, or a proposer, that charges. `open_model` replaces how the
    base model is opened, for models of the caller's own.
    """

    kind = "prompt"
    needs: tuple[str, ...] = ()

    def __init__(
        self,
        settings: PromptSettings,
        wallet: Wallet | None = None,
        open_model: Callable[[ModelConfig], ChatModel] | None = None,
    ) -> None:
        self.settings = settings
        self.wallet = wallet
        self._open = open_model

    def plan(self, ctx: FitContext) -> Plan:
        """Calls from the settings and row counts; tokens from the rows' characters.

        The range is from a search that finds nothing new to one that asks all it may; repeated
        requests are not asked again.
        """
        priced = "unknown: computing on one's own machine has no price"
        if self.settings.proposer is not None or remote_base(ctx.model):
            priced = "unknown: depends on what is proposed; set limit.usd to cap it"
        found = {
            **forecasts(ctx, self.settings),
            "seconds": Estimate(None, "s", _UNTIMED),
            "peak_memory_bytes": Estimate(None, "bytes", _UNTIMED),
            "usd": Estimate(None, "USD", priced),
        }
        note = f"tokens are characters / {CHARACTERS_A_TOKEN:g}, without the chat template's own"
        return Plan(ctx.name, self.kind, found, (note,))

    def fit(self, ctx: FitContext) -> Adapted:
        """Find the program, and write `ctx.work/adapted/program.json`.

        A finished program of the same rows, settings and seed is returned as it is. A search
        that was killed half-way goes on: what was answered before is not asked again.

        Raises:
            PrerequisiteError: DSPy is missing, or is not the version this works with.
            ConfigError: no train rows, no dev rows to search on, settings that contradict.
            RunDirError: the folder holds a program, or answers, made from something else.
            BudgetError: the base model may not be paid for, or no longer.
            ModelError: the model broke, or failed every single row.
        """
        folder = ctx.work / "adapted"
        made_from = self._made_from(ctx)
        if (folder / FILE).exists():
            program = Program.load(folder)
            if program.made_from != made_from:
                differing = sorted(
                    key for key in made_from if program.made_from.get(key) != made_from[key]
                )
                raise RunDirError(
                    f"{folder / FILE} was made with other {', '.join(differing)}."
                    " Give the route an empty folder."
                )
        else:
            self._check(ctx)
            program = self._find(ctx, made_from)
            program.save(folder)
        (ctx.work / ANSWERS).unlink(missing_ok=True)
        return self._adapted(ctx, program, folder)

    def open(self, adapted: Adapted) -> ChatModel:
        """The base model behind the program. Needs no DSPy."""
        program = Program.load(Path(adapted.folder))
        model = self._open_base(ModelConfig.model_validate(adapted.base["config"]))
        return open_program(program, model)

    def _find(self, ctx: FitContext, made_from: dict[str, Any]) -> Program:
        total = int(self.plan(ctx).forecasts["calls"].value or 0)

        def on_call(made: int) -> None:
            ctx.progress(_SEARCHING, min(made, total), total)

        model, proposer = self._asked(ctx), self._proposer(ctx)
        _check_prices(ctx, self.settings, [model] if proposer is None else [model, proposer])
        answers = AnswerFile(ctx.work / ANSWERS, content_hash(made_from))
        limits, at_once = Limits(self.settings.limit), self.settings.threads
        engine = ChatEngine(model, on_call, "optimize", limits, answers, ctx.seed, at_once)

        def open_proposer() -> ChatEngine:
            helper = proposer or model
            return ChatEngine(helper, None, "propose", limits, answers, ctx.seed, at_once)

        metric, score = row_metric(ctx.metric)
        finder = Finder(ctx, self.settings, engine, open_proposer, score)
        found = finder.find()
        ctx.progress(_SEARCHING, total, total)  # repeated requests were never made
        record = {
            **found.record,
            "metric": metric,
            "calls": engine.counts(),
            "limit_used": {
                "calls": limits.calls,
                "tokens": limits.tokens,
                "usd": limits.usd if self.settings.limit.usd is not None else None,
            },
            "proposer": _proposals(finder.proposer),
        }
        return self._program(ctx, found, record, engine, made_from)

    def _program(
        self,
        ctx: FitContext,
        found: Found,
        record: dict[str, Any],
        engine: ChatEngine,
        made_from: dict[str, Any],
    ) -> Program:
        names = ("tunelm",) if self.settings.strategy in BY_HAND else ("tunelm", "dspy", "gepa")
        endpoint = getattr(engine.model, "endpoint", None)
        return Program(
            steps=found.steps,
            near=found.near,
            made_from=made_from,
            model={
                "name": engine.model.name,
                "identity": self._identity(ctx.model),
                "endpoint": None if endpoint is None else endpoint.address.url,
            },
            search=record,
            usage=engine.usage,
            versions={name: importlib.metadata.version(name) for name in names},
        )

    def _open_base(self, config: ModelConfig) -> ChatModel:
        if self._open is not None:
            return self._open(config)
        return open_model(config, wallet=self.wallet)

    def _asked(self, ctx: FitContext) -> ChatModel:
        """The base model as the search asks it: as it will be evaluated."""
        model = self._open_base(ctx.model)
        return held_to_labels(model, ctx.task) if self.settings.program == "answer" else model

    def _proposer(self, ctx: FitContext) -> ChatModel | None:
        """The model of `settings.proposer`; nothing is sent yet."""
        if self.settings.proposer is None:
            return None
        from tunelm.models.remote import open_endpoint

        return open_endpoint(self.settings.proposer, self.wallet, ctx.name)

    def _made_from(self, ctx: FitContext) -> dict[str, Any]:
        """All that the program depends on; the number of threads is not among it."""
        model = ctx.model.model_dump(mode="json")
        return {
            "settings": self.settings.model_dump(mode="json", exclude={"threads"}),
            "seed": ctx.seed,
            "metric": ctx.metric,
            "instructions": ctx.task.instructions,
            "max_tokens": ctx.task.max_tokens,
            "model": {key: model[key] for key in MODEL_KEYS},
            "train": _rows_hash(ctx.train),
            "dev": _rows_hash(ctx.dev),
        }

    def _identity(self, config: ModelConfig) -> dict[str, str | None] | None:
        """Hashes of the base model's files; None for one behind an API or of the caller's own."""
        if self._open is not None or remote_base(config):
            return None
        from tunelm.models.identity import base_identity
        from tunelm.models.loading import resolve_base

        return base_identity(resolve_base(config), config.revision)

    def _check(self, ctx: FitContext) -> None:
        strategy = self.settings.strategy
        start_steps(self.settings, ctx.task)
        if not ctx.train and strategy != "zero-shot":
            raise ConfigError(f"{ctx.name}: no train rows to take demonstrations from.")
        if strategy in BY_HAND:
            return
        if not ctx.dev:
            raise ConfigError(
                f"{ctx.name}: {strategy} scores its candidates on dev rows, and there are none."
                f" Raise data.dev, or set routes.{ctx.name}.strategy = 'labeled'."
            )
        _require_dspy()

    def _adapted(self, ctx: FitContext, program: Program, folder: Path) -> Adapted:
        usage = {"optimize": program.usage}
        measured: dict[str, Any] = {}
        where = endpoint_detail(ctx)
        if where:
            elsewhere = Estimate(None, "bytes", ELSEWHERE)
            measured["peak_memory"] = dataclasses.asdict(elsewhere)
        if self.settings.proposer is not None and program.search.get("proposer"):
            from tunelm.models.remote import describe_endpoint

            where["paid"] = {"propose": describe_endpoint(self.settings.proposer)}
        if proposer := program.search.get("proposer"):
            usage["propose"] = Usage(**proposer["usage"])
            for name, unit, value in (
                ("proposer_calls", "calls", proposer["calls"]["made"]),
                ("proposer_prompt_tokens", "tokens", usage["propose"].prompt_tokens),
            ):
                measured[name] = dataclasses.asdict(Estimate(value, unit, "measured"))
        return Adapted(
            kind=self.kind,
            folder=str(folder),
            base={
                "config": ctx.model.model_dump(mode="json"),
                "identity": program.model["identity"],
            },
            system=program.last.instructions,
            detail={
                "program": FILE,
                "strategy": self.settings.strategy,
                "demos": demos_of(program.steps),
                **program.search,
                "model": program.model,
                "versions": program.versions,
                "measured": measured,
                **where,
            },
            usage=usage,
        )


def _proposals(engine: ChatEngine | None) -> dict[str, Any] | None:
    """Who proposed, and what that took; None where nothing was to be proposed."""
    if engine is None:
        return None
    return {
        "name": engine.model.name,
        "calls": engine.counts(),
        "usage": dataclasses.asdict(engine.usage),
    }


def _check_prices(ctx: FitContext, settings: PromptSettings, models: Sequence[Any]) -> None:
    """A limit in dollars needs prices. A model on this machine has none, and charges nothing."""
    if settings.limit.usd is None:
        return
    remote = [model for model in models if hasattr(model, "prices")]
    unknown = [model.name for model in remote if not model.prices.known]
    if remote and not unknown:
        return
    why = f"the price of {unknown[0]} is not known" if unknown else "no model here has a price"
    raise ConfigError(
        f"routes.{ctx.name}.limit.usd = {settings.limit.usd:g} can end nothing: {why}. Give"
        " usd_per_million_in and usd_per_million_out, or limit calls, tokens or minutes."
    )


def _require_dspy() -> None:
    """DSPy's LM layer changes with every minor version."""
    try:
        version = importlib.metadata.version("dspy")
    except importlib.metadata.PackageNotFoundError:
        version = None
    if version is None or version.split(".")[:2] != ["3", "4"]:
        got = "is not installed" if version is None else f"is here as {version}"
        raise PrerequisiteError(
            f"the route 'prompt' needs dspy 3.4, which {got}: pip install 'tunelm[prompt]'"
        )


def _rows_hash(rows: Sequence[Example]) -> dict[str, Any]:
    return {"rows": len(rows), "ids": part_hash(rows)}
