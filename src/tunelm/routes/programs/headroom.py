"""Is there anything to gain? A cheap test on a few dev rows, before a search is paid for.

A study of 72 runs (arXiv 2604.14585) found that half of all optimized prompts did worse than
none, and that optimizing helps where a model can answer as wanted but does not do so by default.
So this asks what the model can do: with several tries, and with worked examples before it.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunelm.models.base import ChatModel
from tunelm.routes.programs.model import open_program
from tunelm.routes.programs.start import bare
from tunelm.routes.programs.tracker import Score, Steps
from tunelm.types import Completion, Example, FinishReason, Request

ROWS = 40
SAMPLES = 4
TEMPERATURE = 0.8
MIN_GAIN = 0.05
"""What the best of several tries must surely gain.

The best of several is never worse than one of them, so it gains a little even where the model
only guesses. Few-shot needs no such margin: it is one answer against another.
"""


@dataclass(frozen=True)
class Headroom:
    """What was found. `worth_it`: whether a search looks worth its price; `record` is for JSON."""

    worth_it: bool
    record: dict[str, Any]


def headroom(
    model: ChatModel,
    start: Steps,
    few: Steps,
    dev: Sequence[Example],
    max_tokens: int,
    score: Score,
    seed: int,
) -> Headroom:
    """Test at most ROWS dev rows, drawn by `seed` whatever their order.

    Three things are measured on them: what becomes of the form of zero-shot answers; the best of
    SAMPLES sampled answers less the greedy one; labelled few-shot (`few`) less zero-shot. It is
    worth it where the 95% interval by group of the second lies above MIN_GAIN, or that of the
    third above 0.
    """
    rows = sorted(dev, key=lambda row: row.id)
    rows = random.Random(seed).sample(rows, min(ROWS, len(rows)))
    asked = [Request(row.messages, max_tokens=max_tokens) for row in rows]
    program = open_program(bare(start), model)
    greedy = program.complete(asked)
    sampled = program.complete(
        [
            dataclasses.replace(request, temperature=TEMPERATURE, seed=seed * SAMPLES + i)
            for request in asked
            for i in range(SAMPLES)
        ]
    )
    shown = open_program(bare(few), model).complete(asked) if few != start else greedy
    base = [_value(got, row, score) for got, row in zip(greedy, rows, strict=True)]
    best = [
        max(_value(got, row, score) for got in sampled[i * SAMPLES : (i + 1) * SAMPLES])
        for i, row in enumerate(rows)
    ]
    other = [_value(got, row, score) for got, row in zip(shown, rows, strict=True)]
    groups = [row.group for row in rows]
    tries = _gain(best, base, groups)
    examples = _gain(other, base, groups)
    reasons = [
        f"the best of {SAMPLES} tries gains {_said(tries)}" if _above(tries, MIN_GAIN) else "",
        f"worked examples gain {_said(examples)}" if _above(examples, 0.0) else "",
    ]
    found = " and ".join(reason for reason in reasons if reason)
    if found:
        verdict = f"optimizing looks worth it: {found}"
    else:
        verdict = (
            f"optimizing does not look worth it: neither the best of {SAMPLES} tries"
            f" ({_said(tries)}) nor worked examples ({_said(examples)}) gain surely"
        )
    record = {
        "verdict": verdict,
        "worth_it": bool(found),
        "rows": len(rows),
        "form": form_check(greedy, base),
        "best_of_n": {"samples": SAMPLES, "temperature": TEMPERATURE, **tries},
        "few_shot": examples,
    }
    return Headroom(bool(found), record)


def form_check(answers: Sequence[Completion], values: Sequence[float]) -> dict[str, Any]:
    """How many of the greedy answers failed, broke the form, were cut, or scored nothing."""
    return {
        "rows": len(answers),
        "failed": sum(got.error is not None for got in answers),
        "format_errors": sum(got.format_error is not None for got in answers),
        "cut_at_max_tokens": sum(got.finish_reason is FinishReason.LENGTH for got in answers),
        "scored_zero": sum(value == 0 for value in values),
    }


def _value(got: Completion, row: Example, score: Score) -> float:
    return 0.0 if got.error is not None else score(got.text, row)


def _gain(a: Sequence[float], b: Sequence[float], groups: Sequence[str]) -> dict[str, Any]:
    """The mean of a less b with its interval by group; None where there are too few groups."""
    from tunelm.scoring.statistics import interval

    found = interval([(x - y, 1.0) for x, y in zip(a, b, strict=True)], groups)
    return {
        "gain": found.value,
        "ci_low": found.low,
        "ci_high": found.high,
        "n": found.n,
        "groups": found.n_groups,
    }


def _above(gain: dict[str, Any], bar: float) -> bool:
    return gain["ci_low"] is not None and gain["ci_low"] > bar


def _said(gain: dict[str, Any]) -> str:
    if gain["ci_low"] is None:
        return f"an unknown amount, n = {gain['n']}"
    return f"{gain['gain']:.3f} [{gain['ci_low']:.3f}, {gain['ci_high']:.3f}], n = {gain['n']}"
