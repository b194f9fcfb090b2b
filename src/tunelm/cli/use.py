"""`generate` and `eval`: ask an adapted model, and score it on other rows."""

from __future__ import annotations

import math
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tunelm.models.budget import Wallet


def spending_options(command: Any) -> Any:
    """A command with --spend and --max-usd, which `paying` takes."""
    for option in (
        click.option(
            "--max-usd",
            type=click.FloatRange(0),
            help="The most that --spend may spend here, in US dollars (budget.max_usd).",
        ),
        click.option(
            "--spend", is_flag=True, help="Allow an endpoint that charges, up to --max-usd."
        ),
    ):
        command = option(command)
    return command


@contextmanager
def paying(spend: bool, max_usd: float | None) -> Generator[Wallet]:
    """The wallet of one command; what was spent is said at its end, however it ends."""
    from tunelm.config import BudgetConfig
    from tunelm.models.budget import Wallet

    if max_usd is not None and not (spend and math.isfinite(max_usd)):
        raise click.UsageError(f"--max-usd {max_usd:g}: give a finite number, and --spend with it.")
    wallet = Wallet(BudgetConfig(spend=spend, max_usd=max_usd or 0.0))
    try:
        yield wallet
    finally:
        if wallet.spent:
            click.echo(f"spent: at most ${wallet.spent:.4g}", err=True)


@click.command(
    "generate", epilog="Example: tunelm generate runs/first 'What is the capital of Peru?'"
)
@click.argument("target")
@click.argument("prompt", required=False)
@click.option("--max-tokens", type=click.IntRange(1), default=64, show_default=True)
@click.option("--temperature", type=click.FloatRange(0), default=0.0, show_default=True)
@click.option("--seed", type=int, default=None, help="For temperatures above 0.")
@spending_options
def generate_command(
    target: str,
    prompt: str | None,
    max_tokens: int,
    temperature: float,
    seed: int | None,
    **spending: Any,
) -> None:
    """One answer of TARGET to PROMPT (or to what stands on standard input).

    TARGET is a run (its winner), RUN/ROUTE, an adapter's folder, or a model.
    """
    text = prompt if prompt is not None else sys.stdin.read()
    if not text.strip():
        raise click.UsageError("the prompt is empty: give it as an argument or on standard input.")
    import tunelm

    messages = (tunelm.Message("user", text),)
    request = tunelm.Request(messages, max_tokens, temperature, seed=seed)
    with paying(**spending) as wallet:
        for delta in tunelm.load(target, wallet).stream(request):
            click.echo(delta.text, nl=False)
        click.echo()


@click.command("eval", epilog="Example: tunelm eval runs/first/local more_questions.jsonl")
@click.argument("target")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--max-tokens", type=click.IntRange(1), default=64, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write the predictions there (JSONL).")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.option("--quiet", is_flag=True, help="No progress.")
@spending_options
def eval_command(
    target: str,
    data: Path,
    max_tokens: int,
    out: Path | None,
    as_json: bool,
    quiet: bool,
    **spending: Any,
) -> None:
    """Score TARGET on the rows of DATA, every metric with its interval by group.

    TARGET is a run (its winner), RUN/ROUTE, an adapter's folder, or a model.
    """
    from tunelm.cli.progress import shown
    from tunelm.cli.tables import print_table
    from tunelm.score_file import score_file

    with paying(**spending) as wallet, shown(quiet) as progress:
        result = score_file(target, data, max_tokens, out, progress, wallet)
    if as_json:
        import json

        click.echo(json.dumps(result))
        return
    rows = [
        (name, _number(s["value"]), f"{_number(s['ci_low'])} to {_number(s['ci_high'])}")
        for name, s in result["metrics"].items()
    ]
    click.echo(f"{result['rows']} rows in {result['groups']} groups, {result['failed']} failed")
    print_table(("metric", "value", "95% interval"), rows)


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"
