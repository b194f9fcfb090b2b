"""How a store is opened: made, brought up to date, or, where it is damaged, begun again.

A damaged file is moved aside as NAME.damaged-TIME and never deleted. Every row of it that can still
be read is carried over: from the front, from the back, and between the two range by range, so that
a broken page costs the rows that stood on it and no others.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import filelock

from tunelm.chat.schema import (
    LINK_ANSWERS,
    TABLES,
    aside,
    bring_up_to_date,
    connect,
    make_private,
)
from tunelm.errors import PrerequisiteError, TunelmError

_LOG = "-wal"
_SIDES = (_LOG, "-shm")
_JSON = {"problem": None, "settings": "{}", "usage": None, "notes": "[]", "sent": None}
"""Columns that hold JSON, and what stands there where it cannot be read."""
LOST_TITLE = "(title lost)"


def open_store(path: Path | None) -> tuple[sqlite3.Connection, tuple[str, ...]]:
    """A connection to a store that is whole and up to date, and what was done to get there.

    Raises:
        ConfigError: a later version's, or another program's database.
        PrerequisiteError: it cannot be opened here.
    """
    if path is None:
        db = connect(None)
        bring_up_to_date(db, None)
        return db, ()
    make_private(path)
    # of two programs that find it damaged, one moves it
    with filelock.FileLock(path.with_name(f".{path.name}.lock"), mode=0o600):
        try:
            fault = fault_of(path)
            moved = None if fault is None else _move(path)
            db = connect(path)
            try:
                notes = [bring_up_to_date(db, path)]
                if moved is not None:
                    notes.append(f"{path} was damaged ({fault}). {_carry_over(moved, db)}")
            except BaseException:
                db.close()
                raise
        except sqlite3.Error as error:
            raise unusable(path, error) from None
    return db, tuple(note for note in notes if note)


def unusable(path: Path | None, error: sqlite3.Error) -> TunelmError:
    """An error of SQLite's in words for people."""
    said = str(error)
    if "locked" in said or "busy" in said:
        mend = "Another program has been writing there for long: wait for it, or end it."
    elif "full" in said:
        mend = "Make room on the disk."
    elif "readonly" in said or "unable to open" in said:
        mend = "It must be a file that you may write, or name another with --db."
    elif "malformed" in said or "not a database" in said:
        mend = "It was damaged while in use: open it again, and what can be read is carried over."
    else:
        mend = "Name another file with --db."
    return PrerequisiteError(f"{path}: the conversations cannot be kept: {said}. {mend}")


def fault_of(path: Path) -> str | None:
    """What is wrong with a database file; None: nothing.

    Raises:
        sqlite3.OperationalError: it cannot be looked at, which says nothing about it.
    """
    log = path.with_name(path.name + _LOG)
    if not path.stat().st_size:
        return "it is empty, and its log is not" if log.exists() and log.stat().st_size else None
    try:
        db = _reading(path)
        try:
            found = [row[0] for row in db.execute("PRAGMA quick_check(1)")]
        finally:
            db.close()
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        return str(error)
    return None if found == ["ok"] else " ".join(str(found[0]).split())


def _reading(path: Path, how: str = "mode=ro") -> sqlite3.Connection:
    """For looking only: closing it does not write its log into it."""
    db = sqlite3.connect(f"file:{quote(str(path.resolve()))}?{how}", uri=True, timeout=10)
    db.row_factory = sqlite3.Row
    db.text_factory = lambda raw: raw.decode("utf-8", "replace")
    return db


def _move(path: Path) -> Path:
    moved = aside(path, "damaged")
    path.rename(moved)
    for side in _SIDES:
        file = path.with_name(path.name + side)
        if file.exists():
            file.rename(moved.with_name(moved.name + side))
    make_private(path)
    return moved


def _carry_over(damaged: Path, db: sqlite3.Connection) -> str:
    """Put the rows that can be read into an empty store; what became of them, in words."""
    tables: dict[str, list[sqlite3.Row]] = {name: [] for name in TABLES}
    for how in ("mode=ro", "immutable=1"):  # the second leaves out a log that cannot be read
        try:
            source = _reading(damaged, how)
        except sqlite3.Error:
            continue
        try:
            # else nothing at all is read of a file that was cut short
            source.execute("PRAGMA writable_schema = ON")
            tables = {name: list(_readable(source, name)) for name in TABLES}
        finally:
            source.close()
            _tidy(damaged)
        if any(tables.values()):
            break
    counts = _put(db, tables)
    kept = f"It is kept as {damaged}"
    if not any(counts.values()):
        return f"{kept}; nothing in it could be read, and the conversations begin anew."
    said = f"{counts['conversations']} conversations with {counts['turns']} turns"
    return f"{kept}; {said} could be read and were carried over."


def _tidy(damaged: Path) -> None:
    """Remove what reading alone left beside it."""
    log, index = (damaged.with_name(damaged.name + side) for side in _SIDES)
    index.unlink(missing_ok=True)
    if log.exists() and not log.stat().st_size:
        log.unlink()


def _readable(db: sqlite3.Connection, table: str) -> Iterator[sqlite3.Row]:
    found: dict[int, sqlite3.Row] = {}

    def read(where: str, *values: int, back: bool = False) -> bool:
        order = "DESC" if back else "ASC"
        sql = f"SELECT rowid AS place, * FROM {table} {where} ORDER BY rowid {order}"
        try:
            for row in db.execute(sql, values):
                if back and row["place"] in found:
                    break
                found[row["place"]] = row
        except sqlite3.Error:
            return False
        return True

    def between(low: int, high: int) -> None:
        if low == high:  # by itself: a cursor that looks one row ahead loses this one too
            read("WHERE rowid = ?", low)
        elif low < high and not read("WHERE rowid BETWEEN ? AND ?", low, high):
            middle = (low + high) // 2
            between(low, middle)
            between(middle + 1, high)

    if not read(""):
        front = max(found, default=0)
        read("", back=True)
        behind = [place for place in found if place > front]
        between(front + 1, min(behind) - 1 if behind else front + 1)
    for place in sorted(found):
        yield found[place]


def _put(db: sqlite3.Connection, tables: dict[str, list[sqlite3.Row]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    known: set[str] = set()
    db.execute("BEGIN IMMEDIATE")
    try:
        for table in TABLES:
            own = {row["name"] for row in db.execute(f"PRAGMA table_info({table})")}
            rows = [{k: row[k] for k in row.keys() if k in own} for row in tables[table]]  # noqa: SIM118
            if table == "turns":
                _headless(db, rows, known)
            counts[table] = sum(_insert(db, table, row) for row in rows)
            if table == "conversations":
                known = {row[0] for row in db.execute("SELECT id FROM conversations")}
        db.execute(LINK_ANSWERS)
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise
    counts["conversations"] = db.execute("SELECT count(*) FROM conversations").fetchone()[0]
    return counts


def _insert(db: sqlite3.Connection, table: str, row: dict[str, Any]) -> bool:
    for name, otherwise in _JSON.items():
        if row.get(name) is not None and not _is_json(row[name]):
            row[name] = otherwise
    names, marks = ", ".join(row), ", ".join("?" * len(row))
    try:
        db.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(row.values()))
    except sqlite3.IntegrityError:  # half a row
        return False
    return True


def _headless(db: sqlite3.Connection, rows: list[dict[str, Any]], known: set[str]) -> None:
    """Make a conversation for the turns of each that was lost."""
    lost: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row.get("conversation") and row["conversation"] not in known:
            lost.setdefault(row["conversation"], row)
    for name, row in lost.items():
        at = row.get("at") if isinstance(row.get("at"), float) else time.time()
        values = (name, at, at, LOST_TITLE, "unknown", 0, "{}")
        db.execute(
            "INSERT INTO conversations (id, started, updated, title, model, tutor, settings)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            values,
        )


def _is_json(text: object) -> bool:
    try:
        json.loads(text if isinstance(text, str) else "")
    except ValueError:
        return False
    return True
