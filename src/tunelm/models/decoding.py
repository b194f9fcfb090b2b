"""Batched decoding on a Transformers model: tokens for many prompts at once.

Ours rather than `generate`, because each row has its own limit, stop strings, temperature and
seed, rows that are done leave the batch, and closing the iterator ends the work. It knows
nothing of chats or templates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from tunelm.types import FinishReason


@dataclass
class Row:
    """One prompt being answered; `tokens` grows, `finish` is set when it is done."""

    prompt: list[int]
    max_tokens: int
    temperature: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    tokens: list[int] = field(default_factory=list[int])
    text: str = ""
    finish: FinishReason | None = None


@torch.inference_mode()
def decode(model: Any, tokenizer: Any, rows: Sequence[Row]) -> Iterator[None]:
    """Answer all rows, in place; yields after each step (one more token in each open row).

    The caller sees that every prompt and its answer fit the model's context.
    """
    from transformers import DynamicCache

    ends = end_tokens(model, tokenizer)
    generators = {id(r): _generator(model, r) for r in rows if r.temperature > 0}
    live = list(rows)
    ids, mask = _left_padded(live, tokenizer.pad_token_id, model.device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    while live:
        out = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        chosen = _choose(out.logits[:, -1].float(), live, generators)
        for row, token in zip(live, chosen.tolist(), strict=True):
            if row.finish is None:
                _extend(row, token, ends, tokenizer)
        yield
        open_rows = [i for i, row in enumerate(live) if row.finish is None]
        if not open_rows:
            return
        if 2 * len(open_rows) <= len(live):  # copying the cache costs; do it when it halves
            keep = torch.tensor(open_rows, device=mask.device)
            cache.batch_select_indices(keep)
            live = [live[i] for i in open_rows]
            chosen, mask, positions = chosen[keep], mask[keep], positions[keep]
        ids = chosen[:, None]
        mask = torch.cat([mask, mask.new_ones(len(live), 1)], dim=1)
        positions = positions[:, -1:] + 1


def end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Every token that ends an answer: the tokenizer's, and the generation config's."""
    configured = model.generation_config.eos_token_id
    ends = set(configured) if isinstance(configured, list) else {configured}
    return {e for e in ends | {tokenizer.eos_token_id} if e is not None}


def _left_padded(
    rows: Sequence[Row], pad: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(len(r.prompt) for r in rows)
    ids = torch.full((len(rows), width), pad, device=device)
    mask = torch.zeros((len(rows), width), dtype=torch.long, device=device)
    for i, row in enumerate(rows):
        ids[i, width - len(row.prompt) :] = torch.tensor(row.prompt, device=device)
        mask[i, width - len(row.prompt) :] = 1
    return ids, mask


def _generator(model: Any, row: Row) -> torch.Generator:
    generator = torch.Generator(device=model.device)
    if row.seed is None:
        generator.seed()
    else:
        generator.manual_seed(row.seed)
    return generator


def _choose(
    logits: torch.Tensor, rows: Sequence[Row], generators: dict[int, torch.Generator]
) -> torch.Tensor:
    chosen = logits.argmax(-1)
    for i, row in enumerate(rows):
        if row.temperature > 0:
            odds = torch.softmax(logits[i] / row.temperature, -1)
            chosen[i] = torch.multinomial(odds, 1, generator=generators[id(row)])[0]
    return chosen


def _extend(row: Row, token: int, ends: set[int], tokenizer: Any) -> None:
    if token in ends:
        row.finish = FinishReason.STOP
    else:
        row.tokens.append(token)
    row.text = tokenizer.decode(row.tokens, skip_special_tokens=True)
    cuts = [at for at in (row.text.find(s) for s in row.stop) if at >= 0]
    if cuts:
        row.text, row.finish = row.text[: min(cuts)], FinishReason.STOP
    elif row.finish is None and len(row.tokens) >= row.max_tokens:
        row.finish = FinishReason.LENGTH
