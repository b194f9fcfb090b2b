"""The arithmetic of a step: batches of tensors, the loss, its gradient, the learning rate."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from tunelm.errors import ModelError, TrainingError
from tunelm.training.batches import micro_batches
from tunelm.training.packing import PackedRow
from tunelm.training.ranks import ALONE, Ranks
from tunelm.training.rows import EncodedRow

TrainRow = EncodedRow | PackedRow


@dataclass(frozen=True)
class Batch:
    """Rows as tensors, on the model's device.

    `input_ids` is (rows, longest), padded on the right. `places` are the N positions of the
    flattened (rows * longest) whose next token carries loss; `targets` are those N tokens.
    Packed rows also have `position_ids` (rows, longest), and `mask`, what is added to the
    attention scores, (rows, 1, longest, longest), or `ragged`, where each text ends in the one
    row there is, as FlashAttention takes it.
    """

    input_ids: torch.Tensor
    places: torch.Tensor
    targets: torch.Tensor
    position_ids: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    ragged: dict[str, Any] | None = None

    def inputs(self) -> dict[str, Any]:
        """What the model is called with."""
        given: dict[str, Any] = {"input_ids": self.input_ids}
        if self.position_ids is not None:
            given["position_ids"] = self.position_ids
        if self.mask is not None:
            given["attention_mask"] = self.mask
        return given | (self.ragged or {})


def collate(
    rows: Sequence[TrainRow],
    pad_id: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    masked: bool = True,
) -> Batch:
    """Make tensors of rows.

    Rows that are not packed have no attention mask: under causal attention no real token sees
    padding on its right, padding carries no loss, and without a mask the fast causal kernel is
    used.

    Args:
        rows: what is trained on.
        pad_id: the token that fills up shorter rows.
        device: where the tensors are to be.
        dtype: what attention is computed in; a mask of another type would be copied by each layer.
        masked: whether packed texts are kept apart by a mask; else, of one row, by their ends.
    """
    longest = max(row.length for row in rows)
    ids = [[*row.inputs, *[pad_id] * (longest - row.length)] for row in rows]
    places = [index * longest + place for index, row in enumerate(rows) for place in row.places]
    targets = [token for row in rows for token in row.supervised]
    packed = any(len(row.pieces) > 1 for row in rows)
    positions, owner = _apart(rows, longest) if packed else (None, None)
    return Batch(
        torch.tensor(ids, device=device),
        torch.tensor(places, device=device),
        torch.tensor(targets, device=device),
        None if positions is None else positions.to(device),
        _mask(owner.to(device), dtype) if owner is not None and masked else None,
        _ends(rows[0], device) if packed and not masked else None,
    )


def joined(rows: Sequence[TrainRow]) -> PackedRow:
    """All rows one after the other as one packed row: nothing of it is padding."""
    return PackedRow(
        tuple(one for row in rows for one in (row.rows if isinstance(row, PackedRow) else (row,)))
    )


def _ends(row: TrainRow, device: torch.device) -> dict[str, Any]:
    """Where texts begin and end, by the names of Transformers' `FlashAttentionKwargs`."""
    ends = torch.tensor([0, *accumulate(row.pieces)], dtype=torch.int32, device=device)
    longest = max(row.pieces)
    return {
        "cu_seq_lens_q": ends,
        "cu_seq_lens_k": ends,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def _apart(rows: Sequence[TrainRow], longest: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each place of packed rows: its position, and which text it belongs to (padding: -1)."""
    positions = torch.zeros((len(rows), longest), dtype=torch.long)
    owner = torch.full((len(rows), longest), -1)
    for index, row in enumerate(rows):
        start = 0
        for number, size in enumerate(row.pieces):
            positions[index, start : start + size] = torch.arange(size)
            owner[index, start : start + size] = number
            start += size
    return positions, owner


def _mask(owner: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The block-diagonal causal mask, in `dtype`; padding sees itself.

    Its rows lie a multiple of eight apart: CUDA's kernel for masks copies any other, once a layer
    (aten/src/ATen/native/transformers/attention.cpp, `preprocess_mask`).
    """
    rows, longest = owner.shape
    causal = torch.ones(longest, longest, dtype=torch.bool, device=owner.device).tril()
    allowed = (owner[:, :, None] == owner[:, None, :]) & causal
    mask = owner.new_zeros((rows, longest, -(-longest // 8) * 8), dtype=dtype)[..., :longest]
    return mask.masked_fill_(~allowed, torch.finfo(dtype).min)[:, None]


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
        losses: list[torch.Tensor] = []
        found: list[torch.Tensor] = []
        pieces = self._pieces(rows)
        for number, (piece, counts) in enumerate(pieces, 1):
            batch = self._batch(piece)
            with self.ranks.holding_back(self.called, number < len(pieces)):
                with self._precision(), noisy_embeddings(self.model, self.neftune_alpha, piece):
                    logits = logits_of(self.model, batch, self.called)
                    loss = summed_loss(logits, batch) * counts / tokens
                (loss * self.ranks.count).backward()
            losses.append(loss.detach())
            found.append(_right(logits, batch) * counts)
        # read at the end: a GPU that is waited for has nothing to do meanwhile
        total, right = sum(loss.item() for loss in losses), sum(int(one) for one in found)
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
                right += int(_right(logits, batch)) * counts
        self.model.train(training)
        total, right = self.ranks.summed(total, right)
        tokens = sum(len(row.supervised) for row in rows)
        return Fit(_finite(total / tokens, "dev loss"), right / tokens)

    def padded_tokens(self, rows: Sequence[TrainRow]) -> int:
        """Tokens that `backward` really computes for these rows, padding included."""
        return self.padded([row.length for row in rows])

    def padded(self, lengths: Sequence[int]) -> int:
        """`padded_tokens` of rows that are known by their lengths alone."""
        if self._ragged():
            return sum(lengths)
        shares = [lengths] if self.ranks.count == 1 else self.ranks.shares(sorted(lengths))
        return sum(
            len(piece) * share[piece[-1]]
            for share in shares
            for piece in micro_batches(range(len(share)), share, self.micro_tokens)
        )

    @contextmanager
    def _precision(self) -> Generator[None]:
        if not self._autocast():
            yield
            return
        from peft.helpers import disable_input_dtype_casting

        # autocast rounds what enters an adapter to bfloat16 anyway: no copy in float32 before it
        with torch.autocast("cuda", torch.bfloat16), disable_input_dtype_casting(self.model):
            yield

    def _autocast(self) -> bool:
        return self.mixed and self.model.device.type == "cuda"

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
        pieces = micro_batches(range(len(rows)), lengths, self.micro_tokens)
        if self._ragged():
            return [[joined([rows[i] for i in piece])] for piece in pieces]
        return [[rows[i] for i in piece] for piece in pieces]

    def _batch(self, rows: Sequence[TrainRow]) -> Batch:
        stored = next(self.model.parameters()).dtype
        dtype = torch.bfloat16 if self._autocast() else stored
        return collate(rows, self.pad_id, self.model.device, dtype, masked=not self._ragged())

    def _ragged(self) -> bool:
        """Whether the model's attention takes rows end to end (see `training.machine`)."""
        config = getattr(base_of(self.model), "config", None)
        return str(getattr(config, "_attn_implementation", "")).startswith("flash")


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


def _right(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    return (logits.detach().argmax(-1) == batch.targets).sum()


def _finite(loss: float, name: str) -> float:
    if not math.isfinite(loss):
        raise TrainingError(
            f"the {name} is {loss}. Nothing was saved. Either the learning rate is too high, "
            "or the base model's own weights are broken (the loss before training tells)."
        )
    return loss
