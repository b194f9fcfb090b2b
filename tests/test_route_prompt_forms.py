"""Programs that answer, reason, or go step by step: what they send, and what they show."""

from dataclasses import replace
from pathlib import Path

import pytest

from tunelm.config import TaskConfig
from tunelm.errors import ConfigError
from tunelm.route_settings import PromptSettings
from tunelm.routes.programs.program import Program
from tunelm.routes.programs.start import bare, start_steps
from tunelm.types import Message, Request

from .test_route_prompt import (
    DEV,
    INSTRUCTIONS,
    TRAIN,
    ScriptedModel,
    context,
    demos_in,
    fit,
    number_in,
    row,
)

PLAN = {"name": "key_fact", "instructions": " Name the key fact.\n"}
CHECK = {"name": "check", "instructions": "Check it."}
FORMS = {
    "answer": {},
    "cot": {"program": "cot", "reasoning_tokens": 50},
    "steps": {"program": "steps", "steps": [PLAN, CHECK], "reasoning_tokens": 20},
}
DIALOGUE = replace(
    row(7),
    messages=(
        Message("user", " Hello\n"),
        Message("assistant", "What is it?  "),
        Message("user", "\tThe name of thing 7, “é” 数?"),
    ),
)
OWN_SYSTEM = replace(row(8), messages=(Message("system", "Be rude."), *row(8).messages))


def reasoning(request: Request) -> str:
    """Right in every form; of odd numbers it knows nothing."""
    number = number_in(request.messages[-1].content.split("thing")[-1])
    said = f"Thing {number} is called name{number}." if int(number) % 2 == 0 else "No idea"
    if "Reasoning: ..." in request.messages[0].content:
        return f"Reasoning: number {number} it is.\nAnswer: {said}"
    return "a fact" if request.max_tokens == 20 else said


@pytest.mark.parametrize("instructions", [INSTRUCTIONS, ""], ids=["told", "untold"])
@pytest.mark.parametrize("asked", [DEV[0], DIALOGUE, OWN_SYSTEM], ids=["one", "turns", "system"])
@pytest.mark.parametrize("form", FORMS)
def test_the_opened_program_sends_what_dspy_sends_byte_for_byte(form, asked, instructions):
    import dspy

    from tunelm.routes.programs.adapter import as_dicts
    from tunelm.routes.programs.engine import ChatEngine
    from tunelm.routes.programs.model import open_program
    from tunelm.routes.programs.module import steps_of
    from tunelm.routes.programs.optimizers import Search, Session
    from tunelm.routes.programs.tracker import Tracker

    model = ScriptedModel(reasoning)
    settings = PromptSettings.model_validate(FORMS[form])
    steps = start_steps(settings, TaskConfig(name="things", instructions=instructions))
    engine = ChatEngine(model)
    session = Session(Search(steps, engine, None, Tracker((), lambda output, row: 0.0), 33))
    rows = session.shape.as_dspy([DIALOGUE, OWN_SYSTEM, row(9)])
    more = {"answer": "Yes, \n it is", "reasoning": " So and so"}
    for i, part in enumerate(session.program.predictors()):
        given = {"given": {"key_fact": " K\n"}} if i else {}
        taught = [
            dspy.Example(augmented=True, messages=as_dicts(r.messages), **given, **more)
            for r in (DIALOGUE, OWN_SYSTEM)
        ]
        part.demos = [*taught, rows[2]]
    with session.open():
        session.program(messages=as_dicts(asked.messages))
    by_dspy = list(model.requests)
    found = steps_of(session.program)
    open_program(bare(found), model).complete([Request(asked.messages, max_tokens=33)])
    assert model.requests[len(by_dspy) :] == by_dspy
    assert len(by_dspy) == len(steps)
    # A gold row is shown where its answer is all there is to show.
    assert [len(step.demos) for step in found] == {"answer": [3], "cot": [2], "steps": [3, 2, 2]}[
        form
    ]
    assert [step.instructions for step in found] == [step.instructions for step in steps]
    first = by_dspy[0].messages[0]
    if form == "answer" and instructions and asked is not OWN_SYSTEM:
        assert first == Message("system", instructions)
    if form == "steps":
        assert by_dspy[-1].messages[-1].content.startswith("Key fact: a fact\n\nCheck: a fact\n\n")
        assert [request.max_tokens for request in by_dspy] == [20, 20, 33]
        assert "Be rude." not in [m.content for r in by_dspy[:-1] for m in r.messages]


@pytest.mark.parametrize("form", FORMS)
def test_zero_shot_asks_nothing_and_opens_in_its_form(tmp_path, form):
    model = ScriptedModel(reasoning)
    ctx = context(tmp_path, train=(), dev=())
    route, adapted, program = fit(model, ctx, strategy="zero-shot", **FORMS[form])
    assert model.calls == 0
    assert program.versions.keys() == {"tunelm"}
    assert adapted.detail["chosen"] == "zero-shot"
    got = route.open(adapted).complete([Request(DEV[0].messages, max_tokens=33)])[0]
    assert (got.text, got.format_error) == ("Thing 100 is called name100.", None)
    assert model.calls == len(program.steps)


def test_an_answer_that_breaks_the_form_is_counted_and_taken_as_it_is(tmp_path):
    def formless(request: Request) -> str:
        number = number_in(request.messages[-1].content)
        return f"Thing {number} is called name{number}." if int(number) % 2 else "No idea"

    ctx = context(tmp_path)
    route, adapted, program = fit(ScriptedModel(formless), ctx, **FORMS["cot"])
    # Nothing in the form, so nothing can be shown, and zero-shot is all there is.
    assert [c["name"] for c in adapted.detail["candidates"]] == ["zero-shot"]
    (start,) = adapted.detail["candidates"]
    assert (start["rows"], start["format_errors"], start["failed_rows"]) == (20, 20, 0)
    assert start["dev_score"] == 0.5
    assert program.last.demos == ()
    got = route.open(adapted).complete([Request(DEV[1].messages)])[0]
    assert got.text == "Thing 101 is called name101."
    assert got.format_error == "no line begins with 'Reasoning'"


def test_a_search_shows_what_the_program_wrote_on_the_way(tmp_path):
    def better_with(request: Request) -> str:
        number = int(number_in(request.messages[-1].content))
        right = demos_in(request) or number % 2
        said = f"Thing {number} is called name{number}." if right else "No idea"
        return f"Reasoning: number {number} it is.\nAnswer: {said}"

    _, adapted, program = fit(ScriptedModel(better_with), context(tmp_path), **FORMS["cot"])
    assert adapted.detail["chosen"] == "bootstrapped-1"
    assert program.last.demos
    for demo in program.last.demos:
        number = number_in(demo.messages[0].content)
        assert demo.source == "bootstrapped"
        assert demo.messages[-1].content.startswith(f"Reasoning: number {number} it is.\nAnswer: ")


@pytest.mark.parametrize("strategy", ["labeled", "knn"])
@pytest.mark.parametrize("form", ["cot", "steps"])
def test_by_hand_too_only_rows_answered_well_are_shown_with_what_came_before(
    tmp_path, form, strategy
):
    model = ScriptedModel(reasoning)
    ctx = context(tmp_path)
    _, adapted, program = fit(model, ctx, strategy=strategy, **FORMS[form])
    demos = program.last.demos if strategy == "labeled" else program.near.pool
    assert len(demos) == (3 if strategy == "labeled" else 20)
    for demo in demos:
        assert int(number_in(demo.messages[-2].content)) % 2 == 0
        assert demo.source == "bootstrapped"
        start = "Key fact: a fact\n\nCheck: a fact\n\n" if form == "steps" else "What is"
        assert demo.messages[-2].content.startswith(start)
    if strategy == "labeled":
        assert [len(step.demos) for step in program.steps] == [3] * len(program.steps)
    assert "good enough to be shown" in adapted.detail["notes"][0]
    forecast = PromptSettings.model_validate({"strategy": strategy, "demos": 3, **FORMS[form]})
    low, high = spanned(forecast, ctx)
    assert low <= model.calls <= high


def spanned(settings: PromptSettings, ctx: object) -> tuple[float, float]:
    from tunelm.routes.prompt import PromptRoute

    calls = PromptRoute(settings).plan(ctx).forecasts["calls"]
    return calls.low, calls.high


ABOUT = (
    row(1, question="Which river flows through Paris?"),
    row(2, question="Which mountain is the highest of all?"),
    row(3, question="What is the boiling point of water?"),
    row(4, question="Who wrote the play about the prince of Denmark?"),
    row(5, question="Which river flows through Vienna and Budapest?"),
)


def test_knn_shows_the_nearest_gold_rows_nearest_last_and_asks_nothing_more(tmp_path):
    pytest.importorskip("bm25s")
    model = ScriptedModel(lambda request: "Yes")
    ctx = context(tmp_path, train=ABOUT, dev=())
    route, adapted, program = fit(model, ctx, strategy="knn", demos=2)
    assert program.near.k == 2
    assert {demo.example_id for demo in program.near.pool} == {r.id for r in ABOUT}
    assert model.calls == 4  # the longest prompts were tried
    opened = route.open(adapted)
    opened.complete([Request((Message("user", "Which river flows through Vienna?"),))])
    asked = model.requests[-1].messages
    questions = [m.content for m in asked if m.role == "user"]
    assert questions[:2] == [ABOUT[0].question, ABOUT[4].question]
    assert [m.content for m in asked if m.role == "assistant"][1] == ABOUT[4].answers[0]
    assert model.calls == 5
    assert Program.load(Path(adapted.folder)) == program


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"program": "steps"}, "needs its steps"),
        ({"steps": [PLAN]}, "set program = 'steps'"),
        ({"program": "steps", "steps": [PLAN, PLAN]}, "'key_fact' is taken"),
        ({"program": "steps", "steps": [{**PLAN, "name": "answer"}]}, "'answer' is taken"),
    ],
)
def test_steps_that_cannot_be_told_apart_are_refused(tmp_path, settings, said):
    with pytest.raises(ConfigError, match=said):
        fit(ScriptedModel(reasoning), context(tmp_path), strategy="zero-shot", **settings)


def test_room_is_kept_for_reasoning_when_demonstrations_are_counted(tmp_path):
    def limited(request: Request) -> str:
        if sum(len(m.content.split()) for m in request.messages) > 200:
            raise ValueError("context_length_exceeded")
        return reasoning(request)

    ctx = context(tmp_path, train=TRAIN)
    _, _, program = fit(ScriptedModel(limited), ctx, strategy="labeled", **FORMS["cot"])
    # Each may have 50 words of reasoning beside its 14 others; 20 go before them.
    assert len(program.last.demos) == 2
