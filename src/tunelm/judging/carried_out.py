"""Whether teachers' turns are what they were to be: a judge of strategies from a run's own rows.

It is trained on the train rows of the run alone, whose turns are labelled by who wrote them, and
kept in the run. No weights from other people's labels are in it.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tunelm.errors import DataError, PrerequisiteError
from tunelm.judging.judge import Judge
from tunelm.rundir import write_json
from tunelm.types import Example, Prediction

FOLDER = Path("judges") / "strategy"
"""Of a run: the judge; beside it UNKNOWN where there is none, with the reason."""
UNKNOWN = Path("judges") / "unknown.json"
KEPT = "strategy_kept"
"""The fact of a prediction, and the metric."""
FOLDS = 3


def strategy_judge(run: Path, train: Sequence[Example], seed: int = 0) -> Judge | None:
    """The run's judge of strategies, trained once; None where it cannot be, UNKNOWN says why."""
    from tunelm.judging.labels import Labelled
    from tunelm.judging.open import open_judge
    from tunelm.judging.train import train_judge

    folder = run / FOLDER
    if folder.is_dir():
        return open_judge(folder)
    rows = [
        Labelled(e, e.answers[0], str(e.metadata["strategy"]), e.group, None, e.id)
        for e in train
        if e.metadata.get("strategy")
    ]
    making = folder.with_name("strategy.making")
    shutil.rmtree(making, ignore_errors=True)
    try:
        judge = train_judge(rows, "strategy", making, seed=seed, folds=FOLDS).judge
    except (DataError, PrerequisiteError) as error:
        (run / UNKNOWN).parent.mkdir(exist_ok=True)
        write_json(run / UNKNOWN, {KEPT: str(error)})
        return None
    os.replace(making, folder)
    return judge


def with_kept(
    judge: Judge | None, examples: Sequence[Example], found: Sequence[Prediction]
) -> list[Prediction]:
    """Predictions with KEPT among their facts: 1 where the judge sees the strategy asked for.

    A turn whose strategy nobody named, or that the judge cannot tell, has none.
    """
    if judge is None:
        return list(found)
    labels = [rating.label for rating in judge.rate(examples, [p.output or "" for p in found])]
    return [
        prediction
        if prediction.output is None or label is None or not example.metadata.get("strategy")
        else dataclasses.replace(
            prediction,
            facts={**(prediction.facts or {}), KEPT: float(label == example.metadata["strategy"])},
        )
        for example, prediction, label in zip(examples, found, labels, strict=True)
    ]
