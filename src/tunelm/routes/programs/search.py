"""Choosing demonstrations with DSPy. Imports DSPy."""

from __future__ import annotations

import importlib
import logging
import math
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import dspy
import tqdm

from tunelm.routes.programs.adapter import PlainAdapter, as_dicts, signature
from tunelm.routes.programs.engine import ChatEngine
from tunelm.routes.programs.pool import prompt_builder
from tunelm.routes.programs.program import Candidate, Demo, answered_demo, gold_demo
from tunelm.types import Example

PASS = 0.9
"""What the model's own answer must score to become a demonstration.

A demonstration is taken for right. With answers in sentences a wrong fact in the right words
still reaches a token-F1 of .8 or more, so the bar stands above that; where nothing passes,
gold answers fill the prompt.
"""

NO_LIMIT = 10**9
"""DSPy aborts an evaluation at its `max_errors`-th failed row; failures are counted instead."""


class DemoSearch:
    """DSPy's demonstration optimizers for one task, over one engine.

    Args:
        engine: where all calls go.
        instructions: the system message, sent exactly as given.
        max_tokens: most tokens of an answer.
        score: (output, row) to a value from 0 to 1.
        threads: rows evaluated at once.
    """

    def __init__(
        self,
        engine: ChatEngine,
        instructions: str,
        max_tokens: int,
        score: Callable[[str, Example], float],
        threads: int,
    ) -> None:
        self.engine = engine
        self.instructions = instructions
        self.max_tokens = max_tokens
        self.threads = threads
        self._score = score
        self._answered: set[str] = set()
        self._rows: dict[str, Example] = {}
        # No retries: a failed call is counted and its row failed. No cache: DSPy's ignores
        # which server answered, and the engine keeps its own.
        self.lm = dspy.LM(
            f"local/{engine.model.name}",
            engine=engine,
            cache=False,
            temperature=0.0,
            max_tokens=max_tokens,
            num_retries=0,
        )
        self.start = dspy.Predict(signature(instructions))

    def zero_shot(self) -> tuple[Candidate, dict[str, Any]]:
        """No demonstrations, and no calls."""
        return Candidate("zero-shot", ()), self.start.dump_state()

    def labeled(self, pool: Sequence[Example], demos: int) -> tuple[Candidate, dict[str, Any]]:
        """Gold demonstrations without a search: no calls, and no dev score.

        Returns the candidate and its DSPy state, as do the others.
        """
        with self._session():
            program = dspy.LabeledFewShot(k=demos).compile(self.start, trainset=self._as_dspy(pool))
        return Candidate("labeled", self._demos(program, pool)), program.dump_state()

    def random_search(
        self, pool: Sequence[Example], dev: Sequence[Example], demos: int, candidates: int
    ) -> list[tuple[Candidate, dict[str, Any]]]:
        """Zero-shot, labelled few-shot, then `candidates` bootstrapped programs, scored on dev.

        They come in this order, simplest first. All bootstrap from one teacher (labelled
        few-shot), whose answers to the pool are asked for once, as a batch: DSPy would ask one
        by one, anew for each candidate.
        """
        with self._session():
            teacher, usable = self._teach(pool, demos)
            optimizer = dspy.BootstrapFewShotWithRandomSearch(
                metric=self._metric,
                metric_threshold=PASS,
                max_bootstrapped_demos=demos,
                max_labeled_demos=demos,
                num_candidate_programs=candidates - 1,  # DSPy adds an unshuffled one
                num_threads=self.threads,
                max_errors=NO_LIMIT,
            )
            trainset, valset = self._as_dspy(usable), self._as_dspy(dev)
            found: list[tuple[Candidate, dict[str, Any]]] = []
            for number in range(-3, candidates - 1):
                name = {-3: "zero-shot", -2: "labeled"}.get(number, f"bootstrapped-{number + 2}")
                self._answered = set()
                best = optimizer.compile(
                    self.start,
                    teacher=teacher,
                    trainset=trainset,
                    valset=valset,
                    restrict=[number],
                )
                self.engine.check()
                entry = best.candidate_programs[0]
                values = [float(value) for value in entry["subscores"]]
                candidate = Candidate(
                    name,
                    self._demos(entry["program"], usable),
                    dev_score=math.fsum(values) / len(values),
                    failed_rows=len(values) - len(self._answered),
                )
                found.append((candidate, entry["program"].dump_state()))
        return found

    def ask(self, demos: Sequence[Demo], row: Example) -> str:
        """What the DSPy program with these demonstrations answers to one row."""
        program = self.start.deepcopy()
        program.demos = [
            dspy.Example(messages=as_dicts(d.messages[:-1]), answer=d.messages[-1].content)
            for d in demos
        ]
        with self._session():
            return program(messages=as_dicts(row.messages)).answer

    def _teach(self, pool: Sequence[Example], demos: int) -> tuple[dspy.Module, Sequence[Example]]:
        """The teacher, and the pool without the rows that it could not be asked."""
        teacher = dspy.LabeledFewShot(k=demos).compile(self.start, trainset=self._as_dspy(pool))
        # Or DSPy would give each candidate a teacher of its own.
        teacher._compiled = True  # pyright: ignore[reportPrivateUsage]
        shown = [self._rows[demo.row_id] for demo in teacher.demos]
        prompt = prompt_builder(self.engine.model, self.instructions, self.max_tokens)
        answers = self.engine.answer([prompt([d for d in shown if d is not r], r) for r in pool])
        usable = [row for row, got in zip(pool, answers, strict=True) if got.error is None]
        return teacher, usable or pool

    def _metric(self, gold: dspy.Example, prediction: dspy.Prediction, trace: Any = None) -> float:
        if trace is None:  # evaluating, not bootstrapping
            self._answered.add(gold.row_id)
        try:
            return self._score(prediction.answer, self._rows[gold.row_id])
        except Exception as error:
            self.engine.fail(error)  # DSPy would take a broken metric for a failed row
            raise

    def _as_dspy(self, rows: Sequence[Example]) -> list[dspy.Example]:
        self._rows |= {row.id: row for row in rows}
        return [
            dspy.Example(
                messages=as_dicts(row.messages), answer=row.answers[0], row_id=row.id
            ).with_inputs("messages")
            for row in rows
        ]

    def _demos(self, program: Any, pool: Sequence[Example]) -> tuple[Demo, ...]:
        """The program's demonstrations; a bootstrapped one is known by its messages only."""
        asked = {_key(row.messages): row for row in pool}
        demos: list[Demo] = []
        for demo in program.demos:
            if demo.get("augmented"):
                row = asked[_key(demo["messages"])]
                demos.append(answered_demo(row, demo["answer"], "bootstrapped"))
            else:
                demos.append(gold_demo(self._rows[demo["row_id"]]))
        return tuple(demos)

    @contextmanager
    def _session(self) -> Generator[None]:
        adapter = PlainAdapter(self.instructions)
        with _quiet(), dspy.context(lm=self.lm, adapter=adapter, disable_history=True):
            yield


def _key(messages: Sequence[Any]) -> tuple[tuple[str, str], ...]:
    return tuple((m["role"], m["content"]) for m in as_dicts(messages))


class _NoBar(tqdm.tqdm):  # pyright: ignore[reportMissingTypeArgument]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "disable": True})


@contextmanager
def _quiet() -> Generator[None]:
    """Silence DSPy's prints, bars and log, which cannot be turned off, for a while.

    They are replaced where DSPy looks them up: redirecting stdout for the whole process would
    swallow the caller's own progress bar.
    """
    names = {
        "dspy.teleprompt.random_search": {"print": _nothing},
        "dspy.teleprompt.bootstrap": {"print": _nothing, "tqdm": SimpleNamespace(tqdm=_NoBar)},
        "dspy.utils.parallelizer": {"tqdm": SimpleNamespace(tqdm=_NoBar)},
    }
    logger = logging.getLogger("dspy")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    before: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for module, replaced in names.items():
        importlib.import_module(module)
        scope = vars(sys.modules[module])
        before.append((scope, {key: scope[key] for key in replaced if key in scope}))
        scope.update(replaced)
    try:
        yield
    finally:
        logger.setLevel(level)
        for (scope, old), replaced in zip(before, names.values(), strict=True):
            for key in replaced:
                scope.pop(key)
            scope.update(old)


def _nothing(*args: Any, **kwargs: Any) -> None:
    pass
