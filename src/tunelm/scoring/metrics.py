"""The metrics, all in one shape, so that every one of them can be resampled by group.

A metric turns one row into a short vector of sufficient statistics. Vectors add up, and
`aggregate` turns a sum over any rows into the value for those rows: a mean for metrics that
score each row, sacrebleu's corpus score for BLEU and chrF. Importing this module loads the
standard library only; sacrebleu and rouge-score are imported at the first use.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

from tunelm.errors import ConfigError, DataError
from tunelm.scoring import text
from tunelm.types import NO_LABEL, Example, Outcome, Prediction, Score, label_form


def ratio(vector: Sequence[float]) -> float:
    """The mean from (sum of values, number of values); NaN where nothing was counted."""
    return vector[0] / vector[1] if vector[1] else math.nan


@dataclass(frozen=True)
class Metric(ABC):
    """One metric. `scale` is the best possible value: 1, or 100 where sacrebleu uses 100.

    It is None for metrics without a best value, which are given as they are, in `unit`, and
    of which less is better. `lower_is_better` says so of others too: a share of failures.

    `per_row` metrics score each row by itself; the others exist for a whole corpus only.
    `width` is the length of the vector of statistics.
    """

    name: str
    description: str
    scale: float | None
    per_row: bool
    width: int

    @abstractmethod
    def signature(self, examples: Sequence[Example] = ()) -> str:
        """Everything needed to compute the same number elsewhere.

        For BLEU and chrF it is sacrebleu's own string. It names the number of references,
        which is known only with `examples`; without them it stands as `var`.
        """

    @abstractmethod
    def row_value(self, output: str, example: Example) -> float | None:
        """The value for one row, on `scale`; None for a metric of whole corpora."""

    @abstractmethod
    def statistics(self, output: str, example: Example) -> tuple[float, ...]:
        """Sufficient statistics of one row: `width` numbers, to be added over rows."""

    def bound(self, examples: Sequence[Example]) -> Metric:
        """The metric for just these rows; itself, where it does not depend on the rows."""
        return self

    def prediction_statistics(
        self, prediction: Prediction, example: Example
    ) -> tuple[float, ...] | None:
        """`statistics` of a prediction; None where it failed or the model cannot tell."""
        return None if prediction.output is None else self.statistics(prediction.output, example)

    @property
    def lower_is_better(self) -> bool:
        """Whether less of it is better."""
        return self.scale is None

    @property
    def sign(self) -> float:
        """What a value is multiplied by so that more is better."""
        return -1.0 if self.lower_is_better else 1.0

    @property
    @abstractmethod
    def aggregate(self) -> Callable[[Sequence[float]], float]:
        """The function from a sum of statistics to the value, on `scale`, for those rows.

        For every per-row metric it is `ratio` itself, which lets tunelm.scoring.statistics
        compute the means of thousands of resamples at once.
        """


@dataclass(frozen=True)
class _RowMetric(Metric):
    """A mean of values between 0 and 1, one a row."""

    value_of: Callable[[str, Example], float]
    signature_text: Callable[[], str]

    def signature(self, examples: Sequence[Example] = ()) -> str:
        return self.signature_text()

    def row_value(self, output: str, example: Example) -> float:
        return self.value_of(output, example)

    def statistics(self, output: str, example: Example) -> tuple[float, ...]:
        return (self.value_of(output, example), 1.0)

    @property
    def aggregate(self) -> Callable[[Sequence[float]], float]:
        return ratio


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
        counts = {len(_answers(self.name, example)) for example in examples}
        engine.num_refs = counts.pop() if len(counts) == 1 else -1
        return str(engine.get_signature())

    def row_value(self, output: str, example: Example) -> None:
        return None

    def statistics(self, output: str, example: Example) -> tuple[float, ...]:
        references = [[answer] for answer in _answers(self.name, example)]
        (row,) = self._engine._extract_corpus_statistics([output], references)
        return tuple(float(count) for count in row)

    @property
    def aggregate(self) -> Callable[[Sequence[float]], float]:
        return self._corpus_score

    def _corpus_score(self, vector: Sequence[float]) -> float:
        return float(self._engine._compute_score_from_stats(list(vector)).score)


@dataclass(frozen=True)
class _Likelihood(Metric):
    """From the probability that a model gives a text: no output is looked at."""

    def signature(self, examples: Sequence[Example] = ()) -> str:
        return f"{self.name}|windows:disjoint,rolling,context:1|prefix:bos-or-eos|log:exact"

    def row_value(self, output: str, example: Example) -> None:
        return None

    def statistics(self, output: str, example: Example) -> tuple[float, ...]:
        return (math.nan,) * self.width

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


@dataclass(frozen=True)
class _MacroF1(Metric):
    """The mean over labels of each label's F1: a rare label weighs as much as a common one.

    The labels are the gold answers of the rows that are scored (see `bound`). For each there
    are three counts: rows right, rows of that label, rows answered with it. An answer that is
    none of them still misses its row's label.
    """

    labels: tuple[str, ...] = ()

    def bound(self, examples: Sequence[Example]) -> Metric:
        if self.labels or not examples:
            return self
        found = tuple(sorted({label_form(_answers(self.name, e)[0]) for e in examples}))
        return replace(self, labels=found, width=3 * len(found))

    def signature(self, examples: Sequence[Example] = ()) -> str:
        return "macro_f1|labels:gold|norm:case,spaces|refs:any"

    def row_value(self, output: str, example: Example) -> None:
        return None

    def statistics(self, output: str, example: Example) -> tuple[float, ...]:
        accepted = [label_form(a) for a in _answers(self.name, example)]
        gold = accepted[0]
        got = gold if label_form(output) in accepted else label_form(output)
        counts = ((gold == got == label, gold == label, got == label) for label in self.labels)
        return tuple(float(count) for label in counts for count in label)

    @property
    def aggregate(self) -> Callable[[Sequence[float]], float]:
        return macro_f1


@dataclass(frozen=True)
class _InvalidLabel(Metric):
    """The share of answers that are none of the task's labels, as `models.labels` found them."""

    def signature(self, examples: Sequence[Example] = ()) -> str:
        return "invalid_label|as:answered"

    def row_value(self, output: str, example: Example) -> None:
        return None

    def statistics(self, output: str, example: Example) -> tuple[float, ...]:
        return (math.nan, math.nan)

    def prediction_statistics(
        self, prediction: Prediction, example: Example
    ) -> tuple[float, ...] | None:
        if prediction.output is None:
            return None
        return (float((prediction.format_error or "").startswith(NO_LABEL)), 1.0)

    @property
    def lower_is_better(self) -> bool:
        return True

    @property
    def aggregate(self) -> Callable[[Sequence[float]], float]:
        return ratio


def macro_f1(vector: Sequence[float]) -> float:
    """The mean F1 of the labels that occur, from (right, gold, answered) of each label.

    >>> round(macro_f1([1, 2, 1, 1, 1, 2]), 3)
    0.667
    """
    found = [
        2 * right / (gold + answered)
        for right, gold, answered in zip(vector[::3], vector[1::3], vector[2::3], strict=True)
        if gold
    ]
    return sum(found) / len(found) if found else math.nan


def perplexity(vector: Sequence[float]) -> float:
    """Exp of the mean from (sum of nats, number of tokens); infinite where that overflows."""
    mean = ratio(vector)
    return math.exp(mean) if mean < 700 else math.inf


def _answers(metric: str, example: Example) -> tuple[str, ...]:
    if not example.answers:
        raise DataError(
            f"row {example.id} has no answer, and {metric} needs at least one to compare with; "
            "give the row an answer or leave it out"
        )
    return example.answers


def _exact_match(output: str, example: Example) -> float:
    got = text.normalise(output)
    return float(any(got == text.normalise(a) for a in _answers("exact_match", example)))


def _token_f1(output: str, example: Example) -> float:
    return max(text.token_f1(output, a) for a in _answers("token_f1", example))


def _accuracy(output: str, example: Example) -> float:
    return float(label_form(output) in map(label_form, _answers("accuracy", example)))


def _contains(output: str, example: Example) -> float:
    keys = cast(Sequence[str], example.metadata.get("key_answers") or ())
    if isinstance(keys, str):
        raise DataError(
            f"row {example.id}: metadata key_answers is the text {keys!r}; "
            "it must be a list of short texts"
        )
    return float(any(text.contains(output, k) for k in keys or _answers("contains", example)))


class _Rouge:
    """ROUGE-L by the rouge-score package, which is slow to import."""

    @cached_property
    def _scorer(self) -> Any:
        from rouge_score.rouge_scorer import RougeScorer

        return RougeScorer(["rougeL"], use_stemmer=True)

    def __call__(self, output: str, example: Example) -> float:
        scores = self._scorer.score_multi(_answers("rouge_l", example), output)
        return float(scores["rougeL"].fmeasure)


def _rouge_signature() -> str:
    version = importlib.metadata.version("rouge-score")
    return f"rougeL|measure:f|stemmer:porter|tok:a-z0-9|refs:max|rouge-score:{version}"


def _row(
    name: str, signature: str | Callable[[], str], value: Callable[[str, Example], float], what: str
) -> Metric:
    written = (lambda: signature) if isinstance(signature, str) else signature
    return _RowMetric(name, what, 1.0, True, 2, value, written)


_FORM = "it measures form, the overlap with a reference, and not whether the answer is right"

METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        _row(
            "exact_match",
            "exact|norm:squad|refs:max",
            _exact_match,
            "share of outputs equal to a reference answer after SQuAD normalisation",
        ),
        _row(
            "token_f1",
            "f1|tokens:multiset|norm:squad|refs:max",
            _token_f1,
            f"SQuAD F1 of tokens with the best reference; {_FORM}",
        ),
        _row(
            "contains",
            "contains|keys:key_answers,else:answers|match:tokens|norm:squad|refs:any",
            _contains,
            "share of outputs in which a key answer stands word for word: content, whatever "
            "the form around it",
        ),
        _CorpusMetric("bleu", f"corpus BLEU by sacrebleu; {_FORM}", 100.0, False, 10, "BLEU"),
        _CorpusMetric("chrf", f"corpus chrF by sacrebleu; {_FORM}", 100.0, False, 18, "CHRF"),
        _row(
            "rouge_l",
            _rouge_signature,
            _Rouge(),
            f"ROUGE-L F-measure with the best reference (letters a-z and digits only); {_FORM}",
        ),
        _row(
            "accuracy",
            "accuracy|norm:case,spaces|refs:any",
            _accuracy,
            "share of rows answered with their label",
        ),
        _MacroF1(
            "macro_f1",
            "mean over the labels of each label's F1, rare and common labels alike",
            1.0,
            False,
            0,
        ),
        _InvalidLabel(
            "invalid_label",
            "share of answers that are none of the labels; less is better",
            1.0,
            True,
            2,
        ),
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
    )
}
"""Every metric, by name, in the order of the report."""

TEXT_METRICS = ("bits_per_byte", "token_perplexity", "bleu", "chrf")
"""Those of running text; BLEU and chrF are those of a continuation."""


LABEL_METRICS = ("accuracy", "macro_f1", "invalid_label")
"""Those of a classification. Labels are compared as they are written, case and spaces aside:
the form of `exact_match` would delete the label A as an article."""


def metrics_for(kind: str, examples: Sequence[Example] = ()) -> dict[str, Metric]:
    """The metrics of a kind of task, by name, in the order of the report.

    With `examples` they are bound to those rows; without, `row_statistics` and `corpus_value`
    bind them to the rows they are given.
    """
    special = {"text": TEXT_METRICS, "classification": LABEL_METRICS}
    others = [n for n in METRICS if n not in LABEL_METRICS and n not in TEXT_METRICS[:2]]
    return {name: METRICS[name].bound(examples) for name in special.get(kind, others)}


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
