"""A comparison with a model behind an API, killed at every stage: nothing is paid twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tunelm.predict import answers_to, in_chunks, read_predictions
from tunelm.testing import ChatServer, ScriptedModel
from tunelm.types import Example, Prediction

from .conftest import coloured, make_task
from .test_diagnosis import code, formless

KILLED_AFTER = (20, 250, 480)
"""Requests to the endpoint before each kill: in the middle of one route after the other."""
UNDER_WAY = 8
"""Most calls that one kill can lose: those under way at once."""
TIMED = 6
"""Single requests by which a route is timed, which begin anew."""


def command(folder: Path, task: Path, url: str) -> list[str]:
    settings = [
        'compare.routes=["baseline","prompt","simba","rag","distill"]',
        'routes.prompt={strategy="random-search", demos=2, candidates=2}',
        'routes.simba={kind="prompt", strategy="simba", demos=1, candidates=2, trials=1}',
        'data.corpus="boxes.md"',
        "routes.distill.student=tunelm-nano-small",
        "routes.distill.keep=all",
        "routes.distill.training.max_steps=3",
        "model.base=scripted",
        f"model.base_url={url}",
    ]
    options = [part for text in settings for part in ("--set", text)]
    return [sys.executable, "-m", "tunelm", "compare", str(task), "--quiet", *options, "--out"]


def finished(folder: Path) -> dict[str, Any]:
    report = json.loads((folder / "report.json").read_text())
    assert {r["status"] for r in report["routes"]} == {"done"}
    return {r["name"]: (r["scores"], r["scores_dev"]) for r in report["routes"]}


def test_a_comparison_killed_again_and_again_pays_for_nothing_twice(
    tmp_path: Path, tiny_model: Path
):
    task = make_task(tmp_path, tiny_model)
    told = "\n".join(f"Box {box} opens with {code(box)}." for box in range(60))
    (tmp_path / "boxes.md").write_text(told, encoding="utf-8")
    with ChatServer(ScriptedModel(formless)) as server:
        run = command(tmp_path, task, server.url)
        subprocess.run([*run, str(tmp_path / "whole")], check=True, capture_output=True)
        asked = len(server.bodies)
    kills = 0
    with ChatServer(ScriptedModel(formless)) as server:
        run = [*command(tmp_path, task, server.url), str(tmp_path / "killed")]
        for after in KILLED_AFTER:
            resume = ["--resume"] if (tmp_path / "killed" / "config.json").exists() else []
            process = subprocess.Popen([*run, *resume], start_new_session=True)
            while process.poll() is None and len(server.bodies) < after:
                time.sleep(0.002)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
            process.wait()
        subprocess.run([*run, "--resume"], check=True, capture_output=True)
        assert kills == len(KILLED_AFTER)
        assert asked <= len(server.bodies) <= asked + kills * (UNDER_WAY + TIMED)
    assert finished(tmp_path / "killed") == finished(tmp_path / "whole")


@pytest.mark.parametrize("kept", [0, 3, 7, 12])
def test_a_chunk_of_which_only_some_was_written_is_answered_again_whole(tmp_path: Path, kept: int):
    """The disk was full, or the machine stopped, in the midst of a line."""
    asked: list[int] = []

    def answer(chunk: Sequence[Example]) -> list[Prediction]:
        asked.append(len(chunk))
        return answers_to(ScriptedModel(lambda request: "ü " * 9), chunk, "test", 8)

    path, rows = tmp_path / "predictions.jsonl", coloured(14)
    whole = [p.output for p in in_chunks(answer, rows, "test", path, size=5)]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:kept]) + lines[kept][:-9])
    asked.clear()
    assert [p.output for p in in_chunks(answer, rows, "test", path, size=5)] == whole
    assert asked == [5, 5, 4][kept // 5 :]
    assert [p.example_id for p in read_predictions(path)] == [row.id for row in rows]
