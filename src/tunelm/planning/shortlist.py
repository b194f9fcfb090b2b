"""Which base models the constraints leave, the top three side by side, and why others fell out."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from tunelm.planning.footprint import (
    Footprint,
    Load,
    answering,
    largest_batch,
    seconds_per_answer,
    training,
)
from tunelm.planning.registry import PERMISSIVE, OpenModel, registry
from tunelm.planning.wishes import Wishes
from tunelm.types import Estimate

SHOWN = 3
MOST_HOURS = 12.0
"""Of training on processors: a model that takes longer falls out."""
GFLOPS_A_CORE = 20e9
"""Assumed of a processor core in float32, where nothing was timed."""
SPEED = "formula: 4 x parameters x tokens, 20 GFLOP/s a core assumed"
_FLOPS = 4
"""Of LoRA a parameter and token: 2 forward, 2 back to the activations; frozen weights get none."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that the constraints leave. `seconds`: least time of an answer; None: unknown."""

    model: OpenModel
    training: Footprint
    answering: Estimate
    seconds: float | None
    hours: float | None
    why: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shortlist:
    """`top`, at most three; `fell` counts the others by the constraint that ruled them out.

    `only_qlora` names models that would fit in 4 bits alone; `others` those that fit too.
    """

    top: tuple[Candidate, ...]
    fell: tuple[tuple[str, int, str], ...]
    only_qlora: tuple[str, ...]
    others: tuple[str, ...]


def shortlist(wishes: Wishes, load: Load, tokens: float, text: bool) -> Shortlist:
    """The models of the registry that can be trained and asked under the constraints.

    The first is the largest, of about the same size the newest: a larger model helps more than
    other choices of fine-tuning do (arXiv 2402.17193). The other two are of other families and at
    most half as large, each time, where there are such: they show whether a smaller one will do.

    Args:
        wishes: the constraints.
        load: the rows, as a step of training holds them.
        tokens: that training passes over, for its time on processors.
        text: whether the task is running text, which needs no chat template.
    """
    left: list[Candidate] = []
    fell: Counter[str] = Counter()
    named: dict[str, list[str]] = {}
    tight: list[str] = []
    for model in registry():
        if model.name == "tunelm-nano":
            continue  # what the plan is tried with, and no candidate for real work
        why = _ruled_out(model, wishes, load, tokens, text)
        if why is None:
            left.append(_candidate(model, wishes, load, tokens))
            continue
        fell[why] += 1
        named.setdefault(why, []).append(model.name.rpartition("/")[2])
        too_large = why.startswith("memory") and wishes.hardware.gpu
        if too_large and largest_batch(model, "qlora", load, wishes.hardware.memory_bytes):
            tight.append(model.name)
    left.sort(key=_rank)
    top = _ladder(left)
    rest = tuple(c.model.name for c in left if c not in top)
    reasons = [(why, n, _some(named[why])) for why, n in fell.most_common()]
    return Shortlist(tuple(top), tuple(reasons), tuple(tight), rest)


def hours_of_training(model: OpenModel, cores: int, tokens: float) -> float:
    """On processors, by formula: 4 x parameters x tokens over an assumed speed."""
    return _FLOPS * model.parameters * tokens / (GFLOPS_A_CORE * cores) / 3600


def _ruled_out(
    model: OpenModel, wishes: Wishes, load: Load, tokens: float, text: bool
) -> str | None:
    """The first constraint that a model does not meet; None: it meets all."""
    machine = wishes.hardware
    if not text and not model.chat_template:
        return "no chat template, so it follows no instructions"
    if wishes.licence == PERMISSIVE and model.licence_class != PERMISSIVE:
        return "licence: not permissive"
    if model.context < load.longest:
        return f"context: shorter than {load.longest:,} tokens, the 99th percentile of your rows"
    if not model.speaks(wishes.language):
        return f"language: {wishes.language} is not among those its publisher names"
    if largest_batch(model, "lora", load, machine.memory_bytes) is None:
        return f"memory: LoRA needs more than {machine.memory_bytes / 1e9:.0f} GB"
    if machine.cores and hours_of_training(model, machine.cores, tokens) > MOST_HOURS:
        return f"time: more than {MOST_HOURS:.0f} hours of training on processors"
    if wishes.latency_s is None or machine.bandwidth is None:
        return None
    if seconds_per_answer(model, load, machine.bandwidth) <= wishes.latency_s:
        return None
    return f"latency: an answer takes more than {wishes.latency_s:g} s"


def _candidate(model: OpenModel, wishes: Wishes, load: Load, tokens: float) -> Candidate:
    machine = wishes.hardware
    found = largest_batch(model, "lora", load, machine.memory_bytes)
    step = found or training(model, "lora", load, 1)
    seconds = None
    if machine.bandwidth is not None:
        seconds = seconds_per_answer(model, load, machine.bandwidth)
    hours = None
    if machine.cores and tokens:
        hours = hours_of_training(model, machine.cores, tokens)
    timed = "" if hours is None else f", and trains at most {hours:.1f} h"
    fits = (
        f"LoRA with batch {step.batch} takes {(step.memory.value or 0) / 1e9:.1f} GB (at most "
        f"{(step.memory.high or 0) / 1e9:.1f}) of {machine.memory_bytes / 1e9:.0f}{timed}"
    )
    return Candidate(model, step, answering(model, load), seconds, hours, (fits, model.strengths))


def _rank(candidate: Candidate) -> tuple[float, int, str]:
    """By size in steps of half an octave, then the newest."""
    model = candidate.model
    step = round(2 * math.log2(model.parameters))
    return -step, -(model.released.toordinal() if model.released else 0), model.name


def _ladder(left: list[Candidate]) -> list[Candidate]:
    """The first, and twice the next that is at most half as large and of another family.

    Where there are no such, the next ones: three side by side say more than one.
    """
    found: list[Candidate] = []
    for candidate in left:
        families = {_line(c.model) for c in found}
        small = not found or 2 * candidate.model.parameters <= found[-1].model.parameters
        if small and _line(candidate.model) not in families and len(found) < SHOWN:
            found.append(candidate)
    found += [candidate for candidate in left if candidate not in found][: SHOWN - len(found)]
    return sorted(found, key=_rank)


def _some(names: list[str], most: int = 4) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def _line(model: OpenModel) -> str:
    """The maker's line of models that a family is of.

    >>> from tunelm.planning.registry import find_model
    >>> _line(find_model("Qwen/Qwen2.5-3B-Instruct")) == _line(find_model("Qwen/Qwen3-4B"))
    True
    """
    return model.family.split()[0].rstrip("0123456789.-")
