"""The store of conversations: what is kept, found, erased, brought up to date and mended."""

from __future__ import annotations

import json
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tunelm.chat.store import ChatStore
from tunelm.data.read import read_rows
from tunelm.errors import ConfigError, PrerequisiteError
from tunelm.tutor.dialogues import read_dialogues
from tunelm.types import Message, Usage

PROBLEM = {
    "text": "A square has sides of 6 cm. What is its area?",
    "subject": "mathematics",
    "group": "square",
    "solutions": ["36"],
    "wrong": ["24"],
    "misconception": None,
}

V1 = """
CREATE TABLE conversations (
  seq INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, started REAL NOT NULL, updated REAL NOT NULL,
  title TEXT NOT NULL, model TEXT NOT NULL, tutor INTEGER NOT NULL, problem TEXT,
  settings TEXT NOT NULL);
CREATE TABLE turns (
  seq INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL,
  conversation TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
  at REAL NOT NULL, role TEXT NOT NULL, text TEXT NOT NULL, strategy TEXT, why TEXT, model TEXT,
  usage TEXT, seconds REAL, complete INTEGER NOT NULL, notes TEXT NOT NULL,
  rating INTEGER NOT NULL DEFAULT 0, sent TEXT);
CREATE INDEX turns_by_conversation ON turns (conversation, seq);
INSERT INTO conversations VALUES
  (1, 'old-one', 100.0, 103.0, 'Capitals', 'tunelm-nano', 0, NULL, '{"max_tokens": 9}');
INSERT INTO turns VALUES
  (1, 't1', 'old-one', 100.0, 'user', 'Peru?', NULL, NULL, NULL, NULL, NULL, 1, '[]', 0, NULL),
  (2, 't2', 'old-one', 101.0, 'assistant', 'Lima.', NULL, NULL, 'tunelm-nano', NULL, 0.5, 1, '[]',
   1, '[{"role": "user", "content": "Peru?"}]'),
  (3, 't3', 'old-one', 102.0, 'user', 'Chile?', NULL, NULL, NULL, NULL, NULL, 1, '[]', 0, NULL),
  (4, 't4', 'old-one', 103.0, 'assistant', 'San', NULL, NULL, 'tunelm-nano', NULL, 0.5, 0, '[]',
   0, NULL);
PRAGMA application_id = 1953262947;
PRAGMA user_version = 1;
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "chat.sqlite"


@pytest.fixture
def store(path: Path):
    store = ChatStore(path)
    yield store
    store.close()


def talked(store: ChatStore, *texts: str, tutor: bool = False) -> str:
    """A conversation of user and assistant in turn."""
    id = store.start("nano", tutor, PROBLEM if tutor else None, {"max_tokens": 5})
    for i, text in enumerate(texts):
        store.add(id, "assistant" if i % 2 else "user", text)
    return id


def everything(path: Path) -> bytes:
    """All that lies where the store is: the file, its log and what else there may be."""
    return b"".join(p.read_bytes() for p in path.parent.iterdir() if p.is_file())


def test_a_turn_comes_back_as_it_was_written_also_after_opening_again(path: Path):
    store = ChatStore(path)
    id = store.start("nano", True, PROBLEM, {"style": "socratic"})
    store.add(id, "user", "Is it 24?\n\x1b[2J ‮ \ud800", notes=("it was long",))
    sent = (Message("system", "Teach."), Message("user", "Is it 24?"))
    turn = store.add(
        id,
        "assistant",
        "How did you get there?",
        strategy="clarification request",
        why="the student is vague",
        model="nano",
        usage=Usage(10, 5, None),
        seconds=0.25,
        sent=sent,
        complete=False,
    )
    store.close()
    again = ChatStore(path)
    kept = again.conversation(id)
    assert (kept.title, kept.tutor, kept.settings) == (PROBLEM["text"], True, {"style": "socratic"})
    assert kept.problem is not None
    assert kept.problem.solutions == ("36",)
    assert [t.role for t in kept.turns] == ["user", "assistant"]
    assert kept.turns[0].text == "Is it 24?\n\x1b[2J ‮ ?"
    assert kept.turns[0].notes == ("it was long",)
    assert kept.turns[1] == turn
    assert (turn.usage, turn.complete, turn.answers) == (
        Usage(10, 5, None),
        False,
        kept.turns[0].id,
    )
    assert again.sent(turn.id) == sent
    assert again.notes == ()
    again.close()


def test_the_file_is_its_owners_alone(store: ChatStore, path: Path):
    talked(store, "hello", "hi")
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_conversations_are_found_by_parts_of_words_in_any_case_and_the_latest_comes_first(
    store: ChatStore,
):
    first = talked(store, "What is a Fraction?", "A part of a whole.")
    second = talked(store, "ÜBER die Brücke 100%", "Ja.")
    third = talked(store, "Hello", "fractions again")
    store.rename(first, "Monday's  lesson")
    assert [s.id for s in store.conversations()] == [third, second, first]
    assert [s.id for s in store.conversations("FRACTION")] == [third, first]
    assert [s.id for s in store.conversations("whole monday")] == [first]
    assert [s.id for s in store.conversations("über %")] == [second]
    assert store.conversations("hello whole") == []
    assert [s.id for s in store.conversations(limit=1, offset=1)] == [second]
    assert store.conversations("monday")[0].title == "Monday's lesson"
    assert store.conversations()[0].turns == 2
    store.add(first, "user", "once more")
    assert store.conversations()[0].id == first


def test_an_id_may_be_shortened_as_long_as_it_is_one(store: ChatStore):
    ids = [talked(store, "hello") for _ in range(20)]
    assert store.resolve(ids[3]) == ids[3]
    assert store.resolve(ids[3][:13]) == ids[3]
    for wrong in ("", "%", "nothing", "_"):
        with pytest.raises(ConfigError, match="no conversation"):
            store.resolve(wrong)
    shared = next(c for c in "0123456789abcdef" if sum(i[0] == c for i in ids) > 1)
    with pytest.raises(ConfigError, match="begins several ids"):
        store.resolve(shared)


def test_what_does_not_exist_or_cannot_be_is_refused(store: ChatStore):
    id = talked(store, "hello", "hi")
    user, answer = store.conversation(id).turns
    other = talked(store, "hello", "hi")
    calls: list[Any] = [
        lambda: store.conversation("x"),
        lambda: store.add("x", "user", "hi"),
        lambda: store.add(id, "system", "hi"),
        lambda: store.delete("x"),
        lambda: store.rename(id, " "),
        lambda: store.rate("x", 1),
        lambda: store.rate(answer.id, 2),
        lambda: store.rate(user.id, 1),
        lambda: store.export("x", "json"),
        lambda: store.export(id, "html"),
        lambda: store.pair("x"),
        lambda: store.add_pair(id, answer.id, store.conversation(other).turns[1].id, True),
    ]
    for call in calls:
        with pytest.raises(ConfigError):
            call()


def test_another_answer_takes_the_place_of_the_first_which_is_kept(store: ChatStore):
    id = talked(store, "2 + 2?", "5", "Sure?")
    store.add(id, "assistant", "Yes.")
    new = store.add(id, "assistant", "No, 4.")
    kept = store.conversation(id)
    assert [t.text for t in kept.turns] == ["2 + 2?", "5", "Sure?", "No, 4."]
    assert [(t.text, t.answers) for t in kept.replaced] == [("Yes.", new.answers)]


# --- erased -------------------------------------------------------------------------------------


@pytest.mark.parametrize("everyone", [False, True])
def test_what_was_deleted_is_in_no_file_any_more_though_another_program_has_it_open(
    path: Path, store: ChatStore, everyone: bool
):
    reader = ChatStore(path)
    kept = talked(store, "keep this sentence", "kept answer")
    gone = talked(store, *[f"secretword{i} " + "filler " * 400 for i in range(12)], tutor=True)
    turn = store.conversation(gone).turns[1]
    store.amend(turn.id, "rewritten secretword", sent=(Message("user", "secretword sent"),))
    store.rename(gone, "secretword title")
    assert reader.conversations("secretword")
    assert b"secretword" in everything(path)
    if everyone:
        assert store.delete_all() == 2
        assert reader.conversations() == []
    else:
        store.delete(gone)
        assert [s.id for s in reader.conversations()] == [kept]
        assert b"keep this sentence" in everything(path)
    assert store.notes == ()
    assert b"secretword" not in everything(path)
    assert (b"keep this sentence" in everything(path)) is not everyone
    reader.close()


# --- older, later, foreign ----------------------------------------------------------------------


def columns(path: Path) -> dict[str, set[str]]:
    db = sqlite3.connect(path)
    tables = [r[0] for r in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    found = {t: {r[1] for r in db.execute(f"PRAGMA table_info({t})")} for t in tables}
    db.close()
    return found


def test_an_older_store_is_copied_and_brought_up_to_date(path: Path, tmp_path: Path):
    path.parent.mkdir()
    db = sqlite3.connect(path)
    db.executescript(V1)
    db.close()
    store = ChatStore(path)
    assert len(store.notes) == 1
    assert "version 1" in store.notes[0]
    kept = store.conversation("old-one")
    assert [t.text for t in kept.turns] == ["Peru?", "Lima.", "Chile?", "San"]
    assert [t.answers for t in kept.turns] == [None, "t1", None, "t3"]
    assert [t.complete for t in kept.turns] == [True, True, True, False]
    assert kept.turns[1].rating == 1
    assert store.sent("t2") == (Message("user", "Peru?"),)
    store.add("old-one", "assistant", "Santiago.")
    assert [t.text for t in store.conversation("old-one").replaced] == ["San"]
    (copy,) = store.copies
    assert str(copy) in store.notes[0]
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    store.close()
    assert "sent" in columns(copy)["turns"]
    fresh = ChatStore(tmp_path / "fresh.sqlite")
    fresh.close()
    assert columns(path) == columns(tmp_path / "fresh.sqlite")
    again = ChatStore(path)
    assert again.notes == ()
    assert len(again.copies) == 1
    again.close()


def test_of_many_that_open_an_older_store_at_once_one_upgrades_it(path: Path):
    path.parent.mkdir()
    db = sqlite3.connect(path)
    db.executescript(V1)
    db.close()
    notes: list[tuple[str, ...]] = []

    def opened() -> None:
        store = ChatStore(path)
        notes.append(store.notes)
        assert store.conversation("old-one").turns[1].answers == "t1"
        store.close()

    threads = [threading.Thread(target=opened) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(len(n) for n in notes) == [0, 0, 0, 0, 0, 1]


def test_a_later_store_and_another_programs_database_are_left_alone(path: Path):
    ChatStore(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(ConfigError, match=r"version 99.*Update tunelm"):
        ChatStore(path)
    other = path.with_name("other.sqlite")
    db = sqlite3.connect(other)
    db.execute("CREATE TABLE recipes (x)")
    db.commit()
    db.close()
    before = other.read_bytes()
    with pytest.raises(ConfigError, match="not one of conversations"):
        ChatStore(other)
    assert other.read_bytes() == before


def test_where_nothing_can_be_written_is_said_in_words(tmp_path: Path):
    with pytest.raises((PrerequisiteError, OSError)):
        ChatStore(tmp_path)


# --- damaged ------------------------------------------------------------------------------------


FILLER = "some words " * 30


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a store with 60 conversations of 6 turns."""
    path = tmp_path_factory.mktemp("sound") / "chat.sqlite"
    store = ChatStore(path)
    for i in range(60):
        talked(store, *[f"turn {i}-{j} {FILLER}" for j in range(6)])
    store.close()
    db = sqlite3.connect(path)
    db.execute("VACUUM")  # no second copies of text from pages that were split
    db.close()
    return path.read_bytes()


def reopened(path: Path, data: bytes) -> tuple[ChatStore, Path]:
    """A store opened on these bytes, and where they were moved to."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    store = ChatStore(path)
    assert len(store.notes) == 1
    assert "was damaged" in store.notes[0]
    (copy,) = store.copies
    assert str(copy) in store.notes[0]
    assert copy.read_bytes() == data
    new = talked(store, "a new one", "works")
    assert store.conversations("works")[0].id == new
    return store, copy


@pytest.mark.parametrize("data", [b"\x00" * 8192, bytes(range(256)) * 40, b"no database at all"])
def test_what_is_no_database_is_moved_aside(path: Path, data: bytes):
    store, _ = reopened(path, data)
    assert "nothing in it could be read" in store.notes[0]
    assert len(store.conversations()) == 1
    store.close()
    again = ChatStore(path)
    assert again.notes == ()
    again.close()


def test_of_a_file_that_was_cut_off_what_is_there_is_carried_over(path: Path, sound: bytes):
    store, _ = reopened(path, sound[: len(sound) * 2 // 3 // 4096 * 4096])
    found = store.conversations("turn", limit=1000)
    assert 100 < sum(s.turns for s in found) < 360
    kept = store.conversation(found[-1].id)
    assert kept.turns[0].text.startswith("turn ")
    assert kept.turns[1].answers == kept.turns[0].id
    store.close()


def test_broken_pages_cost_the_rows_on_them_and_no_others(path: Path, sound: bytes):
    data = bytearray(sound)
    places = [sound.index(f"turn {i}-3 {FILLER}".encode()) // 4096 for i in (20, 40)]
    for place in places:
        data[place * 4096 : place * 4096 + 4096] = b"\xff" * 4096
    lost = {
        f"turn {i}-{j} "
        for i in range(60)
        for j in range(6)
        if sound.index(f"turn {i}-{j} {FILLER}".encode()) // 4096 in places
    }
    assert 10 < len(lost) < 60
    store, _ = reopened(path, bytes(data))
    for i in range(60):
        for j in range(6):
            word = f"turn {i}-{j} "
            hit = any(
                word in t.text
                for s in store.conversations(f"{i}-{j}", limit=1000)
                for t in store.conversation(s.id).turns
            )
            assert hit is (word not in lost), word
    store.close()


def test_a_turn_whose_conversation_was_lost_gets_one(path: Path, sound: bytes):
    data = bytearray(sound)
    path.parent.mkdir()
    path.write_bytes(sound)
    db = sqlite3.connect(path)
    root = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'conversations'").fetchone()
    db.close()
    start = (root[0] - 1) * 4096
    data[start : start + 4096] = b"\xff" * 4096
    store, _ = reopened(path, bytes(data))
    found = store.conversations("turn", limit=1000)
    assert len(found) == 60
    assert {s.title for s in found} == {"(title lost)"}
    assert sum(s.turns for s in found) == 360
    store.close()


def test_damage_while_it_is_open_is_an_error_in_words(path: Path, sound: bytes):
    path.parent.mkdir()
    path.write_bytes(sound)
    store = ChatStore(path)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (len(sound) - 4096))
    with pytest.raises(PrerequisiteError, match="open it again"):
        store.conversations("turn")
    store.close()


# --- several at once ----------------------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
from tunelm.chat.store import ChatStore
store = ChatStore(Path(sys.argv[1]))
id = store.start(sys.argv[2], False, None, {})
print("ready", flush=True)
sys.stdin.readline()
for i in range(40):
    store.add(id, "assistant" if i % 2 else "user", f"{sys.argv[2]} {i}")
"""


def test_two_processes_and_four_threads_write_at_once(path: Path, store: ChatStore):
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"

    def write(name: str) -> None:
        id = store.start(name, False, None, {})
        for i in range(20):
            store.add(id, "user", f"{name} {i}")

    threads = [threading.Thread(target=write, args=(f"thread{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for writer in writers:
        assert writer.communicate("go\n", timeout=60) == ("", None)
        assert writer.returncode == 0
    for thread in threads:
        thread.join()
    found = {s.model: s for s in store.conversations()}
    assert {name: s.turns for name, s in found.items()} == {
        "one": 40,
        "two": 40,
        **{f"thread{n}": 20 for n in range(4)},
    }
    for name, summary in found.items():
        texts = [t.text for t in store.conversation(summary.id).turns]
        assert texts == [f"{name} {i}" for i in range(len(texts))]


# --- out ----------------------------------------------------------------------------------------


def test_exports_hold_everything_and_markdown_cannot_be_broken_out_of(store: ChatStore):
    id = talked(store, "# Not a heading\nsecond line", "fine")
    turn = store.conversation(id).turns[1]
    store.rate(turn.id, 1)
    talked(store, "other", "one")
    data = json.loads(store.export(id, "json"))
    assert data["turns"][1]["rating"] == 1
    assert data["turns"][0]["text"] == "# Not a heading\nsecond line"
    assert {"id", "title", "model", "problem", "settings", "turns", "pairs"} <= set(data)
    lines = store.export(None, "jsonl").splitlines()
    assert [json.loads(line)["title"] for line in lines] == ["# Not a heading second line", "other"]
    assert len(json.loads(store.export(None, "json"))) == 2
    text = store.export(id, "markdown")
    assert "> # Not a heading\n> second line" in text
    assert "**Model** (thumbs up)" in text
    assert text.count("\n# ") == 0


def test_what_was_liked_becomes_rows_that_every_reader_here_takes(store: ChatStore, tmp_path: Path):
    plain = talked(store, "2 + 2 = ?", "It is 5.", "Really?", "No, it is four.")
    first, second = (t for t in store.conversation(plain).turns if t.role == "assistant")
    store.rate(second.id, 1)
    tutor = store.start("nano", True, PROBLEM, {})
    store.add(tutor, "user", "24?")
    bad = store.add(tutor, "assistant", "It is 36.", strategy="telling")
    store.rate(bad.id, -1)
    store.add(tutor, "assistant", "How did you get there?", strategy="clarification request")
    store.add(tutor, "user", "I added.")
    store.add(tutor, "assistant", "Not quite that. Why add?", strategy="Socratic question")
    broken = store.add(tutor, "assistant", "Half an ans", complete=False)
    store.rate(broken.id, 1)
    rows = list(store.training_rows())
    assert [row["messages"][-1]["content"] for row in rows] == [
        "No, it is four.",
        "How did you get there?",
    ]
    assert [len(row["messages"]) for row in rows] == [4, 2]
    assert rows[0]["group"] == plain
    assert "rejected" not in rows[0]
    assert rows[1]["rejected"] == ["It is 36."]
    assert rows[1]["strategies"] == ["clarification request"]
    assert rows[1]["messages"][0]["content"] == f"{PROBLEM['text']}\n\n24?"
    store.rate(first.id, -1)
    assert len(list(store.training_rows())) == 2
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert [row.example.answers for row in read_rows(file)] == [
        ("No, it is four.",),
        ("How did you get there?",),
    ]
    tutored = tmp_path / "tutored.jsonl"
    tutored.write_text(json.dumps(rows[1]) + "\n", encoding="utf-8")
    (dialogue,) = read_dialogues(tutored)
    assert dialogue.problem.solutions == ("36",)
    assert [turn.text for turn in dialogue.turns] == ["24?", "How did you get there?"]
