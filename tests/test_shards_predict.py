"""Rows answered by several processes: the same as by one, whoever is killed, whenever."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import tunelm
from tunelm.predict import CHUNK
from tunelm.shards import TOLD, Chunk, chunks_of, dealt, main
from tunelm.testing import make_tiny_model
from tunelm.training.process import follow

from .conftest import coloured, write_rows

ROWS = 600
"""So that dev has two chunks and test three."""


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    model = make_tiny_model(folder / "model")
    write_rows(folder / "rows.jsonl", ROWS)
    path = folder / "many.toml"
    path.write_text(
        f"""
[task]
name = "many"
instructions = "Answer."
max_tokens = 8
[data]
path = "rows.jsonl"
dev = 0.3
test = 0.5
[model]
base = {json.dumps(str(model))}
[compare]
routes = ["prompt"]
[routes.prompt]
strategy = "labeled"
demos = 1
""",
        encoding="utf-8",
    )
    return path


@pytest.fixture(scope="module")
def single(task: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What one process writes."""
    os.environ.setdefault("TUNELM_CACHE", str(tmp_path_factory.mktemp("cache")))
    run = tmp_path_factory.mktemp("single") / "run"
    compare(task, run, 1)
    return lines(run)


def compare(task: Path, run: Path, processes: int, **more: Any) -> None:
    tunelm.compare(task, run, overrides=[f"compare.processes={processes}"], **more)


def folder_of(run: Path) -> Path:
    return run / "routes" / "prompt" / "seed-0"


def fit(run: Path) -> dict[str, Any]:
    return json.loads((folder_of(run) / "fit.json").read_text(encoding="utf-8"))


def lines(run: Path) -> list[str]:
    """The lines of predictions.jsonl without the seconds."""
    rows = (folder_of(run) / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    plain = [{k: v for k, v in json.loads(row).items() if k != "latency_s"} for row in rows]
    return [json.dumps(row) for row in plain]


def killing(shard: str, times: int, stop: threading.Event) -> threading.Thread:
    """Kills this process's child that answers `shard`, so many times."""

    def watch() -> None:
        killed: set[int] = set()
        while len(killed) < times and not stop.is_set():
            for child in psutil.Process().children():
                try:
                    words = child.cmdline()
                except psutil.Error:  # it ended just now, or has not begun
                    continue
                if "tunelm.shards" in words and shard in words and child.pid not in killed:
                    child.kill()
                    killed.add(child.pid)
            time.sleep(0.02)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_two_processes_write_what_one_writes_though_one_was_killed(
    task: Path, single: list[str], tmp_path: Path
):
    stop, seen = threading.Event(), list[tuple[str, int, int]]()
    killer = killing("2/2", 1, stop)
    try:
        compare(task, tmp_path / "run", 2, progress=lambda *what: seen.append(what))
    finally:
        stop.set()
        killer.join()
    assert lines(tmp_path / "run") == single
    found = fit(tmp_path / "run")
    assert found["processes"]["count"] == 2
    assert found["processes"]["threads"] >= 1
    (note,) = found["notes"]
    assert "process 2 of 2 that answered rows was killed by signal 9" in note
    assert "started again" in note
    assert not (folder_of(tmp_path / "run") / "shards").exists()
    assert ("prompt: answers in 2 processes", len(single), len(single)) in seen


def test_one_that_dies_twice_ends_the_route_and_shards_by_hand_go_on(
    task: Path, single: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run, stop = tmp_path / "run", threading.Event()
    killer = killing("1/2", 2, stop)
    try:
        compare(task, run, 2)
    finally:
        stop.set()
        killer.join()
    found = fit(run)
    assert found["status"] == "failed"
    assert "process 1 of 2 that answer rows was killed by signal 9" in found["reason"]
    assert "for the second time" in found["reason"]
    assert "--resume" in found["reason"]
    shards = folder_of(run) / "shards"
    for path in shards.glob("*.jsonl"):  # what the other one had done by then
        path.unlink()
    program = folder_of(run) / "adapted" / "program.json"
    content = program.read_bytes()
    program.unlink()
    compare(task, run, 2, resume=True)
    assert fit(run)["status"] == "failed"
    assert (
        "program.json" in fit(run)["reason"]
    )  # as the process says it, and it was not started again
    program.write_bytes(content)
    assert main([str(run), "prompt", "--shard", "2/3"]) == 0
    first = int(capsys.readouterr().out.split()[0])
    assert 0 < first < len(single)
    assert main([str(run), "prompt", "--shard", "2/3"]) == 0
    assert capsys.readouterr().out == "0 rows answered\n"
    assert main([str(run), "prompt"]) == 0
    assert capsys.readouterr().out == f"{len(single) - first} rows answered\n"
    compare(task, run, 1, resume=True)
    assert fit(run)["status"] == "done"
    assert lines(run) == single
    assert not shards.exists()


def test_what_was_answered_before_a_kill_is_not_asked_again(
    task: Path, single: list[str], tmp_path: Path
):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "tunelm", "compare", str(task), "--out", str(run), "--quiet"]
    command += ["--set", "compare.processes=2"]
    shards = folder_of(run) / "shards"
    process = subprocess.Popen(command, start_new_session=True)
    try:
        while not list(shards.glob("*.jsonl")):
            assert process.poll() is None
            time.sleep(0.005)
        children = psutil.Process(process.pid).children()
        os.killpg(process.pid, signal.SIGKILL)
    finally:
        process.wait()
    _, alive = psutil.wait_procs(children, 20)
    assert not alive  # they end with the one that started them
    (kept, *_) = sorted(shards.glob("*.jsonl"))
    rows = next(follow(kept, whole=True))  # the last line may be half written
    marked = [{**row, "output": "marked"} for row in rows]
    kept.write_text("".join(json.dumps(row) + "\n" for row in marked), encoding="utf-8")
    (shards / "test-000000000.jsonl").write_text("", encoding="utf-8")  # of other rows than its own
    compare(task, run, 1, resume=True)
    expected = [json.loads(line) for line in single]
    ids = {row["example_id"] for row in rows} if kept.name != "test-000000000.jsonl" else set()
    for row in expected:
        if row["example_id"] in ids and row["part"] == rows[0]["part"]:
            row["output"] = "marked"
    assert lines(run) == [json.dumps(row) for row in expected]


def test_chunks_are_dealt_alike_and_evenly(tmp_path: Path):
    parts = {"dev": coloured(CHUNK + 40), "test": coloured(3 * CHUNK + 7)}
    chunks = chunks_of(parts, tmp_path)
    assert [(c.part, c.start, len(c.rows)) for c in chunks] == [
        ("dev", 0, CHUNK),
        ("dev", CHUNK, 40),
        ("test", 0, CHUNK),
        ("test", CHUNK, CHUNK),
        ("test", 2 * CHUNK, CHUNK),
        ("test", 3 * CHUNK, 7),
    ]
    hands = dealt(chunks, 2)
    sizes = [sum(len(c.rows) for c in hand) for hand in hands]
    assert max(sizes) - min(sizes) <= 40
    both = sorted((c.part, c.start) for hand in hands for c in hand)
    assert both == sorted((c.part, c.start) for c in chunks)
    assert dealt(chunks, 2) == hands
    assert [len(hand) for hand in dealt(chunks, 8)].count(0) == 2
    assert Chunk("test", 0, tuple(coloured(2))).answers(tmp_path) is None


def test_who_needs_no_other_process_starts_none(task: Path, tmp_path: Path):
    """A route without a model, and a model with rows for one chunk."""
    few = write_rows(tmp_path / "few.jsonl", 80)
    settings = {"processes": 4, "routes": '["constant","baseline"]'}
    overrides = [f"compare.{key}={value}" for key, value in settings.items()]
    overrides += [f"data.path={few}", "data.min_test_groups=5"]
    report = tunelm.compare(task, tmp_path / "run", overrides=overrides)
    assert [r["status"] for r in report["routes"]] == ["done", "done"]
    for name in ("constant", "baseline"):
        path = tmp_path / "run" / "routes" / name / "seed-0"
        assert json.loads((path / "fit.json").read_text())["processes"] is None


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["nope"], "no run with rows"),
        (["prompt", "--shard", "3/2"], "expected 1/2 to 2/2"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    arguments: list[str], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main([str(tmp_path), *arguments]) == TOLD
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert why in said
    assert said.count("\n") == 1
