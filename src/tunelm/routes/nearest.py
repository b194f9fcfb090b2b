"""Route `nearest`: the answer of the train row that is nearest to a question, without any model.

What a search box over questions and answers would find. With `decline` it says so where nothing is
near enough, by a threshold that the dev rows fix. Needs the extra `rag`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tunelm.errors import ConfigError, ModelError
from tunelm.models.base import ChatModel, as_stream
from tunelm.retrieval.lexical import Bm25, words
from tunelm.retrieval.shown import search_text
from tunelm.route_settings import NearestSettings
from tunelm.routes.base import FitContext
from tunelm.rundir import read_json, write_json
from tunelm.scoring.metric import Metric
from tunelm.scoring.metrics import LABEL_METRICS, get_metric
from tunelm.scoring.threshold import best_threshold
from tunelm.types import (
    ZERO_USAGE,
    Adapted,
    Completion,
    Delta,
    Estimate,
    Example,
    FinishReason,
    Message,
    Plan,
    Request,
    TokenLogprobs,
)

FILE = "nearest.json"


class NearestModel:
    """Answers with the answer of the nearest row by BM25, question and answer searched together.

    How near it is, is its confidence: the share of the question's words that stand in the row, each
    by its weight (BM25's inverse document frequency), from 0 to 1. So a word that no row knows
    counts against it most. `decline` is said below `threshold`; None: never. A question that has
    no word in common with any row gets the most frequent answer, with a confidence of 0.

    See ChatModel.
    """

    name = "nearest"
    capabilities = frozenset({"complete", "stream"})

    def __init__(
        self,
        questions: Sequence[str],
        answers: Sequence[str],
        decline: str | None = None,
        threshold: float = 0.0,
    ) -> None:
        rows = [
            f"{question}\n{answer}" for question, answer in zip(questions, answers, strict=True)
        ]
        self.answers = tuple(answers)
        self.decline = decline
        self.threshold = threshold
        self._engine = Bm25(rows)
        self._words = [set(words(row)) for row in rows]
        self._rows_with = Counter(word for row in self._words for word in row)
        self._usual = Counter(self.answers).most_common(1)[0][0]

    def nearest(self, text: str) -> tuple[str, float]:
        """The answer of the nearest row, and how near that is."""
        (hit,) = self._engine.search([text], 1)[0]
        if hit.score <= 0:
            return self._usual, 0.0
        weights = {word: self._weight(word) for word in words(text)}
        shared = math.fsum(weights[word] for word in weights.keys() & self._words[hit.index])
        return self.answers[hit.index], min(1.0, shared / math.fsum(weights.values()))

    def _weight(self, word: str) -> float:
        rows_with = self._rows_with[word]
        return math.log(1 + (len(self._words) - rows_with + 0.5) / (rows_with + 0.5))

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """See ChatModel."""
        return [self._answer(request) for request in requests]

    def stream(self, request: Request) -> Iterator[Delta]:
        """See ChatModel."""
        return as_stream(self._answer(request))

    def score(self, pairs: Sequence[tuple[tuple[Message, ...], str]]) -> list[TokenLogprobs]:
        """Raises ModelError: nothing here has probabilities."""
        raise ModelError("the nearest answer has no log-probabilities")

    def _answer(self, request: Request) -> Completion:
        answer, near = self.nearest(search_text(request.messages))
        if self.decline is not None and near < self.threshold:
            answer = self.decline
        return Completion(answer, FinishReason.STOP, ZERO_USAGE, 0.0, confidence=near)


class NearestRoute:
    """The train rows themselves, searched by BM25."""

    kind = "nearest"
    needs: tuple[str, ...] = ()

    def __init__(self, settings: NearestSettings) -> None:
        self.settings = settings

    def plan(self, ctx: FitContext) -> Plan:
        """Nothing is called; the train rows are indexed.

        Raises ConfigError for a task of running text.
        """
        _check(ctx)
        forecasts = {
            "rows_indexed": Estimate(len(ctx.train), "rows", "exact"),
            "seconds_fit": Estimate(None, "s", "unknown: nothing was timed; mostly under a second"),
        }
        return Plan(ctx.name, self.kind, forecasts)

    def fit(self, ctx: FitContext) -> Adapted:
        """Keep the train rows; with `decline` fix the threshold that is best on dev.

        Best by the primary metric, or where that has no value for a row by token F1, of labels by
        accuracy.

        Raises:
            ConfigError: a task of running text.
            PrerequisiteError: bm25s is missing.
        """
        _check(ctx)
        folder = ctx.work / "adapted"
        folder.mkdir(parents=True, exist_ok=True)
        record: dict[str, Any] = {
            "questions": [search_text(row.messages) for row in ctx.train],
            "answers": [row.answers[0] for row in ctx.train],
            "decline": self.settings.decline,
            "threshold": 0.0,
        }
        detail: dict[str, Any] = {"train_rows": len(ctx.train)}
        if self.settings.decline is not None:
            open_model = NearestModel(record["questions"], record["answers"])
            metric = _metric_of_rows(ctx.metric)
            record["threshold"] = _threshold(open_model, ctx.dev, metric, self.settings.decline)
            detail |= {
                "threshold": record["threshold"],
                "chosen_by": metric.name,
                "dev_rows": len(ctx.dev),
            }
        write_json(folder / FILE, record)
        return Adapted(self.kind, str(folder), {}, "", detail)

    def open(self, adapted: Adapted) -> ChatModel:
        """The rows that were kept. Raises PrerequisiteError where bm25s is missing."""
        record = read_json(Path(adapted.folder) / FILE)
        return NearestModel(**record)


def _check(ctx: FitContext) -> None:
    if ctx.task.kind == "text":
        raise ConfigError(f"route {ctx.name!r} answers questions; a text task has none.")


def _metric_of_rows(name: str) -> Metric:
    metric = get_metric("accuracy" if name in LABEL_METRICS else name)
    return metric if metric.per_row else get_metric("token_f1")


def _threshold(model: NearestModel, dev: Sequence[Example], metric: Metric, decline: str) -> float:
    found = [model.nearest(search_text(row.messages)) for row in dev]

    def worth(output: str, row: Example) -> float:
        return metric.sign * (metric.row_value(output, row) or 0.0)

    return best_threshold(
        [near for _, near in found],
        [worth(answer, row) for (answer, _), row in zip(found, dev, strict=True)],
        [worth(decline, row) for row in dev],
    )
