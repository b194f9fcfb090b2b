"""The job for rented machines, and a machine that is taken away in the middle of it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from click.testing import Result

from tests.cluster import end_at_once, scores, tunelm
from tunelm.cluster import keep
from tunelm.errors import ConfigError


def rented(task: object, *more: object) -> Result:
    return tunelm("submit", task, "--to", "skypilot", *more)


def test_the_file_holds_for_another_machine(task: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(task.parent.parent)
    done = rented(
        task, *("--gpus", "1", "--card", "L4", "--mem", "1500M", "--set", "data.test=0.4")
    )
    assert done.exit_code == 0, done.output
    found = yaml.safe_load(done.stdout)
    assert found["resources"] == {"accelerators": "L4:1", "memory": "2+", "use_spot": True}
    ((mounted, bucket),) = found["file_mounts"].items()
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", bucket["name"])
    (line,) = found["run"].splitlines()
    assert line.startswith(f"python -m tunelm.cluster.keep {mounted} ~/runs/boxes-")
    command = line.partition(" -- ")[2]
    where = f"{task.parent.name}/boxes.toml"  # under the folder that is uploaded
    assert command == f"tunelm compare {where} --set data.test=0.4"
    assert str(task.parent.parent) not in done.stdout
    assert sys.executable not in done.stdout
    assert "tunelm compare edu-qa\n" in rented("edu-qa", "--cpus", "4").stdout
    one, other = (yaml.safe_load(rented("edu-qa", "--out", out).stdout) for out in ("a", "b"))
    assert one["file_mounts"] != other["file_mounts"], "each run has a bucket of its own"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--time", "60"), "--time"),
        (("--partition", "gpu", "--nodes", "2"), "--partition, --nodes"),
        (("--study", "local"), "--study"),
        (("--gpus", "1"), "--card L4"),
        (("--card", "L4"), "give both or none"),
    ],
)
def test_what_is_slurms_alone_is_refused(
    task: Path, asked: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(task.parent)
    done = rented(task, *asked)
    assert done.exit_code == 2
    assert said in done.output


def test_files_that_would_not_be_uploaded_are_refused(
    task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.chdir(inside)
    assert "boxes.toml does not lie in" in str(rented(task).exception)
    (inside / "own.toml").write_text(task.read_text().replace("rows.jsonl", "../rows.jsonl"))
    done = rented(inside / "own.toml")
    assert isinstance(done.exception, ConfigError)
    assert "rows.jsonl does not lie in" in str(done.exception)


# --- a machine that is taken away -----------------------------------------------------------------


def start(bucket: Path, run: Path, task: Path, every_s: float = 1) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tunelm.cluster.keep", str(bucket), str(run)]
    command += ["--every", str(every_s), "--", sys.executable, "-m", "tunelm", "compare", str(task)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, text=True, start_new_session=True, **pipes)


def take_away(process: subprocess.Popen[str]) -> None:
    """All its processes are gone in an instant."""
    first = psutil.Process(process.pid)
    end_at_once([first, *first.children(recursive=True)])
    process.communicate()


def wait_for_training(process: subprocess.Popen[str], bucket: Path) -> None:
    until = time.monotonic() + 300
    while not in_training(bucket):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)


def in_training(bucket: Path) -> bool:
    """Whether the last whole archive holds a training that has begun, and is not over."""
    for seal in sorted(bucket.glob("state-*.json"))[-1:]:
        try:
            with tarfile.open(seal.with_suffix(".tar")) as tar:
                names = tar.getnames()
        except OSError:  # the next one has just taken its place
            return False
        return any("/checkpoints/step-" in name for name in names)
    return False


@pytest.mark.skipif(os.name != "posix", reason="rented machines have Linux")
def test_on_the_next_machine_it_goes_on_and_ends_with_the_same_scores(task: Path, tmp_path: Path):
    text = task.read_text("utf-8").replace("max_steps = 6", "max_steps = 600\nepochs = 100")
    text = text.replace('["constant", "baseline", "prompt", "local"]', '["constant", "local"]')
    task.write_text(text, encoding="utf-8")
    bucket, run, here = tmp_path / "bucket", tmp_path / "disk" / "run", tmp_path / "here"
    bucket.mkdir()
    first = start(bucket, run, task)
    wait_for_training(first, bucket)
    take_away(first)
    shutil.rmtree(run.parent)  # with the machine its disk is gone
    whole = max(bucket.glob("state-*.tar"))
    part = whole.with_name("state-999998.tar")  # what was on its way when the machine went
    part.write_bytes(whole.read_bytes()[:5000])
    part.with_name("state-999999.json").write_text("{")

    second = start(bucket, run, task, every_s=600)
    said, _ = second.communicate(timeout=600)
    assert second.returncode == 0, said
    assert f"taken out of {bucket}" in said
    events = next(run.glob("routes/local/*/training/events.jsonl")).read_text("utf-8")
    assert '"resumed"' in events
    assert tunelm("compare", task, "--out", here, "--quiet").exit_code == 0
    assert scores(bucket / "run") == scores(here)
    assert not [path for path in bucket.iterdir() if path.name.startswith("state-0")]

    shutil.rmtree(run)
    again = start(bucket, run, task)  # the same lines once more: all is there
    assert f"taken out of {bucket}" in again.communicate(timeout=300)[0]
    assert again.returncode == 0
    assert scores(run) == scores(here)


@pytest.mark.skipif(os.name != "posix", reason="rented machines have Linux")
def test_one_that_is_told_to_end_is_kept(task: Path, tmp_path: Path):
    text = task.read_text("utf-8").replace("max_steps = 6", "max_steps = 90000\nepochs = 9000")
    slow = tmp_path / "slow.toml"
    slow.write_text(text.replace('["constant", "baseline", "prompt", "local"]', '["local"]'))
    bucket, run = tmp_path / "bucket", tmp_path / "disk" / "run"
    bucket.mkdir()
    process = start(bucket, run, slow)
    wait_for_training(process, bucket)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "--resume" in said
    assert in_training(bucket)
    assert list(run.parent.iterdir()) == [run]


@pytest.mark.skipif(os.name != "posix", reason="rented machines have Linux")
def test_where_the_bucket_refuses_the_run_goes_on_and_says_so_in_the_end(
    task: Path, tmp_path: Path
):
    bucket, run = tmp_path / "bucket", tmp_path / "run"
    bucket.mkdir()
    process = start(bucket, run, task, every_s=600)
    while not run.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    bucket.rmdir()
    bucket.touch()
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 74, said
    assert f"not kept in {bucket}: " in said
    assert (run / "report.json").is_file()
    shutil.rmtree(run)
    bucket.unlink()
    missing = start(bucket, run, task)
    assert "is no folder" in missing.communicate(timeout=60)[0]
    assert missing.returncode == 2
    assert not run.exists()


@pytest.mark.skipif(os.name != "posix", reason="rented machines have Linux")
def test_an_archive_that_was_damaged_is_told_and_the_one_before_it_taken(tmp_path: Path):
    bucket, run = tmp_path / "bucket", tmp_path / "run"
    bucket.mkdir()
    run.mkdir()
    (run / "config.json").write_text("{}")
    keep.put_away(bucket, run)
    good = bucket / "state-000001.tar"
    (bucket / "state-000002.tar").write_bytes(b"\1" * good.stat().st_size)
    shutil.copy(good.with_suffix(".json"), bucket / "state-000002.json")
    shutil.rmtree(run)
    keep.take_out(bucket, run)
    assert (run / "config.json").read_text() == "{}"
    keep.put_away(bucket, run)
    assert sorted(path.name for path in bucket.iterdir()) == [
        "state-000003.json",
        "state-000003.tar",
    ]


def test_a_command_that_fails_says_so_by_its_code(tmp_path: Path):
    process = start(tmp_path, tmp_path / "run", tmp_path / "nothing.toml")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 2 or process.returncode == 1, said
    assert "nothing.toml" in said
    assert list(tmp_path.iterdir()) == []
