"""A form with one file, written to disk as it comes in: no size of it is ever held in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from tunelm.server.errors import ApiError

_MOST_FIELDS = 1 << 16
"""Bytes of all fields beside the file."""


@dataclass
class Form:
    """What came in. `md5`, in hex digits, is of the file."""

    fields: dict[str, str] = field(default_factory=dict[str, str])
    filename: str | None = None
    """As the client calls it; None: there was no file."""
    size: int = 0
    md5: str = ""


async def receive(request: Request, file_field: str, path: Path, most: int) -> Form:
    """Read a multipart body; the file in its field `file_field` is written to `path`.

    Raises:
        ApiError: 400 for what is no such form, 413 for a file of more than `most` bytes.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise ApiError(400, "the body must be multipart/form-data.", "invalid_content_type")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > most + _MOST_FIELDS + (1 << 16):
        raise _too_large(most)
    with path.open("wb") as out:
        reader = _Reader(file_field, out, most)
        try:
            parser = MultipartParser(boundary, reader.callbacks())  # pyright: ignore[reportArgumentType]
            async for chunk in request.stream():
                await run_in_threadpool(parser.write, chunk)
            parser.finalize()
        except FormParserError:
            raise ApiError(400, "the form cannot be read: it is damaged.", "invalid_form") from None
    if not reader.ended:
        raise ApiError(400, "the form cannot be read: its end is missing.", "invalid_form")
    if reader.form.filename is None:
        raise ApiError(
            400, f"{file_field} is missing.", "missing_required_parameter", param=file_field
        )
    reader.form.md5 = reader.digest.hexdigest()
    return reader.form


class _Reader:
    """Puts the parser's pieces together."""

    def __init__(self, file_field: str, out: BinaryIO, most: int) -> None:
        self.form = Form()
        self.digest = hashlib.md5(usedforsecurity=False)
        self.ended = False
        self._file_field, self._out, self._most = file_field, out, most
        self._header = self._value = b""
        self._name = ""
        self._text = bytearray()
        self._fields_size = 0

    def callbacks(self) -> dict[str, Callable[..., Any]]:
        return {
            "on_part_begin": self._part_begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def _part_begin(self) -> None:
        self._name = ""
        self._text.clear()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self._name = options.get(b"name", b"").decode("utf-8", "replace")
            if self._name == self._file_field:
                if self.form.filename is not None:
                    raise ApiError(400, "one file is taken at a time.", "invalid_form", self._name)
                self.form.filename = options.get(b"filename", b"").decode("utf-8", "replace")
        self._header = self._value = b""

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == self._file_field:
            self.form.size += end - start
            if self.form.size > self._most:
                raise _too_large(self._most)
            piece = data[start:end]
            self.digest.update(piece)
            self._out.write(piece)
            return
        self._fields_size += end - start
        if self._fields_size > _MOST_FIELDS:
            raise ApiError(413, f"the field {self._name[:80]!r} is too large.", "field_too_large")
        self._text += data[start:end]

    def _part_end(self) -> None:
        if self._name != self._file_field:
            self.form.fields[self._name] = self._text.decode("utf-8", "replace")

    def _end(self) -> None:
        self.ended = True


def _too_large(most: int) -> ApiError:
    return ApiError(
        413,
        f"the file is too large: this server takes {most:,} bytes at a time. Send less, or start "
        "the server with a higher limit.",
        "file_too_large",
        "file",
    )
