"""`python -m tunelm.training.timing_run WORK`: time a few real steps of WORK's job on this machine.

It starts as training does, and makes real steps on a light and on a heavy batch of the real rows,
an evaluation and a checkpoint; what they change is thrown away. Where the base has no weights here
they are random: that takes as long. WORK/timing.json then holds what `time_steps` returns.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import psutil
import torch

from tunelm.errors import ModelError, TrainingError, TunelmError
from tunelm.models import quantized
from tunelm.models.identity import base_identity, tokenizer_identity
from tunelm.models.loading import (
    Base,
    choose_device,
    load_base,
    load_tokenizer,
    resolve_base,
    weights_dtype,
)
from tunelm.rundir import write_json
from tunelm.training import checkpoints, machine
from tunelm.training.adapter import (
    load_shapes,
    make_optimizer,
    make_trainable,
    probe,
    save_trained,
    trainable,
)
from tunelm.training.batches import all_epochs, epoch_batches, lengths_of
from tunelm.training.encoding import most_tokens
from tunelm.training.job import TrainingJob, read_job
from tunelm.training.steps import Stepper, TrainRow
from tunelm.training.timing import TIMING
from tunelm.training.worker import give_back_at_once, kept, packed

WARM_UP, REPEATS = 2, 4
"""Steps that are not timed, and times that each of the two batches is."""
BUDGET_S = 60.0
"""No further step is begun after this; each batch is timed once at least."""
EVALUATED = 16
"""Most dev rows that are evaluated."""


class Clocks(NamedTuple):
    """Seconds by the clock, and seconds of this process's threads on a processor."""

    wall: float
    cpu: float


def main(arguments: list[str] | None = None) -> int:
    """Time; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tunelm.training.timing_run")
    parser.add_argument("work", type=Path, help="folder with job.json, train.jsonl, dev.jsonl")
    work = parser.parse_args(arguments).work
    try:
        write_json(work / TIMING, time_steps(work))
    except TunelmError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def time_steps(work: Path) -> dict[str, Any]:
    """Seconds that the parts of a training run take, and how often each comes.

    Returns:
        `wall` and `cpu`, seconds of each part by the clock and of the processor: `start`, from the
        process's start to the first step; `points`, the mean of a step as {tokens, seconds, n},
        tokens with padding; `evaluate` and `save`, of one; `finish`, of writing the result. Then
        `epochs`, the padded tokens of each step of each epoch; `random`, whether the weights were.

    Raises:
        TunelmError: as training would.
    """
    give_back_at_once()
    job, train, dev = read_job(work)
    base, is_random = _load(job)
    identify = tokenizer_identity if is_random else base_identity
    identity = identify(resolve_base(job.model), job.model.revision)
    encoded, dev_rows = (kept(work, job, base, part, identity) for part in (train, dev))
    if not encoded:
        raise TrainingError("there are no rows to train on.")
    half = base.model.dtype.itemsize < 4
    model: Any = make_trainable(base.model, job.settings, job.seed)
    probing = _seconds(lambda: probe(model, encoded[0].ids))
    noise = job.settings.neftune_alpha
    stepper = Stepper(model, base.tokenizer.pad_token_id, job.micro_tokens, half, noise)
    rows, _ = packed(stepper, encoded, job, most_tokens(job, base.model))
    machine.rehearse(stepper, rows, job, machine.choose(job.settings, job.model))
    optimizer = make_optimizer(model, job.settings)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    start = Clocks(time.time() - psutil.Process().create_time(), time.process_time())
    lengths = lengths_of(rows)
    epochs = [
        [stepper.padded(lengths[batch].tolist()) for batch in batches]
        for batches in all_epochs(lengths, job.settings, job.seed)
    ]
    points = _timed_steps(stepper, optimizer, job, _light_and_heavy(rows, epochs, job))
    scrap = work / "timing"
    state = checkpoints.State()
    saving = _seconds(lambda: checkpoints.save(scrap, state, model, optimizer))
    finishing = _seconds(lambda: save_trained(model, base.tokenizer, scrap / "a", job, identity))
    shutil.rmtree(scrap)
    parts = {
        "start": start,
        "evaluate": _evaluation(stepper, dev_rows),
        "save": saving,
        "finish": Clocks(finishing.wall + probing.wall, finishing.cpu + probing.cpu),
    }
    return {
        **{clock: _by(clock, parts, points) for clock in Clocks._fields},
        "epochs": epochs,
        "random": is_random,
        "device": base.device,
        "threads": torch.get_num_threads(),
    }


def _by(
    clock: str, parts: Mapping[str, Clocks], points: Sequence[tuple[int, list[Clocks]]]
) -> dict[str, Any]:
    """The parts and the steps by one of the two clocks."""
    return {
        **{name: getattr(taken, clock) for name, taken in parts.items()},
        "points": [
            {"tokens": tokens, "seconds": fmean(getattr(t, clock) for t in taken), "n": len(taken)}
            for tokens, taken in points
        ],
    }


def _load(job: TrainingJob) -> tuple[Base, bool]:
    """The base, or one of its shape with random weights; and whether it is that."""
    try:
        return load_base(job.model, job.settings.method == quantized.METHOD), False
    except ModelError:
        if job.settings.method == quantized.METHOD:
            raise  # random weights are not quantized, and take another time
        folder = resolve_base(job.model)
        shapes: Any = load_shapes(folder, job.model.revision)
        device = choose_device(job.model.device)
        torch.manual_seed(0)
        dtype = weights_dtype(job.model)
        model = type(shapes)._from_config(shapes.config, dtype=dtype).to(device).eval()
        model.generation_config = shapes.generation_config
        return Base(model, load_tokenizer(job.model), device), True


def _light_and_heavy(
    rows: Sequence[TrainRow], epochs: Sequence[Sequence[int]], job: TrainingJob
) -> list[tuple[int, list[TrainRow]]]:
    """Two batches with their padded tokens, of those of each epoch: a tenth have less, or more."""
    ordered = sorted(
        (tokens, epoch, at) for epoch, own in enumerate(epochs) for at, tokens in enumerate(own)
    )
    found: list[tuple[int, list[TrainRow]]] = []
    for place in (len(ordered) // 10, (len(ordered) - 1) * 9 // 10):
        tokens, epoch, at = ordered[place]
        batch = epoch_batches(lengths_of(rows), job.settings, job.seed, epoch)[at]
        found.append((tokens, [rows[i] for i in batch]))
    return found


def _timed_steps(
    stepper: Stepper,
    optimizer: Any,
    job: TrainingJob,
    batches: Sequence[tuple[int, list[TrainRow]]],
) -> list[tuple[int, list[Clocks]]]:
    model = stepper.model
    weights = list(trainable(model).values())
    model.train()

    def step(batch: list[TrainRow]) -> None:
        stepper.backward(batch)
        norm = torch.nn.utils.clip_grad_norm_(weights, job.settings.grad_clip)
        bool(torch.isfinite(norm))  # waits for a GPU
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    began = time.perf_counter()
    for _ in range(WARM_UP):
        step(batches[-1][1])
        if time.perf_counter() - began > BUDGET_S / 4:
            break
    taken: list[list[Clocks]] = [[] for _ in batches]
    for _ in range(REPEATS):
        for place, (_, batch) in enumerate(batches):
            if taken[place] and time.perf_counter() - began > BUDGET_S:
                continue
            taken[place].append(_seconds(lambda batch=batch: step(batch)))
    return [(tokens, times) for (tokens, _), times in zip(batches, taken, strict=True)]


def _evaluation(stepper: Stepper, dev: Sequence[TrainRow]) -> Clocks:
    """Of all dev rows, reckoned from some of them by their padded tokens."""
    if not dev:
        return Clocks(0, 0)
    some = dev[:EVALUATED]
    taken = _seconds(lambda: stepper.evaluate(some))
    share = stepper.padded(lengths_of(dev).tolist()) / stepper.padded_tokens(some)
    return Clocks(taken.wall * share, taken.cpu * share)


def _seconds(run: Callable[[], object]) -> Clocks:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return Clocks(time.perf_counter() - wall, time.process_time() - cpu)


if __name__ == "__main__":
    sys.exit(main())
