"""A Slurm job preempted at random moments: is its adapter the same in the end?

    python benchmarks/preemption.py --preemptions 10

Trains the route `local` of the bundled task on tunelm-nano-small undisturbed. Then hands the same
in by `tunelm submit` on a real cluster of one node, and preempts it by jobs of higher priority,
each at a random moment of its turn; the next turn begins at once rather than after Slurm's two
minutes. A job that ends before it was preempted as often as asked is compared and handed in anew.
Compares the adapter, byte for byte, the answers and the scores. Exits with 1 where any differs, or
a job fails.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests import cluster as slurm
from tunelm.cluster.jobs import job_of

SEED = Path("routes") / "local" / "seed-0"
ONLY = ("--set", 'compare.routes=["local"]', "--set", "model.base=tunelm-nano-small")


@dataclass(frozen=True)
class Preemption:
    """One of them: in which job and turn, how long after its start, and what was under way."""

    job: int
    turn: int
    seconds: float
    during: str
    step: int


def phase_of(run: Path) -> tuple[str, int]:
    """(what a run is at, steps of training done)."""
    training = run / SEED / "training"
    events = training / "events.jsonl"
    lines = events.read_text("utf-8").split("\n") if events.is_file() else []
    steps = [json.loads(line).get("step", 0) for line in lines if line.endswith("}")]
    step = steps[-1] if steps else 0
    if (run / "report.json").is_file():
        return "the report", step
    if (run / SEED / "adapted.json").is_file():
        return "evaluation", step
    if (training / "result.json").is_file():
        return "delivery of the adapter", step
    if not (run / "split.json").is_file():
        return "data", step
    return ("training" if steps else "start of training"), step


def ended_as(run: Path) -> tuple[bytes, str, str]:
    """(adapter, answers, scores) of a finished run."""
    answers = [
        (row["part"], row["example_id"], row["output"])
        for line in (run / SEED / "predictions.jsonl").read_text("utf-8").split("\n")
        if line and (row := json.loads(line))
    ]
    adapter = (run / SEED / "adapted" / "adapter_model.safetensors").read_bytes()
    return adapter, json.dumps(answers), json.dumps(slurm.scores(run))


class Preempted:
    """Jobs on `cluster`, handed in one after the other under `folder`."""

    def __init__(self, cluster: slurm.Cluster, folder: Path, span: float, seed: int) -> None:
        self.cluster, self.folder, self.span = cluster, folder, span
        self.random = random.Random(seed)
        self.done: list[Preemption] = []
        self.jobs = 0

    def job(self, most: int) -> Path:
        """Run one job to its end, preempted until there were `most` in all; its run."""
        self.jobs += 1
        run, turn = self.folder / f"job-{self.jobs}", 1
        asked = ("--partition", "low", "--cpus", slurm.cores(), "--time", "120", *ONLY)
        done = slurm.tunelm("submit", "edu-qa", "--out", run, *asked)
        if done.exit_code:
            sys.exit(done.output)
        number = job_of(run).id
        while len(self.done) < most:
            slurm.until(lambda: job_of(run).state.state in ("RUNNING", "COMPLETED"))
            moment = self.random.uniform(0, self.span)
            time.sleep(moment)
            if job_of(run).state.state != "RUNNING":
                break
            during, step = phase_of(run)
            self.cluster.preempt(self.folder)
            slurm.until(lambda: job_of(run).state.state in ("PENDING", "COMPLETED"))
            if job_of(run).state.state == "COMPLETED":
                break
            self.done.append(Preemption(self.jobs, turn, moment, during, step))
            print(
                f"job {self.jobs}, turn {turn}: {moment:.1f} s, {during}, step {step}", flush=True
            )
            turn += 1
            self.cluster.now(number)
        slurm.wait_for(run, "COMPLETED")
        return run


Same = list[tuple[bool, ...]]


def measured(given: argparse.Namespace, folder: Path) -> bool:
    """Run all of it and print the tables; whether everything was the same."""
    here = folder / "here"
    line = [sys.executable, "-m", "tunelm", "compare", "edu-qa", *ONLY, "--out", str(here)]
    began = time.monotonic()
    subprocess.run([*line, "--quiet"], check=True, stdout=subprocess.DEVNULL)
    whole = time.monotonic() - began
    expected = ended_as(here)
    print(f"undisturbed: {whole:.1f} s; adapter of {len(expected[0]):,} bytes", flush=True)
    cluster = slurm.bring_up(folder / "slurm")
    jobs, same = Preempted(cluster, folder, whole * given.share, given.seed), Same()
    try:
        while not same or len(jobs.done) < given.preemptions:
            found = ended_as(jobs.job(given.preemptions))
            same.append(tuple(a == b for a, b in zip(found, expected, strict=True)))
    finally:  # also of a run that is stopped midway
        cluster.stop()
        print_tables(jobs, same)
    return all(all(row) for row in same)


def print_tables(jobs: Preempted, same: Same) -> None:
    """When they came, and what became of each job that ended."""
    print("\n| preempted during | times | steps done by then |")
    print("|---|---|---|")
    for during, count in Counter(p.during for p in jobs.done).most_common():
        steps = ", ".join(str(p.step) for p in jobs.done if p.during == during)
        print(f"| {during} | {count} | {steps} |")
    print("\n| job | preemptions | same adapter | same answers | same scores |")
    print("|---|---|---|---|---|")
    for number, (adapter, answers, scores) in enumerate(same, 1):
        count = sum(p.job == number for p in jobs.done)
        cells = " | ".join("yes" if one else "NO" for one in (adapter, answers, scores))
        print(f"| {number} | {count} | {cells} |")


def main() -> None:
    """Preempt as often as asked; print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preemptions", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    parser.add_argument(
        "--share",
        type=float,
        default=0.7,
        help="a turn is preempted within this share of the undisturbed time",
    )
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory() as folder:
        try:
            same = measured(given, Path(folder))
        except OSError as error:
            sys.exit(f"no cluster comes up here: {error}")
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
