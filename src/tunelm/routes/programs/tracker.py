"""What each program that was ever tried scored on which rows, whatever the optimizer says."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from tunelm.models.base import ChatModel
from tunelm.routes.programs.limits import Stopped
from tunelm.routes.programs.model import open_program
from tunelm.routes.programs.program import Step
from tunelm.routes.programs.start import bare
from tunelm.types import Example, Request

Steps = tuple[Step, ...]
Score = Callable[[str, Example], float]


@dataclass(frozen=True, slots=True)
class Run:
    """How one row was answered: by which program, greedily or not, failed or in a broken form."""

    steps: Steps
    greedy: bool = True
    failed: str | None = None
    broken: str | None = None


@dataclass
class Candidate:
    """One program that was tried, and what it scored by row; a failed row scores 0."""

    name: str
    steps: Steps
    scores: dict[str, float] = field(default_factory=dict[str, float])
    failed: set[str] = field(default_factory=set[str])
    broken: set[str] = field(default_factory=set[str])

    def add(self, row: Example, run: Run, value: float) -> None:
        """Note what one row scored."""
        self.scores[row.id] = value
        for found, rows in ((run.failed, self.failed), (run.broken, self.broken)):
            (rows.discard if found is None else rows.add)(row.id)

    def mean(self, rows: Sequence[Example]) -> float | None:
        """The mean over these rows; None where one of them is not scored, or there are none."""
        if not rows or any(row.id not in self.scores for row in rows):
            return None
        return math.fsum(self.scores[row.id] for row in rows) / len(rows)


class Tracker:
    """Knows of every program, by what it is, the rows it was scored on, and what it scored.

    Optimizers choose by mini-batches, by train rows, or take the last of equals. The best here
    is the best mean over all dev rows, among the programs that were scored on all of them; of
    equals the first, which is the simpler one, since the start is scored before all others.

    Args:
        dev: the rows that decide.
        score: (output, row) to a value from 0 to 1; see `guarded`.
    """

    def __init__(self, dev: Sequence[Example], score: Score) -> None:
        self.dev = tuple(dev)
        self.candidates: dict[Steps, Candidate] = {}
        self._score = score
        self._dev_ids = {row.id for row in dev}
        self._on_train: dict[Steps, Candidate] = {}
        self._label, self._number = "candidate", 0
        self._lock = threading.Lock()

    def label(self, name: str, numbered: bool = False) -> None:
        """What programs are called that come up on dev from now on, `numbered` from 1."""
        self._label, self._number = name, 1 if numbered else 0

    def record(self, run: Run, row: Example, output: str) -> float:
        """Score one answer and note it, unless it was sampled."""
        value = 0.0 if run.failed is not None else self._score(output, row)
        if run.greedy:
            with self._lock:
                self._candidate(run.steps, row.id in self._dev_ids).add(row, run, value)
        return value

    def evaluate(self, steps: Steps, model: ChatModel, max_tokens: int, name: str) -> Candidate:
        """Score a program on all dev rows, as one batch and without DSPy."""
        self.label(name)
        program = open_program(bare(steps), model)
        requests = [Request(row.messages, max_tokens=max_tokens) for row in self.dev]
        for row, got in zip(self.dev, program.complete(requests), strict=True):
            self.record(Run(steps, True, got.error, got.format_error), row, got.text)
        return self._candidate(steps, on_dev=True)

    def best(self) -> Candidate | None:
        """The best of all that were scored on every dev row; None where none was."""
        found: Candidate | None = None
        most = -math.inf
        for candidate in self.candidates.values():
            value = candidate.mean(self.dev)
            if value is not None and value > most:
                found, most = candidate, value
        return found

    def leaders(self, count: int, rows: int) -> list[Steps]:
        """The best on train rows, among those scored on so many at least and not yet on dev."""
        able = [
            candidate
            for candidate in self._on_train.values()
            if len(candidate.scores) >= rows and candidate.steps not in self.candidates
        ]
        able.sort(key=lambda c: -math.fsum(c.scores.values()) / len(c.scores))
        return [candidate.steps for candidate in able[:count]]

    def summaries(self) -> list[dict[str, Any]]:
        """All candidates in the order in which they came up, for JSON.

        `dev_score` is None for one that was not scored on all dev rows.
        """
        start = next(iter(self.candidates), ())
        return [self._summary(candidate, start) for candidate in self.candidates.values()]

    def _summary(self, candidate: Candidate, start: Steps) -> dict[str, Any]:
        changed = {
            step.name: step.instructions
            for step, first in zip(candidate.steps, start, strict=True)
            if step.instructions != first.instructions
        }
        return {
            "name": candidate.name,
            "dev_score": candidate.mean(self.dev),
            "rows": len(candidate.scores),
            "failed_rows": len(candidate.failed),
            "format_errors": len(candidate.broken),
            "instructions": changed,
            "demos": demos_of(candidate.steps),
        }

    def _candidate(self, steps: Steps, on_dev: bool) -> Candidate:
        known = self.candidates if on_dev else self._on_train
        if steps not in known:
            name = f"{self._label}-{self._number}" if self._number else self._label
            known[steps] = Candidate(name, steps)
            self._number += on_dev and self._number > 0
        return known[steps]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # DSPy copies its programs with all they hold


def guarded(score: Score) -> Score:
    """A metric that raises Stopped where it breaks: DSPy would take it for a failed row."""

    def guard(output: str, row: Example) -> float:
        try:
            return score(output, row)
        except Exception as error:
            said = f"the metric raised {type(error).__name__}: {error}"
            raise Stopped(said, error) from error

    return guard


def demos_of(steps: Steps) -> list[dict[str, str]]:
    """The demonstrations of a program without their texts; of other steps than the last named."""
    return [
        {"example_id": demo.example_id, "source": demo.source}
        | ({} if step is steps[-1] else {"step": step.name})
        for step in steps
        for demo in step.demos
    ]
