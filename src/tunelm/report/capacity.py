"""How many students at once, from what a load showed: measured without pauses, reckoned with them.

With pauses it is the machine-repairman queue whose rate of service depends on the load (as in Bolch
et al., Queueing Networks and Markov Chains): N students, each writing again on average PAUSE
seconds after an answer; with n messages under way, answers come at the rate that was measured with
n students who never pause. A message finds the state that N - 1 students would be in (the arrival
theorem).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

SHARE = 0.95
"""Which part of the messages must find room."""
MOST = 10_000
"""Students beyond whom nobody asks."""

Levels = Sequence[Mapping[str, Any]]


def kept_limit(level: Mapping[str, Any], limit_s: float) -> bool:
    """Whether every message of a level was answered, 95 of 100 within the limit."""
    p95 = level["reply_s"]["p95"]
    unanswered = level["failed"] or level["refused"]
    return not unanswered and p95 is not None and p95 <= limit_s


def without_pauses(levels: Levels, limit_s: float) -> int:
    """The most students at once with every level up to theirs within the limit; 0 for none."""
    good = itertools.takewhile(lambda level: kept_limit(level, limit_s), levels)
    return max((int(level["students"]) for level in good), default=0)


def with_pauses(levels: Levels, limit_s: float, pause_s: float) -> int:
    """The most students who write again `pause_s` seconds after each answer.

    So many that 95 of 100 messages find fewer than `without_pauses` others under way. Never fewer
    than that; 0 where that is 0; at most MOST.
    """
    room = without_pauses(levels, limit_s)
    if not room:
        return 0
    low, high = room, MOST + 1  # low is enough room, high is not
    while high - low > 1:
        middle = (low + high) // 2
        if finds_room(levels, middle, room, pause_s) >= SHARE:
            low = middle
        else:
            high = middle
    return low


def finds_room(levels: Levels, students: int, room: int, pause_s: float) -> float:
    """Which part of the messages of so many students find fewer than `room` others under way."""
    others = students - 1
    weights = [0.0]  # logarithms: the weights of a thousand students are beyond any float
    for n in range(1, others + 1):
        weights.append(
            weights[-1] + math.log((others - n + 1) / pause_s) - math.log(rate(levels, n))
        )
    most = max(weights)
    sizes = [math.exp(weight - most) for weight in weights]
    return sum(sizes[:room]) / sum(sizes)


def rate(levels: Levels, under_way: int) -> float:
    """Answers a second with so many under way: as measured, and on straight lines between.

    Beyond the highest level it stays what it was there.
    """
    known = ((level["students"], level["replies_per_second"]) for level in levels)
    points = [(0, 0.0), *(point for point in known if point[1])]
    for (a, slow), (b, fast) in itertools.pairwise(points):
        if under_way <= b:
            return slow + (fast - slow) * (under_way - a) / (b - a)
    return points[-1][1]
