"""What people's ratings say of the routes, of each other, and of the run's own metrics.

Rows are what is resampled and tested, by group; raters are taken as they are, and each row counts
once however many rated it. So an interval is about other rows, and not about other people: how far
people differ is said by their agreement and by each one's own means.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from tunelm.errors import RunDirError
from tunelm.report.evidence import finite, interval_fields
from tunelm.report.read import Run
from tunelm.report.review.agreement import Table, agreement_of
from tunelm.report.review.beside_metrics import beside_metrics, one_beside_others
from tunelm.report.review.criteria import PREFERENCE
from tunelm.report.review.items import Sheet, as_shown
from tunelm.report.review.preferences import first_place, preference_table, preferences
from tunelm.report.review.rated import Rated, correct, mean, paired_json, seed_of, stats_of
from tunelm.report.review.ratings import Ratings
from tunelm.scoring.statistics import interval
from tunelm.types import Example


def review(run: Run, sheet: Sheet, ratings: Sequence[Ratings]) -> dict[str, Any]:
    """Everything that `scores.json` holds. Unknown is null, and every figure has its n.

    Raises RunDirError where the run's answers are no longer those of the sheet.
    """
    examples = _same_answers(run, sheet)
    rated = Rated.of(sheet, ratings)
    return {
        "sheet": sheet.hash,
        "task": sheet.task,
        "of": "conversations" if sheet.of_conversations else "rows",
        "items": len(sheet.items),
        "groups": len(set(rated.groups)),
        "criteria": [dataclasses.asdict(c) for c in sheet.criteria],
        "routes": [{"name": name, "seed": seed} for name, seed in sheet.seeds.items()],
        "raters": [_filled(one, sheet) for one in ratings],
        "scores": {route: _scores(rated, route) for route in sheet.routes},
        "pairs": _differences(rated),
        "preferences": preferences(rated),
        "agreement": _agreement(rated),
        "metrics": beside_metrics(run, rated, examples),
        "one_rater": one_beside_others(rated, examples),
        "primary_metric": run.primary,
        "first_place": first_place(rated),
        "comments": _comments(rated),
        "warnings": _warnings(ratings),
    }


def _same_answers(run: Run, sheet: Sheet) -> dict[str, Example]:
    """The run's rows by id. Raises RunDirError where it answers another way than on the sheet."""
    examples = {e.id: e for e in run.parts.get(sheet.part, ())}
    for name in sheet.routes:
        seed = seed_of(run, sheet, name)
        outputs = seed.outputs[sheet.part] if seed else {}
        for item in sheet.items:
            now = outputs.get(item.example)
            same = now is not None and as_shown(now, sheet.part) == item.answer_of(name).text
            if not same or item.example not in examples:
                raise RunDirError(
                    f"{run.path}: route {name} has another answer to item {item.number} than when "
                    "the sheet was written: it was run again since. Write a new sheet with --out."
                )
    return examples


def _filled(one: Ratings, sheet: Sheet) -> dict[str, Any]:
    """How much of the sheet a rater filled in."""
    answers = [(i.number, a.letter) for i in sheet.items for a in i.answers]
    marked = [len(one.marks.get(place, {})) for place in answers]
    comparable = [item for item in sheet.items if len(item.answers) > 1]
    full = sum(n == len(sheet.criteria) for n in marked)
    return {
        "name": one.rater,
        "file": one.file,
        "answers": len(answers),
        "full": full,
        "half": sum(n > 0 for n in marked) - full,
        "open": sum(n == 0 for n in marked),
        "best": sum(item.number in one.best for item in comparable),
        "items": len(comparable),
    }


# --- scores and differences -----------------------------------------------------------------------


def _scores(rated: Rated, route: str) -> dict[str, dict[str, Any]]:
    """By criterion the mean of the rows' means over raters."""
    units = rated.units_of[route]
    found: dict[str, dict[str, Any]] = {}
    for at, name in enumerate(rated.names):
        marks = rated.marks[:, units, at]
        one = interval(stats_of(mean(marks)), rated.groups, scale=1.0)
        found[name] = {
            **interval_fields(one),
            "by_rater": {
                rater: finite(mean(row)) for rater, row in zip(rated.raters, marks, strict=True)
            },
        }
    return found


def _differences(rated: Rated) -> list[dict[str, Any]]:
    """Every pair of routes by every criterion, on rows that somebody rated both answers of.

    Holm's correction runs over the pairs for the mean of all criteria, and over pairs and criteria
    together for the others.
    """
    found = [
        _difference(rated, a, b, at)
        for at in range(len(rated.names))
        for b, a in combinations(rated.sheet.routes, 2)
    ]
    headline = rated.names[rated.headline]
    for family in (
        [pair for pair in found if pair["criterion"] == headline],
        [pair for pair in found if pair["criterion"] != headline],
    ):
        correct(family)
    return found


def _difference(rated: Rated, a: str, b: str, at: int) -> dict[str, Any]:
    ours, theirs = (rated.marks[:, rated.units_of[name], at] for name in (a, b))
    both = ~np.isnan(ours + theirs)
    ours, theirs = (mean(np.where(both, marks, np.nan)) for marks in (ours, theirs))
    found = paired_json(ours, theirs, rated.groups)
    return {"a": a, "b": b, "criterion": rated.names[at], **found}


# --- raters with each other -----------------------------------------------------------------------


def _agreement(rated: Rated) -> dict[str, Any]:
    """By criterion, and on which of two answers to an item is better; None with one rater."""
    groups = tuple(item.group for item, _ in rated.units)
    found = {
        c.name: agreement_of(Table(rated.raters, rated.marks[:, :, at] * 2, groups))
        for at, c in enumerate(rated.sheet.criteria)
    }
    found[PREFERENCE] = agreement_of(preference_table(rated))
    return found


# --- what else was said ---------------------------------------------------------------------------


def _comments(rated: Rated) -> list[dict[str, Any]]:
    return [
        {
            "rater": one.rater,
            "item": item.number,
            "letter": answer.letter,
            "routes": list(answer.routes),
            "text": text,
        }
        for item, answer in rated.units
        for one in rated.ratings
        if (text := one.comments.get((item.number, answer.letter)))
    ]


def _warnings(ratings: Sequence[Ratings]) -> list[str]:
    found = [
        f"{x.rater} and {y.rater} gave the very same marks and comments: is it one file twice?"
        for x, y in combinations(ratings, 2)
        if (x.marks, x.best, x.comments) == (y.marks, y.best, y.comments)
    ]
    if len(ratings) == 1:
        found.append("one rater: how far people agree is unknown, and another might rate otherwise")
    return found
