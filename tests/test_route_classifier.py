"""Route `classifier`: labels without a language model, fitted, kept, opened and asked."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import tunelm
from tunelm.cli import cli
from tunelm.config import ModelConfig, TaskConfig
from tunelm.errors import ConfigError, DataError, ModelError
from tunelm.judging.folds import group_folds
from tunelm.models.labels import LabelModel
from tunelm.route_settings import ClassifierSettings
from tunelm.routes.base import FitContext
from tunelm.routes.classifier import PENALTIES, ClassifierRoute
from tunelm.types import Example, Message, Request, Usage

from .test_retrieval import make_embedder

pytest.importorskip("sklearn")

WORDS = {
    "sea": ("wave", "harbour", "sailor", "tide", "anchor", "gull", "reef", "lighthouse"),
    "wood": ("oak", "squirrel", "moss", "fern", "acorn", "owl", "bark", "mushroom"),
    "town": ("tram", "market", "mayor", "pavement", "tower", "cinema", "bridge", "crossing"),
}


def notes(names: tuple[str, ...] = tuple(WORDS), count: int = 28) -> list[Example]:
    """Two words of a place in each note; two notes a group."""
    rows: list[Example] = []
    for name in names:
        pairs = [(a, b) for a in WORDS[name] for b in WORDS[name] if a < b][:count]
        rows += [
            Example(
                f"{name}-{i}",
                (Message("user", f"We saw the {a} and then the {b}."),),
                (name,),
                f"{name}-{i // 2}",
            )
            for i, (a, b) in enumerate(pairs)
        ]
    return rows


def context(work: Path, rows: list[Example], kind: str = "classification", **task) -> FitContext:
    work.mkdir(parents=True, exist_ok=True)
    settings = TaskConfig(name="places", kind=kind, **task)
    return FitContext("classifier", settings, ModelConfig(), "accuracy", rows, rows[:6], work)


def fitted(work: Path, rows: list[Example] | None = None, features: str = "tfidf"):
    route = ClassifierRoute(ClassifierSettings(features=features))
    adapted = route.fit(context(work, notes() if rows is None else rows))
    return route, adapted, route.open(adapted)


def ask(text: str) -> Request:
    return Request((Message("user", text),))


def test_it_learns_planted_words_and_says_how_sure_it_is(tmp_path: Path):
    route, adapted, model = fitted(tmp_path / "work")
    answers = model.complete([ask("A gull on the reef"), ask("An owl in the fern"), ask("zzz")])
    assert [a.text for a in answers[:2]] == ["sea", "wood"]
    assert answers[0].confidence > 0.6 > answers[2].confidence >= 1 / 3
    assert {a.usage for a in answers} == {Usage(0, 0, 0)}
    assert model.complete([]) == []
    piece = next(iter(model.stream(ask("the mayor and the tram"))))
    assert (piece.text, piece.finish_reason) == ("town", "stop")
    with pytest.raises(ModelError, match="no log-probabilities"):
        model.score([((Message("user", "x"),), "sea")])
    held_out = adapted.detail["held_out"]
    assert set(held_out) == {f"{c:g}" for c in PENALTIES}
    losses = {float(c): found["log_loss"] for c, found in held_out.items()}
    assert adapted.detail["penalty"] == min(losses, key=losses.__getitem__)
    assert (
        route.plan(context(tmp_path / "plan", notes())).forecasts["trainable_parameters"].value
        == adapted.detail["measured"]["trainable_parameters"]["value"]
    )


def test_its_numbers_are_scikit_learns_and_nothing_is_pickled(tmp_path: Path):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union

    rows = notes()
    _, adapted, model = fitted(tmp_path, rows)
    texts, gold = [row.question for row in rows], [row.answers[0] for row in rows]
    same = make_pipeline(
        make_union(
            TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)),
            TfidfVectorizer(sublinear_tf=True, analyzer="char_wb", ngram_range=(2, 5)),
        ),
        LogisticRegression(C=adapted.detail["penalty"], max_iter=1000),
    ).fit(texts, gold)
    new = ["the owl at the harbour", "tower bridge", "moss", ""]
    want = same.predict_proba(new)
    got = model.complete([ask(text) for text in new])
    assert [a.text for a in got] == same.predict(new).tolist()
    assert [a.confidence for a in got] == pytest.approx(want.max(axis=1).tolist(), abs=1e-5)
    files = {path.name for path in (tmp_path / "adapted").iterdir()}
    assert files == {"classifier.json", "weights.npz"}
    with np.load(tmp_path / "adapted/weights.npz", allow_pickle=False) as arrays:
        assert set(arrays.files) == {"weights", "bias", "idf_words", "idf_characters"}


def test_two_labels_and_labels_written_in_two_ways(tmp_path: Path):
    rows = notes(("sea", "wood"))
    odd = Example("odd", (Message("user", "The tide and the gull."),), ("SEA",), "odd")
    route = ClassifierRoute(ClassifierSettings())
    ctx = context(tmp_path, [*rows, odd], labels=("Sea", "Wood"))
    model = route.open(route.fit(ctx))
    (answer,) = model.complete([ask("an anchor, a sailor")])
    assert answer.text == "Sea"
    assert 0.5 < answer.confidence < 1


def test_the_same_rows_and_seed_give_the_same_classifier(tmp_path: Path):
    _, first, _ = fitted(tmp_path / "a")
    _, second, _ = fitted(tmp_path / "b")
    assert first.detail == second.detail
    files = [tmp_path / name / "adapted/classifier.json" for name in "ab"]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_confidence_goes_through_what_holds_a_model_to_the_labels(tmp_path: Path):
    _, _, model = fitted(tmp_path)
    held = LabelModel(model, tuple(WORDS))
    request = ask("the reef")
    assert held.complete([request])[0].confidence == model.complete([request])[0].confidence


def test_whole_groups_are_held_out_when_the_penalty_is_chosen(tmp_path: Path):
    """Labels dealt out to groups of equal texts by chance: only a twin could tell them."""
    rng = random.Random(4)
    rows = [
        Example(f"{g}-{k}", (Message("user", word),), (label,), f"g{g}")
        for g in range(40)
        for word, label in [("".join(rng.choices("abcdefghijklmnop", k=8)), rng.choice("ab"))]
        for k in range(3)
    ]
    detail = ClassifierRoute(ClassifierSettings()).fit(context(tmp_path, rows)).detail
    best = max(found["accuracy"] for found in detail["held_out"].values())
    assert best < 0.8, "twins in another fold would make it 1"
    folds = group_folds([row.group for row in rows], 5)
    assert all(len({folds[3 * g + k] for k in range(3)}) == 1 for g in range(40))


def test_what_it_cannot_learn_from_is_said(tmp_path: Path):
    route = ClassifierRoute(ClassifierSettings())
    with pytest.raises(ConfigError, match=r"knows labels only, and this task is of kind 'qa'"):
        route.fit(context(tmp_path, notes(), kind="qa"))
    alone = [e for e in notes() if e.answers == ("sea",)]
    with pytest.raises(DataError, match=r"all 28 train rows have the label 'sea'"):
        route.fit(context(tmp_path, alone, labels=("sea", "wood")))
    signs = [
        Example(f"s{i}", (Message("user", "? ! ?"),), ("ab"[i % 2],), f"g{i}") for i in range(20)
    ]
    with pytest.raises(DataError, match="no train text has a word"):
        route.fit(context(tmp_path, signs))
    wrong = ClassifierRoute(ClassifierSettings(features="tf-idf"))
    with pytest.raises(ConfigError, match=r"features = 'tf-idf': no such folder\. Valid: tfidf"):
        wrong.plan(context(tmp_path, notes()))


def test_two_groups_are_enough_to_fit_and_one_takes_the_usual_penalty(tmp_path: Path):
    rows = [
        Example(str(i), (Message("user", f"{w} here"),), (name,), "all")
        for i, (name, w) in enumerate((n, w) for n in ("sea", "wood") for w in WORDS[n])
    ]
    _, adapted, model = fitted(tmp_path, rows)
    assert adapted.detail["held_out"] == {}
    assert model.complete([ask("an oak")])[0].text == "wood"


def test_damaged_files_are_refused_in_one_line(tmp_path: Path):
    route, adapted, _ = fitted(tmp_path)
    file = tmp_path / "adapted/classifier.json"
    about = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**about, "weights": "0" * 64}), encoding="utf-8")
    with pytest.raises(ModelError, match="do not belong together"):
        route.open(adapted)
    (tmp_path / "adapted/weights.npz").unlink()
    with pytest.raises(ModelError, match="damaged or incomplete"):
        route.open(adapted)


def test_an_encoders_vectors_can_be_the_features_and_what_it_cuts_is_said(tmp_path: Path):
    pytest.importorskip("sentence_transformers")
    encoder = make_embedder(tmp_path / "encoder")
    long = Example("long", (Message("user", "what is " * 40),), ("sea",), "long")
    route, adapted, model = fitted(tmp_path, [*notes(), long], features=str(encoder))
    (note,) = adapted.detail["notes"]
    assert "1 of 85 train texts are longer than the encoder reads (32 tokens)" in note
    (answer,) = model.complete([ask(notes()[0].question)])
    assert answer.text in WORDS
    assert 1 / 3 <= answer.confidence <= 1
    with np.load(tmp_path / "adapted/weights.npz") as arrays:
        assert set(arrays.files) == {"weights", "bias"}
    plan = route.plan(context(tmp_path / "plan", notes()))
    assert plan.forecasts["trainable_parameters"].value is None
    file = tmp_path / "adapted/classifier.json"
    about = json.loads(file.read_text(encoding="utf-8"))
    about["encoder"]["identity"] = "another"
    file.write_text(json.dumps(about), encoding="utf-8")
    with pytest.raises(ModelError, match="is not the one the classifier was fitted with"):
        route.open(adapted)


def test_a_run_with_it_is_reported_and_asked_by_the_command_line(tmp_path: Path):
    (tmp_path / "rows.jsonl").write_text(
        "".join(
            json.dumps({"question": e.question, "answer": e.answers[0], "group": e.id}) + "\n"
            for e in notes()
        ),
        encoding="utf-8",
    )
    (tmp_path / "places.toml").write_text(
        """
[task]
name = "places"
kind = "classification"
[data]
path = "rows.jsonl"
dev = 0.2
test = 0.4
min_test_groups = 10
[model]
base = "tunelm-nano-small"
[compare]
routes = ["constant", "classifier"]
primary_metric = "accuracy"
""",
        encoding="utf-8",
    )
    run = tmp_path / "run"
    report = tunelm.compare(tmp_path / "places.toml", run)
    route = report["routes"][1]
    assert route["status"] == "done", route["reason"]
    assert route["scores"]["accuracy"]["value"] > 0.8
    assert route["tokens_per_answer"]["test"] == 0
    args = ["generate", str(run / "classifier"), "We saw the wave and then the tide."]
    done = CliRunner().invoke(cli, args)
    assert done.exit_code == 0, done.output
    assert done.output.strip().splitlines()[-1] == "sea"
    assert tunelm.load(run).complete([ask("the owl")])[0].confidence is not None


def test_in_a_task_of_questions_it_is_a_row_with_its_reason(tmp_path: Path, task: Path):
    report = tunelm.compare(
        task, tmp_path / "run", overrides=['compare.routes=["constant","classifier"]']
    )
    route = report["routes"][1]
    assert (route["status"], report["winner"]["name"]) == ("failed", None)
    assert "knows labels only" in route["reason"]
