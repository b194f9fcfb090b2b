"""`judge`: the group of train, check, rate and pairs, each imported when it is used."""

from __future__ import annotations

import importlib

import click

VERBS = {
    "train": "judge_train",
    "check": "judge_train",
    "rate": "judge_llm",
    "pairs": "judge_llm",
}


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"tunelm.cli.{VERBS[cmd_name]}")
        return getattr(module, f"{cmd_name}_command")


@click.group(
    "judge",
    cls=_Verbs,
    epilog="Example: tunelm judge train ours.jsonl --target tone --out judges/tone",
)
def judge_command() -> None:
    """Train judges of replies from people's labels, check them, and rate a run with them."""
