"""`data`: the group of check, prepare and show, each imported when it is used."""

from __future__ import annotations

import importlib

import click

VERBS = {"check": "data_check", "prepare": "data_prepare", "show": "data_show"}


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
