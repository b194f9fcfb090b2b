"""What a route's confidence is worth: a threshold fixed on dev, and risk against coverage."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunelm.report.evidence import Answers, Array
from tunelm.report.read import Run, SeedRun
from tunelm.report.words import between, count, points, signed, signed_between
from tunelm.scoring.faq_metrics import UTILITY, Found, Verdict, look
from tunelm.scoring.statistics import Interval, interval, paired
from tunelm.scoring.threshold import best_threshold
from tunelm.types import Example

LEVELS = 100
"""Most steps of coverage that the area under risk and coverage is added up from."""
KEPT = (1.0, 0.8, 0.5)
"""The shares of the answers, the surest first, whose risk is shown."""
_OWN = "nearest"


@dataclass(frozen=True)
class Row:
    """One row of a seed that did not fail. `sure` None: the answer came without a confidence."""

    found: Found
    sure: float | None

    @property
    def worth(self) -> float:
        """Its utility as it stands."""
        return UTILITY[self.found.verdict]

    @property
    def held_back(self) -> float:
        """Its utility when it is declined."""
        return UTILITY[Verdict.DECLINED_WRONG if self.found.answerable else Verdict.DECLINED_RIGHT]

    def kept(self, threshold: float) -> bool:
        """Whether the answer, where it is one, stands at a threshold."""
        return self.found.answered and (self.sure is None or self.sure >= threshold)


Rows = list[Row | None]


def sureness_tables(run: Run, answers: Sequence[Answers]) -> list[dict[str, Any]]:
    """Two tables of the routes that say how sure they are; none where no route does."""
    sure: list[Answers] = []
    without: list[str] = []
    for found in answers:
        if all(_is_sure(rows) for part in ("dev", "test") for rows in _rows(run, found, part)):
            sure.append(found)
        else:
            without.append(found.route.name)
    if not sure:
        return []
    groups = [row.group for row in run.parts["test"]]
    missing = f" Without an answer that has one: {', '.join(without)}." if without else ""
    return [
        {
            "heading": "With a threshold on confidence, fixed on dev",
            "note": f"On each route's {len(run.parts['dev'])} dev rows the threshold was chosen "
            "below which declining, instead of its answer, is worth most; here it is put to the "
            "test rows. This is what could be gained: a served model answers without it, but for "
            f"{_OWN} with `decline`, whose answers have passed a threshold of its own already. "
            f"Utility and shares in points.{missing}",
            "rows": [_with_threshold(run, found, groups) for found in sure],
        },
        {
            "heading": "Whether confidence knows a wrong answer",
            "note": "AURC is the mean share of wrong answers over all shares of a route's answers "
            "that could be kept, the surest first (Geifman and El-Yaniv 2017, arXiv 1705.08500); "
            "less is better. A confidence that knows nothing has the AURC that all answers have "
            "as their share of wrong ones.",
            "rows": [_sorted_by(run, found, groups) for found in sure],
        },
    ]


def _is_sure(rows: Rows) -> bool:
    """Whether any answer has a confidence."""
    return any(row is not None and row.found.answered and row.sure is not None for row in rows)


def _rows(run: Run, answers: Answers, part: str) -> list[Rows]:
    """By seed, in the order of the part."""
    return [[_row(seed, part, row) for row in run.parts[part]] for seed in answers.route.finished]


def _row(seed: SeedRun, part: str, example: Example) -> Row | None:
    prediction = seed.by_example[part].get(example.id)
    if prediction is None or prediction.output is None:
        return None
    return Row(look(prediction.output, example), (prediction.facts or {}).get("confidence"))


def _threshold(dev: Rows) -> float:
    known = [row for row in dev if row is not None and row.found.answered]
    known = [row for row in known if row.sure is not None]
    return best_threshold(
        [row.sure or 0.0 for row in known],
        [row.worth for row in known],
        [row.held_back for row in known],
    )


def _with_threshold(run: Run, answers: Answers, groups: Sequence[str]) -> dict[str, str]:
    """A route's test rows at the thresholds that its dev rows fixed, one a seed."""
    thresholds = [_threshold(rows) for rows in _rows(run, answers, "dev")]
    test = _rows(run, answers, "test")
    seeds = list(zip(test, thresholds, strict=True))

    def stats(value: Any) -> Array:
        return np.array(
            [
                [(math.nan, math.nan) if row is None else value(row, at) for row in rows]
                for rows, at in seeds
            ]
        )

    def of_kept(row: Row, at: float) -> tuple[float, float]:
        wrong = row.found.verdict == Verdict.ANSWERED_WRONG
        return (float(wrong), 1.0) if row.kept(at) else (math.nan, math.nan)

    held = stats(lambda row, at: (row.worth if row.kept(at) else row.held_back, 1.0))
    plain = stats(lambda row, at: (row.worth, 1.0))
    cover = interval(stats(lambda row, at: (float(row.kept(at)), 1.0)), groups, scale=1.0)
    risk, utility = interval(stats(of_kept), groups, scale=1.0), interval(held, groups, scale=1.0)
    gain = paired(held, plain, groups, scale=1.0)
    return {
        "route": answers.route.name,
        "threshold": ", ".join(f"{at:.3f}" for at in thresholds),
        "answered": points(cover.value),
        "of these wrong": shown(risk),
        "utility": shown(utility),
        "gain over all answers": f"{signed(gain.diff)} ({signed_between(gain.low, gain.high)})",
    }


def _sorted_by(run: Run, answers: Answers, groups: Sequence[str]) -> dict[str, str]:
    test = _rows(run, answers, "test")
    cells = {"route": answers.route.name, "AURC": shown(aurc(test, groups))}
    for share in KEPT:
        name = "wrong of all answers" if share == 1 else f"of the surest {share:.0%}"
        cells[name] = shown(risk_of_surest(test, groups, share))
    return cells


def aurc(seeds: Sequence[Rows], groups: Sequence[str]) -> Interval:
    """The area under risk against coverage, with its interval by group.

    Coverage is the share of the answers that are kept, the surest first. Each row adds, to every
    step of coverage, whether its answer is wrong and whether it is kept at all. The steps stand at
    fixed confidences, so their sums over any rows give an area, and rows can be resampled.
    """
    most = max(sum(row is not None and _has(row) for row in rows) for rows in seeds)
    steps = min(most, LEVELS)
    area = interval(
        _steps(seeds, [(step + 1) / steps for step in range(steps)]), groups, _area, scale=1.0
    )
    if area.low is None or area.high is None or area.high - area.low > 1e-9:
        return area
    risk = risk_of_surest(seeds, groups, 1.0)  # all right, or all wrong: no step differs from it
    return dataclasses.replace(area, low=risk.low, high=risk.high)


def risk_of_surest(seeds: Sequence[Rows], groups: Sequence[str], share: float) -> Interval:
    """The share of wrong ones among the surest answers, with its interval by group."""
    return interval(_steps(seeds, [share]), groups, scale=1.0)


def _has(row: Row) -> bool:
    return row.found.answered and row.sure is not None


def _steps(seeds: Sequence[Rows], shares: Sequence[float]) -> Array:
    """(seeds, rows, 2 x steps): (wrong and kept, kept) at each share of a seed's answers.

    NaN in rows without an answer, and at a single share in those not kept: they are no part of it.
    """
    table = np.full((len(seeds), len(seeds[0]), 2 * len(shares)), math.nan)
    for place, rows in enumerate(seeds):
        sure = sorted((row.sure or 0.0 for row in rows if row and _has(row)), reverse=True)
        limits = [sure[math.ceil(share * len(sure) - 1e-9) - 1] for share in shares]
        for number, row in enumerate(rows):
            if row is None or not _has(row):
                continue
            kept = [row.kept(limit) for limit in limits]
            if len(shares) == 1 and not kept[0]:
                continue
            wrong = row.found.verdict == Verdict.ANSWERED_WRONG
            table[place, number] = [float(x) for k in kept for x in (k and wrong, k)]
    return table


def _area(vector: Sequence[float]) -> float:
    """Risk at each step times the coverage it adds, from (wrong, kept) of each step."""
    total = vector[-1]
    if not total:
        return math.nan
    area = before = 0.0
    for wrong, kept in zip(vector[::2], vector[1::2], strict=True):
        if kept:
            area += wrong / kept * (kept - before) / total
        before = kept
    return area


def shown(found: Interval) -> str:
    """A share in points with its interval and n.

    >>> shown(Interval(0.5, 0.4, 0.6, 20, 10)), shown(Interval(None, None, None, 0, 0))
    ('50.0 (40.0 to 60.0), n = 20', 'unknown')
    """
    if found.value is None:
        return points(None)
    return f"{points(found.value)} ({between(found.low, found.high)}), n = {count(found.n)}"
