"""The bundled task as a preempted Slurm job beside the same task here: is the report the same?

    python -m tests.bundled_on_slurm

Runs `tunelm compare edu-qa`, then brings up a cluster of one node, hands the same in by `tunelm
submit`, and preempts the job by another of higher priority in the middle of its training. Prints
what both found; exits with 1 where anything differs but times, dates, places and memory. Runs in
`--out` that were finished before are taken as they are. It takes about ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests import cluster as slurm
from tunelm.cluster.jobs import job_of

FREE = frozenset(
    ("created", "latency", "measured", "memory", "seconds", "forecast_errors", "attempts")
)
"""Keys of a report below which two runs of one task may differ."""
LIMIT_S = 3600
"""The job's time limit."""
MEASURED = re.compile(r"\d[\d.,]* (?:h|min|s|ms|bytes|kB|MB|GB)\b")


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(place, value) of everything in a report."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from leaves(one, (*path, str(key)))
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from leaves(one, (*path, str(index)))
    else:
        yield path, value


def masked(value: Any) -> Any:
    """A text without the times and sizes in it; anything else as it is."""
    return re.sub(f"{MEASURED.pattern}(?: {MEASURED.pattern})?", "...", str(value))


def differing(one: Any, other: Any) -> list[tuple[str, ...]]:
    """Places where two reports differ, outside FREE."""
    mine, theirs = ({p: masked(v) for p, v in leaves(report)} for report in (one, other))
    places = sorted(mine.keys() | theirs.keys())
    return [p for p in places if mine.get(p) != theirs.get(p) and not FREE & set(p)]


def answers(run: Path, route: str) -> list[tuple[str, str, str | None]]:
    """(part, row, answer) of all answers of a route."""
    return [
        (row["part"], row["example_id"], row["output"])
        for path in sorted((run / "routes" / route).glob("seed-*/predictions.jsonl"))
        for line in path.read_text("utf-8").split("\n")
        if line and (row := json.loads(line))
    ]


def weights(run: Path, route: str) -> list[str]:
    """SHA-256 of a route's adapters."""
    found = sorted((run / "routes" / route).glob("seed-*/adapted/**/*.safetensors"))
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in found]


def compare(here: Path, there: Path) -> bool:
    """Print a row a route; whether all is the same."""
    one, other = (json.loads((run / "report.json").read_text("utf-8")) for run in (here, there))
    metric, same = one["task"]["primary_metric"], True
    print(f"\n| route | {metric} here | on Slurm | test rows | answers alike | adapter |")
    print("|---|---|---|---|---|---|")
    for mine, theirs in zip(one["routes"], other["routes"], strict=True):
        name = mine["name"]
        pairs = list(zip(answers(here, name), answers(there, name), strict=True))
        alike = sum(a == b for a, b in pairs)
        keys = weights(here, name), weights(there, name)
        adapter = "none" if not keys[0] else "same bytes" if keys[0] == keys[1] else "OTHER"
        values = [r["scores"][metric] for r in (mine, theirs)]
        shown = " | ".join(f"{value['value']:.6f}" for value in values)
        print(f"| {name} | {shown} | {values[0]['n']} | {alike} of {len(pairs)} | {adapter} |")
        same = same and alike == len(pairs) and keys[0] == keys[1] and values[0] == values[1]
    print(f"\nhere:     {one['verdict'][0]}\non Slurm: {other['verdict'][0]}")
    places = differing(one, other)
    count = len(dict(leaves(one)))
    print(f"report.json: {count} values, {len(places)} differ beside times, dates and memory")
    for place in places[:20]:
        print(f"  {'.'.join(place)}")
    return same and not places


def submitted(task: str, given: tuple[str, ...], run: Path, folder: Path) -> None:
    """Run the task as a job, preempted once in its training."""
    cluster = slurm.bring_up(folder)
    try:
        asked = (
            "--out",
            run,
            "--partition",
            "low",
            "--cpus",
            slurm.cores(),
            "--time",
            f"{LIMIT_S // 60}",
            *given,
        )
        done = slurm.tunelm("submit", task, *asked)
        print(done.output, end="")
        if done.exit_code:
            sys.exit(1)
        number = job_of(run).id
        slurm.wait_for_training(run, seconds=LIMIT_S)
        cluster.preempt(folder)
        cluster.now(number)
        job = slurm.wait_for(run, "COMPLETED", seconds=LIMIT_S)
        print(f"job {job.id}: {job.said}, preempted {job.state.restarts} time(s) in training")
    finally:
        cluster.stop()


def both(task: str, given: tuple[str, ...], out: Path) -> bool:
    """Run the task here and as a job, as far as that was not done; whether all is the same."""
    here, there = out / "here", out / "slurm"
    # each counts its own looks at the test rows
    os.environ["TUNELM_CACHE"] = str(out / "cache-here")
    if not (here / "report.json").is_file():
        line = [
            sys.executable,
            "-m",
            "tunelm",
            "compare",
            task,
            "--out",
            str(here),
            "--quiet",
            *given,
        ]
        resume = ["--resume"] if here.exists() else []
        subprocess.run([*line, *resume], check=True, stdout=subprocess.DEVNULL)
    os.environ["TUNELM_CACHE"] = str(out / "cache-slurm")
    if not (there / "report.json").is_file():
        with tempfile.TemporaryDirectory() as folder:
            submitted(task, given, there, Path(folder))
    return compare(here, there)


def main() -> None:
    """Run both, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="edu-qa")
    parser.add_argument("--out", type=Path, help="keep the runs there")
    parser.add_argument("--set", action="append", default=[], help="as for tunelm compare")
    given = parser.parse_args()
    settings = tuple(part for one in given.set for part in ("--set", one))
    with tempfile.TemporaryDirectory() as folder:
        try:
            same = both(given.task, settings, (given.out or Path(folder)).resolve())
        except OSError as error:
            sys.exit(f"no cluster comes up here: {error}")
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
