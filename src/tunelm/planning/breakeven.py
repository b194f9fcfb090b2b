"""From which volume on one route costs less than another: exact, and it may be never.

Both are `Curve`s, of straight pieces, so their difference is a straight line between the volumes
at which one machine is full: each piece is solved by itself.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from tunelm.planning.costs import Curve

NEVER = "never"
FROM_THE_FIRST = "from the first"
SAME = "the same"
BETWEEN = "between"
FROM = "from"
UP_TO = "up to"

_TIE = 1e-12
"""Differences of less than this share of what is subtracted are rounding."""


@dataclass(frozen=True, slots=True)
class BreakEven:
    """The volumes at which the second route costs less than the first.

    `spans` are open intervals, units a month, in order; the last may end at infinity.
    """

    spans: tuple[tuple[float, float], ...]
    same: bool = False

    @property
    def kind(self) -> str:
        """One of the words above: how the spans lie."""
        if self.same:
            return SAME
        if not self.spans:
            return NEVER
        (low, high), several = self.spans[0], len(self.spans) > 1
        if several or (low > 0 and high < math.inf):
            return BETWEEN
        if low > 0:
            return FROM
        return FROM_THE_FIRST if high == math.inf else UP_TO


def break_even(first: Curve, second: Curve) -> BreakEven:
    """Where `second` costs less than `first`.

    >>> break_even(Curve(0, 0.002), Curve(10, 0.001)).spans
    ((10000.0, inf),)
    >>> break_even(Curve(0, 0.001), Curve(10, 0.002)).kind
    'never'
    """
    kinks = sorted({0.0, first.capacity, second.capacity, math.inf})
    found: list[tuple[float, float]] = []
    same = True
    for low, high in itertools.pairwise(kinks):
        (base_a, slope_a), (base_b, slope_b) = _line(first, low), _line(second, low)
        base, slope = _less(base_b, base_a), _less(slope_b, slope_a)
        same = same and base == slope == 0
        part = _below_zero(base, slope, low, high)
        if part is None:
            continue
        if found and found[-1][1] == part[0]:
            found[-1] = (found[-1][0], part[1])
        else:
            found.append(part)
    return BreakEven(tuple(found), same)


def _line(curve: Curve, low: float) -> tuple[float, float]:
    """(base, slope) of the piece that begins at `low`."""
    if low < curve.capacity:
        return curve.base + curve.rent, curve.per_unit
    return curve.base, curve.per_unit + curve.rent / curve.capacity


def _less(a: float, b: float) -> float:
    return 0.0 if math.isclose(a, b, rel_tol=_TIE, abs_tol=0.0) else a - b


def _below_zero(base: float, slope: float, low: float, high: float) -> tuple[float, float] | None:
    """Where `base + slope * n` is below 0 between two volumes."""
    if slope == 0:
        return (low, high) if base < 0 else None
    zero = -base / slope
    start, end = (max(low, zero), high) if slope < 0 else (low, min(high, zero))
    return (start, end) if start < end else None
