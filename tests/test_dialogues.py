"""Dialogues: the record and its file, the rows to train on, importers, students, both sets."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from tunelm.cli import cli
from tunelm.config import DataConfig
from tunelm.data.read import read_rows
from tunelm.data.split import PARTS, split_rows
from tunelm.errors import ConfigError, DataError
from tunelm.scoring.said import states
from tunelm.tutor.dialogues import (
    STUDENT,
    TEACHER,
    Dialogue,
    Ending,
    Problem,
    Turn,
    faults_of,
    group_of,
    read_dialogues,
    to_examples,
    write_dialogues,
)
from tunelm.tutor.imports import import_dialogues
from tunelm.tutor.solved import ending_of, is_right, reveals, solved_at, strategy_of
from tunelm.tutor.strategies import STRATEGIES, Strategy
from tunelm.tutor.students import FROZEN, PROFILES, TRAINING, Student, make_student
from tunelm.types import content_hash

ROOT = Path(__file__).parents[1]
TASKS = ROOT / "src" / "tunelm" / "tasks"
DATA = ROOT.parent / "shared" / "data"

SPOONS = Problem(
    text="Ann has 12 spoons after 3 were used. How many were there?",
    subject="mathematics",
    group="spoons",
    solutions=("15",),
    wrong=("9", "36"),
    misconception="Used means taken away.",
)


def said(role: str, text: str, strategy: Strategy | None = None) -> Turn:
    return Turn(role, text, strategy)


TALK = Dialogue(SPOONS).plus(
    said(STUDENT, "It is 9."),
    said(TEACHER, "What does used mean for the number?", Strategy.SOCRATIC),
    said(STUDENT, "They are still there. So 15."),
    said(TEACHER, "Why?", Strategy.CHECK),
    said(STUDENT, "12 and 3."),
)


def file_of(folder: Path, *rows: object) -> Path:
    path = folder / "dialogues.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def row(*contents: str, **fields: object) -> dict[str, object]:
    roles = ("user", "assistant")
    turns = [{"role": roles[i % 2], "content": c} for i, c in enumerate(contents)]
    return {"messages": turns, "subject": "physics", **fields}


# --- the record, its file, the rows -----------------------------------------------------------


def test_each_strategy_is_described_once():
    assert set(STRATEGIES) == set(Strategy)
    assert len(STRATEGIES) == 9
    texts = [text for d in STRATEGIES.values() for text in (d.what, d.when)]
    assert len(set(texts)) == 18


def test_each_teacher_turn_is_a_row_with_all_that_was_said_before():
    rows = list(to_examples([TALK]))
    assert [r.answers for r in rows] == [("What does used mean for the number?",), ("Why?",)]
    assert [m.content for m in rows[1].messages] == [
        f"{SPOONS.text}\n\nIt is 9.",
        "What does used mean for the number?",
        "They are still there. So 15.",
    ]
    assert [m.role for m in rows[1].messages] == ["user", "assistant", "user"]
    assert {r.group for r in rows} == {"spoons"}
    assert rows[1].metadata["strategy"] == "check of understanding"
    assert [r.metadata["turn"] for r in rows] == [1, 2]
    assert all(json.loads(json.dumps(r.to_json()))["id"] == r.id for r in rows)


def test_a_teacher_who_opens_answers_the_bare_problem():
    opened = Dialogue(SPOONS).plus(said(TEACHER, "Tell me your way."), said(STUDENT, "9."))
    (only,) = to_examples([opened])
    assert [m.content for m in only.messages] == [SPOONS.text]
    assert only.answers == ("Tell me your way.",)


def test_the_rows_are_those_that_other_readers_make_of_the_file(tmp_path: Path):
    """A whole dialogue as a chat row is its last teacher turn's row."""
    whole = Dialogue(SPOONS, TALK.turns[:4])
    write_dialogues(tmp_path / "d.jsonl", [whole])
    (read,) = [r.example for r in read_rows(tmp_path / "d.jsonl")]
    last = list(to_examples([whole]))[-1]
    assert (read.id, read.messages, read.answers) == (last.id, last.messages, last.answers)
    assert read.group == last.group


text_ = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1).filter(
    lambda t: t.strip()
)


@given(
    text_,
    text_,
    st.lists(st.tuples(text_, st.sampled_from([None, *Strategy]), st.none() | text_), min_size=1),
    st.booleans(),
    st.sampled_from([None, *Ending]),
)
@settings(max_examples=60, deadline=None)
def test_a_dialogue_comes_back_from_its_file(tmp_path_factory, problem, subject, said_, opens, end):
    turns: list[Turn] = []
    for text, strategy, move in said_:
        turns += [Turn(STUDENT, text), Turn(TEACHER, text, strategy, move)]
    its = Problem(problem, subject, "g", solutions=(problem,), wrong=(subject,))
    before = Dialogue(its, tuple(turns[1 if opens else 0 :]), "silent", end, small=opens)
    path = tmp_path_factory.mktemp("d") / "d.jsonl"
    write_dialogues(path, [before])
    assert read_dialogues(path) == [before]


BAD = {
    "empty": (row("a", " ", strategies=["hint"]), "turn 1 (teacher) is empty"),
    "strategy": (row("a", "b", strategies=["hnt"]), "unknown strategy 'hnt', expected one of Soc"),
    "count": (row("a", "b", strategies=["hint", "hint"]), "expected a list of 1"),
    "ending": (row("a", "b", ending="fine"), "unknown ending 'fine', expected one of solved"),
    "small": (row("a", "b", small="no"), "\"small\" is 'no', expected true or false"),
    "problem": (row("a", "b", problem="c"), 'must open with the "problem"'),
    "silent": (row("a"), "no teacher turn"),
    "solutions": (row("a", "b", solutions="5"), "expected a list of texts"),
    "group": (row("a", "b", group=7), '"group" is 7, expected a text'),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_broken_row_is_named_by_file_and_line(tmp_path: Path, bad: str):
    path = file_of(tmp_path, row("q", "t", "s"), BAD[bad][0])
    with pytest.raises(DataError) as refused:
        read_dialogues(path)
    (problem,) = refused.value.problems
    assert problem.startswith(f"{path}:2: ")
    assert BAD[bad][1] in problem


def test_every_fault_of_a_file_is_told_at_once(tmp_path: Path):
    two = [{"role": r, "content": "x"} for r in ("user", "assistant", "assistant", "user", "user")]
    rows = [
        {"messages": two},
        {"messages": [{"role": "teacher", "content": "x"}]},
        {"messages": [{"role": "system", "content": "Ask."}, *two[:2]]},
        row("Same problem", "b", group="one"),
        row("same  problem", "b", group="two"),
    ]
    path = file_of(tmp_path, *rows)
    path.write_text(path.read_text() + "{oops\n")
    with pytest.raises(DataError) as refused:
        read_dialogues(path)
    found = [p.removeprefix(f"{path}:") for p in refused.value.problems]
    assert [f[:2] for f in found] == ["1:", "1:", "2:", "3:", "5:", "6:"]
    assert "two teacher turns in a row" in found[0]
    assert "two student turns in a row" in found[1]
    assert "role 'teacher', expected user or assistant" in found[2]
    assert "put instructions in [task]" in found[3]
    assert "give it one" in found[4]


def test_rows_are_not_made_of_a_broken_dialogue():
    with pytest.raises(DataError, match="two teacher turns in a row"):
        list(to_examples([TALK.plus(said(TEACHER, "x"), said(TEACHER, "y"))]))
    with pytest.raises(DataError, match="role 'tutor', expected student or teacher"):
        list(to_examples([TALK.plus(said("tutor", "x"))]))


def test_a_chat_file_without_our_fields_can_be_read():
    """The 26 conversations that were here before have no problem, group or strategies."""
    found = read_dialogues(TASKS / "teacher_dialogues.jsonl")
    assert len(found) == 26
    assert {d.turns[0].role for d in found} == {TEACHER}
    assert found[0].problem.group == group_of(found[0].problem.text)
    assert {t.strategy for d in found for t in d.turns} == {None}


# --- who said it first ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("So it is 15.", True),
        ("15.0 spoons?", True),
        ("It was 9, but now I say 15.", True),
        ("Is it 15? No, 9.", False),
        ("9 or 15?", False),
        ("It is not 15.", False),
        ("1.5 or so", False),
        ("150", False),
        ("It is 15, not 9.", True),
        ("15 rather than 9", True),
        ("...", False),
    ],
)
def test_the_answer_that_counts_is_the_one_said_last_and_not_denied(text: str, right: bool):
    assert is_right(text, SPOONS) is right


def test_a_wrong_answer_inside_the_right_one_is_no_answer_of_its_own():
    gas = Problem("Which gas?", "chemistry", "gas", ("carbon dioxide",), ("carbon", "oxygen"))
    assert is_right("Carbon dioxide.", gas)
    assert not is_right("Carbon.", gas)
    assert states("it's the Carbon  Dioxide!", gas.solutions)
    assert not states("", gas.solutions)


def test_what_the_teacher_gave_away_is_not_the_student_s():
    assert (ending_of(TALK), solved_at(TALK)) == (Ending.SOLVED, 2)
    told = Dialogue(SPOONS).plus(
        said(STUDENT, "9"), said(TEACHER, "No, it is 15."), said(STUDENT, "15")
    )
    assert (ending_of(told), reveals(told, 1)) == (Ending.TOLD, True)
    assert ending_of(Dialogue(SPOONS, told.turns[:2])) is Ending.UNSOLVED
    assert ending_of(Dialogue(dataclasses.replace(SPOONS, solutions=()), told.turns)) is None
    choice = dataclasses.replace(SPOONS, text="Is it 9 or 15?")
    named = Dialogue(choice).plus(said(STUDENT, "9"), said(TEACHER, "Is it 9 or 15?"))
    assert not reveals(named, 1), "the problem names both"
    labelled = Dialogue(choice).plus(said(TEACHER, "It is 15.", Strategy.TELLING))
    assert reveals(labelled, 0)


# --- students ---------------------------------------------------------------------------------

HELP = (
    said(TEACHER, "Take your time. Which of the 12 spoons were used?", Strategy.ENCOURAGEMENT),
    said(TEACHER, "Are the 3 used spoons gone? What did you mean?", Strategy.MISCONCEPTION),
    said(TEACHER, "Put the 12 on the table. Where are the 3?", Strategy.SCAFFOLDING),
    said(TEACHER, "A hint: the 3 lie in the sink.", Strategy.HINT),
    said(
        TEACHER, "For example, 5 cups after 2 were used were 7. Now the spoons.", Strategy.EXAMPLE
    ),
    said(TEACHER, "Do used spoons stop being spoons?", Strategy.MISCONCEPTION),
)
"""Good teaching that never says the answer."""


def converse(profile: str, teacher: tuple[Turn, ...], seed: int = 0) -> Dialogue:
    student = make_student(profile, seed)
    dialogue = student.answer(Dialogue(SPOONS))
    for turn in teacher:
        dialogue = student.answer(dialogue.plus(turn))
    return dialogue


def test_the_profiles_are_frozen_and_one_is_held_out():
    assert FROZEN == "c6defd13caf19818", "scores of conversations were made with other students"
    assert {"guesses", "careless", "stable misconception", "already right", "silent"} <= set(
        PROFILES
    )
    assert sorted(set(PROFILES) - set(TRAINING)) == ["asks for the answer"]


@pytest.mark.parametrize("profile", PROFILES)
def test_good_teaching_gets_there_and_telling_does_not_count(profile: str):
    for seed in range(5):
        taught = converse(profile, HELP, seed)
        assert taught == converse(profile, HELP, seed)
        assert ending_of(taught) is Ending.SOLVED
        assert faults_of(taught) == ()
        told = converse(profile, (said(TEACHER, "It is 15."),), seed)
        expected = Ending.SOLVED if profile == "already right" else Ending.TOLD
        assert ending_of(told) is expected


@pytest.mark.parametrize("strategy", Strategy)
def test_saying_it_again_or_speaking_of_something_else_brings_little(strategy: Strategy):
    near, far = "A word about the spoons?", "Bananas are yellow."
    for name in PROFILES:
        student = make_student(name)
        turns = {text: said(TEACHER, text, strategy) for text in (near, far)}
        got = {text: student.progress(Dialogue(SPOONS).plus(t)) for text, t in turns.items()}
        ten = Dialogue(SPOONS)
        for _ in range(10):
            ten = ten.plus(said(STUDENT, "Hm."), turns[near])
        assert student.progress(ten) == got[near]
        if strategy in (Strategy.CLARIFICATION, Strategy.ENCOURAGEMENT, Strategy.CHECK):
            assert got[far] == got[near]
        else:
            assert got[far] == pytest.approx(got[near] / 4)
    assert make_student("silent").progress(Dialogue(SPOONS).plus(HELP[0], HELP[2])) == 1.5


def test_replies_are_frozen_as_well():
    """The profiles' hash says nothing of the rules: this one does."""
    told = (said(TEACHER, "How did you get there?"), said(TEACHER, "It is 15."), HELP[0])
    all_ = [
        [t.text for t in converse(name, teacher, seed).turns]
        for name in PROFILES
        for teacher in (HELP, told)
        for seed in range(5)
    ]
    assert content_hash(all_) == "e197a062f37c20fe"


def test_each_profile_is_what_it_says():
    def turn_of(profile: str, seed: int, teacher: tuple[Turn, ...] = HELP) -> int:
        return solved_at(converse(profile, teacher, seed)) or 99

    seeds = range(40)
    mean = {p: sum(turn_of(p, s) for s in seeds) / len(seeds) for p in PROFILES}
    assert mean["already right"] == 1
    assert mean["careless"] < min(
        mean[p] for p in PROFILES if p not in ("already right", "careless")
    )
    cold = tuple(t for t in HELP if t.strategy is not Strategy.ENCOURAGEMENT)
    assert sum(turn_of("silent", s, cold) for s in seeds) > sum(turn_of("silent", s) for s in seeds)
    believer = converse("stable misconception", HELP[2:4])
    assert SPOONS.misconception in believer.turns[0].text
    assert all("15" not in t.text for t in believer.by(STUDENT))
    tries = converse("guesses", HELP[:1])
    assert {w for w in SPOONS.wrong if any(w in t.text for t in tries.by(STUDENT))}


def test_an_unlabelled_turn_is_taken_for_what_its_words_say():
    asked = converse("careless", (said(TEACHER, "How did you get 9?"),))
    assert strategy_of(asked, 1) is Strategy.CLARIFICATION
    reasons = PROFILES["careless"].says["asked why"]
    assert asked.turns[2].text in [r.format(wrong="9") for r in reasons]
    assert strategy_of(TALK, 3) is Strategy.CHECK
    bare = dataclasses.replace(TALK, turns=tuple(said(t.role, t.text) for t in TALK.turns))
    assert strategy_of(bare, 3) is Strategy.CHECK, "a question after the right answer"


def test_what_a_student_cannot_do_is_said():
    with pytest.raises(ConfigError, match="no student 'lazy', expected one of guesses, careless"):
        make_student("lazy")
    student = make_student("silent")
    with pytest.raises(ConfigError, match="the teacher's turn to speak"):
        student.reply(TALK)
    with pytest.raises(ConfigError, match="give solutions"):
        student.reply(Dialogue(dataclasses.replace(SPOONS, solutions=())))
    with pytest.raises(ConfigError, match="give wrong"):
        student.reply(Dialogue(dataclasses.replace(SPOONS, wrong=())))
    right = Student(PROFILES["already right"])
    assert "15" in right.reply(Dialogue(dataclasses.replace(SPOONS, wrong=())))


# --- the two sets -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def edu() -> list[Dialogue]:
    return read_dialogues(TASKS / "edu_dialogues.jsonl")


@pytest.fixture(scope="module")
def tutor() -> list[Dialogue]:
    return read_dialogues(TASKS / "tutor_dialogues.jsonl")


def strategies(dialogues: list[Dialogue]) -> Counter[Strategy | None]:
    return Counter(t.strategy for d in dialogues for t in d.by(TEACHER))


def test_the_written_set_has_what_it_promises(edu: list[Dialogue]):
    assert len(edu) >= 24
    assert len({d.problem.text for d in edu}) == len(edu)
    assert sum(d.small for d in edu) == 5
    assert len({d.problem.subject for d in edu}) >= 5
    assert len({d.problem.subject for d in edu if d.small}) >= 4
    counts = strategies(edu)
    assert set(counts) == set(Strategy)
    assert min(counts.values()) >= 8
    assert all(6 <= len(d.turns) <= 14 for d in edu)
    assert {d.ending for d in edu} == set(Ending)


def test_the_larger_set_has_what_it_promises(tutor: list[Dialogue]):
    assert len(tutor) >= 400
    assert len({d.id for d in tutor}) == len(tutor)
    assert set(strategies(tutor)) == set(Strategy)
    assert min(Counter(d.profile for d in tutor).values()) >= 0.15 * len(tutor)
    examples = list(to_examples(tutor))
    split = split_rows(examples, DataConfig(path="unused"))
    groups = {part: {e.group for e in split.part(part)} for part in PARTS}
    assert len(groups["test"]) >= 30
    assert not groups["test"] & (groups["train"] | groups["dev"])
    assert split.leaks == ()
    assert len({e.id for e in examples}) >= len(examples) - 5  # two who open alike


@pytest.mark.parametrize("name", ["edu", "tutor"])
def test_labels_of_both_sets_hold(name: str, request: pytest.FixtureRequest):
    for d in request.getfixturevalue(name):
        assert d.ending is ending_of(d), d.problem.text
        assert d.profile in TRAINING, "the held-out student is in no training data"
        assert d.turns[-1].role == TEACHER
        for position, turn in enumerate(d.turns):
            if turn.role == TEACHER and turn.strategy is not Strategy.TELLING:
                assert not reveals(d, position), (d.problem.text, turn.text)


@pytest.mark.parametrize("name", ["edu_dialogues.jsonl", "tutor_dialogues.jsonl"])
def test_the_files_train_as_they_stand_and_fit_the_bundled_model(name: str):
    path = TASKS / name
    args = ["data", "check", str(path), "--model", "tunelm-nano", "--max-length", "700", "--strict"]
    result = CliRunner().invoke(cli, args)
    assert (result.exit_code, "no fault found" in result.output) == (0, True), result.output
    dialogues = read_dialogues(path)
    lasts = [list(to_examples([d]))[-1] for d in dialogues]
    assert [r.example.id for r in read_rows(path)] == [e.id for e in lasts]


def test_the_larger_set_asks_about_no_fact_that_the_model_was_asked(tutor: list[Dialogue]):
    sys.path.insert(0, str(ROOT / "nano"))
    try:
        from knowledge import load_facts
    finally:
        sys.path.remove(str(ROOT / "nano"))
    shelf = {fact.id: fact.shelf for fact in load_facts()}
    assert {shelf[d.problem.group] for d in tutor} == {"stated"}


# --- importers --------------------------------------------------------------------------------


def data_file(name: str) -> Path:
    path = DATA / name / f"{name}.jsonl"
    if not path.exists():
        pytest.skip(f"../shared/data/{name} is not here: it is a published set, not ours to ship")
    return path


@pytest.mark.parametrize(
    ("source", "dialogues", "labelled"),
    [("mathdial", 371, 1768), ("bridge", 409, 389), ("cima", 3315, 3297)],
)
def test_published_dialogues_come_in_whole(
    source: str, dialogues: int, labelled: int, tmp_path: Path
):
    found = import_dialogues(data_file(source), source)
    assert len(found) == dialogues
    assert [fault for d in found for fault in faults_of(d)] == []
    assert sum(t.strategy is not None for d in found for t in d.turns) == labelled
    by_problem: dict[str, set[str]] = {}
    for d in found:
        by_problem.setdefault(d.problem.text, set()).add(d.problem.group)
    assert {len(groups) for groups in by_problem.values()} == {1}
    write_dialogues(tmp_path / "d.jsonl", found)
    assert read_dialogues(tmp_path / "d.jsonl") == found


def test_mathdial_keeps_its_moves_and_outcomes():
    first = import_dialogues(data_file("mathdial"), "mathdial")[0]
    moves = [(t.move, t.strategy) for t in first.by(TEACHER)]
    assert moves == [
        ("generic", None),
        ("focus", Strategy.SCAFFOLDING),
        ("telling", Strategy.TELLING),
        ("generic", None),
    ]
    assert (first.problem.solutions, first.problem.wrong) == (("10",), ("4",))
    assert (first.ending, ending_of(first), solved_at(first)) == (Ending.SOLVED, Ending.SOLVED, 3)


def test_labels_map_as_the_tables_say():
    bridge = {t.move: t.strategy for d in import_dialogues(data_file("bridge"), "bridge")
              for t in d.turns if t.move}  # fmt: skip
    assert bridge["ask_question / diagnose_mistake"] is Strategy.CLARIFICATION
    assert bridge["ask_question / understand_topic"] is Strategy.SOCRATIC
    assert bridge["provide_example / understand_topic"] is Strategy.EXAMPLE
    assert {s for m, s in bridge.items() if m.startswith("End session")} == {None}
    cima = {t.move: t.strategy for d in import_dialogues(data_file("cima"), "cima")
            for t in d.turns if t.move}  # fmt: skip
    assert cima["question + hint"] is Strategy.SCAFFOLDING
    assert cima["hint + correction"] is Strategy.MISCONCEPTION
    assert cima["other"] is None


def test_what_is_no_such_file_is_said(tmp_path: Path):
    path = file_of(tmp_path, {"conversation": "Teacher: hello", "question": "q"}, {"a": 1})
    with pytest.raises(DataError) as refused:
        import_dialogues(path, "mathdial")
    assert [p.removeprefix(f"{path}:") for p in refused.value.problems] == [
        "1: no row of mathdial (a teacher turn without its move: 'hello')",
        "2: no row of mathdial (no field 'conversation')",
    ]
    with pytest.raises(ConfigError, match="no source 'x' of dialogues, expected one of mathdial"):
        import_dialogues(path, "x")
