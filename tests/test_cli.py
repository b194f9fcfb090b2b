"""The command line: what people type, what they see, and what a mistake costs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import make_task


def tunelm(*args: object, cwd: Path | None = None, stdin: str = "") -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "tunelm", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, input=stdin)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A finished run made by the command line."""
    folder = tmp_path_factory.mktemp("cli")
    file = make_task(folder, tiny_model)
    done = tunelm("adapt", "local", file, "--out", folder / "run")
    assert done.returncode == 0, done.stderr
    assert "report.html" in done.stdout
    assert "local" in done.stdout
    return folder / "run"


def test_a_run_answers_and_is_scored_on_other_rows(run: Path, tmp_path: Path):
    for target in (run, run / "local", run / "routes/local/seed-0/adapted"):
        done = tunelm("generate", target, "What is the code of box 3?", "--max-tokens", "5")
        assert done.returncode == 0, done.stderr
        assert (done.stdout[-1], done.stderr) == ("\n", "")
    rows = run.parent / "rows.jsonl"
    out = tmp_path / "predictions.jsonl"
    done = tunelm("eval", run, rows, "--max-tokens", "4", "--out", out, "--json", "--quiet")
    result = json.loads(done.stdout)
    assert result["rows"] == 120
    assert result["groups"] == 60
    assert result["metrics"]["token_f1"]["ci_low"] is not None
    assert len(out.read_text().splitlines()) == 120
    assert tunelm("eval", run, rows, "--out", out).returncode == 2


def test_the_prompt_may_come_from_standard_input(run: Path):
    done = tunelm("generate", run, "--max-tokens", "3", stdin="What is the code of box 3?")
    assert done.returncode == 0
    assert "the prompt is empty" in tunelm("generate", run, stdin=" \n").stderr


def test_the_report_is_written_again_from_files_alone(run: Path):
    (run / "report.html").unlink()
    done = tunelm("report", run)
    assert done.returncode == 0, done.stderr
    assert (run / "report.html").is_file()
    assert tunelm("report", run.parent).returncode == 2


def test_routes_and_doctor_say_what_there_is():
    listed = json.loads(tunelm("routes", "--json").stdout)
    assert {"baseline", "prompt", "local", "constant"} <= set(listed)
    os.environ["OPENAI_API_KEY"] = "sk-do-not-print-me"
    try:
        shown = tunelm("doctor")
        found = json.loads(tunelm("doctor", "--json").stdout)
    finally:
        del os.environ["OPENAI_API_KEY"]
    assert "key OPENAI_API_KEY: set" in shown.stdout
    assert "do-not-print" not in shown.stdout + json.dumps(found)
    assert found["cores"] == os.cpu_count()
    assert found["routes"]["local"].startswith("ready")


@pytest.mark.parametrize(
    ("args", "code", "expected"),
    [
        (("compar",), 2, "Did you mean 'compare'?"),
        (("compare", "edu_qa"), 2, "Did you mean 'edu-qa'"),
        (("compare", "none.toml"), 2, "no such task file"),
        (("compare", "--set", "routes.local.rank=3"), 2, "unknown key 'routes.local.rank'"),
        (("compare", "--resume"), 2, "--resume needs --out"),
        (("compare", "--out", "x", "--resume"), 1, "no run to resume"),
        (("adapt", "lora"), 2, "unknown route kind 'lora'"),
        (("generate", "no/such/model", "hi"), 1, "cannot be loaded"),
        (("eval", "no/such/model", "none.jsonl"), 1, "no such file"),
        (("compare", "--set", "compare.primary_metric=f1"), 2, "token_f1"),
    ],
)
def test_a_mistake_is_one_line_without_a_traceback(tmp_path: Path, args, code, expected):
    done = tunelm(*args, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert [p for p in tmp_path.rglob("*") if p.is_file() and p.name != ".lock"] == []


def test_too_few_groups_is_refused_and_five_pairs_prove_nothing(tmp_path: Path, tiny_model: Path):
    base = f"model.base={json.dumps(str(tiny_model))}"
    small = ("--set", base, "--set", "task.max_tokens=8", "--set", "routes.local.max_steps=2")
    more, out = ("--set", "data.min_test_groups=30"), tmp_path / "run"
    refused = tunelm("compare", "edu-qa-small", *small, *more, "--out", out, cwd=tmp_path)
    assert refused.returncode == 1
    assert "at least 30 are needed" in refused.stderr
    assert not out.exists()
    allowed = tunelm("adapt", "local", "edu-qa-small", *small, "--out", out, cwd=tmp_path)
    assert allowed.returncode == 0, allowed.stderr
    assert "proves nothing" in allowed.stdout.splitlines()[0]
    assert "proves nothing" in (out / "report.md").read_text().strip().splitlines()[0]


def test_ctrl_c_stops_cleanly_says_how_to_resume_and_leaves_no_child(
    tmp_path: Path, tiny_model: Path
):
    file = make_task(tmp_path, tiny_model)
    text = file.read_text().replace("max_steps = 6", "max_steps = 16000\nepochs = 2000")
    file.write_text(text)
    out = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "tunelm", "adapt", "local", str(file), "--out", str(out)],
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not list(out.rglob("heartbeat")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=90)
    assert process.returncode == 130, errors
    assert "--resume" in errors
    assert "Traceback" not in errors
    running = subprocess.run(["ps", "ax", "-o", "args"], capture_output=True, text=True).stdout
    assert str(out) not in running
