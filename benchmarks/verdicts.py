"""Are the verdicts right? Simulated test sets in which the truth is known.

    python benchmarks/verdicts.py                 # about 6 minutes on one core
    python benchmarks/verdicts.py --sets 200      # a look

Prints two Markdown tables, and exits with 1 if a promise is broken:

1. Nulls: three systems of one quality. A false `better` or `worse` may happen in at most 5% of
   the sets plus Monte Carlo error, for one comparison and for the three with Holm's correction.
   Beside it: how often the 95% intervals hold the truth, and what a test by row would have
   said of the same rows (exact McNemar where scores are 0 or 1, else the paired t test).
2. Planted differences: the share found, beside the power of the t test (noncentral t on the
   true standard error by group). They may differ by at most 3 points and Monte Carlo error.

The library resamples 10,000 times; here it is `--resamples` (1,000), for time. Fewer resamples
make the test a little weaker and never wrong, because the observed set counts as one of them.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from tunelm.scoring.statistics import Interval, Paired, holm, interval, paired, verdict

Array = NDArray[np.float64]
SYSTEMS = 3


@dataclass(frozen=True)
class Design:
    """How a test set comes about.

    Binary scores are draws of a probability whose logit is normal; continuous ones are
    normal. `shared` is the spread of difficulty that all systems meet in a group, `own` the
    spread of what one system finds easy or hard in it (this is what makes rows of a group
    depend on each other in a comparison), `uneven` a factor on that of the first system.
    """

    name: str
    groups: int
    sizes: Callable[[np.random.Generator, int], NDArray[np.int64]]
    binary: bool
    shared: float
    own: float
    centre: float = 0.0
    noise: float = 0.1
    uneven: float = 1.0

    def draw(self, rng: np.random.Generator, shift: float = 0.0) -> tuple[Array, NDArray[np.int64]]:
        """Values (3 systems, n rows) and the group of each row; `shift` helps the first."""
        index = np.repeat(np.arange(self.groups), self.sizes(rng, self.groups))
        spread = np.array([self.own * self.uneven] + [self.own] * (SYSTEMS - 1))
        level = self.centre + rng.normal(0, self.shared, self.groups)
        level = level + spread[:, None] * rng.normal(size=(SYSTEMS, self.groups))
        level[0] += shift
        rows = level[:, index]
        if self.binary:
            return (rng.random(rows.shape) < special.expit(rows)).astype(np.float64), index
        return rows + rng.normal(0, self.noise, rows.shape), index

    def mean(self, shift: float = 0.0) -> float:
        """The true mean of a system."""
        if not self.binary:
            return self.centre + shift
        nodes, weights = np.polynomial.hermite_e.hermegauss(80)
        spread = math.hypot(self.shared, self.own)
        values = special.expit(self.centre + shift + spread * nodes)
        return float((weights * values).sum() / weights.sum())

    def shift_for(self, difference: float) -> float:
        """The shift that raises the first system's true mean by `difference`."""
        found, _ = optimize.brentq(
            lambda shift: self.mean(shift) - self.mean() - difference, 0, 20, full_output=True
        )
        return float(found)


def same(size: int) -> Callable[[np.random.Generator, int], NDArray[np.int64]]:
    """Groups of one size."""
    return lambda _, groups: np.full(groups, size)


def between(low: int, high: int) -> Callable[[np.random.Generator, int], NDArray[np.int64]]:
    """Group sizes drawn evenly from low to high."""
    return lambda rng, groups: rng.integers(low, high + 1, groups)


def long_tailed(rng: np.random.Generator, groups: int) -> NDArray[np.int64]:
    """Most groups have one or two rows, a few have twenty."""
    return np.minimum(rng.geometric(0.35, groups) ** 2, 20)


DESIGNS = (
    Design("binary, 4 rows a group", 30, same(4), True, 1.0, 1.5),
    Design("binary, 1 to 8 rows", 60, between(1, 8), True, 1.0, 1.0),
    Design("binary, 1 to 8 rows, strong correlation", 100, between(1, 8), True, 1.0, 3.0),
    Design("binary, long-tailed sizes", 150, long_tailed, True, 1.0, 1.0),
    Design("binary, 85% right", 120, between(2, 5), True, 1.0, 1.0, centre=2.2),
    Design("binary, rows independent", 120, same(1), True, 1.0, 0.0),
    Design("continuous, 4 rows a group", 30, same(4), False, 0.2, 0.1),
    Design("continuous, 1 to 8 rows", 60, between(1, 8), False, 0.2, 0.05),
    Design("continuous, long-tailed sizes", 150, long_tailed, False, 0.2, 0.1),
    Design("continuous, unequal spread", 40, between(1, 8), False, 0.2, 0.05, uneven=4.0),
)


@dataclass
class Null:
    """Counts over simulated sets without a difference."""

    rows: int = 0
    single: int = 0
    family: int = 0
    covers_zero: int = 0
    covers_mean: int = 0
    by_row: int = 0
    disagree: int = 0


def with_counts(values: Array) -> Array:
    """Statistics of a per-row metric."""
    return np.stack([values, np.ones_like(values)], axis=-1)


def holds(found: Interval | Paired, truth: float) -> bool:
    """Whether the interval holds the truth; one that is unknown does not."""
    return found.low is not None and found.high is not None and found.low <= truth <= found.high


def by_row_p(a: Array, b: Array, binary: bool) -> float:
    """The test that takes every row for independent."""
    if not binary:
        return float(stats.ttest_rel(a, b).pvalue)
    wins, losses = int((a > b).sum()), int((a < b).sum())
    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def nulls(design: Design, sets: int, resamples: int, rng: np.random.Generator) -> Null:
    """Compare three systems of one quality, `sets` times."""
    found = Null()
    for trial in range(sets):
        values, groups = design.draw(rng)
        labels = groups.tolist()
        rows = with_counts(values)
        pairs = [
            paired(rows[i], rows[j], labels, seed=trial, resamples=resamples)
            for i, j in ((0, 1), (0, 2), (1, 2))
        ]
        adjusted = holm([pair.p for pair in pairs])
        calls = [verdict(pair.diff, p) for pair, p in zip(pairs, adjusted, strict=True)]
        first = pairs[0]
        alone = interval(rows[1], labels, seed=trial, resamples=resamples)
        found.rows += values.shape[1]
        found.single += verdict(first.diff, first.p) != "not distinguishable"
        found.family += any(call != "not distinguishable" for call in calls)
        found.covers_zero += holds(first, 0)
        found.covers_mean += holds(alone, design.mean())
        found.by_row += by_row_p(values[0], values[1], design.binary) <= 0.05
        found.disagree += not first.agrees
    return found


@dataclass(frozen=True)
class Power:
    """A planted difference: how often it should be found, and how often it was."""

    difference: float
    theory: float
    measured: float


def powers(design: Design, sets: int, resamples: int, rng: np.random.Generator) -> Iterator[Power]:
    """Plant the differences that theory finds in about half and four fifths of the sets."""
    error = true_error(design, 0.0, rng, 2_000)
    for target in (0.5, 0.8):
        wanted = (stats.t.ppf(0.975, design.groups - 1) + stats.norm.ppf(target)) * error
        shift = design.shift_for(float(wanted))
        difference = design.mean(shift) - design.mean()
        theory = t_power(difference / true_error(design, shift, rng, 20_000), design.groups)
        hits = 0
        for trial in range(sets):
            values, groups = design.draw(rng, shift)
            a, b = with_counts(values[:2])
            pair = paired(a, b, groups.tolist(), seed=trial, resamples=resamples)
            hits += verdict(pair.diff, pair.p) == "better"
        yield Power(difference, theory, hits / sets)


def true_error(design: Design, shift: float, rng: np.random.Generator, sets: int) -> float:
    """The standard error of a difference, from `sets` sets of their own."""

    def difference() -> float:
        values, _ = design.draw(rng, shift)
        return float(values[0].mean() - values[1].mean())

    return float(np.std([difference() for _ in range(sets)]))


def t_power(ratio: float, groups: int) -> float:
    """Power of the two-sided 5% t test, for a difference of `ratio` standard errors."""
    return float(stats.nct.sf(stats.t.ppf(0.975, groups - 1), groups - 1, ratio))


def percent(count: float, of: float) -> str:
    """A share, to a tenth of a point."""
    return f"{100 * count / of:.1f}%"


def null_table(sets: int, resamples: int, seed: int) -> bool:
    """Print the first table; True if no design breaks the promise."""
    # 99% for each of ten designs, 95% for all of them together.
    limit = 0.05 + 2.58 * math.sqrt(0.05 * 0.95 / sets)
    limit_all = 0.05 + 1.96 * math.sqrt(0.05 * 0.95 / sets / len(DESIGNS))
    print(
        f"{sets:,} null sets a design; allowed false verdicts: {100 * limit:.1f}% in a design, "
        f"{100 * limit_all:.1f}% in all\n"
    )
    print(
        "| design | groups | rows | false verdict, one pair | three pairs, Holm "
        "| interval holds the difference | interval holds the mean | interval against p "
        "| false by row |\n|---|---|---|---|---|---|---|---|---|"
    )
    kept, one, three = True, 0, 0
    for number, design in enumerate(DESIGNS):
        found = nulls(design, sets, resamples, np.random.default_rng([seed, number]))
        one, three = one + found.single, three + found.family
        kept &= found.single <= limit * sets and found.family <= limit * sets
        shares = [found.single, found.family, found.covers_zero, found.covers_mean]
        shares += [found.disagree, found.by_row]
        cells = " | ".join(percent(count, sets) for count in shares)
        print(
            f"| {design.name} | {design.groups} | {found.rows / sets:.0f} | {cells} |", flush=True
        )
    total = sets * len(DESIGNS)
    print(f"| all | | | {percent(one, total)} | {percent(three, total)} | | | | |\n")
    return kept and max(one, three) <= limit_all * total


def power_table(sets: int, resamples: int, seed: int) -> bool:
    """Print the second table; True if every power is that of theory."""
    margin = 100 * 1.96 * math.sqrt(0.25 / sets)
    print(f"{sets:,} sets with a planted difference each (Monte Carlo error {margin:.1f} points)\n")
    print("| design | difference | power in theory | measured | points |\n|---|---|---|---|---|")
    kept = True
    for number, design in enumerate(DESIGNS):
        for power in powers(design, sets, resamples, np.random.default_rng([seed, 100 + number])):
            points = 100 * (power.measured - power.theory)
            kept &= abs(points) <= 3 + margin
            cells = [design.name, f"{power.difference:.3f}", percent(power.theory, 1)]
            cells += [percent(power.measured, 1), f"{points:+.1f}"]
            print(f"| {' | '.join(cells)} |", flush=True)
    return kept


def main() -> int:
    """Run both tables; 0 if every promise is kept."""
    parser = argparse.ArgumentParser(
        description="False verdicts, coverage and power on simulated, clustered test sets.",
        epilog="Exits with 1 if a promise is broken.",
    )
    parser.add_argument("--sets", type=int, default=2000, help="simulated sets a design")
    parser.add_argument("--resamples", type=int, default=1000, help="resamples and flips a set")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began = time.perf_counter()
    print(f"seed {options.seed}, {options.resamples:,} resamples a set\n")
    null_kept = null_table(options.sets, options.resamples, options.seed)
    power_kept = power_table(options.sets, options.resamples, options.seed)
    said = {True: "kept", False: "BROKEN"}
    print(f"\nfalse verdicts: {said[null_kept]}; power: {said[power_kept]}")
    print(f"{time.perf_counter() - began:.0f} s")
    return 0 if null_kept and power_kept else 1


if __name__ == "__main__":
    sys.exit(main())
