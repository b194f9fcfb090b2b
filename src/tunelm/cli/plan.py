"""`plan`: a strategy proposal with forecasts, and the task file that carries it out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from tunelm.cli.numbers import number_option

EXAMPLES = """\b
Examples:
  tunelm plan                             the bundled task, on this machine
  tunelm plan my_task.toml --gpu "RTX 4090" --requests-a-month 20000 --budget 50
  tunelm plan --data rows.csv --scenario "polite replies to customers" --private
  tunelm plan --track-record              how good forecasts on this machine were
"""


@click.command("plan", epilog=EXAMPLES)
@click.argument("task", nargs=-1)
@click.option("--data", type=click.Path(path_type=Path), help="Rows, where there is no task file.")
@click.option("--scenario", default="", metavar="TEXT", help="The task in your own words.")
@click.option("--out", type=click.Path(path_type=Path), help="A new folder  [default: plans/NAME]")
@click.option(
    "--gpu",
    metavar="NAME",
    help="A machine of the price table, `none`, or `find out`  [default: find out]",
)
@number_option("--memory", "Gigabytes of it, or of any other GPU.", "24")
@number_option("--budget", "US dollars, a month and once.", "50")
@number_option("--requests-a-month", "Answers a month  [default: 1000]", "20000")
@number_option("--months", "The horizon  [default: 12]", "12")
@number_option("--latency", "Seconds of a whole answer, at most.", "2")
@click.option("--private", is_flag=True, help="No row may go to an endpoint that is not yours.")
@click.option(
    "--licence",
    type=click.Choice(["permissive", "any"]),
    default="any",
    show_default=True,
    help="Of the base model.",
)
@click.option("--language", default="en", show_default=True, help="Of the rows, as an ISO code.")
@click.option("--base", metavar="MODEL", help="The base model  [default: the task's own]")
@click.option("--probe", is_flag=True, help="Time a few real training steps for the forecasts.")
@click.option("--learn", is_flag=True, help="Try the routes on slices: a learning curve. Slow.")
@click.option(
    "--track-record", is_flag=True, help="Hold forecasts against what runs measured; TASK: runs."
)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def plan_command(task: tuple[str, ...], track_record: bool, as_json: bool, **asked: Any) -> None:
    """Propose how to adapt a model to TASK: which model, method and test, with forecasts.

    Writes proposal.md, task.toml and forecasts.json. TASK is a task file or the name of a bundled
    task. Nothing is sent anywhere.
    """
    if track_record:
        _print_record(task, as_json)
        return
    if len(task) > 1:
        raise click.UsageError(f"one TASK, not {len(task)}; folders go with --track-record.")
    from tunelm.cli.plan_build import Asked, make_plan
    from tunelm.cli.progress import shown
    from tunelm.report.proposal_page import summary

    with shown(as_json) as progress:
        proposal, folder = make_plan(Asked(task=task[0] if task else None, **asked), progress)
    if as_json:
        click.echo(json.dumps(proposal, ensure_ascii=False, allow_nan=False))
        return
    for line in summary(proposal):
        click.echo(f"- {line}")
    click.echo(f"\nThe whole proposal: {folder / 'proposal.md'}")
    if proposal["data"] is None:
        click.echo(
            f"{folder / 'task.toml'} does not run yet: its data.path has no rows. Put them there."
        )
    else:
        click.echo(f"Carry it out: tunelm compare {folder / 'task.toml'}")


def _print_record(folders: tuple[str, ...], as_json: bool) -> None:
    from tunelm.cli.tables import print_table
    from tunelm.planning.track import track_record, track_rows

    found = track_record([Path(folder) for folder in folders])
    rows = track_rows(found)
    if as_json:
        click.echo(json.dumps(rows))
    elif rows:
        print_table(list(rows[0]), [list(row.values()) for row in rows])
    else:
        click.echo("No run with forecasts and measurements is known here. Run: tunelm compare")
