"""One adapted model on dev and test: predictions, scores, and how fast it answers."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunelm.config import TaskConfig
from tunelm.errors import ModelError
from tunelm.judging.carried_out import with_kept
from tunelm.judging.judge import Judge
from tunelm.models.base import ChatModel
from tunelm.predict import answers_to, chunk_of, in_chunks
from tunelm.rundir import write_json
from tunelm.scoring.checks import with_facts
from tunelm.scoring.dialogue_metrics import TALKS
from tunelm.scoring.metric import Metric
from tunelm.scoring.metrics import corpus_value, metrics_of, score
from tunelm.tutor.talks import hold
from tunelm.types import ZERO_USAGE, Estimate, Example, Prediction, Request, Usage

TIMED_ROWS = 5

Parts = Mapping[str, Sequence[Example]]


@dataclass(frozen=True)
class Teaching:
    """What teachers are judged by beside their rows.

    `talks` are conversations by part, whose name ends in TALKS; `judge` says which strategy a turn
    is, None where nobody knows.
    """

    talks: Parts = field(default_factory=dict[str, Sequence[Example]])
    judge: Judge | None = None


def evaluate(
    model: ChatModel,
    parts: Parts,
    folder: Path,
    task: TaskConfig,
    progress: Callable[[str, int, int], None],
    teaching: Teaching | None = None,
) -> dict[str, Usage]:
    """Predict and score each part; writes predictions.jsonl and scores.json.

    Of a task of dialogues also the parts of `teaching`, whose conversations are held. Returns the
    tokens used, by part; unknown where the model does not say.
    """
    usage: dict[str, Usage] = {}
    scores: dict[str, Any] = {"parts": {}, "rows": {}}
    teaching = teaching or Teaching()
    for part, examples in {**parts, **teaching.talks}.items():

        def shown(done: int, total: int, part: str = part) -> None:
            progress(f"answers {part}".replace("_", " "), done, total)

        answer = answering_part(model, part, task, teaching.judge)
        path = folder / "predictions.jsonl"
        predictions = in_chunks(answer, examples, part, path, chunk_of(model), shown)
        usage[part] = sum((p.usage for p in predictions), ZERO_USAGE)
        metrics = metrics_of(task.kind, part, task.checks)
        scores["parts"][part], scores["rows"][part] = score_part(metrics, examples, predictions)
    write_json(folder / "scores.json", scores)
    return usage


def answering_part(
    model: ChatModel, part: str, task: TaskConfig, judge: Judge | None
) -> Callable[[Sequence[Example]], list[Prediction]]:
    """What answers rows of a part at once, with what is found out about the answers.

    Of conversations it holds them.
    """

    def answer(chunk: Sequence[Example]) -> list[Prediction]:
        if part.endswith(TALKS):
            return hold(model, chunk, part, task.max_tokens)
        found = answers_to(model, chunk, part, task.max_tokens)
        return with_facts(task.checks, model, chunk, with_kept(judge, chunk, found))

    return answer


def score_part(
    metrics: Mapping[str, Metric], examples: Sequence[Example], predictions: Sequence[Prediction]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """({n, outcomes, metrics}, a dict a row) for one part. Failed rows have no values.

    An answer that broke its form is `unparsed`, and scored as it stands.
    """
    per_row = [name for name, metric in metrics.items() if metric.per_row]
    rows: dict[str, dict[str, Any]] = {e.id: {"id": e.id} for e in examples}
    for item in score(per_row, examples, predictions):
        rows[item.example_id][item.metric] = item.value
    answered = sum(p.output is not None for p in predictions)
    unparsed = sum(p.output is not None and p.format_error is not None for p in predictions)
    failed = len(examples) - answered
    outcomes = Counter(scored=answered - unparsed, unparsed=unparsed, failed=failed)
    values = {n: corpus_value(m, examples, predictions) for n, m in metrics.items()}
    summary = {"n": len(examples), "outcomes": dict(outcomes), "metrics": values}
    return summary, list(rows.values())


def time_answers(
    model: ChatModel, examples: Sequence[Example], max_tokens: int
) -> tuple[dict[str, Estimate], Usage]:
    """Medians over a few dev rows asked one at a time, the first not counted; the tokens used.

    Time to the first piece of text, seconds an answer, and tokens a second after the first, which
    is unknown of a model that gives its answers in one piece, as one that scores labels does.
    A row that fails is passed over: it fails again, and is counted, where rows are answered.
    """
    unit = f"measured: median of {TIMED_ROWS} single requests"
    firsts: list[float] = []
    wholes: list[float] = []
    speeds: list[float] = []
    used = ZERO_USAGE
    for example in examples[: TIMED_ROWS + 1]:
        began = time.perf_counter()
        first: float | None = None
        pieces, usage = 0, Usage()
        try:
            for delta in model.stream(Request(example.messages, max_tokens=max_tokens)):
                if delta.text:
                    first = first or time.perf_counter() - began
                    pieces += 1
                usage = delta.usage or usage
        except ModelError:
            used += usage
            continue
        used += usage
        tokens = usage.completion_tokens
        whole = time.perf_counter() - began
        if first is not None:
            firsts.append(first)
        wholes.append(whole)
        if first is not None and tokens and tokens > 1 and pieces > 1:
            speeds.append((tokens - 1) / (whole - first))

    def median(values: list[float], name: str, few: str = "too few dev rows") -> Estimate:
        counted = values[1:]
        if not counted:
            return Estimate(None, name, f"unknown: {few}")
        return Estimate(statistics.median(counted), name, unit, min(counted), max(counted))

    medians = {
        "time_to_first_token": median(firsts, "s"),
        "seconds_per_answer": median(wholes, "s"),
        "tokens_per_second": median(speeds, "tokens/s", "answers of one piece, or too few"),
    }
    return medians, used
