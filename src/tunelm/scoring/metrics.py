"""The table of metrics, and predictions scored by them.

Importing this module loads the standard library only; sacrebleu and rouge-score are imported at
the first use.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from tunelm.errors import ConfigError, DataError
from tunelm.scoring import text
from tunelm.scoring.checks import CHECKS, Checks
from tunelm.scoring.dialogue_metrics import HELD, OF_TURNS, TALKS
from tunelm.scoring.label_metrics import OF_LABELS, is_right
from tunelm.scoring.metric import Metric, OfPrediction, gold_answers, ratio, row_metric
from tunelm.types import Example, Outcome, Prediction, Score


@dataclass(frozen=True)
class _CorpusMetric(Metric):
    """A sacrebleu metric, by the calls sacrebleu's own significance tests are made of."""

    class_name: str

    @cached_property
    def _engine(self) -> Any:
        import sacrebleu.metrics

        return getattr(sacrebleu.metrics, self.class_name)()

    def signature(self, examples: Sequence[Example] = ()) -> str:
        engine = self._engine
        counts = {len(gold_answers(self.name, example)) for example in examples}
        engine.num_refs = counts.pop() if len(counts) == 1 else -1
        return str(engine.get_signature())

    def row_value(self, output: str, example: Example) -> None:
        return None

    def statistics(self, output: str, example: Example) -> tuple[float, ...]:
        references = [[answer] for answer in gold_answers(self.name, example)]
        (row,) = self._engine._extract_corpus_statistics([output], references)
        return tuple(float(count) for count in row)

    @property
    def aggregate(self) -> Callable[[Sequence[float]], float]:
        return self._corpus_score

    def _corpus_score(self, vector: Sequence[float]) -> float:
        return float(self._engine._compute_score_from_stats(list(vector)).score)


@dataclass(frozen=True)
class _Likelihood(OfPrediction):
    """From the probability that a model gives a text: no output is looked at."""

    def signature(self, examples: Sequence[Example] = ()) -> str:
        return f"{self.name}|windows:disjoint,rolling,context:1|prefix:bos-or-eos|log:exact"

    def prediction_statistics(
        self, prediction: Prediction, example: Example
    ) -> tuple[float, ...] | None:
        size = prediction.scored_bytes if self.per_row else prediction.scored_tokens
        if prediction.nll is None or not size:
            return None
        bits = prediction.nll / math.log(2)
        return (bits if self.per_row else prediction.nll, float(size))

    @property
    def aggregate(self) -> Callable[[Sequence[float]], float]:
        return ratio if self.per_row else perplexity


def perplexity(vector: Sequence[float]) -> float:
    """Exp of the mean from (sum of nats, number of tokens); infinite where that overflows."""
    mean = ratio(vector)
    return math.exp(mean) if mean < 700 else math.inf


def _exact_match(output: str, example: Example) -> float:
    got = text.normalise(output)
    return float(any(got == text.normalise(a) for a in gold_answers("exact_match", example)))


def _token_f1(output: str, example: Example) -> float:
    return max(text.token_f1(output, a) for a in gold_answers("token_f1", example))


def _accuracy(output: str, example: Example) -> float:
    return float(is_right(output, example))


def _contains(output: str, example: Example) -> float:
    keys = cast(Sequence[str], example.metadata.get("key_answers") or ())
    if isinstance(keys, str):
        raise DataError(
            f"row {example.id}: metadata key_answers is the text {keys!r}; "
            "it must be a list of short texts"
        )
    return float(any(text.contains(output, k) for k in keys or gold_answers("contains", example)))


class _Rouge:
    """ROUGE-L by the rouge-score package, which is slow to import."""

    @cached_property
    def _scorer(self) -> Any:
        from rouge_score.rouge_scorer import RougeScorer

        return RougeScorer(["rougeL"], use_stemmer=True)

    def __call__(self, output: str, example: Example) -> float:
        scores = self._scorer.score_multi(gold_answers("rouge_l", example), output)
        return float(scores["rougeL"].fmeasure)


def _rouge_signature() -> str:
    version = importlib.metadata.version("rouge-score")
    return f"rougeL|measure:f|stemmer:porter|tok:a-z0-9|refs:max|rouge-score:{version}"


_FORM = "it measures form, the overlap with a reference, and not whether the answer is right"

METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        row_metric(
            "exact_match",
            "exact|norm:squad|refs:max",
            _exact_match,
            "share of outputs equal to a reference answer after SQuAD normalisation",
        ),
        row_metric(
            "token_f1",
            "f1|tokens:multiset|norm:squad|refs:max",
            _token_f1,
            f"SQuAD F1 of tokens with the best reference; {_FORM}",
        ),
        row_metric(
            "contains",
            "contains|keys:key_answers,else:answers|match:tokens|norm:squad|refs:any",
            _contains,
            "share of outputs in which a key answer stands word for word: content, whatever "
            "the form around it",
        ),
        _CorpusMetric("bleu", f"corpus BLEU by sacrebleu; {_FORM}", 100.0, False, 10, "BLEU"),
        _CorpusMetric("chrf", f"corpus chrF by sacrebleu; {_FORM}", 100.0, False, 18, "CHRF"),
        row_metric(
            "rouge_l",
            _rouge_signature,
            _Rouge(),
            f"ROUGE-L F-measure with the best reference (letters a-z and digits only); {_FORM}",
        ),
        row_metric(
            "accuracy",
            "accuracy|norm:case,spaces|refs:any",
            _accuracy,
            "share of rows answered with their label",
        ),
        *OF_LABELS.values(),
        _Likelihood(
            "bits_per_byte",
            "bits the model needs for a byte of the text, whatever its tokenizer; less is better",
            None,
            True,
            2,
        ),
        _Likelihood(
            "token_perplexity",
            "exp of the mean surprise at a token; comparable only with the same tokenizer; "
            "less is better",
            None,
            False,
            2,
        ),
        *OF_TURNS.values(),
        *HELD.values(),
        *(metric for checks in CHECKS.values() for metric in checks.metrics.values()),
    )
}
"""Every metric, by name, in the order of the report."""

TEXT_METRICS = ("bits_per_byte", "token_perplexity", "bleu", "chrf")
"""Those of running text; BLEU and chrF are those of a continuation."""

LABEL_METRICS = ("accuracy", "macro_f1", "invalid_label", "ece")
"""Those of a classification. Labels are compared as they are written, case and spaces aside:
the form of `exact_match` would delete the label A as an article."""

_OVERLAP = ("token_f1", "bleu", "chrf", "rouge_l")
_KINDS: Mapping[str, tuple[str, ...]] = {
    "text": TEXT_METRICS,
    "classification": LABEL_METRICS,
    "dialogue": (*HELD, *OF_TURNS, *_OVERLAP),
}
"""The metrics of special kinds of task; all others have those of _ANSWERS."""
_ANSWERS = ("exact_match", "token_f1", "contains", "bleu", "chrf", "rouge_l")


def metrics_for(
    kind: str, examples: Sequence[Example] = (), checks: str | None = None
) -> dict[str, Metric]:
    """The metrics of a kind of task and its checks, by name, in the order of the report.

    With `examples` they are bound to those rows; without, `row_statistics` and `corpus_value`
    bind them to the rows they are given.
    """
    its = CHECKS[checks] if checks else Checks({})
    names = (*its.metrics, *_KINDS.get(kind, _ANSWERS))
    return {name: METRICS[name].bound(examples) for name in names if name not in its.left_out}


def metrics_of(kind: str, part: str, checks: str | None = None) -> dict[str, Metric]:
    """Those of `metrics_for` that the rows of a part can be scored by."""
    talks = part.endswith(TALKS)
    return {
        n: m for n, m in metrics_for(kind, checks=checks).items() if m.of_conversations == talks
    }


def metric_to_fit(name: str) -> str:
    """The metric by which routes search and choose: of rows, where the primary one is not.

    >>> metric_to_fit("token_f1"), metric_to_fit("solved_unaided")
    ('token_f1', 'turn_f1')
    """
    return "turn_f1" if METRICS[name].of_conversations else name


def get_metric(name: str) -> Metric:
    """The metric called `name`. Raises ConfigError with the closest valid name.

    >>> get_metric("token_f1").scale
    1.0
    """
    if name in METRICS:
        return METRICS[name]
    near = difflib.get_close_matches(name, METRICS, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"unknown metric {name!r}.{hint} Valid metrics: {', '.join(METRICS)}")


def score(
    names: Iterable[str], examples: Sequence[Example], predictions: Iterable[Prediction]
) -> list[Score]:
    """One Score for each per-row metric and example, metric by metric, in the examples' order.

    Corpus metrics have no value for a row and are left out. A failed prediction, or none at
    all, is FAILED with the value None, never zero; an empty output is an answer, and scored.

    Raises:
        ConfigError: an unknown metric.
        DataError: two predictions for one example, or one for an example that is not there.
    """
    found = _by_example(examples, predictions)
    scores: list[Score] = []
    for metric in map(get_metric, names):
        if metric.per_row:
            scores += [score_row(metric, e, found[e.id]) for e in examples]
    return scores


def score_row(metric: Metric, example: Example, prediction: Prediction | None) -> Score:
    """One row by a per-row metric; FAILED where the metric cannot be known."""
    stats = None if prediction is None else metric.prediction_statistics(prediction, example)
    if stats is None:
        return Score(example.id, metric.name, None, Outcome.FAILED)
    return Score(example.id, metric.name, metric.aggregate(stats), Outcome.SCORED)


def row_statistics(
    metric: Metric, examples: Sequence[Example], predictions: Iterable[Prediction]
) -> list[tuple[float, ...]]:
    """The (n rows, width) statistics that `tunelm.scoring.statistics` takes.

    One row for each example, in the same order, whatever the order of the predictions; all
    NaN where the prediction failed or is missing. Raises DataError as `score` does.
    """
    found = _by_example(examples, predictions)
    metric = metric.bound(examples)
    failed = (math.nan,) * metric.width

    def row(example: Example) -> tuple[float, ...]:
        prediction = found[example.id]
        stats = None if prediction is None else metric.prediction_statistics(prediction, example)
        return failed if stats is None else stats

    return [row(example) for example in examples]


def corpus_value(
    metric: Metric, examples: Sequence[Example], predictions: Iterable[Prediction]
) -> float | None:
    """The value over all scored rows, on the metric's scale; None when no row was scored."""
    rows = row_statistics(metric, examples, predictions)
    scored = [row for row in rows if not math.isnan(row[0])]
    return (
        metric.aggregate([sum(column) for column in zip(*scored, strict=True)]) if scored else None
    )


def _by_example(
    examples: Sequence[Example], predictions: Iterable[Prediction]
) -> dict[str, Prediction | None]:
    outputs: dict[str, Prediction | None] = {example.id: None for example in examples}
    seen: set[str] = set()
    for prediction in predictions:
        if prediction.example_id not in outputs:
            raise DataError(
                f"a prediction for row {prediction.example_id}, which is not among the "
                f"{len(outputs)} rows being scored; give the rows they were made on"
            )
        if prediction.example_id in seen:
            raise DataError(
                f"two predictions for row {prediction.example_id}; score one model and one "
                "seed at a time"
            )
        seen.add(prediction.example_id)
        outputs[prediction.example_id] = prediction
    return outputs
