"""Log-probabilities of long texts, window by window, as lm-evaluation-harness takes them.

A text of more tokens than the context is cut into windows whose predictions do not overlap.
The first begins with the prefix token alone; each later one is as long as the context, so that
the last one, which has fewer tokens left to predict, sees more of what came before
(`get_rolling_token_windows` with context_len = 1, then `make_disjoint_window`). Every token is
predicted once, and the sum is the harness's `loglikelihood_rolling`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

TOKENS_AT_ONCE = 4096
"""Most padded tokens in one forward pass: the logits of a large vocabulary take room."""


class Window(NamedTuple):
    """`inputs` are fed to the model; its last `len(targets)` predictions are looked up."""

    inputs: list[int]
    targets: list[int]


def windows(tokens: Sequence[int], prefix: Sequence[int], length: int) -> list[Window]:
    """Cut a text into windows of at most `length` inputs.

    Args:
        tokens: of the text, without special tokens.
        prefix: what stands before it: one token, or a prompt that leaves room for the text.
        length: the context.

    >>> [(w.inputs, w.targets) for w in windows([1, 2, 3, 4, 5], [0], 3)]
    [([0, 1, 2], [1, 2, 3]), ([2, 3, 4], [4, 5])]
    """
    room = length - len(prefix) + 1
    first = list(tokens[:room])
    cut = [Window([*prefix, *first[:-1]], first)]
    for start in range(room, len(tokens), length):
        end = min(start + length, len(tokens))
        cut.append(
            Window(list(tokens[max(0, end - length - 1) : end - 1]), list(tokens[start:end]))
        )
    return cut


@torch.inference_mode()
def logprobs_of(model: Any, cut: Sequence[Window], pad_id: int) -> list[list[float]]:
    """Natural-log probabilities of each window's targets, in order.

    Windows of like length run together, padded on the right: under causal attention no real
    token sees the padding, so no mask is needed.
    """
    found: list[list[float]] = [[] for _ in cut]
    order = sorted(range(len(cut)), key=lambda i: len(cut[i].inputs))
    batch: list[int] = []
    for place, index in enumerate(order):
        batch.append(index)
        following = order[place + 1] if place + 1 < len(order) else None
        longest = 0 if following is None else len(cut[following].inputs)
        if following is None or (len(batch) + 1) * longest > TOKENS_AT_ONCE:
            _run(model, cut, batch, pad_id, found)
            batch = []
    return found


def _run(
    model: Any, cut: Sequence[Window], batch: list[int], pad_id: int, found: list[list[float]]
) -> None:
    longest = max(len(cut[i].inputs) for i in batch)
    rows = [cut[i].inputs + [pad_id] * (longest - len(cut[i].inputs)) for i in batch]
    logits = model(input_ids=torch.tensor(rows, device=model.device), use_cache=False).logits
    for row, index in enumerate(batch):
        end, count = len(cut[index].inputs), len(cut[index].targets)
        if not count:
            continue
        odds = logits[row, end - count : end].float().log_softmax(-1)
        targets = torch.tensor(cut[index].targets, device=odds.device)
        found[index] = odds.gather(-1, targets[:, None])[:, 0].tolist()
