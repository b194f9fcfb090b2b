"""Files opened with care: regular, unchanged while read, unpacked within limits, line by line."""

from __future__ import annotations

import gzip
import os
import stat
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Protocol

from tunelm.errors import DataError

MIB = 1 << 20
BLOCK = MIB
LINE_LIMIT = 64 * MIB
"""Bytes of one line, or of one row of a CSV or JSON file."""
DOCUMENT_LIMIT = 256 * MIB
"""Bytes of one document, which is read whole."""
UNPACKED_LIMIT = 64 << 30
"""Bytes that a .gz file may hold."""
RATIO_LIMIT = 300
"""Times that a .gz file may grow, once it holds more than `LINE_LIMIT`; deflate ends at 1,032."""
GZIP_MAGIC = b"\x1f\x8b"


class Stream(Protocol):
    """What the readers need of a file."""

    def read(self, size: int = -1, /) -> bytes:
        """The next `size` bytes or fewer; none at the end."""
        ...


@contextmanager
def opened(path: Path, unpack: bool = True) -> Generator[Stream]:
    """A file to read, unpacked when it is gzip; whatever goes wrong in it is a DataError.

    When the block ends without an error the file must still be what it was at the start: a file
    that is being written gives rows of two states.
    """
    try:
        with regular(path) as file:
            before = os.fstat(file.fileno())
            packed = unpack and file.peek(2)[:2] == GZIP_MAGIC
            yield _Unpacked(path, file) if packed else file
            after = os.fstat(file.fileno())
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: the gzip file is damaged or cut off ({error}).") from None
    except OSError as error:
        raise cannot_read(path, error) from None
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise DataError(
            f"{path}: changed while it was read ({before.st_size:,} bytes before, "
            f"{after.st_size:,} after). Wait until it is written, or read a copy."
        )


@contextmanager
def regular(path: Path) -> Generator[BufferedReader]:
    """The open file; a device, a pipe or a folder is refused before it is opened."""
    kind = os.stat(path).st_mode
    if not stat.S_ISREG(kind):
        what = "a folder" if stat.S_ISDIR(kind) else "no regular file (a pipe or a device)"
        raise DataError(f"{path}: is {what}. Give the path of a file.")
    with path.open("rb") as file:
        yield file


def cannot_read(path: Path, error: OSError) -> DataError:
    """The one line that says why a file cannot be read."""
    if isinstance(error, FileNotFoundError):
        return DataError(
            f"{path}: no such file. data.path must name a file of rows or text, or a folder of"
            " documents."
        )
    return DataError(f"{path}: cannot be read: {error.strerror or error}.")


def head(path: Path, size: int = BLOCK) -> bytes:
    """The first bytes of a file, unpacked."""
    with opened(path) as stream:
        return read_up_to(stream, size)


def read_up_to(stream: Stream, size: int) -> bytes:
    """`size` bytes, or all there are."""
    parts: list[bytes] = []
    while size > 0 and (part := stream.read(min(size, BLOCK))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def read_document(path: Path, stream: Stream) -> bytes:
    """All of a document. Raises DataError when it is larger than `DOCUMENT_LIMIT`."""
    known = path.stat().st_size  # a packed document is larger than its file, never smaller
    data = read_up_to(stream, DOCUMENT_LIMIT + 1) if known <= DOCUMENT_LIMIT else b""
    if max(known, len(data)) > DOCUMENT_LIMIT:
        raise DataError(
            f"{path}: larger than {DOCUMENT_LIMIT // MIB} MiB, which is the most for one document. "
            "Split it into several files, or read each line as a text of its own: "
            'format = "lines".'
        )
    return data


def lines(stream: Stream) -> Iterator[tuple[int, bytes | None]]:
    r"""(number from 1, line with its end) for lines that end in \n, \r\n or \r.

    None stands for a line of more than `LINE_LIMIT` bytes, which is passed over in bounded memory.
    """
    number, size, skipping = 1, 0, False
    parts: list[bytes] = []  # of the line whose end is not read yet
    while block := stream.read(BLOCK):
        if parts and parts[-1].endswith(b"\r") and not block.startswith(b"\n"):
            yield number, None if skipping else b"".join(parts)
            parts, size, skipping, number = [], 0, False, number + 1
        pieces = block.splitlines(keepends=True)
        rest = b"" if pieces[-1].endswith(b"\n") else pieces.pop()
        for piece in pieces:
            long = skipping or size + len(piece) > LINE_LIMIT
            yield number, None if long else b"".join((*parts, piece))
            parts, size, skipping, number = [], 0, False, number + 1
        if rest:
            size += len(rest)
            skipping = skipping or size > LINE_LIMIT
            parts = [rest[-1:]] if skipping else [*parts, rest]
    if parts:
        yield number, None if skipping else b"".join(parts)


class _Unpacked:
    """A gzip file as a stream that stops at the limits of size and ratio."""

    def __init__(self, path: Path, file: BufferedReader) -> None:
        self._path = path
        self._packed = file
        self._file = gzip.GzipFile(fileobj=file, mode="rb")
        self._size = 0

    def read(self, size: int = -1, /) -> bytes:
        """The next unpacked bytes; all of them in steps, so that the limits hold."""
        if size < 0:
            return read_up_to(self, UNPACKED_LIMIT + 1)
        data = self._file.read(min(size, BLOCK))
        self._size += len(data)
        ratio = self._size / max(self._packed.tell(), 1)
        if self._size > UNPACKED_LIMIT or (self._size > LINE_LIMIT and ratio > RATIO_LIMIT):
            raise DataError(
                f"{self._path}: unpacks to more than {self._size // MIB:,} MiB, {ratio:,.0f} times "
                f"its size (limits: {UNPACKED_LIMIT >> 30} GiB, and {RATIO_LIMIT} times beyond "
                f"{LINE_LIMIT // MIB} MiB). If that is meant, unpack it yourself."
            )
        return data
