"""How far the run's own metrics agree with people: whether one may choose by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tunelm.judging.check import RESAMPLES, correlation, pairs_of, rank_statistics
from tunelm.judging.labels import Labelled
from tunelm.report.evidence import finite
from tunelm.report.read import Run
from tunelm.report.review.rated import Array, Rated, mean, seed_of, stats_of
from tunelm.scoring.metric import Metric
from tunelm.scoring.metrics import score_row
from tunelm.scoring.statistics import Interval, interval
from tunelm.types import Example


def beside_metrics(run: Run, rated: Rated, examples: Mapping[str, Example]) -> dict[str, Any]:
    """How far each metric that scores single rows puts answers in people's order.

    `pairwise`: of two answers to one item that people rate differently (the mean of all criteria
    and raters), how often the metric puts the same one first; `pairwise_best` the same for how
    often each was called the best. `spearman`: over all answers. Where less of a metric is better
    it is turned round.
    """
    ratings = mean(rated.marks[:, :, rated.headline])
    chosen = mean(_best_marks(rated))
    found: dict[str, Any] = {}
    for name, metric in run.metrics.items():
        if not metric.per_row or run.part_of(metric, "test") != rated.sheet.part:
            continue
        values = metric.sign * _metric_values(run, rated, metric, examples)
        by_ratings = _figures(rated, ratings, values, examples)
        by_best = _figures(rated, chosen, values, examples)
        found[name] = {
            "pairwise": by_ratings["pairwise"],
            "spearman": by_ratings["spearman"],
            "pairwise_best": by_best["pairwise"],
        }
    return found


def _best_marks(rated: Rated) -> Array:
    """(R, U) 1 for the best of an item, 0 for others, NaN where a rater did not say."""
    told = [
        [
            np.nan if (best := one.best.get(item.number)) is None else float(answer.letter in best)
            for item, answer in rated.units
        ]
        for one in rated.ratings
    ]
    return np.array(told, dtype=np.float64)


def _metric_values(
    run: Run, rated: Rated, metric: Metric, examples: Mapping[str, Example]
) -> Array:
    """(U,) the metric's value of each answer; NaN where it has none."""
    seeds = {name: seed_of(run, rated.sheet, name) for name in rated.sheet.routes}
    values: list[float] = []
    for item, answer in rated.units:
        seed = seeds[answer.routes[0]]
        row = seed.by_example[rated.sheet.part].get(item.example) if seed else None
        value = finite(score_row(metric, examples[item.example], row).value)
        values.append(float("nan") if value is None else value)
    return np.array(values)


def _figures(
    rated: Rated, people: Array, values: Array, examples: Mapping[str, Example]
) -> dict[str, Any]:
    """`pairwise` and `spearman` of some values beside people's, of the answers that have both."""
    kept = np.flatnonzero(~np.isnan(people + values))
    rows = _labelled(rated, people, kept.tolist(), examples)
    if not rows:
        return {"pairwise": None, "spearman": None}
    right, groups = _in_order(rows, people[kept], values[kept])
    ranks = rank_statistics(values[kept], people[kept])
    spearman = interval(ranks, [row.group for row in rows], correlation, resamples=RESAMPLES)
    return {
        "pairwise": _as_json(interval(stats_of(right), groups, scale=1.0)),
        "spearman": _as_json(spearman),
    }


def one_beside_others(rated: Rated, examples: Mapping[str, Example]) -> dict[str, Any] | None:
    """How often one rater puts two answers in the order of the others' mean: what a metric can
    hardly beat. None with one rater.
    """  # noqa: D205
    marks = rated.marks[:, :, rated.headline]
    rights: list[Array] = []
    groups: list[str] = []
    for at in range(len(marks) * (len(marks) > 1)):
        people, values = mean(np.delete(marks, at, axis=0)), marks[at]
        kept = np.flatnonzero(~np.isnan(people + values))
        rows = _labelled(rated, people, kept.tolist(), examples)
        right, its = _in_order(rows, people[kept], values[kept])
        rights.append(right)
        groups += its
    return (
        _as_json(interval(stats_of(np.concatenate(rights)), groups, scale=1.0)) if rights else None
    )


def _labelled(
    rated: Rated, people: Array, places: Sequence[int], examples: Mapping[str, Example]
) -> list[Labelled]:
    units = [(place, *rated.units[place]) for place in places]
    return [
        Labelled(examples[i.example], a.text, float(people[at]), i.group, None, i.example)
        for at, i, a in units
    ]


def _in_order(rows: Sequence[Labelled], people: Array, values: Array) -> tuple[Array, list[str]]:
    """Of each two answers to an item that people rate differently: 1 where the values agree."""
    pairs = pairs_of(rows, people)
    return pairs.agreeing(values), pairs.groups


def _as_json(found: Interval) -> dict[str, Any] | None:
    if not found.n or found.value is None:
        return None
    # no spread was seen, which does not mean that there is none
    same = found.low == found.high
    return {
        "value": finite(found.value),
        "ci_low": None if same else finite(found.low),
        "ci_high": None if same else finite(found.high),
        "n": found.n,
        "n_groups": found.n_groups,
    }
