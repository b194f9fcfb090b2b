"""Answering and declining, right and wrong: tables of a task whose answers come from an FAQ."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tunelm.report.evidence import Answers, Array
from tunelm.report.read import Run
from tunelm.report.sureness import shown, sureness_tables
from tunelm.report.words import count, points
from tunelm.scoring.faq_metrics import RATES, Found, Verdict, answerable, look
from tunelm.scoring.statistics import Interval, interval
from tunelm.types import Example

Table = dict[str, Any]

RATE_WORDS = {
    "coverage": "answered, of all",
    "selective_risk": "wrong, of the answered",
    "abstention_precision": "declined rightly, of the declined",
    "abstention_recall": "declined, of what the FAQ does not answer",
    "citation_accuracy": "entry cited rightly, of the answered that it answers",
}


def abstention_tables(run: Run, answers: Sequence[Answers]) -> list[Table]:
    """The four cells by route and by kind of question, the rates, and what confidence is worth."""
    rows = run.parts["test"]
    found = {a.route.name: _found(run, a) for a in answers}
    counted = (
        f"{count(len(rows))} test rows, {count(sum(answerable(row) for row in rows))} of them "
    )
    return [
        {
            "heading": "Answering and declining",
            "note": f"Shares of the {counted}answered by the FAQ, in points. An answer is right "
            "where it cites its entry, and no other, and holds a key answer. A right answer and a "
            "right silence are worth 1, a needless silence 0.5, a wrong answer 0: the mean is "
            "faq_utility. Who always declines reaches "
            f"{points(_silent(rows))}, who always answers wrongly 0.",
            "rows": [{"route": name, **_cells(seeds, len(rows))} for name, seeds in found.items()],
        },
        {
            "heading": "How far answers and silence can be trusted",
            "note": "In points with the 95% interval by group, and of how many rows. Unknown: "
            "there was none.",
            "rows": [_rates(a.route.name, found[a.route.name], rows) for a in answers],
        },
        {
            "heading": "By kind of question",
            "note": "Shares of the rows of each kind. What the FAQ does not answer is right when "
            "it is declined.",
            "rows": [row for name, seeds in found.items() for row in _by_kind(name, seeds, rows)],
        },
        *sureness_tables(run, answers),
    ]


def _found(run: Run, answers: Answers) -> list[list[Found | None]]:
    """By seed and test row; None where the row failed."""
    return [
        [
            None if (output := seed.outputs["test"].get(row.id)) is None else look(output, row)
            for row in run.parts["test"]
        ]
        for seed in answers.route.finished
    ]


def _silent(rows: Sequence[Example]) -> float:
    """The utility of declining everything."""
    can = sum(answerable(row) for row in rows)
    return (len(rows) - can / 2) / len(rows)


def _tally(seeds: Sequence[Sequence[Found | None]]) -> tuple[dict[str, str], int]:
    """The four shares of the rows that were answered or declined, and how many failed."""
    known = [found for seed in seeds for found in seed if found is not None]
    every = sum(len(seed) for seed in seeds)
    cells = {
        str(verdict).replace("_", " "): points(
            sum(found.verdict == verdict for found in known) / len(known) if known else None
        )
        for verdict in Verdict
    }
    return cells, round((every - len(known)) / len(seeds))


def _cells(seeds: Sequence[Sequence[Found | None]], rows: int) -> dict[str, str]:
    cells, failed = _tally(seeds)
    return {**cells, "rows": count(rows - failed), "failed": count(failed)}


def _by_kind(
    name: str, seeds: Sequence[Sequence[Found | None]], rows: Sequence[Example]
) -> list[dict[str, str]]:
    """A row for the questions that the FAQ answers, and one for each kind of the others."""
    kinds = [
        "in the FAQ" if answerable(row) else str(row.metadata.get("negative") or "not in the FAQ")
        for row in rows
    ]
    table: list[dict[str, str]] = []
    for kind in sorted(set(kinds), key=lambda kind: (kind != "in the FAQ", kind)):
        own = [
            [found for found, its in zip(seed, kinds, strict=True) if its == kind] for seed in seeds
        ]
        table.append({"route": name, "questions": kind, **_cells(own, len(own[0]))})
    return table


def _rates(
    name: str, seeds: Sequence[Sequence[Found | None]], rows: Sequence[Example]
) -> dict[str, str]:
    groups = [row.group for row in rows]
    return {
        "route": name,
        **{words: shown(rate_of(seeds, groups, RATES[rate])) for rate, words in RATE_WORDS.items()},
    }


def rate_of(
    seeds: Sequence[Sequence[Found | None]],
    groups: Sequence[str],
    rate: Callable[[Found], tuple[bool, bool]],
) -> Interval:
    """A rate with its interval over the rows it is counted among, under any seed."""

    def stats(found: Found | None) -> tuple[float, float]:
        counted, among = (False, False) if found is None else rate(found)
        return (float(counted), 1.0) if among else (math.nan, math.nan)

    table: Array = np.array([[stats(found) for found in seed] for seed in seeds])
    return interval(table, groups, scale=1.0)
