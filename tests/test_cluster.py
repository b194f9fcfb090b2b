"""Batch jobs on a real Slurm cluster: submitted, refused, preempted, warned, cancelled."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import (
    Cluster,
    running,
    scores,
    submit,
    tunelm,
    wait_for,
    wait_for_training,
)
from tunelm.cluster.jobs import job_of
from tunelm.cluster.request import parse_time
from tunelm.cluster.slurm import Partition, check_request
from tunelm.cluster.words import WAITS
from tunelm.errors import ConfigError


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    yield from running(tmp_path_factory.mktemp("slurm"))


@pytest.fixture
def longer(task: Path) -> Path:
    """The task with enough steps to be interrupted in the middle."""
    text = task.read_text("utf-8").replace("max_steps = 6", "max_steps = 400\nepochs = 100")
    text = text.replace('["constant", "baseline", "prompt", "local"]', '["constant", "local"]')
    task.write_text(text, encoding="utf-8")
    return task


def test_a_job_makes_the_run_that_one_would_have_made_here(
    cluster: Cluster, task: Path, tmp_path: Path
):
    run, here = tmp_path / "there", tmp_path / "here"
    submit(task, run)
    wait_for(run, "COMPLETED")
    assert tunelm("compare", task, "--out", here, "--quiet").exit_code == 0
    assert scores(run) == scores(here)
    listed = tunelm("jobs", tmp_path)
    assert "done" in listed.output
    followed = tunelm("logs", run, "--follow")
    assert "report:" in followed.output
    assert "is over (done)" in str(tunelm("cancel", run).exception)


def test_a_preempted_job_goes_on_and_ends_with_the_same_scores(
    cluster: Cluster, longer: Path, tmp_path: Path
):
    run, here = tmp_path / "there", tmp_path / "here"
    number = submit(longer, run, "--partition", "low", "--cpus", os.cpu_count())
    wait_for_training(run)
    cluster.preempt(tmp_path)
    cluster.now(number)
    job = wait_for(run, "COMPLETED")
    assert job.state.restarts == 1
    assert tunelm("compare", longer, "--out", here, "--quiet").exit_code == 0
    assert scores(run) == scores(here)
    log = job.log.read_text("utf-8")
    assert log.count("report:") == 1


def test_a_job_that_is_warned_of_its_time_limit_stops_cleanly_and_goes_on(
    cluster: Cluster, longer: Path, tmp_path: Path
):
    run = tmp_path / "run"
    number = submit(longer, run)
    wait_for_training(run)
    subprocess.run(["scancel", "--batch", "--signal=USR1", number], check=True)
    cluster.now(number)
    job = wait_for(run, "COMPLETED")
    log = job.log.read_text("utf-8")
    assert "time limit near" in log
    assert "interrupted" in log
    assert job.state.restarts == 1
    events = (run / "events.jsonl").read_text("utf-8")
    assert events.count('"stage": "done"') == 2


def test_a_job_that_fails_says_with_what_and_where(cluster: Cluster, task: Path, tmp_path: Path):
    run = tmp_path / "run"
    submit(task, run, "--set", "data.test=0.01")
    job = wait_for(run, "FAILED")
    assert "failed with exit code 1" in job.said
    assert "error:" in tunelm("logs", run).output
    submit(task, run, "--set", "data.test=0.5")  # nothing of the failed one stands in the way
    assert tunelm("cancel", run).exit_code == 0
    assert "cancelled" in job_of(run).said


def test_one_job_at_a_time_writes_a_run(cluster: Cluster, longer: Path, tmp_path: Path):
    run = tmp_path / "run"
    submit(longer, run)
    second = tunelm("submit", longer, "--out", run)
    assert "its job" in str(second.exception)
    tunelm("cancel", run)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--partition", "gpu"), "no partition 'gpu'"),
        (("--gpus", "2"), "No partition has any"),
        (("--cpus", "640"), "--cpus 640"),
        (("--nodes", "3"), "gives 1 at most"),
        (("--time", "5-00"), "gives 04:00:00 at most"),
        (("--time", "soon"), "hours:minutes:seconds"),
        (("--mem", "lots"), "such as 16G"),
    ],
)
def test_the_impossible_is_refused_before_it_waits_for_ever(
    cluster: Cluster, task: Path, tmp_path: Path, asked: tuple[str, str], said: str
):
    result = tunelm("submit", task, "--out", tmp_path / "run", *asked)
    assert isinstance(result.exception, ConfigError)
    assert said in str(result.exception)
    assert not (tmp_path / "run").exists()


def test_the_script_can_be_read_and_is_printed_where_there_is_no_slurm(
    task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", "/nonexistent")
    asked = ("--gpus", "2", "--time", "1-12", "--setup", "module load cuda", "--mem", "16G")
    result = tunelm("submit", task, "--out", tmp_path / "my run", *asked)
    assert result.exit_code == 1
    assert "no Slurm on this machine" in result.output
    for line in (
        "#SBATCH --gpus-per-node=2",
        "#SBATCH --time=1-12:00:00",
        "#SBATCH --mem=16G",
        "#SBATCH --requeue",
        "module load cuda",
    ):
        assert line in result.output.splitlines()
    script = tmp_path / "job.sh"
    dry = tunelm("submit", task, "--dry-run")
    assert dry.exit_code == 0
    assert "not checked" in dry.stderr
    script.write_text(dry.stdout, encoding="utf-8")
    assert subprocess.run(["/bin/bash", "-n", str(script)], check=False).returncode == 0
    assert not (tmp_path / "my run").exists()


def test_the_script_is_printed_where_slurm_does_not_answer(
    task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its commands are installed, and know of no cluster: a laptop, or a node that is cut off."""
    for name in ("sbatch", "scontrol"):
        command = tmp_path / "bin" / name
        command.parent.mkdir(exist_ok=True)
        command.write_text(
            "#!/bin/sh\necho 'error: Unable to contact (slurm controller)' >&2; exit 1"
        )
        command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    for more, code, said in (
        (("--dry-run",), 0, "so what it asks for was not checked"),
        ((), 1, "so nothing was submitted"),
    ):
        result = tunelm("submit", task, "--out", tmp_path / "run", "--gpus", "2", *more)
        assert result.exit_code == code
        assert "#SBATCH --gpus-per-node=2" in result.stdout
        assert "Slurm does not answer here (scontrol: error: Unable to contact" in result.stderr
        assert said in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_task_that_does_not_load_is_refused_before_it_is_submitted(tmp_path: Path):
    result = tunelm("submit", tmp_path / "nothing.toml", "--dry-run")
    assert isinstance(result.exception, ConfigError)


def test_time_limits_in_all_of_slurms_forms():
    assert [parse_time(t) for t in ("30", "10:00", "10:30", "1:00:00", "2-3:15", "1-0:0:30")] == [
        *(30, 10, 11, 60, 2 * 1440 + 195),
        1441,
    ]


def test_a_partition_with_gpus_gives_what_it_has():
    known = [Partition("cpu", True, 4, None, None, 0, 64), Partition("gpu", False, 2, 1, 60, 4, 32)]
    from tunelm.cluster.request import JobRequest

    assert check_request(JobRequest("gpu", gpus=4), known).name == "gpu"
    with pytest.raises(ConfigError, match="gpu has 4"):
        check_request(JobRequest("cpu", gpus=1), known)
    with pytest.raises(ConfigError, match="gives 1 at most"):
        check_request(JobRequest("gpu", nodes=2), known)


def test_reasons_for_waiting_are_sentences():
    assert all(reason and reason[0].islower() for reason in WAITS.values())
