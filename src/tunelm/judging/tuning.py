"""A sentence encoder fine-tuned on people's labels: one more feature of a judge.

The encoder reads a reply and the student's last words apart; a linear head scores their vectors r
and c by w . [r, c, r * c]. Its loss is a pairwise one above all: of two replies to the same words,
the one that people rate higher must score higher (the logistic loss of RankNet, Burges et al.
2005), which is what a judge is measured by. A share of squared error keeps the scores of encoders
from different folds on one scale. Classes without an order have cross-entropy instead.

Only the last layers learn: labels are few, and the time is a third. Nothing here loads torch until
an encoder is tuned or opened.
"""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelm.errors import ModelError, TrainingError
from tunelm.judging.encoder import Encoder, open_encoder
from tunelm.judging.features import scene_of
from tunelm.judging.labels import Labelled
from tunelm.retrieval.embed import Embedder, embedder_identity
from tunelm.retrieval.tune import WIDTH, passage_tokens, rate_share, seeded
from tunelm.types import Example, content_hash

Matrix = NDArray[np.float64]
Places = NDArray[np.int64]
Progress = Callable[[str, int, int], None]

LAYERS, EPOCHS, BATCH = 2, 2, 32
AT_ONCE = 8
"""Texts that are read together: of like length, so that little is padding."""
RATE = 1e-4
"""Of the layers, for a width of 768; in inverse proportion for others. Of 653 unseen replies of
MRBench the scores then order .734 of the pairs as people do, with a fifth of the rate .692."""
HEAD_RATE, DECAY = 1e-2, 0.1
PAIR_SHARE = 0.9
"""Of the pairwise loss; the rest is squared error."""
LEAST_PAIRS = 50
"""Comparable pairs from which on only replies to the same words are compared."""
BASE, TUNED = "encoder", "tuned.safetensors"


@dataclass(frozen=True)
class Tuning:
    """An encoder that is to be tuned.

    Attributes:
        name: its folder or hub id.
        progress: told (what, replies read, of how many).
    """

    name: str
    progress: Progress = lambda what, done, total: None


@dataclass(frozen=True)
class TunedEncoder:
    """An encoder as it was, and one whose last layers and head have learned from labels.

    Attributes:
        base: as it was.
        model: with the tuned layers.
        weights: what was learned, by name: the layers' tensors, `head.weight` (3 d, k) and
            `head.bias` (k,).
    """

    base: Encoder
    model: Embedder
    weights: Mapping[str, NDArray[Any]]

    @property
    def name(self) -> str:
        """The folder or hub id of the encoder before it was tuned."""
        return self.base.name

    def to_json(self) -> dict[str, Any]:
        """The part of judge.json that opens it again, and how it was made."""
        made = {"layers": LAYERS, "epochs": EPOCHS, "rate": RATE, "pair_share": PAIR_SHARE}
        return {**self.base.to_json(), "tuned": {"weights": self.model.identity, **made}}

    def describe(self, examples: Sequence[Example], outputs: Sequence[str]) -> Matrix:
        """(n, 5 + k): those of the encoder as it was (see Encoder), and the scores."""
        return np.hstack([self.base.describe(examples, outputs), self.scores(examples, outputs)])

    def scores(self, examples: Sequence[Example], outputs: Sequence[str]) -> Matrix:
        """(n, k) what the tuned encoder says of replies: one score, or one a class."""
        encoder = Encoder(self.model)
        replies, contexts = texts_of(examples, outputs)
        r, c = (encoder.vectors(side).astype(np.float64) for side in (replies, contexts))
        wide = math.sqrt(self.model.width)
        inputs = np.hstack([r * wide, c * wide, r * c * wide**2])
        return inputs @ self.weights["head.weight"] / wide + self.weights["head.bias"]

    def save(self, folder: Path) -> str:
        """Write the encoder as it was and what was learned, as safetensors, into a judge's folder.

        Returns the hash of the encoder's files there, for `open_tuned`.
        """
        from safetensors.numpy import save_file

        self.base.embedder.model.save(str(folder / BASE), create_model_card=False)
        save_file(dict(self.weights), folder / TUNED)
        return embedder_identity(folder / BASE)


def open_tuned(folder: Path, about: Mapping[str, Any], files: str) -> TunedEncoder:
    """The tuned encoder in a judge's folder.

    Args:
        folder: the judge's.
        about: what `TunedEncoder.to_json` gave.
        files: what `TunedEncoder.save` gave.

    Raises:
        ModelError: its files are damaged, missing or others.
        PrerequisiteError: sentence-transformers is not installed.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not (folder / BASE).is_dir() or embedder_identity(folder / BASE) != files:
        raise ModelError(f"{folder / BASE}: damaged or missing: train the judge again")
    opened = open_encoder(str(folder / BASE)).embedder
    base = Encoder(Embedder(about["name"], about["identity"], opened.model))
    try:
        weights = load_file(folder / TUNED)
        tuned = _with_weights(base, copy.deepcopy(opened.model), weights)
    except (SafetensorError, OSError, RuntimeError, KeyError) as error:
        raise ModelError(f"{folder / TUNED}: damaged or missing ({error}): train again") from None
    if tuned.model.identity != about["tuned"]["weights"]:
        raise ModelError(f"{folder / TUNED}: not what the judge was trained with: train again")
    return tuned


def texts_of(examples: Sequence[Example], outputs: Sequence[str]) -> tuple[list[str], list[str]]:
    """The replies, and the student's last words before each."""
    scenes = [scene_of(e, o) for e, o in zip(examples, outputs, strict=True)]
    return [scene.reply for scene in scenes], [scene.last for scene in scenes]


class Tuner:
    """Tunes one encoder as often as folds ask for it, always from where it was."""

    def __init__(self, encoder: Encoder, progress: Progress) -> None:
        if not _layers(encoder.embedder.model):
            raise ModelError(
                f"encoder {encoder.name!r} has no layers that could be tuned (it only looks words"
                " up): leave out --tune-encoder, or name a transformer"
            )
        self.encoder = encoder
        self._progress = progress
        self._what, self._done, self._total = "tuning the encoder", 0, 0

    def expect(self, rows: Sequence[Labelled], target: Matrix, sizes: Sequence[int]) -> None:
        """Tell what lies ahead: trainings on so many replies each, timed by two steps."""
        seconds = self._seconds(rows, target) * (total := EPOCHS * sum(sizes))
        about = f"{seconds / 60:,.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
        self._what = f"tuning the encoder ({len(sizes)} trainings, about {about} here)"
        self._done, self._total = 0, total
        self._progress(self._what, 0, total)

    def tune(self, rows: Sequence[Labelled], target: Matrix, seed: int) -> TunedEncoder:
        """Fine-tune on labelled replies.

        Args:
            rows: the replies.
            target: (n, k) of each: one number where labels have an order, else one-hot.
            seed: of the order and of dropout.

        Raises:
            TrainingError: the loss became infinite or NaN.
        """
        training = _Training(self.encoder, rows, target, seed)
        for batch in training.batches():
            training.step(batch)
            self._done += len(batch)
            self._progress(self._what, self._done, self._total)
        return training.finished()

    def _seconds(self, rows: Sequence[Labelled], target: Matrix) -> float:
        """A reply's share of a step; the first step is slower and does not count."""
        training = _Training(self.encoder, rows, target, 0)
        batches = training.batches()
        training.step(batches[0])
        begun, second = time.monotonic(), batches[1 % len(batches)]
        training.step(second)
        return (time.monotonic() - begun) / len(second)


class _Training:
    """One training: a copy of the encoder, a head, and AdamW with a warmup and decay."""

    def __init__(
        self, encoder: Encoder, rows: Sequence[Labelled], target: Matrix, seed: int
    ) -> None:
        import torch

        self._base, self._seed = encoder, seed
        self.model = model = copy.deepcopy(encoder.embedder.model)
        self._replies, self._contexts = texts_of(
            [r.example for r in rows], [r.output for r in rows]
        )
        self._items = np.unique([row.item for row in rows], return_inverse=True)[1]
        self._ranked = target.shape[1] == 1
        spread = target.std(axis=0) if self._ranked else np.ones(target.shape[1])
        middle = target.mean(axis=0) if self._ranked else np.zeros(target.shape[1])
        scaled = (target - middle) / np.where(spread > 0, spread, 1.0)
        self._target = torch.tensor(scaled, dtype=torch.float32, device=model.device)
        self._within = _comparable(self._items, target) >= LEAST_PAIRS
        self._wide = math.sqrt(encoder.embedder.width)
        size = 3 * encoder.embedder.width, target.shape[1]
        self._head = torch.zeros(size, device=model.device, requires_grad=True)
        self._bias = torch.zeros(size[1], device=model.device, requires_grad=True)
        model.requires_grad_(False)
        self._learned = _layers(model)
        for part in self._learned.values():
            part.requires_grad_(True)
        rate = RATE * WIDTH / encoder.embedder.width
        groups = [
            {"params": list(self._learned.values()), "lr": rate, "weight_decay": 0.01},
            {"params": [self._head, self._bias], "lr": HEAD_RATE, "weight_decay": DECAY},
        ]
        self._optimizer = torch.optim.AdamW(groups)
        self._order = [self._epoch(epoch) for epoch in range(EPOCHS)]
        steps = sum(len(epoch) for epoch in self._order)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: rate_share(step, steps)
        )
        self._step = 0

    def batches(self) -> list[Places]:
        """Places of rows, a list a step."""
        return [batch for epoch in self._order for batch in epoch]

    def _epoch(self, epoch: int) -> list[Places]:
        """Replies to the same words stay together, as far as a batch holds them."""
        order = np.random.default_rng((self._seed, epoch)).permutation(len(self._items))
        turn = np.full(self._items.max() + 1, len(order))
        np.minimum.at(turn, self._items[order], np.arange(len(order)))
        order = order[np.argsort(turn[self._items[order]], kind="stable")]
        return [order[start : start + BATCH] for start in range(0, len(order), BATCH)]

    def step(self, batch: Places) -> None:
        """Learn from some rows."""
        import torch

        with seeded(self._seed * 1_000_003 + self._step):
            self.model.train()
            loss = self._loss(batch)
            if not torch.isfinite(loss):
                raise TrainingError(f"tuning the encoder: the loss is {loss.item()}.")
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self._learned.values(), 1.0)
            self._optimizer.step()
            self._optimizer.zero_grad()
            self._schedule.step()
            self._step += 1

    def _loss(self, batch: Places) -> Any:
        import torch
        from torch.nn.functional import cross_entropy, softplus

        r = self._vectors([self._replies[place] for place in batch.tolist()])
        c = self._vectors([self._contexts[place] for place in batch.tolist()])
        wide = self._wide
        scores = torch.cat([r * wide, c * wide, r * c * wide**2], dim=1) @ self._head / wide
        scores = scores + self._bias
        target = self._target[torch.as_tensor(batch, device=scores.device)]
        if not self._ranked:
            return cross_entropy(scores, target)
        above = target > target.T
        if self._within:
            item = self._items[batch]
            above &= torch.as_tensor(item[:, None] == item[None], device=scores.device)
        off = ((scores - target) ** 2).mean()
        if not above.any():
            return (1 - PAIR_SHARE) * off
        return (1 - PAIR_SHARE) * off + PAIR_SHARE * softplus(scores.T - scores)[above].mean()

    def _vectors(self, texts: Sequence[str]) -> Any:
        """(n, d) of length 1, zero for an empty text; each text is read once."""
        import torch

        distinct = sorted({text for text in texts if text}, key=lambda text: (len(text), text))
        rows = [torch.zeros((1, self._base.embedder.width), device=self.model.device)]
        for start in range(0, len(distinct), AT_ONCE):  # of like length: little padding
            tokens = passage_tokens(self.model, distinct[start : start + AT_ONCE])
            found = self.model(tokens)["sentence_embedding"]
            rows.append(torch.nn.functional.normalize(found, dim=1))
        at = {text: place for place, text in enumerate(distinct, start=1)}
        return torch.cat(rows)[[at.get(text, 0) for text in texts]]

    def finished(self) -> TunedEncoder:
        """The tuned encoder; this training is over."""
        learned = {f"layers.{name}": part for name, part in self._learned.items()}
        learned |= {"head.weight": self._head, "head.bias": self._bias}
        weights = {name: part.detach().cpu().numpy().copy() for name, part in learned.items()}
        return _with_weights(self._base, self.model, weights)


def _with_weights(base: Encoder, model: Any, weights: Mapping[str, NDArray[Any]]) -> TunedEncoder:
    """`model`, which is changed, with the layers that were learned."""
    import torch

    state = {
        name.removeprefix("layers."): torch.tensor(array)
        for name, array in weights.items()
        if name.startswith("layers.")
    }
    missing = model.load_state_dict(state, strict=False)
    if missing.unexpected_keys or not {"head.weight", "head.bias"} <= set(weights):
        raise KeyError("not the tuned layers of this encoder")
    digest = hashlib.sha256()
    for name, array in sorted(weights.items()):
        digest.update(f"{name}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    identity = content_hash([base.identity, digest.hexdigest()])
    tuned = Embedder(f"{base.name} (tuned)", identity, model.eval())
    return TunedEncoder(base, tuned, weights)


def _layers(model: Any) -> dict[str, Any]:
    """The parameters of the last layers, by name: of the longest list of modules there is."""
    from torch.nn import ModuleList

    stacks = [(n, m) for n, m in model.named_modules() if isinstance(m, ModuleList)]
    if not stacks:
        return {}
    name, stack = max(stacks, key=lambda found: len(found[1]))
    first = max(0, len(stack) - LAYERS)
    last = tuple(f"{name}.{place}." for place in range(first, len(stack)))
    return {n: p for n, p in model.named_parameters() if n.startswith(last)}


def _comparable(items: Places, target: Matrix) -> int:
    """How many pairs of replies to the same words have different labels."""
    count = 0
    for item in np.unique(items):
        its = target[items == item, 0]
        count += int((its[:, None] > its[None]).sum())
    return count
