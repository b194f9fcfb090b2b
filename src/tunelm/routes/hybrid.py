"""Route `hybrid`: optimize the prompt, tune the weights on the program's rows, optimize again.

p -> w -> p, as in BetterTogether (arXiv 2407.10930), with the trainers of this package: gold
answers behind the program's prompt, or its own answers that the metric passes, are trained on by
`local` or `cloud`; then the prompt is searched for once more on the tuned model.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tunelm.config import ModelConfig
from tunelm.errors import ConfigError, RunDirError, TrainingError
from tunelm.models import open_model
from tunelm.models.base import ChatModel
from tunelm.models.budget import Wallet
from tunelm.route_settings import CloudSettings, HybridSettings, PromptSettings
from tunelm.routes.base import FitContext, Upstream
from tunelm.routes.cloud import CloudRoute
from tunelm.routes.local import LocalRoute, stopping_by
from tunelm.routes.programs.form import system_of
from tunelm.routes.programs.model import open_program
from tunelm.routes.programs.program import FILE, Program
from tunelm.routes.programs.rows import (
    Exported,
    RowExporter,
    answer_only,
    ask_once,
    row_metric,
    without_demos,
)
from tunelm.routes.prompt import PromptRoute
from tunelm.rundir import read_json, write_json
from tunelm.scoring.metrics import corpus_value, get_metric
from tunelm.types import ZERO_USAGE, Adapted, Estimate, Example, Plan, Usage, content_hash

RESULT = "hybrid.json"
"""The file beside the adapter that says what each stage scored; written last."""
BEGUN = "begun.json"
"""What the files of unfinished stages in the work folder were made from."""
MIN_TRACES = 10
"""Fewest answers of the program's own to train on: fewer are memorized, and teach nothing."""


class HybridRoute:
    """A prompt program, and weights tuned to it. Needs the extras `local` and `prompt`.

    `wallet` pays for what the prompt search or the base model asks of an endpoint.
    """

    kind = "hybrid"
    needs: tuple[str, ...] = ("prompt",)

    def __init__(self, settings: HybridSettings, wallet: Wallet | None = None) -> None:
        self.settings = settings
        self.wallet = wallet or Wallet()

    def plan(self, ctx: FitContext) -> Plan:
        """The second search's calls and tokens, and what training on the program's rows takes.

        Of traces the most is said: how many pass is not known before. Raises ConfigError as
        `fit` does.
        """
        _, upstream, settings = _prompt_of(ctx)
        program = self._to_train(Program.load(Path(upstream.adapted.folder)))
        forecasts = dict(PromptRoute(settings, self.wallet).plan(ctx).forecasts)
        compared = 3 * len(ctx.dev)  # the program, without demonstrations, and the one found
        asking = len(program.steps) - 1 if self.settings.rows == "gold" else len(program.steps)
        asked = asking * (len(ctx.train) + len(ctx.dev))
        calls = forecasts["calls"]
        forecasts["calls"] = Estimate(
            None if calls.value is None else calls.value + compared + asked,
            "calls",
            f"{calls.method}; with the dev rows of three programs, and {asked} to make the rows",
            None if calls.low is None else calls.low + len(ctx.dev),
            None if calls.high is None else calls.high + compared + asked,
        )
        forecasts |= self._trained(ctx, program)
        how = f"{self.settings.rows} rows, trained by the route {self.settings.weights}"
        return Plan(
            ctx.name,
            self.kind,
            forecasts,
            (how, "tokens of prompts and answers are the second search's alone"),
        )

    def fit(self, ctx: FitContext) -> Adapted:
        """Make rows, tune the weights, search again, and keep the program that dev likes best.

        A finished result is returned as it is. A killed run goes on with the stage it was in:
        answers asked for stand in files, training goes on from its checkpoint.

        Raises:
            ConfigError: the run has no route `prompt` to begin with.
            TrainingError: too few rows to train on, or training failed.
            RunDirError: the folder holds the result of something else.
        """
        name, upstream, settings = _prompt_of(ctx)
        before = Program.load(Path(upstream.adapted.folder))
        made_from = self._made_from(ctx, settings, before)
        begun = read_json(ctx.work / BEGUN, {"made_from": made_from})
        if begun["made_from"] != made_from:
            raise RunDirError(
                f"{ctx.work} holds what was made with another program, other rows, settings or "
                "seed. Give the route an empty folder."
            )
        write_json(ctx.work / BEGUN, begun)
        folder = ctx.work / "adapted"
        if not (folder / RESULT).is_file():
            self._make(ctx, upstream, settings, before)
        shutil.rmtree(ctx.work / "prompt", ignore_errors=True)  # was only needed to go on
        result = read_json(folder / RESULT)
        return Adapted(
            kind=self.kind,
            folder=str(folder),
            base=result["base"],
            system=system_of(Program.load(folder).last),
            detail={"builds_on": name, "program": FILE, **result["detail"]},
            usage={phase: Usage(**usage) for phase, usage in result["usage"].items()},
        )

    def open(self, adapted: Adapted) -> ChatModel:
        """The tuned model behind the program that was chosen for it.

        Raises:
            ModelError: the base is not the one the adapter was trained on.
        """
        folder = Path(adapted.folder)
        config = ModelConfig.model_validate(adapted.base["config"])
        return open_program(Program.load(folder), open_model(config, folder))

    # --- the three stages -------------------------------------------------------------------------

    def _make(
        self, ctx: FitContext, upstream: Upstream, settings: PromptSettings, before: Program
    ) -> None:
        """All stages, each as far as it has not been done; leaves RESULT beside the adapter."""
        program = self._to_train(before)
        train, dev = self._rows(ctx, program)
        weights = self._tune(_to_tune(ctx, train.rows, dev.rows))
        tuned = open_model(ctx.model, Path(weights.folder))
        again = dataclasses.replace(ctx, work=ctx.work / "prompt", upstream={})
        again.work.mkdir(exist_ok=True)
        found = PromptRoute(settings, self.wallet, open_model=lambda config: tuned).fit(again)
        tried = {
            "prompt-weights": program,
            "weights": without_demos(program),
            "prompt-weights-prompt": Program.load(Path(found.folder)),
        }
        stages = _on_dev(ctx, tried, tuned)
        # of equals the first, which is the simpler
        best = max(stages, key=lambda s: -math.inf if s.score is None else s.score)
        asked = train.calls + dev.calls
        usage = {**found.usage, "select": sum((s.usage for s in stages), ZERO_USAGE)}
        if asked:
            usage["trace"] = train.usage + dev.usage
        usage["train"] = weights.usage["train"]
        searched = found.detail.get("calls", {}).get("made")
        answered = sum(stage.calls for stage in stages)
        detail = {
            "metric": ctx.metric,
            "stages": [
                {"name": "prompt", "dev_score": upstream.dev_score, "n": len(ctx.dev)},
                *(stage.to_json() for stage in stages),
            ],
            "chosen": best.name,
            "rows": {"of": self.settings.rows, "train": train.counts(), "dev": dev.counts()},
            "weights": {"kind": self.settings.weights, **weights.detail},
            "search": dict(found.detail),
            "calls": {"made": None if searched is None else searched + answered + asked},
            "measured": {
                **found.detail.get("measured", {}),
                **weights.detail["measured"],
                **_scores(ctx, upstream, stages),
            },
        }
        detail |= {name: weights.detail[name] for name in ("step",) if name in weights.detail}
        detail |= {name: found.detail[name] for name in ("paid",) if name in found.detail}
        self._deliver(weights, tried[best.name], tuned.name, detail, usage)

    def _deliver(
        self,
        weights: Adapted,
        program: Program,
        name: str,
        detail: Mapping[str, Any],
        usage: Mapping[str, Usage],
    ) -> None:
        """The program and the record beside the adapter, the record last."""
        folder = Path(weights.folder)
        model = {"name": name, "identity": weights.base["identity"]}
        dataclasses.replace(program, model=model).save(folder)
        card = read_json(folder / "tunelm.json")
        write_json(folder / "tunelm.json", {**card, "system": system_of(program.last)})
        spent = {phase: dataclasses.asdict(one) for phase, one in usage.items()}
        result = {"base": dict(weights.base), "detail": dict(detail), "usage": spent}
        write_json(folder / RESULT, result)

    def _rows(self, ctx: FitContext, program: Program) -> tuple[Exported, Exported]:
        """Train and dev rows behind the program's prompt.

        Dev rows are gold wherever the answer is all that the program writes; otherwise they are
        made as the train rows are.
        """
        exporter = self._exporter(ctx, program)

        def made(examples: Sequence[Example], part: str, gold: bool) -> Exported:
            if gold:
                return exporter.gold(examples, part)
            _, score = row_metric(ctx.metric)
            return exporter.traces(examples, part, score, self.settings.threshold)

        gold = self.settings.rows == "gold"
        train = made(ctx.train, "train", gold)
        alone = len(program.steps) == 1 and len(program.last.outputs) == 1
        dev = made(ctx.dev, "dev", gold or alone)
        if not gold and train.kept < MIN_TRACES:
            raise TrainingError(_too_few(ctx, self.settings, train))
        return train, dev

    def _tune(self, ctx: FitContext) -> Adapted:
        if self.settings.weights == "cloud":
            return CloudRoute(CloudSettings(), self.wallet).fit(ctx)
        return LocalRoute(stopping_by(self.settings.training, ctx.dev)).fit(ctx)

    def _trained(self, ctx: FitContext, program: Program) -> dict[str, Estimate]:
        """What `_tune` will take; of several steps it is not known before they are asked."""
        if len(program.steps) > 1:
            why = "unknown: what the steps before the answer write is asked first"
            return {"train_tokens": Estimate(None, "tokens", why)}
        rows = self._exporter(ctx, answer_only(program)).gold(ctx.train, "train").rows
        as_gold = _to_tune(ctx, rows, ctx.dev)
        if self.settings.weights == "cloud":
            found = CloudRoute(CloudSettings(), self.wallet).plan(as_gold).forecasts
        else:
            found = (
                LocalRoute(stopping_by(self.settings.training, as_gold.dev)).plan(as_gold).forecasts
            )
        wanted = ("train_tokens", "steps", "trainable_parameters")
        kept = {name: found[name] for name in wanted if name in found}
        if self.settings.rows == "traces":
            how = "formula: as if every row's answer passed, and were as long as the gold one"
            for name in ("train_tokens", "steps"):
                if name in kept and kept[name].value is not None:
                    kept[name] = dataclasses.replace(kept[name], method=how, low=0)
        return kept

    def _to_train(self, program: Program) -> Program:
        return answer_only(program) if self.settings.rows == "gold" else program

    def _exporter(self, ctx: FitContext, program: Program) -> RowExporter:
        return RowExporter(
            program=program,
            train=ctx.train,
            open_model=cache(lambda: open_model(ctx.model, wallet=self.wallet)),
            max_tokens=ctx.task.max_tokens,
            folder=ctx.work / "asked",
        )

    def _made_from(self, ctx: FitContext, prompt: PromptSettings, program: Program) -> str:
        """Of all that the result depends on; how many threads ask is not among it."""
        steps = [dataclasses.asdict(step) for step in program.steps]
        return content_hash(
            {
                "settings": self.settings.model_dump(mode="json"),
                "prompt": prompt.model_dump(mode="json", exclude={"threads"}),
                "steps": steps,
                "near": None if program.near is None else dataclasses.asdict(program.near),
                "seed": ctx.seed,
                "metric": ctx.metric,
                "task": ctx.task.model_dump(mode="json"),
                "model": ctx.model.model_dump(mode="json"),
                "train": [row.id for row in ctx.train],
                "dev": [row.id for row in ctx.dev],
            }
        )


@dataclass(frozen=True, slots=True)
class _Stage:
    """One program on all dev rows of the tuned model.

    `score` is the primary metric, more being better, failed rows as wrong; None where there is
    none. `calls` and `usage` are 0 where an earlier stage is the same program.
    """

    name: str
    score: float | None
    rows: int
    failed: int
    calls: int
    usage: Usage

    def to_json(self) -> dict[str, Any]:
        """What a reader of the record looks for."""
        return {"name": self.name, "dev_score": self.score, "n": self.rows, "failed": self.failed}


def _on_dev(ctx: FitContext, tried: Mapping[str, Program], tuned: ChatModel) -> list[_Stage]:
    stages: dict[Any, _Stage] = {}
    found: list[_Stage] = []
    for name, program in tried.items():
        ctx.progress(f"dev rows: {name}", len(found), len(tried))
        key = (program.steps, program.near)
        if key in stages:
            stage = dataclasses.replace(stages[key], name=name, calls=0, usage=ZERO_USAGE)
        else:
            stage = stages[key] = _answered(ctx, name, program, tuned)
        found.append(stage)
    return found


def _answered(ctx: FitContext, name: str, program: Program, tuned: ChatModel) -> _Stage:
    path = ctx.work / "asked" / f"tuned-{name}.jsonl"
    model = open_program(program, tuned)
    got = ask_once(lambda: model, ctx.dev, "dev", path, ctx.task.max_tokens)
    metric, score = get_metric(ctx.metric), None
    answered = sum(p.output is not None for p in got)
    if (value := corpus_value(metric, ctx.dev, got)) is not None:
        score = -value if metric.lower_is_better else value * answered / len(got)
    usage = sum((p.usage for p in got), ZERO_USAGE)
    return _Stage(name, score, len(got), len(got) - answered, len(got), usage)


def _prompt_of(ctx: FitContext) -> tuple[str, Upstream, PromptSettings]:
    """The name, the result and the settings of the route that is built on."""
    for name, upstream in ctx.upstream.items():
        if isinstance(upstream.settings, PromptSettings):
            return name, upstream, upstream.settings
    raise ConfigError(
        f"route {ctx.name!r} builds on a route of kind 'prompt', and there is none: add one to "
        "compare.routes."
    )


def _to_tune(ctx: FitContext, train: Sequence[Example], dev: Sequence[Example]) -> FitContext:
    """The context for a trainer: the rows hold their instructions already."""
    task = ctx.task.model_copy(update={"instructions": ""})
    return dataclasses.replace(ctx, task=task, train=train, dev=dev, upstream={})


def _scores(
    ctx: FitContext, upstream: Upstream, stages: Sequence[_Stage]
) -> dict[str, dict[str, Any]]:
    """What each stage scored on dev, as Estimates in JSON."""
    n, reason = len(ctx.dev), "unknown: no dev row could be scored"
    scores = {"prompt": upstream.dev_score} | {stage.name: stage.score for stage in stages}
    return {
        f"dev_{name.replace('-', '_')}": dataclasses.asdict(
            Estimate(value, ctx.metric, reason if value is None else f"measured: {n} dev rows")
        )
        for name, value in scores.items()
    }


def _too_few(ctx: FitContext, settings: HybridSettings, train: Exported) -> str:
    section = f"routes.{ctx.name}"
    return (
        f"only {train.kept} of the program's answers to {train.asked} train rows can be trained "
        f"on, and {MIN_TRACES} are the fewest: {train.failed} failed, {train.broken} broke the "
        f"form or were cut, {train.below} scored below {settings.threshold:g}. Set "
        f"{section}.rows = 'gold', or lower {section}.threshold."
    )
