"""`data`: the group of check, prepare and show, each imported when it is used."""

from __future__ import annotations

from typing import Any

import click

from tunelm.cli.lazy import LazyGroup

VERBS = {verb: f"tunelm.cli.data_{verb}" for verb in ("check", "prepare", "show")}


def reading_options(command: Any) -> Any:
    """--format and --column, for every verb that reads a file of rows."""
    for option in (
        click.option(
            "--column",
            "columns",
            multiple=True,
            metavar="OUR=THEIRS",
            callback=_mapping,
            help="Our field's name and the file's; may be repeated.",
        ),
        click.option("--format", "file_format", help="How FILE is written, if not as it looks."),
    ):
        command = option(command)
    return command


def _mapping(ctx: click.Context, option: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """OUR=THEIRS as a mapping. Raises UsageError for anything else."""
    columns: dict[str, str] = {}
    for item in given:
        ours, equals, theirs = item.partition("=")
        if not (ours and equals and theirs):
            raise click.UsageError(
                f"--column {item!r}: expected OUR=THEIRS, as in answer=reply.", ctx
            )
        columns[ours] = theirs
    return columns


@click.group(
    "data",
    cls=LazyGroup,
    table=VERBS,
    epilog="Example: tunelm data check rows.jsonl --model tunelm-nano",
)
def data_command() -> None:
    """Check rows for faults, clean and split them, see what a model is trained on."""
