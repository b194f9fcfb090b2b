"""Route `distill`: a teacher answers, its good answers are kept, and a smaller student learns them.

The filter is the point: a student of all its teacher's answers learns the wrong ones too. In
DSPy's tutorial on classification (Banking77, 100 dev rows, teacher 55) a student of unfiltered
answers reaches 51, one of those that the metric passes 85. A second route with `keep = "all"`
shows the difference on one's own task; the teacher is not asked twice for it.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunelm.config import ModelConfig
from tunelm.errors import ConfigError, TrainingError
from tunelm.models.base import ChatModel
from tunelm.models.budget import Wallet
from tunelm.models.loading import describe_base
from tunelm.route_settings import DistillSettings
from tunelm.routes.base import EVERY, FitContext
from tunelm.routes.baseline import CHARACTERS_A_TOKEN, RULE
from tunelm.routes.lessons import Filter, Further, Taught, read_questions, reasoned, teach
from tunelm.routes.local import LocalRoute, stopping_by
from tunelm.routes.programs.form import system_of
from tunelm.routes.programs.model import open_program
from tunelm.routes.programs.program import Program, Step
from tunelm.routes.programs.rows import row_metric
from tunelm.routes.teacher import Teacher, find_teacher
from tunelm.types import ZERO_USAGE, Adapted, Estimate, Example, Plan, Usage

STUDENTS = {"tunelm-nano": "tunelm-nano-small"}
"""A base -> the smaller sibling that learns where no student is named."""
MIN_ROWS = 10
"""Fewest kept answers to train on: fewer are memorized, and teach nothing."""
REASONING_TOKENS = 128
"""Most tokens of the reasoning before an answer."""
NOT_SEEN = (
    "the further questions were not compared with the test rows, which no route sees: leave "
    "questions of the test set out of that file"
)


class DistillRoute:
    """A student, trained on the answers of a teacher that a filter passes. Needs `local`.

    Training stops by the dev rows' gold answers. Where `keep` is `gold`, further questions
    without answers are kept if samples of the teacher agree. With `rationale` the teacher, which
    must be a model then, reasons before it answers, and the student learns both; dev rows get
    the teacher's reasoning where its answer passes the metric, and the gold answer.

    `wallet` pays for a teacher behind an API.
    """

    kind = "distill"

    def __init__(self, settings: DistillSettings, wallet: Wallet | None = None) -> None:
        self.settings = settings
        self.wallet = wallet or Wallet()
        self.needs: tuple[str, ...] = () if settings.teacher is not None else (EVERY,)

    def plan(self, ctx: FitContext) -> Plan:
        """Calls and tokens of the teacher, and what training takes if every answer is kept.

        Lengths are those of the train rows' gold answers. What another route of the run asks
        for too is asked once, so that the least is nothing. Raises ConfigError as `fit` does.
        """
        step, student = self._step(ctx), self._student(ctx)
        teacher = find_teacher(self.settings, ctx, self.wallet, system_of(step))
        further, notes = self._questions(ctx)
        asked = [(row, self._times(gold=True)) for row in ctx.train]
        asked += [(row, self._times(gold=False)) for row in further.rows]
        asked += [(row, 1) for row in ctx.dev] if self.settings.rationale else []
        all_rows = LocalRoute(self.settings.training).plan(self._to_train(ctx, ctx.train, ctx.dev))
        more = 1 + len(further.rows) / max(1, len(ctx.train))
        forecasts = {
            **all_rows.forecasts,
            **_if_all_kept(all_rows.forecasts, more),
            **_asking(ctx, teacher, step, asked),
        }
        who = f"teacher: {teacher.name}; student: {student.base}"
        return Plan(ctx.name, self.kind, forecasts, (who, *notes))

    def fit(self, ctx: FitContext) -> Adapted:
        """Have the teacher answer, keep what passes, and train the student on it.

        Raises:
            ConfigError: no teacher, no student, or settings that do not fit together.
            DataError: the file of further questions cannot be used.
            BudgetError: the teacher may charge, and that was not allowed or cannot be capped.
            TrainingError: too few answers are kept, or training failed.
            RunDirError: the folder holds a student of something else.
        """
        step, student = self._step(ctx), self._student(ctx)
        teacher = find_teacher(self.settings, ctx, self.wallet, system_of(step))
        further, notes = self._questions(ctx)
        taught = self._taught(ctx, teacher, step, further)
        kept = [row for part in taught.values() for row in part.kept]
        if len(kept) < MIN_ROWS:
            raise TrainingError(self._too_few(ctx, list(taught.values())))
        dev = ctx.dev
        if self.settings.rationale:
            examined = teach(ctx, teacher, step, ctx.dev, 1, self._gold(ctx))
            dev = [reasoned(step, one, row) for one, row in examined.lessons]
            taught["dev"] = examined
        trained = LocalRoute(stopping_by(self.settings.training, dev)).fit(
            self._to_train(ctx, kept, dev)
        )
        if self.settings.rationale:
            _program(step, trained).save(Path(trained.folder))
        usage = sum((part.usage for part in taught.values()), ZERO_USAGE)
        rows = {name: part.counts() for name, part in taught.items()}
        if "unlabelled" in rows:
            rows["unlabelled"] |= further.dropped
        metric, score = row_metric(ctx.metric)
        right = taught["train"].right(score, self.settings.threshold)
        measured = _measured(teacher, student, len(kept), usage)
        detail = {
            **trained.detail,
            "teacher": {
                "name": teacher.name,
                "dev_score": teacher.dev_score,
                "on_train": {"metric": metric, **right},
            },
            "student": student.base,
            "keep": self.settings.keep,
            "rows": rows,
            "calls": {"made": sum(part.calls for part in taught.values())},
            "answers_of": sorted({name for part in taught.values() for name in part.shared}),
            "notes": list(notes),
            "measured": {**trained.detail["measured"], **measured},
        }
        if teacher.base is None:
            prices = dataclasses.asdict(teacher.prices)
            detail["paid"] = {"teach": {"model": teacher.name, "prices": prices}}
        phases = {"teach": usage, **trained.usage}
        return Adapted(self.kind, trained.folder, trained.base, trained.system, detail, phases)

    def open(self, adapted: Adapted) -> ChatModel:
        """The student. Raises ModelError where its base is another one than it was trained on."""
        student = LocalRoute(self.settings.training).open(adapted)
        if not self.settings.rationale:
            return student
        return open_program(Program.load(Path(adapted.folder)), student)

    # --- asking -----------------------------------------------------------------------------------

    def _taught(
        self, ctx: FitContext, teacher: Teacher, step: Step, further: Further
    ) -> dict[str, Taught]:
        """What the teacher says about the train rows, and about further questions."""
        agreement = Filter(self.settings.threshold, lambda one, row: one.agreed or 0.0)
        everything = Filter(None, lambda one, row: 0.0)
        by = {"gold": self._gold(ctx), "agreement": agreement, "all": everything}
        keep = self.settings.keep
        times = self._times(gold=True)
        taught = {"train": teach(ctx, teacher, step, ctx.train, times, by[keep])}
        if self.settings.unlabelled is not None:
            times = self._times(gold=False)
            rest = by["agreement" if keep == "gold" else keep]
            taught["unlabelled"] = teach(ctx, teacher, step, further.rows, times, rest)
        return taught

    def _times(self, gold: bool) -> int:
        """How often the teacher is asked about a row, which has a gold answer or not."""
        keep = self.settings.keep
        agree = keep == "agreement" or (keep == "gold" and not gold)
        return self.settings.samples if agree else 1

    def _gold(self, ctx: FitContext) -> Filter:
        _, score = row_metric(ctx.metric)
        return Filter(self.settings.threshold, lambda one, row: score(one.answer, row))

    def _questions(self, ctx: FitContext) -> tuple[Further, tuple[str, ...]]:
        """The questions without answers, and what to know of them."""
        if self.settings.unlabelled is None:
            return Further((), {}), ()
        return read_questions(self.settings.unlabelled, ctx.train, ctx.dev), (NOT_SEEN,)

    def _too_few(self, ctx: FitContext, taught: Sequence[Taught]) -> str:
        def total(name: str) -> int:
            return sum(part.counts()[name] for part in taught)

        section, wanted = f"routes.{ctx.name}", f"keep = {self.settings.keep!r}"
        if self.settings.keep != "all":
            wanted += f" with threshold = {self.settings.threshold:g}"
        return (
            f"{wanted} leaves {total('kept')} of the teacher's answers, and {MIN_ROWS} are the "
            f"fewest to train on: of {total('asked')} questions {total('failed')} failed and "
            f"{total('answered')} have an answer, {total('unsound')} of them cut or out of form. "
            f"Lower {section}.threshold, take a better teacher, or set {section}.keep = 'all'."
        )

    # --- training ---------------------------------------------------------------------------------

    def _step(self, ctx: FitContext) -> Step:
        """What the student, and a teacher that is a model, are told."""
        if not self.settings.rationale:
            return Step("answer", ctx.task.instructions)
        outputs = ("reasoning", "answer")
        return Step("answer", ctx.task.instructions, outputs, extra_tokens=REASONING_TOKENS)

    def _student(self, ctx: FitContext) -> ModelConfig:
        """Raises ConfigError where no student is named and none is known."""
        base = self.settings.student or STUDENTS.get(ctx.model.base)
        if base is None:
            raise ConfigError(
                f"routes.{ctx.name}.student is not set, and no smaller sibling of model.base = "
                f"{ctx.model.base!r} is known: name the model that is to learn (a folder or a hub "
                "id)."
            )
        elsewhere = ("revision", "base_url", "api_key_env")  # are the teacher's, not the student's
        prices = ("usd_per_million_in", "usd_per_million_out")
        return ctx.model.model_copy(update={"base": base, **dict.fromkeys((*elsewhere, *prices))})

    def _to_train(
        self, ctx: FitContext, train: Sequence[Example], dev: Sequence[Example]
    ) -> FitContext:
        """The student's context: its rows get the system message that it will be sent."""
        task = ctx.task.model_copy(update={"instructions": system_of(self._step(ctx))})
        model = self._student(ctx)
        return dataclasses.replace(ctx, task=task, model=model, train=train, dev=dev, upstream={})


def _program(step: Step, trained: Adapted) -> Program:
    return Program(
        steps=(step,),
        near=None,
        made_from={"training": trained.detail["made_from"]},
        model={"name": trained.base["config"]["base"], "identity": trained.base["identity"]},
        search={},
        usage=ZERO_USAGE,
        versions={"tunelm": importlib.metadata.version("tunelm")},
    )


# --- figures --------------------------------------------------------------------------------------


def _measured(
    teacher: Teacher, student: ModelConfig, kept: int, usage: Usage
) -> dict[str, dict[str, Any]]:
    """Sizes, counts and costs, as Estimates in JSON."""
    small = describe_base(student)["parameters"]
    large = None if teacher.base is None else describe_base(teacher.base)["parameters"]
    stored, counted = "exact: of the base, without adapters", "measured: tokens reported"
    unsaid = "unknown: nobody says how large it is"
    uncounted = "unknown: not every answer came with its tokens"
    usd = teacher.prices.cost(usage)
    found = {
        "rows_kept": Estimate(kept, "rows", "exact"),
        "student_parameters": Estimate(small, "parameters", stored if small else unsaid),
        "teacher_parameters": Estimate(large, "parameters", stored if large else unsaid),
        "usd_teacher": Estimate(
            usd, "USD", _NO_PRICE if usd is None else f"{counted}, x {teacher.prices.source}"
        ),
    }
    for name in ("prompt_tokens", "completion_tokens"):
        tokens = getattr(usage, name)
        how = uncounted if tokens is None else counted
        found[f"{name}_teach"] = Estimate(tokens, "tokens", how)
    return {name: dataclasses.asdict(estimate) for name, estimate in found.items()}


_NO_PRICE = "unknown: no price is known for the teacher"


def _asking(
    ctx: FitContext, teacher: Teacher, step: Step, asked: Sequence[tuple[Example, int]]
) -> dict[str, Estimate]:
    """What the teacher takes to answer each row so many times."""
    calls = sum(times for _, times in asked)
    system = len(system_of(step))
    prompt = sum(
        times * (system + sum(len(m.content) for m in row.messages)) for row, times in asked
    )
    gold = [len(row.answers[0]) for row in ctx.train]
    answer = sum(gold) / len(gold) / CHARACTERS_A_TOKEN if gold else 0.0
    most = calls * (ctx.task.max_tokens + step.extra_tokens)
    tokens = (round(prompt / CHARACTERS_A_TOKEN), round(prompt / 2.5))
    written = (min(round(calls * (answer + step.extra_tokens / 2)), most), most)
    usd = [teacher.prices.cost(Usage(tokens[i], written[i])) for i in (0, 1)]
    how = _NO_PRICE if usd[0] is None else f"{RULE}, x {teacher.prices.source}"
    return {
        "calls": Estimate(calls, "calls", "formula", 0, calls),
        "prompt_tokens_teach": Estimate(tokens[0], "tokens", RULE, 0, tokens[1]),
        "completion_tokens_teach": Estimate(written[0], "tokens", RULE, 0, written[1]),
        "usd_teacher": Estimate(usd[0], "USD", how, None if usd[0] is None else 0.0, usd[1]),
    }


def _if_all_kept(forecasts: Mapping[str, Estimate], more: float) -> dict[str, Estimate]:
    """Tokens and steps of the gold train rows as those of `more` times as many kept answers."""
    how = "formula: as if every answer were kept and as long as the gold one"
    found = {name: forecasts[name] for name in ("train_tokens", "steps") if name in forecasts}
    return {
        name: e if e.value is None else Estimate(round(e.value * more), e.unit, how, 0)
        for name, e in found.items()
    }
