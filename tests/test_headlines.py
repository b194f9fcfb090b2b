"""The task `headlines`: its rows, calibration, and the report's tables of labels."""

from __future__ import annotations

import importlib.util
import json
import math
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import tunelm
from tunelm.cli import cli
from tunelm.config import load_config
from tunelm.data.read import read_rows
from tunelm.data.split import split_rows
from tunelm.models.labels import LabelModel
from tunelm.report.label_tables import mcnemar
from tunelm.scoring.metrics import corpus_value, get_metric, metrics_for, row_statistics
from tunelm.scoring.statistics import interval
from tunelm.testing import ScriptedModel
from tunelm.types import (
    Completion,
    Example,
    FinishReason,
    Message,
    Prediction,
    Request,
    TokenLogprobs,
)

ROOT = Path(__file__).parents[1]
FILE = ROOT / "src/tunelm/tasks/headlines.jsonl"
SECTIONS = ("business", "culture", "health", "science", "sport", "technology", "weather", "world")


# --- the rows -----------------------------------------------------------------------------


def test_the_writer_makes_the_file_to_the_byte(tmp_path: Path):
    source = ROOT / "tasks/headlines.py"
    spec = importlib.util.spec_from_file_location("headlines", source)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.build(tmp_path)
    assert (tmp_path / "headlines.jsonl").read_bytes() == FILE.read_bytes()
    assert FILE.stat().st_size < 400_000


def test_the_rows_are_stories_in_several_wordings_and_the_split_keeps_them_whole():
    config = load_config("headlines")
    rows = [row.example for row in read_rows(config.data.path)]
    by_story: dict[str, list[Example]] = defaultdict(list)
    for row in rows:
        by_story[row.group].append(row)
    assert len(rows) >= 900
    assert len(by_story) >= 320
    assert {len(found) for found in by_story.values()} <= {2, 3, 4}
    assert all(len({row.answers for row in found}) == 1 for found in by_story.values())
    assert {row.answers[0] for row in rows} == set(SECTIONS)
    lures = [row for row in rows if "looks_like" in row.metadata]
    assert len(rows) / 4 < len(lures) < len(rows) / 2
    assert all(row.metadata["looks_like"] in set(SECTIONS) - {row.answers[0]} for row in lures)
    split = split_rows(rows, config.data)
    assert split.leaks == ()
    assert len({row.group for row in split.test}) >= 120
    for part in (split.train, split.dev, split.test):
        assert min(Counter(row.answers[0] for row in part).values()) >= 15


def test_the_check_of_data_finds_no_fault():
    done = CliRunner().invoke(cli, ["data", "check", str(FILE), "--strict"])
    assert done.exit_code == 0, done.output


# --- confidence ---------------------------------------------------------------------------


def rows(*labels: str, groups: int | None = None) -> list[Example]:
    return [
        Example(
            f"r{i}", (Message("user", f"text {i}"),), (label,), f"g{i % (groups or len(labels))}"
        )
        for i, label in enumerate(labels)
    ]


def said(examples: list[Example], outputs: list[str], sure: list[float | None]) -> list[Prediction]:
    return [
        Prediction(
            e.id, "test", o, FinishReason.STOP, facts=None if s is None else {"confidence": s}
        )
        for e, o, s in zip(examples, outputs, sure, strict=True)
    ]


def test_calibration_error_is_that_of_a_count_by_hand():
    examples = rows(*"aaaaaaaa")
    sure = [0.95, 0.91, 1.0, 0.65, 0.61, 0.6, 0.3, 0.0]
    made = said(examples, list("aabaabba"), sure)
    # 0.9 to 1: three rows, two right; 0.6 to 0.7: three, two right; 0.3: one, wrong; 0: one, right
    gaps = [abs(0.95 + 0.91 + 1.0 - 2), abs(0.65 + 0.61 + 0.6 - 2), 0.3, 1.0]
    found = corpus_value(get_metric("ece"), examples, made)
    assert found == pytest.approx(sum(gaps) / 8)


def test_a_sure_and_right_model_has_no_error_and_a_sure_and_wrong_one_all_there_is():
    examples = rows(*"abab")
    assert corpus_value(get_metric("ece"), examples, said(examples, list("abab"), [1.0] * 4)) == 0
    assert corpus_value(get_metric("ece"), examples, said(examples, list("baba"), [1.0] * 4)) == 1


def test_without_confidence_the_error_is_unknown_and_not_zero():
    examples = rows(*"aabb")
    silent = said(examples, list("aabb"), [None] * 4)
    assert corpus_value(get_metric("ece"), examples, silent) is None
    half = said(examples, list("aabb"), [0.75, None, 0.75, None])
    assert corpus_value(get_metric("ece"), examples, half) == pytest.approx(0.25)
    stats = row_statistics(get_metric("ece"), examples, half)
    assert [math.isnan(row[0]) for row in stats] == [False, True, False, True]


def test_calibration_error_adds_up_by_group_and_has_an_interval():
    rng = np.random.default_rng(7)
    sure = rng.uniform(0.3, 1, 300)
    right = rng.random(300) < sure - 0.2  # too sure by 0.2
    examples = rows(*["a"] * 300, groups=100)
    made = said(examples, ["a" if r else "b" for r in right], sure.tolist())
    metric = metrics_for("classification", examples)["ece"]
    stats = row_statistics(metric, examples, made)
    found = interval(
        stats, [e.group for e in examples], metric.aggregate, scale=metric.scale, resamples=500
    )
    assert found.n == 300
    assert found.low < 0.2 < found.high
    assert metric.sign == -1


class Likely(ScriptedModel):
    """Gives each text after the question the log-probability in a table."""

    capabilities = frozenset({"complete", "stream", "score"})

    def __init__(self, table: dict[str, float]) -> None:
        super().__init__(lambda request: "never asked")
        self.table = table

    def score(self, pairs):
        return [TokenLogprobs(("t",), (self.table[text],)) for _, text in pairs]


def test_the_confidence_of_a_scored_label_is_its_share_of_all_labels():
    inner = Likely({"a": math.log(0.06), "b": math.log(0.03), "c": math.log(0.01)})
    request = Request((Message("user", "x"),))
    (answer,) = LabelModel(inner, ("a", "b", "c")).complete([request])
    assert answer.text == "a"
    assert answer.confidence == pytest.approx(0.6)


def test_the_confidence_of_a_written_label_is_the_inner_models_own():
    class Sure(ScriptedModel):
        def complete(self, requests):
            return [Completion("It is b.", FinishReason.STOP, confidence=0.7) for _ in requests]

    request = Request((Message("user", "x"),))
    assert LabelModel(Sure(str), ("a", "b")).complete([request])[0].confidence == 0.7
    silent = ScriptedModel(lambda request: "b")
    assert LabelModel(silent, ("a", "b")).complete([request])[0].confidence is None


# --- the report ---------------------------------------------------------------------------


@pytest.mark.parametrize(("a", "b"), [(0, 1), (3, 3), (2, 11), (20, 5), (0, 40)])
def test_mcnemars_test_is_the_binomial_sum(a: int, b: int):
    n = a + b
    tail = sum(math.comb(n, k) for k in range(min(a, b) + 1)) / 2**n
    assert mcnemar(a, b) == pytest.approx(min(1.0, 2 * tail))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The task without a language model, on its own rows."""
    pytest.importorskip("sklearn")
    out = tmp_path_factory.mktemp("headlines") / "run"
    changes = ['compare.routes=["constant","classifier"]']
    return {**tunelm.compare("headlines", out, overrides=changes), "folder": out}


def test_words_tell_sections_apart_and_constants_do_not(report: dict):
    scores = {route["name"]: route["scores"] for route in report["routes"]}
    counted, fixed = scores["classifier"], scores["constant"]
    assert counted["accuracy"]["ci_low"] > 0.35 > fixed["accuracy"]["ci_high"]
    assert counted["accuracy"]["value"] < 0.7, "too easy: the stories share their words"
    assert counted["ece"]["value"] < 0.2
    assert fixed["ece"]["value"] is None
    assert fixed["ece"]["n"] == 0
    assert report["winner"]["name"] == "classifier"
    pair = next(p for p in report["pairs"] if p["metric"] == "ece")
    assert pair["diff"] is None
    assert pair["verdict"] == "not distinguishable"


def test_the_tables_of_labels_agree_with_the_predictions(report: dict):
    tables = {table["heading"]: table for table in report["tables"]}
    run = report["folder"]
    seed = run / "routes/classifier/seed-0"
    gold = {e["id"]: e["answers"][0] for e in _kept(run)}
    made = [json.loads(line) for line in (seed / "predictions.jsonl").read_text().splitlines()]
    test = [row for row in made if row["part"] == "test"]
    right = sum(row["output"] == gold[row["example_id"]] for row in test)

    confusion = tables["What classifier answers"]["rows"]
    assert [row["label"] for row in confusion] == list(SECTIONS)
    assert sum(int(row[row["label"]]) for row in confusion) == right
    assert sum(int(row["all"]) for row in confusion) == len(test)
    for row in confusion:
        assert sum(int(row[name]) for name in SECTIONS) == int(row["all"])

    (against,) = tables["Against the best simple route"]["rows"]
    constant = max(SECTIONS, key=lambda name: sum(g == name for g in _train_answers(run)))
    only = sum(gold[r["example_id"]] == constant != r["output"] for r in test)
    assert against["route"] == "constant"
    assert against["only it right"] == str(only)
    assert against["p, McNemar"] == against["p, by group"] == "< 0.001"

    bins = tables["Confidence"]["rows"]
    assert {row["route"] for row in bins} == {"classifier"}
    assert "Unknown for constant" in tables["Confidence"]["note"]
    assert sum(int(row["rows"]) for row in bins) == len(test)
    share = sum(int(row["rows"]) * float(row["right"]) for row in bins) / len(test)
    assert share == pytest.approx(100 * right / len(test), abs=0.1)

    hard = {row["route"]: row for row in tables["Rows that look like another label's"]["rows"]}
    right, lured = (
        float(hard["classifier"][name]) for name in ("right", "taken for what it looks like")
    )
    assert lured > 2 * (100 - right - lured) / 6, "of the seven wrong labels the likely one"
    by_label = {row["label"]: row for row in tables["By label"]["rows"]}
    assert [n for n, row in by_label.items() if "never" not in row["constant"]] == [constant]
    page = (run / "report.md").read_text(encoding="utf-8")
    assert "### What classifier answers" in page
    assert "What classifier answers" in (run / "report.html").read_text(encoding="utf-8")


def _kept(run: Path) -> list[dict]:
    lines = (run / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    return [row["example"] for row in map(json.loads, lines) if row["example"]]


def _train_answers(run: Path) -> list[str]:
    lines = (run / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    return [r["example"]["answers"][0] for r in map(json.loads, lines) if r["part"] == "train"]
