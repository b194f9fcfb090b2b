"""A study as an array of jobs: what one process would have found, and what may befall trials."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import Cluster, running, tunelm, until, wait_for, wait_for_training
from tests.conftest import make_task
from tests.test_study import in_this_process
from tunelm.cluster.jobs import jobs_of
from tunelm.config import load_config
from tunelm.errors import ConfigError, PrerequisiteError, RunDirError

pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("optuna")

from tunelm.study.run import run_study
from tunelm.training import process

SAME = ("method", "params", "settings", "state", "reason", "score", "losses", "steps")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    yield from running(tmp_path_factory.mktemp("slurm"))


def found_in(run: Path) -> dict[str, Any]:
    return json.loads((run / "study" / "study.json").read_text("utf-8"))


def part(task: Path, run: Path, name: object, trials: int = 12) -> Any:
    more = ("--set", "routes.local.max_steps=4", "--quiet", "--part", name)
    return tunelm("adapt", "local", task, "--study", trials, "--out", run, *more)


def test_the_pieces_of_a_study_find_what_one_process_finds(
    task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(process, "train", in_this_process)
    run = tmp_path / "apart"
    early = part(task, run, 3)
    assert isinstance(early.exception, RunDirError)
    assert "--part prepare comes first" in str(early.exception)
    assert "10 trials are drawn" in part(task, run, "prepare").output
    shared = {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()}
    for number in (7, 3, 9, 0, 1, 8, 2, 6, 4):
        done = part(task, run, number)
        assert f"trial {number}, " in done.output, done.output
        assert "done, token_f1 on dev" in done.output
    written = {p for p in run.rglob("*") if shared.get(p) != p.stat().st_mtime_ns and p.is_file()}
    assert {p.relative_to(run).parts[:2] for p in written} == {("study", "trials")}
    lacking = part(task, run, "conclude")
    assert lacking.exit_code == 0, lacking.output
    found = found_in(run)
    assert [t["number"] for t in found["trials"] if t["state"] == "failed"] == [5]
    row = next(r for r in found["methods"] if r["method"] == "lora")
    assert row["failures"] == ["trial 5: did not come to its end; the same line runs it again"]
    assert row["trials"] == {"done": 1, "pruned": 0, "failed": 1}
    part(task, run, 5)
    assert part(task, run, "conclude").exit_code == 0
    config = load_config(task, ('compare.routes=["local"]', "routes.local.max_steps=4"))
    whole = json.loads(json.dumps(run_study(config, "local", 12, tmp_path / "whole")))
    apart = found_in(run)
    for mine, theirs in zip(apart["trials"], whole["trials"], strict=True):
        assert {key: mine[key] for key in SAME} == {key: theirs[key] for key in SAME}
    for mine, theirs in zip(apart["methods"], whole["methods"], strict=True):
        for key in ("dev", "beside", "settings", "seeds", "trials", "best_trial"):
            assert mine[key] == theirs[key], (mine["method"], key)
    for key in ("verdict", "section", "chosen", "trials_asked", "trials_each", "dev_rows"):
        assert apart[key] == whole[key]
    assert (apart["apart"], whole["apart"]) == (True, False)
    assert "drawn at random before the first trial" in (run / "study/study.md").read_text("utf-8")
    mixed = tunelm(
        *("adapt", "local", task, "--study", 12, "--out", run, "--resume", "--quiet"),
        *("--set", "routes.local.max_steps=4"),
    )
    assert "(apart differ)" in str(mixed.exception)


def test_a_piece_that_is_not_there_is_refused(task: Path, tmp_path: Path):
    assert "0 to 9" in str(part(task, tmp_path / "run", 10).exception)
    assert "is expected" in part(task, tmp_path / "run", "third").output
    alone = tunelm("adapt", "local", task, "--part", "3")
    assert alone.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_an_array_runs_the_trials_and_a_last_job_concludes(
    cluster: Cluster, tmp_path: Path, tiny_model: Path
):
    task, run = make_task(tmp_path, tiny_model), tmp_path / "run"
    more = ("--set", "routes.local.max_steps=100", "--set", "routes.local.epochs=100")
    asked = ("--study", "local", "--trials", 6, "--at-once", 2, "--time", "30", *more)
    done = tunelm("submit", task, "--out", run, *asked)
    assert done.exit_code == 0, done.output
    assert "5 trials: 5 waiting" in done.output
    prepare, trials, conclude = jobs_of(run)
    assert (prepare.part, trials.part, conclude.part) == ("prepare", "trials", "conclude")
    again = tunelm("submit", task, "--out", run, *asked)
    assert "Wait for it, or cancel it" in str(again.exception)
    until(lambda: "5 waiting: it waits for another job" in tunelm("jobs", tmp_path).output)
    wait_for_training(run, "study/trials/000")
    for number in (2, 3, 4):
        assert tunelm("cancel", run, "--trial", number).exit_code == 0
    subprocess.run(["scontrol", "requeue", f"{trials.id}_0"], check=True)
    cluster.now(f"{trials.id}_0")
    assert jobs_of(run)[2].state.state == "PENDING"
    wait_for(run, "COMPLETED")
    assert "[trial 1] trial 1, rslora: done" in tunelm("logs", run).output
    assert "trial 0, lora: done" in tunelm("logs", run, "--trial", 0).output
    found = found_in(run)
    assert [t["state"] for t in found["trials"]] == ["done", "done", "failed", "failed", "failed"]
    assert {r["method"]: len(r["seeds"]) for r in found["methods"] if r["seeds"]} == {
        "lora": 2,
        "rslora": 2,
    }
    listed = {row["part"]: row for row in json.loads(tunelm("jobs", tmp_path, "--json").output)}
    assert listed["conclude"]["state"] == "done"
    assert listed["trials"]["restarts"] == "1"
    assert listed["trials"]["state"].startswith(
        "5 trials: 2 done, 3 without an end (2: never begun"
    )
    script = tunelm("submit", task, "--out", run, *asked, "--dry-run").output
    assert "#SBATCH --array=2-4%2" in script
    assert "--dependency=afterok:$prepare,afterany:$trials" in script


def test_nothing_runs_where_the_first_step_fails(cluster: Cluster, task: Path, tmp_path: Path):
    run = tmp_path / "run"
    asked = ("--study", "local", "--trials", 5, "--set", "data.dev=0.0001")
    assert tunelm("submit", task, "--out", run, *asked).exit_code == 0
    until(lambda: not any(job.is_open for job in jobs_of(run)))
    states = [[s.state for s in job.states] for job in jobs_of(run)]
    assert states == [["FAILED"], ["CANCELLED"], ["CANCELLED"]]
    assert "failed with exit code" in jobs_of(run)[0].said


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        (("--study", "prompt"), ConfigError),
        (("--study", "local", "--trials", "4"), ConfigError),
        (("--study", "local", "--trials", "5000"), ConfigError),
    ],
)
def test_a_study_that_cannot_be_is_refused_at_once(
    cluster: Cluster, task: Path, tmp_path: Path, asked: tuple[str, ...], error: type[Exception]
):
    result = tunelm("submit", task, "--out", tmp_path / "run", *asked)
    assert isinstance(result.exception, error)
    assert not (tmp_path / "run").exists()


def test_the_scripts_of_a_study_can_be_read_where_there_is_no_slurm(
    task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", "/nonexistent")
    result = tunelm("submit", task, "--study", "local", "--trials", "10", "--out", tmp_path / "r")
    assert result.exit_code == 1
    assert "#SBATCH --array=0-9" in result.output.splitlines()
    script = tmp_path / "all.sh"
    script.write_text(result.output.partition("There is no Slurm")[0], encoding="utf-8")
    assert subprocess.run(["/bin/bash", "-n", str(script)], check=False).returncode == 0
    refused = tunelm("submit", task, "--study", "local", "--to", "skypilot")
    assert refused.exit_code == 2
    with pytest.raises(PrerequisiteError, match="no Slurm on this machine"):
        raise tunelm("jobs", _submitted(tmp_path)).exception or AssertionError


def _submitted(folder: Path) -> Path:
    record = folder / "runs" / "one" / "slurm" / "job.json"
    record.parent.mkdir(parents=True)
    record.write_text('{"schema_version": 1, "job": "7", "submitted": "2026-01-01T00:00:00"}')
    return folder / "runs"
