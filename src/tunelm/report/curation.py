"""What went in: settings of each route, where the rows came from, and what was forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunelm.report.evidence import finite
from tunelm.report.read import NEUTRAL, RouteRun, Run
from tunelm.scoring.metrics import get_metric
from tunelm.scoring.statistics import interval, paired
from tunelm.types import Example

Row = dict[str, Any]

METRIC = "bits_per_byte"


def settings_of(run: Run) -> dict[str, Row]:
    """Each route's settings as the task file gave them, and what was decided while fitting."""
    found: dict[str, Row] = {}
    for route in run.routes:
        settings = dict(run.config["config"]["routes"][route.name])
        detail = route.finished[0].detail if route.finished else {}
        decided = ("learning_rate", "step", "epoch", "best_step", "stopped_early", "packing")
        settings |= {
            {"step": "steps", "epoch": "epochs run"}.get(k, k.replace("_", " ")): detail[k]
            for k in decided
            if detail.get(k) is not None
        }
        found[route.name] = {k: v for k, v in settings.items() if v is not None and k != "kind"}
    return found


def forgetting(run: Run, baseline: str | None) -> list[Row]:
    """Bits per byte of each route on the neutral texts, and the change from the baseline.

    Intervals are by text (a paragraph). Empty where the task names no neutral text.
    """
    metric = get_metric(METRIC)
    scored = {r.name: _by_text(r) for r in run.routes if r.finished}
    base = scored.get(baseline or "", {})
    rows: list[Row] = []
    for name, texts in scored.items():
        if not texts:
            continue
        ids = sorted(texts)
        value = interval([texts[i] for i in ids], ids, metric.aggregate)
        common = [i for i in ids if i in base]
        change = paired(
            [texts[i] for i in common], [base[i] for i in common], common, metric.aggregate
        )
        rows.append(
            {
                "route": name,
                "value": finite(value.value),
                "ci_low": finite(value.low),
                "ci_high": finite(value.high),
                "n": value.n,
                "change": None if name == baseline else finite(change.diff),
                "change_low": None if name == baseline else finite(change.low),
                "change_high": None if name == baseline else finite(change.high),
            }
        )
    return rows


def _by_text(route: RouteRun) -> Mapping[str, tuple[float, ...]]:
    """Statistics of the first seed's neutral texts, those it could score."""
    metric = get_metric(METRIC)
    return {
        p.example_id: stats
        for p in route.finished[0].predictions[NEUTRAL]
        if (stats := metric.prediction_statistics(p, _ANY)) is not None
    }


def source_of(run: Run) -> Row:
    """Where the rows came from, and what became of each."""
    data = run.config["config"]["data"]
    return {
        "file": str(data["path"]).rpartition("/")[2],
        "rows": sum(run.ledger.values()),
        "ledger": dict(run.ledger),
        "lines": run.lines,
    }


_ANY = Example("", (), (), "")
"""A likelihood does not look at the example."""
