"""Rows of text as a Markdown table, and text that no reader of Markdown takes for markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence


def table(rows: Sequence[Mapping[str, str]]) -> str:
    r"""Rows with the same keys as a table; "" where there are none.

    >>> print(table([{"a": "1", "b": "x|y"}]))
    | a | b |
    | --- | --- |
    | 1 | x\|y |
    """
    if not rows:
        return ""
    lines = [_line(rows[0]), _line("---" for _ in rows[0])]
    return "\n".join(lines + [_line(row.values()) for row in rows])


def inline(text: object) -> str:
    """Text on one line that no Markdown reader takes for markup."""
    return re.sub(r"([\\`*|<>\[\]])", r"\\\1", " ".join(str(text).split()))


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(inline(cell) for cell in cells) + " |"
