"""Training on several processes: the same losses as on one, and a run goes on on any number."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.cluster import free_port
from tests.test_training import adapter_weights, broken_model, chats, events, job_for, prepared
from tunelm.config import load_config
from tunelm.errors import StoppedError, TrainingError
from tunelm.route_settings import LocalSettings
from tunelm.testing import make_tiny_model
from tunelm.training import process

pytest.importorskip("torch")
pytest.importorskip("peft")

import torch

from tunelm.training.worker import run

TRAIN, DEV = chats(19), chats(5, 90)
"""Batches of five and four: shares that are not equal, and one process now and then without."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("base") / "tiny")


def job(tiny, **settings):
    """With micro batches so small that processes have different numbers of them."""
    asked = {"batch_size": 5, "epochs": 3, "gradient_checkpointing": True} | settings
    return job_for(tiny, **asked).model_copy(update={"micro_tokens": 80})


@pytest.fixture(scope="module")
def alone(tiny, tmp_path_factory) -> Path:
    work = tmp_path_factory.mktemp("alone")
    run(prepared(work, job(tiny), TRAIN, DEV))
    return work


def losses(work: Path, kind: str, key: str) -> list[float]:
    """Of each step, or evaluation, the last time that it was made."""
    return list({e["step"]: e[key] for e in events(work) if e["event"] == kind}.values())


def agree(work: Path, alone: Path) -> None:
    for kind, key in (("step", "loss"), ("step", "accuracy"), ("evaluation", "dev_loss")):
        assert losses(work, kind, key) == pytest.approx(losses(alone, kind, key), rel=1e-4)
    mine, theirs = adapter_weights(work), adapter_weights(alone)
    assert mine.keys() == theirs.keys()
    for name, weights in mine.items():
        assert torch.allclose(weights, theirs[name], rtol=1e-3, atol=1e-5), name


@pytest.mark.parametrize("sharding", ["none", "full"])
def test_two_processes_have_the_losses_and_the_adapter_of_one(tiny, alone, tmp_path, sharding):
    work = prepared(tmp_path, job(tiny, sharding=sharding), TRAIN, DEV)
    result = process.train(work, processes=2)
    agree(work, alone)
    assert result["processes"] == 2
    assert result["trainable_parameters"] > 0
    assert bool(list(work.glob("checkpoints/*/shards"))) == (sharding == "full")


def test_a_run_goes_on_on_another_number_of_processes(tiny, alone, tmp_path):
    def until(step: int, processes: int) -> None:
        prepared(tmp_path, job(tiny, sharding="full"), TRAIN, DEV)
        told: list[int] = []
        with pytest.raises(StoppedError):
            process.train(
                tmp_path,
                on_event=lambda e: told.append(e["step"]),
                stop=lambda: bool(told) and told[-1] >= step,
                processes=processes,
            )

    prepared(tmp_path, job(tiny), TRAIN, DEV)
    with pytest.raises(StoppedError, match="after step 1"):
        run(tmp_path, stop=lambda: True)
    until(5, processes=2)
    until(8, processes=3)
    prepared(tmp_path, job(tiny), TRAIN, DEV)
    run(tmp_path)
    resumed = [e["step"] for e in events(tmp_path) if e["event"] == "resumed"]
    assert len(resumed) == 3
    assert resumed == sorted(resumed)
    agree(tmp_path, alone)


def test_where_one_of_the_processes_is_killed_the_next_call_goes_on(tiny, alone, tmp_path):
    work = prepared(tmp_path, job(tiny), TRAIN, DEV)

    def kill_one(event):
        if event["event"] == "step" and event["step"] == 3:
            mine = psutil.Process().children(recursive=True)
            last = [p for p in mine if p.environ().get("RANK") == "1"]
            os.kill(last[0].pid, signal.SIGKILL)

    with pytest.raises(TrainingError, match="killed by signal 9"):
        process.train(work, on_event=kill_one, processes=2)
    assert not (work / "adapter").exists()
    process.train(work, processes=2)
    agree(work, alone)


def test_the_error_of_several_processes_is_the_one_line_of_one(tmp_path):
    work = prepared(tmp_path / "work", job(broken_model(tmp_path / "base")))
    with pytest.raises(TrainingError, match=r"^the dev loss is nan[^\n]*$"):
        process.train(work, processes=2)
    assert not (work / "adapter").exists()


def test_torchrun_starts_processes_on_each_node_of_a_slurm_job():
    assert process.starter(1, {})[1:] == []
    assert process.starter(2, {"SLURM_JOB_NUM_NODES": "1"})[-1] == "--standalone"
    two = process.starter(4, {"SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": "7"})
    assert two[:3] == ["srun", "--nodes=2", "--ntasks-per-node=1"]
    assert {"--nnodes=2", "--nproc-per-node=4", "--rdzv-id=7"} <= set(two)


def test_how_a_machine_trains_does_not_make_another_run_of_it():
    config = load_config("edu-qa", ["routes.local.r=8"])
    several = load_config(
        "edu-qa",
        ["routes.local.r=8", "routes.local.processes=2", "routes.local.sharding=full"],
    )
    assert several.route_digest("local") == config.route_digest("local")
    assert several.routes["local"] != config.routes["local"]
    assert isinstance(several.routes["local"], LocalSettings)


def test_processes_that_two_machines_started_train_together(tiny, alone, tmp_path):
    """Two starts of torchrun, as on two nodes, that meet at an address of the first."""
    work = prepared(tmp_path, job(tiny, sharding="full"), TRAIN, DEV)
    port = free_port()
    command = [
        *["-m", "torch.distributed.run", "--nnodes=2", "--rdzv-backend=c10d", "--rdzv-id=two"]
    ]
    command += [f"--rdzv-endpoint=localhost:{port}", "-m", "tunelm.training", str(work)]
    nodes = [
        subprocess.Popen([sys.executable, *command], stderr=subprocess.DEVNULL) for _ in range(2)
    ]
    assert [node.wait(200) for node in nodes] == [0, 0]
    agree(work, alone)
