"""A task of dialogues, from its file to the report: rows a turn, conversations, what they cost."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import tunelm
from tunelm.config import load_config
from tunelm.errors import ConfigError, DataError
from tunelm.judging.carried_out import strategy_judge, with_kept
from tunelm.models.prompted import PromptedModel
from tunelm.predict import read_predictions
from tunelm.report.build import build_report
from tunelm.report.evidence import judged
from tunelm.report.markdown import markdown_page
from tunelm.report.read import read_run
from tunelm.routes.cloud_rows import chat
from tunelm.scoring.metrics import get_metric, row_statistics
from tunelm.target import load
from tunelm.testing import ScriptedModel
from tunelm.tutor.dialogues import Dialogue, Ending, read_dialogues, write_dialogues
from tunelm.tutor.strategies import Strategy
from tunelm.tutor.students import PROFILES
from tunelm.tutor.talks import MOST_TURNS, hold, talks_of
from tunelm.tutor.teaching import read_turns, turn_examples
from tunelm.tutor.tutor import TeacherStudentDialogueModel
from tunelm.types import Example, FinishReason, Prediction, Request

TASKS = Path(tunelm.__file__).parent / "tasks"
SMALL = [
    "data.min_test_groups=3",
    "data.dev=0.25",
    "compare.conversations=18",
    "task.max_tokens=16",
    "model.base=tunelm-nano-small",
    "routes.local.max_steps=3",
    "routes.prompt.strategy=labeled",
    'compare.routes=["constant", "baseline", "prompt", "local"]',
]


@pytest.fixture(scope="module")
def dialogues() -> list[Dialogue]:
    """Two on each of sixteen problems."""
    every = read_dialogues(TASKS / "tutor_dialogues.jsonl")
    groups = list(dict.fromkeys(d.problem.group for d in every))[:16]
    return [d for d in every if d.problem.group in groups]


@pytest.fixture(scope="module")
def task(dialogues: list[Dialogue], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled task's file over those."""
    folder = tmp_path_factory.mktemp("dialogue")
    write_dialogues(folder / "tutor_dialogues.jsonl", dialogues)
    text = (TASKS / "edu-dialogue.toml").read_text(encoding="utf-8")
    (folder / "task.toml").write_text(text, encoding="utf-8")
    return folder / "task.toml"


@pytest.fixture(scope="module")
def run(task: Path) -> Path:
    """A whole comparison of a few steps."""
    out = task.parent / "run"
    tunelm.compare(task, out, overrides=SMALL)
    return out


def rows_of(run: Path, part: str) -> list[Example]:
    """The task's rows of a part, from the run's files."""
    return read_run(run).parts[part]


def test_a_row_a_teachers_turn_and_a_dialogue_on_one_side(run: Path, dialogues: list[Dialogue]):
    split = json.loads((run / "split.json").read_text())["parts"]
    ledger = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
    turns = sum(len(d.by("teacher")) for d in dialogues)
    assert len(ledger) == turns
    assert sum(split[p]["rows"] for p in ("train", "dev", "test")) <= turns
    parts: dict[str, set[str]] = {}
    for row in ledger:
        if row["example"]:
            parts.setdefault(row["example"]["metadata"]["problem"], set()).add(row["part"])
    assert len(parts) == 16
    assert all(len(where) == 1 for where in parts.values())


def test_the_report_judges_by_conversations(run: Path):
    report = json.loads((run / "report.json").read_text())
    assert report["task"]["primary_metric"] == "solved_unaided"
    done = {r["name"]: r for r in report["routes"]}
    assert {r["status"] for r in done.values()} == {"done"}
    baseline = done["baseline"]["scores"]
    assert baseline["solved_unaided"]["n"] == 18
    assert baseline["turn_f1"]["n"] == report["split"]["test"]["rows"]
    assert re.search(r"students:[0-9a-f]{16}\|", baseline["telling_rate"]["signature"])
    primary = [p for p in report["pairs"] if p["metric"] == "solved_unaided" and p["family"]]
    assert {(p["a"], p["b"]) for p in primary} == {
        ("prompt", "baseline"),
        ("local", "baseline"),
        ("local", "prompt"),
    }
    talks = report["conversations"]["routes"]["baseline"]
    assert talks["n"] == 18 == sum(talks["endings"].values()) + talks["failed"]
    assert talks["students"]["asks for the answer"]["held_out"]
    assert sum(s["n"] for s in talks["students"].values()) == 18
    assert talks["prompt_by_turn"] == sorted(talks["prompt_by_turn"])
    assert 0 < talks["kept_tokens"] < talks["prompt_tokens"]
    assert talks["usd"] is None
    assert "no price" in talks["usd_reason"]
    page = (run / "report.md").read_text()
    assert "## Conversations with simulated students" in page
    assert "asks for the answer (in no training data)" in page
    assert report["conversations"]["note"][:20] in (run / "report.html").read_text()
    assert f"{baseline['solved_unaided']['n']} conversations in" in " ".join(report["verdict"])


def test_nothing_of_the_test_problems_is_trained_on_and_no_held_out_student(run: Path):
    train = (run / "routes/local/seed-0/training/train.jsonl").read_text(encoding="utf-8")
    talks = [json.loads(line) for line in (run / "talks.jsonl").read_text().splitlines()]
    for row in talks:
        assert json.dumps(row["example"]["metadata"]["problem"], ensure_ascii=False)[1:-1] not in (
            train
        )
    held_out = [p for p in PROFILES.values() if p.held_out]
    for wording in (text for p in held_out for texts in p.says.values() for text in texts):
        assert "{" in wording or wording not in train


def test_facts_are_those_of_the_conversation(run: Path):
    found = read_run(run)
    talks = {e.id: e for e in found.parts["test_talks"]}
    rows = read_predictions(run / "routes/baseline/seed-0/predictions.jsonl")
    rows = [row for row in rows if row.part == "test_talks"]
    assert len(rows) == 18
    for row in rows:
        facts = row.facts or {}
        talk, said = talks[row.example_id], str(row.output)
        teacher = [line for line in said.splitlines() if line.startswith("Teacher, asked for")]
        assert len(teacher) == facts["teacher_turns"] == len(facts["prompt_tokens"]) <= MOST_TURNS
        assert row.usage.prompt_tokens == sum(facts["prompt_tokens"])
        assert facts["solved_unaided"] + facts["solved_after_telling"] <= 1
        if talk.metadata["profile"] == "already right":
            assert (facts["solved_unaided"], facts["turns_to_solve"]) == (1, 0)
        assert said.startswith("Student: ")


def test_conversations_are_held_again_the_same(run: Path):
    found = read_run(run)
    talks = found.parts["test_talks"][:4]
    stored = read_predictions(run / "routes/local/seed-0/predictions.jsonl")
    again = hold(load(run / "local"), talks, "x", 16)
    before = {row.example_id: row.output for row in stored}
    assert [p.output for p in again] == [before[t.id] for t in talks]


def test_rows_are_the_same_bytes_for_answers_weights_and_jobs(dialogues: list[Dialogue]):
    config = load_config("edu-dialogue")
    system = config.task.instructions
    for dialogue in dialogues[:4]:
        for row in turn_examples([dialogue]):
            turn = [i for i, t in enumerate(dialogue.turns) if t.role == "teacher"]
            before = Dialogue(dialogue.problem, dialogue.turns[: turn[row.metadata["turn"] - 1]])
            inner = ScriptedModel(lambda _: "Well?")
            tutor = TeacherStudentDialogueModel(PromptedModel(inner, system))
            sent = tutor.reply(before, Strategy(row.metadata["strategy"])).sent
            job = chat(row, system)
            assert [(m.role, m.content) for m in sent] == [
                (m["role"], m["content"]) for m in job[:-1]
            ]


def test_a_prompt_program_and_the_baseline_are_sent_the_rows_own_turns(run: Path):
    rows = rows_of(run, "test")
    for name in ("baseline", "local", "prompt"):
        sent = json.loads((run / f"routes/{name}/seed-0/prompt.json").read_text())["messages"]
        asked = [{"role": m.role, "content": m.content} for m in rows[0].messages]
        assert sent[0]["role"] == "system"
        assert sent[-len(asked) :] == asked


def teacher(words: str | None) -> ScriptedModel:
    """A teacher who always says the same; None: one that fails."""

    def says(request: Request) -> str:
        if words is None:
            raise ValueError("gone")
        return words

    return ScriptedModel(says)


def one_talk(profile: str, dialogues: list[Dialogue]) -> Example:
    rows = list(turn_examples(dialogues[:1]))
    return next(t for t in talks_of(rows, 99) if t.metadata["profile"] == profile)


def test_telling_is_seen_and_counts_as_no_success(dialogues: list[Dialogue]):
    talk = one_talk("stable misconception", dialogues)
    (told,) = hold(teacher(f"It is {talk.answers[0]}."), [talk], "test_talks", 16)
    facts: dict[str, Any] = dict(told.facts or {})
    assert (facts["telling_rate"], facts["solved_after_telling"]) == (1, 1)
    assert facts["solved_unaided"] == 0
    assert "turns_to_solve" not in facts
    (empty,) = hold(teacher("Hm."), [talk], "test_talks", 16)
    assert empty.facts
    assert empty.facts["teacher_turns"] == MOST_TURNS
    solved, rate = (get_metric(n) for n in ("solved_unaided", "telling_rate"))
    assert row_statistics(solved, [talk], [told]) == [(0.0, 1.0)]
    assert row_statistics(rate, [talk], [told]) == [(1.0, 1.0)]
    assert rate.lower_is_better


def test_a_teacher_that_fails_is_a_failed_conversation(dialogues: list[Dialogue]):
    talk = one_talk("silent", dialogues)
    (failed,) = hold(teacher(None), [talk], "test_talks", 16)
    assert failed.output is None
    assert "gone" in str(failed.error)
    assert str(row_statistics(get_metric("solved_unaided"), [talk], [failed])) == "[(nan, nan)]"


def test_every_problem_has_a_conversation_before_any_has_two(dialogues: list[Dialogue]):
    rows = list(turn_examples(dialogues))
    some = talks_of(rows, 16)
    assert len({t.metadata["problem"] for t in some}) == 16
    every = talks_of(rows, 10_000)
    assert len({t.id for t in every}) == len(every) == 16 * len(PROFILES)
    assert every[:16] == some


def test_a_run_that_was_cut_short_goes_on(task: Path, run: Path, tmp_path: Path):
    again = tmp_path / "again"
    shutil.copytree(run, again)
    folder = again / "routes/baseline/seed-0"
    rows = (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in rows if '"part": "test_talks"' not in line]
    (folder / "predictions.jsonl").write_text("".join(kept), encoding="utf-8")
    (folder / "fit.json").unlink()
    tunelm.compare(task, again, resume=True, overrides=SMALL)
    after = read_predictions(folder / "predictions.jsonl")
    before = read_predictions(run / "routes/baseline/seed-0/predictions.jsonl")
    assert [(p.part, p.output) for p in after] == [(p.part, p.output) for p in before]
    assert build_report(again)["winner"] == build_report(run)["winner"]


def test_what_a_task_of_dialogues_needs_is_said(task: Path, tmp_path: Path):
    text = task.read_text(encoding="utf-8")
    bare = tmp_path / "bare.toml"
    bare.write_text(re.sub(r"(?m)^instructions = .*\n", "", text), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"needs task\.instructions"):
        load_config(bare)
    plain = tmp_path / "plain.jsonl"
    lines = (task.parent / "tutor_dialogues.jsonl").read_text(encoding="utf-8").splitlines()
    without = [{k: v for k, v in json.loads(x).items() if k != "solutions"} for x in lines]
    plain.write_text("".join(json.dumps(row) + "\n" for row in without), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"no problem to hold them about.*turn_f1"):
        tunelm.compare(task, tmp_path / "a", overrides=[*SMALL, f'data.path="{plain}"'])
    report = tunelm.compare(
        task,
        tmp_path / "b",
        overrides=[
            *SMALL,
            f'data.path="{plain}"',
            'compare.primary_metric="turn_f1"',
            'compare.routes=["baseline"]',
        ],
    )
    assert report["conversations"] is None
    assert "solved_unaided" not in report["metrics"]


@pytest.mark.parametrize(
    ("roles", "said"),
    [
        (["user", "assistant", "assistant"], "two teacher turns in a row"),
        (["user", "tutor"], "has role 'tutor'"),
    ],
)
def test_broken_dialogues_are_named_by_their_line(roles: list[str], said: str, tmp_path: Path):
    path = tmp_path / "broken.jsonl"
    row = {"messages": [{"role": r, "content": f"text {i}"} for i, r in enumerate(roles)]}
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=rf"broken\.jsonl:1: .*{said}"):
        list(read_turns(path))


def test_endings_of_the_hand_made_are_what_they_are_said_to_be():
    for dialogue in read_dialogues(TASKS / "edu_dialogues.jsonl"):
        assert dialogue.ending in (Ending.SOLVED, Ending.TOLD, Ending.UNSOLVED)


def test_the_judge_of_strategies_knows_what_a_turn_was_to_be(tmp_path: Path):
    pytest.importorskip("sklearn")
    every = list(turn_examples(read_dialogues(TASKS / "tutor_dialogues.jsonl")))
    groups = list(dict.fromkeys(row.group for row in every))
    train = [row for row in every if row.group in groups[:60]]
    test = [row for row in every if row.group in groups[60:100]]
    judge = strategy_judge(tmp_path, train)
    assert judge is not None
    about = json.loads((tmp_path / "judges/strategy/judge.json").read_text())
    assert about["agreement"]["accuracy"]["n"] == len(train)

    def kept(said: list[str]) -> float:
        found = [
            Prediction(row.id, "test", text, FinishReason.STOP)
            for row, text in zip(test, said, strict=True)
        ]
        rated = with_kept(strategy_judge(tmp_path, []), test, found)
        rows = row_statistics(get_metric("strategy_kept"), test, rated)
        return sum(value for value, _ in rows) / len(rows)

    gold = [row.answers[0] for row in test]
    assert kept(gold) > 0.9
    assert kept(gold[1:] + gold[:1]) < 0.5  # each with the words of another turn
    assert kept(["What do you think?"] * len(test)) < 0.3


def test_the_report_says_how_far_its_judge_agrees(run: Path):
    report = json.loads((run / "report.json").read_text())
    judge = report["judges"]["strategy_kept"]
    assert judge["agreement"]["kappa"]["n"] == report["split"]["train"]["rows"] == judge["rows"]
    assert report["routes"][1]["scores"]["strategy_kept"]["n"] == report["split"]["test"]["rows"]
    assert "strategy_kept is by a judge learned from the labels" in (run / "report.md").read_text()


def test_without_enough_labels_the_judge_is_unknown_and_says_why(
    run: Path, dialogues: list[Dialogue], tmp_path: Path
):
    assert strategy_judge(tmp_path, list(turn_examples(dialogues[:4]))) is None
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "judges")
    shutil.copytree(tmp_path / "judges", tmp_path / "run" / "judges")
    report = build_report(tmp_path / "run")
    assert "groups" in report["judges"]["strategy_kept"]["unknown"]
    assert "strategy_kept is unknown: " in markdown_page(report)


def test_what_a_judge_cannot_show_is_not_told_apart():
    pairs = [
        {"metric": "strategy_kept", "diff": 0.04, "p": 0.001, "family": False, "control": False,
         "parity": False, "agrees": True, "left_out": 0, "p_holm": None},
    ]  # fmt: skip
    assert judged(dict(pairs[0]), 0.05)["verdict"] == "not distinguishable"
    assert "below what its judge can show (5.0 points)" in judged(dict(pairs[0]), 0.05)["note"]
    assert judged(dict(pairs[0]), 0.03)["verdict"] == "better"
