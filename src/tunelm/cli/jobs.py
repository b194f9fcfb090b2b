"""`jobs`, `logs` and `cancel`: what became of batch jobs."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("jobs", epilog="\b\nExample:\n  tunelm jobs runs")
@click.argument("folder", type=click.Path(path_type=Path), default=Path("runs"))
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def jobs_command(folder: Path, as_json: bool) -> None:
    """The batch jobs of the runs in FOLDER: what each does, and why it waits."""
    from tunelm.cli.tables import print_table
    from tunelm.cluster.jobs import jobs_under

    found = jobs_under(folder)
    rows = [
        {
            "job": job.id,
            "run": str(job.run),
            "part": job.part,
            "state": job.said,
            "ran": job.state.ran if len(job.states) == 1 and job.state else "",
            "limit": job.state.limit if job.state else "",
            "restarts": str(sum(s.restarts for s in job.states)) if job.states else "",
            "submitted": job.submitted,
        }
        for job in found
    ]
    if as_json:
        import json

        click.echo(json.dumps(rows))
    elif rows:
        print_table(list(rows[0]), [list(row.values()) for row in rows])
    else:
        click.echo(f"{folder}: no run in it was submitted as a job.")


@click.command("logs", epilog="\b\nExample:\n  tunelm logs runs/first --follow")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--follow", is_flag=True, help="Go on until the job is over.")
@click.option("--trial", type=click.IntRange(0), help="Of a study: this trial alone.")
def logs_command(run: Path, follow: bool, trial: int | None) -> None:
    """What the job of RUN has written so far, all its turns in one."""
    from tunelm.cluster.logs import log_lines

    for piece in log_lines(run, follow, trial):
        click.echo(piece, nl=False)


@click.command("cancel", epilog="\b\nExample:\n  tunelm cancel runs/first")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--trial", type=click.IntRange(0), help="Of a study: this trial alone.")
def cancel_command(run: Path, trial: int | None) -> None:
    """Cancel the job of RUN, or all jobs of its study.

    What was done stays: submit again to go on.
    """
    from tunelm.cluster.jobs import cancel

    for job in cancel(run, trial):
        click.echo(f"job {job.id}{f', {job.part}' if job.part else ''}: {job.said}.")
    click.echo(f"Go on later with: tunelm submit ... --out {run}")
