"""Rows to train weights on, from a prompt program: one exporter, whoever trains.

A row's messages are what the opened program sends for its question, byte for byte, system
message and demonstrations included. So it is trained without further instructions, and serves
`local` and `cloud` alike. The one exception is on purpose: a demonstration from the row's own
group is left out of the row's prompt, because with its answer in view the row would teach
copying.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tunelm.models.base import ChatModel
from tunelm.predict import predict, read_predictions
from tunelm.routes.programs.form import read, render
from tunelm.routes.programs.program import Demo, Near, Program, Step, turns_of
from tunelm.scoring.metrics import get_metric
from tunelm.types import ZERO_USAGE, Example, FinishReason, Message, Prediction, Usage

Problem = Literal["failed", "broken", "below"]


@dataclass(frozen=True, slots=True)
class Exported:
    """Rows to train on, and what became of the examples that they were made from.

    Attributes:
        rows: what is sent (`messages`) and what is learned (`answers[0]`); one a call.
        asked: examples looked at.
        kept: examples whose rows are among them.
        failed: those for which a call failed.
        broken: those whose answer broke the form, was empty, or was cut at the most tokens.
        below: those whose answer scored less than the threshold.
        calls, usage: what asking the program took; none where nothing had to be asked.
    """

    rows: tuple[Example, ...]
    asked: int
    kept: int
    failed: int = 0
    broken: int = 0
    below: int = 0
    calls: int = 0
    usage: Usage = ZERO_USAGE

    def counts(self) -> dict[str, int]:
        """The counts, for JSON."""
        names = ("asked", "kept", "failed", "broken", "below", "calls")
        return {"rows": len(self.rows), **{name: getattr(self, name) for name in names}}


@dataclass
class _Run:
    """One example on its way through the program's steps."""

    example: Example
    rows: list[Example] = field(default_factory=list[Example])
    given: dict[str, str] = field(default_factory=dict[str, str])
    answer: str = ""
    problem: Problem | None = None


@dataclass(frozen=True)
class RowExporter:
    """Makes training rows of one program.

    Args:
        program: whose prompts they get.
        train: the rows that its demonstrations are from.
        open_model: opens the model that the program runs on; called only if it must be asked.
        max_tokens: most tokens of an answer.
        folder: where its answers are kept as they come, so that nothing is asked twice.
    """

    program: Program
    train: Sequence[Example]
    open_model: Callable[[], ChatModel]
    max_tokens: int
    folder: Path

    def gold(self, examples: Sequence[Example], part: str) -> Exported:
        """The gold answer behind the program's prompt.

        A gold row knows the answer alone, so the last step must have no other output (see
        `answer_only`). Steps before it are asked, and are trained on what they answered, so that
        the tuned model goes on to write what the last step is shown.

        Raises:
            ValueError: the last step has several outputs.
        """
        last = self.program.last
        if len(last.outputs) > 1:
            raise ValueError(f"gold rows have the answer alone, the program {last.outputs}")
        runs, calls, usage = self._run(examples, part, self.program.steps[:-1])
        able = [run for run in runs if run.problem != "failed"]
        for run, messages in zip(able, self._prompts(last, able), strict=True):
            run.rows.append(dataclasses.replace(run.example, messages=messages))
            run.problem = None  # an earlier step's answer, whatever its form, is what it is
        return _exported(runs, calls, usage)

    def traces(
        self,
        examples: Sequence[Example],
        part: str,
        score: Callable[[str, Example], float],
        threshold: float,
    ) -> Exported:
        """The program's own answers, all steps, where the last one scores `threshold` or more."""
        runs, calls, usage = self._run(examples, part, self.program.steps)
        for run in runs:
            if run.problem is None and score(run.answer, run.example) < threshold:
                run.problem = "below"
        return _exported(runs, calls, usage)

    def _run(
        self, examples: Sequence[Example], part: str, steps: Sequence[Step]
    ) -> tuple[list[_Run], int, Usage]:
        """Each example through `steps`, a batch a step; what that took."""
        runs = [_Run(example) for example in examples]
        calls, usage = 0, ZERO_USAGE
        for step in steps:
            left = [run for run in runs if run.problem != "failed"]
            found = self._ask(step, left, part)
            calls, usage = calls + len(found), sum((p.usage for p in found), usage)
        return runs, calls, usage

    def _ask(self, step: Step, runs: Sequence[_Run], part: str) -> list[Prediction]:
        last = step is self.program.last
        asked = [
            dataclasses.replace(
                run.example,
                id=run.example.id if last else f"{run.example.id}/{step.name}",
                messages=messages,
            )
            for run, messages in zip(runs, self._prompts(step, runs), strict=True)
        ]
        room = step.extra_tokens + (self.max_tokens if last else 0)
        path = self.folder / f"{part}-{step.name}.jsonl"
        found = ask_once(self.open_model, asked, part, path, room)
        for run, row, got in zip(runs, asked, found, strict=True):
            if got.output is None:
                run.problem = "failed"
                continue
            values, broken = read(step.outputs, got.output)
            run.answer = run.given[step.name] = values[step.outputs[-1]]
            cut = got.finish_reason is FinishReason.LENGTH
            if broken or cut or not run.answer.strip():
                run.problem = "broken"
            else:
                run.rows.append(dataclasses.replace(row, answers=(got.output,)))
        return found

    def _prompts(self, step: Step, runs: Sequence[_Run]) -> list[tuple[Message, ...]]:
        turns = self._turns(step, [run.example for run in runs])
        found: list[tuple[Message, ...]] = []
        for run, shown in zip(runs, turns, strict=True):
            messages = run.example.messages
            if step is not self.program.last:  # as ProgramModel has it
                messages = tuple(m for m in messages if m.role != "system")
            found.append(render(step, messages, run.given, shown))
        return found

    def _turns(self, step: Step, examples: Sequence[Example]) -> list[tuple[Message, ...]]:
        """The demonstrations for each example, without those of its own group."""
        groups = {row.id: row.group for row in self.train}

        def others(demos: Sequence[Demo], example: Example) -> list[Demo]:
            return [demo for demo in demos if groups.get(demo.example_id) != example.group]

        near = self.program.near
        if near is None or step is not self.program.last:
            return [turns_of(others(step.demos, example)) for example in examples]
        from tunelm.retrieval.lexical import Bm25

        index = Bm25([demo.messages[-2].content for demo in near.pool])
        sizes = Counter(groups.get(demo.example_id, demo.example_id) for demo in near.pool)
        hits = index.search([e.question for e in examples], near.k + max(sizes.values()))
        found: list[tuple[Message, ...]] = []
        for example, nearest in zip(examples, hits, strict=True):
            demos = others([near.pool[hit.index] for hit in nearest], example)[: near.k]
            found.append(turns_of(demos[::-1]))
        return found


def ask_once(
    open_model: Callable[[], ChatModel],
    rows: Sequence[Example],
    part: str,
    path: Path,
    max_tokens: int,
) -> list[Prediction]:
    """`predict`, with the model opened only if `path` does not hold all the answers yet."""
    done = read_predictions(path)
    if len(done) == len(rows):
        return done
    path.parent.mkdir(parents=True, exist_ok=True)
    return predict(open_model(), rows, part, path, max_tokens)


def row_metric(name: str) -> tuple[str, Callable[[str, Example], float]]:
    """(the metric that judges a single row, its name first): `name`, or token F1 where it cannot.

    Scores are from 0 to 1, more being better.
    """
    metric = get_metric(name)
    if not metric.per_row or metric.lower_is_better:
        metric = get_metric("token_f1")

    def score(output: str, example: Example) -> float:
        return metric.row_value(output, example) or 0.0

    return metric.name, score


def answer_only(program: Program) -> Program:
    """The program with the answer as its last step's one output, in its demonstrations too.

    What gold rows can teach: they hold no reasoning.
    """
    last = program.last
    if len(last.outputs) == 1:
        return program
    demos = tuple(_bare(demo, last.outputs) for demo in last.demos)
    steps = (
        *program.steps[:-1],
        dataclasses.replace(last, outputs=last.outputs[-1:], demos=demos, extra_tokens=0),
    )
    near = program.near
    if near is not None:
        near = Near(near.k, tuple(_bare(demo, last.outputs) for demo in near.pool))
    return dataclasses.replace(program, steps=steps, near=near)


def without_demos(program: Program) -> Program:
    """The program's steps and instructions, and no demonstrations."""
    steps = tuple(dataclasses.replace(step, demos=()) for step in program.steps)
    return dataclasses.replace(program, steps=steps, near=None)


def _bare(demo: Demo, outputs: Sequence[str]) -> Demo:
    *turns, written = demo.messages
    values, _ = read(outputs, written.content)
    answer = Message(written.role, values[outputs[-1]])
    return dataclasses.replace(demo, messages=(*turns, answer))


def _exported(runs: Sequence[_Run], calls: int, usage: Usage) -> Exported:
    kept = [run for run in runs if run.problem is None]
    problems: Mapping[str | None, int] = Counter(run.problem for run in runs)
    return Exported(
        tuple(row for run in kept for row in run.rows),
        len(runs),
        len(kept),
        problems.get("failed", 0),
        problems.get("broken", 0),
        problems.get("below", 0),
        calls,
        usage,
    )
