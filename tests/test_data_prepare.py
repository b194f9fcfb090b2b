"""`tunelm data prepare`: clean, dedupe, split; a ledger line for every row; all or nothing."""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunelm.cli import cli
from tunelm.config import DataConfig
from tunelm.data.clean import clean_text
from tunelm.data.near import NearRows
from tunelm.data.prepare import prepare
from tunelm.data.prepare_files import prepare_files
from tunelm.data.prepare_job import Preparation
from tunelm.data.read import read_rows, scan
from tunelm.data.records import Record
from tunelm.data.split import PARTS, split_rows
from tunelm.errors import ConfigError, DataError

VOCABULARY = [f"word{i}" for i in range(4000)]


def sentence(rng: random.Random, length: int) -> str:
    return " ".join(rng.choices(VOCABULARY, k=length))


def qa(count: int, seed: int = 0, length: int = 24, **more: Any) -> list[dict[str, Any]]:
    """Rows that have nothing in common."""
    rng = random.Random(seed)
    return [
        {"question": sentence(rng, length), "answer": sentence(rng, 5), **more}
        for _ in range(count)
    ]


def write(path: Path, rows: list[Any]) -> Path:
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def run(path: Path, out: Path, **more: Any) -> dict[str, Any]:
    return prepare_files(Preparation(path, out, **more))


def ledger(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "rows.jsonl").read_text("utf-8").splitlines()]


def part_rows(out: Path, part: str) -> list[dict[str, Any]]:
    path = out / f"{part}.jsonl"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def all_rows(out: Path) -> dict[str, str]:
    """Question or text -> its part."""
    return {r.get("question", r.get("text")): p for p in PARTS for r in part_rows(out, p)}


def changed(text: str, words: int, rng: random.Random) -> str:
    """The text with so many of its words replaced by new ones."""
    parts = text.split()
    for place in rng.sample(range(len(parts)), words):
        parts[place] = f"new{rng.randrange(10**9)}"
    return " ".join(parts)


# --- the ledger ---------------------------------------------------------------------------------


def test_every_input_row_has_a_line_and_the_counts_add_up(tmp_path: Path):
    rows: list[Any] = qa(60)
    rows[3]["answer"] = "Cafe\u0301 \u200bau  lait"
    rows.append(dict(rows[5]))
    rows.append(rows[7] | {"question": changed(rows[7]["question"], 1, random.Random(1))})
    rows.append({"question": "\u200b", "answer": "x"})
    rows.append("{broken")
    path, out = write(tmp_path / "rows.jsonl", rows), tmp_path / "out"
    result = CliRunner().invoke(cli, ["data", "prepare", str(path), "--out", str(out), "--json",
                                      "--skip-broken"])  # fmt: skip
    assert result.exit_code == 0, result.output
    about = json.loads(result.stdout.splitlines()[-1])
    assert about["counts"] == {
        "kept": 59, "cleaned": 1, "duplicate": 1, "near-duplicate": 1, "dropped": 1, "broken": 1,
    }  # fmt: skip
    lines = ledger(out)
    assert [line["source"] for line in lines] == [f"rows.jsonl:{i}" for i in range(1, 65)]
    reasons = {line["status"]: line["reason"] for line in lines}
    assert reasons["cleaned"] == "changed: invisible characters, NFC, white space"
    assert reasons["duplicate"] == "of rows.jsonl:6"
    assert reasons["near-duplicate"].startswith("of rows.jsonl:8, similarity 0.")
    assert reasons["dropped"].startswith("nothing is left of it after cleaning; changed: invis")
    assert reasons["broken"].startswith("not-json: not valid JSON")
    for line in lines:
        assert (line["part"] is None) == (line["status"] not in ("kept", "cleaned"))
    written = {p: part_rows(out, p) for p in PARTS}
    assert sum(map(len, written.values())) == 60 == sum(p["rows"] for p in about["parts"].values())
    for line, row in zip(lines, rows, strict=True):
        if line["status"] == "kept":
            assert written[line["part"]][line["row"] - 1] == row
    assert json.loads((out / "split.json").read_text("utf-8")) == about
    assert {p.name for p in out.iterdir()} == {
        "train.jsonl", "dev.jsonl", "test.jsonl", "rows.jsonl", "split.json",
    }  # fmt: skip


def test_what_is_printed_says_how_the_parts_compare(tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", qa(200, label="x"))
    result = CliRunner().invoke(cli, ["data", "prepare", str(path), "--out", str(tmp_path / "o")])
    assert result.exit_code == 0, result.output
    assert "200 rows: 200 kept" in result.output
    assert "test is like train: length" in result.output
    assert "of its words stand in train" in result.output


def test_parts_that_differ_are_said_to_differ(tmp_path: Path):
    rng = random.Random(0)
    rows = [{"text": sentence(rng, 12), "group": f"g{i}"} for i in range(400)]
    rows += [{"text": sentence(rng, 90), "group": "one"} for _ in range(400)]
    about = run(write(tmp_path / "rows.jsonl", rows), tmp_path / "out")
    assert about["largest_group_rows"] == 400
    assert any("differs from train in length" in s for s in about["sentences"])


def test_the_same_input_gives_the_same_bytes(tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", [*qa(80), *qa(5)])
    run(path, tmp_path / "a")
    run(path, tmp_path / "b")
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


texts = st.lists(
    st.sampled_from(["a", "b c", " b  c ", "d\u0301 e", "\x07", "", "f g h i j k l m n o p q"]),
    max_size=4,
).map(" ".join)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.one_of(texts, st.just(None)), min_size=1, max_size=30))
def test_no_row_is_ever_lost(tmp_path_factory: pytest.TempPathFactory, found: list[str | None]):
    folder = tmp_path_factory.mktemp("any")
    rows = [{"text": t} if t is not None else "broken" for t in found]
    path, out = write(folder / "rows.jsonl", [*rows, *qa(80)]), folder / "out"
    about = run(path, out, skip_broken=True)
    lines = ledger(out)
    assert len(lines) == len(rows) + 80 == sum(about["counts"].values())
    assert Counter(line["status"] for line in lines) == Counter(
        {status: n for status, n in about["counts"].items() if n}
    )
    where = Counter(line["part"] for line in lines if line["part"])
    assert where == {part: len(part_rows(out, part)) for part in where}


# --- cleaning -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "names"),
    [
        ("plain text", "plain text", ()),
        ("cafe\u0301", "caf\u00e9", ("NFC",)),
        ("a\r\nb\rc\u2028d\x0ce", "a\nb\nc\nd\ne", ("line ends",)),
        ("a\x00b\x07 \x1b[31mred\x1b[0m", "ab red", ("control characters",)),
        ("\ufeffzero\u200bwidth\u00ad \u202eturned\u202c", "zerowidth turned",
         ("invisible characters",)),
        ("10\u00a0000\u2009km", "10 000 km", ("white space",)),
        ("  two  blanks here. \n\n\n\n\n\nend\t\n", "  two  blanks here.\n\n\nend",
         ("white space",)),
        ("Hello    world  ", "Hello world", ("white space",)),
        (" one leading blank", "one leading blank", ("white space",)),
        ("caf\u00c3\u00a9 d\u00e2\u20ac\u2122or", "caf\u00e9 d'or", ("encoding",)),
        ("half \ud83d of it", "half  of it", ("half characters",)),
        ("\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f468\u200d\U0001f469\u200d\U0001f467",
         ()),
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
         "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", ()),
    ],
)  # fmt: skip
def test_text_is_put_in_order_and_each_change_is_named(
    before: str, after: str, names: tuple[str, ...]
):
    if before.startswith("half"):
        after, names = "half of it", ("half characters", "white space")
    text, found = clean_text(before)
    assert text.replace("\u2019", "'") == after
    assert found == names


@pytest.mark.parametrize(
    "text",
    [
        "    return x\n\ndef f():\n    y  = 1  # aligned",
        "```\na  = 1\n```",
        "| a   | b |\n|-----|---|\n| 1   | 2 |",
        "Name    Age\nBob     12\nAnn      9",
        "=====  =====",
        "two\n\n\nblank lines, as between functions",
    ],
)
def test_code_and_tables_keep_their_blanks(text: str):
    assert clean_text(text) == (text, ())


@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from("ab \t\n\r`|\u00a0\u200be\u0301\x07\ud800\x1b[m"), max_size=40))
def test_what_is_in_order_stays_as_it_is(text: str):
    once, names = clean_text(text)
    assert clean_text(once) == (once, ())
    assert bool(names) == (once != text)


def test_boilerplate_lines_are_taken_out_of_documents(tmp_path: Path):
    folder = tmp_path / "texts"
    folder.mkdir()
    rng = random.Random(0)
    for i in range(40):
        body = "\n".join(sentence(rng, 12) for _ in range(4))
        text = f"{body}\nReturn\nAll rights reserved by the example press.\n"
        (folder / f"{i:02d}.txt").write_text(text if i % 2 else body + "\nReturn\n")
    about = run(folder, tmp_path / "out", dev=0.2, test=0.2)
    assert about["boilerplate"] == {"All rights reserved by the example press.": 20}
    rows = [row for part in PARTS for row in part_rows(tmp_path / "out", part)]
    assert not any("rights reserved" in row["text"] for row in rows)
    assert all("\nReturn" in row["text"] for row in rows)
    lines = ledger(tmp_path / "out")
    assert [line["reason"] for line in lines[:2]] == [None, "changed: 1 boilerplate line"]
    assert lines[0]["source"] == "00.txt:1"
    args = ["data", "prepare", str(folder), "--out", str(tmp_path / "kept"), "--dev", "0.2"]
    result = CliRunner().invoke(cli, [*args, "--keep-boilerplate", "--json"])
    assert result.exit_code == 0, result.output
    about = json.loads(result.stdout.splitlines()[-1])
    assert about["boilerplate"] == {}
    assert about["settings"]["keep_boilerplate"] is True
    assert about["counts"] == {
        "kept": 40, "cleaned": 0, "duplicate": 0, "near-duplicate": 0, "dropped": 0, "broken": 0,
    }  # fmt: skip
    assert {line["reason"] for line in ledger(tmp_path / "kept")} == {None}
    rows = [row for part in PARTS for row in part_rows(tmp_path / "kept", part)]
    assert sum("rights reserved" in row["text"] for row in rows) == 20


# --- near-duplicates ----------------------------------------------------------------------------


def test_near_duplicates_are_found_and_nothing_else(tmp_path: Path):
    rng = random.Random(2)
    rows = [sentence(rng, 60) for _ in range(400)]
    copies = [changed(row, 3, rng) for row in rows]
    with NearRows(0.8) as near:
        for text in [*rows, *copies]:
            near.add(text)
        found = [(row, other) for row, other, _ in near.matches(drop=True)]
    right = sum(row == other + 400 for row, other in found)
    assert right / 400 >= 0.95
    assert right / len(found) >= 0.99


def test_the_order_of_words_and_the_signs_of_a_formula_count():
    long = " and then some more words so that one alone does not weigh much at all"
    with NearRows(0.8) as near:
        for text in ("is 3 more than 5", "is 5 more than 3", "x = 3 + 4", "x = 3 - 4", "x=3+4"):
            near.add(text)
        for text in ("\u4eca\u65e5\u306f\u5929\u6c17\u304c\u3044\u3044\u3067\u3059\u306d" * 3 + t
                     for t in ("\u3002", "\u3088\u3002")):  # fmt: skip
            near.add(text)
        near.add("WHAT, " + long)
        near.add("what" + long.upper() + "!")
        found = [pair[:2] for pair in near.matches(drop=False)]
    assert found == [(4, 2), (6, 5), (8, 7)]


def test_questions_on_one_passage_and_other_answers_are_no_near_duplicates(tmp_path: Path):
    rng = random.Random(0)
    passage = sentence(rng, 150)
    asked = ["When was it built?", "Who lives there now?", "Why is the roof red?"]
    rows: list[Any] = [{"question": f"{passage}.\n{q}", "answer": "yes"} for q in asked]
    rows += [{"question": q, "answer": "no", "context": passage} for q in asked]
    sums = sentence(rng, 60)
    rows += [{"question": sums, "answer": f"The answer is {n}."} for n in (7, 8)]
    dialogue = [{"role": r, "content": sentence(rng, 40)} for r in ("user", "assistant") * 8]
    rows += [{"messages": dialogue[: 2 * n]} for n in range(6, 9)]
    path = write(tmp_path / "rows.jsonl", [*rows, *qa(80)])
    about = run(path, tmp_path / "out")
    assert about["counts"]["kept"] == len(rows) + 80
    lines = ledger(tmp_path / "out")
    for alike in (lines[:6], lines[6:8]):  # but they stand on one side
        assert len({line["part"] for line in alike}) == 1


def test_an_instruction_that_all_rows_share_makes_them_no_near_duplicates(tmp_path: Path):
    rng = random.Random(0)
    told = sentence(rng, 120)
    rows: list[Any] = [
        {"question": f"{told} {sentence(rng, 8)}", "answer": rng.choice(["good", "bad"])}
        for _ in range(120)
    ]
    rows += [
        {"messages": [{"role": "system", "content": told}, {"role": "user", "content": f"{i} {i}"},
                      {"role": "assistant", "content": "yes"}]}
        for i in range(120)
    ]  # fmt: skip
    about = run(write(tmp_path / "rows.jsonl", rows), tmp_path / "out")
    assert about["counts"]["near-duplicate"] == 0
    assert about["largest_group_rows"] == 1


def test_kept_near_duplicates_never_stand_on_both_sides(tmp_path: Path):
    rng = random.Random(3)
    rows = qa(120)
    rows += [r | {"question": changed(r["question"], 1, rng)} for r in rows]
    out = tmp_path / "out"
    about = run(write(tmp_path / "rows.jsonl", rows), out, keep_near=True, dev=0.2, test=0.4)
    lines = ledger(out)
    assert about["counts"]["kept"] == 240
    assert all(lines[i]["part"] == lines[i + 120]["part"] for i in range(120))
    assert about["leaks_mended"]["count"] == len(about["leaks_mended"]["rows"]) > 0


def test_one_text_with_two_labels_is_kept_on_one_side(tmp_path: Path):
    rng = random.Random(4)
    rows = [{"text": sentence(rng, 20), "label": "a"} for _ in range(60)]
    rows += [row | {"label": "b"} for row in rows]
    run(write(tmp_path / "rows.jsonl", rows), tmp_path / "out", dev=0.2, test=0.3)
    lines = ledger(tmp_path / "out")
    assert all(line["status"] == "kept" for line in lines)
    assert all(lines[i]["part"] == lines[i + 60]["part"] for i in range(60))


# --- the split ----------------------------------------------------------------------------------


def test_without_labels_rows_added_anywhere_move_no_old_ones(tmp_path: Path):
    old, new = qa(150), qa(150, seed=1)
    run(write(tmp_path / "old.jsonl", old), tmp_path / "a")
    mixed = [row for pair in zip(new, old, strict=True) for row in pair]
    random.Random(0).shuffle(mixed)
    run(write(tmp_path / "new.jsonl", mixed), tmp_path / "b")
    before, after = all_rows(tmp_path / "a"), all_rows(tmp_path / "b")
    assert len(after) == 300
    assert all(after[question] == part for question, part in before.items())
    run(tmp_path / "old.jsonl", tmp_path / "c", seed=1)
    assert all_rows(tmp_path / "c") != before


def labelled(count: int, seed: int, weights: dict[str, int]) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    names = rng.choices(list(weights), list(weights.values()), k=count)
    return [{"text": sentence(rng, 15), "label": name} for name in names]


def test_every_part_gets_its_share_of_each_label(tmp_path: Path):
    rows = labelled(600, 5, {"often": 80, "less": 15, "rare": 5})
    rows += [{"text": f"seven {sentence(random.Random(i), 12)}", "label": "few"} for i in range(7)]
    rows.append({"text": "the only one of its kind", "label": "single"})
    about = run(write(tmp_path / "rows.jsonl", rows), tmp_path / "out")
    assert about["stratified_by"] == "label"
    total = Counter(row["label"] for row in rows)
    for part in ("dev", "test"):
        counts = Counter(row["label"] for row in part_rows(tmp_path / "out", part))
        for label, n in total.items():
            assert n * 0.1 - 0.5 - 1e-9 <= counts[label] + 0.5 * (n < 7), (part, label)
            assert counts[label] <= n * 0.1 + 1, (part, label)
        assert counts["few"] == 1
    train = Counter(row["label"] for row in part_rows(tmp_path / "out", "train"))
    assert train["single"] == 1


def test_with_labels_rows_added_at_the_end_move_no_old_ones(tmp_path: Path):
    weights = {"a": 70, "b": 25, "c": 5}
    old = labelled(300, 6, weights)
    run(write(tmp_path / "old.jsonl", old), tmp_path / "a")
    more = [*old, *labelled(300, 7, weights)]
    run(write(tmp_path / "new.jsonl", more), tmp_path / "b")
    before, after = all_rows(tmp_path / "a"), all_rows(tmp_path / "b")
    assert all(after[text] == part for text, part in before.items())


def test_a_label_that_never_recurs_is_none(tmp_path: Path):
    rows = [row | {"label": i} for i, row in enumerate(qa(60))]
    about = run(write(tmp_path / "rows.jsonl", rows), tmp_path / "out")
    assert about["stratified_by"] is None


def test_the_answer_can_be_the_label(tmp_path: Path):
    rows = [row | {"answer": "yes" if i % 4 else "no"} for i, row in enumerate(qa(200))]
    path = write(tmp_path / "rows.jsonl", rows)
    about = run(path, tmp_path / "out", label="answer")
    assert about["stratified_by"] == "answer"
    assert about["parts"]["test"]["labels"].keys() == {"yes", "no"}


def test_rows_of_one_group_and_of_one_question_stand_together(tmp_path: Path):
    rows = [row | {"writer": f"w{i % 40}"} for i, row in enumerate(qa(200))]
    rows += [
        {"question": f"What, is {i}?", "answer": f"the number {n}", "writer": f"x{i}{n}"}
        for i in range(30)
        for n in ("one", "two")
    ]
    rows[-1]["question"] = "what is 29"
    out = tmp_path / "out"
    about = run(write(tmp_path / "rows.jsonl", rows), out, group="writer", dev=0.2, test=0.3)
    lines = ledger(out)
    for i in range(40):
        assert len({lines[j]["part"] for j in range(i, 200, 40)}) == 1
    for i in range(30):
        assert lines[200 + 2 * i]["part"] == lines[201 + 2 * i]["part"]
    assert about["leaks_mended"]["count"] > 0
    assert sum(part["groups"] for part in about["parts"].values()) == 70


@pytest.mark.parametrize(
    ("settings", "error", "found"),
    [
        ({"label": "mood"}, DataError, "--label mood: no row has that field. Fields: topic"),
        ({"group": "mood"}, DataError, "--group mood: no row has that field"),
        ({"dev": 0.6, "test": 0.4}, ConfigError, "together below 1"),
        ({"to": "pdf"}, ConfigError, "--to pdf: is only read: it holds where letters stand"),
        ({"to": "folder"}, ConfigError, "--to folder: is only read: .* html write a folder"),
        ({"to": "nothing"}, ConfigError, "no format 'nothing'"),
        ({"near": 0}, ConfigError, "--near 0: a similarity above 0"),
        ({"columns": {"question": "frage"}}, DataError, "which no row has"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    tmp_path: Path, settings: dict[str, Any], error: type[Exception], found: str
):
    path = write(tmp_path / "rows.jsonl", qa(40, topic="x"))
    with pytest.raises(error, match=found):
        run(path, tmp_path / "out", **settings)
    assert [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_part_without_rows_is_an_error_that_says_what_to_do(tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", qa(4))
    with pytest.raises(DataError, match="part got no rows: 4 groups in 4 rows") as error:
        run(path, tmp_path / "out")
    (seed,) = (w for w in str(error.value).split("--seed ")[1].split()[:1])
    about = run(path, tmp_path / "out", seed=int(seed))
    assert {p: about["parts"][p]["rows"] for p in PARTS} == {"train": 2, "dev": 1, "test": 1}
    about = run(path, tmp_path / "whole", dev=0, test=0)
    assert list(about["parts"]) == ["train"]
    assert not (tmp_path / "whole" / "dev.jsonl").exists()


def test_one_document_is_not_cut_in_two(tmp_path: Path):
    rng = random.Random(0)
    path = tmp_path / "book.txt"
    path.write_text("\n".join(sentence(rng, 12) for _ in range(100)))
    with pytest.raises(DataError, match="--format lines"):
        run(path, tmp_path / "out")
    about = run(path, tmp_path / "out", format="lines")
    assert about["rows"] == 100


# --- formats ------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", ["jsonl", "csv", "parquet", "alpaca", "jsonl:messages", "json"])
def test_the_parts_are_written_as_asked_and_read_as_the_same_rows(tmp_path: Path, to: str):
    rows = qa(60)
    path, out = write(tmp_path / "rows.jsonl", rows), tmp_path / "out"
    about = run(path, out, to=to)
    found: list[tuple[Any, ...]] = []
    for part in PARTS:
        for record in scan(out / about["parts"][part]["file"]):
            assert isinstance(record, Record)
            found.append(tuple(turn["content"] for turn in record.messages))
    assert sorted(found) == sorted((row["question"], row["answer"]) for row in rows)


def test_texts_become_folders_of_pages_that_are_read_and_checked(tmp_path: Path):
    pytest.importorskip("lxml")
    rows = [{"text": f"{row['question']}\n\n  1 < {i} & \u00e9"} for i, row in enumerate(qa(60))]
    out = tmp_path / "out"
    about = run(write(tmp_path / "rows.jsonl", rows), out, to="html", dev=0.2, test=0.3)
    found = [
        item.text
        for part in PARTS
        for item in scan(out / about["parts"][part]["file"])
        if isinstance(item, Record)
    ]
    assert sorted(found, key=str) == sorted(row["text"] for row in rows)
    result = CliRunner().invoke(cli, ["data", "check", str(out), "--strict"])
    assert result.exit_code == 0, result.output


def test_columns_are_named_and_tables_are_read(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_text("prompt,reply\n" + "".join(f"{r['question']},{r['answer']}\n" for r in qa(50)))
    args = ["data", "prepare", str(path), "--out", str(tmp_path / "out"),
            "--column", "question=prompt", "--column", "answer=reply"]  # fmt: skip
    result = CliRunner().invoke(cli, args)
    assert result.exit_code == 0, result.output
    assert set(part_rows(tmp_path / "out", "train")[0]) == {"question", "answer"}
    assert CliRunner().invoke(cli, [*args, "--column", "x"]).exit_code == 2


def test_a_preference_pair_becomes_a_conversation_with_a_line_that_says_so(tmp_path: Path):
    rows = [
        {"prompt": r["question"], "chosen": r["answer"], "rejected": f"not {r['answer']}"}
        for r in qa(50)
    ]
    path = write(tmp_path / "rows.jsonl", rows)
    run(path, tmp_path / "out", to="messages")
    assert ledger(tmp_path / "out")[0]["reason"] == "changed: rejected answer left out"
    row = part_rows(tmp_path / "out", "train")[0]
    assert [turn["role"] for turn in row["messages"]] == ["user", "assistant"]
    run(path, tmp_path / "pairs")
    assert set(part_rows(tmp_path / "pairs", "train")[0]) == {"prompt", "chosen", "rejected"}


# --- all or nothing -----------------------------------------------------------------------------


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_broken_rows_are_all_named_and_nothing_is_written(tmp_path: Path):
    rows: list[Any] = qa(30)
    rows[4], rows[9] = "{broken", '{"frage": 1}'
    path = write(tmp_path / "rows.jsonl", rows)
    with pytest.raises(DataError) as error:
        run(path, tmp_path / "out")
    assert f"{path}:5: " in str(error.value)
    assert f"{path}:10: " in str(error.value)
    assert "--skip-broken" in str(error.value)
    assert left(tmp_path) == {"rows.jsonl"}


def test_an_existing_folder_is_refused_and_an_empty_one_taken(tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", qa(60))
    run(path, tmp_path / "out")
    before = (tmp_path / "out" / "split.json").read_bytes()
    result = CliRunner().invoke(cli, ["data", "prepare", str(path), "--out", str(tmp_path / "out")])
    assert result.exit_code != 0
    assert isinstance(result.exception, DataError)
    assert "exists already, and is never overwritten" in str(result.exception)
    assert (tmp_path / "out" / "split.json").read_bytes() == before
    (tmp_path / "empty").mkdir()
    run(path, tmp_path / "empty")
    assert (tmp_path / "empty" / "train.jsonl").exists()


def test_a_folder_inside_the_input_is_refused(tmp_path: Path):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("text")
    with pytest.raises(DataError, match="lies in the folder that is read"):
        run(folder, folder / "out")


def test_a_file_that_changes_between_the_passes_is_refused(tmp_path: Path):
    rows = qa(60)
    for change in (rows[::-1], rows[:-1], [*rows, *qa(1, seed=9)]):
        path = write(tmp_path / "rows.jsonl", rows)

        def progress(what: str, done: int, total: int, path: Path = path, rows=change) -> None:
            if what == "comparing":
                write(path, rows)

        with pytest.raises(DataError, match="changed while it was read"):
            prepare_files(Preparation(path, tmp_path / "out"), progress)
        assert left(tmp_path) == {"rows.jsonl"}


def test_ctrl_c_leaves_no_folder(tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", qa(60))

    def progress(what: str, done: int, total: int) -> None:
        if what == "comparing":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_files(Preparation(path, tmp_path / "out"), progress)
    assert left(tmp_path) == {"rows.jsonl"}


def test_a_full_disk_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path / "rows.jsonl", qa(60))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"No space left on device\. Nothing was written"):
        run(path, tmp_path / "out")
    assert left(tmp_path) == {"rows.jsonl"}


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom tunelm.cli import cli\n"
        "try: cli.main(['data', 'prepare', '--help'], standalone_mode=False)\n"
        "except SystemExit: pass\n"
        "print('HEAVY', *sorted({'numpy', 'scipy', 'datasketch', 'pyarrow'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "tunelm data prepare" in out.stdout
    assert out.stdout.splitlines()[-1] == "HEAVY"


# --- the split in a comparison ------------------------------------------------------------------


def config(path: Path, **settings: Any) -> DataConfig:
    return DataConfig.model_validate({"path": path, "min_test_groups": 1, **settings})


def count_words(example: Any) -> int:
    return sum(len(m.content.split()) for m in example.messages)


def test_a_prepared_folder_is_taken_as_it_is(tmp_path: Path):
    rows = qa(120)
    rows += [{"question": rows[i]["question"] + "?", "answer": f"another {i}"} for i in range(20)]
    out, work = tmp_path / "out", tmp_path / "run"
    run(write(tmp_path / "rows.jsonl", rows), out, dev=0.2, test=0.3, to="csv")
    work.mkdir()
    split = prepare(config(out), work, count_words, limit=100)
    expected = {"train": "train.csv", "dev": "dev.csv", "test": "test.csv"}
    for part, name in expected.items():
        read = [row.example.id for row in read_rows(out / name)]
        assert [example.id for example in split.part(part)] == read
    assert split.leaks == ()
    stored = json.loads((work / "split.json").read_text())
    assert stored["given"] == str(out)
    assert ledger(work)[0]["source"] == "train.csv:2"
    twice = [e for p in PARTS for e in split.part(p) if e.answers[0].startswith("another")]
    together = Counter(e.group for p in PARTS for e in split.part(p))
    assert all(together[e.group] == 2 for e in twice)
    with pytest.raises(DataError, match=r"at least 90 are needed.*Put more rows into it"):
        prepare(config(out, min_test_groups=90), work, count_words, limit=100)


def test_a_given_split_that_leaks_is_refused(tmp_path: Path):
    rng = random.Random(0)
    out = tmp_path / "out"
    rows = qa(100, length=40)
    run(write(tmp_path / "rows.jsonl", rows), out, dev=0.2, test=0.3)
    train = part_rows(out, "train")[0]
    for question in (train["question"].upper(), changed(train["question"], 1, rng)):
        with (out / "test.jsonl").open("a") as file:
            file.write(json.dumps({"question": question, "answer": "leaked"}) + "\n")
        work = tmp_path / f"run-{len(question)}"
        work.mkdir(exist_ok=True)
        with pytest.raises(DataError, match=r"test.jsonl:\d+ and train.jsonl:1: .* question"):
            prepare(config(out), work, count_words, limit=100)
        assert not list(work.iterdir())


def test_a_split_made_by_hand_is_taken_and_one_that_lacks_a_part_is_not(tmp_path: Path):
    folder, work = tmp_path / "mine", tmp_path / "run"
    folder.mkdir()
    work.mkdir()
    for seed, part in enumerate(PARTS):
        write(folder / f"{part}.jsonl", qa(20, seed=seed))
    split = prepare(config(folder), work, count_words, limit=100)
    assert [len(split.part(p)) for p in PARTS] == [20, 20, 20]
    write(folder / "test.json", qa(20, seed=3))
    with pytest.raises(DataError, match=r"the test part stands there 2 times"):
        prepare(config(folder), work, count_words, limit=100)
    run(write(tmp_path / "rows.jsonl", qa(60)), tmp_path / "out", dev=0)
    with pytest.raises(DataError, match=r"has no dev part\. Put .* prepare the data with --dev"):
        prepare(config(tmp_path / "out"), tmp_path / "run", count_words, limit=100)


def test_groups_with_near_duplicate_questions_become_one(tmp_path: Path):
    rng = random.Random(8)
    rows = [row | {"group": f"g{i}"} for i, row in enumerate(qa(80, length=30))]
    rows += [
        row | {"question": changed(row["question"], 1, rng), "group": f"h{i}"}
        for i, row in enumerate(rows)
    ]
    path = write(tmp_path / "rows.jsonl", rows)
    split = split_rows([r.example for r in read_rows(path)], config(path, test=0.4))
    together = Counter(e.group for p in PARTS for e in split.part(p))
    assert set(together.values()) == {2}
    assert {leak.kind for leak in split.leaks} == {"near-duplicate question in another group"}


def test_texts_are_split_by_what_they_say(tmp_path: Path):
    rng = random.Random(9)
    path = write(tmp_path / "rows.jsonl", [{"text": sentence(rng, 40)} for _ in range(80)])
    split = split_rows([r.example for r in read_rows(path)], config(path))
    assert len({e.group for p in PARTS for e in split.part(p)}) == 80


# --- the files of a hosted job ----------------------------------------------------------------


def job_files(tmp_path: Path, rows: list[Any], *more: str) -> tuple[Any, Path]:
    out = tmp_path / "out"
    given = ["data", "prepare", str(write(tmp_path / "rows.jsonl", rows)), "--out", str(out)]
    result = CliRunner().invoke(cli, [*given, "--to", "openai", *more])
    return result, out


def test_the_files_of_a_job_hold_train_and_dev_and_no_test_row(tmp_path: Path):
    rows = [{**row, "group": f"g{i}", "key_answer": "x"} for i, row in enumerate(qa(60))]
    result, out = job_files(tmp_path, rows, "--system", "Be brief.", "--dev", "0.2")
    assert result.exit_code == 0, result.output

    def lines(path: Path) -> list[Any]:
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]

    parts = {name: lines(out / f"{name}.jsonl") for name in ("train", "dev", "test")}
    for part, name in (("train", "training"), ("dev", "validation")):
        assert lines(out / "openai" / f"{name}.jsonl") == [
            {
                "messages": [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": row["question"]},
                    {"role": "assistant", "content": row["answer"]},
                ]
            }
            for row in parts[part]
        ]
    assert parts["test"][0]["group"].startswith("g")  # the parts themselves keep every field
    sent = (out / "openai" / "training.jsonl").read_text("utf-8")
    assert not any(row["question"] in sent for row in parts["test"])
    page = (out / "openai" / "report.md").read_text("utf-8")
    assert "No error: the file would be taken" in page
    assert "learning curve" not in page.split("## What comes out")[0]
    again = CliRunner().invoke(
        cli, ["data", "check", str(out / "openai" / "training.jsonl"), "--provider", "openai"]
    )
    assert again.exit_code == 0, again.output


def test_a_dialogue_is_learned_turn_by_turn_and_too_few_rows_are_said(tmp_path: Path):
    turns = [
        {
            "messages": [
                {"role": "user", "content": f"Hello {row['question']}"},
                {"role": "assistant", "content": row["answer"]},
                {"role": "user", "content": "And then?"},
                {"role": "assistant", "content": f"Then {row['answer']}"},
            ]
        }
        for row in qa(6)
    ]
    result, out = job_files(tmp_path, turns, "--dev", "0", "--test", "0")
    assert result.exit_code == 0, result.output
    first = json.loads((out / "openai" / "training.jsonl").read_text("utf-8").splitlines()[0])
    assert len(first["messages"]) == 4
    assert not any("weight" in message for message in first["messages"])
    report = json.loads((out / "openai" / "report.json").read_text("utf-8"))
    assert report["errors"] >= 1
    assert report["rows"] == {"training.jsonl": 6, "validation.jsonl": 0}
    assert "would be refused" in (out / "openai" / "report.md").read_text("utf-8")


def test_what_training_costs_is_tokens_times_epochs_times_the_dated_price(tmp_path: Path):
    pytest.importorskip("tiktoken")
    _, out = job_files(tmp_path, qa(40), "--dev", "0", "--test", "0")
    report = json.loads((out / "openai" / "report.json").read_text("utf-8"))
    models = {one["model"]: one for one in report["models"]}
    one = models["gpt-4o-mini-2024-07-18"]
    if one["tokens"] is None:
        assert one["usd"]["value"] is None
        assert "unknown" in one["usd"]["method"]
    else:
        assert one["usd"]["value"] == pytest.approx(one["tokens"] * one["epochs"] * 3.0 / 1e6)
        assert one["usd"]["low"] < one["usd"]["value"] < one["usd"]["high"]
    assert one["ends"] == "2027-01-14"


def test_instructions_are_for_the_files_of_a_job_alone(tmp_path: Path):
    rows = write(tmp_path / "rows.jsonl", qa(20))
    result = CliRunner().invoke(
        cli, ["data", "prepare", str(rows), "--out", str(tmp_path / "o"), "--system", "Be brief."]
    )
    assert result.exit_code == 2
    assert "--to openai" in result.output
