"""Files: kept on disk under ids of the server's own, their names and purposes in the store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from tunelm.server.errors import ApiError
from tunelm.server.multipart import Form, receive
from tunelm.server.pages import MOST_FILES, check_limit, page
from tunelm.server.store import Row, Store, discard, new_id, now, settle

PURPOSES = ("fine-tune", "assistants", "batch", "vision", "user_data")
"""What a file may be uploaded for; only `fine-tune` is of any use here."""
KEEP_SECONDS = (3_600, 2_592_000)
"""Shortest and longest time after which a file may be made to expire."""

_ALIVE = "(expires_at IS NULL OR expires_at > ?)"
_CHUNK = 1 << 18


def router(store: Store, most: int) -> APIRouter:
    """The endpoints under /files; a file has at most `most` bytes."""
    api = APIRouter(prefix="/files")

    @api.post("")
    async def create(request: Request) -> dict[str, Any]:
        with store.new_file() as path:
            form = await receive(request, "file", path, most)
            keep = _checked(form)
            purpose = form.fields["purpose"]
            row = await run_in_threadpool(add_file, store, path, form.filename or "", purpose, keep)
        return file_object(row)

    @api.get("")
    def listed(
        purpose: str | None = None,
        after: str | None = None,
        limit: int = MOST_FILES,
        order: Literal["asc", "desc"] = "desc",
    ) -> dict[str, Any]:
        check_limit(limit, MOST_FILES)
        where, values = _ALIVE, (now(),)
        if purpose is not None:
            where, values = f"{where} AND purpose = ?", (*values, purpose)
        rows, more = page(store, "files", (where, values), after, limit, order == "desc")
        data = [file_object(row) for row in rows]
        return {
            "object": "list",
            "data": data,
            "first_id": data[0]["id"] if data else "",
            "last_id": data[-1]["id"] if data else "",
            "has_more": more,
        }

    @api.get("/{file_id}")
    def one(file_id: str) -> dict[str, Any]:
        return file_object(get_file(store, file_id))

    @api.delete("/{file_id}")
    def delete(file_id: str) -> dict[str, Any]:
        row = get_file(store, file_id)
        with store.write() as db:
            db.execute("DELETE FROM files WHERE id = ?", (row["id"],))
        discard(store.files / row["id"])
        return {"id": row["id"], "object": "file", "deleted": True}

    @api.get("/{file_id}/content")
    def content(file_id: str) -> StreamingResponse:
        row = get_file(store, file_id)
        try:
            # opened here: a file that is deleted meanwhile is still sent whole
            file = (store.files / row["id"]).open("rb")
        except FileNotFoundError:
            raise _no_file(file_id) from None
        headers = {"content-length": str(row["bytes"]), "x-content-type-options": "nosniff"}
        return StreamingResponse(
            _chunks(file), media_type="application/octet-stream", headers=headers
        )

    return api


def add_file(store: Store, path: Path, filename: str, purpose: str, keep: int | None = None) -> Row:
    """Take over the finished file at `path`; it expires `keep` seconds from now."""
    file_id = new_id("file-")
    final = store.files / file_id
    size = path.stat().st_size
    settle(path, final)
    try:
        with store.write() as db:
            insert_file(db, file_id, safe_name(filename), purpose, size, keep)
    except BaseException:
        discard(final)
        raise
    return get_file(store, file_id)


def insert_file(
    db: Any, file_id: str, filename: str, purpose: str, size: int, keep: int | None = None
) -> None:
    """The row of a file that stands in its place, within a transaction."""
    at = now()
    db.execute(
        "INSERT INTO files (id, created_at, expires_at, filename, bytes, purpose)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (file_id, at, None if keep is None else at + keep, filename, size, purpose),
    )


def get_file(store: Store, file_id: str, param: str = "file_id") -> Row:
    """The row of a file that has not expired. Raises ApiError (404)."""
    row = store.one(f"SELECT * FROM files WHERE id = ? AND {_ALIVE}", file_id, now())
    if row is None:
        raise _no_file(file_id, param)
    return row


def file_object(row: Row) -> dict[str, Any]:
    """A file as the protocol shows it."""
    data: dict[str, Any] = {
        "id": row["id"],
        "object": "file",
        "bytes": row["bytes"],
        "created_at": row["created_at"],
        "filename": row["filename"],
        "purpose": row["purpose"],
        "status": "processed",
    }
    return data if row["expires_at"] is None else {**data, "expires_at": row["expires_at"]}


def safe_name(name: str) -> str:
    r"""The last part of a client's file name, without what no name should hold.

    It is only ever shown; some client may write to it.

    >>> safe_name("../../etc/passwd"), safe_name("C:\\x\\rows.jsonl"), safe_name("..")
    ('passwd', 'rows.jsonl', 'file')
    """
    last = name.replace("\\", "/").rpartition("/")[2]
    shown = "".join(c for c in last if c.isprintable()).strip()[:255]
    return shown if shown.strip(".") else "file"


def keep_seconds(expires_after: Mapping[str, Any] | None) -> int | None:
    """The seconds of a policy of expiry. Raises ApiError for one out of form or range."""
    if not expires_after:
        return None
    if expires_after.get("anchor") != "created_at":
        raise ApiError(
            400, "expires_after.anchor must be created_at.", "invalid_value", "expires_after.anchor"
        )
    low, high = KEEP_SECONDS
    seconds = str(expires_after.get("seconds", ""))
    if not (seconds.isascii() and seconds.isdigit() and low <= int(seconds) <= high):
        raise ApiError(
            400,
            f"expires_after.seconds must be a whole number from {low} to {high}.",
            "invalid_value",
            "expires_after.seconds",
        )
    return int(seconds)


def check_purpose(purpose: str | None) -> None:
    """Raises ApiError for what no file may be uploaded for."""
    if purpose not in PURPOSES:
        got = "is missing" if purpose is None else f"got {purpose[:80]!r}"
        raise ApiError(
            400,
            f"purpose: {got}, expected one of {', '.join(PURPOSES)}.",
            "invalid_value",
            "purpose",
        )


def _checked(form: Form) -> int | None:
    """The seconds after which the file expires. Raises ApiError for fields out of form."""
    policy: dict[str, str] = {}
    for name, value in form.fields.items():
        if name.startswith("expires_after[") and name.endswith("]"):
            policy[name[len("expires_after[") : -1]] = value
        elif name != "purpose":
            raise ApiError(
                400,
                f"{name[:80]} is no parameter of this endpoint.",
                "unknown_parameter",
                name[:80],
            )
    check_purpose(form.fields.get("purpose"))
    if form.size == 0:
        raise ApiError(400, "the file is empty.", "invalid_file", "file")
    return keep_seconds(policy)


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _no_file(file_id: str, param: str = "file_id") -> ApiError:
    return ApiError(404, f"there is no file {file_id[:80]!r}.", "file_not_found", param)
