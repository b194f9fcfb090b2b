"""Counting the bytes of tensors that are alive while code runs, on real or on fake tensors."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_READ = torch.ops.aten._local_scalar_dense.default  # pyright: ignore[reportPrivateUsage]
"""The operator behind `tensor.item()`, `float(tensor)` and `bool(tensor)`."""


class LiveBytes(TorchDispatchMode):
    """Within, every storage that an operator makes is counted until it is freed.

    `current` and `peak` are bytes. A fake tensor holds no values: where one is read as a
    number, the number is 1, so that a loss is finite and the step goes on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.current = 0
        self.peak = 0
        self._seen: set[int] = set()

    def count(self, values: Iterable[Any]) -> None:
        """Count the tensors among `values` that are not counted yet."""
        for value in values:
            if isinstance(value, torch.Tensor):
                self._add(value)

    def mark(self) -> None:
        """Forget the peak so far: the next begins at what is alive now."""
        self.peak = self.current

    def _add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata  # pyright: ignore[reportPrivateUsage]
        if key in self._seen:
            return
        size = storage.nbytes()
        self._seen.add(key)
        self.current += size
        self.peak = max(self.peak, self.current)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self.current -= size
        self._seen.discard(key)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run one operator and count what it made."""
        if func is _READ:
            kind = args[0].dtype
            return True if kind == torch.bool else 1.0 if kind.is_floating_point else 1
        made = func(*args, **(kwargs or {}))
        self.count(tree_leaves(made))
        return made
