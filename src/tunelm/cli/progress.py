"""Progress: a bar on a terminal, a line a minute elsewhere, nothing on standard output."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import click

LINE_EVERY_S = 60.0


@contextmanager
def shown(quiet: bool = False) -> Generator[Callable[[str, int, int], None]]:
    """A progress callback (what, done, total) that people can follow."""
    if quiet:
        yield lambda what, done, total: None
    elif sys.stderr.isatty():
        with _bars() as update:
            yield update
    else:
        yield _lines()


@contextmanager
def _bars() -> Generator[Callable[[str, int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        known: dict[str, Any] = {}

        def update(what: str, done: int, total: int) -> None:
            name = _name(what)
            if name not in known:
                known[name] = bars.add_task(what, total=total)
            bars.update(known[name], description=what, completed=done, total=total)

        yield update


def _lines() -> Callable[[str, int, int], None]:
    last = {"what": "", "time": 0.0}

    def update(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if _name(what) != last["what"] or now - float(last["time"]) >= LINE_EVERY_S:
            click.echo(f"{what}: {done}/{total}", err=True)
            last.update(what=_name(what), time=now)

    return update


def _name(what: str) -> str:
    """What is being done, without what is said of it in brackets, which may change."""
    return what.partition(" (")[0]
