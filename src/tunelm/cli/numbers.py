"""Options that take a plain number, and say in one line what is wrong with anything else."""

from __future__ import annotations

from typing import Any

import click


def number_option(flag: str, help_text: str, example: str, name: str | None = None) -> Any:
    """An option that takes a plain number, without currency, unit or comma; None: not given."""

    def convert(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
        from tunelm.errors import ConfigError

        if value is None:
            return None
        try:
            return float(value.replace("_", "?"))  # Python's 1_000 is a slip here
        except ValueError:
            raise ConfigError(
                f"{flag} {value!r}: a plain number is expected, without currency, unit or comma, "
                f"such as {example}."
            ) from None

    names = [flag] if name is None else [flag, name]
    return click.option(*names, callback=convert, metavar="N", help=help_text)
