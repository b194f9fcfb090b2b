"""kill -9 of a server in the middle of a job."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def benchmark(name: str) -> ModuleType:
    """One of the scripts that do the same for longer."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_a_killed_server_goes_on_with_its_jobs(tmp_path: Path):
    undisturbed, kills = benchmark("server_kills").run(tmp_path, kills=1, stops=1, seed=487)
    assert undisturbed.status == "succeeded"
    for kill in kills:
        assert kill.ended == undisturbed, f"killed after {kill.seconds} s, while {kill.during}"
    state = tmp_path / "state"
    assert not list((state / "incoming").iterdir())
    assert not list((state / "jobs").iterdir())
