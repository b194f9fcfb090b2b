"""Rows are read, deduplicated and split; every fault is named with file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunelm.config import DataConfig
from tunelm.data.prepare import prepare
from tunelm.data.read import read_rows
from tunelm.data.split import PARTS, split_rows
from tunelm.errors import DataError

from .conftest import write_rows


def config(path: Path, **settings: object) -> DataConfig:
    return DataConfig.model_validate({"path": path, "min_test_groups": 1, **settings})


def row(question: str, answer: str = "a", **more: object) -> str:
    return json.dumps({"question": question, "answer": answer, **more}) + "\n"


def words(example) -> int:
    return sum(len(m.content.split()) for m in example.messages) + len(example.answers[0].split())


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("{broken", "not valid JSON"),
        ("[1, 2]", "found list"),
        ('{"frage": "x"}', "found the fields frage"),
        ('{"question": " ", "answer": "x"}', '"question" is empty'),
        ('{"question": "x", "answer": 3}', '"answer" is 3, expected a text'),
        ('{"messages": [{"role": "user", "content": "x"}]}', "at least a user and an assistant"),
        (
            '{"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "y"}]}',
            "Put instructions in [task]",
        ),
        ('{"question": "x", "answers": []}', "expected a list of texts"),
    ],
)
def test_a_broken_line_is_named_with_file_and_line(tmp_path: Path, line: str, found: str):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(row(f"q{i}") for i in range(4710)) + line + "\n")
    with pytest.raises(DataError) as error:
        list(read_rows(path))
    assert f"{path}:4711: " in str(error.value)
    assert found in str(error.value)


def test_all_broken_lines_are_reported_at_once(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text("x\n" + row("ok") + "y\n")
    with pytest.raises(DataError) as error:
        list(read_rows(path))
    assert [p.split(": ")[0] for p in error.value.problems] == [f"{path}:1", f"{path}:3"]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "the file is empty"),
        (b"\n\n", "the file is empty"),
        (row("caf\u00e9").encode().replace(b"\\u00e9", b"\xe9"), ":1: not UTF-8"),
    ],
)
def test_an_empty_or_foreign_file_is_refused(tmp_path: Path, content: bytes, found: str):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=found):
        list(read_rows(path))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="no such file"):
        list(read_rows(tmp_path / "none.jsonl"))
    with pytest.raises(DataError, match="is a folder"):
        list(read_rows(tmp_path))


def test_a_dialogue_and_a_byte_order_mark_are_read(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    turns = [
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": "Guess!"},
        {"role": "user", "content": "4"},
        {"role": "assistant", "content": "Yes."},
    ]
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({"messages": turns}).encode())
    (only,) = read_rows(path)
    assert only.example.question == "4"
    assert only.example.answers == ("Yes.",)


def test_an_over_long_row_is_an_error_unless_dropped_or_cut(tmp_path: Path):
    path, run = tmp_path / "data.jsonl", tmp_path / "run"
    run.mkdir()
    path.write_text("".join(row(f"q {i}") for i in range(40)) + row("word " * 50) + row("q 3"))
    with pytest.raises(DataError, match=rf"{path}:41: 51 tokens .* context is 20"):
        prepare(config(path), run, words, limit=20)
    assert list(run.iterdir()) == []
    for choice, status, rows in (("drop", "dropped", 40), ("cut", "cut", 41)):
        out = tmp_path / choice
        out.mkdir()
        split = prepare(config(path, over_long=choice), out, words, limit=20)
        ledger = [json.loads(x) for x in (out / "rows.jsonl").read_text().splitlines()]
        assert [x["status"] for x in ledger] == ["kept"] * 40 + [status, "duplicate"]
        assert "51 tokens" in ledger[40]["reason"]
        assert ledger[41]["reason"] == "of data.jsonl:4"
        assert sum(len(split.part(p)) for p in PARTS) == rows
        assert all(words(e) <= 20 for p in PARTS for e in split.part(p))
        assert sum(x["part"] is not None for x in ledger) == rows


def test_groups_stay_together_and_new_rows_move_no_old_ones(tmp_path: Path):
    few = [r.example for r in read_rows(write_rows(tmp_path / "few.jsonl", 200))]
    more = [r.example for r in read_rows(write_rows(tmp_path / "more.jsonl", 400))]
    settings = config(tmp_path / "x", dev=0.2, test=0.3)
    old, new = split_rows(few, settings), split_rows(more, settings)
    for name in PARTS:
        assert {e.id for e in old.part(name)} <= {e.id for e in new.part(name)}
        others = {e.group for p in PARTS if p != name for e in new.part(p)}
        assert not others & {e.group for e in new.part(name)}
    other = split_rows(few, config(tmp_path / "x", dev=0.2, test=0.3, seed=1))
    assert {e.id for e in other.test} != {e.id for e in old.test}


def test_the_same_question_in_two_groups_never_stands_on_both_sides(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    lines = [row(f"q {i}", group=f"g{i}") for i in range(60)]
    lines += [row(f"Q  {i}!", "b", group=f"h{i}") for i in range(60)]
    path.write_text("".join(lines))
    split = split_rows([r.example for r in read_rows(path)], config(path, test=0.4))
    where = {e.id: p for p in PARTS for e in split.part(p)}
    for i in range(60):
        pair = [e for p in PARTS for e in split.part(p) if e.question in (f"q {i}", f"Q  {i}!")]
        assert len(pair) == 2
        assert len({where[e.id] for e in pair}) == 1
        assert len({e.group for e in pair}) == 1
    assert split.leaks


def test_too_few_test_groups_is_an_error_that_says_how_many_are_needed(tmp_path: Path):
    examples = [r.example for r in read_rows(write_rows(tmp_path / "rows.jsonl", 40))]
    with pytest.raises(DataError) as error:
        split_rows(examples, config(tmp_path / "x", min_test_groups=30, test=0.3))
    assert "at least 30 are needed" in str(error.value)
    assert "about 100 groups in all" in str(error.value)
    assert "data.min_test_groups = " in str(error.value)


def test_a_prepared_run_refuses_rows_that_changed(tmp_path: Path):
    path, run = write_rows(tmp_path / "data.jsonl", 80), tmp_path / "run"
    run.mkdir()
    first = prepare(config(path), run, words, limit=100)
    assert prepare(config(path), run, words, limit=100) == first
    path.write_text(path.read_text() + row("one more"))
    with pytest.raises(DataError, match="the rows changed since"):
        prepare(config(path), run, words, limit=100)


def test_a_test_set_looked_at_again_is_counted(tmp_path: Path):
    path = write_rows(tmp_path / "data.jsonl", 80)
    looks: list[int] = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        prepare(config(path), tmp_path / name, words, limit=100)
        looks.append(json.loads((tmp_path / name / "split.json").read_text())["test_looks"])
    assert looks == [1, 2]
