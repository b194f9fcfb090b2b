"""What two files share is found without being told where to look."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tunelm.cli import cli
from tunelm.data.contamination import contamination
from tunelm.data.overlap import Document, documents, find_overlaps
from tunelm.data.split import Split
from tunelm.types import Example, Message

from .test_data_check import answer, chat, jsonl, qa, question, run, words

DATA = Path(__file__).parents[2] / "shared" / "data"


def shared(name: str) -> Path:
    path = DATA / name / f"{name}.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not there: the data of the checks is not part of the repository")
    return path


def overlaps(report: dict[str, Any]) -> list[int]:
    return [f["line"] for f in report["faults"] if f["code"] == "overlap"]


def test_a_piece_of_13_words_is_found_in_whatever_field_it_stands(tmp_path: Path):
    piece = words(13, "piece")
    ours = [chat(i) for i in range(30)]
    ours[6] = {"messages": [*chat(6)["messages"][:1], {"role": "assistant", "content": piece}]}
    theirs: list[Any] = [{"id": str(i), "notes": {"old": [words(20, f"n {i}")]}} for i in range(30)]
    theirs[11]["notes"]["old"] += [f"{words(5, 'x')} {piece.upper().replace(' ', ', ')} end"]
    a, b = jsonl(tmp_path / "a.jsonl", ours), jsonl(tmp_path / "b.jsonl", theirs)
    code, report = run(a, "--against", b)
    assert (code, overlaps(report)) == (1, [7])
    (fault,) = report["faults"]
    assert f"{b}:12" in fault["found"]
    assert piece.split()[0].upper() in fault["found"]
    theirs[11]["notes"]["old"] = [piece.rsplit(" ", 1)[0]]
    assert overlaps(run(a, "--against", jsonl(b, theirs))[1]) == []


def test_a_short_question_is_compared_whole(tmp_path: Path):
    a = jsonl(tmp_path / "a.jsonl", [qa(i) for i in range(20)])
    rows = [qa(f"b {i}") for i in range(20)]
    rows[3] = {"question": question(12).lower().replace("?", " ?"), "answer": "Something else."}
    rows[4] = {"question": question("other"), "answer": answer(5)}  # an answer alone is no test row
    b = jsonl(tmp_path / "b.jsonl", rows)
    _, report = run(a, "--against", b)
    assert overlaps(report) == [13]
    assert f"also stands in {b}:4" in report["faults"][0]["found"]
    unknown = [{"frage": question(12), "nummer": "7"}, {"frage": words(6, "z"), "nummer": "8"}]
    assert overlaps(run(a, "--against", jsonl(tmp_path / "c.jsonl", unknown))[1]) == [13]


def test_rows_almost_the_same_are_found_where_no_13_words_are(tmp_path: Path):
    text = words(38, "story").split()
    changed = [w if i not in (12, 25) else f"new{i}" for i, w in enumerate(text)]
    ours: list[Any] = [{"text": words(30, i)} for i in range(20)]
    ours[8] = {"text": " ".join(text)}
    a = jsonl(tmp_path / "a.jsonl", ours)
    b = jsonl(tmp_path / "b.jsonl", [{"text": " ".join(changed)}, {"text": words(30, "b")}])
    _, report = run(a, "--against", b)
    assert overlaps(report) == [9]
    assert report["faults"][0]["found"] == f"almost the same row as {b}:1"


def test_wording_that_both_files_share_is_left_out_and_counted(tmp_path: Path):
    ask = words(15, "the instruction")

    def rows(name: str, count: int) -> list[Any]:
        return [
            {"question": f"{ask} {question(f'{name} {i}')}", "answer": answer(f"{name} {i}")}
            for i in range(count)
        ]

    a, b = jsonl(tmp_path / "a.jsonl", rows("a", 40)), jsonl(tmp_path / "b.jsonl", rows("b", 40))
    _, report = run(a, "--against", b)
    assert overlaps(report) == []
    assert "pieces of 13 words stand in more than ten texts" in report["notes"][0]
    few = jsonl(tmp_path / "few.jsonl", rows("few", 4))  # in a few rows it may be what they are
    assert len(overlaps(run(few, "--against", b)[1])) == 4
    system = [{"role": "system", "content": ask}]
    one = [{"messages": [*system, *chat(i)["messages"]]} for i in range(5)]
    other = [{"messages": [*system, *chat(f"o {i}")["messages"]]} for i in range(5)]
    c, d = jsonl(tmp_path / "c.jsonl", one), jsonl(tmp_path / "d.jsonl", other)
    assert overlaps(run(c, "--against", d)[1]) == []


def test_a_secret_in_the_shared_piece_is_masked(tmp_path: Path):
    text = f"{words(8, 'x')} jane.doe@acme-corp.com {words(8, 'y')}"
    a = jsonl(tmp_path / "a.jsonl", [{"text": text}, {"text": words(30, "a")}])
    b = jsonl(tmp_path / "b.jsonl", [{"text": f"{words(30, 'b')} {text}"}])
    shown = CliRunner().invoke(cli, ["data", "check", str(a), "--against", str(b)]).output
    assert "error overlap" in shown
    assert "jane" not in shown


def test_several_files_and_a_missing_one(tmp_path: Path):
    a = jsonl(tmp_path / "a.jsonl", [qa(i) for i in range(20)])
    b, c = jsonl(tmp_path / "b.jsonl", [qa(3)]), jsonl(tmp_path / "c.jsonl", [qa(7), qa(3)])
    report = run(a, "--against", b, "--against", c)[1]
    assert overlaps(report) == [4, 4, 8]
    missing = CliRunner().invoke(cli, ["data", "check", str(a), "--against", "none.jsonl"])
    assert missing.exit_code != 0


def test_texts_of_no_words_and_empty_sides_share_nothing():
    empty = [Document("a:1", ("", "?!"), ("",))]
    full = [Document("b:1", (words(20, 1),), ())]
    assert find_overlaps(empty, full).rows == []
    assert find_overlaps(full, empty).rows == []
    assert find_overlaps([], full).rows == []


@pytest.mark.parametrize(
    ("ours", "theirs", "expected", "rows"),
    [("mathdial", "gsm8k", 246, 371), ("mrbench", "mathdial", 1104, 1623)],
)
def test_the_problems_that_public_data_share_are_found(
    ours: str, theirs: str, expected: int, rows: int
):
    """246 of 371 MathDial dialogues are on problems of GSM8K; MRBench took 1,104 of MathDial."""
    a, b = shared(ours), shared(theirs)
    found = find_overlaps((d for d, _ in documents(a)), (d for d, _ in documents(b)))
    lines = {int(o.source.rsplit(":", 1)[1]) for o in found.rows}
    assert len(lines) == expected
    records = [json.loads(line) for line in a.read_bytes().splitlines()]
    assert len(records) == rows
    if ours == "mathdial":  # by another way: those whose problem, folded, is a problem there
        known = {_folded(json.loads(x)["question"]) for x in b.read_bytes().splitlines()}
        truth = {i for i, r in enumerate(records, 1) if _folded(r["question"]) in known}
    else:  # the benchmark says where its rows are from
        truth = {i for i, r in enumerate(records, 1) if r["source"] == "MathDial"}
    assert lines == truth


def _folded(text: str) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in text.casefold()).split())


def test_the_command_names_the_shared_problems_of_a_file_it_knows_nothing_of(tmp_path: Path):
    problems = shared("gsm8k")
    few = jsonl(tmp_path / "some.jsonl", shared("mathdial").read_bytes().splitlines()[110:130])
    _, report = run(few, "--against", problems)
    assert overlaps(report)
    assert all(str(problems) in f["found"] for f in report["faults"] if f["code"] == "overlap")


def test_what_test_rows_share_is_told_apart_by_question_and_answer():
    def row(name: str, asked: str, said: str) -> Example:
        return Example(name, (Message("user", asked),), (said,), name)

    phrase, passage = words(14, "phrase"), words(15, "passage")
    train = [row("a", words(20, "one"), phrase), row("b", f"Read: {passage}", "yes")]
    test = [
        row("c", words(20, "two"), f"Well, {phrase}"),
        row("d", f"Once more: {passage}", "no"),
        row("e", words(20, "three"), "none"),
    ]
    found = contamination(Split(tuple(train), (), tuple(test)))
    assert (found["rows"], found["asked"], found["of"]) == (2, 1, 3)
    assert [(r["test_id"], r["train_id"]) for r in found["found"]] == [("d", "b"), ("c", "a")]
