"""Students in no training data, each on every problem of a run's test rows.

    tunelm compare edu-dialogue --out RUN
    python benchmarks/held_out.py RUN baseline local

A run holds some conversations with them among all kinds of students. This holds one for each
problem, by two finished routes, and gives the paired difference of the second to the first.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import tunelm
from tunelm.report.read import read_run
from tunelm.scoring.metrics import get_metric, row_statistics
from tunelm.scoring.statistics import interval, paired
from tunelm.tutor.talks import hold, talks_of

METRICS = ("solved_unaided", "telling_rate")


def main() -> None:
    """Hold the conversations and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("first")
    parser.add_argument("second")
    arguments = parser.parse_args()
    run = read_run(arguments.run)
    every = talks_of(run.parts["test"], 10**9)
    talks = [talk for talk in every if talk.metadata["held_out"]]
    groups = [talk.group for talk in talks]
    stats: dict[str, dict[str, list[tuple[float, ...]]]] = {}
    for name in (arguments.first, arguments.second):
        model = tunelm.load(arguments.run / name)
        held = hold(model, talks, "test", run.task["max_tokens"])
        stats[name] = {m: row_statistics(get_metric(m), talks, held) for m in METRICS}
        for metric, rows in stats[name].items():
            found = interval(np.array(rows), groups, scale=1.0)
            print(f"{name} {metric}: {shown(found.value, found.low, found.high)}, n = {found.n}")
    for metric in METRICS:
        two, one = (np.array(stats[n][metric]) for n in (arguments.second, arguments.first))
        found = paired(two, one, groups)
        print(
            f"{arguments.second} less {arguments.first}, {metric}: "
            f"{shown(found.diff, found.low, found.high)}, p = {found.p:.4f}, n = {found.n}"
        )


def shown(value: float | None, low: float | None, high: float | None) -> str:
    """In percent, with its interval."""
    if value is None or low is None or high is None:
        return "unknown"
    return f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


if __name__ == "__main__":
    main()
