"""Adapting by weights: LoRA or full fine-tuning on this machine, in a process of its own."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tunelm.config import ModelConfig
from tunelm.errors import ConfigError, DataError, PrerequisiteError, RunDirError, TrainingError
from tunelm.models import open_model
from tunelm.models.base import ChatModel
from tunelm.models.prompted import PromptedModel
from tunelm.route_settings import LocalSettings
from tunelm.routes.base import FitContext
from tunelm.rundir import write_text
from tunelm.training.job import (
    WHOLE,
    TrainingJob,
    TrainingRow,
    digest,
    replace_folder,
    training_row,
    write_job,
)
from tunelm.types import (
    Adapted,
    Completion,
    Estimate,
    Example,
    FinishReason,
    Lazy,
    Plan,
    Prediction,
    Request,
    Usage,
)

RESULT = "training.json"
"""The file beside the adapter that holds what training measured."""


class LocalRoute:
    """LoRA, rsLoRA or DoRA by PEFT, or full fine-tuning. Needs the extra `local`."""

    kind = "local"
    needs: tuple[str, ...] = ()

    def __init__(self, settings: LocalSettings) -> None:
        self.settings = settings

    def plan(self, ctx: FitContext) -> Plan:
        """Parameters from the model's shapes, tokens by its tokenizer; no weights are read."""
        forecasts = {
            "seconds": Estimate(None, "s", "unknown: tunelm plan --probe times a few steps"),
            "peak_memory_bytes": Estimate(None, "bytes", "unknown: tunelm plan makes a dry run"),
            "usd": Estimate(None, "USD", "unknown: computing on one's own machine has no price"),
        }
        try:
            forecasts |= self._counts(ctx)
        except PrerequisiteError as error:
            reason = f"unknown: {error}"
            for name, unit in _COUNTED.items():
                forecasts[name] = Estimate(None, unit, reason)
        return Plan(ctx.name, self.kind, forecasts, _notes(self.settings))

    def fit(self, ctx: FitContext) -> Adapted:
        """Train, and leave the adapter in `ctx.work/adapted`.

        A finished adapter of the same rows, settings and seed is returned as it is; a killed
        run goes on from its last checkpoint.

        Raises:
            TrainingError: what the training process said when it failed.
            RunDirError: the folder holds an adapter made from something else.
            DataError: `shuffle_answers` with too few groups to deal answers among.
        """
        job, train, dev = self.job(ctx)
        made_from = digest(job, train, dev)
        folder = ctx.work / "adapted"
        if (folder / RESULT).is_file():
            result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
            if result["made_from"] != made_from:
                raise RunDirError(
                    f"{folder} holds an adapter made with other rows, settings or seed. "
                    "Give the route an empty folder."
                )
        else:
            result = self._train(ctx, job, train, dev) | {"made_from": made_from}
            _deliver(ctx.work / "training", folder, result)
        for name in ("checkpoints", "adapter", "encoded"):  # were only needed to go on
            shutil.rmtree(ctx.work / "training" / name, ignore_errors=True)
        return _adapted(job, folder, result)

    def open(self, adapted: Adapted) -> ChatModel:
        """The adapted model, behind the prompt it was trained with.

        Raises:
            ModelError: the base is not the one the adapter was trained on.
        """
        config = ModelConfig.model_validate(adapted.base["config"])
        if self.settings.method == "full":
            whole = config.model_copy(
                update={"base": str(Path(adapted.folder) / WHOLE), "revision": None}
            )
            return PromptedModel(open_model(whole, None), adapted.system)
        return PromptedModel(open_model(config, Path(adapted.folder)), adapted.system)

    def job(
        self, ctx: FitContext
    ) -> tuple[TrainingJob, Sequence[TrainingRow], Sequence[TrainingRow]]:
        """What a training process is given: the job, train rows and dev rows.

        Raises:
            ConfigError: settings that a task of texts cannot have.
            DataError: `shuffle_answers` with too few groups to deal answers among.
        """
        train = ctx.train
        if self.settings.shuffle_answers:
            train = shuffled_answers(train, ctx.seed)
        text = ctx.task.kind == "text"
        by_metric = self.settings.stop_on == "metric"
        if text and (by_metric or self.settings.shuffle_answers):
            raise ConfigError(
                "a text task has no answers: stop_on is 'dev_loss' or 'none' there, and there is "
                "nothing to shuffle."
            )
        if text and self.settings.method == "qlora":
            raise ConfigError(
                'method = "qlora": what is adapted to running text is saved as a whole model, and '
                "weights in 4 bits are not merged. Take lora."
            )
        job = TrainingJob(
            model=ctx.model,
            settings=self.settings,
            seed=ctx.seed,
            text=text,
            system=ctx.task.instructions,
            metric=ctx.metric if by_metric else None,
            max_tokens=ctx.task.max_tokens,
        )
        system = ctx.task.instructions
        dev = [training_row(example, system, keep=by_metric) for example in ctx.dev]
        return job, AsTaught(train, system), dev

    def _train(
        self,
        ctx: FitContext,
        job: TrainingJob,
        train: Sequence[TrainingRow],
        dev: Sequence[TrainingRow],
    ) -> dict[str, Any]:
        from tunelm.models.loading import require_torch
        from tunelm.training import process

        require_torch()
        work = ctx.work / "training"
        write_job(work, job, train, dev)

        def show(event: dict[str, Any]) -> None:
            if event["event"] in ("start", "resumed", "step"):
                ctx.progress("training", event["step"], event["steps"])

        scorer = f"{__name__}:score_answers" if job.metric is not None else None
        return process.train(
            work, scorer, show, processes=processes_of(self.settings, ctx.model.device)
        )

    def _counts(self, ctx: FitContext) -> dict[str, Estimate]:
        from tunelm.models.loading import Base, load_tokenizer, require_torch, resolve_base

        require_torch()
        from tunelm.models.identity import tokenizer_identity
        from tunelm.training.adapter import load_shapes, make_trainable, trainable
        from tunelm.training.batches import all_epochs
        from tunelm.training.encoding import most_tokens
        from tunelm.training.packing import pack
        from tunelm.training.worker import kept

        # first, since it looks on this machine only; the tokenizer might ask the network
        shapes = load_shapes(resolve_base(ctx.model), ctx.model.revision)
        tokenizer = load_tokenizer(ctx.model)
        job, train, _ = self.job(ctx)
        # where training will look for them: rows are tokenized once
        identity = tokenizer_identity(resolve_base(ctx.model), ctx.model.revision)
        base = Base(shapes, tokenizer, "cpu")
        rows = kept(ctx.work / "training", job, base, train, identity)
        lengths = pack(rows, most_tokens(job, shapes)).lengths if job.text else rows.lengths
        steps = tokens = 0
        for batches in all_epochs(lengths, self.settings, job.seed):
            steps += len(batches)
            tokens += sum(int(lengths[batch].sum()) for batch in batches)
        parameters = trainable(make_trainable(shapes, self.settings, job.seed))
        counted = {
            "trainable_parameters": sum(p.numel() for p in parameters.values()),
            "steps": steps,
            "train_tokens": tokens,
        }
        low = None if self.settings.stop_on == "none" else 0
        return {
            name: Estimate(
                value, _COUNTED[name], "exact", low if name != "trainable_parameters" else value
            )
            for name, value in counted.items()
        }


_COUNTED = {"trainable_parameters": "parameters", "steps": "steps", "train_tokens": "tokens"}


def processes_of(settings: LocalSettings, device: str) -> int:
    """How many processes train together: as set, or one for each GPU, or one."""
    if settings.processes is not None:
        return settings.processes
    import torch

    from tunelm.models.loading import choose_device

    return torch.cuda.device_count() if choose_device(device) == "cuda" else 1


def stopping_by(settings: LocalSettings, dev: Sequence[Example]) -> LocalSettings:
    """The settings; without dev rows there is nothing to stop by."""
    return settings if dev else settings.model_copy(update={"stop_on": "none"})


def score_answers(
    model: Any, tokenizer: Any, job: TrainingJob, rows: Sequence[TrainingRow]
) -> float:
    """The job's metric on greedy answers to the dev rows: what `stop_on = "metric"` looks at.

    Runs in the training process. Raises TrainingError when no row could be scored.
    """
    from tunelm.models.local import LocalModel
    from tunelm.scoring.metrics import corpus_value, get_metric

    chat = LocalModel(model, tokenizer, job.model.base, job.model.max_length, job.model.batch_size)
    requests = [Request(row.messages[:-1], max_tokens=job.max_tokens) for row in rows]
    examples = [Example.from_json(row.example or {}) for row in rows]
    answers = chat.complete(requests)
    predictions = [_prediction(e, a) for e, a in zip(examples, answers, strict=True)]
    value = corpus_value(get_metric(job.metric or ""), examples, predictions)
    if value is None:
        raise TrainingError(f"no dev row could be scored; the first error: {answers[0].error}")
    return value


class AsTaught(Lazy[TrainingRow]):
    """Examples as rows to learn from, each made when it is asked for."""

    def __init__(self, examples: Sequence[Example], system: str) -> None:
        self._examples, self._system = examples, system

    def __len__(self) -> int:
        return len(self._examples)

    @property
    def known(self) -> dict[str, str] | None:
        """Where rows that lie on disk keep what was found out about all of them."""
        return getattr(self._examples, "known", None)

    def __iter__(self) -> Iterator[TrainingRow]:
        return (training_row(example, self._system) for example in self._examples)

    def at(self, index: int) -> TrainingRow:
        """One example as a row."""
        return training_row(self._examples[index], self._system)


def shuffled_answers(rows: Sequence[Example], seed: int) -> list[Example]:
    """The same questions with the gold answers of other groups' questions; a control.

    Every answer is given out once, and none to a question of its own group. What such a run
    still gains was learned from the form of the answers, not from what they say.

    Raises:
        DataError: one group has more than half of the rows, so that this is impossible.
    """
    rng = np.random.default_rng(seed)
    groups: dict[str, list[Example]] = {}
    for index in rng.permutation(len(rows)):
        groups.setdefault(rows[index].group, []).append(rows[index])
    # Groups side by side, moved on by the largest one's size: no group meets itself.
    line = [row for group in groups.values() for row in group]
    shift = max((len(group) for group in groups.values()), default=0)
    if 2 * shift > len(line):
        raise DataError(
            f"shuffle_answers: one group has {shift} of the {len(line)} train rows. Answers can "
            "be dealt to other groups only when no group has more than half of the rows."
        )
    dealt = {row.id: line[(i + shift) % len(line)] for i, row in enumerate(line)}
    return [dataclasses.replace(row, answers=dealt[row.id].answers) for row in rows]


def _prediction(example: Example, answer: Completion) -> Prediction:
    failed = answer.finish_reason is FinishReason.ERROR
    return Prediction(example.id, "dev", None if failed else answer.text, answer.finish_reason)


def _deliver(work: Path, folder: Path, result: dict[str, Any]) -> None:
    """Put the finished adapter, and what was measured, in its place."""
    part = folder.with_name("adapted.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(work / "adapter", part)
    write_text(part / RESULT, json.dumps(result, indent=2))
    replace_folder(part, folder)


def _adapted(job: TrainingJob, folder: Path, result: dict[str, Any]) -> Adapted:
    card = json.loads((folder / "tunelm.json").read_text(encoding="utf-8"))
    return Adapted(
        kind=LocalRoute.kind,
        folder=str(folder),
        base={"config": json.loads(job.model.model_dump_json()), "identity": card["identity"]},
        system=job.system,
        detail={**result, "measured": _measured(result)},
        usage={"train": Usage(result["tokens"], 0, 0)},
    )


def _measured(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What the training process measured, as Estimates in JSON."""
    memory = result["peak_gpu_bytes"] or result["peak_rss_bytes"]
    where = "on the GPU" if result["peak_gpu_bytes"] else "of the training process"
    found = {
        "peak_memory": Estimate(memory, "bytes", f"measured: peak {where}"),
        "peak_memory_above_imports": _above_imports(result),
        "adapter_bytes": Estimate(result["adapter_bytes"], "bytes", "measured"),
        "trainable_parameters": Estimate(result["trainable_parameters"], "parameters", "exact"),
        "train_tokens_per_second": Estimate(
            result["tokens_per_second"], "tokens/s", "measured: without padding"
        ),
    }
    return {name: dataclasses.asdict(estimate) for name, estimate in found.items()}


def _above_imports(result: dict[str, Any]) -> Estimate:
    """What forecasts of memory are held against: the peak without the libraries themselves."""
    if result["peak_gpu_bytes"]:
        return Estimate(result["peak_gpu_bytes"], "bytes", "measured: peak on the GPU")
    held = result.get("rss_before_model")
    if held is None:
        return Estimate(None, "bytes", "unknown: not measured by the version that trained")
    peak = result["peak_rss_bytes"] - held
    return Estimate(peak, "bytes", "measured: peak less what the libraries hold")


def _notes(settings: LocalSettings) -> tuple[str, ...]:
    if settings.stop_on == "none":
        return ()
    return ("steps and train_tokens are upper bounds: training stops early when dev says so",)
