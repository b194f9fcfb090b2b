"""Tables on a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; on something that is not a terminal it is as wide as it needs to be."""
    import sys

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else 200).print(table)


class Footnotes:
    """Numbered remarks below a table, each once."""

    def __init__(self) -> None:
        self._texts: dict[str, int] = {}

    def mark(self, text: str) -> str:
        """The number that stands for a text in the table."""
        return f"[{self._texts.setdefault(text, len(self._texts) + 1)}]"

    def lines(self) -> list[str]:
        """The texts with their numbers."""
        return [f"[{number}] {text}" for text, number in self._texts.items()]
