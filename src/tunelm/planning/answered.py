"""What each test row took, and whether it passed, from the files of a run."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tunelm.errors import RunDirError
from tunelm.planning.facts import Answered, Array
from tunelm.predict import read_predictions
from tunelm.rundir import read_json
from tunelm.scoring.dialogue_metrics import TALKS
from tunelm.scoring.metrics import get_metric
from tunelm.types import Prediction

NO_SHARE = "{metric} is no 0/1 share: --pass-at VALUE says from which value on an answer passes"


def pass_limit(run: Path, report: Mapping[str, Any], pass_at: float | None) -> float | None:
    """From which value of the primary metric on a row passes; None where nobody has said.

    `pass_at`, or the better end of a metric that has only 0 and 1, in every row of every route,
    on dev and test alike: one route's answers can be wholly right or wrong by any metric.
    """
    if pass_at is not None:
        return pass_at
    metric = _primary(report)
    found: set[Any] = set()
    for path in run.glob("routes/*/seed-*/scores.json"):
        rows = (row for part in read_json(path)["rows"].values() for row in part)
        found |= {row.get(metric) for row in rows} - {None}
    if not found <= {0, 1}:
        return None
    return 0.0 if get_metric(metric).lower_is_better else 1.0


def answered_rows(
    run: Path,
    report: Mapping[str, Any],
    route: Mapping[str, Any],
    limit: float | None,
) -> Answered | None:
    """The test rows of a finished route, or its conversations where the task has them.

    None where it answered nothing. A row that failed under any seed is left out under all, as in
    the report's scores.

    Args:
        run: the run's folder.
        report: of it.
        route: of the report.
        limit: as `pass_limit` says.

    Raises RunDirError for files that do not belong together.
    """
    part = "test" + TALKS if report["conversations"] is not None else "test"
    groups = _groups(run, part)
    ids = list(groups)
    folders = [run / "routes" / route["name"] / f"seed-{seed}" for seed in route["seeds"]]
    answers = [_of_part(folder / "predictions.jsonl", part) for folder in folders]
    if not answers or not ids:
        return None
    failed = {i for rows in answers for i in ids if i not in rows or rows[i].output is None}
    kept = [i for i in ids if i not in failed]
    prompt = _tokens(answers, kept, "prompt_tokens")
    completion = _tokens(answers, kept, "completion_tokens")
    passes, why = _passes(report, [_values(f, part) for f in folders], kept, limit)
    return Answered(tuple(groups[i] for i in kept), prompt, completion, passes, why)


def _groups(run: Path, part: str) -> dict[str, str]:
    """The group of each example of a part, in its order."""
    name = "talks.jsonl" if part.endswith(TALKS) else "rows.jsonl"
    try:
        lines = (run / name).read_text(encoding="utf-8").split("\n")
        rows = [json.loads(line) for line in lines if line.strip()]
        found = [row["example"] for row in rows if row["part"] == part and row["example"]]
        return {example["id"]: example["group"] for example in found}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunDirError(f"{run / name}: cannot be read ({error}). Run it again.") from None


def _of_part(path: Path, part: str) -> dict[str, Prediction]:
    return {p.example_id: p for p in read_predictions(path) if p.part == part}


def _tokens(answers: list[dict[str, Prediction]], kept: list[str], name: str) -> Array:
    rows = [[getattr(rows[i].usage, name) for i in kept] for rows in answers]
    return np.array([[math.nan if n is None else n for n in row] for row in rows], dtype=float)


def _values(folder: Path, part: str) -> dict[str, dict[str, Any]]:
    rows = read_json(folder / "scores.json", {"rows": {}})["rows"].get(part, [])
    return {row["id"]: row for row in rows}


def _passes(
    report: Mapping[str, Any],
    values: list[dict[str, dict[str, Any]]],
    kept: list[str],
    limit: float | None,
) -> tuple[Array | None, str]:
    """1 for a row that passes, 0 for one that does not; None and why where nobody can say."""
    metric = _primary(report)
    of_talks = report["metrics"][metric]["of"] == "conversations"
    if report["conversations"] is not None and not of_talks:
        return None, f"{metric} is of single turns, and costs are of conversations"
    found = [[rows.get(i, {}).get(metric) for i in kept] for rows in values]
    known = [v for row in found for v in row if v is not None]
    if not known:
        return None, f"{metric} has no values of single rows"
    if limit is None:
        return None, NO_SHARE.format(metric=metric)
    table = np.array([[math.nan if v is None else v for v in row] for row in found], dtype=float)
    good = table <= limit if get_metric(metric).lower_is_better else table >= limit
    return np.where(np.isnan(table), math.nan, good.astype(float)), ""


def _primary(report: Mapping[str, Any]) -> str:
    return str(report["task"]["primary_metric"])
