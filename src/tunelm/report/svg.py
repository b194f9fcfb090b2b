"""Interval plots as inline SVG, one strip a row, so that they fit any width of page.

Positions are percentages of the strip, and colours come from the page's style sheet: the
text and dots keep their size on a phone, and dark mode needs no second picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from markupsafe import Markup, escape

STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 25, 50)
"""Distances between ticks, in points, or in a metric's own unit."""


@dataclass(frozen=True)
class Axis:
    """A range in points, with its ticks."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """Where a value stands, in percent of the width; 3% are left free at both sides."""
        return 3 + 94 * (value - self.low) / (self.high - self.low)


def axis_for(values: list[float], floor: float | None = None, most: float | None = None) -> Axis:
    """An axis that holds all values, ending on ticks, at most six steps long.

    Args:
        values: in points; none at all gives 0 to 100.
        floor: the least value that can be, and the axis never goes below it.
        most: the greatest value that can be.

    >>> axis_for([41.0, 78.5], 0, 100).ticks
    (40, 50, 60, 70, 80)
    """
    low, high = (min(values), max(values)) if values else (0.0, 100.0)
    step = next((s for s in STEPS if (high - low) / s <= 5), STEPS[-1])
    while (high - low) / step > 5:
        step *= 2
    first, last = math.floor(low / step) * step, math.ceil(high / step) * step
    first = first if floor is None else max(first, floor)
    last = last if most is None else min(last, most)
    if first == last:
        last, first = (last, first - step) if last == most else (last + step, first)
    ticks = tuple(round(first + i * step, 9) for i in range(round((last - first) / step) + 1))
    return Axis(first, last, ticks)


def strip(
    axis: Axis,
    value: float | None,
    low: float | None,
    high: float | None,
    kind: str = "",
    reference: float | None = None,
    label: str = "",
) -> Markup:
    """One dot with its whisker, all in points.

    Args:
        axis: shared by the strips of a plot.
        value: where the dot stands; None draws the grid alone.
        low: the whisker's left end.
        high: its right end.
        kind: a CSS class for the colour.
        reference: a value that is marked by a dashed line, such as the baseline's.
        label: read out instead of the picture.
    """
    parts = [_line(axis.at(tick), axis.at(tick), 0, 32, "grid") for tick in axis.ticks]
    if reference is not None and axis.low <= reference <= axis.high:
        parts.append(_line(axis.at(reference), axis.at(reference), 0, 32, "reference"))
    if low is not None and high is not None:
        left, right = axis.at(low), axis.at(high)
        parts.append(_line(left, right, 16, 16, "whisker"))
        parts += [_line(x, x, 11, 21, "whisker") for x in (left, right)]
    if value is not None:
        parts.append(f'<circle class="dot" cx="{axis.at(value):.2f}%" cy="16" r="5.5"/>')
    return Markup(
        f'<svg class="strip {escape(kind)}" role="img" aria-label="{escape(label)}" '
        f'width="100%" height="32">{"".join(parts)}</svg>'
    )


def scale_strip(axis: Axis, sign: bool = False) -> Markup:
    """The numbers under a plot."""

    def number(tick: float) -> str:
        return f"{tick:+g}" if sign and tick else f"{tick:g}"

    texts = [
        f'<text x="{axis.at(tick):.2f}%" y="14" text-anchor="middle">{number(tick)}</text>'
        for tick in axis.ticks
    ]
    return Markup(
        f'<svg class="scale" aria-hidden="true" width="100%" height="18">{"".join(texts)}</svg>'
    )


def _line(x1: float, x2: float, y1: int, y2: int, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.2f}%" x2="{x2:.2f}%" y1="{y1}" y2="{y2}"/>'
