"""Shared fixtures: a tiny model made once, rows, and a cache that is not the user's."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunelm.types import Example, Message

os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:
    # tests beside each other share the cores: threads of PyTorch would spin, waiting for their turn
    os.environ.setdefault("OMP_NUM_THREADS", "1")
if os.name == "posix":
    # what a shell runs in the background ignores Ctrl-C, and hands that on to what it starts
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNELM_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("TUNELM_DATA", str(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an untrained Llama of 40,000 parameters."""
    from tunelm.testing import make_tiny_model

    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tuning_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a `tunelm serve` that has tunelm-nano-small and takes fine-tuning jobs."""
    pytest.importorskip("fastapi")
    from tunelm.config import ModelConfig
    from tunelm.routes.finetune_server import LocalServer

    base = ModelConfig(base="tunelm-nano-small")
    with LocalServer(base, tmp_path_factory.mktemp("tuning")) as server:
        yield server.url


def write_rows(path: Path, count: int) -> Path:
    """`count` rows, two a group, that a tiny model can learn the form of."""
    rows = [
        {
            "question": f"What is the code of box {i // 2}{'?' if i % 2 else ' please?'}",
            "answer": f"The code is {i // 2 * 7 % 10}.",
            "key_answer": str(i // 2 * 7 % 10),
            "group": f"box-{i // 2}",
        }
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


def make_task(folder: Path, tiny_model: Path) -> Path:
    """A task file over 120 rows in 60 groups, with routes capped to a few steps."""
    write_rows(folder / "rows.jsonl", 120)
    path = folder / "boxes.toml"
    path.write_text(
        f"""
[task]
name = "boxes"
instructions = "Answer."
max_tokens = 8
[data]
path = "rows.jsonl"
dev = 0.15
test = 0.5
min_test_groups = 10
[model]
base = {json.dumps(str(tiny_model))}
[compare]
routes = ["constant", "baseline", "prompt", "local"]
[routes.prompt]
strategy = "labeled"
demos = 2
[routes.local]
max_steps = 6
stop_on = "none"
""",
        encoding="utf-8",
    )
    return path


@pytest.fixture
def task(tmp_path: Path, tiny_model: Path) -> Path:
    """`make_task` in the test's own folder."""
    return make_task(tmp_path, tiny_model)


COLOURS = ("red", "green", "blue", "grey")


def coloured(count: int, start: int = 0) -> list[Example]:
    """Questions for the colour of numbered things, two a group."""
    return [
        Example(
            id=f"e{i}",
            messages=(Message("user", f"Which colour is thing {i}?"),),
            answers=(f"It is {COLOURS[i % 4]}.",),
            group=f"g{i // 2}",
        )
        for i in range(start, start + count)
    ]
