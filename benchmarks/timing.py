"""Forecasts of training time, held against the time that training really takes.

Each setting is forecast by `tunelm.training.timing` (a few real steps in a process of its own) and
then trained by `python -m tunelm.training`, from the start of the process to its end. The bundled
models and models made on the spot are adapted on rows of the bundled task, with steps of different
sizes, methods, evaluations and lengths.

    python benchmarks/timing.py

Both run with the same number of threads. Where others use the machine, set OMP_NUM_THREADS=1 and
give --clock cpu, which forecasts and measures seconds of the processor. The bar is an error of at
most 25% in 80% of the runs. The interval in `tunelm.training.timing` was set on the runs with odd
numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from tunelm.config import ModelConfig
from tunelm.route_settings import LocalSettings
from tunelm.training.job import TrainingJob, TrainingRow, write_job
from tunelm.training.process import train
from tunelm.training.timing import time_estimate, time_probe
from tunelm.types import Message

BUNDLED = Path(__file__).resolve().parents[1] / "src" / "tunelm" / "tasks" / "edu_qa.jsonl"
BAR = 0.25


class Run(NamedTuple):
    """A base model (a bundled one, or WIDTHxLAYERS), its rows and how it is adapted."""

    base: str
    rows: int
    dev: int
    settings: LocalSettings


def _local(**changes: Any) -> LocalSettings:
    return LocalSettings(**({"stop_on": "none", "epochs": 2} | changes))


RUNS = (
    Run("tunelm-nano", 240, 60, _local(epochs=3)),
    Run("tunelm-nano", 240, 60, _local(batch_size=2)),
    Run("tunelm-nano", 400, 100, _local(method="dora")),
    Run("tunelm-nano", 400, 100, _local(method="full", batch_size=32)),
    Run("tunelm-nano-small", 600, 100, _local(epochs=4)),
    Run("tunelm-nano-small", 300, 300, _local(batch_size=16, epochs=4)),
    Run("tunelm-nano", 300, 30, _local(batch_tokens=600)),
    Run("tunelm-nano", 200, 20, _local(r=64, epochs=6)),
    Run("256x4", 200, 40, _local()),
    Run("384x4", 200, 20, _local(batch_size=4, epochs=1)),
    Run("256x6", 160, 80, _local(method="full")),
    Run("512x2", 160, 20, _local(method="rslora", r=32)),
    Run("tunelm-nano", 120, 400, _local(epochs=2)),
    Run("tunelm-nano", 400, 60, _local(max_steps=30)),
)


def main() -> None:
    """Forecast and train each run, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=int, nargs="*", help="the runs of these numbers, from 1")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    given = parser.parse_args()
    print("| | run | forecast (80%) | measured | error | |\n|---|---|---|---|---|---|")
    errors: list[float] = []
    inside: list[bool] = []
    for number, run in enumerate(RUNS, 1):
        if given.only and number not in given.only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            estimate, seconds, parts = one(Path(folder), run, given.clock)
        assert estimate.value is not None
        assert estimate.low is not None
        assert estimate.high is not None
        errors.append(estimate.value / seconds - 1)
        inside.append(estimate.low <= seconds <= estimate.high)
        print(
            f"| {number} | {describe(run)} | {estimate.value:.1f} ({estimate.low:.1f} to "
            f"{estimate.high:.1f}) s | {seconds:.1f} s | {errors[-1]:+.0%} | "
            f"{'' if inside[-1] else 'outside'} |",
            flush=True,
        )
        print(json.dumps(parts), file=sys.stderr)
    near = sum(abs(error) <= BAR for error in errors)
    threads = os.environ.get("OMP_NUM_THREADS", os.cpu_count())
    print(f"\nWithin {BAR:.0%}: {near} of {len(errors)}; in the interval: {sum(inside)};")
    print(f"{threads} threads, clock: {given.clock}.")


def one(folder: Path, run: Run, clock: str) -> tuple[Any, float, dict[str, Any]]:
    """The forecast of a run, the seconds it took, and the parts of both."""
    work = folder / "work"
    work.mkdir()
    base = run.base if run.base.startswith("tunelm") else str(make(folder / "base", run.base))
    rows = [json.loads(line) for line in BUNDLED.read_text(encoding="utf-8").splitlines()]
    chats = [
        TrainingRow(str(i), (Message("user", r["question"]), Message("assistant", r["answer"])))
        for i, r in enumerate((rows * 3)[: run.rows + run.dev])
    ]
    job = TrainingJob(model=ModelConfig(base=base), settings=run.settings)
    write_job(work, job, chats[: run.rows], chats[run.rows :])
    found = time_probe(work)
    began = measured(clock)
    result = train(work)
    seconds = measured(clock) - began
    parts = found[clock] | {"step_seconds": result["step_seconds"]}
    return time_estimate(found, job, clock), seconds, parts


def measured(clock: str) -> float:
    """Seconds by the clock, or of the processor in processes that have ended."""
    if clock == "wall":
        return time.monotonic()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def describe(run: Run) -> str:
    """A run in a line: what of its settings is not usual."""
    changed = run.settings.model_dump(exclude_defaults=True, exclude={"stop_on"})
    told = ", ".join(f"{name} {value}" for name, value in changed.items())
    return f"{run.base}, {run.rows} rows, {run.dev} dev: {told}"


def make(folder: Path, shape: str) -> Path:
    """A Llama of WIDTHxLAYERS with random weights and the bundled tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from tunelm.models.loading import BUNDLED as MODELS

    width, layers = map(int, shape.split("x"))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8192,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        max_position_embeddings=1024,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(MODELS["tunelm-nano"]).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
