"""A study in pieces, each a process of its own: for the arrays of batch systems.

The trials need nothing of each other: what each is given is drawn before the first one runs, and
none is pruned, since that would depend on which was quicker. `prepare_study` makes the run, the
split and the drawings; `run_piece` carries out one trial and writes into its folder alone;
`conclude_study` trains the best again and compares, as a study in one process does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunelm.config import Config
from tunelm.errors import ConfigError, RunDirError
from tunelm.pipeline import with_built_data
from tunelm.routes.base import Progress, no_progress
from tunelm.rundir import RunDir, read_json, write_json
from tunelm.study.run import check_study, conclusion, make_setting, write_found
from tunelm.study.search import (
    Setting,
    Trial,
    Watch,
    alone,
    carry_out,
    draw,
    folder_of_trial,
    method_of,
    read_trial,
    require_optuna,
    require_some,
)
from tunelm.study.space import VARIANTS, settings_of


def prepare_study(
    config: Config,
    name: str,
    trials: int,
    out: Path,
    *,
    resume: bool = False,
    progress: Progress = no_progress,
) -> int:
    """Make the run directory with its split, and draw the settings of all trials.

    Arguments and errors are those of `run_study`. Returns how many trials there are.
    """
    given, each = check_study(config, name, trials)
    require_optuna()
    with RunDir.start(out, with_built_data(config), resume) as run:
        setting, _ = make_setting(run, name, given, progress, apart=True)
        for number in range(each * len(VARIANTS)):
            folder = folder_of_trial(setting.ctx.work, number)
            if not (folder / "drawn.json").exists():
                folder.mkdir(parents=True, exist_ok=True)
                method = method_of(number)
                params = draw(method, setting, number // len(VARIANTS))
                write_json(folder / "drawn.json", {"method": method, "params": params})
    return each * len(VARIANTS)


def run_piece(
    config: Config,
    name: str,
    trials: int,
    number: int,
    out: Path,
    *,
    progress: Progress = no_progress,
) -> Trial:
    """Carry out one trial of a prepared study, or read it back; only its own folder is written.

    Raises:
        ConfigError: there is no trial of this number.
        RunDirError: the study was not prepared, is another one, or another process is at it.
        StoppedError: somebody stopped it; the same call goes on from there.
    """
    given, each = check_study(config, name, trials)
    count = each * len(VARIANTS)
    if not 0 <= number < count:
        raise ConfigError(f"trial {number}: the trials of this study are 0 to {count - 1}.")
    folder = folder_of_trial(out / "study", number)
    if not (folder / "drawn.json").is_file():
        raise RunDirError(f"{out}: trial {number} was not drawn there: --part prepare comes first.")
    run = RunDir.look_into(out, with_built_data(config))
    with alone(folder):
        if (folder / "trial.json").is_file():
            return read_trial(folder)
        setting, _ = make_setting(run, name, given, progress, apart=True)
        return carry_out(setting, number, count, read_json(folder / "drawn.json")["params"])


def conclude_study(
    config: Config, name: str, trials: int, out: Path, *, progress: Progress = no_progress
) -> dict[str, Any]:
    """Train the best of each method again, and compare; a trial without an end is a failed one.

    Raises:
        RunDirError: the study was not prepared, or is another one.
        TrainingError: every trial failed; with the first one's reason.
    """
    given, each = check_study(config, name, trials)
    require_optuna()
    with RunDir.start(out, with_built_data(config), resume=True) as run:
        setting, seeds = make_setting(run, name, given, progress, apart=True)
        done = [_ended(setting, number) for number in range(each * len(VARIANTS))]
        require_some(done)
        found = conclusion(setting, done, trials, seeds, apart=True)
        write_found(setting, found)
    return found


def _ended(setting: Setting, number: int) -> Trial:
    """A trial as it ended, or did not: one that was killed for good has no trial.json."""
    folder = folder_of_trial(setting.ctx.work, number)
    if (folder / "trial.json").is_file():
        return read_trial(folder)
    if not (folder / "drawn.json").is_file():
        raise RunDirError(f"{setting.run}: trial {number} was not drawn: --part prepare.")
    method, params = method_of(number), read_json(folder / "drawn.json")["params"]
    settings = settings_of(VARIANTS[method], params, setting.given, setting.shape)
    watch = Watch(folder)
    watch.look()
    reason = "did not come to its end; the same line runs it again"
    return Trial(number, method, params, settings, "failed", reason, None, **watch.told())
