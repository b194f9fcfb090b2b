"""A disk without room: how it is recognised, and the words for it."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

EXIT_CODE = 74
"""What a command returns then (EX_IOERR of sysexits.h): all that is left where not even the log
can be written."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_BY_SYSTEM = tuple(os.strerror(number) for number in _FULL)
_SAID = (
    *_BY_SYSTEM,
    *("disk is full", "disk of the server is full"),
    # what PyTorch says of it, whose errors keep no error number
    *("PytorchStreamWriter failed writing", "unexpected pos"),
)


def is_full(error: BaseException) -> bool:
    """Whether an error says that there was no room to write: disk, quota, or a file's limit."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    return any(text in str(error) for text in _SAID)


def why(error: BaseException) -> str:
    """What the system says of it; PyTorch does not tell."""
    said = (text for text in _BY_SYSTEM if text in str(error))
    return next(said, "a file could not be written")


def no_room(folder: Path, said: str | None = None) -> OSError:
    """The error that stands for one told by another process, whose work was in `folder`."""
    return OSError(errno.ENOSPC, said or _BY_SYSTEM[0], str(folder))


def sweep(work: Path) -> None:
    """Remove what was being written in a work folder and never got whole, to make some room."""
    for part in sorted(work.rglob("*part")):
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
