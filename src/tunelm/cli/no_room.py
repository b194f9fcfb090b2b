"""A full disk in one line: which folder, how much is free there, and how to go on."""

from __future__ import annotations

import shutil
from pathlib import Path

from tunelm.room import is_full


def note_way_on(error: OSError, folder: Path, line: str) -> None:
    """Put into an error about a full disk how to go on with what was written to `folder`."""
    if is_full(error):
        error.filename = error.filename or str(folder)
        error.add_note(f"What was finished is whole. Make room there, and go on with: {line}")


def in_one_line(error: OSError) -> str:
    """What is told of a full disk.

    >>> full = OSError(28, "No space left on device", "/nowhere/run/rows.jsonl")
    >>> in_one_line(full).startswith("no room to write in /: No space left on device (")
    True
    """
    from tunelm.report.words import quantity

    path = Path(error.filename) if isinstance(error.filename, str) else Path.cwd()
    folder = next(p for p in (path, *path.absolute().parents) if p.is_dir())
    room = shutil.disk_usage(folder)
    free = f"{quantity(room.free, 'bytes')} of {quantity(room.total, 'bytes')} are free there"
    found = f"no room to write in {folder.resolve()}: {error.strerror or error} ({free})."
    notes = getattr(error, "__notes__", ["Make room there, and give the same line again."])
    return " ".join([found, *notes])
