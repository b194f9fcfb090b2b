"""What a strategy will ask, by formula: calls and tokens, with the range they may fall into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tunelm.route_settings import PromptSettings
from tunelm.routes.base import FitContext
from tunelm.routes.baseline import CHARACTERS_A_TOKEN
from tunelm.routes.programs import headroom
from tunelm.routes.programs.find import PROPOSING, SIMBA_BATCH, SIMBA_ROWS
from tunelm.routes.programs.pool import NEAREST_ROWS, PROBE_ROWS, demo_pool
from tunelm.routes.programs.start import shows_more, start_steps
from tunelm.types import Estimate

PROPOSAL_CHARACTERS = 6000
"""About what DSPy asks a proposer at a time: its own texts, some rows, the program's source."""


@dataclass(frozen=True)
class Runs:
    """Program runs: without demonstrations, with them, and the fewest and most of both together."""

    bare: float
    full: float
    low: float
    high: float

    def __add__(self, other: Runs) -> Runs:
        return Runs(
            self.bare + other.bare,
            self.full + other.full,
            self.low + other.low,
            self.high + other.high,
        )


@dataclass(frozen=True)
class Asked:
    """Runs of the program, single calls that probe the longest prompts, and proposals."""

    runs: Runs
    probes: int = 0
    most_probes: int = 0
    proposals: tuple[float, float, float] = (0, 0, 0)
    """Low, expected, high."""


def forecasts(ctx: FitContext, settings: PromptSettings) -> dict[str, Estimate]:
    """`calls` and tokens of the task's model, and of a proposer where the strategy has one."""
    steps = start_steps(settings, ctx.task)
    asked = _asked(ctx, settings)
    runs, limit = asked.runs, settings.limit.calls
    bare, full = runs.bare * len(steps), runs.full * len(steps) + asked.probes
    calls = bare + full
    low = runs.low * len(steps) + asked.probes
    high = runs.high * len(steps) + asked.most_probes
    rows = [*ctx.train, *ctx.dev]
    question = _mean([len("".join(m.content for m in row.messages)) for row in rows])
    answer = _mean([len(row.answers[0]) for row in rows])
    said = answer + CHARACTERS_A_TOKEN * sum(step.extra_tokens for step in steps) / len(steps) / 2
    instructions = _mean([len(step.instructions) for step in steps])
    shown = min(settings.demos, len(demo_pool(ctx.train, settings.demos, ctx.seed)))
    prompt = calls * (instructions + question) + full * shown * (question + said)
    longest = high * (instructions + question + shown * (question + said))
    room = sum(ctx.task.max_tokens + step.extra_tokens for step in steps) / len(steps)
    found = {
        "calls": _counted(calls, low, high, limit),
        "prompt_tokens": _tokens(prompt, prompt * low / calls if calls else 0, longest),
        "completion_tokens": _tokens(
            calls * said, low * said / 4, high * room * CHARACTERS_A_TOKEN / 1.6
        ),
    }
    if settings.strategy in PROPOSING or (
        settings.strategy == "auto" and settings.proposer is not None
    ):
        fewest, expected, most = asked.proposals
        found["proposer_calls"] = _counted(expected, fewest, most, limit)
        size = PROPOSAL_CHARACTERS + 3 * (question + answer)
        found["proposer_prompt_tokens"] = _tokens(expected * size, fewest * size, most * size)
    return found


def _asked(ctx: FitContext, settings: PromptSettings) -> Asked:
    dev, count = len(ctx.dev), len(demo_pool(ctx.train, settings.demos, ctx.seed))
    probes = min(PROBE_ROWS, len(ctx.train) + dev)
    most = probes * (min(settings.demos, count) + 1)
    taught = shows_more(start_steps(settings, ctx.task))
    start, few = Runs(dev, 0, dev, dev), Runs(count * taught, 0, 0, count * taught)
    if settings.strategy == "zero-shot":
        return Asked(Runs(0, 0, 0, 0))
    if settings.strategy == "labeled":
        return Asked(few, probes, most)
    if settings.strategy == "knn":
        rows = min(NEAREST_ROWS, len(ctx.train)) * taught
        return Asked(Runs(rows, 0, 0, rows), probes, most)
    if settings.strategy == "gepa":
        runs, proposals = _gepa(dev, settings.trials)
        return Asked(start + runs, proposals=proposals)
    if settings.strategy == "auto":
        return _auto(dev, count, settings, few, (probes, most))
    if settings.strategy == "simba":
        runs, proposals = _simba(dev, len(ctx.train), settings)
        return Asked(start + runs, probes, most, proposals)
    runs, proposals = _demos(dev, count, settings)
    return Asked(start + runs, probes, most, proposals)


def _demos(
    dev: int, pool: int, settings: PromptSettings
) -> tuple[Runs, tuple[float, float, float]]:
    """Random search and MIPROv2: the pool once, then each candidate or trial on dev."""
    teach = Runs(0, pool, 0, pool)
    if settings.strategy == "random-search":
        tried = (settings.candidates + 1) * dev
        return teach + Runs(0, tried, 0, tried), (0, 0, 0)
    tried = settings.trials * dev
    steps = len(settings.steps) + 1
    summary = 2 + max(0, (pool - 1) // 10)
    proposed = 3 * settings.candidates * steps + summary
    # A trial may draw what an earlier one drew.
    return teach + Runs(0, tried, 0, tried), (0, proposed, proposed)


def _gepa(dev: int, trials: int) -> tuple[Runs, tuple[float, float, float]]:
    """Rows scored up to `trials` x dev, 3 and 3 for a proposal, and dev where it is taken up."""
    scored = max(trials - 1, 0) * dev
    tries = scored / (6 + dev / 3)  # as if one in three was taken up
    return Runs(scored, 0, 0, scored + dev + 6), (0, tries, 2 * scored / 3)


def _simba(
    dev: int, train: int, settings: PromptSettings
) -> tuple[Runs, tuple[float, float, float]]:
    """`trials` steps on a batch each, the winners on all its rows, the best on dev."""
    count, rows = settings.candidates, min(train, SIMBA_ROWS)
    batch = min(rows, SIMBA_BATCH)
    sampled = settings.trials * count * batch
    tried = settings.trials * (count + 1) * batch + (count + 1) * rows + count * dev
    runs = Runs(sampled / 2, sampled / 2 + tried, sampled, sampled + tried)
    most = settings.trials * batch
    return runs, (0, settings.trials * (count + 1) / 2, most)


def _auto(
    dev: int, pool: int, settings: PromptSettings, few: Runs, probes: tuple[int, int]
) -> Asked:
    """The headroom test, few-shot on dev, and as the range goes a search or none."""
    samples = headroom.SAMPLES * min(headroom.ROWS, dev)
    test = Runs(dev + samples, dev, dev + samples, 2 * dev + samples) + few
    if settings.proposer is None:
        chosen = settings.model_copy(update={"strategy": "random-search"})
        runs, proposals = _demos(dev, pool, chosen)
    else:
        runs, proposals = _gepa(dev, settings.trials)
    half = Runs(runs.bare / 2, runs.full / 2, 0, runs.high)
    low, expected, high = proposals
    return Asked(test + half, *probes, (low, expected / 2, high))


def _counted(value: float, low: float, high: float, limit: int | None) -> Estimate:
    most = high if limit is None else min(high, limit)
    value, low = min(value, most), min(low, most)
    return Estimate(round(value), "calls", "formula", round(low), round(most))


def _tokens(characters: float, low: float, high: float) -> Estimate:
    return Estimate(
        round(characters / CHARACTERS_A_TOKEN),
        "tokens",
        "formula",
        round(low / 6),
        round(high / 2.5),
    )


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values) if values else 0.0
