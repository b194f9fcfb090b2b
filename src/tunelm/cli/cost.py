"""`cost`: what each route of a run costs to make and to keep, and when one pays off."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunelm.cli.numbers import number_option

if TYPE_CHECKING:
    from tunelm.planning.analysis import Analysis

SHOWN = 5
"""Tables printed; cost.md has them all."""

EXAMPLES = """\b
Examples:
  tunelm cost runs/first --requests-a-month 20000 --cache-hit-rate 0.6
  tunelm cost runs/first --gpu "H100 SXM" --utilization 0.3 --speed 8
  tunelm cost runs/first --watts 60 --usd-per-kwh 0.30
  tunelm cost runs/first --price-as openai/gpt-4o-mini
"""


@click.command("cost", epilog=EXAMPLES)
@click.argument("run", type=click.Path(path_type=Path))
@number_option("--requests-a-month", "Answers a month  [default: 1000]", "20000")
@number_option("--conversations-a-month", "The same, of a task of conversations.", "20000")
@number_option("--months", "To spread one-off costs over  [default: 12]", "12")
@number_option("--cache-hit-rate", "Of the prefix's tokens  [default: 0]", "0.3")
@click.option("--gpu", "machine", metavar="NAME", help="A machine of the price table, to rent.")
@number_option("--gpu-usd-per-hour", "Rent of a machine.", "0.25", "usd_per_hour")
@number_option("--utilization", "Share of paid hours in which it answers.", "0.3")
@number_option("--speed", "Times as fast as the run's machine  [default: 1]", "0.3")
@number_option("--watts", "What your own machine draws while it computes.", "60")
@number_option("--usd-per-kwh", "Price of power; the machine is then your own.", "0.25")
@number_option("--hardware-usd", "What your own machine cost.", "20000")
@number_option("--hardware-months", "Over how many months.", "36")
@number_option("--retrain-every", "Months between two fits.", "6")
@number_option("--hours-of-work", "People's work on the data.", "8", "hours")
@number_option("--usd-per-hour", "What an hour of it costs.", "0.25", "usd_an_hour")
@click.option("--batch", is_flag=True, help="Answers in batches, at the provider's discount.")
@click.option("--price-as", metavar="PROVIDER/MODEL", help="As if hosted there, at list prices.")
@number_option("--pass-at", "From which value of the metric on a row passes.", "0.3")
@click.option("--json", "as_json", is_flag=True, help="Print the analysis as JSON.")
@click.option("--out", type=click.Path(path_type=Path), help="Where to write  [default: RUN]")
def cost_command(run: Path, as_json: bool, out: Path | None, **given: Any) -> None:
    """What each route of RUN costs to make and to keep, and from which volume on one pays off.

    Writes cost.json, cost.md and two pictures beside it. Nothing is sent anywhere.
    """
    analysis = _analyse(run, given)
    folder = out or run
    _write(folder, analysis)
    if as_json:
        import json

        click.echo(json.dumps(analysis, allow_nan=False))
        return
    _print(analysis)
    click.echo(f"\nThe whole analysis: {folder / 'cost.md'}")


def _analyse(run: Path, given: dict[str, Any]) -> Analysis:
    from datetime import date

    from tunelm.errors import ConfigError
    from tunelm.planning.analysis import analyse
    from tunelm.planning.assumptions import Assumptions
    from tunelm.planning.cases import cases
    from tunelm.planning.machines import choose_machine
    from tunelm.planning.run_costs import check_unit, read_facts

    today = date.today()
    requests, talks = given.pop("requests_a_month"), given.pop("conversations_a_month")
    machine, price_as, pass_at = (given.pop(k) for k in ("machine", "price_as", "pass_at"))
    if requests is not None and talks is not None:
        raise ConfigError("give --requests-a-month or --conversations-a-month, not both.")
    given["volume"] = requests if talks is None else talks
    said = {
        name: value for name, value in given.items() if value is not None and value is not False
    }
    chosen = choose_machine(
        machine, said.get("usd_per_hour"), said.get("watts"), said.get("usd_per_kwh"), today
    )
    looked_up: dict[str, Any] = {"usd_per_hour": chosen.usd_per_hour, "watts": chosen.watts}
    assumptions = Assumptions(**{**said, **looked_up})
    facts = read_facts(run, today, price_as, pass_at)
    check_unit(facts, requests is not None, talks is not None, assumptions.batch)
    found = analyse(facts, assumptions, list(said), chosen, today)
    return found | {"cases": cases(run, facts, assumptions, today)}


def _write(folder: Path, analysis: Analysis) -> None:
    from tunelm.planning.charts import cost_plot, tornado
    from tunelm.planning.cost_page import PLOT, TORNADO, markdown
    from tunelm.rundir import write_json, write_text

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "cost.json", analysis)
    write_text(folder / "cost.md", markdown(analysis))
    for name, picture in ((PLOT, cost_plot(analysis)), (TORNADO, tornado(analysis))):
        if picture is None:  # of an earlier analysis
            (folder / name).unlink(missing_ok=True)
        else:
            write_text(folder / name, picture)


def _print(analysis: Analysis) -> None:
    from tunelm.cli.tables import print_table
    from tunelm.planning.cost_page import TABLES, verdict

    click.echo(verdict(analysis))
    for warning in analysis["warnings"]:
        click.echo(f"- {warning}")
    for heading, rows_of in TABLES[:SHOWN]:
        if rows := rows_of(analysis):
            click.echo(f"\n{heading}")
            print_table(list(rows[0]), [list(row.values()) for row in rows])
