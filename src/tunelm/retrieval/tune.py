"""Contrastive fine-tuning of an embedding model on train rows, with hard negatives.

Importing this module loads neither torch nor sentence-transformers.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunelm.errors import DataError, TrainingError
from tunelm.retrieval.chunks import Passage
from tunelm.retrieval.embed import Embedder, embedder_identity
from tunelm.retrieval.lexical import Bm25
from tunelm.retrieval.quality import Gold
from tunelm.rundir import write_text
from tunelm.training.job import replace_folder
from tunelm.types import Example

CARD = "tuning.json"
"""The file in a tuned model's folder that says how it came about."""
EPOCHS = 3
BATCH = 16
WARMUP = 0.1
RATE, WIDTH = 2e-5, 768
"""The usual rate for a model of that width; in inverse proportion for others."""
_SEARCHED = 20
"""BM25's best passages, among which the hard negative is looked for."""

Judge = Callable[[Embedder], tuple[float, float]]
"""Figures on dev, the more important one first; more is better."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A question, a passage that answers it, and one that only looks as if it did."""

    question: str
    positive: int
    negative: int
    gold: frozenset[int]


def training_pairs(
    questions: Mapping[str, str],
    rows: Sequence[Example],
    gold: Gold,
    passages: Sequence[Passage],
) -> list[Pair]:
    """A pair for each train row whose passage is known.

    The positive is the passage that is nearest, by BM25, to the question and answer together;
    the hard negative BM25's best one for the question that does not hold the answer. A row that
    has none, where all the corpus holds the answer, is left out.

    Args:
        questions: what is searched for, by row id.
        rows: the train rows.
        gold: from `gold_passages`.
        passages: all of the corpus.
    """
    engine = Bm25([passage.searched for passage in passages])
    pairs: list[Pair] = []
    for row in rows:
        if row.id not in gold:
            continue
        question, own = questions[row.id], gold[row.id]
        told = engine.scores(f"{question} {row.answers[0]}")
        positive = max(sorted(own), key=lambda place: told[place])
        near = engine.search([question], _SEARCHED)[0]
        wrong = [hit.index for hit in near if hit.index not in own]
        if wrong:
            pairs.append(Pair(question, positive, wrong[0], own))
    return pairs


def tune(
    embedder: Embedder,
    pairs: Sequence[Pair],
    passages: Sequence[Passage],
    folder: Path,
    judge: Judge,
    *,
    seed: int = 0,
    epochs: int = EPOCHS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Embedder:
    """Fine-tune, and leave the best epoch's model in `folder`.

    The loss is sentence-transformers' MultipleNegativesRankingLoss (Henderson et al. 2017): of
    the positives and hard negatives of a batch, the question's own positive must be nearest. No
    batch holds a passage that would do for another of its questions. `judge` chooses among the
    model as it was and each epoch's; the earlier of equals, so that the result is never worse
    on dev. A folder that was finished before is opened again. `embedder.model` is changed.

    Raises:
        DataError: no pairs to learn from.
        TrainingError: the loss became infinite or NaN.
    """
    if (folder / CARD).is_file():
        return reopen(folder, embedder)
    if not pairs:
        raise DataError(
            "retriever.tune: of no train row the passage that answers it is known. Give the rows "
            "passage_id, or key answers that stand word for word in the corpus."
        )
    before = embedder.identity
    measured = [judge(embedder)]
    best, state = 0, _state(embedder.model)
    trainer = _Trainer(embedder, pairs, passages, epochs, seed)
    for epoch in range(1, epochs + 1):
        trainer.epoch(epoch - 1, lambda: progress(trainer.step, trainer.steps))
        changed = Embedder(embedder.name, f"{before}-epoch-{epoch}", embedder.model.eval())
        measured.append(judge(changed))
        if measured[-1] > max(measured[:-1]):
            best, state = epoch, _state(embedder.model)
    embedder.model.load_state_dict(state)
    record = {"tuned_from": before, "name": embedder.name, "pairs": len(pairs), "seed": seed}
    record |= {"epochs": epochs, "chosen_epoch": best, "dev_by_epoch": measured}
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    embedder.model.save(str(part), create_model_card=False)
    write_text(part / CARD, json.dumps(record, indent=2))
    replace_folder(part, folder)
    return reopen(folder, embedder)


def reopen(folder: Path, embedder: Embedder) -> Embedder:
    """The tuned model of a folder, by its own name and identity."""
    from tunelm.retrieval.embed import open_embedder

    device = str(embedder.model.device)
    found = open_embedder(str(folder), device.split(":")[0])
    return Embedder(f"{embedder.name} (tuned)", embedder_identity(folder), found.model)


class _Trainer:
    """AdamW with a linear warmup and decay, one step a batch."""

    def __init__(
        self,
        embedder: Embedder,
        pairs: Sequence[Pair],
        passages: Sequence[Passage],
        epochs: int,
        seed: int,
    ) -> None:
        import torch

        self.model = model = embedder.model
        self._pairs = pairs
        self._texts = [passage.searched for passage in passages]
        self._loss = _ranking_loss(model)
        self._seed = seed
        self._order = random.Random(seed)
        self.step = 0
        self._epochs = [batches(pairs, self._order) for _ in range(epochs)]
        self.steps = sum(len(epoch) for epoch in self._epochs)
        rate = RATE * WIDTH / embedder.width
        self._optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: rate_share(step, self.steps)
        )

    def epoch(self, number: int, on_step: Callable[[], None]) -> None:
        """One pass over the pairs."""
        import torch

        with seeded(self._seed + number):
            self.model.train()
            for batch in self._epochs[number]:
                loss = self._loss(self._features(batch), torch.zeros(0))
                if not torch.isfinite(loss):
                    raise TrainingError(f"tuning the retriever: the loss is {loss.item()}.")
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
                self._optimizer.step()
                self._optimizer.zero_grad()
                self._schedule.step()
                self.step += 1
                on_step()
            self.model.eval()

    def _features(self, batch: Sequence[Pair]) -> list[Any]:
        query = self.model.prompts.get("query") or ""
        return [
            tokenized(self.model, [query + pair.question for pair in batch]),
            passage_tokens(self.model, [self._texts[pair.positive] for pair in batch]),
            passage_tokens(self.model, [self._texts[pair.negative] for pair in batch]),
        ]


def rate_share(step: int, steps: int) -> float:
    """The share of the learning rate at a step: a linear warmup, then a linear decay."""
    warmup = max(1, round(WARMUP * steps))
    return min((step + 1) / warmup, (steps - step) / max(1, steps - warmup + 1))


def passage_tokens(model: Any, texts: Sequence[str]) -> dict[str, Any]:
    """What a SentenceTransformer reads of passages, with its own prompt for them, if any."""
    prompts: dict[str, str] = model.prompts
    prompt = next((prompts[n] for n in ("document", "passage", "corpus") if n in prompts), "")
    return tokenized(model, [(prompt or "") + text for text in texts])


def tokenized(model: Any, texts: Sequence[str]) -> dict[str, Any]:
    """What a SentenceTransformer reads of texts, on its device."""
    encode = getattr(model, "preprocess", None) or model.tokenize  # before 6.0
    found = encode(list(texts))
    return {k: v.to(model.device) if hasattr(v, "to") else v for k, v in found.items()}


def batches(pairs: Sequence[Pair], order: random.Random) -> list[list[Pair]]:
    """The pairs in shuffled batches, none with a passage that answers another of its questions.

    A pair that fits into no batch begun so far begins a new one.
    """
    shuffled = list(pairs)
    order.shuffle(shuffled)
    full: list[list[Pair]] = []
    begun: list[list[Pair]] = []
    for pair in shuffled:
        for batch in begun:
            if not any(_clash(pair, other) for other in batch):
                batch.append(pair)
                break
        else:
            begun.append([pair])
        full += [batch for batch in begun if len(batch) == BATCH]
        begun = [batch for batch in begun if len(batch) < BATCH]
    return full + begun


def _clash(a: Pair, b: Pair) -> bool:
    return bool({a.positive, a.negative} & b.gold or {b.positive, b.negative} & a.gold)


def _ranking_loss(model: Any) -> Any:
    try:
        from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    except ImportError:  # before 6.0
        from sentence_transformers.losses import (  # pyright: ignore[reportMissingImports]
            MultipleNegativesRankingLoss,
        )
    return MultipleNegativesRankingLoss(model)


def _state(model: Any) -> dict[str, Any]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


@contextmanager
def seeded(seed: int) -> Generator[None]:
    """Dropout by `seed`; the caller's own random state comes back afterwards."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
