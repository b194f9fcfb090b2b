"""Conversations: in a session, side by side, and in the terminal as people and scripts use it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import tunelm
from tunelm.chat.records import Pair, Vote
from tunelm.chat.session import LIMIT, Chat, Piece, Said, tutor_of
from tunelm.chat.store import ChatStore
from tunelm.chat.targets import open_target, pick_problem, problems_in
from tunelm.chat.votes import Shown, Tally, Versus, tally_of
from tunelm.cli import cli
from tunelm.cli.terminal import harmless
from tunelm.errors import ConfigError, ModelError
from tunelm.models.prompted import PromptedModel
from tunelm.testing import ChatServer, Failure, ScriptedModel
from tunelm.tutor.dialogues import Ending, Problem
from tunelm.tutor.history import History
from tunelm.tutor.strategies import Strategy
from tunelm.tutor.tutor import TutorSettings
from tunelm.types import Delta, Message, Request

PROBLEM = Problem(
    "A square has sides of 6 cm. What is its area, in square cm?",
    "mathematics",
    "square",
    ("36",),
    ("24",),
)
TASKS = Path(tunelm.__file__).parent / "tasks"


def says(*texts: str, name: str = "scripted") -> ScriptedModel:
    """A model that says these, one a call, and the last one for ever."""
    left = list(texts)
    return ScriptedModel(lambda request: left.pop(0) if len(left) > 1 else left[0], name)


class Breaking(ScriptedModel):
    """Says the words, and then what `end` raises."""

    def __init__(self, words: str, end: BaseException) -> None:
        super().__init__(lambda request: words)
        self.words, self.end, self.closed = words, end, False

    def stream(self, request: Request) -> Iterator[Delta]:
        self.requests.append(request)
        try:
            for word in self.words.split():
                yield Delta(word + " ")
            raise self.end
        finally:
            self.closed = True


@pytest.fixture
def store(tmp_path: Path):
    store = ChatStore(tmp_path / "chat.sqlite")
    yield store
    store.close()


def heard(answer: Iterator[Any]) -> Said:
    """The whole answer; its pieces join to it."""
    *pieces, said = answer
    assert isinstance(said, Said)
    assert "".join(p.text for p in pieces) == said.turn.text
    return said


def roles(request: Request) -> list[str]:
    return [message.role for message in request.messages]


# --- a session ----------------------------------------------------------------------------------


def test_a_plain_model_hears_all_that_was_said_and_the_prompt_is_kept(store: ChatStore):
    model = says("It is 4.", "Yes, it is.")
    chat = Chat(PromptedModel(model, "Be brief."), store, max_tokens=7)
    first = heard(chat.say("2 + 2?"))
    second = heard(chat.say("  Sure? "))
    assert (first.strategy, first.ending, first.omitted) == (None, None, "")
    assert roles(model.requests[1]) == ["system", "user", "assistant", "user"]
    assert [m.content for m in model.requests[1].messages][1:] == ["2 + 2?", "It is 4.", "Sure?"]
    assert model.requests[1].max_tokens == 7
    assert store.sent(second.turn.id) == model.requests[1].messages
    assert second.turn.usage is not None
    assert second.turn.seconds is not None
    (kept,) = store.conversations()
    assert (kept.model, kept.tutor, kept.title, kept.turns) == ("scripted", False, "2 + 2?", 4)


def test_a_tutor_says_its_strategy_before_its_words(store: ChatStore):
    model = says("How did you get there? ")
    chat = Chat(model, store, tutor=TutorSettings(), problem=PROBLEM)
    pieces = list(chat.say("I think it is 24."))
    assert pieces[0] == Piece("", Strategy.HINT, "the student is wrong")
    said = pieces[-1]
    assert isinstance(said, Said)
    assert said.turn.text == "How did you get there?"
    assert (said.turn.strategy, said.turn.why) == ("hint", "the student is wrong")
    assert said.ending is Ending.UNSOLVED
    assert store.sent(said.turn.id) == model.requests[0].messages
    chat.strategy = Strategy.CHECK
    assert heard(chat.say("So 36?")).strategy is Strategy.CHECK
    assert "check of understanding" in model.requests[1].messages[-1].content
    chat.strategy = None
    silent = heard(chat.say("   "))
    assert silent.ending is Ending.SOLVED
    assert [t.text for t in chat.turns() if t.role == "user"][-1] == "..."


def test_a_tutor_without_a_problem_takes_the_first_message_for_it(store: ChatStore):
    model = says("What do you know about it?")
    chat = Chat(model, store, tutor=TutorSettings(style="socratic"))
    heard(chat.say("Why is the sky blue?"))
    heard(chat.say("Because of the sea?"))
    assert model.requests[0].messages[-1].content.startswith("Why is the sky blue?\n\n[Your turn")
    texts = [m.content for m in model.requests[1].messages]
    assert texts[1] == "Why is the sky blue?"
    kept = store.conversation(chat.id or "")
    assert kept.problem is not None
    assert kept.problem.text == "Why is the sky blue?"
    again = Chat(model, store, tutor=tutor_of(kept))
    again.go_on(kept.id)
    assert again.tutor == TutorSettings(style="socratic")
    heard(again.say("Or of the air?"))
    assert len(store.conversation(kept.id).turns) == 6
    with pytest.raises(ConfigError, match="with a tutor"):
        Chat(model, store).go_on(kept.id)


@pytest.mark.parametrize("tutor", [None, TutorSettings()])
def test_a_lost_connection_loses_nothing_that_was_said_or_shown(
    store: ChatStore, tutor: TutorSettings | None
):
    broken = Breaking("Well done. Now think about", ModelError("the stream broke off"))
    chat = Chat(broken, store, tutor=tutor, problem=PROBLEM if tutor else None)
    pieces: list[Piece | Said] = []
    with pytest.raises(ModelError, match="broke off"):
        pieces.extend(chat.say("I have begun."))
    shown = "".join(piece.text for piece in pieces if isinstance(piece, Piece))
    assert broken.closed
    mine, cut = store.conversation(chat.id or "").turns
    assert (mine.text, mine.complete) == ("I have begun.", True)
    assert (cut.text, cut.complete) == (shown, False)
    assert shown.startswith("Well done.")
    assert cut.notes == ("broke off: the stream broke off",)
    assert store.sent(cut.id) == broken.requests[0].messages
    chat.model = model = says("Where were we?")
    heard(chat.say("And now?"))
    assert any(shown.strip() in m.content for m in model.requests[0].messages)


def test_what_got_no_answer_goes_into_the_next_message(store: ChatStore):
    def refuses(request: Request) -> str:
        raise ValueError("no answer today")

    chat = Chat(ScriptedModel(refuses), store)
    for text in ("first", "second"):
        with pytest.raises(ModelError):
            list(chat.say(text))
    chat.model = model = says("Yes.")
    heard(chat.regenerate())
    assert [m.content for m in model.requests[0].messages] == ["first\n\nsecond"]
    assert [t.role for t in chat.turns()] == ["user", "user", "assistant"]


def test_closing_the_answer_stops_the_model_and_keeps_what_was_shown(store: ChatStore):
    model = Breaking("one two three four", AssertionError("was not stopped"))
    chat = Chat(model, store)
    answer = chat.say("count")
    assert [next(answer), next(answer)] == [Piece("one "), Piece("two ")]
    answer.close()
    assert model.closed
    cut = chat.turns()[-1]
    assert (cut.text, cut.complete, cut.notes) == ("one two ", False, ("stopped",))


def test_another_answer_is_asked_for_differently_and_replaces_the_first(store: ChatStore):
    model = says("One.", "Two.", "Three.", "Four?")
    chat = Chat(model, store)
    with pytest.raises(ConfigError, match="nothing was said"):
        chat.regenerate()
    heard(chat.say("Count."))
    heard(chat.regenerate())
    heard(chat.regenerate())
    assert [t.text for t in chat.turns()] == ["Count.", "Three."]
    assert [m.content for m in model.requests[2].messages] == ["Count."]
    assert [(r.temperature > 0, r.seed) for r in model.requests] == [
        (False, None),
        (True, 1),
        (True, 2),
    ]
    tutor = Chat(model, store, tutor=TutorSettings(), problem=PROBLEM)
    heard(tutor.say("Hm"))
    heard(tutor.regenerate())
    assert model.requests[4].temperature > 0
    assert model.requests[3].messages == model.requests[4].messages


def test_an_endless_message_is_cut_with_a_word_and_an_empty_one_refused(store: ChatStore):
    model = says("Long.")
    said = heard(Chat(model, store).say("word " * 200_000))
    assert any("999,999 characters" in note for note in said.notes)
    assert "characters of the last message are left out" in said.omitted
    assert len(store.conversations()) == 1
    kept = store.conversation(store.conversations()[0].id)
    assert len(kept.turns[0].text) == LIMIT
    for empty in ("", " \n", "\x00"):
        with pytest.raises(ConfigError, match="empty"):
            list(Chat(model, store).say(empty))


def test_what_was_left_out_of_the_prompt_is_told(store: ChatStore):
    model = says("Go on.")
    settings = TutorSettings(context=700)
    chat = Chat(model, store, tutor=settings, problem=PROBLEM)
    told: list[str] = []
    for i in range(12):
        told.append(heard(chat.say(f"Thought number {i} is that " + "more " * 30)).omitted)
        assert told[-1] == chat.history_told()
    assert told[0] == ""
    assert "earlier messages are left out" in told[-1]
    assert "earlier messages are left out" in model.requests[-1].messages[1].content


def test_without_a_store_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    chat = Chat(says("Hi."), None)
    heard(chat.say("Hello"))
    assert [t.text for t in chat.turns()] == ["Hello", "Hi."]
    assert list(tmp_path.iterdir()) == []


def test_settings_come_back_as_they_were(store: ChatStore):
    settings = TutorSettings(
        "directive", Strategy.HINT, "add it", History("summarize", ("the exam",), 3), 40, 900
    )
    chat = Chat(says("Yes?"), store, tutor=settings, problem=PROBLEM)
    heard(chat.say("Hm"))
    assert tutor_of(store.conversation(chat.id or "")) == settings


KILLED = """
import sys, time
from pathlib import Path
from tunelm.chat.session import Chat
from tunelm.chat.store import ChatStore
from tunelm.testing import ScriptedModel
from tunelm.types import Delta

class Slow(ScriptedModel):
    def stream(self, request):
        for i in range(1000):
            yield Delta(f"word{i} ")
            time.sleep(0.02)

chat = Chat(Slow(str), ChatStore(Path(sys.argv[1])))
for piece in chat.say("Tell me a long story."):
    print(piece.text, flush=True)
"""


def test_a_kill_in_mid_answer_loses_half_a_second_and_no_more(tmp_path: Path):
    path = tmp_path / "chat.sqlite"
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    for line in child.stdout:
        if line.strip() == "word60":
            break
    child.kill()
    child.communicate()
    store = ChatStore(path)
    assert store.notes == ()
    mine, cut = store.conversation(store.conversations()[0].id).turns
    assert mine.text == "Tell me a long story."
    assert not cut.complete
    assert cut.text.startswith("word0 word1 word2")
    store.close()


# --- side by side -------------------------------------------------------------------------------


def versus(store: ChatStore, seed: int = 0, **settings: Any) -> Versus:
    chats = [Chat(says(f"I am {name}?", name=name), store, **settings) for name in ("x", "y")]
    return Versus(chats[0], chats[1], random.Random(seed))


def answers(pieces: Sequence[Shown | Pair]) -> dict[str, str]:
    found = [p for p in pieces if isinstance(p, Shown) and isinstance(p.item, Said)]
    assert [p.side for p in found] == ["a", "b"]
    return {p.side: p.item.turn.text for p in found if isinstance(p.item, Said)}


def test_both_answer_the_same_words_and_the_better_answer_goes_on(store: ChatStore):
    pair = versus(store, tutor=TutorSettings(), problem=PROBLEM)
    for choice in ("b", "a", "="):
        said = answers(list(pair.say("Hm, 24?")))
        pair.vote(choice)
        kept = store.conversation(pair.model.id or "")
        assert kept.turns[-1].text == said["b" if choice == "b" else "a"]
    assert kept.model == "x"
    assert kept.other == "y"
    assert [t.role for t in kept.turns] == ["user", "assistant"] * 3
    x, y = (chat.model.requests for chat in (pair.model, pair.other))  # pyright: ignore
    assert [r.messages for r in x] == [r.messages for r in y]
    with pytest.raises(ConfigError, match="no pair"):
        pair.vote("a")
    with pytest.raises(ConfigError, match="cannot be changed"):
        store.vote(store.pairs()[0].id, "a")
    rows = list(store.training_rows())
    assert [row["rejected"] for row in rows] == [
        [f"I am {'y' if row['messages'][-1]['content'] == 'I am x?' else 'x'}?"] for row in rows
    ]
    assert len(rows) == 2


def test_each_is_a_as_often_as_the_other_and_not_in_a_pattern(store: ChatStore):
    first: list[bool] = []
    for seed in range(5):
        pair = versus(store, seed)
        for _ in range(4):
            said = answers(list(pair.say("Hello")))
            first.append(said["a"] == "I am x?")
    assert sum(first) == 10
    assert all(first[i] != first[i + 1] for i in range(0, 20, 2))
    assert len({tuple(first[i : i + 2]) for i in range(0, 20, 2)}) == 2
    assert [p.choice for p in store.pairs()].count("skip") == 15
    assert [p.choice for p in store.pairs()].count(None) == 5


def test_where_one_fails_there_is_no_pair(store: ChatStore):
    def refuses(request: Request) -> str:
        raise ValueError("gone")

    chats = [Chat(says("Fine."), store), Chat(ScriptedModel(refuses, "other"), store)]
    pair = Versus(*chats)
    with pytest.raises(ModelError, match="nothing to compare"):
        list(pair.say("Hello"))
    assert store.pairs() == []
    assert pair.pending is None
    with pytest.raises(ConfigError, match="two different"):
        Versus(chats[0], chats[0])


def test_the_tally_counts_conversations_and_knows_what_it_does_not_know():
    votes = [
        *(Vote(f"c{i}", i % 2 == 0, "a" if i % 2 == 0 else "b") for i in range(8)),
        Vote("c0", True, "b"),
        Vote("c0", True, "b"),
        Vote("c1", False, "="),
        Vote("c9", True, "="),
        Vote("c9", True, "skip"),
        Vote("c9", True, None),
    ]
    found = tally_of(votes, "x", "y")
    assert (found.better, found.worse, found.alike, found.skipped) == (8, 2, 2, 2)
    assert (found.won, found.lost, found.even, found.first) == (7, 1, 1, 4)
    assert found.share == 7 / 8
    # Wilson by hand: (7 + z²/2 ± z sqrt(7/8 + z²/4)) / (8 + z²), z = 1.96
    assert found.low == pytest.approx(0.5291, abs=1e-3)
    assert found.high == pytest.approx(0.9776, abs=1e-3)
    assert found.p == pytest.approx(2 * (1 + 8) / 2**8)
    assert found.verdict() == "not distinguishable"
    assert tally_of([Vote(f"c{i}", True, "b") for i in range(6)], "x", "y").verdict() == (
        "y is liked better"
    )
    nothing = tally_of([], "x", "y")
    assert nothing == Tally("x", "y")
    assert "not known" in " ".join(nothing.lines())


def test_the_tally_is_the_same_whoever_was_named_first(store: ChatStore):
    for a, b in (("x", "y"), ("y", "x")):
        id = store.start(a, False, None, {}, b)
        store.add(id, "user", "hello")
        turns = [store.add(id, "assistant", text).id for text in ("one", "two")]
        pair = store.add_pair(id, turns[0], turns[1], a_is_model=True)
        store.vote(pair.id, "a" if a == "x" else "b")  # x both times
    assert [v.a_is_model for v in store.votes("x", "y")] == [True, False]
    ours, theirs = (tally_of(store.votes(*n), *n) for n in (("x", "y"), ("y", "x")))
    assert (ours.better, ours.won, ours.lost) == (2, 2, 0)
    assert (theirs.worse, theirs.won, theirs.lost) == (2, 0, 2)


# --- targets ------------------------------------------------------------------------------------


def test_a_task_of_dialogues_opens_as_a_tutor_with_its_problems(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"kind 'qa'.*takes a task of kind 'dialogue'"):
        open_target("edu-qa")
    with ChatServer(says("Why?")) as server:
        opened = open_target(str(task_at(tmp_path, server.url)))
        chat = Chat(opened.model, None, tutor=TutorSettings(), problem=opened.problems[0])
        heard(chat.say("Hm"))
        assert server.bodies[0]["messages"][0]["content"] == "Teach as in our school."
    assert opened.tutor
    problems = problems_in(TASKS / "edu_dialogues.jsonl")
    assert len({p.text for p in problems}) == len(problems)
    assert len({p.subject for p in problems[:4]}) == 4
    assert pick_problem("2", problems) == problems[1]
    assert pick_problem("Why is 2 even?", problems) == "Why is 2 even?"
    for wrong in ("0", "999", " "):
        with pytest.raises(ConfigError):
            pick_problem(wrong, problems)


def test_a_run_of_dialogues_opens_as_a_tutor_too(tmp_path: Path):
    some = (TASKS / "edu_dialogues.jsonl").read_text(encoding="utf-8").splitlines(True)[:12]
    data = tmp_path / "some.jsonl"
    data.write_text("".join(some), encoding="utf-8")
    with ChatServer(says("What do you think?")) as server:
        task = task_at(tmp_path, server.url, data=data)
        few = ("data.min_test_groups=2", "data.dev=0.4", "compare.conversations=2")
        sets = [word for setting in few for word in ("--set", setting)]
        made = CliRunner().invoke(
            cli, ["adapt", "baseline", str(task), *sets, "--quiet", "--out", str(tmp_path / "run")]
        )
        assert made.exit_code == 0, made.output
        before = len(server.bodies)
        for target in ("run", "run/baseline"):
            opened = open_target(str(tmp_path / target))
            assert (opened.tutor, opened.label) == (True, str(tmp_path / target))
            assert opened.problems == problems_in(data)
            chat = Chat(opened.model, None, tutor=TutorSettings(), problem=opened.problems[0])
            assert heard(chat.say("Hm")).turn.text == "What do you think?"
        sent = [body["messages"][0]["content"] for body in server.bodies[before:]]
        assert sent == ["Teach as in our school."] * 2


# --- the command --------------------------------------------------------------------------------


def task_at(
    folder: Path, url: str, name: str = "scripted", data: Path = TASKS / "edu_dialogues.jsonl"
) -> Path:
    """A task of dialogues whose model is at an endpoint: nothing heavy is loaded."""
    path = folder / f"{name}.toml"
    path.write_text(
        f"""
[task]
name = "endpoint"
kind = "dialogue"
instructions = "Teach as in our school."
[data]
path = {json.dumps(str(data))}
[model]
base = "{name}"
base_url = "{url}"
""",
        encoding="utf-8",
    )
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user's data is."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def piped(
    *args: object, stdin: str = "", cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tunelm", "chat", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, input=stdin, cwd=cwd)


def test_lines_in_and_words_out_with_commands_between(tmp_path: Path, home: Path):
    db = tmp_path / "own.sqlite"
    model = says("How did you get there? ", "Good.\x1b[31m Now?\u202e ", "Why? ", "And so? ")
    lines = ("I think 12", "", "/up", "/why", "/strategy hint", "now", "/again", "/sent")
    with ChatServer(model) as server:
        task = task_at(tmp_path, server.url)
        typed = "\n".join((*lines, "/save kept.md", ""))
        done = piped(task, "--db", db, "--problem", "1", stdin=typed, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [
            "(Socratic question) How did you get there?",
            "(encouragement) Good.<1B>[31m Now?<202E>",
            "(hint) Why?",
            "(hint) And so?",
        ]
        assert "\x1b" not in done.stderr
        told = ("problem: ", "thumbs up", "says nothing", "strategy: hint", "[Your turn: hint")
        assert [text for text in told if text not in done.stderr] == []
        short = done.stderr.split("--continue ")[-1].strip()
        more = piped("--db", db, "--continue", short, stdin="/nope\n/down\n")
        assert more.returncode == 1
        assert "no command '/nope'" in more.stderr
        assert "(hint) And so?" in more.stderr
        assert more.stdout == ""
    assert not home.exists()
    assert "> How did you get there?" in (tmp_path / "kept.md").read_text()
    store = ChatStore(db)
    turns = store.conversation(store.resolve(short)).turns
    assert [t.rating for t in turns] == [0, 0, 0, 1, 0, -1]
    assert turns[3].text == "Good.\x1b[31m Now?\u202e"
    store.close()


def run(db: Path, *args: object) -> Any:
    return CliRunner().invoke(cli, ["chat", "--db", str(db), *map(str, args)])


def test_conversations_are_listed_exported_turned_into_rows_and_deleted(tmp_path: Path):
    db = tmp_path / "own.sqlite"
    store = ChatStore(db)
    chat = Chat(says("How did you get there?", "Why? "), store, tutor=TutorSettings())
    chat.problem = PROBLEM
    heard(chat.say("Is it 24?"))
    store.rate(heard(chat.say("I added.")).turn.id, 1)
    store.close()
    (listed,) = json.loads(run(db, "--list", "ADDED square", "--json").output)
    assert (listed["turns"], listed["tutor"]) == (4, True)
    short = listed["id"][:8]
    assert short in run(db, "--list").output
    assert "no conversation holds 'zebra'" in run(db, "--list", "zebra").output
    data = json.loads(run(db, "--export", short, "--form", "json").output)
    assert [turn["role"] for turn in data["turns"]] == ["user", "assistant"] * 2
    assert run(db, "--export", "all").output.startswith("# A square has sides")
    rows = tmp_path / "rows.jsonl"
    assert "1 rows written" in run(db, "--training-rows", rows).output
    checked = CliRunner().invoke(cli, ["data", "check", str(rows)])
    assert checked.exit_code == 0, checked.output
    assert json.loads(rows.read_text())["strategies"] == ["hint", "clarification request"]
    again = run(db, "--training-rows", rows)
    assert "exists" in str(again.exception)
    refused = run(db, "--delete", short)
    assert (refused.exit_code, "add --yes" in refused.output) == (2, True)
    copy = db.with_name("own.sqlite.v1-20260101-000000")
    copy.write_bytes(b"old")
    gone = run(db, "--delete", short, "--yes")
    assert "deleted: 'A square has sides" in gone.output
    assert str(copy) in gone.output
    assert b"I added" not in db.read_bytes()
    assert run(db, "--delete", "all", "--yes").output.startswith("deleted: 0")


def test_a_connection_that_is_lost_is_said_and_the_conversation_can_go_on(tmp_path: Path):
    db = tmp_path / "own.sqlite"
    fail = [Failure(cut=True), None, Failure(status=400, error={"message": "too rude"})]
    with ChatServer(
        says("One two three. Four five?"), fail=lambda body, seen: fail.pop(0) if fail else None
    ) as server:
        task = task_at(tmp_path, server.url)
        done = piped(task, "--plain", "--db", db, stdin="Count.\nAgain.\nYou fool.\nSorry.\n")
    assert done.returncode == 1
    assert "broke off" in done.stderr
    assert "too rude" in done.stderr
    assert "Traceback" not in done.stderr
    store = ChatStore(db)
    turns = store.conversation(store.conversations()[0].id).turns
    assert [(t.role, t.complete) for t in turns] == [
        ("user", True),
        ("assistant", False),
        ("user", True),
        ("assistant", True),
        ("user", True),
        ("user", True),
        ("assistant", True),
    ]
    store.close()


def test_two_side_by_side_in_a_pipe_and_names_come_last(tmp_path: Path):
    with (
        ChatServer(says("Apple?", name="one")) as one,
        ChatServer(says("Pear?", name="two")) as two,
    ):
        tasks = [task_at(tmp_path, s.url, n) for s, n in ((one, "one"), (two, "two"))]
        done = piped(
            tasks[0], "--versus", tasks[1], "--plain", "--db", tmp_path / "own.sqlite",
            stdin="Fruit?\nx\na\nMore?\n=\nLast?\n",
        )  # fmt: skip
        short = done.stderr.split("--continue ")[-1].strip()
        more = piped(
            "--db", tmp_path / "own.sqlite", "--continue", short, stdin="And?\nb\n/up\n/quit\n"
        )
    assert more.stdout.startswith("A: ")
    assert "no command '/up'" in more.stderr
    assert "3 messages compared" in more.stderr
    assert "4. A was" in more.stderr
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert sorted(lines[:2]) in (["A: Apple?", "B: Pear?"], ["A: Pear?", "B: Apple?"])
    assert {line[3:] for line in lines[:2]} == {line[3:] for line in lines[2:4]}
    assert lines[0][3:] != lines[2][3:]
    assert "toml" not in done.stdout
    assert "'x' is no answer" in done.stderr
    said = done.stderr.splitlines()
    first = next(line for line in said if line.startswith("1. A was"))
    winner = tasks[0] if lines[0] == "A: Apple?" else tasks[1]
    assert f"A was {winner}" in first
    assert first.endswith(": a")
    assert any("2 messages compared" in line and "1 skipped" in line for line in said)
    assert any(f"{winner} better 1" in line for line in said)


def test_the_bundled_tutor_answers_offline(tmp_path: Path):
    done = piped("edu-dialogue", "--no-store", "--style", "socratic", stdin="I do not know.\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(scaffolding) ")
    assert "?" in done.stdout
    assert "--continue" not in done.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--list", "--export", "all"), "one of --list"),
        (("--no-store", "--list"), "nothing to look up"),
        (("--form", "json"), "--form is for --export"),
        (("--export", "zzz"), "no conversation 'zzz'"),
        (("--continue", "zzz"), "no conversation 'zzz'"),
        (("--delete", "zzz", "--yes"), "no conversation 'zzz'"),
        (("--training-rows", "rows.jsonl"), "no answer was liked yet"),
        (("--max-usd", "1"), "give a finite number, and --spend"),
        (("edu-qa",), "a task of kind 'qa'"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(args: tuple[str, ...], said: str, tmp_path: Path):
    db = () if "--no-store" in args else ("--db", str(tmp_path / "own.sqlite"))
    result = CliRunner().invoke(cli, ["chat", *db, *args])
    assert result.exit_code != 0
    assert said in (result.output + str(result.exception))


def test_a_damaged_store_is_told_and_the_conversation_begins(tmp_path: Path):
    db = tmp_path / "own.sqlite"
    db.write_bytes(b"\x00" * 5000)
    result = CliRunner().invoke(cli, ["chat", "--db", str(db), "--list"])
    assert result.exit_code == 0
    assert "was damaged" in result.output
    assert "no conversations yet" in result.output


def test_nothing_that_a_terminal_obeys_is_printed():
    assert harmless("a\x1b]0;title\x07b\x9b31m") == "a<1B>]0;title<07>b<9B>31m"
    assert harmless("\u202egnp.exe\r\n\tё 漢 é") == "<202E>gnp.exe<0D>\n\tё 漢 é"


# --- a person at a terminal ---------------------------------------------------------------------


class Slow(ScriptedModel):
    """A word every 20 ms."""

    def stream(self, request: Request) -> Iterator[Delta]:
        for delta in super().stream(request):
            time.sleep(0.02)
            yield delta


class Screen:
    """`tunelm chat` on a terminal of its own."""

    def __init__(self, *args: object, **env: str) -> None:
        import pty

        command = [sys.executable, "-m", "tunelm", "chat", *map(str, args)]
        self.pid, self.fd = pty.fork()
        if self.pid == 0:  # pragma: no cover
            os.execvpe(command[0], command, {**os.environ, "TERM": "xterm", **env})
        self.seen = ""

    def until(self, what: str | Callable[[str], bool], seconds: float = 60) -> str:
        """What came since the last call, up to where `what` is there."""
        end = time.monotonic() + seconds
        test = what if callable(what) else lambda text: what in text
        while not test(self.seen):
            assert time.monotonic() < end, f"no {what!r} in {self.seen!r}"
            self.read()
        found, self.seen = self.seen, ""
        return found

    def read(self) -> bool:
        """Take what comes within 0.2 s; False where the other end is closed."""
        import select

        try:
            if select.select([self.fd], [], [], 0.2)[0]:
                data = os.read(self.fd, 65536)
                self.seen += data.decode("utf-8", "replace")
                return bool(data)
        except OSError:
            return False
        return True

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def ended(self, typed: str) -> tuple[str, int]:
        """Type this until it has ended: (what came last, the exit code).

        A key that comes in the moment before readline waits for one is not seen until the next.
        """
        for _ in range(30):
            try:
                self.type(typed)
            except OSError:
                break
            end = time.monotonic() + 2
            while (there := self.read()) and time.monotonic() < end:
                pass
            if not there:
                break
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.fd)
        return self.seen, code


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals on Windows")
def test_ctrl_c_stops_the_answer_and_then_leaves(tmp_path: Path):
    db = tmp_path / "own.sqlite"
    story = " ".join(f"word{i}" for i in range(2000))
    left = [story, "Short."]
    with ChatServer(Slow(lambda request: left.pop(0) if len(left) > 1 else left[0])) as server:
        screen = Screen(task_at(tmp_path, server.url), "--plain", "--db", db)
        assert "/help" in screen.until("you>")
        screen.type("A story, please.\n")
        screen.until("word20 ")
        screen.type("\x03")
        assert "(stopped)" in screen.until("you>")
        screen.type("A short one.\n")
        assert "Short." in screen.until("you>", 20)
        rest, code = screen.ended("\x03")
    assert code == 130
    assert "--continue" in rest
    assert "Traceback" not in rest
    store = ChatStore(db)
    turns = store.conversation(store.conversations()[0].id).turns
    assert [(t.role, t.complete) for t in turns] == [
        ("user", True),
        ("assistant", False),
        ("user", True),
        ("assistant", True),
    ]
    assert turns[1].text.startswith("word0 word1")
    assert turns[1].notes == ("stopped",)
    store.close()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals on Windows")
@pytest.mark.parametrize(
    ("env", "colours"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_a_problem_is_chosen_the_strategy_is_dim_and_ctrl_d_says_how_to_go_on(
    tmp_path: Path, env: dict[str, str], colours: bool
):
    problems = problems_in(TASKS / "edu_dialogues.jsonl")
    with ChatServer(says("What do you think? ")) as server:
        screen = Screen(task_at(tmp_path, server.url), "--db", tmp_path / "own.sqlite", **env)
        first = screen.until("own words)>")
        assert problems[0].text[:30] in first
        screen.type("\n")
        assert "  10  " in screen.until("own words)>")
        screen.type("2\n")
        assert f"problem: {problems[1].text}" in screen.until("you>").replace("\r\n", "\n")
        screen.type("no idea\n")
        answer = screen.until(lambda text: "think?" in text and "you>" in text)
        rest, code = screen.ended("\x04")
    assert code == 0
    assert "go on with: tunelm chat --continue" in rest
    assert ("\x1b[2m(scaffolding) \x1b[0mWhat do you think?" in answer) is colours
    assert ("\x1b[2m" in first) is colours
    assert "(scaffolding) " in answer


def test_messages_of_the_session_are_typed_as_people_type_them(store: ChatStore):
    chat = Chat(says("Yes."), store)
    heard(chat.say("Zażółć gęślą jaźń — 漢字 🙂"))
    assert store.conversations("ZAŻÓŁĆ 🙂")[0].turns == 2
    assert chat.turns()[0].text == "Zażółć gęślą jaźń — 漢字 🙂"
    assert store.sent(chat.turns()[1].id) == (Message("user", "Zażółć gęślą jaźń — 漢字 🙂"),)


def test_a_tutor_in_the_terminal_says_whom_to_call(tmp_path: Path):
    args = ["chat", "tunelm-nano", "--tutor", "--no-store", "--contact", "Call 0800 1111."]
    result = CliRunner().invoke(cli, args, input="What is 3 + 4?\nI want to hurt myself.\n")
    assert "Call 0800 1111." in result.output
