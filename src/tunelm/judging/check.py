"""How far a judge agrees with people, each figure with its n and interval by group.

Pairwise agreement is the main one: of two replies to the same words that people rate differently,
how often does the judge put the same one first. It does not reward knowing which conversations are
easy, and it is what ranking systems needs.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from tunelm.judging.coding import Coding
from tunelm.judging.labels import Labelled
from tunelm.scoring.label_metrics import macro_f1
from tunelm.scoring.metric import ratio
from tunelm.scoring.statistics import ALPHA, POWER, Interval, Paired, interval, paired

Matrix = NDArray[np.float64]
Places = NDArray[np.int64]
Aggregate = Callable[[Sequence[float]], float]
SHARES = ("pairwise", "accuracy")
RESAMPLES = 2_000
"""Rank correlation and F1 are no sums, and are worked out anew for each."""


@dataclass(frozen=True)
class Judged:
    """What a judge says of rows.

    `scores` rank replies of one item, `values` are on the judge's scale, `labels` are classes;
    NaN and None where there is none.
    """

    scores: Matrix
    values: Matrix
    labels: Sequence[str | None]


@dataclass(frozen=True)
class Agreement:
    """Figures by name: pairwise, spearman, accuracy, macro_f1, kappa, macro_f1_majority.

    A figure that these labels cannot have is missing: no pairs, or no classes.
    """

    figures: dict[str, Interval]

    def to_json(self) -> dict[str, Any]:
        """A plain dict, for JSON."""
        return {name: dataclasses.asdict(figure) for name, figure in self.figures.items()}


@dataclass(frozen=True)
class Pairs:
    """Comparable replies (places of rows) that people rate differently: `first` is the better."""

    first: Places
    second: Places
    groups: list[str]

    def agreeing(self, scores: Matrix) -> Matrix:
        """(pairs,) 1 where the scores say so too, 1/2 for a tie."""
        gap = scores[self.first] - scores[self.second]
        return np.where(gap > 0, 1.0, np.where(gap < 0, 0.0, 0.5))


def pairs_of(rows: Sequence[Labelled], gold: Matrix) -> Pairs:
    """All pairs of replies to one item with different labels."""
    items: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        items[row.item].append(place)
    found = [
        (a, b) if gold[a] > gold[b] else (b, a)
        for places in items.values()
        for at, a in enumerate(places)
        for b in places[at + 1 :]
        if gold[a] != gold[b]
    ]
    both = np.array(found, dtype=np.int64).reshape(-1, 2)
    return Pairs(both[:, 0], both[:, 1], [rows[a].group for a, _ in found])


def agreement(
    rows: Sequence[Labelled], coding: Coding, gold: Matrix, judged: Judged, seed: int = 0
) -> Agreement:
    """All figures that the labels allow, over the rows that were judged."""
    figures: dict[str, Interval] = {}
    measure = partial(interval, seed=seed, resamples=RESAMPLES)
    for name, found in _figures(rows, coding, gold, judged).items():
        # a share that is 1 everywhere is not certain: with a scale, the interval says so
        figures[name] = measure(*found, scale=1.0 if name in SHARES else None)
    if coding.labels:
        found = _figures(rows, coding, gold, constant(rows, judged))["macro_f1"]
        figures["macro_f1_majority"] = measure(*found)
    return Agreement(figures)


def compare(
    rows: Sequence[Labelled], coding: Coding, gold: Matrix, a: Judged, b: Judged, seed: int = 0
) -> dict[str, Paired]:
    """A's agreement less B's on the same rows, by the same figures, groups drawn for both."""
    ours, theirs = (_figures(rows, coding, gold, judged) for judged in (a, b))
    return {
        name: paired(
            stats,
            theirs[name][0],
            groups,
            aggregate,
            seed=seed,
            resamples=RESAMPLES,
            scale=1.0 if name in SHARES else None,
        )
        for name, (stats, groups, aggregate) in ours.items()
        if name in theirs
    }


def constant(rows: Sequence[Labelled], judged: Judged) -> Judged:
    """What always gives the most common label, and the same value, to the rows that were judged."""
    most = Counter(str(row.label) for row in rows).most_common(1)[0][0]
    labels = [None if label is None else most for label in judged.labels]
    return Judged(judged.scores * 0, judged.values * 0, labels)


def _figures(
    rows: Sequence[Labelled], coding: Coding, gold: Matrix, judged: Judged
) -> dict[str, tuple[Matrix, list[str], Aggregate]]:
    """Of each figure: its sufficient statistics by row (or pair), their groups, how to sum up."""
    groups = [row.group for row in rows]
    found: dict[str, tuple[Matrix, list[str], Aggregate]] = {}
    if coding.ordered:
        pairs = pairs_of(rows, gold)
        if pairs.groups:
            right = pairs.agreeing(judged.scores)
            right[np.isnan(judged.scores[pairs.first] - judged.scores[pairs.second])] = np.nan
            found["pairwise"] = (np.stack([right, right * 0 + 1], axis=1), pairs.groups, ratio)
        found["spearman"] = (rank_statistics(judged.scores, gold), groups, correlation)
    if coding.labels:
        width = len(coding.labels)
        at = {label: place for place, label in enumerate(coding.labels)}
        truth = [at[cast(str, row.label)] for row in rows]
        said = [-1 if label is None else at.get(label, -1) for label in judged.labels]
        cells = _cells(truth, said, width)
        right = cells.reshape(-1, width, width).diagonal(axis1=1, axis2=2).sum(axis=1)
        found["accuracy"] = (np.stack([right, right * 0 + 1], axis=1), groups, ratio)
        found["macro_f1"] = (cells, groups, partial(f1_of_cells, width=width))
        found["kappa"] = (cells, groups, partial(kappa_of_cells, width=width))
    return found


def _cells(truth: Sequence[int], said: Sequence[int], width: int) -> Matrix:
    """(n, width * width) a one in the cell (truth, said) of each row's table; NaN: not judged."""
    cells = np.zeros((len(truth), width * width))
    for row, (true, given) in enumerate(zip(truth, said, strict=True)):
        if given < 0:
            cells[row] = np.nan
        else:
            cells[row, true * width + given] = 1
    return cells


def rank_statistics(scores: Matrix, gold: Matrix) -> Matrix:
    """(n, 6) what a correlation of ranks is made of.

    Ranks are those within all rows, also when groups are drawn again: ranking anew changes the
    value in the third decimal and costs hundreds of times as much.
    """
    from scipy.stats import rankdata

    known = ~np.isnan(scores)
    x, y = np.full(len(scores), np.nan), np.full(len(scores), np.nan)
    x[known] = (rankdata(scores[known]) - 0.5) / max(1, known.sum()) - 0.5
    y[known] = (rankdata(gold[known]) - 0.5) / max(1, known.sum()) - 0.5
    return np.stack([x * 0 + 1, x, y, x * x, y * y, x * y], axis=1)


def correlation(sums: Sequence[float]) -> float:
    """Pearson's from (n, sum x, sum y, sum xx, sum yy, sum xy); 0 where one does not vary."""
    n, x, y, xx, yy, xy = sums
    if not n:
        return math.nan
    spread = (xx - x * x / n) * (yy - y * y / n)
    return (xy - x * y / n) / math.sqrt(spread) if spread > 1e-12 else 0.0


def f1_of_cells(sums: Sequence[float], width: int) -> float:
    """Macro-F1 from a table (truth, said) read row by row."""
    table = np.reshape(sums, (width, width))
    counts = np.stack([table.diagonal(), table.sum(axis=1), table.sum(axis=0)], axis=1)
    return macro_f1(counts.ravel().tolist())


def kappa_of_cells(sums: Sequence[float], width: int) -> float:
    """Cohen's (1960) kappa, unweighted, from such a table; 0 where chance explains everything."""
    table = np.reshape(sums, (width, width))
    n = table.sum()
    if not n:
        return math.nan
    chance = float((table.sum(axis=0) * table.sum(axis=1)).sum()) / n**2
    return (float(table.trace()) / n - chance) / (1 - chance) if chance < 1 else 0.0


# --- the judge's own error ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Error:
    """How far the judge's values are from people's, on its scale.

    `row_sd` is the spread of a reply's error within a system. `system_sd` is the spread of systems'
    mean errors over `systems` systems that the judge had not seen: it does not shrink with more
    replies. None: unknown, because labels have no order or name too few systems.
    """

    row_sd: float | None
    system_sd: float | None
    systems: int

    @classmethod
    def unknown(cls) -> Error:
        """Of classes without an order: there are no values to be wrong."""
        return cls(None, None, 0)

    def to_json(self) -> dict[str, Any]:
        """A plain dict, for JSON, with what it means for 100 replies a system, and any number."""
        found: dict[str, Any] = dataclasses.asdict(self)
        found["smallest_difference_100"] = smallest_difference(self, 100)
        found["smallest_difference"] = smallest_difference(self, None)
        return found


def error_of(rows: Sequence[Labelled], gold: Matrix, judged: Judged) -> Error:
    """The error of values that were given to unseen rows (of unseen systems, if any are named)."""
    wrong = judged.values - gold
    by_system: dict[str, list[float]] = defaultdict(list)
    for row, off in zip(rows, wrong.tolist(), strict=True):
        if not math.isnan(off):
            by_system[row.system or ""].append(off)
    within = [off - float(np.mean(offs)) for offs in by_system.values() for off in offs]
    row_sd = float(np.std(within)) if within else None
    named = "" not in by_system and len(by_system) > 2
    means = [float(np.mean(offs)) for offs in by_system.values()]
    return Error(
        row_sd, float(np.std(means, ddof=1)) if named else None, len(means) if named else 0
    )


def smallest_difference(error: Error, replies: int | None) -> float | None:
    """The smallest true difference of two systems that the judge would show 4 times in 5.

    The standard formula for 80% power at a two-sided 5% (as `tunelm.scoring.statistics.mde`), with
    a variance of two systems' means that counts the judge's error against people in both ways it
    can be wrong: sqrt(2 (system_sd^2 + row_sd^2 / replies)), and Student's quantiles with one
    degree of freedom less than there were systems. It does not hold the spread of the replies
    themselves, which is added by whoever compares (`replies` each).

    Args:
        error: the judge's own.
        replies: of each system; None: however many there are.
    """
    from scipy.special import stdtrit

    if error.system_sd is None or error.row_sd is None:
        return None
    each = error.row_sd**2 / replies if replies else 0.0
    df = error.systems - 1
    reach = float(stdtrit(df, 1 - ALPHA / 2) + stdtrit(df, POWER))
    return reach * math.sqrt(2 * (error.system_sd**2 + each))
