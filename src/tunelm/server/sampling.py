"""Choosing the next token of each row of a batch.

A row's choice depends on its own logits and its own seed alone. One uniform number a token is
looked up in the row's cumulated probabilities, so a rounding difference between batches of
another size moves a choice only when the number falls on the very edge.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from tunelm.server.asking import Sampling, Scored

GREEDY_BELOW = 1e-5
"""A temperature under which dividing by it would overflow; the likeliest token is taken."""
UNLIKELY = -9999.0
"""What stands for the logarithm of zero, which JSON cannot hold."""


class Chooser:
    """The state of one row's sampling: its random numbers, and what its answer holds so far."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self.greedy = sampling.temperature < GREEDY_BELOW
        self._random = random.Random(sampling.seed)
        self._penalized = bool(sampling.frequency_penalty or sampling.presence_penalty)
        self._said: Counter[int] = Counter()

    @property
    def plain(self) -> bool:
        """Whether the logits are taken as they are."""
        return not (self.sampling.bias or self._said)

    def note(self, token: int) -> None:
        """The token that was chosen."""
        if self._penalized:
            self._said[token] += 1

    def draw(self) -> float:
        """The next random number, in [0, 1)."""
        return self._random.random()

    def adjust(self, logits: torch.Tensor) -> None:
        """Penalties and biases on this row's logits (vocabulary), in place."""
        changes = dict(self.sampling.bias)
        for token, count in self._said.items():
            off = self.sampling.frequency_penalty * count + self.sampling.presence_penalty
            changes[token] = changes.get(token, 0.0) - off
        at = torch.tensor(list(changes), device=logits.device)
        logits[at] += torch.tensor(list(changes.values()), dtype=logits.dtype, device=logits.device)


@torch.inference_mode()
def choose(logits: torch.Tensor, rows: Sequence[Chooser]) -> list[int]:
    """A token for each row. `logits` is (rows, vocabulary) in float32 and may be changed."""
    for i, row in enumerate(rows):
        if not row.plain:
            row.adjust(logits[i])
    chosen = logits.argmax(-1)
    drawn = [i for i, row in enumerate(rows) if not row.greedy]
    if drawn:
        at = slice(None) if len(drawn) == len(rows) else torch.tensor(drawn, device=logits.device)
        chosen[at] = _draw(logits[at], [rows[i] for i in drawn])
    tokens: list[int] = chosen.tolist()
    for row, token in zip(rows, tokens, strict=True):
        row.note(token)
    return tokens


def _draw(logits: torch.Tensor, rows: Sequence[Chooser]) -> torch.Tensor:
    def column(values: list[float], dtype: torch.dtype) -> torch.Tensor:
        return torch.tensor(values, dtype=dtype, device=logits.device)[:, None]

    heat = column([row.sampling.temperature for row in rows], logits.dtype)
    odds = torch.softmax(logits / heat, -1)
    for i, row in enumerate(rows):
        if row.sampling.top_p < 1:
            odds[i] = _nucleus(odds[i], row.sampling.top_p)
    # float32 sums over a large vocabulary lose the unlikely tokens; MPS has no float64
    wide = torch.float32 if logits.device.type == "mps" else torch.float64
    sums = odds.cumsum(-1, dtype=wide)
    target = column([row.draw() for row in rows], wide) * sums[:, -1:]
    found = torch.searchsorted(sums, target, right=True)[:, 0]
    return found.clamp(max=logits.shape[-1] - 1)


def _nucleus(odds: torch.Tensor, top_p: float) -> torch.Tensor:
    """The probabilities with all but the likeliest set to zero; at least one stays."""
    ordered, at = odds.sort(descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    kept = torch.zeros_like(odds)
    kept[at] = torch.where(before < top_p, ordered, 0.0)
    return kept


@torch.inference_mode()
def score(
    logits: torch.Tensor, tokens: Sequence[int], tops: Sequence[int], starts: Sequence[int]
) -> list[Scored]:
    """Log-probabilities of chosen tokens under (places, vocabulary) logits, and the likeliest."""
    found = logits.float().log_softmax(-1)
    chosen = found.gather(-1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0].tolist()
    most = max(tops)
    best: Any = found.topk(most) if most else None
    ids, values = (best.indices.tolist(), best.values.tolist()) if most else ([], [])
    return [
        Scored(
            token,
            max(chosen[i], UNLIKELY),
            tuple((t, max(v, UNLIKELY)) for t, v in zip(ids[i][:top], values[i][:top], strict=True))
            if most
            else (),
            start,
        )
        for i, (token, top, start) in enumerate(zip(tokens, tops, starts, strict=True))
    ]
