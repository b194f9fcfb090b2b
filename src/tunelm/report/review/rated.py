"""Ratings as arrays, and what every figure of them is made with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelm.report.evidence import finite, paired_fields
from tunelm.report.read import Run, SeedRun
from tunelm.report.review.criteria import OVERALL
from tunelm.report.review.items import Answer, Item, Sheet
from tunelm.report.review.ratings import Ratings
from tunelm.scoring.statistics import holm, mde, paired, verdict

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Rated:
    """Ratings as arrays. A unit is an answer that was shown.

    `marks` is (R raters, U units, criteria and their mean), NaN where a mark was left open.
    """

    sheet: Sheet
    ratings: Sequence[Ratings]
    units: tuple[tuple[Item, Answer], ...]
    names: tuple[str, ...]
    marks: Array

    @classmethod
    def of(cls, sheet: Sheet, ratings: Sequence[Ratings]) -> Rated:
        """The raters' marks side by side."""
        units = tuple((item, answer) for item in sheet.items for answer in item.answers)
        names = [c.name for c in sheet.criteria]
        given = [
            [
                [one.marks.get((i.number, a.letter), {}).get(name, np.nan) for name in names]
                for i, a in units
            ]
            for one in ratings
        ]
        marks = np.array(given, dtype=np.float64)
        if len(names) > 1:  # of one criterion alone the mean is that criterion
            names.append(OVERALL)
            marks = np.concatenate([marks, marks.mean(axis=2, keepdims=True)], axis=2)
        return cls(sheet, ratings, units, tuple(names), marks)

    @property
    def raters(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(one.rater for one in self.ratings)

    @property
    def groups(self) -> list[str]:
        """The group of each item."""
        return [item.group for item in self.sheet.items]

    @property
    def headline(self) -> int:
        """The place in `names` of what stands for all criteria."""
        return len(self.names) - 1

    @cached_property
    def units_of(self) -> dict[str, list[int]]:
        """For each route the place of its unit in every item."""
        at = {(i.number, a.letter): place for place, (i, a) in enumerate(self.units)}
        return {
            route: [at[i.number, i.answer_of(route).letter] for i in self.sheet.items]
            for route in self.sheet.routes
        }


def paired_json(ours: Array, theirs: Array, groups: Sequence[str]) -> dict[str, Any]:
    """Two sides of the same rows: the paired difference, and the smallest that would be found."""
    x, y = stats_of(ours), stats_of(theirs)
    found = paired(x, y, groups, scale=1.0)
    return {
        **paired_fields(found),
        "p_holm": None,
        "verdict": None,
        # two that never differ show no spread, and so no smallest difference
        "mde": finite(mde(x, y, groups)) or None,
    }


def correct(family: Sequence[dict[str, Any]]) -> None:
    """Holm's correction over comparisons, and with it their verdicts; changes them."""
    for pair, adjusted in zip(family, holm([pair["p"] for pair in family]), strict=True):
        pair["p_holm"] = adjusted
        pair["verdict"] = verdict(pair["diff"], adjusted)


def stats_of(values: Array) -> Array:
    """(n, 2) what a mean is made of; a row of NaN where nobody rated."""
    return np.stack([values, values * 0 + 1], axis=1)


def mean(marks: Array) -> Any:
    """The mean over the first axis of what is known, NaN where nothing is."""
    known = ~np.isnan(marks)
    count = known.sum(axis=0)
    total = np.where(known, marks, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def seed_of(run: Run, sheet: Sheet, route: str) -> SeedRun | None:
    """What a route left under the seed that the sheet shows."""
    seeds = (s for r in run.routes if r.name == route for s in r.finished)
    return next((s for s in seeds if s.seed == sheet.seeds[route]), None)
