"""How long a training run will take, from a few real steps of it on the machine that is to run it.

seconds = start + steps * (a + b * tokens) + evaluations + checkpoints + writing the result. The
parts are timed by `training.timing_run`, in a process of its own like training's; a and b are the
line through a light and a heavy batch. The interval was set by benchmarks/timing.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunelm.training.job import TrainingJob
from tunelm.training.memory import in_process
from tunelm.types import Estimate

TIMING = "timing.json"
"""The file in a work folder that `timing_run` writes."""

LOW, HIGH = 0.85, 1.25
"""Of the forecast: 80% of runs lie between."""
BUSY = 0.8
"""A processor that gave the probe less of its time than this was shared with others."""
BUSY_LOW, BUSY_HIGH = 0.5, 2.0
"""The same where the machine was busy: nobody knows how busy it will be. Not calibrated."""
START_S = 0.3
"""What starting a process, following it and moving its files take beside the timed parts."""
MORE = 1.08
"""What a run takes of the sum of its parts: the median of the runs that it was set on. Batches
of ever other sizes are a little slower than two that come again."""


def time_probe(work: Path) -> dict[str, Any]:
    """Time a few steps of the job in `work`; see `timing_run.time_steps`.

    Raises TrainingError with what the process said when it failed.
    """
    return in_process("tunelm.training.timing_run", work, TIMING)


def time_estimate(found: Mapping[str, Any], job: TrainingJob, clock: str = "wall") -> Estimate:
    """Seconds of the whole run, from its timed parts.

    Args:
        found: what `time_probe` returned.
        job: the job that was timed.
        clock: "wall", or "cpu" for seconds of the processor, which others on it do not change.

    Returns:
        Where dev may end training the value is that of all epochs, and the low end that of the
        fewest there can be. Unknown with `stop_on = "metric"`.
    """
    settings, parts = job.settings, found[clock]
    if settings.stop_on == "metric":
        return Estimate(None, "s", "unknown: answering the dev rows each epoch is not timed")
    points = parts["points"]
    weights = "random weights of the base's shape" if found["random"] else "the real weights"
    tokens = " and ".join(f"{point['tokens']:,}" for point in points)
    method = f"probe: {sum(p['n'] for p in points)} steps of {tokens} tokens with {weights}, 80%"
    factors = LOW, HIGH
    if clock == "wall" and is_busy(found):
        factors = BUSY_LOW, BUSY_HIGH
        method += "; others used the processor meanwhile"
    by_epoch = [_steps_seconds(epoch, points) for epoch in found["epochs"]]
    whole = _whole(by_epoch, parts, job)
    fewest = whole
    if settings.stop_on != "none" and len(by_epoch) > 1 + settings.patience:
        fewest = _whole(by_epoch[: 1 + settings.patience], parts, job)
        method += "; all epochs, which dev may cut short"
    return Estimate(whole, "s", method, fewest * factors[0], whole * factors[1])


def is_busy(found: Mapping[str, Any]) -> bool:
    """Whether the probe's steps got less than one processor, on a machine without a GPU."""
    if found["device"] != "cpu":
        return False
    wall, cpu = (sum(p["seconds"] * p["n"] for p in found[c]["points"]) for c in ("wall", "cpu"))
    return cpu < BUSY * wall


def _whole(by_epoch: Sequence[float], parts: Mapping[str, Any], job: TrainingJob) -> float:
    """`by_epoch`: seconds in the steps of each epoch that is trained."""
    training = sum(by_epoch)
    evaluations = (1 + len(by_epoch)) * parts["evaluate"]
    saves = len(by_epoch)
    if job.checkpoint_seconds:
        saves += int(training // job.checkpoint_seconds)
    writing = saves * parts["save"] + parts["finish"]
    return MORE * (START_S + parts["start"] + training + evaluations + writing)


def _steps_seconds(tokens: Sequence[int], points: Sequence[Mapping[str, Any]]) -> float:
    """Seconds of steps of so many tokens, by the line through the points; never falling."""
    light, heavy = points
    span = heavy["tokens"] - light["tokens"]
    # batches hardly apart give no slope: a step then takes as long as its tokens
    if span < 0.1 * heavy["tokens"]:
        rate = sum(p["seconds"] for p in points) / sum(p["tokens"] for p in points)
        return rate * sum(tokens)
    slope = max(0.0, (heavy["seconds"] - light["seconds"]) / span)
    fixed = max(0.0, light["seconds"] - slope * light["tokens"])
    return sum(fixed + slope * count for count in tokens)
