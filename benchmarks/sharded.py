"""Answers a second by one and two processes, and at one and two endpoints, in one run.

    python benchmarks/sharded.py --out build/sharded

The rows of dev and test of the bundled task, answered by the bundled model as the route `baseline`
has them; each way in turn, forwards and backwards, so that a change of the machine's load meets
all of them. Processes are started and load their model within the time; servers are up before.
Every process and every server has one thread unless OMP_NUM_THREADS says otherwise. Says how many
outputs are those of one process, and the load of the machine before each.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from tunelm import compare
from tunelm.models.address import parse_address
from tunelm.models.endpoint import Endpoint
from tunelm.models.fleet import Fleet
from tunelm.models.prompted import PromptedModel
from tunelm.models.remote import RemoteModel, open_remote
from tunelm.predict import predict, read_predictions
from tunelm.report.read import read_parts
from tunelm.rundir import read_json
from tunelm.shards import answer_in_processes
from tunelm.types import Prediction

ROUTE = Path("routes") / "baseline" / "seed-0"
MODEL = "tunelm-nano"


def fitted(out: Path) -> Path:
    """A run of the bundled task with its baseline, answered or not."""
    run = out / "run"
    if not (run / ROUTE / "fit.json").exists():
        compare("edu-qa", run, overrides=['compare.routes=["baseline"]'])
    return run


def by_processes(run: Path, count: int) -> list[Prediction]:
    """The rows answered anew by so many processes."""
    folder = run / ROUTE
    (folder / "predictions.jsonl").unlink(missing_ok=True)
    (folder / "shards").mkdir(exist_ok=True)
    parts = read_parts(run)
    answer_in_processes(folder, parts, count, lambda *_: None)
    return read_predictions(folder / "predictions.jsonl")


def started(run: Path) -> float:
    """Seconds of a process that has nothing to answer: its imports, the rows and the model."""
    began = time.monotonic()
    command = [sys.executable, "-m", "tunelm.shards", str(run), "baseline"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(run / ROUTE / "shards")
    return time.monotonic() - began


def by_endpoints(run: Path, model: RemoteModel) -> list[Prediction]:
    """The rows answered anew at endpoints."""
    task = read_json(run / "config.json")["config"]["task"]
    asked = PromptedModel(model, task["instructions"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.jsonl"
        parts = read_parts(run).items()
        for part, rows in parts:
            predict(asked, rows, part, path, task["max_tokens"])
        return read_predictions(path)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of a `tunelm serve` of the bundled model."""
    ready = folder / "ready.json"
    command = [sys.executable, "-m", "tunelm", "serve", MODEL, "--no-train", "--no-chat"]
    command += ["--port", "0", "--state", str(folder / "state"), "--ready-file", str(ready)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while not ready.exists():
            if process.poll() is not None:
                sys.exit(f"tunelm serve ended with {process.returncode}")
            time.sleep(0.1)
        yield str(read_json(ready)["url"])
    finally:
        process.terminate()
        process.wait(60)


def fleet(*urls: str) -> RemoteModel:
    """Endpoints as a fleet, also where there is only one."""
    address = parse_address(", ".join(urls))
    endpoints = [Endpoint(one) for one in address.each or (address,)]
    return RemoteModel(Fleet(endpoints, address), MODEL)


def main() -> None:
    """Measure, print, and write the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/sharded"))
    parser.add_argument("--rounds", type=int, default=1, help="forwards and backwards each")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    run = fitted(given.out)
    with contextlib.ExitStack() as servers:
        urls: list[str] = []
        for name in ("one", "other"):
            folder = given.out / name
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            urls.append(servers.enter_context(serving(folder)))
        ways = {
            "1 process": lambda: by_processes(run, 1),
            "2 processes": lambda: by_processes(run, 2),
            "1 endpoint, 8 at once": lambda: by_endpoints(run, open_remote(MODEL, urls[0])),
            "1 endpoint, as a fleet": lambda: by_endpoints(run, fleet(urls[0])),
            "2 endpoints": lambda: by_endpoints(run, fleet(*urls)),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        same: dict[str, int] = {}
        first: list[Prediction] = []
        order = [*ways, *reversed(ways)] * given.rounds
        for way in order:
            load = os.getloadavg()[0]
            began = time.monotonic()
            found = ways[way]()
            seconds[way].append(time.monotonic() - began)
            first = first or found
            equal = sum(a.output == b.output for a, b in zip(first, found, strict=True))
            same[way] = min(same.get(way, equal), equal)
            print(f"{way}: {seconds[way][-1]:.1f} s, {equal} of {len(found)} the same, "
                  f"load {load:.1f}", flush=True)  # fmt: skip
    rows = len(first)
    figures = {
        way: {"seconds": took, "rows_per_second": rows / statistics.mean(took), "same": same[way]}
        for way, took in seconds.items()
    }
    each = len(order) // len(ways)
    print(f"\n{rows} rows, {os.environ['OMP_NUM_THREADS']} thread(s) each, means of {each}; ")
    print(f"starting a process takes {started(run):.1f} s of it")
    print("| way | rows a second | seconds | the same outputs |\n|---|---|---|---|")
    for way, found in figures.items():
        spread = f"{min(found['seconds']):.0f} to {max(found['seconds']):.0f}"
        print(f"| {way} | {found['rows_per_second']:.1f} | {spread} | {found['same']} of {rows} |")
    (given.out / "sharded.json").write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
