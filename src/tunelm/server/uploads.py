"""Uploads: a large file sent in parts, then put together in the order the client names."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field

from tunelm.server.errors import ApiError
from tunelm.server.files import (
    check_purpose,
    file_object,
    insert_file,
    keep_seconds,
    safe_name,
)
from tunelm.server.multipart import receive
from tunelm.server.store import Row, Store, discard, new_id, now, settle

MOST_PART = 64 << 20
"""Most bytes of a part."""
LIFETIME_S = 3_600
"""An upload that is not completed by then expires, and its parts are removed."""

_CHUNK = 1 << 20


class CreateUpload(BaseModel):
    """The body of POST /uploads."""

    model_config = ConfigDict(extra="forbid", strict=True)

    filename: Annotated[str, Field(min_length=1, max_length=1024)]
    purpose: str
    bytes: Annotated[int, Field(ge=1)]
    mime_type: Annotated[str, Field(max_length=255)]
    expires_after: dict[str, Any] | None = None


class CompleteUpload(BaseModel):
    """The body of POST /uploads/{id}/complete."""

    model_config = ConfigDict(extra="forbid", strict=True)

    part_ids: list[str]
    md5: str | None = None


def router(store: Store, most: int) -> APIRouter:
    """The endpoints under /uploads; a whole file has at most `most` bytes."""
    api = APIRouter(prefix="/uploads")

    @api.post("")
    def create(body: CreateUpload) -> dict[str, Any]:
        check_purpose(body.purpose)
        if body.bytes > most:
            raise ApiError(
                400, f"bytes: this server takes files of up to {most:,}.", "file_too_large", "bytes"
            )
        upload_id, at = new_id("upload_"), now()
        keep = keep_seconds(body.expires_after)
        name = safe_name(body.filename)
        with store.write() as db:
            db.execute(
                "INSERT INTO uploads (id, created_at, expires_at, filename, bytes, purpose,"
                " keep_seconds, status) VALUES (?, ?, ?, ?, ?, ?, ?, 'pending')",
                (upload_id, at, at + LIFETIME_S, name, body.bytes, body.purpose, keep),
            )
        return upload_object(store, _get(store, upload_id))

    @api.post("/{upload_id}/parts")
    async def add_part(upload_id: str, request: Request) -> dict[str, Any]:
        _must_be_pending(await run_in_threadpool(_get, store, upload_id))
        with store.new_file() as path:
            form = await receive(request, "data", path, MOST_PART)
            return await run_in_threadpool(_add_part, store, upload_id, path, form.size)

    @api.post("/{upload_id}/complete")
    def complete(upload_id: str, body: CompleteUpload) -> dict[str, Any]:
        try:
            return _complete(store, _get(store, upload_id), body)
        except ApiError:
            row = _get(store, upload_id)
            if row["status"] == "completed" and json.loads(row["part_ids"]) == body.part_ids:
                return upload_object(store, row)  # the first answer was lost on its way
            raise

    @api.post("/{upload_id}/cancel")
    def cancel(upload_id: str) -> dict[str, Any]:
        row = _get(store, upload_id)
        if row["status"] != "cancelled":
            _must_be_pending(row)
            with store.write() as db:
                db.execute(
                    "UPDATE uploads SET status = 'cancelled' WHERE id = ? AND status = 'pending'",
                    (upload_id,),
                )
            store.expire()
        return upload_object(store, _get(store, upload_id))

    return api


def upload_object(store: Store, row: Row) -> dict[str, Any]:
    """An upload as the protocol shows it, with its file once it is completed."""
    names = ("id", "created_at", "expires_at", "filename", "bytes", "purpose", "status")
    data = {"object": "upload", **{name: row[name] for name in names}}
    file = store.one("SELECT * FROM files WHERE id = ?", row["file_id"])
    return data if file is None else {**data, "file": file_object(file)}


def _get(store: Store, upload_id: str) -> Row:
    store.expire()
    row = store.one("SELECT * FROM uploads WHERE id = ?", upload_id)
    if row is None:
        raise ApiError(
            404, f"there is no upload {upload_id[:80]!r}.", "upload_not_found", "upload_id"
        )
    return row


def _must_be_pending(row: Row) -> None:
    if row["status"] != "pending":
        raise ApiError(
            400,
            f"the upload is {row['status']}, and only a pending one takes this.",
            "invalid_upload_state",
            "upload_id",
        )


def _add_part(store: Store, upload_id: str, path: Path, size: int) -> dict[str, Any]:
    part_id, at = new_id("part_"), now()
    final = store.parts / part_id
    settle(path, final)
    try:
        with store.write() as db:
            upload = db.execute("SELECT * FROM uploads WHERE id = ?", (upload_id,)).fetchone()
            _must_be_pending(upload)
            there = "SELECT COALESCE(SUM(bytes), 0) FROM parts WHERE upload_id = ?"
            total = db.execute(there, (upload_id,)).fetchone()[0] + size
            if total > upload["bytes"]:
                raise _wrong_size(
                    f"with this part there are {total:,} bytes, {upload['bytes']:,} were announced"
                )
            db.execute(
                "INSERT INTO parts (id, upload_id, created_at, bytes) VALUES (?, ?, ?, ?)",
                (part_id, upload_id, at, size),
            )
    except BaseException:
        discard(final)
        raise
    return {"id": part_id, "object": "upload.part", "created_at": at, "upload_id": upload_id}


def _complete(store: Store, upload: Row, body: CompleteUpload) -> dict[str, Any]:
    _must_be_pending(upload)
    rows = store.all("SELECT * FROM parts WHERE upload_id = ?", upload["id"])
    sizes = {row["id"]: row["bytes"] for row in rows}
    unknown = next((part for part in body.part_ids if part not in sizes), None)
    if unknown is not None or len(set(body.part_ids)) < len(body.part_ids):
        what = "a part stands in it twice" if unknown is None else f"no part {unknown[:80]!r}"
        raise ApiError(400, f"part_ids: {what}.", "invalid_value", "part_ids")
    total = sum(sizes[part] for part in body.part_ids)
    if total != upload["bytes"]:
        raise _wrong_size(f"the parts have {total:,} bytes, {upload['bytes']:,} were announced")
    file_id = new_id("file-")
    final = store.files / file_id
    with store.new_file() as path:
        digest = _join(store, body.part_ids, path)
        if body.md5 is not None and body.md5.lower() != digest:
            raise ApiError(
                400, f"md5: the parts together have {digest}.", "checksum_mismatch", "md5"
            )
        settle(path, final)
    try:
        with store.write() as db:
            done = db.execute(
                "UPDATE uploads SET status = 'completed', file_id = ?, part_ids = ?"
                " WHERE id = ? AND status = 'pending'",
                (file_id, json.dumps(body.part_ids), upload["id"]),
            )
            if done.rowcount == 0:
                raise ApiError(400, "the upload was ended meanwhile.", "invalid_upload_state")
            insert_file(
                db, file_id, upload["filename"], upload["purpose"], total, upload["keep_seconds"]
            )
    except BaseException:
        discard(final)
        raise
    return upload_object(store, _get(store, upload["id"]))


def _join(store: Store, part_ids: list[str], path: Path) -> str:
    """Write the parts one after the other to `path`; the MD5 of it all, in hex digits."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("wb") as out:
        for part in part_ids:
            try:
                with (store.parts / part).open("rb") as file:
                    while chunk := file.read(_CHUNK):
                        digest.update(chunk)
                        out.write(chunk)
            except FileNotFoundError:
                raise ApiError(
                    400, "the upload was ended meanwhile.", "invalid_upload_state"
                ) from None
    return digest.hexdigest()


def _wrong_size(what: str) -> ApiError:
    return ApiError(400, f"{what}.", "invalid_upload_size", "bytes")
