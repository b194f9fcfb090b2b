"""Lists and counts as people write them."""

from __future__ import annotations

from collections.abc import Iterable

from tunelm.report.words import UNKNOWN, count


def listed(items: Iterable[str]) -> str:
    """Names in a sentence.

    >>> listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    """
    *first, last = items
    return f"{', '.join(first)} and {last}" if first else last


def counted(number: float | None, one: str, many: str | None = None) -> str:
    """A count with its noun.

    >>> counted(1, "row"), counted(1200, "row"), counted(None, "row")
    ('1 row', '1,200 rows', 'unknown rows')
    >>> counted(0, "try", "tries")
    '0 tries'
    """
    return f"{count(number)} {one if number == 1 else many or f'{one}s'}"


def all_of(number: int, one: str) -> str:
    """Every one of several.

    >>> all_of(2, "route"), all_of(3, "route")
    ('Both routes', 'All 3 routes')
    """
    return f"Both {one}s" if number == 2 else f"All {counted(number, one)}"


def each(found: Iterable[tuple[str, str]]) -> str:
    """What holds for whom, those of whom it is not known named last.

    >>> each([("a", "2 s"), ("b", "unknown"), ("c", "3 s")])
    'a 2 s, c 3 s; unknown for b'
    """
    pairs = list(found)
    known = ", ".join(f"{name} {value}" for name, value in pairs if value != UNKNOWN)
    unknown = [name for name, value in pairs if value == UNKNOWN]
    rest = f"unknown for {listed(unknown)}" if unknown else ""
    return "; ".join(part for part in (known, rest) if part)
