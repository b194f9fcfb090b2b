"""`judge`: the group of train, check, rate and pairs, each imported when it is used."""

from __future__ import annotations

import click

from tunelm.cli.lazy import LazyGroup

VERBS = {
    "train": "tunelm.cli.judge_train",
    "check": "tunelm.cli.judge_train",
    "rate": "tunelm.cli.judge_llm",
    "pairs": "tunelm.cli.judge_llm",
}


@click.group(
    "judge",
    cls=LazyGroup,
    table=VERBS,
    epilog="Example: tunelm judge train ours.jsonl --target tone --out judges/tone",
)
def judge_command() -> None:
    """Train judges of replies from people's labels, check them, and rate a run with them."""
