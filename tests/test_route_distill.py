"""The distill route: who teaches, what is kept, what is never asked twice."""

import dataclasses
import json
from pathlib import Path

import pytest

from tunelm.config import ModelConfig, TaskConfig
from tunelm.errors import BudgetError, ConfigError, DataError, RunDirError, TrainingError
from tunelm.models.prompted import PromptedModel
from tunelm.route_settings import (
    BaselineSettings,
    DistillSettings,
    EndpointSettings,
    LocalSettings,
)
from tunelm.routes import make_route
from tunelm.routes.base import EVERY, FitContext, Upstream
from tunelm.routes.distill import DistillRoute
from tunelm.routes.lessons import read_questions
from tunelm.testing import ChatServer, ScriptedModel
from tunelm.types import Adapted, Message, Request

from .conftest import COLOURS, coloured

pytest.importorskip("torch")
pytest.importorskip("peft")

TRAINING = LocalSettings(epochs=12, batch_size=8, stop_on="none")


def number_in(request):
    return int("".join(c for c in request.messages[-1].content if c.isdigit()))


def mostly_right(request):
    """Wrong on every fifth thing."""
    number = number_in(request)
    if number % 5 == 0:
        return "I do not know that at all."
    return f"It is {COLOURS[number % 4]}."


def context(root, name="distill", **changes):
    """In the layout of a run directory, so that routes can find each other's answers."""
    work = root / "routes" / name / "seed-0"
    work.mkdir(parents=True, exist_ok=True)
    ctx = FitContext(
        name=name,
        task=TaskConfig(name="colours", instructions="Name the colour.", max_tokens=12),
        model=ModelConfig(base="tunelm-nano", device="cpu", max_length=256),
        metric="exact_match",
        train=coloured(20),
        dev=coloured(4, start=100),
        work=work,
    )
    return dataclasses.replace(ctx, **changes)


def settings_of(server, **changes):
    teacher = EndpointSettings(model=server.model.name, base_url=server.url)
    return DistillSettings.model_validate({"teacher": teacher, "training": TRAINING, **changes})


def trained_on(ctx):
    lines = (ctx.work / "training" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def distilled(tmp_path_factory):
    """A student of a teacher behind an API, filtered by gold, and one of all its answers."""
    root = tmp_path_factory.mktemp("run")
    with ChatServer(ScriptedModel(mostly_right, "teacher")) as server:
        filtered, every = context(root), context(root, "distill-all")
        route = DistillRoute(settings_of(server))
        plan = route.plan(filtered)
        adapted = route.fit(filtered)
        asked = len(server.bodies)
        unfiltered = DistillRoute(settings_of(server, keep="all")).fit(every)
        assert len(server.bodies) == asked == 20
    return filtered, plan, adapted, every, unfiltered, settings_of(server), server.model


def test_only_answers_that_the_metric_passes_are_learned(distilled):
    ctx, _, adapted, *_ = distilled
    right = [row for row in ctx.train if int(row.id[1:]) % 5]
    rows = trained_on(ctx)
    assert [row["id"] for row in rows] == [row.id for row in right]
    assert {row["messages"][-1]["content"] for row in rows} == {f"It is {c}." for c in COLOURS}
    assert adapted.detail["rows"] == {
        "train": {
            "asked": 20, "failed": 0, "answered": 20, "unsound": 0, "kept": 16, "calls": 20
        }
    }  # fmt: skip
    on_train = adapted.detail["teacher"]["on_train"]
    assert on_train == {
        "metric": "exact_match", "mean": 0.8, "n": 20, "pass": 16, "threshold": 0.9
    }  # fmt: skip


def test_dev_rows_keep_their_gold_answers(distilled):
    ctx, *_ = distilled
    lines = (ctx.work / "training" / "dev.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["messages"][-1]["content"] for line in lines] == [
        row.answers[0] for row in ctx.dev
    ]


def test_the_student_is_the_smaller_sibling_and_answers(distilled):
    _, _, adapted, _, _, settings, _ = distilled
    reopened = Adapted.from_json(json.loads(json.dumps(adapted.to_json())), adapted.folder)
    assert adapted.base["config"]["base"] == "tunelm-nano-small"
    student = DistillRoute(settings).open(reopened)
    assert student.render([Message("user", "x")])[0] == Message("system", "Name the colour.")
    got = student.complete([Request(row.messages, max_tokens=12) for row in coloured(4, start=60)])
    assert all(answer.text.startswith("It is ") for answer in got)


def test_what_teaching_took_is_metered_and_was_forecast(distilled):
    _, plan, adapted, _, _, _, model = distilled
    assert adapted.usage["teach"] == model.usage
    assert adapted.detail["calls"] == {"made": 20}
    assert plan.forecasts["calls"].value == 20
    measured = adapted.detail["measured"]
    for name in ("prompt_tokens_teach", "completion_tokens_teach"):
        assert measured[name]["value"] > 0
        assert name in plan.forecasts
    assert measured["usd_teacher"]["value"] is None  # one's own endpoint, without a price
    assert measured["teacher_parameters"]["value"] is None
    assert adapted.detail["paid"]["teach"]["model"].startswith("teacher at http://127.0.0.1")
    assert measured["student_parameters"]["value"] > 0
    assert measured["rows_kept"]["value"] == 16
    assert plan.forecasts["train_tokens"].low == 0


def test_an_unfiltered_sibling_learns_all_of_it_and_pays_nothing(distilled):
    _, _, _, every, unfiltered, *_ = distilled
    assert len(trained_on(every)) == 20
    assert unfiltered.detail["rows"]["train"]["kept"] == 20
    assert unfiltered.detail["answers_of"] == ["distill"]
    assert unfiltered.detail["calls"] == {"made": 0}
    assert unfiltered.usage["teach"].prompt_tokens == 0
    assert unfiltered.detail["teacher"]["on_train"]["pass"] == 16


def test_fitting_again_asks_nobody_and_other_rows_are_refused(distilled):
    ctx, _, adapted, _, _, settings, _ = distilled  # the server is gone
    assert DistillRoute(settings).fit(ctx) == adapted
    lower = settings.model_copy(update={"keep": "all"})
    with pytest.raises(RunDirError, match="empty folder"):
        DistillRoute(lower).fit(ctx)


# --- agreement, further questions, reasoning --------------------------------------------------


def wavering(request):
    """Sure of even things; of odd ones each sample says something else."""
    number, seed = number_in(request), request.seed
    if request.temperature != 0.8 or seed is None:
        return "greedy"
    if number % 2 == 0:
        return f"It is {COLOURS[number % 4]}" + "." * (seed % 2)
    return f"It is {COLOURS[seed % 4]}."


def test_agreement_keeps_what_samples_say_alike_and_a_killed_run_asks_nothing_twice(tmp_path):
    def killed(what, done, total):
        if what.endswith("sample 3"):
            raise KeyboardInterrupt

    ctx = context(tmp_path, train=coloured(24))
    with ChatServer(ScriptedModel(wavering, "teacher")) as server:
        route = DistillRoute(settings_of(server, keep="agreement", samples=4))
        with pytest.raises(KeyboardInterrupt):
            route.fit(dataclasses.replace(ctx, progress=killed))
        assert len(server.bodies) == 2 * 24
        adapted = route.fit(ctx)
    assert len(server.bodies) == adapted.detail["rows"]["train"]["calls"] == 4 * 24
    assert {body["seed"] for body in server.bodies} == {0, 1, 2, 3}
    assert adapted.usage["teach"] == server.model.usage
    rows = trained_on(ctx)
    assert [row["id"] for row in rows] == [row.id for row in ctx.train[::2]]
    assert rows[0]["messages"][-1]["content"] == "It is red"  # the first sample's words


def questions_file(folder, *questions):
    path = folder / "more.jsonl"
    path.write_text("".join(json.dumps({"question": q}) + "\n" for q in questions))
    return path


def test_further_questions_are_kept_where_samples_agree(tmp_path):
    path = questions_file(
        tmp_path,
        *[f"Which colour is thing {i}?" for i in (201, 202, 203, 204)],
        "which colour is thing 3?",  # in train
        "Which colour is thing 100?",  # in dev
        "Which colour is thing 204 ?",  # twice
    )

    def both(request):
        return mostly_right(request) if request.temperature == 0 else wavering(request)

    with ChatServer(ScriptedModel(both, "teacher")) as server:
        prices = {"usd_per_million_in": 0.0, "usd_per_million_out": 0.0}
        teacher = {"model": "teacher", "base_url": server.url, **prices}
        settings = settings_of(server, teacher=teacher, unlabelled=path, samples=3)
        ctx = context(tmp_path)
        plan = DistillRoute(settings).plan(ctx)
        adapted = DistillRoute(settings).fit(ctx)
    learned = [row["messages"][-2]["content"] for row in trained_on(ctx)]
    assert learned[16:] == ["Which colour is thing 202?", "Which colour is thing 204?"]
    counts = adapted.detail["rows"]["unlabelled"]
    assert (counts["asked"], counts["kept"], counts["calls"]) == (4, 2, 12)
    assert (counts["in_train"], counts["in_dev"], counts["twice"]) == (1, 1, 1)
    assert plan.forecasts["calls"].value == adapted.detail["calls"]["made"] == 20 + 12
    assert plan.forecasts["usd_teacher"].value == 0  # known to be free, and not unknown
    assert adapted.detail["measured"]["usd_teacher"]["value"] == 0
    assert "test set" in adapted.detail["notes"][0]
    assert plan.notes[-1] == adapted.detail["notes"][0]


def test_a_file_of_questions_that_cannot_be_used_is_named_by_its_lines(tmp_path):
    path = tmp_path / "more.jsonl"
    path.write_text('{"question": "What?"}\n{"answer": "That."}\n{"question": 7}\n')
    with pytest.raises(DataError) as caught:
        read_questions(path, [], [])
    assert [p.split(": ")[0] for p in caught.value.problems] == [f"{path}:2", f"{path}:3"]
    with pytest.raises(ConfigError, match="no such file"):
        read_questions(tmp_path / "nowhere.jsonl", [], [])


def test_reasoning_is_learned_with_the_answer_and_read_off_it(tmp_path):
    def reasoning(request):
        assert "Reasoning: ..." in request.messages[0].content
        number = number_in(request)
        if number == 7:
            return f"It is {COLOURS[3]}."  # right, but without the form
        return f"Reasoning: {number} is a thing.\nAnswer: {mostly_right(request)}"

    with ChatServer(ScriptedModel(reasoning, "teacher")) as server:
        training = TRAINING.model_copy(update={"epochs": 60, "learning_rate": 5e-3})
        settings = settings_of(server, rationale=True, training=training)
        ctx = context(tmp_path)
        plan = DistillRoute(settings).plan(ctx)
        adapted = DistillRoute(settings).fit(ctx)
    assert {body["max_tokens"] for body in server.bodies} == {12 + 128}
    assert plan.forecasts["calls"].value == adapted.detail["calls"]["made"] == 24
    rows = trained_on(ctx)
    assert adapted.detail["rows"]["train"]["unsound"] == 1
    assert len(rows) == 15
    assert rows[0]["messages"][-1]["content"] == ("Reasoning: 1 is a thing.\nAnswer: It is green.")
    dev = (ctx.work / "training" / "dev.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(dev) == 3  # of 4: thing 100 was answered wrongly
    student = DistillRoute(settings).open(adapted)
    got = student.complete([Request(row.messages, max_tokens=20) for row in ctx.train[1:5]])
    assert [answer.format_error for answer in got] == [None] * 4
    assert all(answer.text.startswith("It is ") for answer in got)
    sent = [dataclasses.asdict(m) for m in student.render(ctx.train[1].messages)]
    assert rows[0]["messages"][:-1] == sent


# --- who teaches ------------------------------------------------------------------------------


def taught_by(model, dev_score):
    config = ModelConfig(base=model, device="cpu", max_length=256).model_dump(mode="json")
    adapted = Adapted("baseline", "", {"config": config}, "Name the colour.")
    return Upstream(BaselineSettings(), adapted, dev_score)


def test_the_best_route_on_dev_teaches_and_ties_go_to_the_first(tmp_path):
    upstream = {
        "unknown": taught_by("tunelm-nano", None),
        "small": taught_by("tunelm-nano-small", 0.3),
        "twin": taught_by("tunelm-nano", 0.3),
    }
    settings = DistillSettings(
        keep="all", training=LocalSettings(max_steps=2, stop_on="none", batch_size=4)
    )
    route = DistillRoute(settings)
    assert route.needs == (EVERY,)
    ctx = context(tmp_path, upstream=upstream, train=coloured(12))
    adapted = route.fit(ctx)
    teacher = make_route(BaselineSettings()).open(upstream["small"].adapted)
    assert isinstance(teacher, PromptedModel)
    said = teacher.complete([Request(row.messages, max_tokens=12) for row in ctx.train])
    learned = [row["messages"][-1]["content"] for row in trained_on(ctx)]
    assert learned == [answer.text for answer in said]
    assert adapted.detail["teacher"]["name"] == "small"
    assert adapted.detail["teacher"]["dev_score"] == 0.3
    measured = adapted.detail["measured"]
    assert measured["teacher_parameters"]["value"] == measured["student_parameters"]["value"]
    named = DistillRoute(settings.model_copy(update={"teacher_route": "twin"}))
    assert named.plan(ctx).notes[0] == "teacher: twin; student: tunelm-nano-small"


@pytest.mark.parametrize(
    ("changes", "upstream", "message"),
    [
        ({}, {}, r"no teacher: add a route .* routes\.distill\.teacher\.model"),
        ({"teacher_route": "rag"}, {"local": None}, r"'rag' is no finished .* There are: local"),
        ({"rationale": True}, {"local": None}, r"rationale = true .* Name a model"),
        (
            {"teacher": EndpointSettings(model="m", base_url="http://127.0.0.1:1/v1"),
             "teacher_route": "local"},
            {"local": None},
            "set one of them",
        ),
        ({"teacher": EndpointSettings(base_url="http://127.0.0.1:1/v1")}, {}, "name the model"),
    ],
)  # fmt: skip
def test_a_teacher_that_cannot_be_found_says_what_to_set(tmp_path, changes, upstream, message):
    made = {name: taught_by("tunelm-nano", 0.5) for name in upstream}
    ctx = context(tmp_path, upstream=made)
    route = DistillRoute(DistillSettings(**changes))
    for call in (route.plan, route.fit):
        with pytest.raises(ConfigError, match=message):
            call(ctx)
    assert not (ctx.work / "teacher").exists()


def test_a_student_must_be_named_for_other_bases(tmp_path):
    model = ModelConfig(base="tunelm-nano-small", device="cpu")
    ctx = context(tmp_path, model=model, upstream={"local": taught_by("tunelm-nano", 0.5)})
    with pytest.raises(ConfigError, match=r"routes\.distill\.student is not set"):
        DistillRoute(DistillSettings()).fit(ctx)


def test_a_teacher_that_may_charge_is_not_asked_without_leave(tmp_path):
    teacher = EndpointSettings(model="m", base_url="https://models.example.org/v1")
    route = DistillRoute(DistillSettings(teacher=teacher))
    assert route.needs == ()
    with pytest.raises(BudgetError, match="--spend"):
        route.fit(context(tmp_path))


def test_too_few_kept_answers_say_how_many_and_what_to_change(tmp_path):
    def hopeless(request):
        if number_in(request) == 0:
            raise ValueError("content_filter")
        return "No idea." if number_in(request) > 3 else mostly_right(request)

    with ChatServer(ScriptedModel(hopeless, "teacher")) as server:
        ctx = context(tmp_path)
        with pytest.raises(
            TrainingError, match=r"leaves 3 of .* of 20 questions 1 failed and 19 .*keep = 'all'"
        ):
            DistillRoute(settings_of(server)).fit(ctx)
    assert not Path(ctx.work / "training").exists()
