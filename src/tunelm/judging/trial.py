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
from tunelm.judging.people import golds, people_of
from tunelm.scoring.statistics import Paired


@dataclass(frozen=True)
class Trial:
    """What came of it.

    `over_constant` is the judge's agreement less that of saying the labels' most common one (or
    ranking nothing), by figure. `lost` counts replies without a rating, by reason, and labels that
    the judge does not know.
    """

    agreement: Agreement
    over_constant: Mapping[str, Paired]
    lost: Mapping[str, int]
    n: int


def try_judge(judge: Judge, rows: Sequence[Labelled], seed: int = 0) -> Trial:
    """Rate the replies and set the ratings beside people's labels.

    Raises:
        ConfigError: none of the labels has a place on the judge's scale.
        DataError: the judge knows none of the labels, or rated none of the replies.
    """
    coding = judge.learned.coding if isinstance(judge, LearnedJudge) else None
    if coding is None or not isinstance(rows[0].label, str):
        coding = Coding((), True, judge.scale)
    lost: Counter[str] = Counter()
    kept = [row for row in rows if not coding.labels or row.label in coding.labels]
    if len(kept) < len(rows):
        lost["a label that the judge does not know"] = len(rows) - len(kept)
    if not kept:
        raise DataError(
            f"the judge {judge.name} knows the labels {', '.join(coding.labels)}, and none of the"
            f" {len(rows)} replies has one of them"
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
    )


def to_json(trial: Trial) -> dict[str, Any]:
    """A plain dict, for JSON."""
    import dataclasses

    over = {name: dataclasses.asdict(figure) for name, figure in trial.over_constant.items()}
    return {
        "n": trial.n,
        "lost": dict(trial.lost),
        "agreement": trial.agreement.to_json(),
        "over_constant": over,
    }
