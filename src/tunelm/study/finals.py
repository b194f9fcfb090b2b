"""The best settings of each method, trained again with other seeds, and compared on dev.

The trial that won a search was lucky in its seed as well as in its settings, so its own score
does not count: only seeds that no search has seen do.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelm.errors import StoppedError, TrainingError
from tunelm.predict import read_predictions
from tunelm.rundir import read_json, write_json
from tunelm.scoring.continuation import as_continuation
from tunelm.scoring.metric import Metric
from tunelm.scoring.metrics import get_metric, row_statistics
from tunelm.scoring.statistics import holm, interval, mde, paired, verdict
from tunelm.study.search import Setting, Trial, facts, fit, score
from tunelm.study.space import RIVAL, VARIANTS
from tunelm.types import Example

Stats = NDArray[np.float64]


@dataclass(frozen=True)
class Final:
    """One training of a method's best settings under one seed; `reason` where it failed."""

    seed: int
    reason: str | None
    seconds: float | None = None
    parameters: int | None = None
    peak_memory: float | None = None


def best_of(trials: Sequence[Trial]) -> dict[str, Trial]:
    """The finished trial with the best score of each method that has one; the first of equals."""
    best: dict[str, Trial] = {}
    for trial in trials:
        if trial.state == "done" and trial.score is not None:
            held = best.get(trial.method)
            if held is None or held.score is None or trial.score > held.score:
                best[trial.method] = trial
    return best


def folder_of(setting: Setting, trial: Trial, seed: int) -> Path:
    """Where a trial's settings are trained under another seed."""
    name = f"{trial.method}-{trial.number:03d}"
    return setting.ctx.work / "finals" / name / f"seed-{seed}"


def run_finals(setting: Setting, trial: Trial, seeds: Sequence[int]) -> list[Final]:
    """Train a method's best settings under each seed, and answer the dev rows.

    What is finished is read back. One that fails is a Final with its reason.
    """
    return [_final(setting, trial, seed) for seed in seeds]


def _final(setting: Setting, trial: Trial, seed: int) -> Final:
    folder = folder_of(setting, trial, seed)
    if (folder / "final.json").exists():
        return Final(**read_json(folder / "final.json"))
    label = f"{trial.method}, seed {seed}"
    try:
        adapted = fit(setting, trial.settings, folder, seed, label)
        score(setting, trial.settings, adapted, folder, label)
        final = Final(seed, None, float(adapted.detail["seconds"]), **facts(adapted))
    except StoppedError:
        raise
    except TrainingError as error:
        final = Final(seed, str(error))
    write_json(folder / "final.json", dataclasses.asdict(final))
    return final


def statistics_of(
    setting: Setting, trial: Trial, finals: Sequence[Final], metric: Metric
) -> Stats | None:
    """The (S seeds, n rows, d) statistics of the seeds that came through; None without any."""
    dev = [as_continuation(row) for row in setting.ctx.dev]
    rows = [
        row_statistics(
            metric,
            dev,
            read_predictions(folder_of(setting, trial, final.seed) / "predictions.jsonl"),
        )
        for final in finals
        if final.reason is None
    ]
    return np.array(rows) if rows else None


def compare_methods(
    stats: Mapping[str, Stats], dev: Sequence[Example], metric: Metric
) -> dict[str, dict[str, Any]]:
    """Each method's dev score with its interval, and what it is beside tuned LoRA.

    Args:
        stats: (S, n, d) of each method that came through.
        dev: the n rows.
        metric: the primary metric.

    Returns:
        By method `dev` ({value, ci_low, ci_high, n, n_groups}) and `beside` ({diff, ci_low,
        ci_high, p, p_holm, verdict, mde, n}), which is None for LoRA itself and where LoRA did
        not come through. Differences are by group; Holm's correction runs over the methods.
    """
    groups = [row.group for row in dev]
    found: dict[str, dict[str, Any]] = {}
    for method, rows in stats.items():
        value = interval(rows, groups, metric.aggregate, scale=metric.scale)
        found[method] = {
            "dev": {
                "value": _finite(value.value),
                "ci_low": _finite(value.low),
                "ci_high": _finite(value.high),
                "n": value.n,
                "n_groups": value.n_groups,
            },
            "beside": None,
        }
        if method != RIVAL and RIVAL in stats:
            pair = paired(rows, stats[RIVAL], groups, metric.aggregate, scale=metric.scale)
            found[method]["beside"] = {
                "diff": _finite(pair.diff),
                "ci_low": _finite(pair.low),
                "ci_high": _finite(pair.high),
                "p": _finite(pair.p),
                "n": pair.n,
                "n_groups": pair.n_groups,
                # None also where the two never differ: then nothing can be said of it
                "mde": _finite(mde(rows, stats[RIVAL], groups, metric.aggregate)) or None,
            }
    beside = [one["beside"] for one in found.values() if one["beside"]]
    for pair, adjusted in zip(beside, holm([one["p"] for one in beside]), strict=True):
        diff = None if pair["diff"] is None else metric.sign * pair["diff"]
        pair |= {"p_holm": adjusted, "verdict": verdict(diff, adjusted)}
    return found


def conclude(
    setting: Setting, trials: Sequence[Trial], seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """Train the best of each method again, and compare: a row a method, in the methods' order."""
    metric = get_metric(setting.ctx.metric).bound(setting.ctx.dev)
    best = best_of(trials)
    finals = {method: run_finals(setting, trial, seeds) for method, trial in best.items()}
    stats = {
        method: rows
        for method, done in finals.items()
        if (rows := statistics_of(setting, best[method], done, metric)) is not None
    }
    compared = compare_methods(stats, setting.ctx.dev, metric)
    return [
        _row(method, trials, best.get(method), finals.get(method, []))
        | compared.get(method, {"dev": None, "beside": None})
        for method in VARIANTS
    ]


def choose(rows: Sequence[Mapping[str, Any]], sign: float) -> str | None:
    """The method to take: the best of those shown to be better than tuned LoRA, else LoRA.

    Where LoRA did not come through, the first method that did; None where none did.
    """
    better = [r for r in rows if r["beside"] and r["beside"]["verdict"] == "better"]
    if better:
        return str(max(better, key=lambda r: sign * r["beside"]["diff"])["method"])
    done = [str(r["method"]) for r in rows if r["dev"] is not None]
    return RIVAL if RIVAL in done else next(iter(done), None)


def _row(
    method: str, trials: Sequence[Trial], best: Trial | None, finals: Sequence[Final]
) -> dict[str, Any]:
    own = [trial for trial in trials if trial.method == method]
    through = [final for final in finals if final.reason is None]
    reasons = [f"trial {t.number}: {t.reason}" for t in own if t.state == "failed"]
    reasons += [f"seed {final.seed}: {final.reason}" for final in finals if final.reason]
    return {
        "method": method,
        "trials": {
            state: sum(trial.state == state for trial in own)
            for state in ("done", "pruned", "failed")
        },
        "trial_seconds": sum(trial.seconds for trial in own),
        "best_trial": best.number if best else None,
        "settings": json.loads(best.settings.model_dump_json()) if best else None,
        "score_in_search": best.score if best else None,
        "seeds": [final.seed for final in through],
        "failures": reasons,
        "parameters": through[0].parameters if through else None,
        "seconds": _mean([final.seconds for final in through]),
        "peak_memory": max((f.peak_memory for f in through if f.peak_memory), default=None),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
