"""Large data: `data prepare` in several processes and into shards, whole or not at all."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from tunelm.cli import cli
from tunelm.data.given import file_hash
from tunelm.data.prepare_files import prepare_files
from tunelm.data.prepare_job import Preparation
from tunelm.data.read import scan
from tunelm.data.records import Record
from tunelm.data.split import PARTS

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
    """More rows than one chunk holds, and than two."""
    return write(tmp_path_factory.mktemp("big") / "rows.jsonl", rows_of(17_000))


def test_shards_hold_the_same_parts_and_statuses_as_one_file_each(big: Path, tmp_path: Path):
    one = run(big, tmp_path / "one", label="topic")
    many = run(big, tmp_path / "many", label="topic", to="shards")
    assert one["counts"] == many["counts"]
    assert min(one["counts"][status] for status in ("duplicate", "near-duplicate", "cleaned")) > 500
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
