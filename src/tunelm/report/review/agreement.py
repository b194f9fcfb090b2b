"""How far raters agree beyond chance: Cohen's kappa for two, Krippendorff's alpha for more.

Both are 1 - D / E: the disagreement that is there over the one that chance would give. With
nominal distance any two marks are equally far apart; with linear distance no and yes are twice as
far apart as no and partly. Kappa: Cohen 1960, Educational and Psychological Measurement 20, 37-46,
and 1968, Psychological Bulletin 70, 213-220. Alpha: Krippendorff 2004, Content Analysis, chapter
11; it takes answers that not everybody rated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tunelm.judging.check import RESAMPLES
from tunelm.scoring.statistics import interval

Array = NDArray[np.float64]
Weights = Literal["nominal", "linear"]
WEIGHTS: tuple[Weights, ...] = ("nominal", "linear")
LEVELS = 3
"""no, partly, yes; or worse, equal, better."""

SAME = "everybody gave the same mark everywhere, so chance alone would agree as well"


@dataclass(frozen=True)
class Table:
    """What raters said of the same things: (R raters, n) places 0 to 2, NaN where one said nothing.

    `groups` are those of the n things; things of one group are not independent.
    """

    raters: tuple[str, ...]
    places: Array
    groups: tuple[str, ...]


def agreement_of(table: Table, seed: int = 0) -> dict[str, Any] | None:
    """Both coefficients with their intervals by group; None where nobody rated what another did.

    `same` is how often two raters gave the same mark, and `pairs` each two raters' kappa.
    """
    if len(table.raters) < 2:
        return None
    several = (~np.isnan(table.places)).sum(axis=0) > 1
    if not several.any():
        return None
    two = len(table.raters) == 2
    stats = cells(*table.places) if two else coincidences(table.places)
    of = kappa if two else alpha
    found: dict[str, Any] = {
        "measure": "Cohen's kappa" if two else "Krippendorff's alpha",
        "same": _same(table),
        "n": int(several.sum()),
        "n_groups": len({g for g, ok in zip(table.groups, several.tolist(), strict=True) if ok}),
    }
    for weights in WEIGHTS:
        found[weights] = _coefficient(stats, table.groups, partial(of, weights=weights), seed)
    found["pairs"] = [] if two else [_pair(table, a, b) for a, b in _pairs(table)]
    return found


def _coefficient(
    stats: Array, groups: Sequence[str], of: Callable[[Sequence[float]], float], seed: int
) -> dict[str, Any]:
    total = np.nansum(stats, axis=0)
    if _no_variation(total):
        return {"value": None, "ci_low": None, "ci_high": None, "reason": SAME}
    found = interval(stats, groups, of, seed=seed, resamples=RESAMPLES)
    low, high = found.low, found.high
    reason = None
    if low is not None and high is not None and low != high:
        low, high = max(low, -1.0), min(high, 1.0)
    else:  # no spread was seen, which does not mean that there is none
        low, high, reason = None, None, "no disagreement was seen, or too few groups"
    return {"value": found.value, "ci_low": low, "ci_high": high, "reason": reason}


def cells(first: Array, second: Array) -> Array:
    """(n, 9) a one in the cell (first, second) of each thing; NaN where one said nothing."""
    both = ~np.isnan(first + second)
    found = np.full((len(first), LEVELS * LEVELS), np.nan)
    found[both] = 0.0
    at = (first[both] * LEVELS + second[both]).astype(np.int64)
    found[np.flatnonzero(both), at] = 1.0
    return found


def kappa(sums: Sequence[float], weights: Weights = "nominal") -> float:
    """Cohen's kappa from summed `cells`; 0 where chance explains everything.

    >>> kappa([2, 0, 0, 0, 0, 0, 0, 0, 2]), kappa([1, 0, 1, 0, 0, 0, 1, 0, 1])
    (1.0, 0.0)
    """
    table = np.reshape(sums, (LEVELS, LEVELS))
    chance = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    return _beyond_chance(table, chance, weights)


def coincidences(places: Array) -> Array:
    """(n, 9) of each thing the ordered pairs of its marks, over its marks less one."""
    counts = np.stack([(places == level).sum(axis=0) for level in range(LEVELS)], axis=1)
    marks = counts.sum(axis=1)
    pairs = counts[:, :, None] * counts[:, None, :] - np.stack([np.diag(c) for c in counts])
    found = np.full((len(counts), LEVELS * LEVELS), np.nan)
    many = marks > 1
    found[many] = pairs[many].reshape(-1, LEVELS * LEVELS) / (marks[many, None] - 1)
    return found


def alpha(sums: Sequence[float], weights: Weights = "nominal") -> float:
    """Krippendorff's alpha from summed `coincidences`; 0 where chance explains everything."""
    table = np.reshape(sums, (LEVELS, LEVELS))
    marks = table.sum(axis=0)
    chance = (np.outer(marks, marks) - np.diag(marks)) / max(1.0, float(marks.sum()) - 1)
    return _beyond_chance(table, chance, weights)


def _beyond_chance(table: Array, chance: Array, weights: Weights) -> float:
    level = np.arange(LEVELS)
    apart = np.abs(level[:, None] - level[None, :]).astype(np.float64)
    if weights == "nominal":
        apart = (apart > 0).astype(np.float64)
    expected = float((apart * chance).sum())
    return 1.0 - float((apart * table).sum()) / expected if expected > 1e-12 else 0.0


def _no_variation(sums: Array) -> bool:
    table = np.reshape(sums, (LEVELS, LEVELS))
    return int((table.sum(axis=0) + table.sum(axis=1) > 0).sum()) < 2


def _pairs(table: Table) -> list[tuple[int, int]]:
    return list(combinations(range(len(table.raters)), 2))


def _pair(table: Table, a: int, b: int) -> dict[str, Any]:
    both = cells(table.places[a], table.places[b])
    sums, n = np.nansum(both, axis=0), int((~np.isnan(both[:, 0])).sum())
    known = n > 0 and not _no_variation(sums)
    found = {w: kappa(sums.tolist(), w) if known else None for w in WEIGHTS}
    return {"a": table.raters[a], "b": table.raters[b], "n": n, **found}


def _same(table: Table) -> float:
    """The share of pairs of marks on one thing that are the same."""
    both = [cells(table.places[a], table.places[b]) for a, b in _pairs(table)]
    sums = np.nansum(np.concatenate(both), axis=0).reshape(LEVELS, LEVELS)
    return float(sums.trace() / sums.sum())
