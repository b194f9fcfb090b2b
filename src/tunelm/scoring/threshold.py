"""From which confidence on it pays to answer. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Sequence


def best_threshold(
    sure: Sequence[float], answered: Sequence[float], declined: Sequence[float]
) -> float:
    """The confidence from which on answering is worth most in sum over some rows.

    Args:
        sure: of each row, how sure the answer is.
        answered: what the row is worth with that answer; more is better.
        declined: what it is worth when the answer is held back.

    Thresholds stand halfway between neighbouring confidences; 0 keeps every answer, and one just
    above the highest holds every one back. Of equally good ones the lowest, which answers most.

    >>> best_threshold([0.9, 0.2, 0.6], [1, 0, 1], [0.5, 0.5, 0.5])
    0.4
    """
    rows = sorted(zip(sure, answered, declined, strict=True), reverse=True)
    if not rows:
        return 0.0
    gain = most = 0.0
    best = math.nextafter(rows[0][0], math.inf)
    for place, (at, with_answer, without) in enumerate(rows):
        gain += with_answer - without
        below = rows[place + 1][0] if place + 1 < len(rows) else None
        if below == at:
            continue
        if gain >= most - 1e-12:
            most = max(gain, most)
            best = 0.0 if below is None else (at + below) / 2
    return best
