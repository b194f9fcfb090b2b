"""The main job on a tiny model: the run directory, resuming, adding routes, failing routes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tunelm
from tunelm.cli.run import every_route, with_needed
from tunelm.config import load_config
from tunelm.errors import ConfigError, DataError, RunDirError
from tunelm.pipeline import in_order
from tunelm.routes import KINDS
from tunelm.rundir import RunDir

from .conftest import make_task


def scores_of(report: dict) -> dict:
    return {r["name"]: r["scores"] for r in report["routes"]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path):
    """(task file, run directory, report) of one whole run, not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    task = make_task(folder, tiny_model)
    report = tunelm.compare(task, folder / "run")
    return task, folder / "run", report


def test_a_run_leaves_the_files_the_contract_names(finished):
    _, run, report = finished
    assert [r["name"] for r in report["routes"]] == ["constant", "baseline", "prompt", "local"]
    assert {r["status"] for r in report["routes"]} == {"done"}
    for name in ("config.json", "rows.jsonl", "split.json", "events.jsonl", "report.json"):
        assert (run / name).is_file()
    assert (run / "report.html").is_file()
    assert (run / "report.md").is_file()
    for route in ("baseline", "prompt", "local"):
        folder = run / "routes" / route / "seed-0"
        for name in ("plan.json", "fit.json", "predictions.jsonl", "scores.json", "prompt.json"):
            assert (folder / name).is_file(), f"{route}/{name}"
    assert (run / "routes/local/seed-0/adapted/adapter_model.safetensors").is_file()
    assert not list(run.rglob("*.tmp"))
    assert not list(run.rglob("*.pkl"))


def test_what_was_spent_and_measured_is_in_the_report(finished):
    *_, report = finished
    local = next(r for r in report["routes"] if r["name"] == "local")
    for name in ("seconds_fit", "peak_memory", "time_to_first_token", "tokens_per_second"):
        assert local["measured"][name]["value"] > 0, name
    assert local["cost"]["value"] is None if isinstance(local["cost"], dict) else True
    assert report["winner"]["name"] in {"baseline", "prompt", "local"}
    assert report["mde"] is not None


def test_a_finished_run_is_not_overwritten_and_resuming_it_changes_nothing(finished, tmp_path):
    task, run, report = finished
    with pytest.raises(RunDirError, match="Three ways out"):
        tunelm.compare(task, run)
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    before = {p: p.stat().st_mtime_ns for p in copy.rglob("adapted/*")}
    again = tunelm.compare(task, copy, resume=True)
    assert scores_of(again) == scores_of(report)
    assert {p: p.stat().st_mtime_ns for p in copy.rglob("adapted/*")} == before


def test_adding_a_route_runs_only_that_route(finished, tmp_path):
    task, run, report = finished
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    before = {p: p.stat().st_mtime_ns for p in copy.rglob("predictions.jsonl")}
    settings = ["routes.narrow.kind=local", "routes.narrow.r=2", "routes.narrow.max_steps=3"]
    settings += ["routes.narrow.stop_on=none", 'compare.routes=["narrow"]']
    again = tunelm.compare(task, copy, resume=True, overrides=settings)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert [r["name"] for r in again["routes"]][-1] == "narrow"
    old = {k: v for k, v in scores_of(again).items() if k != "narrow"}
    assert old == scores_of(report)


def test_a_changed_route_runs_again_and_a_changed_task_is_refused(finished, tmp_path):
    task, run, _ = finished
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    again = tunelm.compare(task, copy, resume=True, overrides=["routes.prompt.demos=1"])
    program = json.loads((copy / "routes/prompt/seed-0/adapted/program.json").read_text())
    assert len(program["steps"][-1]["demos"]) == 1
    assert {r["status"] for r in again["routes"]} == {"done"}
    with pytest.raises(RunDirError, match=r"task\.instructions differ"):
        tunelm.compare(task, copy, resume=True, overrides=["task.instructions=Other."])


@pytest.mark.parametrize(
    ("routes", "order"),
    [
        (["hybrid", "prompt", "baseline"], ["prompt", "hybrid", "baseline"]),
        (["distill", "local", "constant"], ["local", "distill", "constant"]),
        (["distill", "hybrid", "distill-all", "prompt"], ["prompt", "hybrid", "distill"]),
    ],
)
def test_a_route_comes_after_those_it_builds_on(task: Path, routes: list[str], order: list[str]):
    sections = ["routes.distill-all.kind=distill"] if "distill-all" in routes else []
    config = load_config(task, [*sections, f"compare.routes={routes}"])
    assert in_order(config)[: len(order)] == order
    assert set(in_order(config)) == set(routes)


def test_what_a_route_builds_on_must_be_there(task: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="builds on 'prompt': add it to"):
        tunelm.compare(task, tmp_path / "run", overrides=['compare.routes=["hybrid"]'])


def test_adapt_brings_what_a_route_builds_on(task: Path):
    assert with_needed(str(task), "hybrid", ()) == ["prompt", "hybrid"]
    assert with_needed(str(task), "local", ()) == ["local"]
    assert with_needed(str(task), "distill", ()) == ["baseline", "prompt", "local", "distill"]
    from_endpoint = ("routes.distill.teacher.model=big",)
    assert with_needed(str(task), "distill", from_endpoint) == ["distill"]


def test_every_route_is_every_kind_and_section_that_the_rows_can_take(task: Path):
    config = load_config(task, ["routes.local-r64.kind=local"])
    # a rule has to be named, and only labels can be classified
    assert set(every_route(config)) == {*KINDS, "local-r64"} - {"rule", "classifier"}
    assert "classifier" in every_route(load_config("headlines"))
    assert set(every_route(load_config("python-docs"))) == {"baseline", "local"}


def test_a_run_is_written_by_one_process_at_a_time(finished):
    task, run, _ = finished
    config = tunelm.load_config(task)
    with (
        RunDir.start(run, config, resume=True),
        pytest.raises(RunDirError, match=f"process {os.getpid()}"),
    ):
        RunDir.start(run, config, resume=True)


def test_a_route_that_cannot_go_on_is_a_row_with_its_reason(task: Path, tmp_path: Path):
    settings = ["routes.local.targets=['no_such_layer']", 'compare.routes=["baseline","local"]']
    report = tunelm.compare(task, tmp_path / "run", overrides=settings)
    baseline, local = report["routes"]
    assert baseline["status"] == "done"
    assert local["status"] == "failed"
    assert "no_such_layer" in local["reason"]


def test_bad_data_leaves_no_half_written_run(task: Path, tmp_path: Path):
    rows = task.parent / "rows.jsonl"
    rows.write_text(rows.read_text() + "{broken\n")
    with pytest.raises(DataError, match=r"rows\.jsonl:121"):
        tunelm.compare(task, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (tmp_path / "own").mkdir()
    with pytest.raises(DataError, match=r"rows\.jsonl:121"):
        tunelm.compare(task, tmp_path / "own")
    assert {p.name for p in (tmp_path / "own").iterdir()} <= {".lock"}


@pytest.mark.parametrize("until", ["baseline/seed-0/predictions", "local/seed-0", "narrow/seed-0/"])
def test_killed_and_resumed_gives_the_same_scores(finished, tmp_path, until):
    """Kill -9 as soon as a path with `until` in it exists; the resumed run's scores are equal."""
    task, _, report = finished
    run = tmp_path / "run"
    command = [sys.executable, "-m", "tunelm", "compare", str(task), "--out", str(run), "--quiet"]
    if until.startswith("narrow"):  # never comes up: killed at once, before anything is written
        until = "run"
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if any(until in str(p) for p in [run, *run.rglob("*")] if p.exists()):
            break
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    resume = ["--resume"] if (run / "config.json").exists() else []
    done = subprocess.run([*command, *resume, "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert scores_of(json.loads(done.stdout)) == scores_of(report)
