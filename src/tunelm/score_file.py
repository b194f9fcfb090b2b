"""A model on any data file: predictions and every metric with its interval."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunelm.data.read import read_rows
from tunelm.errors import ConfigError
from tunelm.models.budget import Wallet
from tunelm.predict import predict
from tunelm.rundir import read_json
from tunelm.scoring.checks import with_facts
from tunelm.scoring.continuation import as_continuation
from tunelm.scoring.metrics import metrics_for, row_statistics
from tunelm.scoring.statistics import interval
from tunelm.target import find_run, load


def score_file(
    target: str,
    data: Path,
    max_tokens: int,
    out: Path | None,
    progress: Callable[[str, int, int], None],
    wallet: Wallet | None = None,
) -> dict[str, Any]:
    """Greedy answers of `target` to all rows of `data`, scored; `wallet` as in `load`.

    Raises ConfigError when `out` exists: other predictions are not written over.
    """
    if out is not None and out.exists():
        raise ConfigError(f"{out}: exists already; choose another --out.")
    examples = list({row.example.id: row.example for row in read_rows(data)}.values())
    kind, checks = kind_of(target) if examples[0].messages else ("text", None)
    examples = [as_continuation(e) for e in examples]
    model = load(target, wallet)
    with tempfile.TemporaryDirectory() as temporary:
        path = out or Path(temporary) / "predictions.jsonl"
        predictions = predict(
            model, examples, "test", path, max_tokens, lambda d, n: progress("answers", d, n)
        )
    predictions = with_facts(checks, model, examples, predictions)
    metrics: dict[str, Any] = {}
    groups = [e.group for e in examples]
    for name, metric in metrics_for(kind, examples, checks).items():
        rows = row_statistics(metric, examples, predictions)
        found = interval(rows, groups, metric.aggregate, scale=metric.scale)
        metrics[name] = {
            "value": found.value,
            "ci_low": found.low,
            "ci_high": found.high,
            "n": found.n,
            "signature": metric.signature(examples),
        }
    return {
        "target": target,
        "data": str(data),
        "rows": len(examples),
        "groups": len({e.group for e in examples}),
        "failed": sum(p.output is None for p in predictions),
        "metrics": metrics,
    }


def kind_of(target: str) -> tuple[str, str | None]:
    """The kind of task that a run is about, and its checks; `qa` for what knows no task."""
    found = find_run(Path(target))
    if found is None:
        return "qa", None
    task = read_json(found[0] / "config.json")["config"]["task"]
    return task["kind"], task.get("checks")
