"""Before a server says ready: does it answer as the model that was evaluated did?

A served adapter can be a silent no-op, a tokenizer or a template another one than before. So a
sample of a run's stored test answers is asked for again. Where a text differs, the stored answer
is scored: the model that gave it ranks each of its tokens first, up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tunelm.errors import ConfigError, ModelError
from tunelm.models.prompted import with_prompt
from tunelm.models.render import encode_prompt
from tunelm.report.read import RouteRun, Run, SeedRun, read_run
from tunelm.server.asking import Ask, Piece
from tunelm.server.catalog import Catalog, Served
from tunelm.server.composed import EngineModel
from tunelm.server.engines import Engine
from tunelm.target import find_run
from tunelm.types import Example, Request

SAMPLE = 32
"""Most answers of a route that are asked for again."""
TOP = 20
"""How many likely tokens are looked at where two answers part."""
TOLERATED = 0.02
"""By how much, in nats, a stored token may be less likely than the served one: a near tie."""
TOLERATED_HALF = 0.5
"""The same where logits are computed in 16 bits, whose last place is worth about as much."""
SAME = 0.75
"""Least share of equal answers of a route that is more than one call: a near tie in an early call
changes all that follows, so places cannot be compared one by one."""
UNMOVED = 1e-5
"""An adapter that changes no log-probability by more than this changes nothing."""


@dataclass(frozen=True)
class Evaluated:
    """What a run's route answered to test rows, and the model that is served for it."""

    served: Served
    rows: Sequence[tuple[Example, str]]
    max_tokens: int


def evaluated(run: Path, catalog: Catalog) -> list[Evaluated]:
    """What to ask again: a sample for each route of a run (or of RUN/ROUTE) that is served.

    Raises:
        ConfigError: there is no run, none of it is served, or it has no test predictions.
    """
    found = find_run(run)
    if found is None:
        raise ConfigError(f"--verify {run}: no run there. Give a run directory, or RUN/ROUTE.")
    stored = read_run(found[0])
    sampled = [
        _sampled(stored, served, seed)
        for route in stored.routes
        if found[1] in (None, route.name)
        for seed in route.finished
        for served in catalog.all()
        if _made(stored, route, seed, served)
    ]
    if not sampled:
        raise ConfigError(
            f"--verify {run}: none of its routes is served here. Serve it: tunelm serve {run} "
            f"--verify {run}"
        )
    return sampled


def verify(routes: Sequence[Evaluated], engine: Engine) -> list[str]:
    """Ask again; one line for each route. Starts the engine, which goes on where all is well.

    Raises ModelError where a served model answers otherwise than the one that was evaluated.
    """
    engine.start()
    try:
        return [_checked(route, engine) for route in routes]
    except BaseException:
        engine.stop()
        raise


def _checked(route: Evaluated, engine: Engine) -> str:
    """What was found of one route."""
    if route.served.compose is None:
        return _Check(route, engine).line()
    model = route.served.compose(EngineModel(engine, route.served.adapter))
    asked = [Request(example.messages, max_tokens=route.max_tokens) for example, _ in route.rows]
    pairs = zip(model.complete(asked), route.rows, strict=True)
    same = sum(answer.text == stored for answer, (_, stored) in pairs)
    found = f"{route.served.id}: {same} of {len(asked)} answers as evaluated"
    if same < SAME * len(asked):
        raise ModelError(f"{found}. Serve the base, adapter and passages it was made with.")
    return found


def _made(run: Run, route: RouteRun, seed: SeedRun, served: Served) -> bool:
    """Whether a model is what a route made: by its name (the first seed), or by its folder."""
    folder = (run.path / "routes" / route.name / f"seed-{seed.seed}" / "adapted").resolve()
    named = seed is route.seeds[0] and served.id == f"{run.task['name']}/{route.name}"
    return named or served.adapter == folder


def _sampled(run: Run, served: Served, seed: SeedRun) -> Evaluated:
    examples = {example.id: example for example in run.parts["test"]}
    rows = [
        (examples[p.example_id], p.output) for p in seed.predictions["test"] if p.output is not None
    ]
    if not rows:
        raise ConfigError(f"{run.path}: {served.id} has no test predictions to verify with.")
    step = max(len(rows) / SAMPLE, 1)
    sample = [rows[int(i * step)] for i in range(min(SAMPLE, len(rows)))]
    return Evaluated(served, sample, run.task["max_tokens"])


class _Check:
    """One route asked again."""

    def __init__(self, route: Evaluated, engine: Engine) -> None:
        self._route, self._served, self._engine = route, route.served, engine

    def line(self) -> str:
        """What was found. Raises ModelError where the answers are another model's."""
        prompts = [self._prompt(example) for example, _ in self._route.rows]
        most, room = self._route.max_tokens, self._engine.max_length
        asks = [self._ask(prompt, min(most, room - len(prompt))) for prompt in prompts]
        pieces = self._complete(asks)
        same, worst, tolerated = 0, 0.0, self._tolerated()
        for (example, stored), prompt, piece in zip(self._route.rows, prompts, pieces, strict=True):
            if piece.text == stored:
                same += 1
                continue
            off = self._difference(prompt, piece, stored)
            worst = max(worst, off)
            if off > tolerated:
                raise ModelError(
                    f"{self._served.id} does not answer as the run's model did: to row "
                    f"{example.id} it says {piece.text[:60]!r}, the run {stored[:60]!r}; where "
                    f"they part, the run's token is less likely by {off:.3g} nats (up to "
                    f"{tolerated:g} is rounding). Serve the base and the adapter it was made with."
                )
        self._require_effect(prompts)
        near = f", the others differ by near ties (at most {worst:.2g} nats)" if worst else ""
        return f"{self._served.id}: {same} of {len(pieces)} answers as evaluated{near}"

    def _prompt(self, example: Example) -> list[int]:
        messages = with_prompt(self._served.system, self._served.demos, example.messages)
        return encode_prompt(self._engine.tokenizer, messages)

    def _ask(self, prompt: list[int], limit: int) -> Ask:
        return Ask(prompt, limit, self._served.adapter, top=0)

    def _complete(self, asks: Sequence[Ask]) -> list[Piece]:
        pieces = self._engine.complete(asks)
        for piece in pieces:
            if piece.error is not None:
                raise ModelError(f"{self._served.id} cannot answer: {piece.error}")
        return pieces

    def _difference(self, prompt: list[int], piece: Piece, output: str) -> float:
        """How much likelier the served token is than the stored one, where the texts part."""
        stored, tokenizer = output.rstrip("\ufffd"), self._engine.tokenizer
        pairs = enumerate(zip(piece.text, stored, strict=False))
        short = min(len(piece.text), len(stored))
        same = next((i for i, (a, b) in pairs if a != b), short)
        starts = [scored.start for scored in piece.scored] + [len(piece.text)]
        before = [s.token for s, end in zip(piece.scored, starts[1:], strict=True) if end <= same]
        rest = tokenizer.encode(stored[starts[len(before)] :], add_special_tokens=False)
        whole = [*prompt, *before, rest[0] if rest else tokenizer.eos_token_id]
        if len(whole) > self._engine.max_length:
            return 0.0  # the one ends where the context does
        ask = Ask(whole, 0, self._served.adapter, top=TOP, score_prompt=True)
        scored = self._complete([ask])[0].prompt[-1]
        ends = [] if rest else [value for token, value in scored.top if token in self._engine.ends]
        return scored.top[0][1] - max([scored.logprob or 0.0, *ends])

    def _tolerated(self) -> float:
        return TOLERATED if self._engine.dtype == torch.float32 else TOLERATED_HALF

    def _require_effect(self, prompts: Sequence[list[int]]) -> None:
        """Raise ModelError where an adapter answers as the base does, to the last digit."""
        if self._served.adapter is None:
            return
        served = self._complete([self._ask(prompt, 1) for prompt in prompts])
        base = self._complete([Ask(prompt, 1, top=0) for prompt in prompts])
        moves = [
            _first(a) != _first(b) and abs(_first(a)[1] - _first(b)[1]) > UNMOVED
            for a, b in zip(served, base, strict=True)
        ]
        if not any(moves):
            raise ModelError(
                f"{self._served.id}: its adapter changes nothing; the base model would answer. "
                "Serve the adapter that the run made."
            )


def _first(piece: Piece) -> tuple[int, float]:
    """The first token and its log-probability; an end has none."""
    if not piece.scored:
        return -1, 0.0
    return piece.scored[0].token, piece.scored[0].logprob or 0.0
