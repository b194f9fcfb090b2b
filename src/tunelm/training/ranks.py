"""Training on several processes: who each is, what they agree on, how the model is spread.

Each process (a *rank*) computes a share of every batch. With sharding "none" each holds the whole
model, and gradients are averaged (DDP, arXiv 2006.15704); with "full" it holds a part of every
layer's weights, gradients and optimizer states, gathered when the layer is computed (FSDP2, after
ZeRO stage 3, arXiv 1910.02054). Both by Accelerate, among processes that torchrun started.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch

Row = TypeVar("Row")


@dataclass(frozen=True)
class Ranks:
    """This process's place among those that train together. `ALONE` where there is only one."""

    rank: int = 0
    count: int = 1
    sharded: bool = False
    accelerator: Any = None

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files and events."""
        return self.rank == 0

    @property
    def device(self) -> str | None:
        """Where this process computes; None: wherever it would if it were alone."""
        return None if self.accelerator is None else str(self.accelerator.device)

    def spread(self, model: Any, optimizer: Any) -> tuple[Any, Any]:
        """Prepare for training together.

        Returns:
            What to call for a forward pass that is followed by a backward one, and the optimizer.
            `model` itself stays valid; sharded, its parameters are exchanged for shards.
        """
        if self.accelerator is None:
            return model, optimizer
        called, prepared = self.accelerator.prepare(model, optimizer)
        return called, prepared.optimizer

    def shares(self, rows: Sequence[Row]) -> list[list[Row]]:
        """What each process computes of a batch; `rows` sorted by length give equal shares.

        >>> Ranks(count=2).shares([1, 2, 3])
        [[1, 3], [2]]
        """
        return [list(rows[rank :: self.count]) for rank in range(self.count)]

    @contextmanager
    def holding_back(self, called: Any, hold: bool) -> Generator[None]:
        """Within, gradients stay in this process where `hold`: more of the same step follows."""
        if hold and self.count > 1 and not self.sharded:
            with called.no_sync():
                yield
        else:
            yield

    def summed(self, *values: float) -> list[float]:
        """Each value, summed over all processes."""
        if self.count == 1:
            return list(values)
        together = torch.tensor(values, dtype=torch.float64, device=self._meeting_place())
        torch.distributed.all_reduce(together)
        return together.tolist()

    def any(self, *flags: bool) -> list[bool]:
        """For each flag, whether it is set in some process."""
        return [total > 0 for total in self.summed(*flags)]

    def of_first(self, value: float) -> float:
        """The value that the first process has."""
        return self.summed(value if self.first else 0.0)[0]

    def wait(self) -> None:
        """Return once all processes have come here."""
        if self.count > 1:
            torch.distributed.barrier()

    def seed(self, seed: int, step: int) -> None:
        """Give each process, and each step, random numbers of its own.

        They hang on nothing else, so that a run that goes on needs no stored state, on whatever
        number of processes. A process that is alone keeps the one stream it was seeded with.
        """
        if self.count > 1:
            numbers = np.random.SeedSequence([seed, step, self.rank]).generate_state(1)
            torch.manual_seed(int(numbers[0]))

    def _meeting_place(self) -> str:
        backend = torch.distributed.get_backend()
        return "cpu" if "gloo" in backend else str(self.accelerator.device)


ALONE = Ranks()
LONGEST_WAIT = timedelta(days=1)
"""While the first process makes tokens of millions of rows the others wait for it. By default they
give up after ten minutes on GPUs, thirty without. One that is gone ends the wait at once: torchrun
then ends them all."""


def join(device: str, sharding: str) -> Ranks:
    """Meet the processes that torchrun started, or be alone where it did not start this one.

    Args:
        device: a torch device type; one of GPU processes then computes on the GPU of its number.
        sharding: "none" or "full".
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE
    from accelerate import Accelerator
    from accelerate.utils import FullyShardedDataParallelPlugin, InitProcessGroupKwargs

    plugin = None
    if sharding == "full":
        # a layer at a time; every process loads the base by itself, from the same files
        plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2,
            auto_wrap_policy="transformer_based_wrap",
            reshard_after_forward=True,
            cpu_ram_efficient_loading=False,
        )
    accelerator = Accelerator(
        cpu=device == "cpu",
        fsdp_plugin=plugin,
        mixed_precision="no",
        kwargs_handlers=[InitProcessGroupKwargs(timeout=LONGEST_WAIT)],
    )
    return Ranks(
        accelerator.process_index, accelerator.num_processes, plugin is not None, accelerator
    )


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor with all its parts, which all processes must ask for together."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def placed(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """`value` on the device of `like`, and spread as it is."""
    mesh = getattr(like, "device_mesh", None)
    if mesh is None:
        return value.to(like.device)
    from torch.distributed.tensor import distribute_tensor

    spread: Any = like
    return distribute_tensor(value, mesh, spread.placements, src_data_rank=None)
