"""The task faq-decline: its data, its metrics, what confidence is worth, and its tables."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import random
import re
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

import tunelm
from tunelm.cli import cli
from tunelm.config import TaskConfig, load_config
from tunelm.data.read import read_rows
from tunelm.data.split import Split, split_rows
from tunelm.errors import DataError
from tunelm.models.base import ChatModel
from tunelm.report.sureness import Row, aurc, risk_of_surest
from tunelm.retrieval.chunks import read_corpus
from tunelm.retrieval.quality import gold_passages
from tunelm.route_settings import NearestSettings
from tunelm.routes.base import FitContext
from tunelm.routes.nearest import NearestRoute
from tunelm.scoring import faq_facts
from tunelm.scoring.faq_metrics import DECLINES, OF_FAQ, Verdict, look
from tunelm.scoring.metrics import corpus_value, metrics_for
from tunelm.scoring.threshold import best_threshold
from tunelm.testing import ScriptedModel
from tunelm.types import Example, FinishReason, Message, Prediction, Request

ROOT = Path(__file__).parents[1]
TASKS = Path(tunelm.__file__).parent / "tasks"
SQUAD = ROOT.parent / "shared" / "data" / "squad2" / "squad2.jsonl"
SILENT = "I do not know: the FAQ does not say."


@pytest.fixture(scope="module")
def source() -> ModuleType:
    """The program that writes the data."""
    spec = importlib.util.spec_from_file_location("faq_decline", ROOT / "tasks/faq_decline.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows() -> list[Example]:
    return [row.example for row in read_rows(TASKS / "faq_questions.jsonl")]


@pytest.fixture(scope="module")
def split(rows: list[Example]) -> Split:
    return split_rows(rows, load_config("faq-decline").data)


def rates(rows: list[Example], outputs: list[str]) -> dict[str, float | None]:
    made = [
        Prediction(row.id, "test", output, FinishReason.STOP)
        for row, output in zip(rows, outputs, strict=True)
    ]
    return {name: corpus_value(metric, rows, made) for name, metric in OF_FAQ.items()}


# --- the data -------------------------------------------------------------------------------------


def test_the_data_is_what_its_sources_say_to_the_byte(source: ModuleType, tmp_path: Path):
    source.build(tmp_path)
    for name in ("faq.md", "faq_questions.jsonl"):
        assert (tmp_path / name).read_bytes() == (TASKS / name).read_bytes()
    assert (TASKS / "faq_questions.jsonl").stat().st_size < 400_000


def test_the_rows_are_many_and_do_not_leak(rows: list[Example], split: Split):
    assert not split.leaks
    for part in ("train", "dev", "test"):
        kinds = Counter(row.metadata.get("negative") for row in split.part(part))
        assert set(kinds) == {None, "near-miss", "false-premise", "out-of-domain"}
        assert kinds[None] <= 0.65 * len(split.part(part))
    assert len({row.group for row in split.test}) >= 120
    assert sum(row.metadata["faq"] is not None for row in rows) <= 0.6 * len(rows)
    known = {row.metadata["faq"] for row in split.train}
    asked = {row.metadata["faq"] for row in split.test} - {None}
    assert len(asked - known) <= 5, "test asks about entries that train knows"
    checked = CliRunner().invoke(cli, ["data", "check", str(TASKS / "faq_questions.jsonl")])
    assert checked.exit_code == 0
    assert "no fault found" in checked.output


def test_gold_answers_are_right_and_silence_is_what_it_should_be(rows: list[Example]):
    assert rates(rows, [row.answers[0] for row in rows])["faq_utility"] == 1.0
    silent = rates(rows, [SILENT] * len(rows))
    share = sum(row.metadata["faq"] is not None for row in rows) / len(rows)
    assert silent["faq_utility"] == pytest.approx(1 - share / 2)
    assert (silent["coverage"], silent["selective_risk"]) == (0.0, None)


def test_each_entry_is_a_passage_with_its_mark(rows: list[Example], source: ModuleType):
    entries = source.read_entries()
    assert 60 <= len(entries) <= 100
    passages = read_corpus(TASKS / "faq.md", 80, 15).passages
    assert [p.text.split()[0] for p in passages] == [f"[{entry.id}]" for entry in entries]
    gold = gold_passages(rows, passages)
    for row in rows:
        if row.metadata["faq"]:
            (place,) = gold[row.id]
            assert passages[place].text.startswith(f"[{row.metadata['faq']}]")


# --- the metrics ----------------------------------------------------------------------------------

KNOWN = Example(
    "known",
    (Message("user", "When do you open?"),),
    ("At nine. [faq-04]",),
    "known",
    metadata={"faq": "faq-04", "key_answers": ["nine", "9"]},
)
OPEN = Example(
    "open", (Message("user", "Who is the cook?"),), (SILENT,), "open", metadata={"faq": None}
)


@pytest.mark.parametrize(
    ("output", "known", "unknown"),
    [
        ("It opens at nine [faq-04].", "answered_right", "answered_wrong"),
        ("[faq-04] 9 o'clock", "answered_right", "answered_wrong"),
        ("It opens at ten. [faq-04]", "answered_wrong", "answered_wrong"),
        ("It opens at nine. [faq-05]", "answered_wrong", "answered_wrong"),
        ("It opens at nine.", "answered_wrong", "answered_wrong"),
        ("It opens at nine. [faq-04] [faq-05]", "answered_wrong", "answered_wrong"),
        ("[1] It opens at nine. [faq-04]", "answered_right", "answered_wrong"),
        ("At ten. [nine] [faq-04]", "answered_wrong", "answered_wrong"),
        ("", "answered_wrong", "answered_wrong"),
        (SILENT, "declined_wrong", "declined_right"),
        ("Sorry, I DON’T know that!", "declined_wrong", "declined_right"),
        ("I do not know: nine? [faq-04]", "declined_wrong", "declined_right"),
        ("Nobody knows. [faq-04]", "answered_wrong", "answered_wrong"),
    ],
)
def test_what_becomes_of_an_output(output: str, known: str, unknown: str):
    assert (look(output, KNOWN).verdict, look(output, OPEN).verdict) == (known, unknown)


def test_a_row_that_says_too_little_is_named():
    with pytest.raises(DataError, match="row known does not say which entry"):
        look("x", dataclasses.replace(KNOWN, metadata={"key_answers": ["nine"]}))
    with pytest.raises(DataError, match="row known has the entry faq-04 and no key answer"):
        look("x", dataclasses.replace(KNOWN, metadata={"faq": "faq-04"}))
    assert look(SILENT, dataclasses.replace(KNOWN, metadata={"faq": ""})).verdict == (
        Verdict.DECLINED_RIGHT
    ), "an empty cell of a table is no entry"


def test_failed_rows_are_in_no_rate():
    made = [
        Prediction("known", "test", None, FinishReason.ERROR, error="refused"),
        Prediction("open", "test", SILENT, FinishReason.STOP),
    ]
    found = {
        n: corpus_value(m, [KNOWN, OPEN], made) for n, m in metrics_for("qa", (), "faq").items()
    }
    assert (found["faq_utility"], found["abstention_precision"]) == (1.0, 1.0)
    assert found["citation_accuracy"] is None


def test_training_without_negatives_teaches_guessing_and_the_metrics_see_it(
    split: Split, tmp_path: Path
):
    def tried(train: tuple[Example, ...], name: str) -> dict[str, Any]:
        ctx = FitContext(
            name="nearest",
            task=TaskConfig(name="faq"),
            model=load_config("faq-decline").model,
            metric="faq_utility",
            train=train,
            dev=split.dev,
            work=tmp_path / name,
        )
        route = NearestRoute(NearestSettings())
        model = route.open(route.fit(ctx))
        answers = model.complete([Request(row.messages) for row in split.test])
        return rates(list(split.test), [answer.text for answer in answers])

    pytest.importorskip("bm25s")
    honest = tried(split.train, "with")
    guessing = tried(tuple(row for row in split.train if row.metadata["faq"]), "without")
    assert (guessing["coverage"], guessing["abstention_recall"]) == (1.0, 0.0)
    assert guessing["abstention_precision"] is None
    assert honest["coverage"] < 0.9
    assert honest["abstention_recall"] > 0.3
    assert guessing["selective_risk"] > honest["selective_risk"] + 0.05
    assert guessing["faq_utility"] < honest["faq_utility"] - 0.05
    assert guessing["answered_right"] > honest["answered_right"], "right answers alone hide it"


# --- a hand count on other people's questions -----------------------------------------------------


def squad_rows() -> tuple[list[Example], list[str]]:
    """SQuAD 2.0's questions, and outputs of a simple reader that cites a paragraph or declines."""
    lines = [json.loads(line) for line in SQUAD.read_text(encoding="utf-8").splitlines()]
    ids = {text: f"p-{i}" for i, text in enumerate(dict.fromkeys(r["context"] for r in lines))}
    of_title: dict[str, list[tuple[str, str, set[str]]]] = {}
    for context, title in {r["context"]: r["title"] for r in lines}.items():
        for sentence in re.split(r"(?<=[.!?])\s+", context):
            words = set(re.findall(r"\w+", sentence.lower()))
            of_title.setdefault(title, []).append((ids[context], sentence, words))
    rows: list[Example] = []
    outputs: list[str] = []
    for r in lines:
        metadata = (
            {"faq": None}
            if r["is_impossible"]
            else {"faq": ids[r["context"]], "key_answers": r["answers"]}
        )
        answers = tuple(r["answers"]) or (SILENT,)
        rows.append(
            Example(r["id"], (Message("user", r["question"]),), answers, r["id"], metadata=metadata)
        )
        asked = set(re.findall(r"\w+", r["question"].lower()))
        entry, sentence, words = max(of_title[r["title"]], key=lambda s: len(asked & s[2]))
        near = len(asked & words) / len(asked)
        outputs.append(
            f"{sentence} [{entry}]" if near >= 0.5 else DECLINES[len(rows) % len(DECLINES)]
        )
    return rows, outputs


@pytest.mark.skipif(not SQUAD.is_file(), reason="the folder of shared data is not here")
def test_the_rates_are_those_of_a_hand_count_on_squad():
    rows, outputs = squad_rows()
    found = rates(rows, outputs)

    def plain(text: str) -> str:
        kept = "".join(c for c in text.lower() if c not in "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
        return " " + " ".join(w for w in kept.split() if w not in ("a", "an", "the")) + " "

    cells = Counter[tuple[str, bool]]()
    cited = 0
    for row, output in zip(rows, outputs, strict=True):
        gold = row.metadata["faq"]
        if not output.endswith("]"):
            cells["silent", gold is None] += 1
            continue
        sentence, mark = output[:-1].rsplit(" [", 1)
        cited += gold == mark
        hits = [k for k in row.metadata.get("key_answers", ()) if plain(k) in plain(sentence)]
        cells["right" if gold == mark and hits else "wrong", gold is None] += 1
    n, wrong = len(rows), cells["wrong", True] + cells["wrong", False]
    right, silent, needless = cells["right", False], cells["silent", True], cells["silent", False]
    assert n == sum(cells.values()) == right + wrong + silent + needless
    assert min(right, wrong, silent, needless, cited) > 50
    assert found == {
        "faq_utility": pytest.approx((right + silent + needless / 2) / n),
        "answered_right": right / n,
        "answered_wrong": wrong / n,
        "declined_right": silent / n,
        "declined_wrong": needless / n,
        "coverage": (right + wrong) / n,
        "selective_risk": wrong / (right + wrong),
        "abstention_precision": silent / (silent + needless),
        "abstention_recall": silent / (silent + cells["wrong", True]),
        "citation_accuracy": cited / (right + cells["wrong", False]),
    }


# --- confidence -----------------------------------------------------------------------------------


def test_the_threshold_is_the_best_there_is_and_the_lowest_of_the_best():
    rng = random.Random(3)
    for _ in range(300):
        rows = [
            (rng.randint(0, 5) / 5, rng.choice((0.0, 1.0)), rng.choice((0.5, 1.0)))
            for _ in range(rng.randint(1, 12))
        ]
        sure = [row[0] for row in rows]

        def worth(at: float, rows: list[tuple[float, ...]] = rows) -> float:
            return sum(with_it if sure >= at else without for sure, with_it, without in rows)

        found = best_threshold(*zip(*rows, strict=True))
        steps = [0.0, *(x + 1e-6 for x in sorted(set(sure)))]
        assert worth(found) == max(map(worth, steps))
        lower = next(at for at in steps if worth(at) == worth(found))
        assert [s >= found for s in sure] == [s >= lower for s in sure]
    assert best_threshold([], [], []) == 0.0


def test_aurc_is_the_mean_risk_over_all_coverages():
    rng = random.Random(5)
    right, wrong = look("At nine. [faq-04]", KNOWN), look("At ten. [faq-04]", KNOWN)
    sure = rng.sample([i / 100 for i in range(100)], 40)
    bad = [rng.random() > s for s in sure]
    rows = [Row(wrong if b else right, s) for s, b in zip(sure, bad, strict=True)]
    order = [b for _, b in sorted(zip(sure, bad, strict=True), reverse=True)]
    risks = [sum(order[: k + 1]) / (k + 1) for k in range(len(order))]
    groups = [str(i) for i in range(len(rows))]
    silent = [Row(look(SILENT, OPEN), 0.99), None]
    found = aurc([[*rows, *silent]], [*groups, "x", "y"])
    assert found.value == pytest.approx(sum(risks) / len(risks))
    assert found.low < found.value < found.high
    assert found.n == len(rows), "rows without an answer are no part of it"
    assert risk_of_surest([rows], groups, 0.5).value == pytest.approx(risks[19])
    flat = aurc([[dataclasses.replace(row, sure=0.5) for row in rows]], groups)
    assert flat.value == pytest.approx(risks[-1]), "a confidence that knows nothing"
    assert aurc([[Row(wrong, s) for s in sure] * 5], groups * 5).low < 0.999, (
        "all wrong is no certainty"
    )


def predictions(model: ChatModel, rows: list[Example]) -> list[Prediction]:
    answers = model.complete([Request(row.messages, max_tokens=6) for row in rows])
    return [
        Prediction(r.id, "dev", a.text, a.finish_reason) for r, a in zip(rows, answers, strict=True)
    ]


def test_a_local_model_says_how_sure_it_was(tiny_model: Path, rows: list[Example]):
    model = tunelm.load(str(tiny_model))
    some = rows[:4]
    made = predictions(model, some)
    made[1] = dataclasses.replace(made[1], output="")
    made[2] = dataclasses.replace(made[2], facts={"confidence": 0.25})
    made[3] = dataclasses.replace(made[3], output="word " * 5000)
    facts = faq_facts.facts_of(model, some, made)
    (scored,) = model.score([(some[0].messages, made[0].output)])
    mean = sum(scored.logprobs) / len(scored.logprobs)
    assert facts[0]["confidence"] == pytest.approx(math.exp(mean), rel=1e-4)
    assert facts[1:] == [{}, {}, {}], "empty, known already, and too long for the context"


def test_a_model_without_probabilities_is_not_asked_for_any(rows: list[Example]):
    model = ScriptedModel(lambda request: SILENT)
    model.capabilities = frozenset({"complete"})
    assert faq_facts.facts_of(model, rows[:3], predictions(model, rows[:3])) == [{}, {}, {}]


# --- the whole of it ------------------------------------------------------------------------------


def test_the_tables_of_a_run_are_what_its_answers_say(tmp_path: Path, tiny_model: Path):
    pytest.importorskip("bm25s")
    task = (TASKS / "faq-decline.toml").read_text(encoding="utf-8")
    task = task.replace('base = "tunelm-nano"', f"base = {json.dumps(str(tiny_model))}")
    task = task.replace("max_tokens = 48", "max_tokens = 6")
    task = task.replace('"faq_questions.jsonl"', json.dumps(str(TASKS / "faq_questions.jsonl")))
    task = task.replace('"faq.md"', json.dumps(str(TASKS / "faq.md")))
    (tmp_path / "faq.toml").write_text(task, encoding="utf-8")
    out = tmp_path / "run"
    routes = ["--set", 'compare.routes=["constant","nearest","baseline"]']
    done = CliRunner().invoke(
        cli, ["compare", str(tmp_path / "faq.toml"), "--out", str(out), *routes]
    )
    assert done.exit_code == 0, done.output
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    by_route = {route["name"]: route for route in report["routes"]}
    silent, _, guessing = (by_route[name]["scores"] for name in ("constant", "nearest", "baseline"))
    assert silent["answered_wrong"]["value"] == silent["answered_right"]["value"] == 0
    assert silent["selective_risk"]["value"] is None, "nothing was answered: unknown, not zero"
    assert guessing["abstention_precision"]["value"] is None
    cells, _, kinds, threshold, area = report["tables"]
    for row in cells["rows"]:
        scores = by_route[row["route"]]["scores"]
        for verdict in Verdict:
            value = scores[verdict]["value"]
            assert row[str(verdict).replace("_", " ")] == f"{100 * value:.1f}"
    assert len(kinds["rows"]) == 3 * 4
    assert {row["route"] for row in threshold["rows"]} == {"nearest", "baseline"}
    assert {row["route"] for row in area["rows"]} == {"nearest", "baseline"}
    assert "Without an answer that has one: constant." in threshold["note"]
    assert all(table["heading"] in (out / "report.html").read_text() for table in report["tables"])
    (untrained,) = (row for row in threshold["rows"] if row["route"] == "baseline")
    assert untrained["gain over all answers"].startswith("+"), "silence beats an untrained model"
