"""What a server keeps: rows in SQLite, and beside them the files that the rows name.

A row and its file appear together: the file is finished under another name and moved into place,
then its row is written; a row goes before its file. What a killed server left in between is
removed at the next start. Names on disk are ids that the server made.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
import string
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tunelm.errors import ConfigError
from tunelm.room import is_full
from tunelm.server.errors import ApiError

Row = sqlite3.Row

VERSION = 1
FINAL = ("succeeded", "failed", "cancelled")
"""The states that a job does not leave."""

_LETTERS = string.ascii_letters + string.digits
_SCHEMA = """
CREATE TABLE files (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, created_at INTEGER NOT NULL,
  expires_at INTEGER, filename TEXT NOT NULL, bytes INTEGER NOT NULL, purpose TEXT NOT NULL);
CREATE TABLE uploads (
  id TEXT PRIMARY KEY, created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL,
  filename TEXT NOT NULL, bytes INTEGER NOT NULL, purpose TEXT NOT NULL, keep_seconds INTEGER,
  status TEXT NOT NULL, part_ids TEXT, file_id TEXT);
CREATE TABLE parts (
  id TEXT PRIMARY KEY, upload_id TEXT NOT NULL, created_at INTEGER NOT NULL,
  bytes INTEGER NOT NULL);
CREATE TABLE jobs (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, created_at INTEGER NOT NULL,
  status TEXT NOT NULL, model TEXT NOT NULL, base TEXT NOT NULL, training_file TEXT NOT NULL,
  validation_file TEXT, name TEXT UNIQUE NOT NULL, seed INTEGER NOT NULL, metadata TEXT,
  hyperparameters TEXT NOT NULL, idempotency_key TEXT UNIQUE, request TEXT NOT NULL,
  validated INTEGER NOT NULL DEFAULT 0, read_to INTEGER NOT NULL DEFAULT 0,
  step INTEGER NOT NULL DEFAULT 0, evaluated INTEGER NOT NULL DEFAULT 0, estimated_finish INTEGER,
  finished_at INTEGER, trained_tokens INTEGER, result_file TEXT, error TEXT);
CREATE INDEX jobs_by_request ON jobs (request);
CREATE TABLE events (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, job_id TEXT NOT NULL,
  created_at INTEGER NOT NULL, level TEXT NOT NULL, message TEXT NOT NULL, data TEXT);
CREATE INDEX events_by_job ON events (job_id, seq);
CREATE TABLE checkpoints (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, job_id TEXT NOT NULL,
  created_at INTEGER NOT NULL, model TEXT NOT NULL, step INTEGER NOT NULL, metrics TEXT NOT NULL,
  UNIQUE (job_id, step));
CREATE TABLE models (
  id TEXT PRIMARY KEY, created_at INTEGER NOT NULL, folder TEXT UNIQUE NOT NULL);
"""


def new_id(prefix: str, length: int = 24) -> str:
    """An id that nobody can guess, such as `file-` and 24 letters and digits."""
    return prefix + "".join(secrets.choice(_LETTERS) for _ in range(length))


def now() -> int:
    """Seconds since 1970."""
    return int(time.time())


class Store:
    """The state folder of one server. Safe to use from several threads.

    Attributes:
        files, parts, jobs, models: the folders of what the rows of that table name.
        incoming: where things are written before they are whole.
    """

    def __init__(self, folder: Path) -> None:
        """Open the store, making it if need be. Raises ConfigError for a later version's."""
        self.folder = folder = folder.resolve()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in ("files", "parts", "jobs", "models", "incoming"):
            (folder / name).mkdir(exist_ok=True)
        self.files, self.parts = folder / "files", folder / "parts"
        self.jobs, self.models = folder / "jobs", folder / "models"
        self.incoming = folder / "incoming"
        self._lock = threading.Lock()
        self._db = sqlite3.connect(
            folder / "server.sqlite", isolation_level=None, check_same_thread=False
        )
        self._db.row_factory = sqlite3.Row
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        # FULL: what a client was told is there also after a power cut
        self._db.execute("PRAGMA synchronous = FULL")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise ConfigError(
                f"{self.folder}: written by a later tunelm (version {version} of its tables, this "
                f"one knows {VERSION}). Update tunelm, or choose another folder with --state."
            )
        if version == 0:
            with self.write() as db:
                for statement in _SCHEMA.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {VERSION}")

    def close(self) -> None:
        """Let go of the database."""
        with self._lock:
            self._db.close()

    def all(self, sql: str, *values: object) -> list[Row]:
        """The rows a query finds."""
        with self._lock:
            return self._db.execute(sql, values).fetchall()

    def one(self, sql: str, *values: object) -> Row | None:
        """The first row a query finds."""
        with self._lock:
            return self._db.execute(sql, values).fetchone()

    @contextmanager
    def write(self) -> Generator[sqlite3.Connection]:
        """A transaction: all of it or, after an exception, nothing. Do not nest.

        Raises:
            ApiError: 507, the disk is full.
        """
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                if is_full(error):
                    raise full_disk() from None
                raise

    @contextmanager
    def new_file(self) -> Generator[Path]:
        """A path to write something new to; what is still there in the end is removed.

        Raises:
            ApiError: 507, the disk is full.
        """
        path = self.incoming / new_id("part-")
        try:
            yield path
        except OSError as error:
            if is_full(error):
                raise full_disk() from None
            raise
        finally:
            path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what no row names: only at the start, before anybody else writes."""
        for table in ("files", "parts"):
            known = {row["id"] for row in self.all(f"SELECT id FROM {table}")}
            there = {path.name for path in (self.folder / table).iterdir()}
            for name in there - known:
                discard(self.folder / table / name)
            with self.write() as db:
                for name in known - there:
                    db.execute(f"DELETE FROM {table} WHERE id = ?", (name,))
        known = {row["folder"] for row in self.all("SELECT folder FROM models")}
        for path in (*self.models.iterdir(), *self.incoming.iterdir()):
            if path.parent == self.incoming or path.name not in known:
                discard(path)

    def expire(self) -> None:
        """Remove files and uploads whose time is over, and what finished jobs left behind."""
        with self.write() as db:
            over = "expires_at <= ?"
            old = db.execute(f"SELECT id FROM files WHERE {over}", (now(),)).fetchall()
            db.execute(f"DELETE FROM files WHERE {over}", (now(),))
            expired = f"UPDATE uploads SET status = 'expired' WHERE status = 'pending' AND {over}"
            db.execute(expired, (now(),))
            gone = "upload_id NOT IN (SELECT id FROM uploads WHERE status = 'pending')"
            parts = db.execute(f"SELECT id FROM parts WHERE {gone}").fetchall()
            db.execute(f"DELETE FROM parts WHERE {gone}")
        for folder, rows in ((self.files, old), (self.parts, parts)):
            for row in rows:
                discard(folder / row["id"])

    def drop_work(self, job_id: str) -> None:
        """Remove what a finished job was trained with; of a failed one the log stays."""
        row = self.one("SELECT status FROM jobs WHERE id = ?", job_id)
        folder = self.jobs / job_id
        if row is not None and row["status"] == "failed" and (folder / "log.txt").is_file():
            for path in folder.iterdir():
                if path.name != "log.txt":
                    discard(path)
        else:
            discard(folder)


def settle(path: Path, final: Path) -> None:
    """Move a finished file or folder into its place, its content on disk first."""
    for file in path.rglob("*") if path.is_dir() else (path,):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
    path.replace(final)


def discard(path: Path) -> None:
    """Remove a file or a folder; nothing to do where there is none."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def full_disk() -> ApiError:
    """The answer then. Official clients would send the same again at once."""
    return ApiError(
        507,
        "the disk of the server is full. Delete files that are no longer needed, or make room.",
        "disk_full",
        headers={"x-should-retry": "false"},
    )
