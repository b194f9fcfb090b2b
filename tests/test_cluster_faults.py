"""What befalls machines: a node that dies under a job, and a disk that is full."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import (
    Cluster,
    running,
    submit,
    tunelm,
    until,
    wait_for,
)
from tunelm import room
from tunelm.cluster.jobs import job_of
from tunelm.training.process import follow


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    yield from running(tmp_path_factory.mktemp("slurm"))


@pytest.fixture
def longer(task: Path) -> Path:
    """Training alone, with a checkpoint every four steps and enough of them to be hit."""
    text = task.read_text("utf-8").replace("max_steps = 6", "max_steps = 300\nepochs = 100")
    text = text.replace('["constant", "baseline", "prompt", "local"]', '["local"]')
    task.write_text(text, encoding="utf-8")
    return task


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MB."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mounted, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def steps_of(run: Path) -> list[str]:
    """What the training told, but for a line that was half written when it ended."""
    path = run / "routes" / "local" / "seed-0" / "training" / "events.jsonl"
    return [event["event"] for event in next(follow(path, whole=True))]


def require_whole(run: Path) -> None:
    """Every file can be read, and nothing half written is left."""
    for path in run.rglob("*"):
        assert not path.name.endswith(".tmp"), path
        if path.suffix == ".json":
            json.loads(path.read_text("utf-8"))
        if path.suffix == ".jsonl" and path.parent.name != "training":
            assert all(json.loads(line) for line in path.read_text("utf-8").splitlines())


def test_a_job_goes_on_after_its_node_died_and_says_so_where_it_may_not(
    cluster: Cluster, longer: Path, tmp_path: Path
):
    run = tmp_path / "run"
    number = submit(longer, run)
    until(lambda: list(run.rglob("checkpoints/step-*")))
    cluster.kill_node()
    waits = wait_for(run, "PENDING")
    assert waits.said.startswith("waits: ")
    require_whole(run)
    cluster.start_node()
    before = steps_of(run).count("resumed")
    cluster.now(number)
    until(lambda: steps_of(run).count("resumed") > before)
    subprocess.run(["scontrol", "update", f"JobId={number}", "Requeue=0"], check=True)
    cluster.kill_node()
    dead = wait_for(run, "NODE_FAIL")
    assert dead.said == "its node died: submit again to go on"
    cluster.start_node()
    assert submit(longer, run) != number
    assert wait_for(run, "COMPLETED").said == "done"
    assert steps_of(run).count("resumed") == before + 2
    assert steps_of(run)[-1] == "done"
    require_whole(run)
    assert (run / "report.json").is_file()


def test_a_full_disk_is_named_and_the_same_line_goes_on_after_room_was_made(
    cluster: Cluster, longer: Path, small_disk: Path
):
    run = small_disk / "run"
    submit(longer, run)
    until(lambda: list(run.rglob("checkpoints/step-*")))
    ballast = small_disk / "ballast"
    fill(ballast)
    job = wait_for(run, "FAILED")
    assert f"failed with exit code {room.EXIT_CODE}: no room to write" in job.said
    assert str(small_disk) in job.said
    ballast.unlink()
    require_whole(run)
    listed = json.loads(tunelm("jobs", small_disk, "--json").output)
    assert "no room to write" in listed[0]["state"]
    submit(longer, run)
    wait_for(run, "COMPLETED")
    assert "resumed" in steps_of(run)
    require_whole(run)
    assert (run / "report.json").is_file()


def fill(path: Path) -> None:
    """Until nothing more can be written."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 10, 1):
            try:
                while file.write(b"0" * size) == size:
                    pass
            except OSError:
                continue


def test_a_file_that_may_not_grow_ends_a_run_with_one_line(longer: Path, tmp_path: Path):
    run = tmp_path / "run"
    line = [sys.executable, "-m", "tunelm", "compare", str(longer), "--out", str(run), "--quiet"]
    limited = ["bash", "-c", 'ulimit -f 100; exec "$@"', "bash", *line]
    done = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert done.returncode == room.EXIT_CODE
    (told,) = done.stderr.strip().splitlines()
    assert told.startswith(f"error: no room to write in {run}")
    assert "File too large" in told
    assert told.endswith(f"go on with: tunelm compare {longer} --out {run} --resume")
    require_whole(run)
    assert not list(run.rglob("*part"))


def test_what_a_job_said_last_stands_beside_its_exit_code(
    cluster: Cluster, longer: Path, tmp_path: Path
):
    run = tmp_path / "run"
    submit(longer, run, "--setup", "ulimit -f 4")
    assert job_of(run).is_open
    job = wait_for(run, "FAILED")
    assert "File too large" in job.said
    assert "make room" in job.said.lower()
