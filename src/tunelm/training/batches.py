"""Which rows make up each step. Deterministic for (seed, epoch), with hardly any padding.

Rows are shuffled, sorted by length within windows, cut into batches, and the batches are
shuffled again: neighbours in a batch are about equally long, yet the order stays random.
(The same idea as `group_by_length` of Transformers and PEFT's bucket iterator.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tunelm.route_settings import LocalSettings

_WINDOW = 100
"""Batches sorted together. Larger: less padding, less random batches."""


def epoch_batches(
    lengths: Sequence[int], settings: LocalSettings, seed: int, epoch: int
) -> list[list[int]]:
    """One epoch's batches, as indices into `lengths`; each index occurs exactly once.

    With `settings.batch_tokens`, a batch's rows times its longest row stay within that number
    (a row longer than that is a batch of its own). Without, batches hold `settings.batch_size`
    rows; where that does not divide the rows, several hold one row less, rather than one
    batch holding only a few.
    """
    if not lengths:
        return []
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    rows_a_batch = settings.batch_size
    if settings.batch_tokens is not None:
        rows_a_batch = max(1, round(settings.batch_tokens / (sum(lengths) / len(lengths))))
    windows = max(1, round(len(lengths) / (_WINDOW * rows_a_batch)))
    batches: list[list[int]] = []
    for window in np.array_split(order, windows):
        rows = sorted((int(i) for i in window), key=lambda i: lengths[i])
        if settings.batch_tokens is None:
            count = math.ceil(len(rows) / settings.batch_size)
            batches += [part.tolist() for part in np.array_split(rows, count)]
        else:
            batches += fill(rows, lengths, settings.batch_tokens)
    return [batches[i] for i in rng.permutation(len(batches))]


def fill(rows: Sequence[int], lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Cut rows that are sorted by length, shortest first, into batches of padded tokens.

    >>> fill([0, 1, 2], [2, 3, 5], tokens=6)
    [[0, 1], [2]]
    """
    batches: list[list[int]] = []
    for row in rows:
        if batches and (len(batches[-1]) + 1) * lengths[row] <= tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def steps_by_epoch(lengths: Sequence[int], settings: LocalSettings, seed: int) -> list[int]:
    """Steps of each epoch, the last of which may be a part of one.

    `max_steps` is a cap: training ends there or after `epochs`, whichever comes first.
    """
    steps: list[int] = []
    for epoch in range(math.ceil(settings.epochs)):
        count = len(epoch_batches(lengths, settings, seed, epoch))
        share = min(1.0, settings.epochs - epoch)
        steps.append(max(1, round(count * share)) if count else 0)
    if settings.max_steps is None:
        return steps
    left = settings.max_steps
    capped = [min(count, max(0, left - sum(steps[:i]))) for i, count in enumerate(steps)]
    return [count for count in capped if count]


def heaviest(
    lengths: Sequence[int], settings: LocalSettings, seed: int, micro_tokens: int
) -> list[int]:
    """The rows of the micro batch with the most padded tokens of a whole run, as indices."""
    pieces: list[list[int]] = []
    for epoch, count in enumerate(steps_by_epoch(lengths, settings, seed)):
        for batch in epoch_batches(lengths, settings, seed, epoch)[:count]:
            pieces += fill(sorted(batch, key=lambda i: lengths[i]), lengths, micro_tokens)
    return max(pieces, key=lambda piece: len(piece) * max(lengths[i] for i in piece))
