"""Encoded rows on disk: the same rows, the same training, made anew when anything is amiss."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tunelm.config import ModelConfig
from tunelm.errors import DataError, ModelError, TrainingError
from tunelm.models.loading import load_tokenizer
from tunelm.route_settings import LocalSettings
from tunelm.training.batches import epoch_batches, micro_batches, steps_by_epoch
from tunelm.training.encoding import Rules, shared_out
from tunelm.training.job import TrainingJob, TrainingRow, read_job, rows_hash, write_job
from tunelm.training.packing import pack
from tunelm.training.rows import EncodedRow
from tunelm.training.shards import EncodedShards, encoding_key, stored
from tunelm.types import Message

IDENTITY = {"tokenizer": "t", "chat_template": None}


def some_rows(count: int, most: int = 9_000) -> list[EncodedRow]:
    rng = np.random.default_rng(count)
    rows: list[EncodedRow] = []
    for number in range(count):
        size = int(rng.integers(8, 60))
        ids = tuple(int(i) for i in rng.integers(0, most, size))
        gaps = ((4, 6),) if number % 3 == 0 else ()
        rows.append(EncodedRow(f"row-\u00e9{number}", ids, 2, gaps))
    return rows


def key_of(rows: str = "r", **changed: Any) -> dict[str, Any]:
    key = {"identity": IDENTITY, "stops": (1,), "limit": 64, "text": False, "rows": rows}
    return encoding_key(**(key | changed))


@pytest.mark.parametrize("most", [9_000, 150_000])
def test_rows_come_back_as_they_were(tmp_path: Path, most: int):
    rows = some_rows(5000, most)
    kept = stored(tmp_path, key_of(), lambda: iter(rows))
    assert list(kept) == rows
    assert kept[-1] == rows[-1]
    assert kept[3:5] == rows[3:5]
    assert kept.lengths.tolist() == [row.length for row in rows]
    assert kept.supervised.tolist() == [len(row.supervised) for row in rows]
    assert [kept.name(at) for at in (0, 4999)] == [rows[0].id, rows[-1].id]
    width = 2 if most < 1 << 16 else 4
    size = (kept.folder / "tokens.bin").stat().st_size
    assert size == width * sum(len(row.ids) for row in rows)
    with pytest.raises(IndexError):
        kept[5000]


def test_rows_are_made_once_and_anew_when_anything_they_depend_on_changes(tmp_path: Path):
    made: list[str] = []

    def encode(name: str) -> list[EncodedRow]:
        made.append(name)
        return some_rows(10)

    def ask(name: str, key: dict[str, Any]) -> EncodedShards:
        return stored(tmp_path, key, lambda: encode(name))

    for name in ("first", "again"):
        ask(name, key_of())
    for name, changed in (
        ("rows", {"rows": "other"}),
        ("tokenizer", {"identity": {**IDENTITY, "tokenizer": "u"}}),
        ("template", {"identity": {**IDENTITY, "chat_template": "c"}}),
        ("limit", {"limit": 65}),
        ("stops", {"stops": (1, 2)}),
    ):
        ask(name, key_of(**changed))
    assert made == ["first", "rows", "tokenizer", "template", "limit", "stops"]


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "about"])
def test_a_damaged_file_is_seen_and_the_rows_are_made_anew(tmp_path: Path, damage: str):
    rows = some_rows(100)
    folder = stored(tmp_path, key_of(), lambda: rows).folder
    tokens = folder / "tokens.bin"
    content = bytearray(tokens.read_bytes())
    if damage == "flip":
        content[100] ^= 1
        tokens.write_bytes(content)
    elif damage == "cut":
        tokens.write_bytes(content[:-50])
    elif damage == "remove":
        (folder / "prompts.bin").unlink()
    else:
        (folder / "about.json").write_text("{")
    calls: list[int] = []
    again = stored(tmp_path, key_of(), lambda: calls.append(1) or rows)
    assert calls == [1]
    assert list(again) == rows


def test_what_fails_half_way_leaves_nothing(tmp_path: Path):
    def encode() -> Any:
        yield from some_rows(6000)
        raise DataError("row 6000: too long")

    with pytest.raises(DataError, match="too long"):
        stored(tmp_path / "encoded", key_of(), encode)
    assert list((tmp_path / "encoded").iterdir()) == []


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: Any):
    import os

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TrainingError, match="cannot be written: No space left on device"):
        stored(tmp_path / "encoded", key_of(), lambda: some_rows(10))
    assert list((tmp_path / "encoded").iterdir()) == []


def test_packed_rows_are_the_same_from_disk_and_from_memory(tmp_path: Path):
    rows = some_rows(300)
    kept = stored(tmp_path, key_of(), lambda: rows)
    one, other = pack(rows, 200), pack(kept, 200)
    assert list(one) == list(other)
    assert one.lengths.tolist() == [row.length for row in other]
    assert one.supervised.tolist() == [len(row.supervised) for row in other]
    assert other.supervised.tolist() == one.supervised.tolist()
    assert len(one.most_crowded.rows) == max(len(row.rows) for row in other)


# --- a job's rows -------------------------------------------------------------------------------


def chats(count: int) -> list[TrainingRow]:
    return [
        TrainingRow(
            f"r{i}", (Message("user", f"What is {i} plus 1?"), Message("assistant", f"{i + 1}."))
        )
        for i in range(count)
    ]


def job_of(**settings: Any) -> TrainingJob:
    fixed = {"epochs": 1, "batch_size": 4, "stop_on": "none", **settings}
    return TrainingJob(model=ModelConfig(), settings=LocalSettings.model_validate(fixed))


def test_a_jobs_rows_are_read_where_they_lie(tmp_path: Path):
    rows = chats(50)
    write_job(tmp_path, job_of(), iter(rows), [])
    _, train, dev = read_job(tmp_path)
    assert list(train) == rows
    assert [train[i] for i in (7, -1)] == [rows[7], rows[-1]]
    assert train[2:4] == rows[2:4]
    assert len(dev) == 0
    assert rows_hash(train) == rows_hash(rows) != rows_hash(rows[::-1])
    with pytest.raises(TrainingError, match=r"train\.jsonl changed since training began"):
        write_job(tmp_path, job_of(), chats(49), [])
    assert list(read_job(tmp_path)[1]) == rows
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write('{"id": 1}\n')
    with pytest.raises(DataError, match=r"train.jsonl:51: not a row with id and messages"):
        read_job(tmp_path)


def test_training_from_disk_has_the_same_losses_byte_for_byte(tmp_path: Path, monkeypatch: Any):
    from tunelm.training import worker

    def losses(name: str, more: Path | None = None) -> list[str]:
        work = more or tmp_path / name
        write_job(work, job_of(max_steps=4), chats(40), chats(6))
        worker.run(work)
        lines = (work / "events.jsonl").read_text().splitlines()
        events = [json.loads(line) for line in lines if line]
        return [repr(event["loss"]) for event in events if event["event"] == "step"]

    from_disk = losses("disk")
    (folder,) = [p for p in (tmp_path / "disk" / "encoded").iterdir() if _rows_in(p) == 40]
    assert len(from_disk) == 4
    monkeypatch.setattr(
        worker,
        "kept",
        lambda work, job, base, rows, identity: list(worker.encode(job, base, rows)),
    )
    assert losses("memory") == from_disk
    assert not (tmp_path / "memory" / "encoded").exists()
    monkeypatch.undo()
    # what was encoded before is used: with another rows' tokens in its place the losses differ
    before = (folder / "tokens.bin").stat().st_mtime_ns
    for name in ("result.json", "events.jsonl"):
        (tmp_path / "disk" / name).unlink()
    for path in sorted((tmp_path / "disk").rglob("*"), reverse=True):
        if "adapter" in path.parts or "checkpoints" in path.parts:
            path.unlink() if path.is_file() else path.rmdir()
    assert losses("disk", tmp_path / "disk") == from_disk
    assert (folder / "tokens.bin").stat().st_mtime_ns == before


def _rows_in(folder: Path) -> int:
    return json.loads((folder / "about.json").read_text())["rows"]


# --- batches ------------------------------------------------------------------------------------


def batches_of_lists(
    lengths: list[int], settings: LocalSettings, seed: int, epoch: int
) -> list[list[int]]:
    """The rule in lists of Python numbers, one row at a time."""
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    a_batch = settings.batch_size
    if settings.batch_tokens is not None:
        a_batch = max(1, round(settings.batch_tokens / (sum(lengths) / len(lengths))))
    windows = max(1, round(len(lengths) / (100 * a_batch)))
    found: list[list[int]] = []
    for window in np.array_split(order, windows):
        rows = sorted((int(i) for i in window), key=lambda i: lengths[i])
        if settings.batch_tokens is None:
            count = math.ceil(len(rows) / settings.batch_size)
            found += [part.tolist() for part in np.array_split(rows, count)]
        else:
            found += micro_batches(rows, lengths, settings.batch_tokens)
    return [found[i] for i in rng.permutation(len(found))]


@pytest.mark.parametrize("tokens", [None, 256, 30])
@pytest.mark.parametrize("count", [1, 7, 4100])
def test_batches_in_arrays_are_those_in_lists(count: int, tokens: int | None):
    rng = np.random.default_rng(count)
    lengths = rng.integers(1, 90, count).tolist()
    settings = LocalSettings(batch_size=8, batch_tokens=tokens)
    for epoch in (0, 1):
        expected = batches_of_lists(lengths, settings, 3, epoch)
        found = epoch_batches(lengths, settings, 3, epoch)
        assert list(found) == expected
        assert list(found[2:5]) == expected[2:5]


def test_the_batches_of_three_million_rows_are_two_arrays():
    lengths = np.random.default_rng(0).integers(20, 80, 3_000_000)
    settings = LocalSettings(batch_size=16, max_steps=5)
    assert steps_by_epoch(lengths, settings, 0) == [5]
    batches = epoch_batches(lengths, settings, 0, 0)
    assert len(batches) == 187_500
    first = [batches[i] for i in range(100)]
    assert {len(batch) for batch in first} == {16}
    assert len({row for batch in first for row in batch}) == 1600


# --- by several processes -------------------------------------------------------------------------

NANO = Rules(ModelConfig(), frozenset({0}), 256, text=False)


def some_chats(count: int) -> list[TrainingRow]:
    ask = [Message("user", "How many?"), Message("assistant", "Some.")]
    return [
        TrainingRow(
            f"é{i}", (*ask, Message("user", "And?"), Message("assistant", f"{i} ü")), None, (1, 3)
        )
        for i in range(count)
    ]


@pytest.fixture
def rules() -> Rules:
    tokenizer = load_tokenizer(ModelConfig())
    return dataclasses.replace(NANO, stops=frozenset({tokenizer.eos_token_id}))


@pytest.mark.parametrize("text", [False, True])
def test_several_processes_make_the_rows_of_one(rules: Rules, text: bool):
    rows = some_chats(1100)
    if text:
        told = "Once upon a time. " * 40
        rows = [TrainingRow(f"t{i}", (Message("text", told[: 9 * i]),)) for i in range(700)]
        rules = dataclasses.replace(rules, limit=32, text=True)
    alone = list(rules.encode(rows, load_tokenizer(rules.model)))
    assert len(alone) > len(rows) if text else alone[0].gaps
    assert list(shared_out(rules, rows, 3)) == alone
    assert list(shared_out(rules, rows[:1], 2)) == list(
        rules.encode(rows[:1], load_tokenizer(rules.model))
    )


def test_what_is_wrong_with_rows_is_told_as_by_one_process(rules: Rules):
    rows = some_chats(1000)
    for at in (3, 300, 999):
        rows[at] = TrainingRow(f"bad{at}", (Message("user", "x"), Message("assistant", " ")))
    with pytest.raises(DataError) as alone:
        list(rules.encode(rows, load_tokenizer(rules.model)))
    with pytest.raises(DataError) as shared:
        list(shared_out(rules, rows, 2))
    assert shared.value.problems == alone.value.problems
    assert len(alone.value.problems) == 3
    with pytest.raises(DataError) as shared:
        list(shared_out(dataclasses.replace(rules, limit=4), rows, 2))
    assert len(shared.value.problems) == 100
    with pytest.raises(ModelError, match="no end-of-text token"):
        list(shared_out(dataclasses.replace(rules, stops=frozenset()), rows, 2))


def test_a_process_that_is_killed_is_told_and_none_stays(rules: Rules):
    def rows() -> Iterator[TrainingRow]:
        yield from some_chats(300)
        (victim, *_) = mine()
        victim.kill()
        yield from some_chats(2000)

    def mine() -> list[psutil.Process]:
        return [p for p in psutil.Process().children() if "tunelm.training.encoding" in p.cmdline()]

    with pytest.raises(TrainingError, match="was killed by signal 9"):
        list(shared_out(rules, rows(), 2))
    assert mine() == []
    left = shared_out(rules, some_chats(2000), 2)
    next(left)
    assert len(mine()) == 2
    left.close()
    assert mine() == []
