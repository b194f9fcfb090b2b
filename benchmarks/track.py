"""The track record of forecasts over many small comparisons: error, bias, coverage.

Each run is planned and then carried out: its forecasts are made by `forecast_route` with a probe,
written to a file, and put into the run by `tunelm compare`, which measures. The runs differ in
base model, rows, method, batch and epochs. What is printed is what `tunelm plan --track-record`
says of them, and the coverage over all forecasts that have an interval.

    python benchmarks/track.py --runs 30

A run takes half a minute or so on one core.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tunelm import compare
from tunelm.config import parse_config
from tunelm.data.prepare import prepare
from tunelm.data.shares import share
from tunelm.planning.forecasts import forecast_route, write_forecasts
from tunelm.planning.track import forecasts_of, track_record, track_rows

BUNDLED = Path(__file__).resolve().parents[1] / "src" / "tunelm" / "tasks" / "edu_qa.jsonl"
BASES = ("tunelm-nano", "tunelm-nano-small")
METHODS = ("lora", "rslora", "dora", "full")


def main() -> None:
    """Carry out the runs, print their track record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="keep the runs there, and go on with them")
    given = parser.parse_args()
    folder = given.out or Path(tempfile.mkdtemp())
    for number in range(given.runs):
        run = folder / f"run-{number}"
        if not (run / "report.json").is_file():
            carry_out(folder / f"task-{number}", run, random.Random(1000 * given.seed + number))
            print(f"run {number + 1} of {given.runs}", flush=True)
    report(folder)


def carry_out(place: Path, run: Path, rng: random.Random) -> None:
    """Plan a comparison of one local route drawn by `rng`, then make it."""
    for begun in (place, run):  # by an earlier call that did not end
        shutil.rmtree(begun, ignore_errors=True)
    place.mkdir(parents=True)
    rows = BUNDLED.read_text(encoding="utf-8").splitlines()
    rng.shuffle(rows)
    chosen = rows[: rng.choice((150, 250, 400))]
    (place / "rows.jsonl").write_text("\n".join(chosen), encoding="utf-8")
    local: dict[str, Any] = {
        "method": rng.choice(METHODS),
        "r": rng.choice((4, 16, 64)),
        "batch_size": rng.choice((2, 4, 8, 16, 32)),
        "epochs": rng.choice((1, 2, 3)),
        "stop_on": "none",
    }
    data = {
        "task": {"name": "track", "max_tokens": 4},
        "data": {"path": "rows.jsonl", "test": 0.1, "min_test_groups": 1},
        "model": {"base": rng.choice(BASES)},
        "compare": {"routes": ["local"], "forecasts": "forecasts.json"},
        "routes": {"local": local},
    }
    config = parse_config(data, place)
    (place / "split").mkdir()
    split = prepare(config.data, place / "split", lambda _: 0, 0)
    found = forecast_route(config, "local", split, probe=True)
    write_forecasts(place / "forecasts.json", config, {"local": found})
    compare(config, run)


def report(folder: Path) -> None:
    """The track record as Markdown, and the coverage of all intervals together."""
    rows = track_rows(track_record([folder]))
    print(f"| {' | '.join(rows[0])} |\n|{'---|' * len(rows[0])}")
    for row in rows:
        print(f"| {' | '.join(row.values())} |")
    held = [h for run in sorted(folder.glob("run-*")) for h in forecasts_of(run)]
    ranged = [h for h in held if h.low is not None and h.high is not None and h.low < h.high]
    inside = share(sum(h.low <= h.measured <= h.high for h in ranged), len(ranged))  # pyright: ignore
    near = [h for h in held if h.quantity == "seconds" and abs(h.forecast / h.measured - 1) <= 0.25]
    timed = sum(h.quantity == "seconds" for h in held)
    print(f"\n{len(held)} forecasts; {json.dumps(inside.count)} of {inside.of} inside an interval")
    print(f"({inside.share:.0%}, {inside.low:.0%} to {inside.high:.0%}).", end=" ")
    print(f"Time within 25%: {len(near)} of {timed}.")


if __name__ == "__main__":
    main()
