"""Where a killed run goes on: adapter, optimizer, random state and place in the data.

A checkpoint is a folder `checkpoints/step-N`, written under another name and then renamed, so
one that exists is whole. A run that goes on from it gives the same weights, bit for bit on a
CPU, as one that was never disturbed; on another number of processes the same but for rounding.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load as load_shards
from torch.distributed.checkpoint.state_dict_saver import save as save_shards

from tunelm.training.adapter import trainable
from tunelm.training.job import replace_folder
from tunelm.training.ranks import ALONE, Ranks, placed

WEIGHTS = "weights.safetensors"
"""What is trained and the optimizer's states, where one process holds them all."""


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


def save(
    work: Path, state: State, model: torch.nn.Module, optimizer: Any, ranks: Ranks = ALONE
) -> None:
    """Write a checkpoint; keep the last two and the best.

    Processes that hold a part of the model each write what they hold, into `shards`.
    """
    folder = work / "checkpoints"
    part = folder / "part"
    if ranks.first:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
    ranks.wait()
    tensors = _tensors(model, optimizer)
    if ranks.sharded:
        save_shards(tensors, checkpoint_id=part / "shards")
    elif ranks.first:
        save_file({n: t.contiguous() for n, t in tensors.items()}, part / WEIGHTS)
    if ranks.first:
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        torch.save({"cpu": torch.get_rng_state(), "cuda": cuda}, part / "random.pt")
        text = json.dumps(dataclasses.asdict(state), indent=2)
        (part / "state.json").write_text(text, encoding="utf-8")
        replace_folder(part, folder / f"step-{state.step}")
        for step in sorted(_steps(folder))[:-2]:
            if step != state.best_step:
                shutil.rmtree(folder / f"step-{step}")
    ranks.wait()


def restore(work: Path, model: torch.nn.Module, optimizer: Any) -> State | None:
    """Go back to the last checkpoint, on any number of processes; None when there is none."""
    folder = work / "checkpoints"
    steps = list(_steps(folder))
    if not steps:
        return None
    last = folder / f"step-{max(steps)}"
    weights = trainable(model)
    for path, tensor in _read(last, weights).items():
        kind, _, name = path.partition("/")
        if kind == "weights":
            _fill(weights[name], tensor)
        else:  # the count of steps too is where the fused kernel looks for it
            optimizer.state[weights[name]][kind] = tensor.to(weights[name].device)
    random = torch.load(last / "random.pt", weights_only=True)
    torch.set_rng_state(random["cpu"])
    if random["cuda"] and torch.cuda.device_count() == len(random["cuda"]):
        torch.cuda.set_rng_state_all(random["cuda"])
    return State(**json.loads((last / "state.json").read_text(encoding="utf-8")))


def load_weights(work: Path, step: int, model: torch.nn.Module) -> None:
    """Put the trained weights of one checkpoint into the model."""
    weights = trainable(model)
    wanted = {f"weights/{name}" for name in weights}
    found = _read(work / "checkpoints" / f"step-{step}", weights, wanted)
    for name, parameter in weights.items():
        _fill(parameter, found[f"weights/{name}"])


def _tensors(model: torch.nn.Module, optimizer: Any) -> dict[str, torch.Tensor]:
    """What is trained as `weights/NAME`, and AdamW's states of it as `exp_avg/NAME` and so on."""
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in trainable(model).items():
        tensors[f"weights/{name}"] = parameter.detach()
        for key, value in optimizer.state[parameter].items():
            tensors[f"{key}/{name}"] = value
    return tensors


def _read(
    folder: Path, weights: Mapping[str, torch.Tensor], wanted: Collection[str] | None = None
) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint, or those `wanted`, spread as the parameters they belong to."""
    shards = folder / "shards"
    if not shards.is_dir():
        stored = load_file(folder / WEIGHTS)
        likes = {name: weights[name.partition("/")[2]] for name in stored}
        return {
            name: placed(tensor, likes[name]) if tensor.shape == likes[name].shape else tensor
            for name, tensor in stored.items()
            if wanted is None or name in wanted
        }
    sizes = FileSystemReader(shards).read_metadata().state_dict_metadata
    tensors: dict[str, torch.Tensor] = {}
    for name, about in sizes.items():
        like: Any = weights[name.partition("/")[2]]
        if wanted is None or name in wanted:
            own = tuple(about.size) == tuple(like.shape)  # pyright: ignore
            tensors[name] = torch.zeros_like(like) if own else torch.zeros(about.size)  # pyright: ignore
    load_shards(tensors, checkpoint_id=shards)
    return tensors


def _fill(parameter: torch.Tensor, tensor: torch.Tensor) -> None:
    with torch.no_grad():
        parameter.copy_(tensor)


def _steps(folder: Path) -> Iterable[int]:
    return [int(path.name.removeprefix("step-")) for path in folder.glob("step-*")]
