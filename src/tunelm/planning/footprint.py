"""How much memory training or answering with a model takes, by formula, before anything is loaded.

For choosing among models that are not here. Formula sheets are off by tens of percent: of four runs
that one such tool declared beforehand it missed by 46% on average, always above the truth
(canifinetune 0.4.1, project description). So every figure has a wide range and says "formula"; the
dry run behind a route's forecast is far closer, and needs the model's shape alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunelm.planning.registry import OpenModel
from tunelm.types import Estimate

LOW, HIGH = 0.6, 1.3
"""The range around a formula, as factors. Not a calibrated interval."""
MICRO_TOKENS = 8192
"""Most padded tokens that training runs at once (see tunelm.training.job)."""
BATCHES = (8, 4, 2, 1)
RANK = 16
"""Of LoRA, where a size is reckoned."""

_RESERVED = 1e9
"""GPU context and allocator, "a constant of about 0.5 to 1 GB"; kept for a processor too."""
_LOSS_BYTES = 14
"""Of stock cross-entropy with a frozen head, a token and vocabulary entry (unsloth-zoo PR 947)."""
_NF4_BITS = 4.5
"""A parameter of a linear layer in NF4; embeddings and norms stay in 16 bits (arXiv 2305.14314)."""

METHOD = (
    "formula: weights + adapter + activations + loss; sheets of this kind err by tens of percent"
)


@dataclass(frozen=True, slots=True)
class Load:
    """What a step of training holds.

    Attributes:
        longest: tokens of a long row (the 99th percentile), prompt and answer.
        answer: tokens of a long answer; the loss is taken on these alone.
        bytes_each: of a parameter: 2 on a GPU, 4 on processors.
    """

    longest: int
    answer: int
    bytes_each: int


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a method takes, with the batch it was reckoned for."""

    method: str
    batch: int
    memory: Estimate


def lora_parameters(model: OpenModel, rank: int = RANK) -> int:
    """Trainable parameters of LoRA on all linear layers: rank x (inputs + outputs) of each."""
    return model.layers * sum(rank * (a + b) for a, b in model.linear_layers())


def linear_parameters(model: OpenModel) -> int:
    """Those in the linear layers of its blocks, which alone are quantized."""
    return model.layers * sum(a * b for a, b in model.linear_layers())


def training(model: OpenModel, method: str, load: Load, batch: int) -> Footprint:
    """Peak memory of training.

    Args:
        model: its shape.
        method: lora, qlora or full.
        load: the rows, and the width of a number.
        batch: rows of a step.
    """
    tokens = min(batch * load.longest, max(MICRO_TOKENS, load.longest))
    scored = min(batch * load.answer, tokens)
    linear = linear_parameters(model)
    if method == "qlora":
        weights = linear * _NF4_BITS / 8 + (model.parameters - linear) * 2
    else:
        weights = model.parameters * load.bytes_each
    # value, gradient and two moments of AdamW, in 32 bits
    trained = 16 * (model.parameters if method == "full" else lora_parameters(model))
    a_block = (9 * model.width + 4.5 * model.inner) * load.bytes_each
    activations = tokens * model.layers * a_block
    loss = _LOSS_BYTES * scored * model.vocabulary
    total = weights + trained + activations + loss + _RESERVED
    return Footprint(method, batch, _estimate(total))


def answering(model: OpenModel, load: Load) -> Estimate:
    """Memory of answering one request: weights, and keys and values of the longest row."""
    kept = 2 * model.layers * model.kv_heads * model.head * load.longest * load.bytes_each
    return _estimate(model.parameters * load.bytes_each + kept + _RESERVED)


def largest_batch(
    model: OpenModel, method: str, load: Load, memory: float | None
) -> Footprint | None:
    """The footprint with the largest batch whose high end fits; None where none does."""
    for batch in BATCHES:
        found = training(model, method, load, batch)
        if memory is None or (found.memory.high or 0.0) <= memory:
            return found
    return None


def seconds_per_answer(model: OpenModel, load: Load, bandwidth: float) -> float:
    """The least time of an answer: each of its tokens reads all weights once.

    `bandwidth` in bytes a second. Prompt, scheduling and network come on top.
    """
    return load.answer * model.parameters * load.bytes_each / bandwidth


def _estimate(value: float) -> Estimate:
    return Estimate(value, "bytes", METHOD, value * LOW, value * HIGH)
