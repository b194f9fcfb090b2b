"""Training on two processes against one: the same losses, and how many tokens a second.

    python benchmarks/processes.py [--steps 60] [--repeat 3]

The bundled model is adapted on rows of the bundled task, by one process with all cores, by two
that each hold the model (DDP) and by two that each hold a part of it (FSDP2), in turn. Printed are
the tokens a second of the steps as a ratio to one process in the same round, and the largest
difference of a loss, relative. The bar is 1e-4. On one machine without a GPU two processes share
the cores that one has: the ratio shows what meeting at each step costs, not what a second machine
brings.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from tunelm.config import ModelConfig
from tunelm.route_settings import LocalSettings
from tunelm.training.job import TrainingJob, TrainingRow, write_job
from tunelm.training.process import train
from tunelm.types import Message

BUNDLED = Path(__file__).resolve().parents[1] / "src" / "tunelm" / "tasks" / "edu_qa.jsonl"
WAYS: tuple[tuple[str, int, str], ...] = (
    ("one process", 1, "none"),
    ("two, DDP", 2, "none"),
    ("two, FSDP2", 2, "full"),
)
BAR = 1e-4


def main() -> None:
    """Train in each way, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--method", default="lora", choices=("lora", "full"))
    given = parser.parse_args()
    rates: dict[str, list[float]] = {name: [] for name, _, _ in WAYS}
    losses: dict[str, list[float]] = {}
    for _ in range(given.repeat):
        for name, processes, sharding in WAYS:
            with tempfile.TemporaryDirectory() as folder:
                result, seen = one(Path(folder), given, processes, sharding)
            rates[name].append(result["tokens_per_second"])
            losses[name] = seen
    alone, steps = WAYS[0][0], len(losses[WAYS[0][0]])
    print(f"{given.method}, {steps} losses (steps and evaluations), {given.repeat} rounds\n")
    print("| | tokens/s (median) | to one process | largest difference of a loss |")
    print("|---|---|---|---|")
    for name, _, _ in WAYS:
        ratios = [a / b for a, b in zip(rates[name], rates[alone], strict=True)]
        apart = max(abs(a / b - 1) for a, b in zip(losses[name], losses[alone], strict=True))
        print(
            f"| {name} | {median(rates[name]):,.0f} | {median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}) | {apart:.1e} "
            f"{'' if apart <= BAR else 'OVER THE BAR'} |"
        )


def one(
    work: Path, given: argparse.Namespace, processes: int, sharding: Any
) -> tuple[dict[str, Any], list[float]]:
    """What a run measured, and its losses in order."""
    rows = [json.loads(line) for line in BUNDLED.read_text(encoding="utf-8").splitlines()]
    chats = [
        TrainingRow(str(i), (Message("user", r["question"]), Message("assistant", r["answer"])))
        for i, r in enumerate(rows)
    ]
    settings = LocalSettings(
        method=given.method,
        batch_size=16,
        max_steps=given.steps,
        stop_on="none",
        processes=processes,
        sharding=sharding,
    )
    job = TrainingJob(model=ModelConfig(base="tunelm-nano"), settings=settings)
    write_job(work, job, chats[:400], chats[400:480])
    found: list[float] = []
    result = train(
        work,
        on_event=lambda e: found.extend(e[k] for k in ("loss", "dev_loss") if e.get(k) is not None),
        processes=processes,
    )
    return result, found


if __name__ == "__main__":
    main()
