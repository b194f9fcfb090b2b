"""The hybrid route: the rows it trains on, its three stages, and what a killed run costs."""

import dataclasses
import json
from collections import Counter
from pathlib import Path

import pytest

from tunelm.config import ModelConfig, TaskConfig
from tunelm.errors import ConfigError, RunDirError, TrainingError
from tunelm.route_settings import HybridSettings, PromptSettings
from tunelm.routes.base import FitContext, Upstream
from tunelm.routes.hybrid import RESULT, HybridRoute
from tunelm.routes.programs.model import open_program
from tunelm.routes.programs.program import FILE, Demo, Near, Program, Step, gold_demo
from tunelm.routes.programs.rows import RowExporter, answer_only, row_metric, without_demos
from tunelm.testing import ScriptedModel
from tunelm.types import ZERO_USAGE, Adapted, Message, Request

from .conftest import COLOURS, coloured

pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("dspy")

INSTRUCTIONS = " Name the colour.\n"


TRAIN, DEV = coloured(16), coloured(6, start=100)


def program_of(*steps, near=None):
    return Program(steps, near, {}, {}, {}, ZERO_USAGE, {})


# --- the rows ---------------------------------------------------------------------------------

DEMOS = tuple(gold_demo(row) for row in TRAIN[:2])  # of one group
PLAIN = program_of(Step("answer", INSTRUCTIONS, demos=DEMOS))
NEAR = program_of(
    Step("answer", INSTRUCTIONS), near=Near(3, tuple(gold_demo(row) for row in TRAIN))
)
REASONED = Demo(
    "e1",
    "bootstrapped",
    (*TRAIN[1].messages, Message("assistant", "Reasoning: odd.\nAnswer: It is green.")),
)
COT = program_of(
    Step("answer", INSTRUCTIONS, ("reasoning", "answer"), demos=(REASONED,), extra_tokens=9)
)
STEPS = program_of(
    Step("key_fact", "State the fact.", extra_tokens=20),
    Step("answer", INSTRUCTIONS, demos=DEMOS),
)


def colour_of(request):
    """Answers in every form that the programs above ask for."""
    head, question = request.messages[0].content, request.messages[-1].content
    number = int("".join(c for c in question.split("thing")[-1] if c.isdigit()))
    answer = f"It is {COLOURS[number % 4]}."
    if "Write in this form" in head:
        return f"Reasoning: it is thing {number}.\nAnswer: {answer}"
    return f"Fact {number}" if head == "State the fact." else answer


def exporter(program, model, folder):
    return RowExporter(program, TRAIN, lambda: model, 64, folder)


@pytest.mark.parametrize(
    "program", [PLAIN, NEAR, COT, STEPS], ids=["plain", "near", "cot", "steps"]
)
@pytest.mark.parametrize("of", ["gold", "traces"])
def test_a_training_prompt_is_what_the_opened_program_sends_byte_for_byte(tmp_path, program, of):
    program = answer_only(program) if of == "gold" else program
    maker = exporter(program, ScriptedModel(colour_of), tmp_path)
    later = coloured(6, start=40)  # no demonstration is of their groups
    if of == "gold":
        made = maker.gold(later, "train")
    else:
        made = maker.traces(later, "train", row_metric("exact_match")[1], 1.0)
    served = ScriptedModel(colour_of)
    open_program(program, served).complete([Request(row.messages) for row in later])
    assert Counter(row.messages for row in made.rows) == Counter(
        request.messages for request in served.requests
    )
    assert (made.asked, made.kept, made.failed, made.broken, made.below) == (6, 6, 0, 0, 0)
    asked = 6 if program is STEPS else 0
    assert made.calls == (asked if of == "gold" else served.calls)
    assert [message.role for message in made.rows[0].messages].count("system") == 1


def test_gold_rows_teach_the_gold_answer_and_traces_what_the_program_wrote(tmp_path):
    asked = [dataclasses.replace(row, answers=("gold",)) for row in coloured(2, start=40)]
    model = ScriptedModel(colour_of)
    gold = exporter(answer_only(COT), model, tmp_path / "a").gold(asked, "train")
    assert [row.answers for row in gold.rows] == [("gold",), ("gold",)]
    assert model.calls == 0
    traces = exporter(COT, model, tmp_path / "b").traces(asked, "train", lambda *_: 1.0, 0.5)
    assert traces.rows[0].answers == ("Reasoning: it is thing 40.\nAnswer: It is red.",)
    assert (traces.calls, traces.usage) == (2, model.usage)


def test_steps_before_a_gold_answer_learn_what_they_answered(tmp_path):
    made = exporter(STEPS, ScriptedModel(colour_of), tmp_path).gold(coloured(1, start=40), "train")
    first, last = made.rows
    assert (first.id, first.answers[0]) == ("e40/key_fact", "Fact 40")
    assert (last.id, last.answers[0]) == ("e40", "It is red.")
    assert last.messages[-1].content == "Key fact: Fact 40\n\nWhich colour is thing 40?"


@pytest.mark.parametrize("program", [PLAIN, NEAR], ids=["plain", "near"])
def test_no_row_is_shown_an_answer_of_its_own_group(tmp_path, program):
    rows = exporter(program, ScriptedModel(colour_of), tmp_path).gold(TRAIN, "train").rows
    for example, row in zip(TRAIN, rows, strict=True):
        own = {other.messages[0] for other in TRAIN if other.group == example.group}
        assert not own & set(row.messages[:-1])
        shown = sum(message.role == "assistant" for message in row.messages)
        assert shown == (3 if program is NEAR else 0 if example.group == "g0" else 2)


def test_traces_are_filtered_and_every_row_is_accounted_for(tmp_path):
    def some(request):
        number = int("".join(c for c in request.messages[-1].content if c.isdigit()))
        if number == 40:
            raise ValueError("context_length_exceeded")
        if number == 41:
            return "It is green."  # without the form
        return colour_of(request) if number % 2 else "Reasoning: no.\nAnswer: It is odd."

    score = row_metric("exact_match")[1]
    made = exporter(COT, ScriptedModel(some), tmp_path).traces(
        coloured(8, start=40), "train", score, 1.0
    )
    assert [row.id for row in made.rows] == ["e43", "e45", "e47"]
    assert made.counts() == {
        "rows": 3, "asked": 8, "kept": 3, "failed": 1, "broken": 1, "below": 3, "calls": 8
    }  # fmt: skip


def test_what_was_asked_is_not_asked_again(tmp_path):
    model = ScriptedModel(colour_of)
    first = exporter(STEPS, model, tmp_path).traces(TRAIN, "train", lambda *_: 1.0, 0.5)
    calls = model.calls
    again = exporter(STEPS, model, tmp_path).traces(TRAIN, "train", lambda *_: 1.0, 0.5)
    assert (again, model.calls) == (first, calls)


def test_gold_cannot_be_trained_in_a_form_with_reasoning(tmp_path):
    with pytest.raises(ValueError, match="answer alone"):
        exporter(COT, ScriptedModel(colour_of), tmp_path).gold(TRAIN, "train")
    bare = answer_only(COT)
    assert bare.plain
    assert bare.last.demos[0].messages[-1].content == "It is green."
    assert without_demos(NEAR).near is None


# --- the route --------------------------------------------------------------------------------


def context(work, **changes):
    ctx = FitContext(
        name="hybrid",
        task=TaskConfig(name="colours", instructions=INSTRUCTIONS, max_tokens=12),
        model=ModelConfig(base="tunelm-nano-small", device="cpu", max_length=256),
        metric="token_f1",
        train=TRAIN,
        dev=DEV,
        work=work,
    )
    return dataclasses.replace(ctx, **changes)


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    """What a route `prompt` leaves: two labelled demonstrations."""
    folder = PLAIN.save(tmp_path_factory.mktemp("prompt")).parent
    config = context(folder).model.model_dump(mode="json")
    adapted = Adapted("prompt", str(folder), {"config": config}, INSTRUCTIONS)
    settings = PromptSettings(strategy="labeled", demos=2)
    return {"few-shot": Upstream(settings, adapted, 0.25)}


@pytest.fixture(scope="module")
def interrupted(upstream, tmp_path_factory):
    """A run that was killed while the second of three programs was to be scored."""

    def killed(what, done, total):
        if what == "dev rows: weights":
            raise KeyboardInterrupt

    ctx = context(tmp_path_factory.mktemp("work"), upstream=upstream)
    with pytest.raises(KeyboardInterrupt):
        HybridRoute(HybridSettings()).fit(dataclasses.replace(ctx, progress=killed))
    kept = ("training/events.jsonl", "asked/tuned-prompt-weights.jsonl")
    return ctx, {name: (ctx.work / name).stat().st_mtime_ns for name in kept}


@pytest.fixture(scope="module")
def fitted(interrupted):
    ctx, _ = interrupted
    return ctx, HybridRoute(HybridSettings()).fit(ctx)


def test_each_stage_is_scored_on_dev_and_the_best_is_kept(fitted):
    _, adapted = fitted
    first, *tuned = adapted.detail["stages"]
    assert first == {"name": "prompt", "dev_score": 0.25, "n": 6}
    assert [s["name"] for s in tuned] == ["prompt-weights", "weights", "prompt-weights-prompt"]
    assert {s["n"] for s in tuned} == {6}
    best = max(tuned, key=lambda s: s["dev_score"])  # the first of equals
    assert adapted.detail["chosen"] == best["name"]
    assert best["dev_score"] > 0.25
    measured = adapted.detail["measured"]
    assert measured["dev_prompt_weights"]["value"] == tuned[0]["dev_score"]
    assert measured["dev_prompt_weights"]["method"] == "measured: 6 dev rows"
    assert adapted.detail["builds_on"] == "few-shot"


def test_the_weights_were_trained_on_what_is_sent(fitted):
    ctx, _ = fitted
    lines = (ctx.work / "training" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    trained = [json.loads(line)["messages"] for line in lines]
    served = open_program(PLAIN, ScriptedModel(colour_of))
    for example, messages in zip(TRAIN, trained, strict=True):
        sent = [dataclasses.asdict(m) for m in served.render(example.messages)]
        if example.group != "g0":  # the demonstrations' own group
            assert messages[:-1] == sent
        assert messages[-1] == {"role": "assistant", "content": example.answers[0]}


def test_the_opened_model_answers_behind_its_program(fitted):
    ctx, adapted = fitted
    reopened = Adapted.from_json(json.loads(json.dumps(adapted.to_json())), adapted.folder)
    model = HybridRoute(HybridSettings()).open(reopened)
    got = model.complete([Request(row.messages, max_tokens=12) for row in DEV])
    assert all(answer.text.startswith("It is ") for answer in got)
    program = Program.load(Path(adapted.folder))
    assert model.render(DEV[0].messages)[0] == Message("system", program.last.instructions)
    names = {path.name for path in Path(adapted.folder).iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", FILE, RESULT} <= names
    card = json.loads((Path(adapted.folder) / "tunelm.json").read_text(encoding="utf-8"))
    assert card["system"] == adapted.system == INSTRUCTIONS
    assert adapted.folder == str(ctx.work / "adapted")


def test_the_forecast_and_what_it_took(fitted):
    ctx, adapted = fitted
    plan = HybridRoute(HybridSettings()).plan(ctx)
    tokens = plan.forecasts["train_tokens"]
    assert 0 < adapted.usage["train"].prompt_tokens <= tokens.value
    calls = plan.forecasts["calls"]
    assert calls.low <= adapted.detail["calls"]["made"] <= calls.high
    assert adapted.usage["select"].prompt_tokens > 0
    assert adapted.detail["rows"]["train"]["rows"] == len(TRAIN)
    assert adapted.detail["rows"]["train"]["calls"] == 0


def test_a_finished_result_is_returned_and_something_else_refused(fitted, upstream):
    ctx, adapted = fitted
    assert HybridRoute(HybridSettings()).fit(ctx) == adapted
    with pytest.raises(RunDirError, match="empty folder"):
        HybridRoute(HybridSettings()).fit(dataclasses.replace(ctx, seed=1))
    other = {"few-shot": dataclasses.replace(upstream["few-shot"], settings=PromptSettings())}
    with pytest.raises(RunDirError, match="another program"):
        HybridRoute(HybridSettings()).fit(dataclasses.replace(ctx, upstream=other))


def test_a_killed_run_trains_and_asks_nothing_again(interrupted, fitted):
    _, before = interrupted
    ctx, adapted = fitted
    assert {name: (ctx.work / name).stat().st_mtime_ns for name in before} == before
    assert adapted.usage["select"].completion_tokens > 0  # what was asked before the kill counts


def test_too_few_traces_say_what_to_change(upstream, tmp_path):
    settings = HybridSettings(rows="traces", threshold=1.0)
    with pytest.raises(TrainingError, match=r"to 16 train rows .* routes\.hybrid\.rows = 'gold'"):
        HybridRoute(settings).fit(context(tmp_path, upstream=upstream))
    asked = (tmp_path / "asked" / "train-answer.jsonl").read_text(encoding="utf-8")
    assert len(asked.splitlines()) == 16
    assert not (tmp_path / "training").exists()


def test_without_a_prompt_route_there_is_nothing_to_build_on(tmp_path):
    assert HybridRoute.needs == ("prompt",)
    for call in (HybridRoute(HybridSettings()).plan, HybridRoute(HybridSettings()).fit):
        with pytest.raises(ConfigError, match="kind 'prompt'"):
            call(context(tmp_path))


def test_a_fine_tuning_job_can_tune_the_weights(upstream, tmp_path):
    pytest.importorskip("openai")
    pytest.importorskip("fastapi")
    settings = HybridSettings(weights="cloud")
    ctx = context(tmp_path, upstream=upstream)
    adapted = HybridRoute(settings).fit(ctx)
    assert adapted.detail["weights"]["kind"] == "cloud"
    assert adapted.usage["train"].prompt_tokens > 0
    sent = (tmp_path / "job" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    last = json.loads(sent[-1])["messages"]
    assert [m["role"] for m in last] == ["system", *(["user", "assistant"] * 3)]
    assert [m.get("weight") for m in last if m["role"] == "assistant"] == [0, 0, None]
    model = HybridRoute(settings).open(adapted)
    assert model.complete([Request(DEV[0].messages, max_tokens=12)])[0].text.startswith("It is ")
