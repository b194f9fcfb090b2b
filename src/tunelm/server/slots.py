"""Many rows of different lengths as one batch, joining and leaving between two tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache

from tunelm.server.lean import LeanLlama

ROUND = 8
"""Widths are rounded up to this: some attention kernels want aligned rows."""


@dataclass(frozen=True, slots=True)
class Part:
    """Tokens that go through the model together: one more of all rows, or prompts that enter.

    Attributes:
        ids: the tokens, (rows, new); prompts are padded at their end.
        positions: their places in their rows, alike.
        mask: what they see, as the model takes it.
        rows: the numbers of the rows, (rows,).
        last: where in a row of `ids` its last token is, (rows,).
        slots: the slots of prompts that enter; None for one more token of every row.
        width: how many places the rows take up, the new tokens included.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    mask: Any
    rows: torch.Tensor
    last: torch.Tensor
    slots: slice | None
    width: int


class SlotCache(Cache):
    """Keys and values of all rows in one buffer a layer, (slots, heads, places, size).

    Nothing is moved when a row grows; one row's part is copied when another leaves. What stands
    behind a row's end is hidden by the mask: it is zero or stale, never NaN.

    `part` is what goes through the model.
    """

    part: Part

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.slots = self.places = 0
        self._layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def reserve(self, slots: int, places: int) -> bool:
        """Make room for so many rows of such a length; whether there was too little before."""
        if slots <= self.slots and places <= self.places:
            return False
        if slots > self.slots:
            self.slots = max(slots, 2 * self.slots)
        if places > self.places:
            self.places = max(places, 2 * self.places)
        self._layers = {i: (self._grown(k), self._grown(v)) for i, (k, v) in self._layers.items()}
        return True

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` places of one row over those of another."""
        for pair in self._layers.values():
            for buffer in pair:
                buffer[target, :, :length] = buffer[source, :, :length]

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Called by an attention layer with new keys and values, (rows, heads, new, size)."""
        if layer_idx not in self._layers:
            self._layers[layer_idx] = self._room(key_states), self._room(value_states)
        keys, values = self._layers[layer_idx]
        part, width = self.part, self.part.width
        if part.slots is not None:
            keys[part.slots, :, :width] = key_states
            values[part.slots, :, :width] = value_states
            return key_states, value_states
        rows, at = part.rows, part.positions[:, 0]
        keys[rows, :, at] = key_states[:, :, 0]
        values[rows, :, at] = value_states[:, :, 0]
        return keys[: len(rows), :, :width], values[: len(rows), :, :width]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """How many places stand before the new tokens, for models that ask."""
        return 0 if self.part.slots is not None else self.part.width - 1

    def _room(self, like: torch.Tensor) -> torch.Tensor:
        return like.new_zeros(self.slots, like.shape[1], self.places, like.shape[3])

    def _grown(self, old: torch.Tensor) -> torch.Tensor:
        grown = self._room(old)
        grown[: old.shape[0], :, : old.shape[2]] = old
        return grown


class _Masks:
    """Which places each row sees, as additive masks (slots, 1, 1, places), one for each window.

    A window is how far back a layer looks, in tokens; None is all the way.
    """

    def __init__(self, model: Any, windows: Mapping[str, int | None]) -> None:
        self.windows = windows
        self._kind = {"dtype": model.dtype, "device": model.device}
        self._hidden = torch.finfo(model.dtype).min
        self._buffers: dict[str, torch.Tensor] = {}

    def reserve(self, slots: int, places: int) -> None:
        """New buffers in which everything is hidden."""
        shape = (slots, 1, 1, places)
        self._buffers = {
            name: torch.full(shape, self._hidden, **self._kind) for name in self.windows
        }

    def see(self, row: int, length: int) -> None:
        """A row has so many tokens."""
        for name, window in self.windows.items():
            self._buffers[name][row] = self._hidden
            self._buffers[name][row, :, :, _first(length, window) : length] = 0.0

    def advance(self, rows: torch.Tensor, at: torch.Tensor) -> None:
        """Each row gets a token at place `at`."""
        for name, window in self.windows.items():
            buffer = self._buffers[name]
            buffer[rows, 0, 0, at] = 0.0
            if window is not None:
                behind = at - window
                # until the window is full, place 0 is in sight and stays so
                gone = (behind >= 0).to(buffer.dtype) * self._hidden
                buffer[rows, 0, 0, behind.clamp(min=0)] = gone

    def of(self, count: int, width: int) -> Any:
        """For the first rows, as a model takes it: one mask, or one for each kind of layer."""
        return self._one({k: b[:count, :, :, :width] for k, b in self._buffers.items()})

    def causal(self, width: int) -> Any:
        """For rows that enter: each token sees itself and those before it."""
        found: dict[str, torch.Tensor] = {}
        for name, window in self.windows.items():
            mask = torch.full((width, width), self._hidden, **self._kind).triu(1)
            if window is not None:
                mask += torch.full((width, width), self._hidden, **self._kind).tril(-window)
            found[name] = mask[None, None]
        return self._one(found)

    def _one(self, masks: dict[str, torch.Tensor]) -> Any:
        return next(iter(masks.values())) if len(masks) == 1 else masks


class Slots:
    """See `runner.Runner`. For models that take four-dimensional masks and positions.

    Args:
        model: a causal language model, in evaluation mode.
        windows: how far back its kinds of layers look, by the kind's name; None: all the way.
    """

    def __init__(self, model: Any, windows: Mapping[str, int | None]) -> None:
        self._model = model
        self._masks = _Masks(model, windows)
        self._cache = SlotCache()
        self._lengths: list[int] = []
        self._ends: Any = None

    @torch.inference_mode()
    def step(self, tokens: Sequence[int], new: Sequence[Sequence[list[int]]] = ()) -> torch.Tensor:
        """See Runner."""
        grown = [length + 1 for length in self._lengths]
        entering = [len(prompt) for group in new for prompt in group]
        self._reserve(len(grown) + len(entering), max(*grown, *entering, 0) + 1)
        parts = [self._one_more(tokens)] if tokens else []
        self._lengths = grown
        parts += [self._prompts(group) for group in new]
        if isinstance(self._model, LeanLlama):
            return self._model.last_logits(parts, self._cache)
        return torch.cat([self._last_logits(part) for part in parts])

    @torch.inference_mode()
    def enter_whole(self, prompt: list[int]) -> torch.Tensor:
        """See Runner."""
        self._reserve(len(self._lengths) + 1, len(prompt) + 1)
        part = self._prompts([prompt])
        if isinstance(self._model, LeanLlama):
            return self._model.all_logits(part, self._cache)
        return self._logits(part, 0)[0]

    def _one_more(self, tokens: Sequence[int]) -> Part:
        device, count = self._model.device, len(tokens)
        rows, at = torch.arange(count, device=device), self._ends[:count].clone()
        self._masks.advance(rows, at)
        self._ends[:count] += 1
        width = min(_rounded(max(self._lengths) + 1), self._cache.places)
        ids = torch.tensor(tokens, device=device)[:, None]
        mask = self._masks.of(count, width)
        return Part(ids, at[:, None], mask, rows, torch.zeros_like(rows), None, width)

    def _prompts(self, prompts: Sequence[list[int]]) -> Part:
        device, first, width = self._model.device, len(self._lengths), max(map(len, prompts))
        # padding stands behind a prompt, where no token of it looks
        ids = torch.tensor([prompt + [0] * (width - len(prompt)) for prompt in prompts])
        ends = torch.tensor([len(prompt) for prompt in prompts], device=device)
        slots = slice(first, first + len(prompts))
        for row, prompt in enumerate(prompts, first):
            self._lengths.append(len(prompt))
            self._masks.see(row, len(prompt))
        self._ends[slots] = ends
        places = torch.arange(width, device=device)[None].expand(len(prompts), -1)
        rows = torch.arange(slots.start, slots.stop, device=device)
        mask = self._masks.causal(width)
        return Part(ids.to(device), places, mask, rows, ends - 1, slots, width)

    def _last_logits(self, part: Part) -> torch.Tensor:
        kept, place = part.last.unique(return_inverse=True)
        logits = self._logits(part, kept)
        return logits[torch.arange(len(place), device=place.device), place]

    def _logits(self, part: Part, keep: int | torch.Tensor) -> torch.Tensor:
        self._cache.part = part
        out = self._model(
            input_ids=part.ids,
            attention_mask=part.mask,
            position_ids=part.positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        return out.logits.float()

    @torch.inference_mode()
    def leave(self, row: int) -> None:
        """See Runner. The last one to leave frees the memory."""
        length = self._lengths.pop()
        if not self._lengths:
            self._cache = SlotCache()
        elif row < len(self._lengths):
            self._cache.move(len(self._lengths), row, length)
            self._lengths[row] = self._ends[row] = length
            self._masks.see(row, length)

    def _reserve(self, slots: int, places: int) -> None:
        if self._cache.reserve(slots, _rounded(places)):
            slots, places = self._cache.slots, self._cache.places
            self._masks.reserve(slots, places)
            self._ends = torch.zeros(slots, dtype=torch.long, device=self._model.device)
            for row, length in enumerate(self._lengths):
                self._ends[row] = length
                self._masks.see(row, length)


def _first(length: int, window: int | None) -> int:
    return 0 if window is None else max(length - window, 0)


def _rounded(width: int) -> int:
    return -(-width // ROUND) * ROUND
