"""Conversations that outgrow the context: what stays, what goes, and that it is shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tunelm
from tunelm.errors import ConfigError
from tunelm.models.prompted import PromptedModel
from tunelm.models.render import encode_prompt
from tunelm.testing import ScriptedModel
from tunelm.tutor.history import (
    POLICIES,
    Budget,
    History,
    budget_of,
    by_model,
    estimate,
    fit_history,
)
from tunelm.types import Message, Request

WORDS = st.lists(st.sampled_from(["one", "4711", "Lena", "my", "is?", "so."]), min_size=1)
TALK = st.lists(st.tuples(WORDS, WORDS), max_size=12)


def words(limit: int) -> Budget:
    return Budget(limit, lambda ms: sum(len(m.content.split()) + 1 for m in ms), "words")


def talk(pairs: int) -> list[Message]:
    messages = [
        Message("user" if i % 2 == 0 else "assistant", f"{'s' if i % 2 == 0 else 't'}{i} goes on")
        for i in range(2 * pairs)
    ]
    return [*messages, Message("user", "last words")]


def whole(messages: tuple[Message, ...]) -> str:
    return "\n".join(m.content for m in messages)


@settings(max_examples=120, deadline=None)
@given(TALK, WORDS, st.integers(45, 160), st.sampled_from(POLICIES), st.integers(0, 4))
def test_what_must_stay_stays_and_what_goes_is_counted(
    pairs: list[tuple[list[str], list[str]]],
    last: list[str],
    limit: int,
    policy: str,
    recent: int,
):
    said = [
        Message(role, " ".join(text))
        for pair in pairs
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    history = History(policy, ("The exam is on Friday.",), recent)  # type: ignore[arg-type]
    messages = [Message("system", "Teach."), *said, Message("user", " ".join(last) + " END")]
    got = fit_history(messages, words(limit), history, "PROBLEM", "[note]")
    assert got.tokens is not None
    assert got.tokens <= limit == got.limit
    sent = whole(got.messages)
    assert got.messages[0] == Message("system", "Teach.")
    assert "PROBLEM" in got.messages[1].content
    assert "The exam is on Friday." in sent
    assert got.messages[-1].content.endswith("END\n\n[note]")
    # left out + kept = all, in order, in whole pairs
    kept = len(said) - len(got.left_out)
    assert list(got.left_out) == said[: len(said) - kept]
    assert len(got.messages) == kept + 2
    assert [m.role for m in got.messages[1:]] == ["user", "assistant"] * (kept // 2) + ["user"]
    verb = "summed up" if got.summary else "left out"
    lines = re.findall(r"\[(\d+) earlier messages are (summed up|left out)\]", sent)
    assert lines == ([(str(len(got.left_out)), verb)] if got.left_out else [])
    assert (got.told() == "") == (not got.left_out and not got.cut)
    if policy == "drop" and got.left_out and not got.cut:  # one pair more would not have fitted
        more = [messages[0], *said[len(got.left_out) - 2 :], messages[-1]]
        line = 6 if len(got.left_out) > 2 else 0
        assert fit_history(more, words(limit - line), history, "PROBLEM", "[note]").left_out
    if policy == "pinned+recent":
        assert kept <= 2 * recent


def test_nothing_is_touched_where_all_fits():
    got = fit_history(talk(3), words(100))
    assert list(got.messages) == talk(3)
    assert (got.left_out, got.summary, got.cut, got.told()) == ((), "", 0, "")


def test_recent_turns_cost_the_same_however_long_the_conversation_is():
    history = History("pinned+recent", recent=2)
    sizes = {fit_history(talk(n), words(10_000), history).tokens for n in (5, 20, 40)}
    assert max(filter(None, sizes)) - min(filter(None, sizes)) <= 1
    assert len(fit_history(talk(40), None, history).left_out) == 76


def test_the_summary_by_rule_keeps_figures_and_names_word_by_word():
    messages = [
        Message("user", "My locker code is 4711. It is raining."),
        Message("assistant", "Good to know. Shall we go on?"),
        *talk(20),
    ]
    got = fit_history(messages, words(60), History("summarize"))
    assert "Student: My locker code is 4711." in got.summary
    assert "Shall we go on?" not in got.summary
    assert "4711" not in whole(fit_history(messages, words(60)).messages)


def test_a_model_sums_up_and_the_rule_stands_in_where_it_fails():
    model = ScriptedModel(lambda request: "They spoke of 4711. " * 50)
    got = fit_history(talk(20), words(60), History("summarize", summarize=by_model(model)))
    assert got.summary.startswith("They spoke of 4711.")
    assert got.tokens is not None
    assert got.tokens <= 60
    assert model.calls == 1

    def broken(request: Request) -> str:
        raise ValueError("context_length_exceeded")

    silent = History("summarize", summarize=by_model(ScriptedModel(broken)))
    got = fit_history(talk(20), words(60), silent)
    assert got.summary.startswith(("Student: ", "Teacher: "))


def test_an_endless_turn_loses_its_middle_and_says_so():
    text = "START " + "x" * 100_000 + " END"
    got = fit_history([*talk(3)[:-1], Message("user", text)], chars(500), closing="[note]")
    last = got.messages[-1].content
    assert len(got.left_out) == 6
    assert "START" in last
    assert last.endswith("END\n\n[note]")
    assert f"[... {got.cut} characters are left out ...]" in last
    assert got.cut > 99_000
    assert "characters of the last message are left out" in got.told()
    assert (got.tokens or 0) <= 500


def chars(limit: int) -> Budget:
    return Budget(limit, lambda ms: sum(len(m.content) for m in ms), "characters")


def test_fixed_parts_that_do_not_fit_are_an_error_that_says_what_to_do():
    with pytest.raises(ConfigError, match=r"leave no room.*raise the context"):
        fit_history(talk(2), words(8), opening="a long problem " * 10)
    with pytest.raises(ConfigError, match="leave no room"):
        fit_history([Message("user", "hi")], words(1))


@pytest.mark.parametrize(
    ("roles", "says"),
    [
        (["user", "user"], "message 2 of the conversation has role 'user'"),
        (["assistant"], "message 1 of the conversation has role 'assistant'"),
        (["user", "robot", "user"], "'robot', expected 'assistant'"),
        (["user", "assistant"], "must end with the user's message"),
        ([], "must end with the user's message"),
    ],
)
def test_roles_out_of_turn_are_refused(roles: list[str], says: str):
    with pytest.raises(ConfigError, match=says):
        fit_history([Message(role, "x") for role in roles])


def test_a_policy_or_number_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match=r"'forget', expected one of drop, summarize"):
        History("forget")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="recent is -1"):
        History(recent=-1)


def test_tokens_are_those_of_the_model_with_its_prompt_in_front(tiny_model: Path):
    model = tunelm.load(tiny_model)
    messages = [Message("user", "How many?")]
    bare = budget_of(model, 12)
    assert bare.limit == 500
    assert bare.exact
    assert bare.count(messages) == len(encode_prompt(model.tokenizer, messages))  # type: ignore
    prompted = PromptedModel(model, "Teach. " * 20, [Message("user", "a"), Message("user", "b")])
    assert budget_of(prompted, 12).count(messages) > bare.count(messages) + 20
    assert budget_of(model, 12, context=100).limit == 88
    assert budget_of(model, 12, context=9999).limit == 500
    with pytest.raises(ConfigError, match="leaves no room in a context of 512"):
        budget_of(model, 512)


def test_a_model_behind_an_api_is_estimated_and_says_so():
    budget = budget_of(ScriptedModel(lambda r: "x"), 92)
    assert (budget.limit, budget.exact) == (8100, False)
    assert budget.how.startswith("estimated")
    assert (
        budget.count([Message("user", "x" * 300)]) == 104 == estimate([Message("user", "x" * 300)])
    )
