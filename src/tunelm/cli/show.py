"""`report` and `routes`: what a run says, and what there is to choose from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tunelm.cli.deployment import options as deployment_options

EXAMPLES = """\b
Examples:
  tunelm report runs/edu-qa-20260101-120000
  tunelm report runs/first --beside runs/second
  tunelm report runs/tutor --deployment --students 1,10,25
"""


@click.command("report", epilog=EXAMPLES)
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--beside",
    metavar="OTHER_RUN",
    type=click.Path(path_type=Path),
    help="A run of the same routes on a second task: does what each gains carry over?",
)
@deployment_options
@click.option("--json", "as_json", is_flag=True, help="Print the report, or the plan, as JSON.")
@click.pass_context
def report_command(
    ctx: click.Context,
    run: Path,
    beside: Path | None,
    deployment: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Write the report of RUN again, from its files, and print it; or plan going live."""
    from tunelm.cli.deployment import asked_for, write_plan
    from tunelm.cli.run import print_report
    from tunelm.errors import ConfigError
    from tunelm.report.build import write_report

    for folder in filter(None, (run, beside)):
        if not (folder / "config.json").exists() or not (folder / "split.json").exists():
            raise ConfigError(
                f"{folder}: not a run directory (no config.json and split.json there)."
            )
    if deployment:
        if beside:
            raise click.UsageError("--beside is for the report: give it without --deployment.")
        write_plan(run, asked_for(given), as_json)
        return
    default = click.core.ParameterSource.DEFAULT
    if extra := [name for name in given if ctx.get_parameter_source(name) is not default]:
        typed = ", ".join(f"--{name.replace('_', '-')}" for name in extra)
        raise click.UsageError(f"{typed}: for --deployment; give that, too.")
    report = write_report(run, beside)
    print_report(report, run, as_json)
    if beside and not as_json:
        _print_beside(report)


def _print_beside(report: dict[str, Any]) -> None:
    """Whether what each route gains carries over."""
    from tunelm.cli.tables import print_table
    from tunelm.report.beside import beside_section

    section = beside_section(report)
    click.echo()
    for paragraph in section["paragraphs"]:
        click.echo(paragraph)
    click.echo()
    rows = section["rows"]
    print_table(list(rows[0]), [list(row.values()) for row in rows])


@click.command("routes", epilog="Example: tunelm routes --json")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def routes_command(as_json: bool) -> None:
    """List the kinds of route, what each does, and the extra each needs."""
    from tunelm.cli.tables import print_table
    from tunelm.routes import KINDS

    if as_json:
        import json

        click.echo(json.dumps({k: v._asdict() for k, v in KINDS.items()}))
        return
    rows = [(k, v.extra or "-", "yes" if v.seeded else "no", v.summary) for k, v in KINDS.items()]
    print_table(("kind", "extra", "depends on the seed", "what it does"), rows)
