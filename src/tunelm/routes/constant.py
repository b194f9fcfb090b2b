"""Route `constant`: one fixed answer to everything, to catch a metric that rewards form alone."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence

from tunelm.errors import ModelError
from tunelm.models.base import ChatModel
from tunelm.route_settings import ConstantSettings
from tunelm.routes.base import FitContext
from tunelm.scoring.metrics import LABEL_METRICS, get_metric
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

TRIED = 200
"""Most answers compared with each other: the search is quadratic."""


class ConstantModel:
    """Says the same whatever it is asked."""

    name = "constant"
    capabilities = frozenset({"complete", "stream"})

    def __init__(self, answer: str) -> None:
        self.answer = answer

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """See ChatModel."""
        return [Completion(self.answer, FinishReason.STOP, ZERO_USAGE, 0.0) for _ in requests]

    def stream(self, request: Request) -> Iterator[Delta]:
        """See ChatModel."""
        yield Delta(self.answer, FinishReason.STOP, ZERO_USAGE)

    def score(self, pairs: Sequence[tuple[tuple[Message, ...], str]]) -> list[TokenLogprobs]:
        """Raises ModelError: a constant has no probabilities."""
        raise ModelError("a constant answer has no log-probabilities")


class ConstantRoute:
    """The train answer that scores best as the answer to other train questions."""

    kind = "constant"
    needs: tuple[str, ...] = ()

    def __init__(self, settings: ConstantSettings) -> None:
        self.settings = settings

    def plan(self, ctx: FitContext) -> Plan:
        """Nothing is called, so nothing is needed."""
        return Plan(ctx.name, self.kind, {"seconds_fit": Estimate(0.0, "s", "prior")})

    def fit(self, ctx: FitContext) -> Adapted:
        """Choose the answer on the train rows."""
        folder = ctx.work / "adapted"
        folder.mkdir(exist_ok=True)
        answer = best_constant(ctx.train, ctx.metric, ctx.seed)
        return Adapted(self.kind, str(folder), {}, "", {"answer": answer})

    def open(self, adapted: Adapted) -> ChatModel:
        """The constant."""
        return ConstantModel(str(adapted.detail["answer"]))


def best_constant(train: Sequence[Example], metric_name: str, seed: int) -> str:
    """The answer with the best mean score over a sample of at most TRIED train rows.

    Rows with that very answer are left out, unless the answers are labels: the most frequent
    label is then the best, by whatever metric. A metric of whole corpora is replaced by token F1:
    it has no value for one row.
    """
    if metric_name in LABEL_METRICS:
        counts = Counter(row.answers[0] for row in train)
        return max(sorted(counts), key=lambda label: counts[label])
    metric = get_metric(metric_name)
    if not metric.per_row:
        metric = get_metric("token_f1")
    rows = random.Random(seed).sample(list(train), min(TRIED, len(train)))
    answers = dict.fromkeys(row.answers[0] for row in rows)

    def worth(answer: str) -> float:
        others = [r for r in rows if answer not in r.answers] or rows
        return sum(metric.row_value(answer, r) or 0.0 for r in others) / len(others)

    return max(answers, key=worth)
