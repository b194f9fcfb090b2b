"""Which of two routes' answers people like better, row by row."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from tunelm.report.evidence import finite
from tunelm.report.review.agreement import Table
from tunelm.report.review.items import Item
from tunelm.report.review.rated import Rated, correct, mean, paired_json, stats_of
from tunelm.report.review.ratings import Ratings
from tunelm.scoring.statistics import interval


def preferences(rated: Rated) -> list[dict[str, Any]]:
    """How often each route's answer is liked better than another's, a tie counting one half.

    A best letter says that its answer is better than the others; of two that are not the best it
    says nothing, and they are left out. The same text is a tie.
    """
    found: list[dict[str, Any]] = []
    for b, a in combinations(rated.sheet.routes, 2):
        said = np.array([[_won(one, i, a, b) for i in rated.sheet.items] for one in rated.ratings])
        share = mean(said)
        level = interval(stats_of(share), rated.groups, scale=1.0)
        pair = paired_json(share, 1 - share, rated.groups)
        found.append(
            {
                "a": a,
                "b": b,
                "share": finite(level.value),
                "share_low": finite(level.low),
                "share_high": finite(level.high),
                **pair,
                # a share of s is a difference of 2 s - 1 between what was won and what was lost
                "mde": None if pair["mde"] is None else pair["mde"] / 2,
                "wins": int((said == 1).sum()),
                "ties": int((said == 0.5).sum()),
                "losses": int((said == 0).sum()),
                "not_told": int(np.isnan(said).sum()),
            }
        )
    correct(found)
    return found


def _won(one: Ratings, item: Item, a: str, b: str) -> float:
    """1 where a rater likes a's answer better, 0 for b's, one half for a tie, NaN: not told."""
    ours, theirs = item.answer_of(a).letter, item.answer_of(b).letter
    best = one.best.get(item.number)
    if ours == theirs:
        seen = best or any(one.marks.get((item.number, x.letter)) for x in item.answers)
        return 0.5 if seen else float("nan")
    if not best or not best & {ours, theirs}:
        return float("nan")
    return (1.0 + (ours in best) - (theirs in best)) / 2


def first_place(rated: Rated) -> dict[str, Any]:
    """Of items with one best answer: how often it was A, and how often chance would make it A."""
    single = [
        (best, len(rated.sheet.items[number - 1].answers))
        for one in rated.ratings
        for number, best in one.best.items()
        if len(best) == 1 < len(rated.sheet.items[number - 1].answers)
    ]
    return {
        "n": len(single),
        "picked": sum("A" in best for best, _ in single),
        "by_chance": sum(1 / answers for _, answers in single),
    }


def preference_table(rated: Rated) -> Table:
    """Every two answers to an item: 0 for the first, 1 for a tie, 2 for the second."""
    pairs = [
        (item, x.letter, y.letter)
        for item in rated.sheet.items
        for x, y in combinations(item.answers, 2)
    ]
    places = [
        [_side(one.best.get(item.number), x, y) for item, x, y in pairs] for one in rated.ratings
    ]
    array = np.array(places, dtype=np.float64).reshape(len(rated.ratings), len(pairs))
    return Table(rated.raters, array, tuple(item.group for item, _, _ in pairs))


def _side(best: frozenset[str] | None, x: str, y: str) -> float:
    if not best or not best & {x, y}:
        return float("nan")
    return 1.0 - (x in best) + (y in best)
