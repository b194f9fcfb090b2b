"""Adapting by prompt: worked examples chosen by DSPy, put before every question."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tunelm.config import ModelConfig, PromptSettings
from tunelm.errors import ConfigError, ModelError, PrerequisiteError, RunDirError, TunelmError
from tunelm.models import open_model
from tunelm.models.base import ChatModel
from tunelm.models.prompted import PromptedModel
from tunelm.routes.base import FitContext
from tunelm.routes.programs.engine import ChatEngine
from tunelm.routes.programs.pool import PROBE_ROWS, demo_pool, demos_that_fit, prompt_builder
from tunelm.routes.programs.program import FILE, Candidate, Program
from tunelm.scoring.metrics import get_metric
from tunelm.types import Adapted, Estimate, Example, Plan, content_hash

FALLBACK_METRIC = "token_f1"
"""Searched with where the task's own metric has no value for a single row."""

CHARACTERS_A_TOKEN = 4.0
"""A usual figure for English; the forecast's range takes 2.5 to 6."""

_UNTIMED = "unknown: depends on the machine; nothing was timed"


class PromptRoute:
    """Demonstrations before the question, the instructions as they are.

    `labeled` takes gold answers, without a search. `random-search` also tries the model's own
    answers that the metric passes, scores every candidate on dev, and keeps the best; zero-shot
    is the first candidate and ties keep the earlier, simpler one, so the result is never worse
    on dev than the start.

    Greedy decoding and a fixed order of candidates make the result the same for the same rows
    and seed, whatever the number of threads, as far as the model's greedy answers are.

    `open_model` replaces how the base model is opened, for models of the caller's own.
    """

    kind = "prompt"
    needs: tuple[str, ...] = ()

    def __init__(
        self, settings: PromptSettings, open_model: Callable[[ModelConfig], ChatModel] = open_model
    ) -> None:
        self.settings = settings
        self._open = open_model

    def plan(self, ctx: FitContext) -> Plan:
        """Calls from the settings and row counts; tokens from the rows' characters.

        The search asks at most (candidates + 2) x dev rows, the pool of demonstrations once,
        and the longest rows to see that the prompt fits. Repeated requests are not asked again.
        """
        settings, dev = self.settings, len(ctx.dev)
        pool = demo_pool(ctx.train, settings.demos, ctx.seed)
        shown = min(settings.demos, len(pool))
        probes = min(PROBE_ROWS, len(ctx.train) + dev)
        bare, full = 0, probes  # calls without and with demonstrations
        if settings.strategy == "random-search":
            bare, full = dev, probes + len(pool) + (settings.candidates + 1) * dev
        calls = bare + full
        rows = [*ctx.train, *ctx.dev]
        question = _mean([len("".join(m.content for m in row.messages)) for row in rows])
        answer = _mean([len(row.answers[0]) for row in rows])
        prompt = calls * (len(ctx.task.instructions) + question) + full * shown * (
            question + answer
        )
        forecasts = {
            "calls": Estimate(calls, "calls", "formula", probes, calls + probes * shown),
            "prompt_tokens": _tokens(prompt),
            "completion_tokens": _tokens(calls * answer, high=calls * ctx.task.max_tokens),
            "seconds": Estimate(None, "s", _UNTIMED),
            "peak_memory_bytes": Estimate(None, "bytes", _UNTIMED),
            "usd": Estimate(None, "USD", "unknown: computing on one's own machine has no price"),
        }
        note = f"tokens are characters / {CHARACTERS_A_TOKEN:g}, without the chat template's own"
        return Plan(ctx.name, self.kind, forecasts, (note,))

    def fit(self, ctx: FitContext) -> Adapted:
        """Search, and write `ctx.work/adapted/program.json`.

        A finished program of the same rows, settings and seed is returned as it is. A search
        that was killed half-way leaves nothing behind and starts again from the beginning.

        Raises:
            PrerequisiteError: DSPy is missing, or is not the version this works with.
            ConfigError: no train rows, or no dev rows to search on.
            RunDirError: the folder holds a program made from something else.
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
            _require_dspy()
            self._check_rows(ctx)
            program = self._search(ctx, made_from)
            program.save(folder)
        return self._adapted(ctx, program, folder)

    def open(self, adapted: Adapted) -> ChatModel:
        """The base model behind the program's prompt. Needs no DSPy."""
        program = Program.load(Path(adapted.folder))
        model = self._open(ModelConfig.model_validate(adapted.base["config"]))
        return PromptedModel(model, adapted.system, program.turns)

    def _search(self, ctx: FitContext, made_from: dict[str, Any]) -> Program:
        total = int(self.plan(ctx).forecasts["calls"].value or 0)

        label = "choosing demonstrations"

        def on_call(made: int) -> None:
            ctx.progress(label, min(made, total), total)

        engine = ChatEngine(self._open(ctx.model), on_call)
        try:
            best, state, record = self._choose(ctx, engine)
        except TunelmError:
            raise
        except Exception as error:
            raise ModelError(
                f"choosing demonstrations broke off: {type(error).__name__}: {error}"
            ) from error
        ctx.progress(label, total, total)  # repeated requests were never made
        return Program(
            instructions=ctx.task.instructions,
            demos=best.demos,
            made_from=made_from,
            model={"name": engine.model.name, "identity": self._identity(ctx.model)},
            search={**record, "calls": engine.counts()},
            usage=engine.usage,
            versions={name: importlib.metadata.version(name) for name in ("tunelm", "dspy")},
            dspy_state=state,
        )

    def _choose(
        self, ctx: FitContext, engine: ChatEngine
    ) -> tuple[Candidate, dict[str, Any], dict[str, Any]]:
        """The best candidate, its DSPy state, and a record of the search."""
        from tunelm.routes.programs.search import PASS, DemoSearch

        settings, task = self.settings, ctx.task
        pool = demo_pool(ctx.train, settings.demos, ctx.seed)
        prompt = prompt_builder(engine.model, task.instructions, task.max_tokens)
        rows = [*ctx.train, *ctx.dev]
        demos = demos_that_fit(
            engine.answer, prompt, pool, rows, settings.demos, ctx.model.max_length
        )
        metric, score = _row_metric(ctx.metric)
        search = DemoSearch(engine, task.instructions, task.max_tokens, score, settings.threads)
        if demos == 0:
            found = [search.zero_shot()]
        elif settings.strategy == "labeled":
            found = [search.labeled(pool, demos)]
        else:
            found = search.random_search(pool, ctx.dev, demos, settings.candidates)
            if engine.failed == engine.made:
                raise ModelError(
                    f"all {engine.made} calls to {engine.model.name} failed; the first:"
                    f" {engine.first_error}"
                )
        best, state = max(found, key=lambda pair: pair[0].dev_score or 0.0)  # the first of equals
        record = {
            "chosen": best.name,
            "metric": metric,
            "bootstrap_threshold": PASS,
            "pool_rows": len(pool),
            "demos_that_fit": demos,
            "candidates": [candidate.summary() for candidate, _ in found],
        }
        return best, state, record

    def _made_from(self, ctx: FitContext) -> dict[str, Any]:
        """All that the program depends on; the number of threads is not among it."""
        model = ctx.model.model_dump(mode="json")
        return {
            "settings": self.settings.model_dump(mode="json", exclude={"threads"}),
            "seed": ctx.seed,
            "metric": ctx.metric,
            "instructions": ctx.task.instructions,
            "max_tokens": ctx.task.max_tokens,
            "model": {key: model[key] for key in ("base", "revision", "dtype", "max_length")},
            "train": _rows_hash(ctx.train),
            "dev": _rows_hash(ctx.dev),
        }

    def _identity(self, config: ModelConfig) -> dict[str, str | None] | None:
        """Hashes of the base model's files; None for a model of the caller's own."""
        if self._open is not open_model:
            return None
        from tunelm.models.identity import base_identity
        from tunelm.models.loading import resolve_base

        return base_identity(resolve_base(config), config.revision)

    def _check_rows(self, ctx: FitContext) -> None:
        if not ctx.train:
            raise ConfigError(f"{ctx.name}: no train rows to take demonstrations from.")
        if not ctx.dev and self.settings.strategy == "random-search":
            raise ConfigError(
                f"{ctx.name}: random-search scores its candidates on dev rows, and there are none."
                f" Raise data.dev, or set routes.{ctx.name}.strategy = 'labeled'."
            )

    def _adapted(self, ctx: FitContext, program: Program, folder: Path) -> Adapted:
        return Adapted(
            kind=self.kind,
            folder=str(folder),
            base={
                "config": ctx.model.model_dump(mode="json"),
                "identity": program.model["identity"],
            },
            system=program.instructions,
            detail={
                "program": FILE,
                "strategy": self.settings.strategy,
                "demos": [
                    {"example_id": demo.example_id, "source": demo.source} for demo in program.demos
                ],
                **program.search,
                "model": program.model,
                "versions": program.versions,
            },
            usage={"optimize": program.usage},
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


def _row_metric(name: str) -> tuple[str, Callable[[str, Example], float]]:
    """The metric to search with and its name: `name` itself, if it judges single rows."""
    metric = get_metric(name)
    if not metric.per_row:
        metric = get_metric(FALLBACK_METRIC)

    def score(output: str, example: Example) -> float:
        return metric.row_value(output, example) or 0.0

    return metric.name, score


def _rows_hash(rows: Sequence[Example]) -> dict[str, Any]:
    return {"rows": len(rows), "ids": content_hash(sorted(row.id for row in rows))}


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values) if values else 0.0


def _tokens(characters: float, high: float | None = None) -> Estimate:
    high = characters / 2.5 if high is None else high
    return Estimate(
        round(characters / CHARACTERS_A_TOKEN), "tokens", "formula", round(characters / 6), high
    )
