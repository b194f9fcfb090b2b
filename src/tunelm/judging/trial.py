"""A ready judge before labels that it was not made from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunelm.errors import DataError
from tunelm.judging.check import Agreement, Judged, agreement, compare, constant
from tunelm.judging.coding import Coding
from tunelm.judging.judge import Judge
from tunelm.judging.labels import Labelled
from tunelm.judging.learned import LearnedJudge
from tunelm.judging.people import golds, people_of, said
from tunelm.scoring.statistics import Paired
from tunelm.types import content_hash

TRAINED_ON = "the judge was trained on it"
"""Why a reply is left out."""


@dataclass(frozen=True)
class Trial:
    """What came of it.

    `over_constant` is the judge's agreement less that of saying the labels' most common one (or
    ranking nothing), by figure. `lost` counts replies without a rating, by reason, labels that the
    judge does not know, and replies that it was trained on. `rows_known` is whether the judge says
    which those are; judges of earlier versions do not, and those of no labels have none.
    """

    agreement: Agreement
    over_constant: Mapping[str, Paired]
    lost: Mapping[str, int]
    n: int
    rows_known: bool


def row_hash(row: Labelled) -> str:
    """Tells a reply and the dialogue before it from others, whatever its label."""
    return content_hash(said(row.example, row.output))


def unseen(judge: Judge, rows: Sequence[Labelled]) -> tuple[list[Labelled], bool]:
    """(the replies that the judge was not trained on, whether it says which those are).

    Raises DataError where none are left.
    """
    hashes = judge.about.get("row_hashes") if isinstance(judge, LearnedJudge) else []
    trained_on = set(hashes or [])
    fresh = [row for row in rows if row_hash(row) not in trained_on]
    if not fresh:
        raise DataError(
            f"the judge {judge.name} was trained on all of the {len(rows)} replies, and agrees with"
            " what it was taught: give it others"
        )
    return fresh, hashes is not None


def try_judge(judge: Judge, rows: Sequence[Labelled], seed: int = 0) -> Trial:
    """Rate the replies and set the ratings beside people's labels.

    Raises:
        ConfigError: none of the labels has a place on the judge's scale.
        DataError: the judge was trained on all of the replies, knows none of the labels, or rated
            none of the replies.
    """
    fresh, rows_known = unseen(judge, rows)
    coding = judge.learned.coding if isinstance(judge, LearnedJudge) else None
    if coding is None or not isinstance(rows[0].label, str):
        coding = Coding((), True, judge.scale)
    lost: Counter[str] = Counter()
    if len(fresh) < len(rows):
        lost[TRAINED_ON] = len(rows) - len(fresh)
    kept = [row for row in fresh if not coding.labels or row.label in coding.labels]
    if len(kept) < len(fresh):
        lost["a label that the judge does not know"] = len(fresh) - len(kept)
    if not kept:
        raise DataError(
            f"the judge {judge.name} knows the labels {', '.join(coding.labels)}, and none of the"
            f" {len(fresh)} replies has one of them"
        )
    given = judge.rate([row.example for row in kept], [row.output for row in kept])
    lost.update(r.note or "no rating" for r in given if r.value is None and r.label is None)
    if sum(lost.values()) == len(rows):
        raise DataError(f"the judge {judge.name} rated none of the {len(rows)} replies: {lost}")
    if coding.ordered:
        gold = golds(people_of(judge, kept))
    else:
        gold = coding.encode(kept).argmax(axis=1).astype(np.float64)
    values = np.array([np.nan if r.value is None else r.value for r in given])
    judged = Judged(values, values, [r.label for r in given])
    return Trial(
        agreement=agreement(kept, coding, gold, judged, seed),
        over_constant=compare(kept, coding, gold, judged, constant(kept, judged), seed),
        lost=dict(lost),
        n=len(rows),
        rows_known=rows_known,
    )


def to_json(trial: Trial) -> dict[str, Any]:
    """A plain dict, for JSON."""
    import dataclasses

    over = {name: dataclasses.asdict(figure) for name, figure in trial.over_constant.items()}
    return {
        "n": trial.n,
        "lost": dict(trial.lost),
        "rows_known": trial.rows_known,
        "agreement": trial.agreement.to_json(),
        "over_constant": over,
    }
