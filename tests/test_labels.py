"""Classification: labels chosen by likelihood, read from what is written, and scored."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest

import tunelm
from tunelm.config import ModelConfig, TaskConfig
from tunelm.errors import ConfigError, ModelError
from tunelm.models.labels import (
    CHOICE_TOKENS,
    LabelModel,
    end_of_answer,
    match_label,
    task_labels,
    unseen_labels,
)
from tunelm.models.local import open_local
from tunelm.models.prompted import PromptedModel
from tunelm.models.remote import open_remote
from tunelm.report.build import build_report
from tunelm.retrieval.index import ByWords
from tunelm.retrieval.model import RagModel
from tunelm.routes.constant import best_constant
from tunelm.scoring.metrics import corpus_value, get_metric, metrics_for, row_statistics
from tunelm.scoring.statistics import interval, paired
from tunelm.testing import ChatServer, Failure, ScriptedModel
from tunelm.types import (
    NO_LABEL,
    Completion,
    Example,
    FinishReason,
    Message,
    Prediction,
    Request,
    TokenLogprobs,
    Usage,
)

SIGNS = ("good", "very good", "bad")


def ask(text: str, max_tokens: int = 4) -> Request:
    return Request((Message("user", text),), max_tokens=max_tokens)


class Likely(ScriptedModel):
    """Has log-probabilities by hand: a list of numbers for each continuation."""

    capabilities = frozenset({"complete", "stream", "score"})

    def __init__(self, table: dict[str, list[float]]) -> None:
        super().__init__(lambda request: "never asked")
        self.table = table
        self.batches: list[int] = []

    def score(self, pairs):
        self.batches.append(len(pairs))
        found = []
        for prompt, text in pairs:
            if "too long" in prompt[-1].content:
                raise ModelError("prompt and text have 9 tokens; the context is 8.")
            found.append(TokenLogprobs(tuple("t" for _ in self.table[text]), (*self.table[text],)))
        return found


# --- chosen by likelihood -----------------------------------------------------------------


def test_the_answer_is_the_label_with_the_highest_sum_not_the_highest_mean():
    model = LabelModel(
        Likely({"good": [-1.5], "very good": [-1.8, -0.1], "bad": [-4.0]}), ("good", *SIGNS[1:])
    )
    (answer,) = model.complete([ask("How?")])
    assert (answer.text, answer.finish_reason, answer.format_error) == ("good", "stop", None)
    (odds,) = model.probabilities([ask("How?").messages])
    total = math.exp(-1.5) + math.exp(-1.9) + math.exp(-4)
    assert odds == pytest.approx(
        {
            "good": math.exp(-1.5) / total,
            "very good": math.exp(-1.9) / total,
            "bad": math.exp(-4) / total,
        }
    )
    assert next(iter(model.stream(ask("How?")))).text == "good"


def test_all_labels_of_all_requests_are_one_batch_and_a_long_row_fails_alone():
    inner = Likely({"good": [-1.0], "bad": [-2.0]})
    model = LabelModel(inner, ("good", "bad"))
    answers = model.complete([ask("a"), ask("b"), ask("c")])
    assert inner.batches == [6]
    assert {a.text for a in answers} == {"good"}
    answers = model.complete([ask("a"), ask("too long"), ask("c")])
    assert [a.text for a in answers] == ["good", "", "good"]
    assert "context is 8" in str(answers[1].error)
    with pytest.raises(ModelError, match="context is 8"):
        model.probabilities([ask("too long").messages])


def test_what_a_model_cannot_count_is_unknown():
    (answer,) = LabelModel(Likely({"x": [-1, -1], "y": [-3]}), ("x", "y")).complete([ask("?")])
    assert answer.usage == Usage(None, 3, None)


@pytest.fixture(scope="module")
def nano():
    pytest.importorskip("torch")
    from tunelm.config import ModelConfig
    from tunelm.models import open_model

    return open_model(ModelConfig(base="tunelm-nano-small", device="cpu"))


def test_the_end_of_the_answer_counts_so_that_a_beginning_is_not_favoured(nano):
    """What is compared is the probability of the whole answer and its end, token by token."""
    prompted = PromptedModel(nano, "Answer the question.")
    end = end_of_answer(prompted)
    tokens = nano.tokenizer.encode(end, add_special_tokens=False)
    assert tokens == [nano.tokenizer.eos_token_id]
    request = ask("What does the heart do?", max_tokens=64)
    greedy = prompted.complete([request])[0].text
    labels = (" ".join(greedy.split()[:2]), greedy)
    bare = [
        math.fsum(s.logprobs)
        for s in prompted.score([(request.messages, label) for label in labels])
    ]
    assert bare[0] > bare[1]  # as any beginning: it has fewer tokens
    model = LabelModel(prompted, labels)
    (answer,) = model.complete([request])
    assert answer.text == labels[1]
    prompt = len(
        nano.tokenizer.apply_chat_template(
            _chat(prompted, request), tokenize=True, add_generation_prompt=True, return_dict=True
        )["input_ids"]
    )
    counted = sum(len(nano.tokenizer.encode(x, add_special_tokens=False)) + 1 for x in labels)
    assert answer.usage == Usage(2 * prompt, counted, 0)
    assert model.render(request.messages)[0] == Message("system", "Answer the question.")


def _chat(model, request):
    return [{"role": m.role, "content": m.content} for m in model.render(request.messages)]


# --- read from what is written ------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("good", "good"),
        (" Good.\n", "good"),
        ("**very good**", "very good"),
        ("The answer is: very good, I think", "very good"),
        ('{"label": "bad"}', "bad"),
        ('{"mood": "bad"}', "bad"),
        ("goodness", None),
        ("good or bad", None),
        ("", None),
        ("...", None),
        ("no idea", None),
    ],
)
def test_a_written_answer_means_the_one_label_in_it(text: str, label: str | None):
    assert match_label(text, SIGNS) == label


def test_labels_of_signs_and_of_one_letter_are_told_apart():
    assert match_label("C", ("C", "C++", "C#")) == "C"
    assert match_label("C#.", ("C", "C++", "C#")) == "C#"
    assert match_label("(a)", ("A", "B")) == "A"


def test_an_answer_without_a_label_stays_and_is_counted():
    said = {"one": "bad!", "two": "who knows", "three": "good, not bad"}
    inner = ScriptedModel(lambda request: said[request.messages[-1].content])
    answers = LabelModel(inner, SIGNS).complete([ask(name) for name in said])
    assert [a.text for a in answers] == ["bad", "who knows", "good, not bad"]
    assert [bool(a.format_error) for a in answers] == [False, True, True]
    assert str(answers[1].format_error).startswith(NO_LABEL)
    assert inner.requests[0].choices == ()
    with pytest.raises(ModelError, match="no probabilities"):
        LabelModel(inner, SIGNS).probabilities([ask("one").messages])


def test_an_error_and_a_broken_form_before_it_are_kept():
    class Broken(ScriptedModel):
        def complete(self, requests):
            done = Completion("hm", FinishReason.STOP, format_error="no line begins with 'Answer'")
            return [done, Completion("", FinishReason.ERROR, error="refused")]

    first, second = LabelModel(Broken(str), SIGNS).complete([ask("a"), ask("b")])
    assert (
        first.format_error == f"{NO_LABEL}, or more than one, in the answer; no line begins "
        "with 'Answer'"
    )
    assert second.error == "refused"


def test_an_endpoint_is_held_to_the_labels_by_a_schema():
    with ChatServer(ScriptedModel(lambda request: '{"label": "very good"}')) as server:
        inner = PromptedModel(open_remote("scripted", server.url), "Which?")
        (answer,) = LabelModel(inner, SIGNS).complete([ask("x", max_tokens=4)])
    assert answer.text == "very good"
    (body,) = server.bodies
    schema = body["response_format"]["json_schema"]
    assert schema["schema"]["properties"]["label"]["enum"] == list(SIGNS)
    assert schema["strict"] is True
    assert body["max_tokens"] == 4 + CHOICE_TOKENS


def test_an_endpoint_that_takes_no_schema_is_asked_without_from_then_on():
    def refuse(body, seen):
        if "response_format" in body:
            return Failure(400, {"message": "This response_format type is unavailable now"})
        return None

    with ChatServer(ScriptedModel(lambda request: "Bad."), fail=refuse) as server:
        model = LabelModel(open_remote("scripted", server.url), SIGNS)
        answers = model.complete([ask("x")]) + model.complete([ask("y")])
    assert [a.text for a in answers] == ["bad", "bad"]
    assert ["response_format" in body for body in server.bodies] == [True, False, False]


def test_a_schema_is_for_one_call_and_not_for_a_program_of_several():
    from tunelm.routes.programs.model import open_program
    from tunelm.routes.programs.program import Program, Step

    with ChatServer(ScriptedModel(lambda r: "Reasoning: so.\nAnswer: bad")) as server:
        remote = open_remote("scripted", server.url)
        step = Step("answer", "Which?", ("reasoning", "answer"), (), 20)
        program = open_program(Program((step,), None, {}, {}, {}, Usage(), {}), remote)
        (answer,) = LabelModel(program, SIGNS).complete([ask("x")])
    assert answer.text == "bad"
    assert "response_format" not in server.bodies[0]


# --- which labels -------------------------------------------------------------------------


def rows(*answers: str, start: int = 0) -> list[Example]:
    return [
        Example(f"r{i}", (Message("user", f"text {i}"),), (answer,), f"g{i}")
        for i, answer in enumerate(answers, start)
    ]


def task(*labels: str) -> TaskConfig:
    return TaskConfig(name="t", kind="classification", labels=labels)


def test_labels_are_those_given_or_those_of_train():
    assert task_labels(task(), rows("b", "a", "b")) == ("a", "b")
    assert task_labels(task("x", "b", "a"), rows("b", "a", "b")) == ("x", "b", "a")
    with pytest.raises(ConfigError, match=r"two labels or more; here: a\."):
        task_labels(task(), rows("a", "a"))
    with pytest.raises(
        ConfigError, match=r"task\.labels lacks 'c', an answer in train \(rows: 2\)"
    ):
        task_labels(task("a", "b"), rows("a", "c", "c"))
    with pytest.raises(ConfigError, match=r"only in case and spaces: \['A', 'a'\]"):
        task_labels(task(), rows("a", "A", "b"))


def test_an_answer_that_train_never_shows_is_a_warning():
    parts = {"dev": rows("a", "b"), "test": rows("a", "z", "z")}
    (warning,) = unseen_labels(("a", "b"), parts)
    assert warning == "labels in test that no route knows, always wrong: 'z' (rows: 2)"


# --- metrics ------------------------------------------------------------------------------


def predictions(examples, outputs, broken=()):
    return [
        Prediction(
            e.id,
            "test",
            output,
            FinishReason.ERROR if output is None else FinishReason.STOP,
            format_error=f"{NO_LABEL}, ..." if e.id in broken else None,
        )
        for e, output in zip(examples, outputs, strict=True)
    ]


def test_macro_f1_is_the_textbook_one_and_counts_a_wrong_form_as_a_miss():
    examples = rows("a", "a", "a", "b", "b", "c")
    made = predictions(examples, ["a", "a", "b", "b", "who knows", "C "], broken={"r4"})
    # a: 2 right of 3, 2 answered; b: 1 of 2, 2 answered; c: 1 of 1
    want = (2 * 2 / 5 + 2 * 1 / 4 + 1) / 3
    assert corpus_value(get_metric("macro_f1"), examples, made) == pytest.approx(want)
    assert corpus_value(get_metric("accuracy"), examples, made) == pytest.approx(4 / 6)
    assert corpus_value(get_metric("invalid_label"), examples, made) == pytest.approx(1 / 6)


def test_macro_f1_equals_scikit_learns_where_it_is_installed():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = random.Random(3)
    gold = rng.choices("abcd", weights=(8, 4, 2, 1), k=200)
    got = [g if rng.random() < 0.6 else rng.choice("abcd") for g in gold]
    examples = rows(*gold)
    found = corpus_value(get_metric("macro_f1"), examples, predictions(examples, got))
    assert found == pytest.approx(metrics.f1_score(gold, got, average="macro"))


def test_macro_f1_is_resampled_by_group_like_any_other():
    rng = random.Random(5)
    examples = rows(*rng.choices("abc", weights=(6, 2, 1), k=120))
    good = [e.answers[0] if rng.random() < 0.8 else "a" for e in examples]
    poor = ["a"] * len(examples)
    metric = metrics_for("classification", examples)["macro_f1"]
    stats = [
        np.array(row_statistics(metric, examples, predictions(examples, out)))
        for out in (good, poor)
    ]
    assert stats[0].shape == (120, metric.width) == (120, 9)
    groups = [e.group for e in examples]
    value = interval(stats[0], groups, metric.aggregate, scale=metric.scale, resamples=500)
    assert value.low < value.value < value.high <= 1
    found = paired(*stats, groups, metric.aggregate, resamples=500)
    assert found.low > 0
    assert found.p < 0.05


def test_a_failed_row_is_unknown_and_an_empty_answer_is_no_label():
    examples = rows("A", "B")
    made = predictions(examples, [None, ""])
    for name in ("accuracy", "macro_f1", "invalid_label"):
        first, second = row_statistics(get_metric(name), examples, made)
        assert all(math.isnan(v) for v in first), name
        assert not any(math.isnan(v) for v in second), name
    assert corpus_value(get_metric("accuracy"), examples, predictions(examples, ["", "b"])) == 0.5


def test_a_classification_has_its_own_metrics_and_others_do_not_have_them():
    assert list(metrics_for("classification")) == ["accuracy", "macro_f1", "invalid_label", "ece"]
    assert not {"accuracy", "macro_f1", "invalid_label", "ece"} & set(metrics_for("qa"))
    assert get_metric("invalid_label").sign == -1


# --- the whole way ------------------------------------------------------------------------


def planted(folder: Path, base: str) -> Path:
    """Words of two kinds: a small model can learn which kind a sentence is of."""
    warm, cold = ["sun", "fire", "heat", "summer"], ["snow", "ice", "frost", "winter"]
    lines = [
        {
            "question": f"There was {first} and {second} {place}.",
            "answer": name,
            "group": f"{first}-{second}-{place}",
        }
        for name, words in (("warm", warm), ("cold", cold))
        for first in words
        for second in words
        if first != second
        for place in ("here", "there", "at home", "in town", "by the lake")
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    path = folder / "weather.toml"
    path.write_text(
        f"""
[task]
name = "weather"
kind = "classification"
instructions = "Is it warm or cold?"
max_tokens = 4
[data]
path = "rows.jsonl"
dev = 0.2
test = 0.4
[model]
base = "{base}"
[compare]
routes = ["constant", "baseline", "local"]
primary_metric = "accuracy"
[routes.local]
max_steps = 24
"""
    )
    return path


def test_a_planted_classification_is_learned_scored_and_opened_again(tmp_path: Path):
    pytest.importorskip("peft")
    report = tunelm.compare(planted(tmp_path, "tunelm-nano-small"), tmp_path / "run")
    routes = {route["name"]: route for route in report["routes"]}
    assert {r["status"] for r in routes.values()} == {"done"}, [
        r["reason"] for r in routes.values()
    ]
    assert list(routes["local"]["scores"]) == ["accuracy", "macro_f1", "invalid_label", "ece"]
    local, base = routes["local"]["scores"], routes["baseline"]["scores"]
    assert local["accuracy"]["value"] > 0.9 > base["accuracy"]["ci_high"]
    assert local["macro_f1"]["value"] > 0.9
    assert {r["scores"]["invalid_label"]["value"] for r in routes.values()} == {0}
    assert json.loads((tmp_path / "run" / "labels.json").read_text())["labels"] == ["cold", "warm"]
    model = tunelm.load(tmp_path / "run" / "local")
    answer = model.complete([ask("There was snow and frost by the river.")])[0]
    assert answer.text == "cold"
    _fail_first_test_row(tmp_path / "run" / "routes" / "local" / "seed-0" / "predictions.jsonl")
    routes = {r["name"]: r for r in build_report(tmp_path / "run")["routes"]}
    for name in ("accuracy", "macro_f1"):
        scores = routes["local"]["scores"][name]
        assert scores["value_failed_as_wrong"] < scores["value"]
        assert scores["n"] == local[name]["n"] - 1


def _fail_first_test_row(path: Path) -> None:
    made = [json.loads(line) for line in path.read_text().splitlines()]
    first = next(row for row in made if row["part"] == "test")
    first |= {"output": None, "error": "refused", "finish_reason": "error"}
    path.write_text("".join(json.dumps(row) + "\n" for row in made))


def test_an_answer_in_test_that_train_lacks_becomes_a_warning_of_the_report(tmp_path: Path):
    pytest.importorskip("torch")
    task = planted(tmp_path, "tunelm-nano-small")
    (tmp_path / "data").mkdir()
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    strange = json.dumps({"question": "There was nothing.", "answer": "mild", "group": "m"})
    for part, rows in (("train", lines[::3]), ("dev", lines[1::3]), ("test", lines[2::3])):
        rows = [*rows, strange] if part == "test" else rows
        (tmp_path / "data" / f"{part}.jsonl").write_text("\n".join(rows) + "\n")
    report = tunelm.compare(
        task,
        tmp_path / "run",
        overrides=["data.path=data", 'compare.routes=["constant"]'],
    )
    wanted = "labels in test that no route knows, always wrong: 'mild' (rows: 1)"
    assert any(wanted in warning for warning in report["warnings"])


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_the_constant_control_says_the_most_frequent_label(metric: str):
    rows = [
        Example(f"r{i}", (Message("user", f"text {i}"),), ("rare" if i % 5 == 0 else "usual",), "g")
        for i in range(50)
    ]
    assert {best_constant(rows, metric, seed) for seed in range(20)} == {"usual"}


def test_labels_are_scored_by_one_rule_behind_whatever_stands_before_a_model():
    bare = open_local(ModelConfig(base="tunelm-nano-small"), None)
    around = RagModel(PromptedModel(bare, "Choose."), ByWords([]), (), 1, 64)
    labels = ("good", "bad")
    asked = [Request((Message("user", "fine weather"),))]
    alone = LabelModel(PromptedModel(bare, "Choose."), labels).complete(asked)[0]
    behind = LabelModel(around, labels).complete(asked)[0]
    assert (behind.text, behind.usage) == (alone.text, alone.usage)
    assert behind.usage.prompt_tokens
