"""`prices`: what training, hosting and answers cost, dated and with sources."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tunelm.prices import InferencePrice, Price

MOST_ROWS = 40
"""Prices of answers shown at once; --json has them all."""


@click.command("prices", epilog="Example: tunelm prices gpt-4o-mini")
@click.argument("model", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.option(
    "--update",
    is_flag=True,
    help="Fetch the list of what answers cost; its address or a file may stand for MODEL.",
)
@click.option("--as-of", type=click.DateTime(["%Y-%m-%d"]), help="Day of the list, for --update.")
def prices_command(model: str | None, as_json: bool, update: bool, as_of: datetime | None) -> None:
    """Show what training, hosting and answers cost, with dates and sources.

    MODEL is a name or a part of one. Without it: all of training and hosting.
    """
    from tunelm.errors import ConfigError
    from tunelm.prices import listed_prices, matching

    if as_of and not update:
        raise ConfigError("--as-of is the day of a list that is fetched: give --update too.")
    if update:
        from tunelm.price_list import LIST_URL
        from tunelm.price_list import update as update_list

        update_list(model or LIST_URL, as_of.date() if as_of else None)
        if not as_json:
            click.echo(_list_line())
            return
        model = None
    training = [p for p in listed_prices() if model is None or _about(p, model)]
    answers = matching(model or "") if model or as_json else []
    if model and not training and not answers:
        raise ConfigError(f"no price of {model!r} is known.{_near(model)}")
    if as_json:
        _print_json(training, answers)
        return
    if training:
        _show_training(training)
    if answers:
        _show_answers(answers)
    click.echo(_list_line())


def _print_json(training: Sequence[Price], answers: Sequence[InferencePrice]) -> None:
    from tunelm.price_list import price_list
    from tunelm.prices import is_stale, to_json

    today, prices = date.today(), price_list()
    head = {
        "as_of": prices.as_of.isoformat(),
        "stale": is_stale(prices.as_of, today),
        "source": prices.source,
        "url": prices.url,
        "models": prices.size,
    }
    rows = {
        "training": [to_json(price, today) for price in training],
        "inference": [to_json(price, today) for price in answers],
    }
    click.echo(json.dumps({"price_list": head, **rows}))


def _show_training(prices: Sequence[Price]) -> None:
    from tunelm.cli.tables import Footnotes, print_table
    from tunelm.prices import remarks

    today, footnotes = date.today(), Footnotes()
    rows: list[tuple[str, ...]] = []
    for price in prices:
        where = f"{remarks(price, today)}: {price.source}" + f"; {price.note}" * bool(price.note)
        figure = "unknown" if price.value is None else f"{price.value:.2f}"
        mark = footnotes.mark(where)
        rows.append((price.provider, price.model, price.method, figure, price.unit, mark))
    print_table(("provider", "model or size", "for", "figure", "unit", "source"), rows)
    click.echo("\n".join(["", *footnotes.lines(), ""]))


def _show_answers(prices: Sequence[InferencePrice]) -> None:
    from tunelm.cli.tables import print_table

    def figure(value: float | None) -> str:
        return "-" if value is None else f"{value:g}"

    rows: list[tuple[str, ...]] = []
    for price in prices[:MOST_ROWS]:
        dollars = (price.usd_in, price.usd_cached_in, price.usd_out)
        batch = f"{figure(price.usd_batch_in)} / {figure(price.usd_batch_out)}"
        longest = "-" if price.up_to_tokens is None else f"{price.up_to_tokens:,}"
        told = (*map(figure, dollars), batch, longest, _end(price.shutdown))
        rows.append((price.provider, price.model, *told))
    header = ("in", "cached in", "out", "batch in / out", "up to tokens", "shuts down")
    print_table(("provider", "answers, USD per 1M tokens", *header), rows)
    if len(prices) > MOST_ROWS:
        click.echo(f"... and {len(prices) - MOST_ROWS} more: give more of the name, or --json")
    click.echo("- is unknown. Prompts of more tokens than `up to` cost more.")


def _end(day: date | None) -> str:
    if day is None:
        return "-"
    return f"{day} (gone)" if day <= date.today() else str(day)


def _about(price: Price, model: str) -> bool:
    """Whether a row says something of a model, or of what is called like it."""
    from tunelm.prices import base_of, same_model

    called = f"{price.provider}/{price.model}".lower()
    return model.lower() in called or same_model(price.model, base_of(model))


def _near(model: str) -> str:
    import difflib

    from tunelm.price_list import price_list

    names = {name for models in price_list().models.values() for name in models}
    near = difflib.get_close_matches(model, names, n=3, cutoff=0.6)
    return f" Did you mean {', '.join(near)}?" if near else ""


def _list_line() -> str:
    from tunelm.price_list import price_list
    from tunelm.prices import STALE_DAYS, is_stale

    prices = price_list()
    old = f", stale: older than {STALE_DAYS} days" if is_stale(prices.as_of, date.today()) else ""
    return (
        f"What answers cost is from {prices.source}, {prices.as_of}{old}, not verified: "
        f"{prices.size:,} models of {len(prices.models)} providers. Newer: tunelm prices --update"
    )
