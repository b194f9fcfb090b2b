"""The main job on the bundled task: how long, how much memory, and what it found.

    python benchmarks/main_job.py --out runs/benchmark

Runs `tunelm compare --shuffled-control` once (the control's own time is taken off), reads its
report, times `tunelm --help` (median of nine, after a warm-up), and prints Markdown tables with
each promise and whether it was kept. Exits with 1 if one was not.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psutil

SECONDS, BYTES, HELP_SECONDS = 360, 3 * 10**9, 0.3


def timed_help() -> float:
    """Median seconds of `tunelm --help` as a whole process."""
    script = Path(sys.executable).with_name("tunelm")
    command = [str(script), "--help"]
    taken: list[float] = []
    for _ in range(10):
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])


def run_compare(out: Path) -> tuple[float, int]:
    """(wall seconds, peak resident bytes of any one process) of the comparison."""
    command = [sys.executable, "-m", "tunelm", "compare", "--shuffled-control", "--out", str(out)]
    began, peak = time.perf_counter(), 0
    process = psutil.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        try:
            for one in [process, *process.children(recursive=True)]:
                peak = max(peak, one.memory_info().rss)
        except psutil.Error:
            pass
        time.sleep(0.2)
    if process.returncode:
        sys.exit(process.returncode)
    return time.perf_counter() - began, peak


def route_seconds(out: Path, route: str) -> float:
    """From the events: how long one route took."""
    times = [
        event["time"]
        for line in (out / "events.jsonl").read_text(encoding="utf-8").splitlines()
        if (event := json.loads(line)).get("route") == route
    ]
    return max(times) - min(times)


def find(report: dict, a: str, b: str, metric: str) -> dict:
    """The pair of two routes, as a less b."""
    for pair in report["pairs"]:
        if pair["metric"] == metric and {pair["a"], pair["b"]} == {a, b}:
            if pair["a"] == a:
                return pair
            low, high = -pair["ci_high"], -pair["ci_low"]
            return {**pair, "diff": -pair["diff"], "ci_low": low, "ci_high": high}
    raise SystemExit(f"no pair {a}, {b} on {metric}")


def main() -> None:
    """Run, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="a new run directory")
    parser.add_argument("--read", action="store_true", help="only read a finished run")
    args = parser.parse_args()
    wall, peak = (0.0, 0) if args.read else run_compare(args.out)
    report = json.loads((args.out / "report.json").read_text(encoding="utf-8"))
    routes = {r["name"]: r for r in report["routes"]}
    print("| route | token F1 | 95% interval | contains | 95% interval | rows | groups |")
    print("|---|---|---|---|---|---|---|")
    for name, route in routes.items():
        f1, key = route["scores"]["token_f1"], route["scores"]["contains"]
        cells = [
            f"{100 * f1['value']:.1f}",
            f"{100 * f1['ci_low']:.1f} to {100 * f1['ci_high']:.1f}",
        ]
        cells += [f"{100 * key['value']:.1f}"]
        cells += [f"{100 * key['ci_low']:.1f} to {100 * key['ci_high']:.1f}"]
        print(f"| {name} | {' | '.join(cells)} | {f1['n']} | {f1['n_groups']} |")
    base, local = (routes[n]["scores"]["token_f1"]["value"] for n in ("baseline", "local"))
    gain = find(report, "local", "baseline", "token_f1")
    control = find(report, "local", "local-shuffled", "token_f1")
    help_seconds = timed_help()
    promises = [
        ("baseline token F1 between 5% and 60%", f"{100 * base:.1f}%", 0.05 <= base <= 0.6),
        ("local better than baseline by 15 points", said(gain), kept(gain, 0.15)),
        ("local better than shuffled by 10 points", said(control), kept(control, 0.10)),
        ("local at most 90%", f"{100 * local:.1f}%", local <= 0.9),
        ("`tunelm --help` at most 0.3 s", f"{help_seconds:.3f} s", help_seconds <= HELP_SECONDS),
    ]
    if not args.read:
        wall -= route_seconds(args.out, "local-shuffled")
        three = wall - route_seconds(args.out, "cloud")
        promises += [
            ("compare, three routes, at most 6 minutes", f"{three:.0f} s", three <= SECONDS),
            ("compare by default, at most 6 minutes", f"{wall:.0f} s", wall <= SECONDS),
            ("each process under 3 GB", f"{peak / 1e9:.2f} GB", peak < BYTES),
        ]
    print("\n| promise | measured | kept |\n|---|---|---|")
    for promise, measured, ok in promises:
        print(f"| {promise} | {measured} | {'yes' if ok else 'NO'} |")
    sys.exit(0 if all(ok for *_, ok in promises) else 1)


def said(pair: dict) -> str:
    """A difference in points with its interval."""
    low, high = 100 * pair["ci_low"], 100 * pair["ci_high"]
    return f"{100 * pair['diff']:+.1f} ({low:+.1f} to {high:+.1f}), n = {pair['n']}"


def kept(pair: dict, least: float) -> bool:
    """At least that much better, and the interval above zero."""
    return pair["diff"] >= least and pair["ci_low"] > 0


if __name__ == "__main__":
    main()
