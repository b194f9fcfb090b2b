"""`data`: the group of check, prepare and show, each imported when it is used."""

from __future__ import annotations

import importlib
from typing import Any

import click

VERBS = {"check": "data_check", "prepare": "data_prepare", "show": "data_show"}


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


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"tunelm.cli.{VERBS[cmd_name]}")
        return getattr(module, f"{cmd_name}_command")


@click.group(
    "data",
    cls=_Verbs,
    epilog="Example: tunelm data check rows.jsonl --model tunelm-nano",
)
def data_command() -> None:
    """Check rows for faults, clean and split them, see what a model is trained on."""
