"""Shares with intervals that respect small numbers, and counts as quantiles and histograms."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Share:
    """`count` of `of`, with its 95% Wilson interval; unknown (None) where `of` is 0."""

    count: int
    of: int
    share: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Bin:
    """How many rows have a length from `low` to `high`, both included."""

    low: int
    high: int
    rows: int


def share(count: int, of: int, per_row: float = 1.0) -> Share:
    """A share with its interval, on `of * per_row` independent units."""
    if not of:
        return Share(count, of, None, None, None)
    low, high = wilson(count / of, of * per_row)
    return Share(count, of, count / of, low, high)


def wilson(p: float, n: float, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval of a proportion: never empty at 0 or 1, sound for small n.

    Wilson 1927, Journal of the American Statistical Association 22, 209-212.

    >>> low, high = wilson(0.0, 10)
    >>> round(low, 4), round(high, 4)
    (0.0, 0.2775)
    """
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def difference(
    p: float, n: float, q: float, m: float, z: float = 1.959964
) -> tuple[float, float, float]:
    """(p - q, low, high) of two independent proportions, from their Wilson intervals.

    Newcombe 1998, Statistics in Medicine 17, 873-890, method 10; his example 56/70 and 48/80:

    >>> [round(x, 4) for x in difference(56 / 70, 70, 48 / 80, 80)]
    [0.2, 0.0524, 0.3339]
    """
    (p_low, p_high), (q_low, q_high) = wilson(p, n, z), wilson(q, m, z)
    low = p - q - math.hypot(p - p_low, q_high - q)
    return p - q, low, p - q + math.hypot(p_high - p, q - q_low)


def quantile(counts: Counter[int], q: float) -> int:
    """The smallest value that at least the share `q` of all do not exceed; 0 for none.

    >>> quantile(Counter([1, 2, 2, 9]), 0.5), quantile(Counter([1, 2, 2, 9]), 0.95)
    (2, 9)
    """
    need, seen, value = q * counts.total(), 0, 0
    for value in sorted(counts):
        seen += counts[value]
        if seen >= need:
            break
    return value


def histogram(counts: Counter[int], most: int = 12) -> tuple[Bin, ...]:
    """At most `most` bins of equal width, or doubling ones where a few rows are far longer.

    >>> [(b.low, b.high, b.rows) for b in histogram(Counter([3, 4, 12, 14]), most=3)]
    [(0, 4, 2), (5, 9, 0), (10, 14, 2)]
    """
    if not counts:
        return ()
    low, high = min(counts), max(counts)
    if high > 16 * max(1, quantile(counts, 0.5)):
        edges = [0 if low == 0 else 1 << (low.bit_length() - 1)]
        while edges[-1] <= high:
            edges.append(max(1, 2 * edges[-1]))
    else:
        step = next(s for s in _steps() if high // s - low // s < most)
        edges = [step * i for i in range(low // step, high // step + 2)]
    return tuple(
        Bin(a, b - 1, sum(n for value, n in counts.items() if a <= value < b))
        for a, b in itertools.pairwise(edges)
    )


def _steps() -> Iterator[int]:
    size = 1
    while True:
        yield from (size, 2 * size, 5 * size)
        size *= 10
