"""`report` and `routes`: what a run says, and what there is to choose from."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("report", epilog="Example: tunelm report runs/edu-qa-20260101-120000")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def report_command(run: Path, as_json: bool) -> None:
    """Write the report of RUN again, from its files, and print it."""
    from tunelm.cli.run import print_report
    from tunelm.errors import ConfigError
    from tunelm.report.build import write_report

    if not (run / "config.json").exists() or not (run / "split.json").exists():
        raise ConfigError(f"{run}: not a run directory (no config.json and split.json there).")
    print_report(write_report(run), run, as_json)


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
