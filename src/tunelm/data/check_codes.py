"""The kinds of fault `tunelm data check` knows: level, what it is, why it hurts, how to mend it.

`docs/data-check.md` holds the same table for people; a test keeps the two alike.
"""

from __future__ import annotations

from tunelm.data.check_codes_files import FILE_CODES
from tunelm.data.check_codes_rows import ROW_CODES, Code
from tunelm.data.records import Fault, Record

CODES: dict[str, Code] = {**ROW_CODES, **FILE_CODES}


def fault(code: str, record: Record, found: str) -> Fault:
    """A fault of one row, with the level and the advice of its code."""
    return file_fault(code, record.file, found, record.line)


def file_fault(code: str, file: str, found: str, line: int = 0) -> Fault:
    """A fault at a line of a file, or (line 0) of a file as a whole."""
    kind = CODES[code]
    return Fault(code, kind.level, file, line, found, kind.mend)


def shown_from(file: str, source: str) -> str:
    """How a fault of one file names another row: `line 3` where it is the same file.

    >>> shown_from("a.jsonl", "a.jsonl:3"), shown_from("a.jsonl", "b.jsonl:3")
    ('line 3', 'b.jsonl:3')
    """
    other, _, line = source.rpartition(":")
    return f"line {line}" if other == file else source
