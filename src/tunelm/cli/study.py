"""`adapt local --study`: LoRA and its variants with equal budgets, in one process or in pieces."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tunelm.config import Config
    from tunelm.routes.base import Progress

PREPARE, CONCLUDE = "prepare", "conclude"
"""The pieces of a study beside its trials, which are numbers."""


def study_task(
    kind: str,
    task: str,
    overrides: tuple[str, ...],
    trials: int,
    part: str | None,
    options: Mapping[str, Any],
) -> None:
    """Run a study, or one part of it, and print what it found.

    Args:
        kind: a route of kind `local`.
        task: the task file, or a bundled task's name.
        overrides: settings on top of the file.
        trials: how many in all.
        part: None for all of it, PREPARE, CONCLUDE or the number of a trial.
        options: `out`, `resume`, `quiet` and `as_json` of the command.
    """
    from tunelm.cli.no_room import note_way_on
    from tunelm.cli.progress import shown
    from tunelm.config import load_config
    from tunelm.rundir import default_out

    if part is not None and part not in (PREPARE, CONCLUDE) and not part.isdecimal():
        raise click.UsageError(f"--part {part}: prepare, a trial's number or conclude is expected.")
    config = load_config(task, overrides)
    out = options["out"]
    if out is None and (options["resume"] or part):
        flag = "--part" if part else "--resume"
        raise click.UsageError(f"{flag} needs --out: which study to go on with.")
    folder = out or default_out(f"{config.task.name}-study")
    piece = f" --part {part}" if part else ""
    again = f"tunelm adapt {kind} {task} --study {trials} --out {folder}{piece} --resume"
    try:
        with shown(options["quiet"]) as progress:
            found = _carry_out(config, kind, trials, part, folder, options["resume"], progress)
    except KeyboardInterrupt:
        click.echo(
            f"stopped; finished trials are kept. Go on with: {again} (and the same --set options)",
            err=True,
        )
        raise
    except OSError as error:
        note_way_on(error, folder, again)
        raise
    if found is not None:
        _print_found(found, folder, options["as_json"])


def _carry_out(
    config: Config,
    kind: str,
    trials: int,
    part: str | None,
    folder: Path,
    resume: bool,
    progress: Progress,
) -> dict[str, Any] | None:
    """Run it; what a study found in the end."""
    from tunelm.study import apart
    from tunelm.study.run import run_study

    if part is None:
        return run_study(config, kind, trials, folder, resume=resume, progress=progress)
    if part == CONCLUDE:
        return apart.conclude_study(config, kind, trials, folder, progress=progress)
    if part == PREPARE:
        count = apart.prepare_study(config, kind, trials, folder, resume=resume, progress=progress)
        click.echo(f"{count} trials are drawn: --part 0 to --part {count - 1}, then conclude")
        return None
    trial = apart.run_piece(config, kind, trials, int(part), folder, progress=progress)
    metric = config.compare.primary_metric
    scored = "" if trial.score is None else f", {metric} on dev {abs(trial.score):.3f}"
    why = f": {trial.reason}" if trial.reason else ""
    click.echo(f"trial {trial.number}, {trial.method}: {trial.state}{scored}{why}")
    return None


def _print_found(found: dict[str, Any], folder: Path, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
        return
    from tunelm.cli.tables import print_table
    from tunelm.study.page import table

    click.echo(found["verdict"])
    click.echo("The test rows were not looked at.\n")
    rows = table(found)
    print_table(list(rows[0]), [list(row.values()) for row in rows])
    if found["section"]:
        click.echo(f"\n{found['section']}")
    click.echo(f"\nreport: {(folder / 'study' / 'study.md').resolve()}")
