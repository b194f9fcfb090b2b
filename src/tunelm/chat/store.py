"""Conversations in one SQLite file: who said what, with which prompt, and how it was liked.

store = ChatStore(Path("chat.sqlite"))
for found in store.conversations("fractions"):
    print(found.title, found.turns)
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import threading
import time
import uuid
import weakref
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Unpack

from tunelm.chat.opening import open_store, unusable
from tunelm.chat.records import (
    CHOICES,
    Choice,
    Conversation,
    Details,
    Pair,
    Summary,
    Turn,
    Vote,
    problem_of,
)
from tunelm.errors import ConfigError
from tunelm.types import Message, Usage, as_messages

TITLE_CHARS = 72
_RATINGS = (-1, 0, 1)
_ROLES = ("user", "assistant")
_NOBODY = "There is no conversation"


class ChatStore:
    """A file of conversations, safe to use from several threads and processes.

    Every write is one transaction. What is deleted is gone from the file, and from its log.

    Attributes:
        path: of the file; None: in memory, and gone when it is closed.
    """

    def __init__(self, path: Path | None) -> None:
        """Open the file, making it if need be; one that is older or damaged: see `notes`.

        Raises:
            ConfigError: a later version's, or another program's database.
            PrerequisiteError: it cannot be opened here.
        """
        self.path = path
        self._db, self._notes = open_store(path)
        weakref.finalize(self, self._db.close)  # a chat that keeps nothing has nobody who closes it
        self._db.create_function("holds", 2, _holds, deterministic=True)
        self._lock = threading.Lock()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person must know of the file: brought up to date, mended, not wholly erased."""
        return self._notes

    @property
    def copies(self) -> tuple[Path, ...]:
        """Older and damaged copies beside it: deleting does not reach into them."""
        if self.path is None:
            return ()
        kinds = (".v", ".damaged-")
        beside = self.path.parent.glob(f"{self.path.name}.*")
        return tuple(sorted(p for p in beside if p.name[len(self.path.name) :].startswith(kinds)))

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._db.close()

    # --- conversations -----------------------------------------------------------------------

    def start(
        self,
        model: str,
        tutor: bool,
        problem: Mapping[str, Any] | None,
        settings: Mapping[str, Any],
        other: str | None = None,
    ) -> str:
        """Begin a conversation; its id.

        Args:
            model: what opens the model again: a TARGET, or the name it is served by.
            tutor: whether the model teaches.
            problem: the fields of a Problem; None: none yet.
            settings: how the model is asked, JSON-ready.
            other: the second model, where two answer side by side.
        """
        found, at = str(uuid.uuid4()), time.time()
        title = _title(str(problem["text"])) if problem else ""
        row = (found, at, at, title, model, other, tutor, _json(problem), _json(settings) or "{}")
        with self._write() as db:
            db.execute(
                "INSERT INTO conversations (id, started, updated, title, model, other, tutor,"
                " problem, settings) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [_clean(value) for value in row],
            )
        return found

    def conversations(self, query: str = "", limit: int = 50, offset: int = 0) -> list[Summary]:
        """The latest first; with a query those that hold all its words, in title or turns.

        Words are looked for as parts of words, in any case.
        """
        where = " AND ".join(
            "(holds(title, ?) OR id IN (SELECT conversation FROM turns WHERE holds(text, ?)))"
            for _ in query.split()
        )
        words = [word.casefold() for word in query.split() for _ in range(2)]
        rows = self._all(
            "SELECT *, (SELECT count(*) FROM turns WHERE conversation = conversations.id"
            f" AND NOT replaced) AS turns FROM conversations {'WHERE' if where else ''} {where}"
            " ORDER BY updated DESC, seq DESC LIMIT ? OFFSET ?",
            *words,
            limit,
            offset,
        )
        same = ("id", "title", "model", "other", "started", "updated", "turns")
        return [Summary(tutor=bool(row["tutor"]), **{k: row[k] for k in same}) for row in rows]

    def conversation(self, id: str) -> Conversation:
        """A conversation with its turns. Raises ConfigError where there is none of that id."""
        row = self._known(id)
        turns = [_turn(r) for r in self._all(f"{_TURNS} WHERE conversation = ? ORDER BY seq", id)]
        return Conversation(
            id=id,
            title=row["title"],
            model=row["model"],
            other=row["other"],
            tutor=bool(row["tutor"]),
            started=row["started"],
            updated=row["updated"],
            problem=problem_of(json.loads(row["problem"])) if row["problem"] else None,
            settings=json.loads(row["settings"]),
            turns=tuple(turn for turn in turns if not turn.replaced),
            replaced=tuple(turn for turn in turns if turn.replaced),
        )

    def resolve(self, beginning: str) -> str:
        """The id that begins so. Raises ConfigError where none does, or several do."""
        sql = (
            "SELECT id FROM conversations WHERE substr(id, 1, ?) = ? ORDER BY updated DESC LIMIT 6"
        )
        found = [row["id"] for row in self._all(sql, len(beginning), beginning) if beginning]
        if len(found) == 1:
            return found[0]
        if not found:
            raise ConfigError(f"{_NOBODY} {beginning!r}. `tunelm chat --list` lists them.")
        raise ConfigError(f"{beginning!r} begins several ids: {', '.join(found)}. Give more of it.")

    def rename(self, id: str, title: str) -> None:
        """Give a conversation another title. Raises ConfigError for an empty one."""
        if not title.strip():
            raise ConfigError("the title is empty: a conversation needs one")
        self._known(id)
        with self._write() as db:
            db.execute("UPDATE conversations SET title = ? WHERE id = ?", (_title(title), id))

    def set_problem(self, id: str, problem: Mapping[str, Any]) -> None:
        """What a conversation turns out to be about. Raises ConfigError as `conversation`."""
        self._known(id)
        with self._write() as db:
            sql = "UPDATE conversations SET problem = ? WHERE id = ?"
            db.execute(sql, (_clean(_json(problem)), id))

    def delete(self, id: str) -> None:
        """Delete a conversation for good. Raises ConfigError where there is none of that id."""
        self._known(id)
        with self._write() as db:
            db.execute("DELETE FROM conversations WHERE id = ?", (id,))
        self._erase()

    def delete_all(self) -> int:
        """Delete every conversation for good; how many there were."""
        with self._write() as db:
            count = db.execute("DELETE FROM conversations").rowcount
        self._erase()
        return count

    # --- turns -------------------------------------------------------------------------------

    def add(self, id: str, role: str, text: str, **more: Unpack[Details]) -> Turn:
        """Write down a turn; an answer takes the place of any other to the same message.

        Raises:
            ConfigError: no such conversation, or no such role.
        """
        if role not in _ROLES:
            raise ConfigError(f"role {role!r}, expected one of {', '.join(_ROLES)}")
        row = self._known(id)
        found, at = str(uuid.uuid4()), time.time()
        own = {"id": found, "conversation": id, "at": at, "role": role, "text": text}
        whole: Details = {"complete": True, "notes": (), **more}
        with self._write() as db:
            values = own | _columns(whole)
            if role == "assistant":
                values["answers"] = _last_of_user(db, id)
                db.execute(
                    "UPDATE turns SET replaced = 1 WHERE conversation = ? AND role = 'assistant'"
                    " AND answers IS ?",
                    (id, values["answers"]),
                )
            marks = ", ".join("?" * len(values))
            db.execute(
                f"INSERT INTO turns ({', '.join(values)}) VALUES ({marks})",
                [_clean(value) for value in values.values()],
            )
            _write_prompt(db, found, more.get("sent"))
            title = row["title"] or (_title(text) if role == "user" else "")
            db.execute(
                "UPDATE conversations SET updated = ?, title = ? WHERE id = ?",
                (at, _clean(title), id),
            )
        return self.turn(found)

    def amend(self, turn_id: str, text: str, **more: Unpack[Details]) -> Turn:
        """What an answer that is being written has become. Raises ConfigError as `turn`."""
        self.turn(turn_id)
        values = {"text": text} | _columns(more)
        names = ", ".join(f"{name} = ?" for name in values)
        with self._write() as db:
            db.execute(
                f"UPDATE turns SET {names} WHERE id = ?",
                [_clean(value) for value in (*values.values(), turn_id)],
            )
            _write_prompt(db, turn_id, more.get("sent"))
        return self.turn(turn_id)

    def turn(self, turn_id: str) -> Turn:
        """One turn. Raises ConfigError where there is none of that id."""
        rows = self._all(f"{_TURNS} WHERE id = ?", turn_id)
        if not rows:
            raise ConfigError(f"There is no turn {turn_id!r}.")
        return _turn(rows[0])

    def sent(self, turn_id: str) -> tuple[Message, ...] | None:
        """The exact messages a model got for an answer; None where nobody wrote them down."""
        rows = self._all("SELECT sent FROM prompts WHERE turn = ?", turn_id)
        return as_messages(json.loads(rows[0]["sent"])) if rows else None

    def rate(self, turn_id: str, value: int) -> None:
        """Thumbs up (1) or down (-1) for an answer; 0 takes it back.

        Raises:
            ConfigError: another value, no such turn, or a user's.
        """
        if value not in _RATINGS:
            raise ConfigError(f"a rating of {value!r}, expected 1, -1, or 0 to take it back")
        if self.turn(turn_id).role != "assistant":
            raise ConfigError(f"turn {turn_id!r} is a person's: answers are rated")
        with self._write() as db:
            db.execute("UPDATE turns SET rating = ? WHERE id = ?", (value, turn_id))

    # --- pairs -------------------------------------------------------------------------------

    def add_pair(self, id: str, a: str, b: str, a_is_model: bool) -> Pair:
        """Set two answers to the same message side by side; A stands until there is a choice.

        Raises:
            ConfigError: they are not answers to one message of this conversation.
        """
        first, second = self.turn(a), self.turn(b)
        if first.answers is None or first.answers != second.answers:
            raise ConfigError("a pair is two answers to the same message")
        self._known(id)
        found = str(uuid.uuid4())
        with self._write() as db:
            db.execute(
                "INSERT INTO pairs (id, conversation, asked, a, b, a_is_model, at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (found, id, first.answers, a, b, a_is_model, time.time()),
            )
            _keep(db, a, b)
        return self.pair(found)

    def pair(self, pair_id: str) -> Pair:
        """One pair. Raises ConfigError where there is none of that id."""
        rows = self._all("SELECT * FROM pairs WHERE id = ?", pair_id)
        if not rows:
            raise ConfigError(f"There is no pair {pair_id!r}.")
        return self._pair(rows[0])

    def pairs(self, id: str | None = None) -> list[Pair]:
        """The pairs of a conversation, or all there are, in order."""
        where, values = ("", ()) if id is None else ("WHERE conversation = ?", (id,))
        return [self._pair(row) for row in self._all(f"{_PAIRS} {where} ORDER BY seq", *values)]

    def votes(self, model: str, other: str) -> list[Vote]:
        """Every pair of these two, in whichever order they were set side by side, the oldest first.

        Pairs that were shown and have no choice are among them.
        """
        rows = self._all(
            "SELECT p.conversation, p.choice, p.a_is_model, c.model = ? AS same FROM pairs p"
            " JOIN conversations c ON c.id = p.conversation"
            " WHERE (c.model = ? AND c.other = ?) OR (c.model = ? AND c.other = ?) ORDER BY p.seq",
            *(model, model, other, other, model),
        )
        return [
            Vote(row["conversation"], bool(row["a_is_model"]) == bool(row["same"]), row["choice"])
            for row in rows
        ]

    def vote(self, pair_id: str, choice: Choice) -> Pair:
        """What the person said; the better answer is the one the conversation goes on from.

        Raises:
            ConfigError: no such choice or pair, or it has one already.
        """
        if choice not in CHOICES:
            raise ConfigError(f"a choice of {choice!r}, expected one of {', '.join(CHOICES)}")
        pair = self.pair(pair_id)
        with self._write() as db:
            sql = "UPDATE pairs SET choice = ? WHERE id = ? AND choice IS NULL"
            if not db.execute(sql, (choice, pair_id)).rowcount:
                raise ConfigError("there is a choice already: it cannot be changed")
            if choice == "b":
                _keep(db, pair.b.id, pair.a.id)
        return self.pair(pair_id)

    # --- out ---------------------------------------------------------------------------------

    def export(self, id: str | None, form: str) -> str:
        """A conversation, or all of them (None), as `json`, `jsonl` or `markdown`.

        Raises:
            ConfigError: no such form or conversation.
        """
        from tunelm.chat.exporting import exported

        return exported(self, id, form)

    def training_rows(self) -> Iterator[dict[str, Any]]:
        """What people liked, as rows to train on; see tunelm.chat.exporting.training_rows."""
        from tunelm.chat.exporting import training_rows

        return training_rows(self)

    def all_ids(self) -> list[str]:
        """The ids of all conversations, the oldest first."""
        return [row["id"] for row in self._all("SELECT id FROM conversations ORDER BY seq")]

    # --- parts -------------------------------------------------------------------------------

    def _all(self, sql: str, *values: object) -> list[sqlite3.Row]:
        try:
            with self._lock:
                return self._db.execute(sql, [_clean(value) for value in values]).fetchall()
        except sqlite3.Error as error:
            raise unusable(self.path, error) from None

    @contextmanager
    def _write(self) -> Generator[sqlite3.Connection]:
        """A transaction: all of it, or nothing."""
        try:
            with self._lock:
                try:
                    self._db.execute("BEGIN IMMEDIATE")
                    yield self._db
                    self._db.execute("COMMIT")
                except BaseException:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise
        except sqlite3.Error as error:
            raise unusable(self.path, error) from None

    def _erase(self) -> None:
        """Leave nothing of what was deleted in the file: write it anew, and empty its log."""
        if self.path is None:
            return
        try:
            with self._lock:
                self._db.execute("VACUUM")
                busy = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        except sqlite3.Error as error:
            busy = str(error)
        if busy:
            note = (
                f"{self.path}: deleted, but another program is reading the file: the old text is"
                " overwritten once that has ended and something is deleted again."
            )
            self._notes = (*self._notes, note)

    def _known(self, id: str) -> sqlite3.Row:
        rows = self._all("SELECT * FROM conversations WHERE id = ?", id)
        if not rows:
            raise ConfigError(f"{_NOBODY} {id!r}.")
        return rows[0]

    def _pair(self, row: sqlite3.Row) -> Pair:
        return Pair(
            id=row["id"],
            conversation=row["conversation"],
            asked=row["asked"],
            a=self.turn(row["a"]),
            b=self.turn(row["b"]),
            a_is_model=bool(row["a_is_model"]),
            choice=row["choice"],
        )


_TURNS = "SELECT * FROM turns"
_PAIRS = "SELECT * FROM pairs"


def _turn(row: sqlite3.Row) -> Turn:
    same = ("id", "role", "text", "at", "strategy", "why", "model", "seconds", "rating", "answers")
    return Turn(
        usage=Usage(**json.loads(row["usage"])) if row["usage"] else None,
        complete=bool(row["complete"]),
        notes=tuple(json.loads(row["notes"])),
        replaced=bool(row["replaced"]),
        **{name: row[name] for name in same},
    )


def _last_of_user(db: sqlite3.Connection, id: str) -> str | None:
    sql = "SELECT id FROM turns WHERE conversation = ? AND role = 'user' ORDER BY seq DESC LIMIT 1"
    row = db.execute(sql, (id,)).fetchone()
    return None if row is None else row["id"]


def _write_prompt(db: sqlite3.Connection, turn_id: str, sent: Sequence[Message] | None) -> None:
    if sent is not None:
        text = json.dumps([dataclasses.asdict(m) for m in sent], ensure_ascii=False)
        db.execute("INSERT OR REPLACE INTO prompts VALUES (?, ?)", (turn_id, _clean(text)))


def _keep(db: sqlite3.Connection, kept: str, replaced: str) -> None:
    db.execute(
        "UPDATE turns SET replaced = (id = ?) WHERE id IN (?, ?)", (replaced, kept, replaced)
    )


def _holds(text: str, word: str) -> bool:
    return word in text.casefold()


def _title(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= TITLE_CHARS else line[: TITLE_CHARS - 1] + "…"


def _json(data: Mapping[str, Any] | None) -> str | None:
    return None if data is None else json.dumps(dict(data), ensure_ascii=False)


def _columns(more: Details) -> dict[str, Any]:
    """The columns of a turn for what is said of it."""
    values = {k: v for k, v in more.items() if k != "sent"}
    if "usage" in more:
        usage = more["usage"]
        values["usage"] = None if usage is None else json.dumps(dataclasses.asdict(usage))
    if "notes" in more:
        values["notes"] = json.dumps(list(more["notes"]), ensure_ascii=False)
    return values


def _clean(value: Any) -> Any:
    """A value as SQLite takes it: half a surrogate pair, as broken input holds, becomes '?'."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value
