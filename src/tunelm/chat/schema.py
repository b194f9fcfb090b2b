"""The tables of a conversation store, and the way from older ones.

`user_version` of the file is the version of its tables. A store of an older version is brought up
to date in one transaction, after a copy of it was put beside it; one of a later version is refused.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path

from tunelm.errors import ConfigError

VERSION = 2
APPLICATION_ID = 0x746C6D63
"""What a store's header carries, so that another program's database is never taken for one."""

SCHEMA = """
CREATE TABLE conversations (
  seq INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, started REAL NOT NULL, updated REAL NOT NULL,
  title TEXT NOT NULL, model TEXT NOT NULL, other TEXT, tutor INTEGER NOT NULL, problem TEXT,
  settings TEXT NOT NULL);
CREATE INDEX conversations_by_time ON conversations (updated, seq);
CREATE TABLE turns (
  seq INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL,
  conversation TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
  at REAL NOT NULL, role TEXT NOT NULL, text TEXT NOT NULL, strategy TEXT, why TEXT, model TEXT,
  usage TEXT, seconds REAL, complete INTEGER NOT NULL, notes TEXT NOT NULL,
  rating INTEGER NOT NULL DEFAULT 0, answers TEXT, replaced INTEGER NOT NULL DEFAULT 0);
CREATE INDEX turns_by_conversation ON turns (conversation, seq);
CREATE TABLE prompts (
  turn TEXT PRIMARY KEY REFERENCES turns (id) ON DELETE CASCADE, sent TEXT NOT NULL);
CREATE TABLE pairs (
  seq INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL,
  conversation TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
  asked TEXT NOT NULL, a TEXT NOT NULL, b TEXT NOT NULL, a_is_model INTEGER NOT NULL,
  choice TEXT, at REAL NOT NULL);
CREATE INDEX pairs_by_conversation ON pairs (conversation, seq)
"""
TABLES = ("conversations", "turns", "prompts", "pairs")
"""In the order in which rows can be put back."""

LINK_ANSWERS = """
UPDATE turns SET answers = (
  SELECT u.id FROM turns u WHERE u.conversation = turns.conversation AND u.role = 'user'
  AND u.seq < turns.seq ORDER BY u.seq DESC LIMIT 1) WHERE role = 'assistant' AND answers IS NULL
"""
"""What an answer answers where nobody wrote it down: the user's turn before it."""

UPGRADES: Mapping[int, str] = {
    # answers that replace others, pairs, and prompts apart: a search need not read those
    1: f"""
ALTER TABLE conversations ADD COLUMN other TEXT;
CREATE INDEX conversations_by_time ON conversations (updated, seq);
ALTER TABLE turns ADD COLUMN answers TEXT;
ALTER TABLE turns ADD COLUMN replaced INTEGER NOT NULL DEFAULT 0;
{LINK_ANSWERS};
CREATE TABLE prompts (
  turn TEXT PRIMARY KEY REFERENCES turns (id) ON DELETE CASCADE, sent TEXT NOT NULL);
INSERT INTO prompts SELECT id, sent FROM turns WHERE sent IS NOT NULL;
ALTER TABLE turns DROP COLUMN sent;
CREATE TABLE pairs (
  seq INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL,
  conversation TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
  asked TEXT NOT NULL, a TEXT NOT NULL, b TEXT NOT NULL, a_is_model INTEGER NOT NULL,
  choice TEXT, at REAL NOT NULL);
CREATE INDEX pairs_by_conversation ON pairs (conversation, seq)
""",
}
"""Version -> what makes it the next one."""


def connect(path: Path | None) -> sqlite3.Connection:
    """A connection as every user of a store needs it; None: a store in memory."""
    db = sqlite3.connect(
        ":memory:" if path is None else path,
        timeout=10,
        isolation_level=None,
        check_same_thread=False,
    )
    db.row_factory = sqlite3.Row
    for pragma in (
        "secure_delete = ON",  # what is deleted is overwritten
        "foreign_keys = ON",
        "synchronous = FULL",  # what was said is there also after a power cut
    ):
        db.execute(f"PRAGMA {pragma}")
    return db


def bring_up_to_date(db: sqlite3.Connection, path: Path | None) -> str | None:
    """Make the tables, or bring older ones up to date; what was done to a person's file, in words.

    Raises:
        ConfigError: a later version's, or not a store at all.
        sqlite3.Error: as it comes.
    """
    if _own(db):
        db.execute("PRAGMA journal_mode = WAL")
        if _version(db) == VERSION:
            return None
    note = None
    db.execute("BEGIN IMMEDIATE")  # of two programs that open it, one does the work
    try:
        version = _version(db)
        if not _own(db):
            if version or db.execute("SELECT 1 FROM sqlite_master").fetchone():
                raise ConfigError(f"{path}: a database, but not one of conversations.")
            _run(db, SCHEMA)
        elif version > VERSION:
            raise ConfigError(
                f"{path}: written by a later tunelm (version {version} of its tables, this one"
                f" knows {VERSION}). Update tunelm, or name another file."
            )
        elif version < VERSION:
            note = _upgrade(db, version, path)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    db.execute("PRAGMA journal_mode = WAL")
    return note


def aside(path: Path, why: str) -> Path:
    """A free name beside a store for a copy of it: NAME.WHY-TIME."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for count in range(1000):
        found = path.with_name(f"{path.name}.{why}-{stamp}" + (f"-{count}" if count else ""))
        if not found.exists():
            return found
    raise ConfigError(f"{path}: a thousand copies of it already; remove some.")


def make_private(path: Path) -> None:
    """Make an empty file that its owner alone can read; one that is there stays as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def _upgrade(db: sqlite3.Connection, version: int, path: Path | None) -> str | None:
    note = None
    if path is not None:
        kept = aside(path, f"v{version}")
        make_private(kept)
        source, copy = sqlite3.connect(path), sqlite3.connect(kept)
        try:
            source.backup(copy)  # another connection: this one holds the write lock
        finally:
            source.close()
            copy.close()
        note = f"brought up to date from version {version}; as it was, it is kept as {kept}"
    for step in range(version, VERSION):
        _run(db, UPGRADES[step])
    return note


def _run(db: sqlite3.Connection, statements: str) -> None:
    for statement in statements.split(";"):
        db.execute(statement)


def _version(db: sqlite3.Connection) -> int:
    return db.execute("PRAGMA user_version").fetchone()[0]


def _own(db: sqlite3.Connection) -> bool:
    return db.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
