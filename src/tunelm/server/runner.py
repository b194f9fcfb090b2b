"""The rows that one model is answering, whichever way the model can be run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import torch

from tunelm.server.lean import LeanLlama, can_be_lean
from tunelm.server.slots import Slots

_TRIAL = [[5, 9, 7, 11, 6], [8, 5], [7, 7, 12, 5, 9, 10, 6, 8]]
_GROWING = ("dynamic", "longrope")
"""Kinds of rotary positions that depend on the longest row of a batch."""


class Runner(Protocol):
    """The rows of one model, numbered from 0 in the order they entered. Logits are float32."""

    def step(self, tokens: Sequence[int], new: Sequence[Sequence[list[int]]] = ()) -> torch.Tensor:
        """One more token in each row there is; prompts enter behind them.

        Args:
            tokens: one for each row.
            new: prompts in groups alike in length.

        Returns:
            The logits after each row's last token, (rows, vocabulary), the new rows last.
        """
        ...

    def enter_whole(self, prompt: list[int]) -> torch.Tensor:
        """Take in one row; the logits after each token of its prompt, (tokens, vocabulary)."""
        ...

    def leave(self, row: int) -> None:
        """Let a row go; the last row takes its number."""
        ...


class Singly:
    """See Runner. One row after the other, with the cache a model makes itself: any model."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._rows: list[dict[str, Any]] = []
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters

    def step(self, tokens: Sequence[int], new: Sequence[Sequence[list[int]]] = ()) -> torch.Tensor:
        """See Runner."""
        found: list[torch.Tensor] = []
        for i, token in enumerate(tokens):
            logits, self._rows[i] = self._run([token], self._rows[i])
            found.append(logits)
        for prompt in (prompt for group in new for prompt in group):
            logits, row = self._run(prompt, {})
            self._rows.append(row)
            found.append(logits[-1:])
        return torch.cat(found)

    def enter_whole(self, prompt: list[int]) -> torch.Tensor:
        """See Runner."""
        logits, row = self._run(prompt, {}, whole=True)
        self._rows.append(row)
        return logits

    def leave(self, row: int) -> None:
        """See Runner."""
        last = self._rows.pop()
        if row < len(self._rows):
            self._rows[row] = last

    @torch.inference_mode()
    def _run(
        self, tokens: Sequence[int], state: dict[str, Any], whole: bool = False
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        keep = {"logits_to_keep": 1} if self._keeps and not whole else {}
        ids = torch.tensor([tokens], device=self._model.device)
        out = self._model(input_ids=ids, use_cache=True, **state, **keep)
        names = ("past_key_values", "cache_params")  # the second: state-space models
        kept = {name: out[name] for name in names if name in out}
        return out.logits[0].float(), kept


def choose_runner(model: Any) -> tuple[Callable[[Any], Runner], str | None]:
    """How a model, and the same with an adapter, is run; and why not as a batch, if so.

    What the model's description cannot tell is tried: rows that join and leave must get the
    logits that they get alone.
    """
    windows = _windows(model)
    if windows is None:
        return Singly, "its kind of attention or of positions needs each row alone"

    reason = ""
    for batched in (partial(_lean, windows=windows), partial(Slots, windows=windows)):
        try:
            alone, together = _play(Singly(model)), _play(batched(model))
        except Exception as error:  # a model of any kind may fail in any way
            reason = f"the trial of a batch failed ({type(error).__name__}: {error})"
            continue
        off = float((together - alone).norm() / alone.norm())
        if off < (1e-3 if model.dtype == torch.float32 else 5e-2):
            return batched, None
        reason = f"rows of a batch get other logits than alone (by {off:.2g})"
    return Singly, reason


def _lean(model: Any, windows: Mapping[str, int | None]) -> Runner:
    return Slots(LeanLlama(model) if can_be_lean(model) else model, windows)


def _windows(model: Any) -> dict[str, int | None] | None:
    """How far back each kind of layer looks; None where a batch cannot be right.

    >>> from types import SimpleNamespace as Model
    >>> def forward(input_ids, attention_mask, position_ids, logits_to_keep): ...
    >>> config = Model(layer_types=["sliding_attention", "full_attention"], sliding_window=64)
    >>> _windows(Model(config=config, forward=forward))
    {'sliding_attention': 64, 'full_attention': None}
    """
    config = model.config
    rope = getattr(config, "rope_parameters", None) or {}
    takes = inspect.signature(model.forward).parameters
    window = getattr(config, "sliding_window", None)
    kinds = list(dict.fromkeys(getattr(config, "layer_types", None) or ()))
    if not kinds:
        kinds = ["full_attention" if window is None else "sliding_attention"]
    if (
        not {"position_ids", "logits_to_keep", "attention_mask"} <= set(takes)
        or getattr(config, "is_encoder_decoder", False)
        or str(rope.get("rope_type")) in _GROWING
        or hasattr(config, "attention_layers")  # GPT-Neo: windows under another name
        or not set(kinds) <= {"full_attention", "sliding_attention"}
        or ("sliding_attention" in kinds and not isinstance(window, int))
    ):
        return None
    return {kind: window if kind == "sliding_attention" else None for kind in kinds}


def _play(runner: Runner) -> torch.Tensor:
    """Logits of a few rows that join one another and part again."""
    first, *others = _TRIAL
    found = [runner.step([], [[first]]), runner.step([6]), runner.step([7], [others, [first]])]
    found.append(runner.step([8, 9, 10, 11]))
    runner.leave(0)
    found += [runner.step([12, 5, 7]), runner.enter_whole(others[0]), runner.step([6, 7, 8, 9])]
    return torch.cat(found)
