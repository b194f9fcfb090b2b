"""Where a killed run goes on: adapter, optimizer, random state and place in the data.

A checkpoint is a folder `checkpoints/step-N`, written under another name and then renamed, so
one that exists is whole. A run that goes on from it gives the same weights, bit for bit on a
CPU, as one that was never disturbed.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tunelm.training.adapter import trainable
from tunelm.training.job import replace_folder


@dataclass
class State:
    """How far a run is. Losses are nats per supervised token; `value` is what stops early."""

    step: int = 0
    epoch: int = 0
    position: int = 0
    """Batches of this epoch that are done."""
    train_loss: float | None = None
    """Of the last step."""
    dev_loss_before: float | None = None
    dev_loss: float | None = None
    metric: float | None = None
    best_step: int | None = None
    best_value: float | None = None
    """The dev loss, or the metric, at the best step."""
    best_dev_loss: float | None = None
    bad_evaluations: int = 0
    stopped_early: bool = False
    tokens: int = 0
    """Tokens fed to the model in training, without padding."""
    padded_tokens: int = 0
    supervised_tokens: int = 0
    step_seconds: float = 0.0
    """Spent in training steps, without evaluation and checkpoints."""
    seconds: float = 0.0
    """Spent in all."""


def save(work: Path, state: State, model: torch.nn.Module, optimizer: Any) -> None:
    """Write a checkpoint; keep the last two and the best."""
    folder = work / "checkpoints"
    part = folder / "part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    weights = {n: p.detach().contiguous() for n, p in trainable(model).items()}
    save_file(weights, part / "adapter.safetensors")
    torch.save(optimizer.state_dict(), part / "optimizer.pt")
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    torch.save({"cpu": torch.get_rng_state(), "cuda": cuda}, part / "random.pt")
    text = json.dumps(dataclasses.asdict(state), indent=2)
    (part / "state.json").write_text(text, encoding="utf-8")
    replace_folder(part, folder / f"step-{state.step}")
    steps = sorted(_steps(folder))
    for step in steps[:-2]:
        if step != state.best_step:
            shutil.rmtree(folder / f"step-{step}")


def restore(work: Path, model: torch.nn.Module, optimizer: Any) -> State | None:
    """Go back to the last checkpoint; None when there is none."""
    folder = work / "checkpoints"
    steps = list(_steps(folder))
    if not steps:
        return None
    last = folder / f"step-{max(steps)}"
    load_weights(work, max(steps), model)
    optimizer.load_state_dict(torch.load(last / "optimizer.pt", weights_only=True))
    random = torch.load(last / "random.pt", weights_only=True)
    torch.set_rng_state(random["cpu"])
    if random["cuda"] and torch.cuda.device_count() == len(random["cuda"]):
        torch.cuda.set_rng_state_all(random["cuda"])
    return State(**json.loads((last / "state.json").read_text(encoding="utf-8")))


def load_weights(work: Path, step: int, model: torch.nn.Module) -> None:
    """Put the adapter's weights of one checkpoint into the model."""
    saved = load_file(work / "checkpoints" / f"step-{step}" / "adapter.safetensors")
    with torch.no_grad():
        for name, parameter in trainable(model).items():
            parameter.copy_(saved[name])


def _steps(folder: Path) -> Iterable[int]:
    return [int(path.name.removeprefix("step-")) for path in folder.glob("step-*")]
