"""The local route from examples to answers, on a tiny model."""

import dataclasses
import json

import pytest

from tunelm.config import ModelConfig, TaskConfig
from tunelm.errors import DataError, ModelError, RunDirError, TrainingError
from tunelm.route_settings import LocalSettings
from tunelm.routes.base import FitContext
from tunelm.routes.local import LocalRoute, shuffled_answers
from tunelm.testing import make_tiny_model
from tunelm.types import Adapted, Example, Message, Request

pytest.importorskip("torch")
pytest.importorskip("peft")

COLOURS = ("red", "green", "blue", "grey")


def examples(count, answer="It is {}."):
    return [
        Example(
            id=f"e{i}",
            messages=(Message("user", f"Which colour is thing {i}?"),),
            answers=(answer.format(COLOURS[i % 4]),),
            group=f"g{i // 2}",
        )
        for i in range(count)
    ]


def context(folder, model, **changes):
    ctx = FitContext(
        name="local",
        task=TaskConfig(name="colours", instructions="Name the colour.", max_tokens=8),
        model=ModelConfig(base=str(model), device="cpu", max_length=128),
        metric="token_f1",
        train=examples(16),
        dev=examples(4),
        work=folder,
    )
    return dataclasses.replace(ctx, **changes)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("base") / "tiny")


SETTINGS = LocalSettings(epochs=60, learning_rate=1e-2, batch_size=4, stop_on="none")


@pytest.fixture(scope="module")
def fitted(tiny, tmp_path_factory):
    told = []
    ctx = context(tmp_path_factory.mktemp("work"), tiny, progress=lambda *event: told.append(event))
    return ctx, LocalRoute(SETTINGS).fit(ctx), told


def answer(model, question):
    request = Request((Message("user", question),), max_tokens=20)
    return model.complete([request])[0]


def test_the_adapted_model_answers_in_the_trained_form_and_stops(fitted):
    _, adapted, _ = fitted
    reopened = Adapted.from_json(json.loads(json.dumps(adapted.to_json())), adapted.folder)
    model = LocalRoute(SETTINGS).open(reopened)
    assert model.render([Message("user", "x")])[0] == Message("system", "Name the colour.")
    got = answer(model, "Which colour is thing 5?")
    assert got.text.startswith("It is ")
    assert got.finish_reason == "stop"


def test_training_is_followed_step_by_step(fitted):
    _, _, told = fitted
    assert [done for _, done, _ in told if done][-1] == 240
    assert {total for _, _, total in told} == {240}


def test_what_was_planned_is_what_was_trained(fitted):
    ctx, adapted, _ = fitted
    forecasts = LocalRoute(SETTINGS).plan(ctx).forecasts
    for forecast, measured in (
        ("trainable_parameters", "trainable_parameters"),
        ("steps", "step"),
        ("train_tokens", "tokens"),
    ):
        assert forecasts[forecast].value == adapted.detail[measured]
    assert forecasts["usd"].value is None
    assert forecasts["usd"].method.startswith("unknown: ")
    assert adapted.usage["train"].prompt_tokens == adapted.detail["tokens"]


def test_a_base_that_is_not_on_this_machine_makes_an_unknown_plan(tmp_path):
    plan = LocalRoute(SETTINGS).plan(context(tmp_path, "nobody/no-such-model"))
    assert plan.forecasts["train_tokens"].value is None
    assert "local hub cache" in plan.forecasts["train_tokens"].method


def test_checkpoints_are_gone_and_the_measurements_stand_beside_the_adapter(fitted):
    ctx, adapted, _ = fitted
    assert not (ctx.work / "training" / "checkpoints").exists()
    names = {path.name for path in (ctx.work / "adapted").iterdir()}
    assert names == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "tunelm.json",
        "training.json",
    }
    assert adapted.folder == str(ctx.work / "adapted")


def test_fitting_again_returns_the_same_and_refuses_other_rows(fitted):
    ctx, adapted, _ = fitted
    assert LocalRoute(SETTINGS).fit(ctx) == adapted
    with pytest.raises(RunDirError, match="other rows"):
        LocalRoute(SETTINGS).fit(dataclasses.replace(ctx, train=examples(15)))


def test_another_base_under_the_same_name_is_refused(fitted, tmp_path):
    _, adapted, _ = fitted
    other = make_tiny_model(tmp_path / "other", seed=1)
    config = adapted.base["config"] | {"base": str(other)}
    moved = dataclasses.replace(adapted, base={**adapted.base, "config": config})
    with pytest.raises(ModelError, match="its weights"):
        LocalRoute(SETTINGS).open(moved)


def test_generated_answers_to_dev_rows_can_stop_training(tiny, tmp_path):
    settings = SETTINGS.model_copy(update={"stop_on": "metric", "epochs": 4.0, "patience": 1})
    result = LocalRoute(settings).fit(context(tmp_path, tiny, metric="chrf")).detail
    assert result["metric"] is not None
    assert 0 <= result["best_value"] <= 100
    assert result["best_step"] in (4, 8, 12, 16)


def test_what_the_training_process_says_reaches_the_caller(tmp_path):
    with pytest.raises(TrainingError, match=r"nowhere.*cannot be loaded"):
        LocalRoute(SETTINGS).fit(context(tmp_path, tmp_path / "nowhere"))


def test_interrupting_stops_the_training_process_and_keeps_its_work(tiny, tmp_path):
    import psutil

    def interrupt(what, done, total):
        if done >= 2:
            raise KeyboardInterrupt

    settings = SETTINGS.model_copy(update={"epochs": 10_000.0})
    ctx = context(tmp_path, tiny, progress=interrupt)
    with pytest.raises(KeyboardInterrupt):
        LocalRoute(settings).fit(ctx)
    assert not psutil.pid_exists(int((tmp_path / "training" / "heartbeat").read_text().split()[0]))
    assert list((tmp_path / "training" / "checkpoints").glob("step-*"))


# --- the control --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_shuffled_answers_go_to_other_groups_and_none_is_lost(seed):
    rows = [
        dataclasses.replace(row, answers=(f"answer of {row.group}, {row.id}",))
        for row in [
            *examples(10),
            *[dataclasses.replace(r, id=f"x{r.id}", group="big") for r in examples(9)],
        ]
    ]
    dealt = shuffled_answers(rows, seed)
    assert [row.messages for row in dealt] == [row.messages for row in rows]
    assert sorted(row.answers for row in dealt) == sorted(row.answers for row in rows)
    assert all(f"answer of {row.group}," not in row.answers[0] for row in dealt)
    assert dealt == shuffled_answers(rows, seed)
    assert dealt != shuffled_answers(rows, seed + 1)


def test_answers_cannot_be_dealt_when_one_group_has_most_rows():
    rows = [dataclasses.replace(row, group="one") for row in examples(5)] + examples(4)
    with pytest.raises(DataError, match="5 of the 9"):
        shuffled_answers(rows, 0)


def test_the_control_trains_on_the_dealt_answers(tiny, tmp_path):
    settings = SETTINGS.model_copy(update={"shuffle_answers": True, "max_steps": 1})
    ctx = context(tmp_path, tiny)
    LocalRoute(settings).fit(ctx)
    lines = (tmp_path / "training" / "train.jsonl").read_text().splitlines()
    trained = [json.loads(line)["messages"][-1]["content"] for line in lines]
    assert trained == [row.answers[0] for row in shuffled_answers(ctx.train, 0)]
    assert trained != [row.answers[0] for row in ctx.train]
