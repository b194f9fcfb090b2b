"""Are corrected scores right, and refusals to rank? Planted judges whose every fault is known.

    python benchmarks/calibration.py                     # 500 trials a row, about 3 minutes
    python benchmarks/calibration.py --trials 4000       # finer, about 20 minutes

Prints three Markdown tables and exits with 1 if a promise is broken:

1. The mean of one system. Truth is 1 or 0 (or three grades), and its mean is known. A judge rates
   everything, people have labelled some. How often do 95% intervals hold the truth: the corrected
   one, that of people's labels alone, that of the judge alone? Of the corrected one it must be 95%,
   give or take 2 points and Monte Carlo error (two standard errors).
2. The difference of two systems, by a judge that is fond of one of them.
3. Ranking. A judge that is a little kinder to some systems than to others, its error known from
   labels of eight other systems: how often does it rank two that are equal, beside the plain paired
   test; and how often is a difference of the size that it says it can show significant (it must
   be four times in five) and ranked (only those are whose observed difference is larger still)?
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
from scipy import special

from tunelm.judging.calibrate import corrected
from tunelm.judging.check import Judged, error_of
from tunelm.judging.labels import Labelled
from tunelm.judging.ranking import Known, System, compare
from tunelm.scoring.statistics import paired
from tunelm.types import Example

Array = NDArray[np.float64]
Rng = np.random.Generator
Judge = Callable[[Rng, Array], Array]
TOLERANCE = 0.02


def generous(share: float) -> Judge:
    """Calls a part of what is 0 a 1; never the other way round."""
    return lambda rng, truth: np.where(rng.random(len(truth)) < share, 1.0, truth)


def harsh(share: float) -> Judge:
    """Calls a part of what is 1 a 0; never the other way round."""
    return lambda rng, truth: np.where(rng.random(len(truth)) < share, 0.0, truth)


def erring(share: float) -> Judge:
    """Is wrong on this share of all rows, both ways alike."""
    return lambda rng, truth: np.where(rng.random(len(truth)) < share, 1 - truth, truth)


def grading(rng: Rng, truth: Array) -> Array:
    """Says 0, .5 or 1 and leans upwards: right on 55%, one grade too high on 30%."""
    shift = rng.choice([0.0, 0.5, -0.5], len(truth), p=[0.55, 0.3, 0.15])
    return np.clip(truth + shift, 0.0, 1.0)


@dataclass(frozen=True)
class Design:
    """How rows come about. `cluster`: rows a group, which share truth and the judge's faults."""

    name: str
    judge: Judge
    labelled: int
    rest: int
    share: float = 0.5
    grades: tuple[float, ...] = (0.0, 1.0)
    cluster: int = 1

    @property
    def mean(self) -> float:
        """The true mean."""
        return self.share if self.grades == (0.0, 1.0) else float(np.mean(self.grades))

    def draw(self, rng: Rng) -> tuple[Array, Array, list[int]]:
        """(judge, people with NaN where nobody looked, groups); whole groups are labelled."""
        count = (self.labelled + self.rest) // self.cluster
        groups = np.repeat(np.arange(count), self.cluster)
        if self.cluster > 1:
            # half the rows of a group are copies of its first, truth and judge alike
            truth, copied = self._truth(rng, len(groups)), rng.random(len(groups)) < 0.5
            judged = self.judge(rng, truth)
            first = groups * self.cluster
            truth = np.where(copied, truth[first], truth)
            judged = np.where(copied, judged[first], judged)
        else:
            truth = self._truth(rng, len(groups))
            judged = self.judge(rng, truth)
        seen = groups < self.labelled // self.cluster
        return judged, np.where(seen, truth, np.nan), groups.tolist()

    def _truth(self, rng: Rng, size: int) -> Array:
        if self.grades == (0.0, 1.0):
            return (rng.random(size) < self.share).astype(np.float64)
        return rng.choice(self.grades, size)


ONE_WAY = "wrong on 30%, always for the better"
DESIGNS = (
    *(Design(ONE_WAY, generous(0.6), n, 10 * n) for n in (20, 30, 50, 100, 200)),
    Design(ONE_WAY + ", few unlabelled rows", generous(0.6), 100, 50),
    Design("wrong on 30%, always for the worse", harsh(0.6), 100, 1000),
    Design("wrong on 30%, both ways", erring(0.3), 100, 1000),
    Design("wrong on 30%, both ways", erring(0.3), 30, 300),
    Design("calls everything good, 70% are", generous(1.0), 100, 1000, share=0.7),
    Design("three grades, leaning upwards", grading, 100, 1000, grades=(0.0, 0.5, 1.0)),
    Design("useless: a coin", erring(0.5), 100, 1000),
    Design("nearly perfect: wrong on 1%", erring(0.01), 100, 1000),
    Design("perfect", erring(0.0), 100, 1000),
    Design(ONE_WAY + ", groups of 4", generous(0.6), 120, 1200, cluster=4),
    Design(ONE_WAY + ", groups of 8", generous(0.6), 400, 2000, cluster=8),
)
OVER = ("perfect", "nearly perfect: wrong on 1%")
"""Judges for whom covering too often is no fault: what has never been seen may still be."""


def means(trials: int, seed: int) -> tuple[list[list[str]], list[str]]:
    """The first table and the promises that it breaks."""
    rows: list[list[str]] = []
    broken: list[str] = []
    for place, design in enumerate(DESIGNS):
        rng = np.random.default_rng([seed, place])
        held, wide = np.zeros(3), np.zeros(3)
        for _ in range(trials):
            judged, people, groups = design.draw(rng)
            found = corrected(judged, people, groups, scale=(0.0, 1.0))
            alone = corrected(judged, people, groups, weight=0.0, scale=(0.0, 1.0))
            limits = ((found.low, found.high), (alone.low, alone.high), _naive(judged))
            held += [low <= design.mean <= high for low, high in limits]
            wide += [high - low for low, high in limits]
        held, wide = held / trials, wide / trials
        cells = [f"{100 * h:.1f}% ({w:.3f})" for h, w in zip(held, wide, strict=True)]
        rows.append([design.name, str(design.labelled), str(design.rest), *cells])
        off = held[0] - 0.95
        if off < -_allowed(trials) or (off > _allowed(trials) and design.name not in OVER):
            broken.append(f"{design.name}, {design.labelled} labels: covered {held[0]:.3f}")
    return rows, broken


def _allowed(trials: int) -> float:
    """How far a coverage may be from 95%: TOLERANCE and two standard errors of the trials."""
    return TOLERANCE + 2 * math.sqrt(0.05 * 0.95 / trials)


def _naive(judged: Array) -> tuple[float, float]:
    """The judge's own interval, as if it were right."""
    reach = 1.96 * judged.std(ddof=1) / math.sqrt(len(judged))
    return judged.mean() - reach, judged.mean() + reach


def differences(trials: int, seed: int) -> tuple[list[list[str]], list[str]]:
    """The second table: system a is better by .1; the judge prefers b's manner."""
    rows: list[list[str]] = []
    broken: list[str] = []
    for labelled, rest in ((50, 500), (100, 1000), (300, 1000)):
        rng = np.random.default_rng([seed, 100, labelled])
        held, wide, turned = np.zeros(2), np.zeros(2), 0
        for _ in range(trials):
            count = labelled + rest
            ease = rng.normal(size=count)
            a, b = (
                (ease + rng.normal(size=count) < special.ndtri(mean) * math.sqrt(2)).astype(float)
                for mean in (0.6, 0.5)
            )
            fond_a, fond_b = harsh(0.1)(rng, a), generous(0.4)(rng, b)
            people = np.where(np.arange(count) < labelled, a - b, np.nan)
            found = corrected(fond_a - fond_b, people, range(count), scale=(-1.0, 1.0))
            limits = ((found.low, found.high), _naive(fond_a - fond_b))
            held += [low <= 0.1 <= high for low, high in limits]
            wide += [high - low for low, high in limits]
            turned += limits[1][1] < 0
        held, wide = held / trials, wide / trials
        cells = [f"{100 * h:.1f}% ({w:.3f})" for h, w in zip(held, wide, strict=True)]
        rows.append([str(labelled), str(rest), *cells, f"{100 * turned / trials:.1f}%"])
        if abs(held[0] - 0.95) > _allowed(trials):
            broken.append(f"difference, {labelled} labels: covered {held[0]:.3f}")
    return rows, broken


def ranking(trials: int, seed: int) -> tuple[list[list[str]], list[str]]:
    """The third table: the judge's mean error varies over systems with deviation .05."""
    rows: list[list[str]] = []
    broken: list[str] = []
    for count in (100, 400, 1600):
        rng = np.random.default_rng([seed, 200, count])
        wrong = plain = found = ranked = 0
        sizes: list[float] = []
        for known in _known_errors(rng, trials):
            for planted in (False, True):
                size = _smallest(rng, known, count) if planted else 0.0
                pair = _two(rng, 0.5 - size / 2, 0.5 + size / 2, count)
                (ours,) = compare(pair, range(count), known, resamples=200)
                if planted:
                    found += ours.p is not None and ours.p <= 0.05 and (ours.diff or 0) < 0
                    ranked += ours.verdict == "worse"
                    sizes.append(size)
                else:
                    wrong += ours.verdict in ("better", "worse")
                    values = [np.stack([s.judged, s.judged * 0 + 1], axis=2) for s in pair]
                    p = paired(*values, list(range(count)), resamples=400).p
                    plain += p is not None and p <= 0.05
        shares = [f"{100 * k / trials:.1f}%" for k in (plain, wrong, found, ranked)]
        rows.append([str(count), *shares[:2], f"{np.median(sizes):.3f}", *shares[2:]])
        if wrong / trials > 0.05 + 2 * math.sqrt(0.05 * 0.95 / trials):
            broken.append(f"{count} rows: equal systems ranked {wrong / trials:.3f}")
        if found / trials < 0.8 - 2 * math.sqrt(0.8 * 0.2 / trials) - 0.03:
            broken.append(f"{count} rows: the smallest difference found {found / trials:.3f}")
    return rows, broken


BIAS = 0.05
"""Standard deviation over systems of the judge's mean error."""


def _known_errors(rng: Rng, trials: int) -> Iterator[Known]:
    """The judge's error from 200 labelled replies of each of eight systems, anew each time."""
    for _ in range(trials):
        errors = [
            (f"s{s}", float(e))
            for s, bias in enumerate(rng.normal(0.1, BIAS, 8))
            for e in bias + rng.normal(0, 0.3, 200)
        ]
        rows = [
            Labelled(Example(f"{i}", (), (), f"{i % 200}"), "", 0.0, f"{i % 200}", who, f"{i}")
            for i, (who, _) in enumerate(errors)
        ]
        values = np.array([e for _, e in errors])
        judged = Judged(values, values, [None] * len(rows))
        error = error_of(rows, np.zeros(len(rows)), judged)
        yield Known(error, values, tuple(row.group for row in rows))


def _two(rng: Rng, a: float, b: float, count: int) -> list[System]:
    """Two new systems of true means a and b, rated with the judge's bias towards each."""
    unlabelled = np.full((1, count), np.nan)
    return [
        System(name, (mean + rng.normal(0.1, BIAS) + rng.normal(0, 0.4, count))[None], unlabelled)
        for name, mean in (("a", a), ("b", b))
    ]


def _smallest(rng: Rng, known: Known, count: int) -> float:
    """What the judge says that it can show, on other rows of the same kind."""
    (pair,) = compare(_two(rng, 0.5, 0.5, count), range(count), known, resamples=200)
    return float(pair.smallest or 0.0)


def main() -> int:
    """Run it all; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    began = time.perf_counter()
    broken: list[str] = []
    tables = (
        (
            means,
            "The mean of one system: coverage (width) of 95% intervals",
            ("judge", "labelled", "not labelled", "corrected", "people alone", "judge alone"),
        ),
        (
            differences,
            "The difference of two systems (true: .1) by a judge that prefers the worse one",
            ("labelled", "not labelled", "corrected", "judge alone", "judge alone says worse"),
        ),
        (
            ranking,
            f"Ranking, with judge's errors that vary by {BIAS} from system to system",
            (
                "rows",
                "equal systems ranked by the paired test",
                "the same with the judge's error",
                "smallest difference (median)",
                "p at most .05 when it is that large",
                "ranked then",
            ),
        ),
    )
    for make, title, header in tables:
        trials = args.trials if make is not ranking else min(args.trials, 500)
        rows, faults = make(trials, args.seed)
        broken += faults
        print(f"\n{title}, {trials} trials a row\n")
        for cells in (header, ["---"] * len(header), *rows):
            print(f"| {' | '.join(cells)} |")
    print(f"\n{time.perf_counter() - began:.0f} s")
    for fault in broken:
        print(f"BROKEN: {fault}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
