"""`models`: the bundled models, and who fine-tunes which models until when."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tunelm.providers import Provider, Tunable


@click.command("models", epilog="Example: tunelm models --json")
@click.option("--registry", is_flag=True, help="The open models that `tunelm plan` chooses from.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def models_command(registry: bool, as_json: bool) -> None:
    """List the bundled models, and who fine-tunes which models until when."""
    from tunelm.cli.tables import print_table
    from tunelm.providers import presets

    if registry:
        _show_registry(as_json)
        return

    bundled, providers = _bundled(), list(presets().values())
    if as_json:
        import dataclasses

        rows = [dataclasses.asdict(provider) for provider in providers]
        click.echo(json.dumps({"bundled": bundled, "providers": rows}, default=str))
        return
    rows = [(m["name"], f"{m['parameters']:,}", f"{m['context']:,} tokens") for m in bundled]
    print_table(("bundled model", "parameters", "longest context"), rows)
    click.echo()
    _show_providers(providers)
    click.echo()
    _show_tunable(providers)
    for provider in providers:
        if provider.why_not:
            click.echo(f"{provider.name} is not supported: {provider.why_not}")
        for note in provider.notes:
            click.echo(f"{provider.name}: {note}")


def _show_registry(as_json: bool) -> None:
    from tunelm.cli.tables import print_table
    from tunelm.planning.registry import registry, registry_rows

    if as_json:
        import dataclasses

        found = [dataclasses.asdict(model) for model in registry()]
        click.echo(json.dumps(found, default=str))
        return
    rows = registry_rows(registry())
    print_table(list(rows[0]), [list(row.values()) for row in rows])
    click.echo("? was not read at the publisher: read the model's card before relying on it")


def _bundled() -> list[dict[str, Any]]:
    """Name, parameters and longest context, from the files beside the weights."""
    from tunelm.models.loading import BUNDLED

    found: list[dict[str, Any]] = []
    for name, folder in BUNDLED.items():
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        with (folder / "model.safetensors").open("rb") as file:  # its header: shapes, as JSON
            tensors = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        shapes = [tensor["shape"] for key, tensor in tensors.items() if key != "__metadata__"]
        context = config["max_position_embeddings"]
        found.append({"name": name, "parameters": sum(map(math.prod, shapes)), "context": context})
    return found


def _show_providers(providers: Sequence[Provider]) -> None:
    from tunelm.cli.tables import Footnotes, print_table

    def can(value: bool | None) -> str:
        return "?" if value is None else "yes" if value else "no"

    footnotes = Footnotes()
    rows: list[tuple[str, ...]] = []
    for provider in providers:
        fewest = "?" if provider.min_examples is None else str(provider.min_examples)
        told = (provider.protocol, provider.pause, provider.checkpoints, provider.metadata)
        place = (provider.base_url or "-", provider.key_env or "-", fewest)
        mark = footnotes.mark(_dated(provider))
        rows.append((provider.name, *place, *map(can, (*told, provider.serves)), mark))
    header = ("fewest rows", "protocol", "pause", "checkpoints", "metadata", "serves at once")
    print_table(("provider", "base_url", "key", *header, "source"), rows)
    click.echo("\n".join(["? is unknown", *footnotes.lines()]))


def _show_tunable(providers: Sequence[Provider]) -> None:
    from tunelm.cli.tables import Footnotes, print_table
    from tunelm.prices import training_price

    today, footnotes = date.today(), Footnotes()
    rows: list[tuple[str, ...]] = []
    for provider in providers:
        for model in provider.models:
            price = training_price(provider.name, model.name, model.methods[0])
            cost = "unknown"
            if price and price.value is not None:
                cost = f"{price.value:g} {price.unit.removeprefix('USD ')}"
                cost += " (stale)" if price.stale(today) else ""
            until = _until(provider, model, today)
            told = (", ".join(model.methods), cost, until, footnotes.mark(_dated(model)))
            rows.append((provider.name, model.name, *told))
    print_table(("provider", "fine-tunes", "by", "training, USD", "until", "source"), rows)
    click.echo("\n".join([*footnotes.lines(), "Sources of the prices: tunelm prices", ""]))


def _dated(fact: Provider | Tunable) -> str:
    from tunelm.prices import remarks

    if fact.as_of is None:
        return fact.source
    return f"{remarks(fact, date.today())}: {fact.source}"


def _until(provider: Provider, model: Tunable, today: date) -> str:
    """Until when jobs are taken and fine-tunes answer, as far as a day is known."""
    ends = model.tunes_end or model.base_ends
    if ends and ends <= today:
        return f"gone since {ends}"
    said: list[str] = []
    if provider.jobs_end:
        closed = provider.jobs_end <= today
        said.append(f"{'no jobs since' if closed else 'jobs before'} {provider.jobs_end}")
    if ends:
        said.append(f"answers before {ends} ({(ends - today).days} days)")
    return ", ".join([*said, *([model.note] if model.note else [])]) or "-"
