"""The training loop: steps, an evaluation each epoch, early stopping, checkpoints."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tunelm.errors import StoppedError, TrainingError
from tunelm.training import checkpoints
from tunelm.training.adapter import make_optimizer, peak_rate, trainable
from tunelm.training.batches import epoch_batches, lengths_of, steps_by_epoch
from tunelm.training.checkpoints import State
from tunelm.training.job import TrainingJob
from tunelm.training.ranks import whole
from tunelm.training.steps import Stepper, TrainRow, learning_rate

Emit = Callable[[dict[str, Any]], None]


@dataclass
class Loop:
    """One training run on a model with weights to train.

    `score` gives the task's metric by generation (larger is better), for
    `stop_on = "metric"`. `stop` is asked after each step whether to end early. `keep` is called
    with (step, epochs done) after each epoch, to keep the weights as they are then.
    """

    stepper: Stepper
    train: Sequence[TrainRow]
    dev: Sequence[TrainRow]
    job: TrainingJob
    work: Path
    emit: Emit
    stop: Callable[[], bool]
    score: Callable[[], float] | None = None
    keep: Callable[[int, int], None] | None = None

    def run(self) -> State:
        """Train to the end and leave the best weights in the model.

        The `dev_loss` and `metric` of the state are then those of these weights.

        Raises:
            TrainingError: a loss or gradient is NaN or infinite, or there is nothing to learn.
            StoppedError: `stop` said so.
        """
        settings = self.job.settings
        lengths = lengths_of(self.train)
        self._counts = steps_by_epoch(lengths, settings, self.job.seed)
        self._steps = sum(self._counts)
        self._check()
        self._began = time.monotonic()
        self._saved_at = self._began
        self._peak = peak_rate(self.stepper.model, settings)
        model, ranks = self.stepper.model, self.stepper.ranks
        called, optimizer = ranks.spread(model, make_optimizer(model, settings))
        self.stepper = dataclasses.replace(self.stepper, called=called)
        self._weights = list(trainable(model).values())
        self._multiples = [group["lr"] for group in optimizer.param_groups]
        state = self._begin(optimizer)
        self._before = state.seconds
        while state.epoch < len(self._counts) and not state.stopped_early:
            batches = epoch_batches(lengths, settings, self.job.seed, state.epoch)
            self._epoch(state, optimizer, batches)
            self._evaluate(state)
            state.epoch, state.position = state.epoch + 1, 0
            if self.keep is not None:
                self.keep(state.step, state.epoch)
            self._save(state, optimizer)
        if settings.stop_on != "none" and state.best_step is not None:
            checkpoints.load_weights(self.work, state.best_step, self.stepper.model)
            state.dev_loss = state.best_dev_loss
            state.metric = state.best_value if settings.stop_on == "metric" else None
        return state

    def _check(self) -> None:
        stop_on = self.job.settings.stop_on
        if not self._steps:
            raise TrainingError("there are no rows to train on.")
        if stop_on != "none" and not self.dev:
            raise TrainingError(f'stop_on = "{stop_on}" needs dev rows. Or set stop_on = "none".')
        if stop_on == "metric" and self.score is None:
            raise TrainingError('stop_on = "metric" needs a scorer (--scorer module:function).')

    def _begin(self, optimizer: Any) -> State:
        state = checkpoints.restore(self.work, self.stepper.model, optimizer)
        if state is not None:
            self.emit({"event": "resumed", "step": state.step, "steps": self._steps})
            return state
        state = State()
        if self.dev:
            state.dev_loss_before = self.stepper.evaluate(self.dev).loss
        self.emit(
            {"event": "start", "step": 0, "steps": self._steps, "dev_loss": state.dev_loss_before}
        )
        return state

    def _epoch(self, state: State, optimizer: Any, batches: Sequence[list[int]]) -> None:
        model = self.stepper.model
        model.train()
        for indices in batches[state.position : self._counts[state.epoch]]:
            began = time.monotonic()
            rows = [self.train[i] for i in indices]
            self.stepper.ranks.seed(self.job.seed, state.step)
            rate = learning_rate(state.step, self._steps, self._peak, self.job.settings.warmup)
            for group, multiple in zip(optimizer.param_groups, self._multiples, strict=True):
                group["lr"] = rate * multiple
            state.train_loss, accuracy = self.stepper.backward(rows)
            norm = whole(torch.nn.utils.clip_grad_norm_(self._weights, self.job.settings.grad_clip))
            if not bool(torch.isfinite(norm)):
                raise TrainingError(
                    f"step {state.step + 1}: the gradient is {float(norm)}. Nothing was saved. "
                    "Lower the learning rate, or use dtype = 'float32'."
                )
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            self._count(state, rows, time.monotonic() - began)
            self.emit(
                {
                    "event": "step",
                    "step": state.step,
                    "steps": self._steps,
                    "epoch": state.epoch,
                    "loss": state.train_loss,
                    "accuracy": round(accuracy, 6),
                    "lr": rate,
                    "tokens": state.tokens,
                    "seconds": round(state.seconds, 3),
                }
            )
            self._pause(state, optimizer)

    def _count(self, state: State, rows: Sequence[TrainRow], seconds: float) -> None:
        state.step += 1
        state.position += 1
        state.tokens += sum(row.length for row in rows)
        state.padded_tokens += self.stepper.padded_tokens(rows)
        state.supervised_tokens += sum(len(row.supervised) for row in rows)
        state.step_seconds += seconds
        state.seconds = self._before + time.monotonic() - self._began

    def _pause(self, state: State, optimizer: Any) -> None:
        """Write a checkpoint when it is time to, and end when asked to."""
        due = time.monotonic() - self._saved_at >= self.job.checkpoint_seconds
        stopping, due = self.stepper.ranks.any(self.stop(), due)
        if stopping or due:
            self._save(state, optimizer)
        if stopping:
            raise StoppedError(
                f"stopped after step {state.step} of {self._steps}. The same call on "
                f"{self.work} goes on from there."
            )

    def _evaluate(self, state: State) -> None:
        settings, accuracy = self.job.settings, None
        if self.dev:
            state.dev_loss, accuracy = self.stepper.evaluate(self.dev)
        value = state.dev_loss
        if settings.stop_on == "metric" and self.score is not None:
            self.stepper.model.eval()
            value = state.metric = self.stepper.ranks.of_first(self.score())
        sign = -1 if settings.stop_on == "metric" else 1
        if value is not None and settings.stop_on != "none":
            if state.best_value is None or sign * value < sign * state.best_value:
                state.best_value, state.best_step, state.bad_evaluations = value, state.step, 0
                state.best_dev_loss = state.dev_loss
            else:
                state.bad_evaluations += 1
                state.stopped_early = state.bad_evaluations >= settings.patience
        self.emit(
            {
                "event": "evaluation",
                "step": state.step,
                "steps": self._steps,
                "epoch": state.epoch,
                "dev_loss": state.dev_loss,
                "dev_accuracy": accuracy,
                "metric": state.metric,
                "best_step": state.best_step,
            }
        )

    def _save(self, state: State, optimizer: Any) -> None:
        state.seconds = self._before + time.monotonic() - self._began
        model, ranks = self.stepper.model, self.stepper.ranks
        checkpoints.save(self.work, state, model, optimizer, ranks)
        self._saved_at = time.monotonic()
