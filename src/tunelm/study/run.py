"""A whole study: the same split as `compare`, trials, finals, verdicts, and the page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunelm.config import Config
from tunelm.data.prepare import prepare
from tunelm.errors import ConfigError, DataError, RunDirError
from tunelm.models.labels import note_labels
from tunelm.models.loading import describe_base
from tunelm.pipeline import reader_for, require_metric, token_counter, with_built_data
from tunelm.route_settings import LocalSettings, what_is_made
from tunelm.routes.base import FitContext, Progress, no_progress
from tunelm.rundir import RunDir, read_json, write_json, write_text
from tunelm.scoring.metrics import get_metric, metric_to_fit
from tunelm.study.finals import choose, conclude
from tunelm.study.page import markdown, section, sentence
from tunelm.study.search import Setting, Trial, require_optuna, search
from tunelm.study.space import VARIANTS, shape_of

FURTHER_SEEDS = 2
"""Trainings of each method's best settings, where compare.seeds does not name more."""


def run_study(
    config: Config,
    name: str,
    trials: int,
    out: Path,
    *,
    resume: bool = False,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Search the settings of LoRA and its variants on dev, and say which differences are real.

    Args:
        config: the task; of its route `name` all settings hold that are not searched.
        name: a route of kind `local`.
        trials: at most so many; each method gets the same number of them.
        out: the run directory.
        resume: go on with the study in `out`.
        progress: called with (what, done, total).

    Returns:
        What also stands in `out/study/study.json`; the page is `out/study/study.md`.

    Raises:
        ConfigError: another kind of route, or fewer trials than methods.
        DataError: there are no dev rows to choose by.
        RunDirError: `out` holds a study of other settings, or cannot be used.
        TunelmError: as `compare` does for bad rows and models.
    """
    given, each = check_study(config, name, trials)
    require_optuna()
    config = with_built_data(config)
    with RunDir.start(out, config, resume) as run:
        setting, seeds = make_setting(run, name, given, progress)
        found = conclusion(setting, search(setting, each * len(VARIANTS)), trials, seeds)
        write_found(setting, found)
    return found


def make_setting(
    run: RunDir, name: str, given: LocalSettings, progress: Progress, apart: bool = False
) -> tuple[Setting, tuple[int, ...]]:
    """What all trials of a study in `run` share, and the seeds of the further trainings.

    Writes the split and setup.json; where they stand there already, it only reads.

    Raises:
        DataError: there are no dev rows to choose by.
        RunDirError: `run` holds a study of other settings.
    """
    config = run.config
    base = describe_base(config.model)
    run.note_base(base)
    length, limit = token_counter(config, base["context"])
    reader = reader_for(config.task.kind)
    split = prepare(config.data, run.path, length, limit, look=False, reader=reader)
    note_labels(run, split)
    if not split.dev:
        raise DataError("a study chooses by dev rows, and there are none: raise data.dev.")
    seed, seeds = _seeds(config)
    ctx = FitContext(
        name=name,
        task=run.config.task,
        model=config.model,
        metric=metric_to_fit(config.compare.primary_metric),
        train=split.train,
        dev=split.dev,
        work=run.path / "study",
        seed=seed,
        progress=progress,
    )
    setting = Setting(ctx, given, shape_of(config.model))
    _claim(setting, seeds, apart)
    return setting, seeds


def check_study(config: Config, name: str, trials: int) -> tuple[LocalSettings, int]:
    """The route's settings, and how many trials each method gets.

    Raises ConfigError: another kind of route, fewer trials than methods, or no such metric.
    """
    require_metric(config)
    given = config.routes.get(name)
    if not isinstance(given, LocalSettings):
        kind = f"of kind {given.kind!r}" if given else "not there"
        raise ConfigError(f"a study is of a route of kind 'local'; {name!r} is {kind}.")
    each = trials // len(VARIANTS)
    if not each:
        raise ConfigError(
            f"a study of {trials} trials: the fewest are {len(VARIANTS)}, one for each method "
            f"({', '.join(VARIANTS)})."
        )
    return given, each


def _seeds(config: Config) -> tuple[int, tuple[int, ...]]:
    """The seed of the search, and those of the further trainings."""
    first, *further = config.compare.seeds
    if len(further) < FURTHER_SEEDS:
        further = [first + 1 + i for i in range(FURTHER_SEEDS)]
    return first, tuple(further)


def _claim(setting: Setting, seeds: tuple[int, ...], apart: bool) -> None:
    """Tie the folder to what the trials depend on. Raises RunDirError where that differs."""
    path = setting.ctx.work / "setup.json"
    searched = {"method", "r", "alpha", "targets", "learning_rate"}
    searched |= {"loraplus_ratio", "neftune_alpha"}
    setup: dict[str, Any] = {
        "schema_version": 1,
        "seed": setting.ctx.seed,
        "further_seeds": list(seeds),
        "methods": list(VARIANTS),
        **({"apart": True} if apart else {}),
        **what_is_made(json.loads(setting.given.model_dump_json(exclude=searched))),
    }
    if path.exists() and read_json(path) != setup:
        stored = read_json(path)
        keys = sorted(k for k in setup.keys() | stored.keys() if setup.get(k) != stored.get(k))
        raise RunDirError(
            f"{path.parent}: a study with other settings was begun here ({', '.join(keys)} "
            "differ), whose trials would not be comparable. Start afresh with another --out."
        )
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        write_json(path, setup)


def conclusion(
    setting: Setting,
    trials: Sequence[Trial],
    asked: int,
    seeds: Sequence[int],
    apart: bool = False,
) -> dict[str, Any]:
    """Train the best of each method again and compare; the content of study.json."""
    ctx = setting.ctx
    rows = conclude(setting, trials, seeds)
    metric = get_metric(ctx.metric)
    found: dict[str, Any] = {
        "schema_version": 1,
        "task": ctx.task.name,
        "route": ctx.name,
        "metric": ctx.metric,
        "less_is_better": metric.lower_is_better,
        "dev_rows": len(ctx.dev),
        "dev_groups": len({row.group for row in ctx.dev}),
        "test_rows_looked_at": 0,
        "apart": apart,
        "trials_asked": asked,
        "trials_each": len(trials) // len(VARIANTS),
        "seed": ctx.seed,
        "seeds": list(seeds),
        "methods": rows,
        "chosen": choose(rows, metric.sign),
        "trials": [trial.to_json() for trial in trials],
    }
    return {**found, "section": section(found), "verdict": sentence(found)}


def write_found(setting: Setting, found: Mapping[str, Any]) -> None:
    """The two files of a study's end."""
    write_json(setting.ctx.work / "study.json", found)
    write_text(setting.ctx.work / "study.md", markdown(found))
