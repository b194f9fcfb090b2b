"""The metrics: their values against the reference packages, and what becomes of each row."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
import sacrebleu.metrics
from rouge_score.rouge_scorer import RougeScorer

from tunelm.errors import ConfigError, DataError
from tunelm.scoring.metrics import (
    METRICS,
    corpus_value,
    get_metric,
    metrics_for,
    row_statistics,
    score,
)
from tunelm.types import Example, FinishReason, Message, Outcome, Prediction

TEXT = "the sun is a star , and water's boiling point (at sea level) is 100 °C . café"


def example(row_id: str, *answers: str, **metadata: object) -> Example:
    """A row of a group of its own."""
    return Example(row_id, (Message("user", "Why?"),), answers, f"g{row_id}", metadata=metadata)


def prediction(row_id: str, output: str | None) -> Prediction:
    """What a model said to that row; None for a failure."""
    reason = FinishReason.ERROR if output is None else FinishReason.STOP
    return Prediction(row_id, "test", output, reason)


def value(metric: str, output: str, *answers: str, **metadata: object) -> float | None:
    """The metric of one output against the answers."""
    return METRICS[metric].row_value(output, example("1", *answers, **metadata))


def corpus(references: tuple[int, ...]) -> tuple[list[Example], list[str]]:
    """Random rows with the given numbers of references in turn; one output is empty."""
    rng, words = random.Random(7), TEXT.split()

    def sentence() -> str:
        return " ".join(rng.choices(words, k=rng.randint(1, 14)))

    examples = [
        example(str(i), *(sentence() for _ in range(references[i % len(references)])))
        for i in range(60)
    ]
    outputs = [e.answers[0][: rng.randint(5, 60)] + " " + sentence() for e in examples]
    return examples, [*outputs[:-1], ""]


@pytest.mark.parametrize(
    ("output", "answers", "expected"),
    [
        ("The Sun.", ("sun",), 1),
        ("an  apple!", ("Apple", "pear"), 1),
        ("pear", ("Apple", "the pear"), 1),
        ("theme", ("me",), 0),
        ("", ("sun",), 0),
        ("The", ("a",), 1),
    ],
)
def test_exact_match_compares_in_the_squad_form(
    output: str, answers: tuple[str, ...], expected: float
) -> None:
    assert value("exact_match", output, *answers) == expected


@pytest.mark.parametrize(
    ("output", "answers", "expected"),
    [
        ("the Eiffel Tower", ("Eiffel Tower",), 1.0),
        ("in Paris, France", ("Paris",), 0.5),
        # A multiset: the second `cat` finds no partner. A set would give 1.
        ("cat cat", ("cat",), 2 / 3),
        ("cat cat dog", ("cat dog dog",), 2 / 3),
        ("Paris", ("London", "Paris France", "Rome"), 2 / 3),
        ("dog", ("cat",), 0.0),
        ("", ("cat",), 0.0),
        ("", ("the",), 1.0),
    ],
)
def test_token_f1_is_that_of_squad(output: str, answers: tuple[str, ...], expected: float) -> None:
    assert value("token_f1", output, *answers) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("output", "key", "expected"),
    [
        ("Plants make it by photosynthesis.", "Photosynthesis", 1),
        ("It is 100 degrees Celsius", "100 degrees", 1),
        ("It is 1000 degrees", "100", 0),
        ("degrees: 100", "100 degrees", 0),
        ("the heartbeat", "heart", 0),
        ("by the United States of America", "United States", 1),
        ("Oranges hold vitamin C.", "a", 0),
        ("Carrots hold vitamin A.", "A", 1),
        ("it grows by 5 %", "%", 1),
        ("", "heart", 0),
    ],
)
def test_contains_finds_whole_tokens_only(output: str, key: str, expected: float) -> None:
    assert value("contains", output, "a long reference", key_answers=["no such", key]) == expected


def test_contains_falls_back_to_the_answers_where_no_key_is_given() -> None:
    assert value("contains", "It is the sun, of course.", "The sun") == 1
    assert value("contains", "It is the sun, of course.", "The sun", key_answers=["moon"]) == 0
    with pytest.raises(DataError, match="list of short texts"):
        value("contains", "moon", "moon", key_answers="moon")


@pytest.mark.parametrize("references", [(1,), (3,), (1, 3, 2)])
@pytest.mark.parametrize("name", ["BLEU", "CHRF"])
def test_corpus_metrics_equal_sacrebleu_exactly(name: str, references: tuple[int, ...]) -> None:
    examples, outputs = corpus(references)
    metric = METRICS[name.lower()]
    found = corpus_value(
        metric, examples, [prediction(e.id, o) for e, o in zip(examples, outputs, strict=True)]
    )
    theirs = getattr(sacrebleu.metrics, name)()
    streams = [
        [e.answers[i] if i < len(e.answers) else None for e in examples]
        for i in range(max(references))
    ]
    assert found == theirs.corpus_score(outputs, streams).score
    assert metric.signature(examples) == str(theirs.get_signature())
    assert metric.row_value(outputs[0], examples[0]) is None
    assert metric.description.endswith("whether the answer is right")


def test_rouge_l_equals_the_reference_package() -> None:
    examples, outputs = corpus((1, 2))
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    for row, output in zip(examples, outputs, strict=True):
        best = max(scorer.score(answer, output)["rougeL"].fmeasure for answer in row.answers)
        assert METRICS["rouge_l"].row_value(output, row) == best
    assert "stemmer:porter" in METRICS["rouge_l"].signature()


@pytest.mark.parametrize("name", list(metrics_for("qa")))
def test_every_metric_adds_up(name: str) -> None:
    """The shape that resampling needs: fixed width, and a mean where rows have values."""
    metric = get_metric(name)
    examples, outputs = corpus((2,))
    rows = [metric.statistics(o, e) for o, e in zip(outputs, examples, strict=True)]
    assert {len(row) for row in rows} == {metric.width}
    total = metric.aggregate([sum(column) for column in zip(*rows, strict=True)])
    assert 0 < total < metric.scale
    if metric.per_row:
        values = [metric.row_value(o, e) for o, e in zip(outputs, examples, strict=True)]
        assert total == pytest.approx(sum(v for v in values if v is not None) / len(values))
    same = metric.statistics(examples[0].answers[0] * 2, example("1", examples[0].answers[0] * 2))
    assert metric.aggregate(same) == pytest.approx(metric.scale)
    assert metric.signature() == metric.signature()


def test_a_failed_row_is_counted_and_is_not_zero() -> None:
    examples = [example(str(i), "sun") for i in range(4)]
    made = [prediction("2", ""), prediction("0", "Sun"), prediction("1", None)]
    scores = score(["exact_match", "bleu", "token_f1"], examples, made)
    assert [s.metric for s in scores] == ["exact_match"] * 4 + ["token_f1"] * 4
    assert [(s.example_id, s.value, s.outcome) for s in scores[:4]] == [
        ("0", 1.0, Outcome.SCORED),
        ("1", None, Outcome.FAILED),
        ("2", 0.0, Outcome.SCORED),
        ("3", None, Outcome.FAILED),
    ]
    metric = get_metric("exact_match")
    assert corpus_value(metric, examples, made) == 0.5
    assert corpus_value(metric, examples, [prediction("1", None)]) is None
    rows = row_statistics(metric, examples, made)
    assert rows[0] == (1, 1)
    assert rows[2] == (0, 1)
    assert all(v != v for i in (1, 3) for v in rows[i])


def test_predictions_that_do_not_fit_the_rows_are_refused() -> None:
    examples = [example("0", "sun")]
    with pytest.raises(DataError, match="row 9, which is not among the 1 rows"):
        score(["contains"], examples, [prediction("9", "sun")])
    with pytest.raises(DataError, match="two predictions for row 0"):
        score(["contains"], examples, [prediction("0", "sun")] * 2)


def test_a_row_without_answers_is_refused_by_name() -> None:
    for metric in metrics_for("qa").values():
        with pytest.raises(DataError, match="row 7 has no answer"):
            metric.statistics("sun", example("7"))


def test_an_unknown_metric_is_answered_with_the_closest_name() -> None:
    with pytest.raises(ConfigError, match=r"'token_fi'.*'token_f1'.*exact_match, token_f1"):
        get_metric("token_fi")


def test_the_table_is_light_to_import() -> None:
    code = (
        "import sys, tunelm.scoring.metrics; "
        "print(sorted({'numpy', 'sacrebleu', 'rouge_score', 'nltk'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
