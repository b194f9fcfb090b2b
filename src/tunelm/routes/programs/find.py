"""From settings to a program: written by hand, or searched for within the limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tunelm.errors import ModelError, TunelmError
from tunelm.route_settings import PromptSettings
from tunelm.routes.base import FitContext
from tunelm.routes.programs.engine import ChatEngine, Metered
from tunelm.routes.programs.headroom import headroom
from tunelm.routes.programs.limits import Stopped
from tunelm.routes.programs.pool import (
    demo_pool,
    demos_that_fit,
    nearest_rows,
    prompt_builder,
    sample,
)
from tunelm.routes.programs.program import Near, gold_demo
from tunelm.routes.programs.start import PASS, shows_more, start_steps
from tunelm.routes.programs.teach import labeled, self_taught, with_demos
from tunelm.routes.programs.tracker import Score, Steps, Tracker, demos_of, guarded
from tunelm.types import Example

PROPOSING = ("mipro", "gepa", "simba")
"""The strategies that have a model write instructions."""
BY_HAND = ("zero-shot", "labeled", "knn")
"""The strategies that score nothing: no dev rows, and no DSPy."""

SIMBA_BATCH = 32
SIMBA_ROWS = 96
"""Most train rows that SIMBA draws its batches from; at its end it scores winners on all."""
SIMBA_PART = 0.8
"""SIMBA scores on train rows only: it may use so much of a limit, and the rest is for dev."""


@dataclass(frozen=True)
class Found:
    """What the strategy led to. `record` says how, for JSON."""

    steps: Steps
    near: Near | None
    record: dict[str, Any]


class Finder:
    """One run of one strategy.

    Args:
        ctx: rows, task, seed.
        settings: the strategy and its sizes.
        engine: where the task's calls go.
        open_proposer: makes the engine for proposals, where the strategy has any.
        score: (output, row) to a value from 0 to 1.
    """

    def __init__(
        self,
        ctx: FitContext,
        settings: PromptSettings,
        engine: ChatEngine,
        open_proposer: Callable[[], ChatEngine],
        score: Score,
    ) -> None:
        self.ctx = ctx
        self.settings = settings
        self.engine = engine
        self.proposer: ChatEngine | None = None
        self.max_tokens = ctx.task.max_tokens
        self.start = start_steps(settings, ctx.task)
        self.score = guarded(score)
        self.tracker = Tracker(ctx.dev, self.score)
        self._open_proposer = open_proposer
        self._near: Near | None = None
        self._chosen: tuple[str, Steps] = ("zero-shot", self.start)
        self._record: dict[str, Any] = {"bootstrap_threshold": PASS, "notes": []}

    def find(self) -> Found:
        """Carry the strategy out, until it ends or a limit ends it.

        Raises:
            ModelError: the model broke, or failed every dev row; or the search did.
            TunelmError: what the model or the metric raised.
        """
        ended: str | None = None
        try:
            if self.settings.strategy in BY_HAND:
                self._by_hand()
            else:
                self._search()
                ended = self.engine.limits.reached()  # GEPA stops there by itself
        except Stopped as stop:
            _raise(stop)
            ended = stop.reason
        name, steps = self._chosen
        if (best := self.tracker.best()) is not None:
            name, steps = best.name, best.steps
        candidates = self.tracker.summaries() or [_unscored(name, steps)]
        record = {
            "chosen": name,
            "ended_by": ended,
            **self._record,
            "candidates": candidates,
            "dev_rows": len(self.tracker.dev),
        }
        return Found(steps, self._near, record)

    def _by_hand(self) -> None:
        if self.settings.strategy == "zero-shot":
            return
        if self.settings.strategy == "labeled":
            pool, demos = self._pool()
            self._chosen = ("labeled", self._few_shot(pool, demos))
            return
        rows = nearest_rows(self.ctx.train, self.ctx.seed, shows_more(self.start))
        _, demos = self._pool(rows)
        found = tuple(gold_demo(row) for row in rows)
        if shows_more(self.start) and demos:
            worked = self_taught(self.engine, self.start, rows, self.max_tokens, self.score)
            found = tuple(row[-1] for row in worked)
            self._note_self_taught(len(found), len(rows))
        if demos and found:
            self._near = Near(demos, found)
            self._chosen = ("knn", self.start)

    def _search(self) -> None:
        self._score_start()
        strategy, pool, demos = self.settings.strategy, list[Example](), 0
        if strategy != "gepa":  # which shows no demonstrations
            pool, demos = self._pool()
        chosen = self._auto(pool, demos) if strategy == "auto" else strategy
        if chosen is not None:
            self._optimize(chosen, pool, demos)

    def _score_start(self) -> None:
        model = Metered(self.engine)
        found = self.tracker.evaluate(self.start, model, self.max_tokens, "zero-shot")
        if len(found.failed) == len(self.tracker.dev):
            raise ModelError(
                f"all {self.engine.made} calls to {self.engine.model.name} failed; the first:"
                f" {self.engine.first_error}"
            )

    def _auto(self, pool: Sequence[Example], demos: int) -> str | None:
        """The strategy that the headroom test leads to; None where none looks worth it."""
        few = self._few_shot(pool, demos)
        model, dev = Metered(self.engine), self.tracker.dev
        room = headroom(model, self.start, few, dev, self.max_tokens, self.score, self.ctx.seed)
        self._record["headroom"] = room.record
        self._note(room.record["verdict"])
        if few != self.start:
            self.tracker.evaluate(few, model, self.max_tokens, "labeled")
        if not room.worth_it:
            return None
        return "random-search" if self.settings.proposer is None else "gepa"

    def _optimize(self, strategy: str, pool: Sequence[Example], demos: int) -> None:
        self._record["optimizer"] = strategy
        if strategy == "random-search" and not demos:
            self._note("no demonstration fits, so there was nothing to search")
            return
        if strategy in PROPOSING:
            self.proposer = self._open_proposer()
        part = SIMBA_PART if strategy == "simba" else 1.0
        stop: Stopped | None = None
        with self.engine.limits.part(part):
            try:
                self._run(strategy, pool, demos)
            except Stopped as stopped:
                stop = stopped
        if self.proposer is not None and (reason := self.proposer.broken):
            self._note(f"there were no more proposals: {reason}")
        if strategy == "simba" and (stop is None or stop.error is None):
            self._score_leaders()
        if stop is not None:
            raise stop

    def _run(self, strategy: str, pool: Sequence[Example], demos: int) -> None:
        from tunelm.routes.programs import optimizers as by

        settings, seed = self.settings, self.ctx.seed
        sizes = (settings.candidates, settings.trials)
        session = by.Session(
            by.Search(
                self.start,
                self.engine,
                self.proposer,
                self.tracker,
                self.max_tokens,
                settings.threads,
                seed,
            )
        )
        try:
            with session.open():
                if strategy == "random-search":
                    by.random_search(session, pool, demos, settings.candidates)
                elif strategy == "mipro":
                    for note in by.mipro(session, pool, demos, *sizes):
                        self._note(note)
                elif strategy == "gepa":
                    by.gepa(session, self.ctx.train, settings.trials)
                else:
                    rows = sample(self.ctx.train, SIMBA_ROWS, seed)
                    by.simba(session, rows, demos, min(SIMBA_BATCH, len(rows)), *sizes)
        except TunelmError:
            raise
        except Exception as error:
            if self.proposer is None or not self.proposer.made:
                raise ModelError(
                    f"{strategy} broke off: {type(error).__name__}: {error}"
                ) from error
            self._note(f"{strategy} broke off at a proposal: {type(error).__name__}: {error}")

    def _score_leaders(self) -> None:
        """SIMBA's best by train rows, scored on dev in that order as far as the limits allow."""
        self.tracker.label("simba", numbered=True)
        batch = min(SIMBA_BATCH, len(self.ctx.train))
        for number, steps in enumerate(self.tracker.leaders(self.settings.candidates, batch), 1):
            name = f"simba-{number}"
            self.tracker.evaluate(steps, Metered(self.engine), self.max_tokens, name)

    def _pool(self, rows: Sequence[Example] | None = None) -> tuple[list[Example], int]:
        """The rows that demonstrations are drawn from, and how many of them fit."""
        ctx, settings = self.ctx, self.settings
        pool = list(rows or demo_pool(ctx.train, settings.demos, ctx.seed))
        demos = demos_that_fit(
            self.engine.answer,
            prompt_builder(self.start, self.max_tokens),
            pool,
            [*ctx.train, *ctx.dev],
            settings.demos,
            ctx.model.max_length,
        )
        self._record |= {"pool_rows": len(pool), "demos_that_fit": demos}
        return pool, demos

    def _few_shot(self, pool: Sequence[Example], demos: int) -> Steps:
        if not shows_more(self.start):
            return with_demos(self.start, [(demo,) for demo in labeled(pool, demos)])
        worked = (
            self_taught(self.engine, self.start, pool, self.max_tokens, self.score) if demos else []
        )
        self._note_self_taught(len(worked), len(pool))
        return with_demos(self.start, worked[:demos])

    def _note_self_taught(self, good: int, rows: int) -> None:
        self._note(
            f"gold rows do not show what comes before an answer: of {rows} rows that the model"
            f" answered itself, {good} were good enough to be shown"
        )

    def _note(self, text: str) -> None:
        self._record["notes"].append(text)


def _raise(stop: Stopped) -> None:
    """Raise what broke, where something did: a limit breaks nothing."""
    if isinstance(stop.error, TunelmError):
        raise stop.error
    if stop.error is not None:
        raise ModelError(f"searching a prompt broke off: {stop.reason}") from stop.error


def _unscored(name: str, steps: Steps) -> dict[str, Any]:
    """The summary of a program that no dev row was asked for."""
    return {
        "name": name,
        "dev_score": None,
        "rows": 0,
        "failed_rows": None,
        "format_errors": None,
        "instructions": {},
        "demos": demos_of(steps),
    }
