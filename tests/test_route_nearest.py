"""The route nearest: what it answers, when it declines, and that it is kept as it was fitted."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from tunelm.cli import cli
from tunelm.config import ModelConfig, TaskConfig
from tunelm.errors import ConfigError, ModelError
from tunelm.models.base import ChatModel
from tunelm.route_settings import NearestSettings
from tunelm.routes.base import FitContext
from tunelm.routes.nearest import NearestRoute
from tunelm.types import Example, Message, Request

pytest.importorskip("bm25s")

SILENT = "Nobody told me."
THINGS = ("kettle", "ladder", "mirror", "needle", "oven", "pillow", "quilt", "rope")
STRANGE = ("volcano", "walrus", "yacht", "zebra")


def row(name: str, question: str, answer: str) -> Example:
    return Example(name, (Message("user", question),), (answer,), name)


TRAIN = tuple(
    row(t, f"Where do I find the {t}?", f"It is in room {i}.") for i, t in enumerate(THINGS)
)
ASKED = tuple(
    row(f"d-{t}", f"I need a {t}, where is it?", f"It is in room {i}.")
    for i, t in enumerate(THINGS)
)
UNKNOWN = tuple(row(f"d-{t}", f"Is there a {t} somewhere?", SILENT) for t in STRANGE)


def context(work: Path, **changes: object) -> FitContext:
    ctx = FitContext(
        name="nearest",
        task=TaskConfig(name="things", instructions="Answer."),
        model=ModelConfig(base="none"),
        metric="exact_match",
        train=TRAIN,
        dev=(*ASKED, *UNKNOWN),
        work=work,
    )
    return dataclasses.replace(ctx, **changes)


def fitted(work: Path, decline: str | None = None, **changes: object) -> ChatModel:
    route = NearestRoute(NearestSettings(decline=decline))
    return route.open(route.fit(context(work, **changes)))


def said(model: ChatModel, *questions: str) -> list[str]:
    requests = [Request((Message("user", question),)) for question in questions]
    return [answer.text for answer in model.complete(requests)]


def test_it_answers_with_the_nearest_row_and_says_how_near_it_is(tmp_path: Path):
    model = fitted(tmp_path)
    assert said(model, "Where is the oven?", "Tell me about the rope") == [
        "It is in room 4.",
        "It is in room 7.",
    ]
    asked = ("Where do I find the oven?", "Where is the oven?", "Is the oven clean or dirty now?")
    sure = [model.complete([Request((Message("user", q),))])[0].confidence for q in asked]
    assert sure[0] == 1.0
    assert sure[0] > sure[2] > 0
    assert sorted(sure, reverse=True)[0] == sure[0]


def test_without_decline_it_always_answers(tmp_path: Path):
    often = (*TRAIN, row("again", "Where is the second oven?", "It is in room 4."))
    model = fitted(tmp_path, train=often)
    (answer,) = model.complete([Request((Message("user", "Zwölf Boxkämpfer"),))])
    assert (answer.text, answer.confidence) == ("It is in room 4.", 0.0)


def test_it_declines_below_a_threshold_that_the_dev_rows_fix(tmp_path: Path):
    model = fitted(tmp_path, SILENT)
    assert said(model, *(e.question for e in UNKNOWN)) == [SILENT] * len(UNKNOWN)
    assert said(model, *(e.question for e in ASKED)) == [e.answers[0] for e in ASKED]
    for dev, expected in ((ASKED, "It is in room"), (UNKNOWN, SILENT)):
        route = NearestRoute(NearestSettings(decline=SILENT))
        adapted = route.fit(context(tmp_path / dev[0].id, dev=dev))
        (answer,) = said(route.open(adapted), "Is there a walrus somewhere?")
        assert answer.startswith(expected), "other dev rows, another threshold"
        assert adapted.detail["dev_rows"] == len(dev)


def test_labels_are_chosen_by_accuracy_and_other_corpus_metrics_by_token_f1(tmp_path: Path):
    labels = tuple(
        dataclasses.replace(e, answers=("A" if i % 2 else "B",)) for i, e in enumerate(TRAIN)
    )
    for metric, by in (("macro_f1", "accuracy"), ("bleu", "token_f1"), ("contains", "contains")):
        route = NearestRoute(NearestSettings(decline="neither"))
        ctx = context(tmp_path / metric, metric=metric, train=labels, dev=labels)
        adapted = route.fit(ctx)
        assert adapted.detail["chosen_by"] == by
        assert said(route.open(adapted), *(e.question for e in labels)) == [
            e.answers[0] for e in labels
        ]


def test_a_short_question_is_searched_with_the_one_before(tmp_path: Path):
    turns = (
        Message("user", "Where do I find the pillow?"),
        Message("assistant", "In a room."),
        Message("user", "Which one?"),
    )
    (answer,) = fitted(tmp_path).complete([Request(turns)])
    assert answer.text == "It is in room 5."


def test_it_is_kept_as_json_and_answers_the_same_elsewhere(tmp_path: Path):
    route = NearestRoute(NearestSettings(decline=SILENT))
    adapted = route.fit(context(tmp_path / "work"))
    questions = [e.question for e in (*ASKED, *UNKNOWN)]
    before = said(route.open(adapted), *questions)
    shutil.move(tmp_path / "work" / "adapted", tmp_path / "moved")
    (file,) = (tmp_path / "moved").iterdir()
    assert json.loads(file.read_text(encoding="utf-8"))["decline"] == SILENT
    model = route.open(dataclasses.replace(adapted, folder=str(tmp_path / "moved")))
    assert said(model, *questions) == before
    request = Request((Message("user", questions[0]),))
    assert "".join(delta.text for delta in model.stream(request)) == before[0]
    assert "score" not in model.capabilities
    with pytest.raises(ModelError, match="no log-probabilities"):
        model.score([])


def test_running_text_is_refused(tmp_path: Path):
    task = TaskConfig(name="text", kind="text")
    with pytest.raises(ConfigError, match="answers questions"):
        NearestRoute(NearestSettings()).plan(context(tmp_path, task=task))


def test_the_command_line_compares_it_and_asks_it(task: Path, tmp_path: Path):
    out = tmp_path / "run"
    ask = ["--set", 'compare.routes=["constant","nearest"]']
    done = CliRunner().invoke(cli, ["compare", str(task), "--out", str(out), *ask])
    assert done.exit_code == 0, done.output
    (found,) = (
        r for r in json.loads((out / "report.json").read_text())["routes"] if r["kind"] == "nearest"
    )
    assert (found["status"], found["control"]) == ("done", False)
    rows = (out / "routes/nearest/seed-0/predictions.jsonl").read_text(encoding="utf-8")
    sure = [json.loads(line)["facts"]["confidence"] for line in rows.splitlines()]
    assert all(0 <= value <= 1 for value in sure)
    asked = CliRunner().invoke(cli, ["generate", f"{out}/nearest", "What is the code of box 7?"])
    assert asked.exit_code == 0
    assert asked.output.startswith("The code is ")
    detail = json.loads((out / "routes/nearest/seed-0/adapted.json").read_text())["detail"]
    assert set(detail) == {"train_rows"}, "nothing is fixed on dev without decline"
