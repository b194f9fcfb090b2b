"""The arithmetic of a step: batches of tensors, the loss, its gradient, the learning rate."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from tunelm.errors import ModelError, TrainingError
from tunelm.training.batches import fill
from tunelm.training.packing import PackedRow
from tunelm.training.ranks import ALONE, Ranks
from tunelm.training.rows import EncodedRow

TrainRow = EncodedRow | PackedRow


@dataclass(frozen=True)
class Batch:
    """Rows as tensors, on the model's device.

    `input_ids` is (rows, longest), padded on the right. `places` are the N positions of the
    flattened (rows * longest) whose next token carries loss; `targets` are those N tokens.
    Packed rows also have `position_ids` (rows, longest) and `mask`, what is added to the
    attention scores, (rows, 1, longest, longest).
    """

    input_ids: torch.Tensor
    places: torch.Tensor
    targets: torch.Tensor
    position_ids: torch.Tensor | None = None
    mask: torch.Tensor | None = None

    def inputs(self) -> dict[str, torch.Tensor]:
        """What the model is called with."""
        given = {"input_ids": self.input_ids}
        if self.mask is not None and self.position_ids is not None:
            given |= {"attention_mask": self.mask, "position_ids": self.position_ids}
        return given


def collate(rows: Sequence[TrainRow], pad_id: int, device: torch.device) -> Batch:
    """Make tensors of rows.

    Rows that are not packed have no attention mask: under causal attention no real token sees
    padding on its right, padding carries no loss, and without a mask the fast causal kernel is
    used.
    """
    longest = max(row.length for row in rows)
    ids = [[*row.inputs, *[pad_id] * (longest - row.length)] for row in rows]
    places = [index * longest + place for index, row in enumerate(rows) for place in row.places]
    targets = [token for row in rows for token in row.supervised]
    packed = any(len(row.pieces) > 1 for row in rows)
    positions, mask = _apart(rows, longest) if packed else (None, None)
    return Batch(
        torch.tensor(ids, device=device),
        torch.tensor(places, device=device),
        torch.tensor(targets, device=device),
        None if positions is None else positions.to(device),
        None if mask is None else mask.to(device),
    )


def _apart(rows: Sequence[TrainRow], longest: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions, and the block-diagonal causal mask, of packed rows; padding sees itself."""
    positions = torch.zeros((len(rows), longest), dtype=torch.long)
    owner = torch.full((len(rows), longest), -1)
    for index, row in enumerate(rows):
        start = 0
        for number, size in enumerate(row.pieces):
            positions[index, start : start + size] = torch.arange(size)
            owner[index, start : start + size] = number
            start += size
    causal = torch.ones(longest, longest, dtype=torch.bool).tril()
    allowed = (owner[:, :, None] == owner[:, None, :]) & causal
    lowest = torch.finfo(torch.float32).min
    return positions, torch.where(allowed, 0.0, lowest)[:, None]


@contextmanager
def _logits_only_at(base: Any, places: torch.Tensor) -> Generator[None, None, None]:
    """Within, the model's output layer sees only the hidden states at `places`.

    A hook on the layer itself works for every architecture, for a layer that is itself
    adapted by LoRA, and keeps what the model does to logits afterwards (scaling, soft caps).
    """
    head = base.get_output_embeddings()
    if head is None:
        raise ModelError(f"{type(base).__name__} has no output layer: it is no language model.")

    def select(_: object, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        hidden = args[0].flatten(0, 1).index_select(0, places)
        return (hidden.unsqueeze(0), *args[1:])

    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def noisy_embeddings(
    model: Any, alpha: float | None, rows: Sequence[TrainRow]
) -> Generator[None, None, None]:
    """Within, uniform noise is added to the embeddings of these rows (NEFTune, arXiv 2310.05914).

    Each coordinate of a token gets a number between -1 and 1 times alpha / sqrt(L d): d is the
    width, L the tokens of the token's own text. Padding, and the other texts of a packed row,
    do not count, so that a row gets as much noise whatever stands beside it. `alpha` None: no
    noise. The numbers come from torch's generator, whose state checkpoints hold.
    """
    if alpha is None:
        yield
        return
    longest = max(row.length for row in rows)
    sizes = [[size for size in row.pieces for _ in range(size)] for row in rows]
    lengths = torch.tensor([[*row, *[1] * (longest - len(row))] for row in sizes])

    def add(_: object, __: object, embedded: torch.Tensor) -> torch.Tensor:
        most = alpha / (lengths * embedded.shape[-1]).sqrt()
        noise = torch.empty_like(embedded).uniform_(-1, 1)
        return embedded + noise * most.to(embedded)[:, :, None]

    handle = base_of(model).get_input_embeddings().register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


def base_of(model: Any) -> Any:
    """The Transformers model below an adapter; the model itself where there is none."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def logits_of(model: Any, batch: Batch, called: Any = None) -> torch.Tensor:
    """The logits, float32 (N, vocabulary), from which the batch's N targets are predicted.

    `called` is what stands around the model where it is trained on several processes.
    """
    base = base_of(model)
    with _logits_only_at(base, batch.places):
        logits = (called or model)(**batch.inputs(), use_cache=False).logits
    if logits.shape[:2] != (1, len(batch.targets)):
        raise ModelError(
            f"{type(base).__name__} gave logits of shape {tuple(logits.shape)} for "
            f"{len(batch.targets)} labels: its output layer is not used in the usual way."
        )
    return logits[0].float()


def summed_loss(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Cross-entropy in nats, summed over the batch's supervised tokens (a float32 scalar)."""
    return functional.cross_entropy(logits, batch.targets, reduction="sum")


class Fit(NamedTuple):
    """How well rows are predicted, over their supervised tokens.

    `loss` is in nats per token; `accuracy` the share of tokens that are the likeliest.
    """

    loss: float
    accuracy: float


@dataclass(frozen=True)
class Stepper:
    """A model with what every forward pass of a run needs."""

    model: Any
    pad_id: int
    micro_tokens: int
    mixed: bool
    """Whether the base is stored in half precision: then CUDA computes in bfloat16."""
    neftune_alpha: float | None = None
    """Size of the noise on the embeddings in `backward`; never in `evaluate`."""
    ranks: Ranks = ALONE
    """The processes that compute each batch together; all of them are given the whole batch."""
    called: Any = None
    """What `ranks` put around the model, called for passes with a gradient; None: the model."""

    def backward(self, rows: Sequence[TrainRow]) -> Fit:
        """Add the gradient of the rows' mean loss per supervised token; return how they fit.

        A batch of more than `micro_tokens` padded tokens runs in pieces. Each piece's summed
        loss is divided by the supervised tokens of the whole batch, so the gradient is that
        of the whole batch whatever the pieces, and on however many processes: these average
        their gradients, which is why each one's loss is multiplied by their number.

        Raises:
            TrainingError: the loss is NaN or infinite.
        """
        tokens = sum(len(row.supervised) for row in rows)
        total, right = 0.0, 0
        pieces = self._pieces(rows)
        for number, (piece, counts) in enumerate(pieces, 1):
            batch = self._batch(piece)
            with self.ranks.holding_back(self.called, number < len(pieces)):
                with self._precision(), noisy_embeddings(self.model, self.neftune_alpha, piece):
                    logits = logits_of(self.model, batch, self.called)
                    loss = summed_loss(logits, batch) * counts / tokens
                (loss * self.ranks.count).backward()
            total += loss.item()
            right += _right(logits, batch) * counts
        total, right = self.ranks.summed(total, right)
        return Fit(_finite(total, "training loss"), right / tokens)

    def evaluate(self, rows: Sequence[TrainRow]) -> Fit:
        """How all rows together fit, without gradient or dropout.

        Raises:
            TrainingError: the loss is NaN or infinite.
        """
        training = self.model.training
        self.model.eval()
        total, right = 0.0, 0
        with torch.no_grad():
            for piece, counts in self._pieces(rows):
                batch = self._batch(piece)
                with self._precision():
                    logits = logits_of(self.model, batch)
                    total += summed_loss(logits, batch).item() * counts
                right += _right(logits, batch) * counts
        self.model.train(training)
        total, right = self.ranks.summed(total, right)
        tokens = sum(len(row.supervised) for row in rows)
        return Fit(_finite(total / tokens, "dev loss"), right / tokens)

    def padded_tokens(self, rows: Sequence[TrainRow]) -> int:
        """Tokens that `backward` really computes for these rows, padding included."""
        return sum(
            len(piece) * max(row.length for row in piece)
            for share in self._shares(rows)
            for piece in self._split(share)
        )

    def _precision(self) -> AbstractContextManager[Any]:
        if self.mixed and self.model.device.type == "cuda":
            return torch.autocast("cuda", torch.bfloat16)
        return nullcontext()

    def _shares(self, rows: Sequence[TrainRow]) -> list[list[TrainRow]]:
        if self.ranks.count == 1:
            return [list(rows)]
        return self.ranks.shares(sorted(rows, key=lambda row: row.length))

    def _pieces(self, rows: Sequence[TrainRow]) -> list[tuple[list[TrainRow], int]]:
        """This process's pieces, each with 1; or 0 where it computes only to keep step.

        The processes meet in every pass, so each must make as many as the one with the most.
        """
        splits = [self._split(share) for share in self._shares(rows)]
        own = [(piece, 1) for piece in splits[self.ranks.rank]]
        return own + [([rows[0]], 0)] * (max(map(len, splits)) - len(own))

    def _split(self, rows: Sequence[TrainRow]) -> list[list[TrainRow]]:
        lengths = [row.length for row in rows]
        order = sorted(range(len(rows)), key=lambda i: lengths[i])
        return [[rows[i] for i in piece] for piece in fill(order, lengths, self.micro_tokens)]

    def _batch(self, rows: Sequence[TrainRow]) -> Batch:
        return collate(rows, self.pad_id, self.model.device)


def learning_rate(step: int, steps: int, peak: float, warmup: float) -> float:
    """The rate of step `step` (from 0): linear up over `warmup` of all steps, linear to zero.

    Linear decay to zero did better than cosine in arXiv 2502.15938.

    >>> [round(learning_rate(s, 5, 1.0, 0.2), 2) for s in range(5)]
    [1.0, 1.0, 0.75, 0.5, 0.25]
    """
    rise = math.ceil(steps * warmup)
    if step < rise:
        return peak * (step + 1) / rise
    return peak * (steps - step) / max(1, steps - rise)


def _right(logits: torch.Tensor, batch: Batch) -> int:
    return int((logits.detach().argmax(-1) == batch.targets).sum())


def _finite(loss: float, name: str) -> float:
    if not math.isfinite(loss):
        raise TrainingError(
            f"the {name} is {loss}. Nothing was saved. Either the learning rate is too high, "
            "or the base model's own weights are broken (the loss before training tells)."
        )
    return loss
