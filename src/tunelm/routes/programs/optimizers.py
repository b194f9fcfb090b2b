"""DSPy's optimizers, one function each, over metered engines. Imports DSPy.

None of their own choices counts: the tracker sees every program they try, and decides. So they
may be stopped at any call.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dspy
from dspy.teleprompt.gepa import InstructionProposer

from tunelm.routes.programs.adapter import PlainAdapter
from tunelm.routes.programs.engine import ChatEngine, Door
from tunelm.routes.programs.limits import Stopped
from tunelm.routes.programs.module import ChatProgram, Shape, steps_of
from tunelm.routes.programs.program import Step
from tunelm.routes.programs.quiet import quiet
from tunelm.routes.programs.start import PASS
from tunelm.routes.programs.teach import taught
from tunelm.routes.programs.tracker import Run, Tracker
from tunelm.types import Example

NO_LIMIT = 10**9
"""DSPy aborts an evaluation at its `max_errors`-th failed row; failures are counted instead."""

PROPOSAL_TOKENS = 4096
"""Most tokens of one proposal, with room for a reasoning model's thoughts."""


class _Model(dspy.LM):
    """A DSPy model whose samples are told apart by their number, not by the order of threads."""

    def copy(self, **kwargs: Any) -> _Model:
        if "rollout_id" in kwargs and isinstance(self.engine, Door):
            kwargs["engine"] = self.engine.at(kwargs["rollout_id"] or 0)
        return super().copy(**kwargs)


@dataclass(frozen=True)
class Search:
    """What every optimizer works with.

    Attributes:
        start: the program's steps, without demonstrations.
        engine: where the task's calls go.
        proposer: where proposals are asked for; None where there are none.
        tracker: sees all that is scored.
        max_tokens: most tokens of an answer.
        threads: rows answered at once.
        seed: of all that is drawn.
    """

    start: tuple[Step, ...]
    engine: ChatEngine
    proposer: ChatEngine | None
    tracker: Tracker
    max_tokens: int
    threads: int = 16
    seed: int = 0


class Session:
    """One search in DSPy: its models, its program, its metric."""

    def __init__(self, search: Search) -> None:
        self.search = search
        self.tracker = search.tracker
        self.shape = Shape(search.start, search.max_tokens)
        self.program = ChatProgram(self.shape)
        self.door, self.proposals = Door(search.engine), Door(search.proposer or search.engine)
        self.lm = _model(self.door, search.max_tokens, temperature=0.0)
        self.proposer = _model(self.proposals, PROPOSAL_TOKENS, temperature=1.0)
        self.adapter = PlainAdapter(self.shape.exact)

    @contextmanager
    def open(self) -> Generator[None]:
        """DSPy set up for this search; afterwards none of its threads asks anything more."""
        # DSPy looks a model's abilities up in a list that it would fetch from the network.
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "true")
        wait = False
        try:
            with (
                quiet(),
                dspy.context(
                    lm=self.lm, adapter=self.adapter, disable_history=True, max_errors=NO_LIMIT
                ),
            ):
                yield
            wait = True
        except (Exception, Stopped):
            wait = True
            raise
        finally:
            self.door.shut(wait)
            self.proposals.shut(wait)

    def metric(self, gold: Any, prediction: Any, trace: Any = None, *more: Any) -> float:
        """The value of one answer; 0 for a demonstration whose form is broken."""
        run: Run = prediction._run
        value = self.tracker.record(run, self.shape.rows[gold.row_id], prediction.answer)
        return 0.0 if trace is not None and run.broken else value

    def feedback(self, gold: Any, prediction: Any, *more: Any) -> Any:
        """GEPA's metric: the value, and in words what was wanted."""
        value = self.metric(gold, prediction)
        run: Run = prediction._run
        said = [f"It scored {value:.2f} of 1. A right answer: {gold.answer}"]
        said += [f"The call failed: {run.failed}"] if run.failed else []
        said += [f"It broke the form: {run.broken}."] if run.broken else []
        return dspy.Prediction(score=value, feedback=" ".join(said))

    def teacher(self, pool: Sequence[Example], demos: int) -> tuple[ChatProgram, list[Example]]:
        """What demonstrations are bootstrapped from, and the pool without rows it cannot answer.

        Its answers to the pool are asked for here, as one batch: DSPy asks one by one, and then
        gets them from memory. One teacher serves all candidates, or each would ask anew.
        """
        optimizer = dspy.LabeledFewShot(k=demos)
        teacher = optimizer.compile(self.program, trainset=self.shape.as_dspy(pool))
        # Or DSPy would make a teacher of its own.
        teacher._compiled = True  # pyright: ignore[reportPrivateUsage]
        steps = steps_of(teacher)
        answers = taught(self.search.engine, steps, pool, self.search.max_tokens)
        usable = [row for row, got in zip(pool, answers, strict=True) if got.error is None]
        return teacher, usable or list(pool)


def random_search(session: Session, pool: Sequence[Example], demos: int, candidates: int) -> None:
    """Labelled few-shot, then `candidates` bootstrapped programs, each scored on dev."""
    teacher, usable = session.teacher(pool, demos)
    optimizer = dspy.BootstrapFewShotWithRandomSearch(
        metric=session.metric,
        metric_threshold=PASS,
        max_bootstrapped_demos=demos,
        max_labeled_demos=demos,
        num_candidate_programs=candidates - 1,  # DSPy adds an unshuffled one
        num_threads=session.search.threads,
        max_errors=NO_LIMIT,
    )
    trainset = session.shape.as_dspy(usable)
    valset = session.shape.as_dspy(session.tracker.dev)
    for number in range(-2, candidates - 1):
        session.tracker.label("labeled" if number == -2 else f"bootstrapped-{number + 2}")
        optimizer.compile(
            session.program, teacher=teacher, trainset=trainset, valset=valset, restrict=[number]
        )


class _Mipro(dspy.MIPROv2):
    """MIPROv2 that goes on with the instructions it has where the proposer cannot be used."""

    on_failure: Callable[[Exception], None]

    def _propose_instructions(
        self, program: Any, *args: Any, **kwargs: Any
    ) -> dict[int, list[str]]:
        try:
            return super()._propose_instructions(program, *args, **kwargs)
        except Exception as error:
            self.on_failure(error)
            return {i: [p.signature.instructions] for i, p in enumerate(program.predictors())}


def mipro(
    session: Session, pool: Sequence[Example], demos: int, candidates: int, trials: int
) -> list[str]:
    """MIPROv2, every trial on all dev rows. Returns what went wrong with the proposals, in words.

    Its own mini-batches are not used: a score on a part of dev decides nothing.
    """
    teacher, usable = session.teacher(pool, demos)
    notes: list[str] = []
    optimizer = _Mipro(
        metric=session.metric,
        prompt_model=session.proposer,
        task_model=session.lm,
        auto=None,
        num_candidates=candidates,
        num_threads=session.search.threads,
        max_bootstrapped_demos=demos,
        max_labeled_demos=demos,
        max_errors=NO_LIMIT,
        metric_threshold=PASS,
        seed=session.search.seed + 1,  # 0 stands for DSPy's own
    )
    optimizer.on_failure = lambda error: notes.append(
        f"no instructions were proposed, only demonstrations tried: {error}"
    )
    session.tracker.label("mipro", numbered=True)
    optimizer.compile(
        session.program,
        teacher=teacher,
        trainset=session.shape.as_dspy(usable),
        valset=session.shape.as_dspy(session.tracker.dev),
        num_trials=trials,
        minibatch=False,
    )
    return notes


def gepa(session: Session, train: Sequence[Example], trials: int) -> None:
    """GEPA: instructions rewritten by reflection on train rows, kept by their dev rows.

    It may score `trials` times as many rows as dev has, those of its mini-batches included.
    """
    limits, proposer = session.search.engine.limits, session.search.proposer

    def stop(state: object) -> bool:
        return limits.reached() is not None or (proposer is not None and bool(proposer.broken))

    dev = session.shape.as_dspy(session.tracker.dev)
    optimizer = dspy.GEPA(
        metric=session.feedback,
        max_metric_calls=trials * len(dev),
        reflection_lm=session.proposer,
        instruction_proposer=InstructionProposer(adapter=session.adapter),
        num_threads=session.search.threads,
        use_merge=False,
        warn_on_score_mismatch=False,
        seed=session.search.seed,
        gepa_kwargs={"stop_callbacks": [stop]},
    )
    session.tracker.label("gepa", numbered=True)
    optimizer.compile(session.program, trainset=session.shape.as_dspy(train), valset=dev)


def simba(
    session: Session,
    train: Sequence[Example],
    demos: int,
    batch: int,
    candidates: int,
    steps: int,
) -> None:
    """SIMBA: rules and demonstrations from batches of train rows. It never sees dev."""
    rows = session.shape.as_dspy(train)
    optimizer = dspy.SIMBA(
        metric=session.metric,
        bsize=batch,
        num_candidates=candidates,
        max_steps=steps,
        max_demos=demos,
        prompt_model=session.proposer,
        demo_input_field_maxlen=NO_LIMIT,
        num_threads=session.search.threads,
    )
    optimizer.compile(session.program, trainset=rows, seed=session.search.seed)


def _model(door: Door, max_tokens: int, temperature: float) -> _Model:
    # A fixed name: DSPy refuses settings by what a model is called. No retries: a failed call is
    # counted and its row failed. No cache: DSPy's ignores which server answered.
    return _Model(
        "local/tunelm",
        engine=door,
        cache=False,
        temperature=temperature,
        max_tokens=max_tokens,
        num_retries=0,
    )
