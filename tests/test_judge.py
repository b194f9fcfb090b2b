"""Judges learned from people's labels: files, folds, agreement, saving, and the command line."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from tunelm.cli import cli
from tunelm.errors import ConfigError, DataError, ModelError
from tunelm.judging.check import (
    Error,
    Judged,
    agreement,
    compare,
    error_of,
    f1_of_cells,
    kappa_of_cells,
    pairs_of,
    smallest_difference,
)
from tunelm.judging.coding import Coding, tune_offsets
from tunelm.judging.encoder import Encoder
from tunelm.judging.features import describe, numbers, slips
from tunelm.judging.folds import group_folds, splits
from tunelm.judging.labels import Labelled, order_of, read_labels
from tunelm.judging.open import open_judge
from tunelm.types import Example, Message

from .test_judge_llm import labels_file as people_said
from .test_judge_llm import make_run
from .test_retrieval import BOOK, SPOKEN, make_embedder

pytest.importorskip("sklearn")
DATA = Path(__file__).parents[2] / "shared" / "data"
MRBENCH = DATA / "mrbench" / "mrbench.jsonl"
TASKS = Path(__file__).parents[1] / "src" / "tunelm" / "tasks"

ASKS = ("What does the {} of the two tell you?", "How did you find {}?", "Can you check {} again?")
TELLS = ("The answer is {}.", "It is {}, because you add them.", "No, it should be {}.")
SYSTEMS = ("ann", "ben", "cem", "dot")


def label_rows(count: int = 30, seed: int = 0) -> list[dict[str, Any]]:
    """Four replies a dialogue: those that ask are labelled Yes, those that tell No, some between.

    Every system writes both kinds, so a system's name does not tell.
    """
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for item in range(count):
        a, b = rng.randint(2, 9), rng.randint(2, 9)
        for system in SYSTEMS:
            kind = rng.choice(["Yes", "No", "To some extent"])
            ask, tell = rng.choice(ASKS).format(b), rng.choice(TELLS).format(a + b)
            reply = {"Yes": ask, "No": tell, "To some extent": f"{tell} {ask}"}[kind]
            messages = [{"role": "user", "content": f"What is {a} + {b}?\n\nI think {a * b}."}]
            rows.append(
                {
                    "messages": messages,
                    "reply": f"{rng.choice(['Good try.', 'Hm.', 'Well.'])} {reply}",
                    "labels": {"asks": kind, "number": {"Yes": 2, "No": 0}.get(kind, 1)},
                    "group": f"{a}+{b}",
                    "system": system,
                    "item": f"item {item}",
                    "problem": f"What is {a} + {b}?",
                    "solutions": [str(a + b)],
                }
            )
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def labels_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("labels") / "labels.jsonl", label_rows())


@pytest.fixture(scope="module")
def trained(labels_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(Trained, its folder) of the ordered label."""
    from tunelm.judging.train import train_judge

    out = tmp_path_factory.mktemp("judges") / "asks"
    return train_judge(read_labels(labels_file, "asks"), "asks", out, folds=2), out


def one(reply: str, said: str = "I think 20.", **metadata: Any) -> tuple[Example, str]:
    return Example("x", (Message("user", said),), (), "g", None, metadata), reply


# --- label files ----------------------------------------------------------------------------------


def test_a_label_is_read_by_name_as_a_mean_and_as_one_against_the_rest(labels_file: Path):
    by_name = read_labels(labels_file, "asks")
    assert len(by_name) == 120
    assert {row.label for row in by_name} == {"Yes", "No", "To some extent"}
    first = by_name[0]
    assert (first.system, first.item, first.example.metadata["solutions"]) != (None, None, [])
    assert {row.label for row in read_labels(labels_file, "asks=Yes")} == {0.0, 1.0}
    places = {"Yes": 1.0, "To some extent": 0.5, "No": 0.0}
    number = {"Yes": 2.0, "To some extent": 1.0, "No": 0.0}
    mean = [row.label for row in read_labels(labels_file, "asks+number")]
    assert mean == [(places[str(r.label)] + number[str(r.label)]) / 2 for r in by_name]


def test_broken_rows_are_named_by_file_and_line(tmp_path: Path):
    rows = label_rows(3)
    rows[1]["reply"] = " "
    rows[2]["messages"] = [{"role": "system", "content": "Be kind."}]
    rows[4]["labels"] = {"asks": True}
    del rows[5]["labels"]
    path = write(tmp_path / "labels.jsonl", rows)
    with pytest.raises(DataError) as caught:
        read_labels(path, "asks")
    text = str(caught.value)
    for line, what in ((2, '"reply"'), (3, "'system'"), (5, "True"), (6, "'labels'")):
        assert any(part.startswith(f"{path}:{line}:") and what in part for part in text.split("\n"))


def test_an_unknown_label_names_those_there_are(labels_file: Path):
    with pytest.raises(DataError, match="there are asks, number"):
        read_labels(labels_file, "tone")
    with pytest.raises(ConfigError, match="no form 'csv'"):
        read_labels(labels_file, "asks", "csv")


def test_a_label_that_is_both_text_and_number_is_refused(tmp_path: Path):
    rows = label_rows(2)
    rows[0]["labels"]["asks"] = 1
    with pytest.raises(DataError, match="number in 1 rows and a text in 7"):
        read_labels(write(tmp_path / "labels.jsonl", rows), "asks")


def test_the_order_of_labels_is_the_usual_one_or_that_which_is_given():
    assert order_of("x", ["Yes", "No"]) == ["No", "Yes"]
    assert order_of("revealing_of_the_answer", ["Yes", "No"]) == ["Yes", "No"]
    assert order_of("x", ["hint", "telling"]) == []
    assert order_of("x", ["bad", "good"], ["bad", "good"]) == ["bad", "good"]
    with pytest.raises(ConfigError, match="leaves out good"):
        order_of("x", ["bad", "good"], ["bad"])


def test_the_projects_own_turns_are_labels_of_strategy():
    rows = read_labels(TASKS / "edu_dialogues.jsonl", "strategy", "turns")
    assert len(rows) > 100
    assert len({row.label for row in rows}) == 9
    assert all(row.example.messages[-1].role == "user" for row in rows)


@pytest.mark.skipif(not DATA.is_dir(), reason="the published sets are not there")
def test_published_sets_are_read_as_they_are():
    rows = read_labels(MRBENCH, "actionability", "mrbench")
    assert (len(rows), len({r.group for r in rows}), len({r.item for r in rows})) == (
        1623,
        129,
        193,
    )
    assert {r.system for r in rows} >= {"Expert", "Novice", "GPT4"}
    problems = [r.example.metadata.get("problem") for r in rows]
    assert sum(p is not None for p in problems) == 1104
    revealing = read_labels(MRBENCH, "revealing_of_the_answer", "mrbench")
    assert {r.label for r in revealing} == {"Yes", "No"}
    assert len(read_labels(DATA / "uptake" / "uptake.jsonl", "uptake", "uptake")) == 1998
    moves = read_labels(DATA / "mathdial" / "mathdial.jsonl", "move", "mathdial")
    assert {r.label for r in moves} == {"scaffold", "telling", "generic"}


def test_mrbench_in_its_published_layout_is_a_conversation_with_all_replies(tmp_path: Path):
    conversation = {
        "conversation_id": "c1",
        "conversation_history": "Tutor: Hi. The question is: What is 2 + 2?\xa0\n\xa0Student: 5",
        "Ground_Truth_Solution": "It is 4",
        "anno_llm_responses": {
            name: {"response": f"{name} says hm.", "annotation": {"Actionability": label}}
            for name, label in (("GPT4", "Yes"), ("Phi3", "No"))
        },
    }
    path = tmp_path / "mrbench.json"
    path.write_text(json.dumps([conversation]), encoding="utf-8")
    rows = read_labels(path, "actionability", "mrbench")
    assert [(r.system, r.label, r.output) for r in rows] == [
        ("GPT4", "Yes", "GPT4 says hm."),
        ("Phi3", "No", "Phi3 says hm."),
    ]
    assert rows[0].example.metadata == {"problem": "What is 2 + 2?", "solutions": ["It is 4"]}
    assert [m.role for m in rows[0].example.messages] == ["assistant", "user"]


# --- features -------------------------------------------------------------------------------------


def test_numbers_are_told_by_where_they_come_from():
    found = {"problem": "Ann has 3 boxes of 6 pens.", "solutions": ["3 * 6 = 18"]}
    told = describe(*one("It is 18, not 20.", **found))
    assert (told["says_goal"], told["reveals_goal"], told["of_wrong"] > 0) == (1, 1, True)
    asked = describe(*one("What do 3 boxes of 6 hold?", **found))
    assert (asked["says_goal"], asked["of_problem"], asked["asks_last"]) == (0, 1, 1)
    assert describe(*one("It is 99.", **found))["of_nowhere"] > 0
    assert numbers("$1,000.50, 20/4 and .5") == ["1000.5", "20", "4", "0.5"]
    assert slips("6 x 7 = 48 and 1/2 = 0.5, 3+4=7") == ["48"]


def test_a_teachers_note_and_the_problem_before_the_students_words_are_not_the_students():
    problem = "What is 4 + 5?"
    plain = describe(*one("Count on.", "I do not know.", problem=problem))
    noted = f"{problem}\n\nI do not know.\n\n[Your turn: hint, a piece of information.]"
    assert describe(*one("Count on.", noted, problem=problem)) == plain


@pytest.mark.parametrize(
    "reply", ["", "?", "...", "\n\n", "12", "日本語です。", "a" * 20_000, "1e400 = 2", "½ × ∞"]
)
def test_any_text_has_the_same_finite_features(reply: str):
    names = list(describe(*one("Why?")))
    found = describe(*one(reply, ""))
    assert list(found) == names
    assert np.isfinite(list(found.values())).all()


# --- folds and agreement --------------------------------------------------------------------------


def test_no_group_and_no_system_stands_on_both_sides():
    groups = [f"g{i // 3}" for i in range(60)]
    systems = [SYSTEMS[i % 4] for i in range(60)]
    folds = group_folds(groups, 4, seed=3)
    tested: list[int] = []
    for train, test in splits(folds, systems):
        tested += test.tolist()
        assert not {groups[i] for i in train} & {groups[i] for i in test}
        assert not {systems[i] for i in train} & {systems[i] for i in test}
    assert sorted(tested) == list(range(60))
    assert max(np.bincount(folds)) - min(np.bincount(folds)) <= 3


def test_figures_equal_scikit_learns_and_scipys():
    from scipy.stats import spearmanr
    from sklearn.metrics import cohen_kappa_score, f1_score

    rng = np.random.default_rng(0)
    truth = rng.integers(3, size=200)
    said = np.where(rng.random(200) < 0.6, truth, rng.integers(3, size=200))
    rows = [labelled(["No", "To some extent", "Yes"][t], f"g{i % 50}") for i, t in enumerate(truth)]
    coding = Coding.of(rows, "x")
    scores = said + rng.random(200)
    judged = Judged(scores, scores, [coding.labels[s] for s in said])
    figures = agreement(rows, coding, truth / 2, judged).figures
    assert figures["macro_f1"].value == pytest.approx(f1_score(truth, said, average="macro"))
    assert figures["kappa"].value == pytest.approx(cohen_kappa_score(truth, said))
    assert figures["spearman"].value == pytest.approx(spearmanr(scores, truth)[0])
    pairs = [(i, j) for i in range(200) for j in range(200) if i % 50 == j % 50]
    ranked = [scores[i] > scores[j] for i, j in pairs if truth[i] > truth[j]]
    assert figures["pairwise"].value == pytest.approx(np.mean(ranked))
    assert (figures["pairwise"].n, figures["pairwise"].n_groups) == (
        len(ranked),
        len({i % 50 for i, j in pairs if truth[i] != truth[j]}),
    )
    assert figures["macro_f1"].low < figures["macro_f1"].value < figures["macro_f1"].high
    assert f1_of_cells([5, 0, 0, 5], 2) == kappa_of_cells([5, 0, 0, 5], 2) == 1
    better = compare(rows, coding, truth / 2, Judged(truth * 1.0, scores, judged.labels), judged)
    assert better["pairwise"].diff == pytest.approx(1 - np.mean(ranked))
    assert better["pairwise"].low > 0


def labelled(label: str | float, group: str, system: str | None = None) -> Labelled:
    example, reply = one("A reply.")
    return Labelled(example, reply, label, group, system, group)


def test_a_judge_that_favours_a_system_cannot_show_small_differences():
    rng = np.random.default_rng(1)
    rows = [labelled(float(i % 3), f"g{i}", SYSTEMS[i % 4]) for i in range(400)]
    gold = np.array([row.label for row in rows])
    fair = gold + rng.normal(0, 0.3, 400)
    biased = fair + np.array([{"ann": 0.5, "ben": -0.5}.get(str(r.system), 0) for r in rows])
    none = [None] * 400
    errors = [error_of(rows, gold, Judged(v, v, none)) for v in (fair, biased)]
    assert errors[0].row_sd == pytest.approx(0.3, abs=0.03)
    small, large = (smallest_difference(error, None) or 0 for error in errors)
    assert small < 0.3 < 1.5 < large
    assert (smallest_difference(errors[1], 10) or 0) > large
    assert smallest_difference(Error(0.3, None, 0), 10) is None


def test_offsets_raise_macro_f1_of_a_rare_class():
    rng = np.random.default_rng(0)
    gold = (rng.random(400) < 0.1).astype(np.int64)
    outputs = np.stack([np.full(400, 0.6), 0.3 * gold + rng.normal(0.2, 0.02, 400)], axis=1)
    assert (outputs.argmax(axis=1) == 1).sum() == 0
    tuned = tune_offsets(outputs, gold, np.zeros(2))
    assert ((outputs + tuned).argmax(axis=1) == gold).mean() > 0.95


# --- training, saving, opening --------------------------------------------------------------------


def test_a_judge_learns_what_people_look_at_also_for_systems_it_has_not_seen(trained: Any):
    judge = trained[0]
    assert (judge.agreement.figures["pairwise"].low or 0) > 0.8
    assert (judge.unseen.figures["pairwise"].low or 0) > 0.8
    assert (judge.agreement.figures["macro_f1"].value or 0) > 0.9
    assert (judge.agreement.figures["macro_f1_majority"].value or 1) < 0.3
    example, _ = one("", "I think 20.", problem="What is 4 + 5?", solutions=["9"])
    ratings = judge.judge.rate([example] * 3, ["Hm. How did you find 20?", "The answer is 9.", " "])
    asked, told, empty = ratings
    assert (asked.label, told.label) == ("Yes", "No")
    assert asked.value > 0.7 > 0.3 > told.value
    assert (empty.value, empty.label, empty.note) == (None, None, "an empty reply")


def test_labels_dealt_at_random_teach_nothing(tmp_path: Path):
    from tunelm.judging.train import train_judge

    rows = label_rows()
    dealt = [row["labels"] for row in rows]
    random.Random(1).shuffle(dealt)
    for row, labels in zip(rows, dealt, strict=True):
        row["labels"], row["system"] = labels, None
    path = write(tmp_path / "labels.jsonl", rows)
    found = train_judge(read_labels(path, "asks"), "asks", tmp_path / "judge", folds=2)
    figure = found.agreement.figures["pairwise"]
    assert figure.low < 0.5
    assert found.agreement.figures["kappa"].value < 0.25


def test_an_opened_judge_gives_the_same_numbers(trained: Any, labels_file: Path):
    judge, folder = trained[0].judge, trained[1]
    rows = read_labels(labels_file, "asks")
    examples, outputs = [r.example for r in rows], [r.output for r in rows]
    opened = open_judge(folder)
    assert opened.rate(examples, outputs) == judge.rate(examples, outputs)
    assert opened.rate(examples[:1], outputs[:1]) == judge.rate(examples, outputs)[:1]
    assert opened.signature() == judge.signature()
    assert (opened.name, opened.kind, opened.scale) == ("asks", "learned", (0.0, 1.0))
    assert sorted(p.name for p in folder.iterdir()) == ["judge.json", "weights.npz"]
    with np.load(folder / "weights.npz", allow_pickle=False) as arrays:
        assert all(arrays[name].dtype != object for name in arrays.files)


def test_the_same_rows_and_seed_give_the_same_judge(labels_file: Path, tmp_path: Path):
    from tunelm.judging.train import train_judge

    rows = [replace(row, system=None) for row in read_labels(labels_file, "asks")[:60]]
    found = [
        train_judge(rows, "asks", tmp_path / str(i), folds=2, seed=seed)
        for i, seed in enumerate((3, 3, 4))
    ]
    first, again, other = (one.judge.signature() for one in found)
    assert first == again != other
    assert found[0].agreement == found[1].agreement
    assert found[0].unseen is None


def test_the_exported_halves_equal_scikit_learns(labels_file: Path):
    from sklearn.ensemble import ExtraTreesRegressor
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge

    from tunelm.judging.forest import Forest
    from tunelm.judging.linear import LEAST_ROWS, common_terms, tally, terms_of
    from tunelm.judging.train import Data, _Ridge

    rows = read_labels(labels_file, "asks")
    data = Data.of(rows, Coding.of(rows, "asks"), None)
    texts = [row.output for row in rows]
    theirs = TfidfVectorizer(analyzer=terms_of, min_df=LEAST_ROWS, sublinear_tf=True)
    terms, _ = common_terms(*tally(texts))
    expected = theirs.fit_transform(texts).toarray()
    assert terms.names == tuple(theirs.get_feature_names_out())
    np.testing.assert_allclose(terms.count(texts).toarray(), expected, atol=1e-12)

    solver = _Ridge(data)
    linear = solver.linear(3)
    scaled = (data.table - linear.mean) / linear.spread * 0.1
    inputs = np.hstack([expected, scaled])
    ridge = Ridge(alpha=3, fit_intercept=False).fit(inputs, data.target - data.target.mean(axis=0))
    np.testing.assert_allclose(linear.predict(texts, data.table), ridge.predict(inputs), atol=1e-8)
    np.testing.assert_allclose(
        solver.predict(linear, data), linear.predict(texts, data.table), atol=1e-12
    )
    for target in (data.target, data.target[:, 0]):
        grown = ExtraTreesRegressor(7, min_samples_leaf=2, random_state=0).fit(data.table, target)
        ours = Forest.of(grown).predict(data.table)
        expected = grown.predict(data.table).reshape(len(rows), -1)
        np.testing.assert_allclose(ours, expected, atol=1e-12)


def test_many_rows_are_solved_another_way_to_the_same_end(
    labels_file: Path, monkeypatch: pytest.MonkeyPatch
):
    from tunelm.judging import train

    rows = read_labels(labels_file, "number")
    data = train.Data.of(rows, Coding.of(rows, "number"), None)
    dense = train._Ridge(data).linear(1).weights
    monkeypatch.setattr(train, "DENSE_ROWS", 10)
    np.testing.assert_allclose(train._Ridge(data).linear(1).weights, dense, atol=1e-3)


def test_an_encoder_adds_features_and_must_stay_the_same(labels_file: Path, tmp_path: Path):
    pytest.importorskip("sentence_transformers")
    from tunelm.judging.train import train_judge

    rows = [replace(row, system=None) for row in read_labels(labels_file, "number")[:60]]
    place = make_embedder(tmp_path / "encoder", seed=0)
    out = tmp_path / "judge"
    judge = train_judge(rows, "number", out, folds=2, encoder=str(place)).judge
    plain = train_judge(rows, "number", tmp_path / "plain", folds=2).judge
    assert len(judge.learned.linear.mean) == len(plain.learned.linear.mean) + 5
    examples, outputs = [r.example for r in rows], [r.output for r in rows]
    assert open_judge(out).rate(examples, outputs) == judge.rate(examples, outputs)
    shutil.rmtree(place)
    with pytest.raises(ConfigError, match=r"encoder .*: no such folder.* a sentence-transformers"):
        open_judge(out)
    shutil.rmtree(tmp_path / "encoder-parts")
    make_embedder(place, seed=1)
    with pytest.raises(ModelError, match="is another than the judge was trained with"):
        open_judge(out)


# --- an encoder that learns -----------------------------------------------------------------------


def named_rows(count: int = 24, seed: int = 0) -> list[Labelled]:
    """Three replies to each of the student's words; those that name one of six things are good."""
    rng = random.Random(seed)
    rows: list[Labelled] = []
    for item in range(count):
        example = Example(f"{item}", (Message("user", f"what is {rng.choice(SPOKEN)}"),), (), "g")
        for good in (True, False, rng.random() < 0.5):
            things = [rng.choice(BOOK[:6] if good else BOOK[6:]) for _ in range(2)]
            reply = " ".join([*things, rng.choice(SPOKEN)])
            rows.append(Labelled(example, reply, float(good), f"g{item}", None, f"i{item}"))
    return rows


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sentence_transformers")
    return make_embedder(tmp_path_factory.mktemp("encoder") / "model")


@pytest.fixture(scope="module")
def tuned(encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(Trained with a tuned encoder, its folder, what was told of progress)."""
    from tunelm.judging.train import train_judge
    from tunelm.judging.tuning import Tuning

    out, told = tmp_path_factory.mktemp("tuned") / "judge", []
    tuning = Tuning(str(encoder_folder), lambda *at: told.append(at))
    return train_judge(named_rows(), "good", out, folds=2, encoder=tuning), out, told


def test_a_tuned_encoder_orders_replies_that_it_has_not_seen_as_people_do(encoder_folder: Path):
    from tunelm.judging.encoder import open_encoder
    from tunelm.judging.tuning import Tuner

    rows, others = named_rows(60), named_rows(60, seed=1)
    base = open_encoder(str(encoder_folder))
    before = base.vectors(["book1 book2"])
    tuned = Tuner(base, lambda *_: None).tune(rows, np.array([[row.label] for row in rows]), 0)
    scores = tuned.scores([r.example for r in others], [r.output for r in others])
    pairs = pairs_of(others, np.array([row.label for row in others]))
    assert len(pairs.groups) > 100
    assert pairs.agreeing(scores[:, 0]).mean() > 0.9
    assert np.array_equal(base.vectors(["book1 book2"]), before)  # the next fold starts from it
    assert not np.allclose(Encoder(tuned.model).vectors(["book1 book2"]), before, atol=1e-4)


def test_no_encoder_describes_rows_that_it_was_tuned_on():
    from tunelm.judging.train import Data, nested
    from tunelm.judging.tuning import Tuner

    asked: list[tuple[int, int]] = []

    class Tuned:
        def __init__(self, rows: Any) -> None:
            self.items = {row.example.id for row in rows}

        def scores(self, examples: Any, outputs: Any) -> Any:
            assert not self.items & {example.id for example in examples}
            asked.append((len(self.items), len(examples)))
            return np.zeros((len(outputs), 1))

    class Told(Tuner):
        def __init__(self) -> None:
            pass

        def tune(self, rows: Any, target: Any, seed: int) -> Any:
            assert len(rows) == len(target)
            return Tuned(rows)

    rows = named_rows()
    data = replace(Data.of(rows, Coding.of(rows, "good"), None), tuner=Told())
    nested(data, splits(group_folds(data.groups, 2)))
    assert sorted(asked) == [(8, 12)] * 6 + [(12, 36)] * 2


def test_a_tuned_judge_holds_its_encoder_and_is_the_same_again(
    tuned: Any, encoder_folder: Path, tmp_path: Path
):
    from tunelm.judging.train import train_judge
    from tunelm.judging.tuning import Tuning

    judge, out, _ = tuned[0].judge, *tuned[1:]
    names = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert {"judge.json", "weights.npz", "tuned.safetensors", "encoder/model.safetensors"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pkl", ".pt"))]
    away = tmp_path / "elsewhere"  # nothing outside the folder is needed
    shutil.copytree(out, away)
    rows = named_rows(seed=5)
    examples, outputs = [r.example for r in rows], [r.output for r in rows]
    opened = open_judge(away)
    assert opened.signature() == judge.signature()
    assert opened.rate(examples, outputs) == judge.rate(examples, outputs)
    again, other = (
        train_judge(
            named_rows(),
            "good",
            tmp_path / str(seed),
            folds=2,
            seed=seed,
            encoder=Tuning(str(encoder_folder)),
        )
        for seed in (0, 1)
    )
    assert again.judge.signature() == judge.signature() != other.judge.signature()
    assert again.agreement == tuned[0].agreement


def test_what_tuning_will_take_is_told_first(tuned: Any):
    told = tuned[2]
    what, done, total = told[0]
    assert re.fullmatch(r"tuning the encoder \(12 trainings, about \d+ s here\)", what)
    # two epochs of 72 rows for the judge and 36 for each fold, and of three times two thirds
    assert (done, total) == (0, 2 * (72 + 36 + 36) * 3)
    assert told[-1] == (what, total, total)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


def test_a_damaged_tuned_encoder_is_refused(tuned: Any, tmp_path: Path):
    for number, (name, words) in enumerate(
        [
            ("tuned.safetensors", "damaged or missing"),
            ("encoder/model.safetensors", "encoder: damaged or missing"),
        ]
    ):
        folder = Path(shutil.copytree(tuned[1], tmp_path / str(number)))
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ModelError, match=words):
            open_judge(folder)
    from safetensors.numpy import load_file, save_file

    folder = Path(shutil.copytree(tuned[1], tmp_path / "others"))
    weights = load_file(folder / "tuned.safetensors")
    save_file(weights | {"head.bias": weights["head.bias"] + 1}, folder / "tuned.safetensors")
    with pytest.raises(ModelError, match="not what the judge was trained with"):
        open_judge(folder)


def test_an_encoder_is_tuned_to_classes_without_an_order(encoder_folder: Path):
    from tunelm.judging.encoder import open_encoder
    from tunelm.judging.train import Data, fit
    from tunelm.judging.tuning import Tuner

    rows = [replace(row, label=f"kind {row.label}") for row in named_rows(40)]
    tuner = Tuner(open_encoder(str(encoder_folder)), lambda *_: None)
    data = replace(Data.of(rows, Coding.of(rows, "kind"), tuner.encoder), tuner=tuner)
    learned, encoder = fit(data)
    assert encoder is not None
    described = encoder.describe([r.example for r in rows], [r.output for r in rows])
    assert described.shape == (120, 7)
    assert len(learned.linear.mean) == data.table.shape[1] + 2
    empty = Example("x", (Message("user", ""),), (), "g")
    assert np.isfinite(encoder.scores([empty], ["book1"])).all()


def test_an_encoder_without_layers_cannot_be_tuned(encoder_folder: Path, tmp_path: Path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    from tunelm.judging.train import train_judge
    from tunelm.judging.tuning import Tuning

    tokenizer = SentenceTransformer(str(encoder_folder), device="cpu").tokenizer
    words = StaticEmbedding(tokenizer.backend_tokenizer, embedding_dim=8)
    SentenceTransformer(modules=[words], device="cpu").save(str(tmp_path / "static"))
    with pytest.raises(ModelError, match="no layers that could be tuned"):
        train_judge(
            named_rows(), "good", tmp_path / "judge", encoder=Tuning(str(tmp_path / "static"))
        )


def test_a_broken_off_training_leaves_nothing(
    encoder_folder: Path, tmp_path: Path, trained: Any, monkeypatch: pytest.MonkeyPatch
):
    from tunelm.judging import learned
    from tunelm.judging.train import train_judge
    from tunelm.judging.tuning import Tuning

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    def progress(what: str, done: int, total: int) -> None:
        if done > total / 2:
            stop()

    tuning = Tuning(str(encoder_folder), progress)
    with pytest.raises(KeyboardInterrupt):
        train_judge(named_rows(), "good", tmp_path / "judge", folds=2, encoder=tuning)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(learned, "write_json", stop)  # while the judge is written
    (tmp_path / "empty").mkdir()
    for name in ("empty", "new"):
        with pytest.raises(KeyboardInterrupt):
            trained[0].judge.save(tmp_path / name)
    assert [p.name for p in tmp_path.rglob("*")] == ["empty"]


def test_a_damaged_or_foreign_judge_is_refused(trained: Any, tmp_path: Path):
    def copy() -> Path:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        return Path(shutil.copytree(trained[1], folder))

    with pytest.raises(ConfigError, match=r"no judge there \(no judge\.json\)"):
        open_judge(tmp_path)
    cut = copy()
    (cut / "weights.npz").write_bytes((cut / "weights.npz").read_bytes()[:1000])
    with pytest.raises(ModelError, match="damaged or missing"):
        open_judge(cut)
    mixed = copy()
    about = json.loads((mixed / "judge.json").read_text(encoding="utf-8"))
    (mixed / "judge.json").write_text(json.dumps({**about, "level": 0.1}), encoding="utf-8")
    with pytest.raises(ModelError, match="do not belong together"):
        open_judge(mixed)
    (mixed / "judge.json").write_text(json.dumps({**about, "features": 0}), encoding="utf-8")
    with pytest.raises(ConfigError, match="made by another version"):
        open_judge(mixed)
    (mixed / "judge.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match="damaged"):
        open_judge(mixed)


def test_what_cannot_be_learned_from_is_refused(labels_file: Path, tmp_path: Path):
    from tunelm.judging.train import train_judge

    rows = read_labels(labels_file, "asks")
    with pytest.raises(DataError, match="need 10 groups at least"):
        train_judge([r for r in rows if r.group.startswith("2")], "asks", tmp_path / "a")
    with pytest.raises(DataError, match="are 'Yes': give others too"):
        train_judge([r for r in rows if r.label == "Yes"], "asks", tmp_path / "b")
    full = tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="exists and is not empty"):
        train_judge(rows, "asks", full)


def test_strategies_are_learned_as_classes_without_an_order(tmp_path: Path):
    from tunelm.judging.train import train_judge

    rows = read_labels(TASKS / "tutor_dialogues.jsonl", "strategy", "turns")
    groups = sorted({row.group for row in rows})[:60]
    few = [row for row in rows if row.group in groups]
    trained = train_judge(few, "strategy", tmp_path / "strategy", folds=2)
    figures = trained.agreement.figures
    assert "pairwise" not in figures
    assert (figures["macro_f1"].value or 0) > 0.9
    rating = open_judge(tmp_path / "strategy").rate([few[0].example], [few[0].output])[0]
    assert (rating.value, rating.label, rating.note) == (None, few[0].label, None)
    assert trained.error == Error(None, None, 0)


def test_rating_loads_neither_scikit_learn_nor_torch(trained: Any):
    code = (
        "import sys; from tunelm.judging.open import open_judge;"
        "from tunelm.types import Example, Message;"
        f"judge = open_judge({str(trained[1])!r});"
        "e = Example('x', (Message('user', 'I think 20.'),), (), 'g');"
        "print(judge.rate([e], ['Why?'])[0].value, *{'sklearn', 'torch'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(out.stdout.split()) == 1
    assert float(out.stdout) > 0.5


# --- the command line -----------------------------------------------------------------------------


def test_train_and_check_print_figures_with_intervals(tmp_path: Path, labels_file: Path):
    out = tmp_path / "judge"
    args = ["judge", "train", str(labels_file), "--target", "asks", "--out", str(out)]
    done = CliRunner().invoke(cli, [*args, "--folds", "2"], catch_exceptions=False)
    assert done.exit_code == 0
    for words in ("replies unseen", "replies and system unseen", "Cohen's kappa", "smallest diff"):
        assert words in done.output
    rows = [{**row, "reply": f"Oh. {row['reply']}"} for row in label_rows(20, seed=9)]
    others = write(tmp_path / "others.jsonl", rows)  # none of them is a row it was trained on
    args = ["judge", "check", str(out), str(others), "--target", "asks"]
    plain = CliRunner().invoke(cli, args, catch_exceptions=False)
    assert "less a constant" in plain.output
    done = CliRunner().invoke(cli, [*args, "--json"], catch_exceptions=False)
    found = json.loads(done.output)
    assert found["agreement"]["pairwise"]["value"] > 0.9
    assert found["over_constant"]["macro_f1"]["low"] > 0
    assert found["over_constant"]["pairwise"]["diff"] > 0.4
    assert (found["n"], found["lost"]) == (80, {})


def test_a_label_that_the_judge_does_not_know_is_counted(trained: Any, tmp_path: Path):
    from tunelm.judging.trial import try_judge

    rows = [{**row, "reply": f"Oh. {row['reply']}"} for row in label_rows(15, seed=4)]
    for row in rows[:7]:
        row["labels"] = {"asks": "Perhaps"}
    trial = try_judge(trained[0].judge, read_labels(write(tmp_path / "l.jsonl", rows), "asks"))
    assert trial.lost == {"a label that the judge does not know": 7}
    assert trial.agreement.figures["macro_f1"].n == 53
    few = read_labels(write(tmp_path / "few.jsonl", rows[:7]), "asks")
    with pytest.raises(DataError, match="knows the labels No, To some extent, Yes"):
        try_judge(trained[0].judge, few)


def test_errors_are_one_line_for_people(tmp_path: Path, labels_file: Path):
    for args, words in (
        (["train", str(labels_file), "--target", "tone", "--out", str(tmp_path / "j")], "no reply"),
        (["check", str(tmp_path), str(labels_file), "--target", "asks"], "no judge there"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "tunelm", "judge", *args], capture_output=True, text=True
        )
        assert done.returncode in (1, 2)
        assert done.stderr.startswith("error: ")
        assert words in done.stderr
        assert "Traceback" not in done.stderr


def test_tuning_is_asked_for_with_an_encoder_and_told_on_standard_error(
    encoder_folder: Path, tmp_path: Path
):
    rows = [
        {
            "messages": [{"role": m.role, "content": m.content} for m in row.example.messages],
            "reply": row.output,
            "labels": {"good": row.label},
            "group": row.group,
            "item": row.item,
        }
        for row in named_rows(12)
    ]
    path, out = write(tmp_path / "labels.jsonl", rows), tmp_path / "judge"
    args = ["judge", "train", str(path), "--target", "good", "--out", str(out), "--tune-encoder"]
    refused = CliRunner().invoke(cli, args)
    assert refused.exit_code == 2
    assert "--tune-encoder needs --encoder" in refused.stderr
    args += ["--encoder", str(encoder_folder), "--folds", "2", "--json"]
    done = CliRunner().invoke(cli, args, catch_exceptions=False)
    assert "tuning the encoder (12 trainings, about" in done.stderr
    found = json.loads(done.stdout)
    assert found["encoder"]["tuned"]["epochs"] == 2
    assert "row_hashes" not in found
    assert open_judge(out).name == "good"


def test_rows_that_the_judge_was_trained_on_are_left_out_and_counted(
    trained: Any, labels_file: Path, tmp_path: Path
):
    from tunelm.judging.trial import TRAINED_ON, row_hash, try_judge

    judge, rows = trained[0].judge, read_labels(labels_file, "asks")
    about = json.loads((trained[1] / "judge.json").read_text(encoding="utf-8"))
    assert about["row_hashes"] == sorted({row_hash(row) for row in rows})
    others = [replace(row, output=f"Oh. {row.output}") for row in rows[:30]]
    trial = try_judge(judge, rows[:50] + others)
    assert (trial.lost, trial.n, trial.rows_known) == ({TRAINED_ON: 50}, 80, True)
    assert trial.agreement.figures["accuracy"].n == 30
    with pytest.raises(DataError, match="was trained on all of the 50 replies"):
        try_judge(judge, rows[:50])
    early = Path(shutil.copytree(trained[1], tmp_path / "early"))  # as earlier versions wrote it
    del about["row_hashes"]
    (early / "judge.json").write_text(json.dumps(about), encoding="utf-8")
    args = ["judge", "check", str(early), str(labels_file), "--target", "asks"]
    done = CliRunner().invoke(cli, args, catch_exceptions=False)
    assert "whether it was trained on these is unknown" in done.output


def test_scores_are_not_corrected_by_labels_that_the_judge_was_trained_on(tmp_path: Path):
    from tunelm.judging.train import train_judge

    run = make_run(tmp_path / "run")
    taught = people_said(tmp_path / "taught.jsonl")
    own = people_said(tmp_path / "own.jsonl", run)
    both = tmp_path / "both.jsonl"
    both.write_text(taught.read_text() + own.read_text())
    rows = read_labels(taught, "actionability")
    train_judge(rows, "actionability", tmp_path / "judge", folds=2)

    def rate(labels: Path, name: str, judge: str = "judge") -> Any:
        args = ["judge", "rate", str(tmp_path / judge), str(run), "--labels", str(labels)]
        return CliRunner().invoke(cli, [*args, "--name", name, "--quiet"])

    mixed = rate(both, "mixed")
    assert mixed.exit_code == 0, mixed.output
    assert f"left out: {len(rows)} of {len(rows) + 60} labels, on which" in mixed.output
    assert "left out" not in rate(own, "fresh").output
    found = [json.loads((run / "judged" / f"{n}.json").read_text()) for n in ("mixed", "fresh")]
    assert found[0]["labels"] == {"given": len(rows) + 60, "trained_on": len(rows)}
    assert found[0]["routes"] == found[1]["routes"]  # the same correction by the same labels
    assert found[0]["agreement"] == found[1]["agreement"]
    refused = rate(taught, "none")
    assert isinstance(refused.exception, DataError)
    assert f"was trained on all of the {len(rows)} replies" in str(refused.exception)
    shutil.copytree(tmp_path / "judge", tmp_path / "early")  # as earlier versions wrote it
    about = json.loads((tmp_path / "early" / "judge.json").read_text(encoding="utf-8"))
    del about["row_hashes"]
    (tmp_path / "early" / "judge.json").write_text(json.dumps(about), encoding="utf-8")
    assert "trained on these labels is unknown" in rate(taught, "early", "early").output


@pytest.mark.skipif(not DATA.is_dir(), reason="the published sets are not there")
def test_a_judge_of_mrbench_agrees_with_people_above_chance_on_unseen_problems():
    from tunelm.judging.train import Data, nested

    names = ("mistake_identification", "mistake_location", "providing_guidance", "actionability")
    rows = read_labels(MRBENCH, "+".join(names), "mrbench")
    coding = Coding.of(rows, "composite")
    data = Data.of(rows, coding, None)
    judged = nested(data, splits(group_folds(data.groups, 2)))
    figure = agreement(rows, coding, data.gold, judged).figures["pairwise"]
    assert (figure.low or 0) > 0.7
