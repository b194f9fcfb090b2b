"""`adapt local --study`: LoRA and its variants with equal budgets."""

from __future__ import annotations

import json
from pathlib import Path

import click


def study_task(
    kind: str,
    task: str,
    overrides: tuple[str, ...],
    trials: int,
    out: Path | None,
    resume: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Run a study and print what it found."""
    from tunelm.cli.progress import shown
    from tunelm.config import load_config
    from tunelm.rundir import default_out
    from tunelm.study.run import run_study

    config = load_config(task, overrides)
    if resume and out is None:
        raise click.UsageError("--resume needs --out: which study to go on with.")
    folder = out or default_out(f"{config.task.name}-study")
    try:
        with shown(quiet) as progress:
            found = run_study(config, kind, trials, folder, resume=resume, progress=progress)
    except KeyboardInterrupt:
        click.echo(
            f"stopped; finished trials are kept. Go on with: tunelm adapt {kind} {task} --study "
            f"{trials} --out {folder} --resume (and the same --set options)",
            err=True,
        )
        raise
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
