"""Large data: `data prepare` in several processes and into shards, whole or not at all."""

from __future__ import annotations

import errno
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from tunelm.cli import cli
from tunelm.config import DataConfig
from tunelm.data.given import file_hash, find_given
from tunelm.data.on_disk import ShardExamples
from tunelm.data.prepare import prepare
from tunelm.data.prepare_files import prepare_files
from tunelm.data.prepare_job import Preparation
from tunelm.data.read import read_rows, scan
from tunelm.data.records import Record
from tunelm.data.split import PARTS
from tunelm.errors import DataError
from tunelm.pipeline import compare
from tunelm.rundir import read_json

WORDS = [f"word{i}" for i in range(3000)]


def rows_of(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Questions and answers with exact and near-duplicates planted, a label, some unclean text."""
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for number in range(count):
        luck = rng.random()
        if rows and luck < 0.04:
            rows.append(dict(rng.choice(rows)))
        elif rows and luck < 0.08:
            old = rng.choice(rows)
            words = old["question"].split()
            words[rng.randrange(len(words))] = f"new{number}"
            rows.append(old | {"question": " ".join(words)})
        else:
            question = " ".join(rng.choices(WORDS, k=rng.randint(18, 28)))
            answer = " ".join(rng.choices(WORDS, k=8)) + ("\u200b " if luck > 0.95 else "")
            rows.append({"question": question, "answer": answer, "topic": rng.choice("abc")})
    return rows


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def run(path: Path, out: Path, **more: Any) -> dict[str, Any]:
    return prepare_files(Preparation(path, out, **more))


def contents(folder: Path) -> dict[str, str]:
    return {p.name: file_hash(p) for p in sorted(folder.iterdir()) if p.name != "split.json"}


def part_of(folder: Path, part: str) -> list[Any]:
    path = next(p for p in folder.iterdir() if p.name.partition(".")[0] == part)
    return [(item.messages, item.extra) for item in scan(path) if isinstance(item, Record)]


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More rows than one chunk holds."""
    return write(tmp_path_factory.mktemp("big") / "rows.jsonl", rows_of(9_000))


def test_shards_hold_the_same_parts_and_statuses_as_one_file_each(big: Path, tmp_path: Path):
    one = run(big, tmp_path / "one", label="topic")
    many = run(big, tmp_path / "many", label="topic", to="shards")
    assert one["counts"] == many["counts"]
    assert min(one["counts"][status] for status in ("duplicate", "near-duplicate", "cleaned")) > 250
    for part in PARTS:
        assert part_of(tmp_path / "one", part) == part_of(tmp_path / "many", part)
        figures = [dict(about["parts"][part]) for about in (one, many)]
        for figure in figures:
            for name in ("file", "sha256", "shards"):
                figure.pop(name, None)
        assert figures[0] == figures[1]
    ledger = (tmp_path / "one" / "rows.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in ledger.splitlines()]
    assert pq.read_table(tmp_path / "many" / "rows").to_pylist() == lines


def test_the_number_of_processes_changes_no_byte(big: Path, tmp_path: Path):
    alone = run(big, tmp_path / "alone", to="shards")
    result = CliRunner().invoke(
        cli,
        ["data", "prepare", str(big), "--out", str(tmp_path / "two"), "--to", "shards",
         "--processes", "2", "--json"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout.splitlines()[-1]) == alone
    assert contents(tmp_path / "alone") == contents(tmp_path / "two")


# --- a comparison on shards ---------------------------------------------------------------------


def config(path: Path, **settings: Any) -> DataConfig:
    return DataConfig.model_validate({"path": path, "min_test_groups": 1, **settings})


def count_words(example: Any) -> int:
    return sum(len(m.content.split()) for m in example.messages)


def test_the_train_rows_of_shards_stay_on_disk_and_are_the_same(tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", rows_of(3000, seed=3))
    run(path, tmp_path / "one", dev=0.1, test=0.1)
    run(path, tmp_path / "many", dev=0.1, test=0.1, to="shards")
    splits = {}
    for name in ("one", "many"):
        (tmp_path / f"run-{name}").mkdir()
        splits[name] = prepare(config(tmp_path / name), tmp_path / f"run-{name}", count_words, 900)
    one, many = splits["one"], splits["many"]
    assert isinstance(many.train, ShardExamples)
    assert [e.id for e in many.train] == [e.id for e in one.train]
    assert many.train[0] == next(iter(many.train))
    assert [many.train[i].id for i in (1999, 5, -1)] == [one.train[i].id for i in (1999, 5, -1)]
    assert many.dev == one.dev
    assert many.test == one.test
    stored = [read_json(tmp_path / f"run-{name}" / "split.json") for name in ("one", "many")]
    assert stored[0]["parts"]["test"] == stored[1]["parts"]["test"]
    assert stored[0]["parts"]["train"]["hash"] == stored[1]["parts"]["train"]["hash"]
    lines = [
        (tmp_path / f"run-{name}" / "rows.jsonl").read_text("utf-8").splitlines()
        for name in ("one", "many")
    ]
    keys = ("status", "part", "reason")
    first, second = ([[json.loads(x)[k] for k in keys] for x in text] for text in lines)
    assert first == second
    again = prepare(config(tmp_path / "many"), tmp_path / "run-many", count_words, 900)
    assert len(again.train) == len(one.train)


def test_rows_too_long_for_the_context_are_cut_or_left_out_on_disk_as_well(tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", rows_of(600, seed=4))
    run(path, tmp_path / "one", dev=0.2, test=0.2)
    run(path, tmp_path / "many", dev=0.2, test=0.2, to="shards")
    for how in ("cut", "drop"):
        found = []
        for name in ("one", "many"):
            work = tmp_path / f"{how}-{name}"
            work.mkdir()
            split = prepare(config(tmp_path / name, over_long=how), work, count_words, 24)
            found.append([(e.messages, e.answers) for e in split.train])
            assert [split.train[i].id for i in range(20)] == [
                e.id for e, _ in zip(split.train, range(20), strict=False)
            ]
        assert found[0] == found[1]
    (tmp_path / "run").mkdir()
    with pytest.raises(DataError, match=r"train/00000.parquet:\d+: \d+ tokens"):
        prepare(config(tmp_path / "many"), tmp_path / "run", count_words, 24)
    assert left(tmp_path / "run") == set()


def test_a_comparison_on_shards_is_that_on_files(tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", rows_of(400, seed=9))
    found = []
    for name, to in (("one", "jsonl"), ("many", "shards")):
        run(path, tmp_path / name, dev=0.1, test=0.1, to=to)
        task = tmp_path / f"{name}.toml"
        task.write_text(
            f'[task]\nname = "t"\nmax_tokens = 4\n[data]\npath = "{name}"\nmin_test_groups = 5\n'
            '[compare]\nroutes = ["local"]\n[routes.local]\nmax_steps = 2\nbatch_size = 4\n'
        )
        report = compare(task, tmp_path / f"run-{name}")
        (route,) = report["routes"]
        assert route["status"] == "done", route["reason"]
        events = tmp_path / f"run-{name}" / "routes/local/seed-0/training/events.jsonl"
        lines = [json.loads(line) for line in events.read_text("utf-8").splitlines() if line]
        found.append([repr(line["loss"]) for line in lines if line["event"] == "step"])
        scores = read_json(tmp_path / f"run-{name}" / "routes/local/seed-0/scores.json")
        found.append(scores["parts"]["test"]["metrics"])
    assert found[:2] == found[2:]
    assert len(found[0]) == 2


def test_touched_shards_are_searched_for_leaks(tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", rows_of(600, seed=5))
    out = tmp_path / "out"
    run(path, out, dev=0.2, test=0.2, to="shards")
    train = pq.read_table(out / "train" / "00000.parquet")
    pq.write_table(train.slice(0, 1), out / "test" / "00001.parquet")
    (tmp_path / "run").mkdir()
    with pytest.raises(DataError, match=r"question in another group|the same group in two parts"):
        prepare(config(out), tmp_path / "run", count_words, 900)


def test_a_column_that_one_shard_lacks_is_named_with_the_shard(tmp_path: Path):
    out = tmp_path / "in"
    out.mkdir()
    for number, names in enumerate((("question", "answer"), ("question", "topic"))):
        table = pa.table({name: [f"{name} {i}" for i in range(50)] for name in names})
        pq.write_table(table, out / f"{number}.parquet")
    with pytest.raises(DataError, match=r"1\.parquet: found the columns question, topic"):
        run(out, tmp_path / "out")
    assert left(tmp_path) == {"in"}


def test_a_page_that_is_broken_is_said_and_nothing_is_written(tmp_path: Path):
    rng = random.Random(0)
    folder = tmp_path / "in"
    folder.mkdir()
    table = pa.table(
        {n: [rng.randbytes(60).hex() for _ in range(3000)] for n in ("question", "answer")}
    )
    pq.write_table(table, folder / "a.parquet", write_page_checksum=True)
    content = bytearray((folder / "a.parquet").read_bytes())
    for place in range(len(content) // 3, len(content) // 3 + 400):
        content[place] ^= 0xFF
    (folder / "a.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.parquet"):
        run(folder, tmp_path / "out", to="shards")
    assert left(tmp_path) == {"in"}


def test_a_folder_of_files_is_read_in_order_whatever_they_are(tmp_path: Path):
    folder = tmp_path / "in"
    folder.mkdir()
    rows = [
        {"question": f"What is {i} times {i}, please?", "answer": str(i * i)} for i in range(90)
    ]
    with gzip.open(folder / "a.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows[:30])
    lines = [f'"{row["question"]}",{row["answer"]}\n' for row in rows[30:60]]
    (folder / "b.csv").write_text("question,answer\n" + "".join(lines))
    pq.write_table(pa.Table.from_pylist(rows[60:]), folder / "c.parquet")
    (folder / "_SUCCESS").write_text("")
    found = [row.example for row in read_rows(folder)]
    assert [e.question for e in found] == [row["question"] for row in rows]
    about = run(folder, tmp_path / "out", to="shards", keep_near=True)
    assert about["rows"] == 90
    sources = pq.read_table(tmp_path / "out" / "rows")["source"].to_pylist()
    assert [sources[i] for i in (0, 30, 60)] == ["a.jsonl.gz:1", "b.csv:2", "c.parquet:1"]
    assert find_given(tmp_path / "out") is not None


# --- all or nothing, in several processes --------------------------------------------------------


def test_a_row_of_a_hundred_megabytes_is_a_broken_row_and_no_end(tmp_path: Path):
    rows = rows_of(60, seed=6)
    path = write(tmp_path / "rows.jsonl", rows)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"question": "x" * 100_000_000, "answer": "y"}) + "\n")
    with pytest.raises(DataError, match=r"rows\.jsonl:61: .*longer than 64 MiB"):
        run(path, tmp_path / "out", to="shards")
    about = run(path, tmp_path / "out", to="shards", skip_broken=True)
    assert about["counts"]["broken"] == 1


def test_a_broken_row_in_another_processs_share_is_named(big: Path, tmp_path: Path):
    lines = big.read_text(encoding="utf-8").splitlines()
    lines[8500] = "{broken"
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"rows\.jsonl:8501: not valid JSON"):
        run(path, tmp_path / "out", to="shards", processes=2)
    assert left(tmp_path) == {"rows.jsonl"}


def test_a_full_disk_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path / "rows.jsonl", rows_of(200, seed=7))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"No space left on device.*Nothing was written"):
        run(path, tmp_path / "out", to="shards")
    assert left(tmp_path) == {"rows.jsonl"}


def test_an_input_that_changes_between_the_passes_is_refused(tmp_path: Path):
    rows = rows_of(300, seed=8)
    path = write(tmp_path / "rows.jsonl", rows)

    def progress(what: str, done: int, total: int) -> None:
        if what == "comparing":
            write(path, rows[::-1])

    with pytest.raises(DataError, match="changed while it was read"):
        prepare_files(Preparation(path, tmp_path / "out", to="shards"), progress)
    assert left(tmp_path) == {"rows.jsonl"}


def test_ctrl_c_ends_all_processes_and_leaves_no_folder(big: Path, tmp_path: Path):
    command = [sys.executable, "-m", "tunelm", "data", "prepare", str(big), "--to", "shards"]
    command += ["--out", str(tmp_path / "out"), "--processes", "2"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".out.*.tmp/.chunk-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it: all of them hear it
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert left(tmp_path) == set()
    while _lives(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _lives(process.pid)


def _lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_what_was_dropped_was_planted(big: Path, tmp_path: Path):
    about = run(big, tmp_path / "out", to="shards")
    lines = pq.read_table(tmp_path / "out" / "rows").to_pylist()
    status = Counter(line["status"] for line in lines)
    assert status == {name: n for name, n in about["counts"].items() if n}
    rows = [json.loads(line) for line in big.read_text("utf-8").splitlines()]
    near = {n for n, row in enumerate(rows) if "new" in row["question"]}
    dropped = {n for n, line in enumerate(lines) if line["status"] == "near-duplicate"}
    # a copy of a copy differs in two words, a copy of a dropped one's original in one
    assert len(near & dropped) >= 0.95 * len(dropped)
