"""What the run directory measures and keeps."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tunelm.rundir import peak_memory, read_json, write_json


def test_a_process_reports_its_own_peak_and_not_that_of_the_one_that_started_it():
    ballast = bytearray(600 * 2**20)
    ballast[::4096] = b"x" * len(ballast[::4096])  # touched, so resident
    assert peak_memory() > 600 * 2**20
    code = "from tunelm.rundir import peak_memory; print(peak_memory())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 2**20 < int(child.stdout) < 300 * 2**20
    del ballast


def test_json_is_written_whole_and_nan_is_refused(tmp_path: Path):
    path = tmp_path / "x.json"
    write_json(path, {"a": None})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": None}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
    assert read_json(tmp_path / "none.json", {"b": 1}) == {"b": 1}


def test_a_run_killed_before_its_first_file_can_be_started_again(task: Path, tmp_path: Path):
    from tunelm import load_config
    from tunelm.errors import RunDirError
    from tunelm.rundir import RunDir

    for resume in (False, True):
        folder = tmp_path / f"run-{resume}"
        folder.mkdir()
        (folder / ".lock").touch()
        (folder / "owner.json").write_text('{"pid": 1, "host": "gone"}')
        with RunDir.start(folder, load_config(task), resume=resume):
            assert (folder / "config.json").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.docx").touch()
    with pytest.raises(RunDirError, match="is not a run directory"):
        RunDir.start(tmp_path / "other", load_config(task))
