"""A local model: batches, threads, streams, stops and limits give one and the same answer."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tunelm.config import ModelConfig
from tunelm.errors import ConfigError, ModelError
from tunelm.models import open_model
from tunelm.models.prompted import PromptedModel
from tunelm.models.render import encode_prompt, render_prompt
from tunelm.types import Completion, FinishReason, Message, Request


@pytest.fixture(scope="module")
def model(tiny_model: Path):
    return open_model(ModelConfig(base=str(tiny_model), max_length=200))


def ask(text: str, **more: object) -> Request:
    return Request((Message("user", text),), **{"max_tokens": 12, **more})  # type: ignore[arg-type]


QUESTIONS = [f"What is {'very ' * (i % 5)}{i}?" for i in range(9)]


def test_a_batch_answers_like_single_requests(model):
    batch = model.complete([ask(q) for q in QUESTIONS])
    singles = [model.complete([ask(q)])[0] for q in QUESTIONS]
    assert [c.text for c in batch] == [c.text for c in singles]
    assert [c.usage for c in batch] == [c.usage for c in singles]
    assert all(c.usage.completion_tokens == 12 for c in batch)


def test_concurrent_callers_get_their_own_answers(model):
    expected = {q: model.complete([ask(q)])[0].text for q in QUESTIONS}
    got: dict[str, str] = {}

    def work(question: str) -> None:
        got[question] = model.complete([ask(question)])[0].text

    threads = [threading.Thread(target=work, args=(q,)) for q in QUESTIONS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert got == expected


def test_a_stream_joins_to_the_completion_and_can_be_closed(model):
    for question in QUESTIONS[:3]:
        deltas = list(model.stream(ask(question)))
        whole = model.complete([ask(question)])[0]
        assert "".join(d.text for d in deltas) == whole.text
        assert deltas[-1].finish_reason == whole.finish_reason
        assert deltas[-1].usage == whole.usage
    stream = model.stream(ask("long", max_tokens=100))
    next(stream)
    stream.close()
    assert model.complete([ask("after")])[0].error is None


def test_a_stop_string_ends_the_answer_and_is_not_echoed(model):
    whole = model.complete([ask("stop")])[0].text
    stop = whole[4:6]
    cut = model.complete([ask("stop", stop=(stop,))])[0]
    assert cut.text == whole[: whole.find(stop)]
    assert cut.finish_reason == FinishReason.STOP
    streamed = "".join(d.text for d in model.stream(ask("stop", stop=(stop,))))
    assert streamed == cut.text


def test_sampling_follows_its_seed_whatever_the_batch(model):
    hot = {"temperature": 1.0, "seed": 7}
    alone = model.complete([ask("dice", **hot)])[0].text
    among = model.complete([ask("other"), ask("dice", **hot), ask("dice", **{**hot, "seed": 8})])
    assert among[1].text == alone
    assert among[2].text != alone


def test_a_prompt_over_the_context_is_a_failed_row_among_good_ones(model):
    long, good = model.complete([ask("word " * 400), ask("short")])
    assert long.finish_reason == FinishReason.ERROR
    assert "context_length_exceeded" in (long.error or "")
    assert good.error is None
    nearly = model.complete([ask("hi", max_tokens=10_000)])[0]
    assert (nearly.usage.prompt_tokens or 0) + (nearly.usage.completion_tokens or 0) <= 200


def test_scores_are_log_probabilities_of_the_greedy_path(model):
    answer = model.complete([ask("score", max_tokens=5)])[0].text
    prompt = (Message("user", "score"),)
    good, bad = model.score([(prompt, answer), (prompt, "zqx zqx")])
    assert all(p <= 0 for p in good.logprobs)
    mean = sum(good.logprobs) / len(good.logprobs)
    assert mean > sum(bad.logprobs) / len(bad.logprobs)
    with pytest.raises(ModelError, match="the context is"):
        model.score([(prompt, "word " * 400)])


def test_the_prompt_in_front_reaches_the_model_and_a_client_may_replace_it():
    class Echo:
        name, capabilities = "echo", frozenset({"complete"})

        def complete(self, requests):
            texts = [" | ".join(f"{m.role}: {m.content}" for m in r.messages) for r in requests]
            return [Completion(t, FinishReason.STOP) for t in texts]

    demos = [Message("user", "q"), Message("assistant", "a")]
    model = PromptedModel(Echo(), "Be brief.", demos)  # type: ignore[arg-type]
    (plain,) = model.complete([ask("x")])
    assert plain.text == "system: Be brief. | user: q | assistant: a | user: x"
    own = Request((Message("system", "Mine."), Message("user", "x")))
    assert model.complete([own])[0].text.startswith("system: Mine. | user: q")


def test_the_prompt_is_the_beginning_of_what_training_sees(model):
    messages = (Message("system", "s"), Message("user", "é 中 😀"))
    rows = [{"role": m.role, "content": m.content} for m in messages]
    rows.append({"role": "assistant", "content": "answer"})
    whole = model.tokenizer.apply_chat_template(rows, tokenize=False)
    assert whole.startswith(render_prompt(model.tokenizer, messages))
    assert model.tokenizer.decode(encode_prompt(model.tokenizer, messages)) == render_prompt(
        model.tokenizer, messages
    )


def test_what_cannot_be_loaded_says_what_can(tmp_path: Path):
    with pytest.raises(ModelError, match=r"cannot be loaded.*tunelm-nano"):
        open_model(ModelConfig(base=str(tmp_path)))
    from tunelm import load

    with pytest.raises(ConfigError, match="neither a run, nor an adapter"):
        load(tmp_path)


WITHOUT = """
import sys
from importlib.machinery import PathFinder
from tunelm.cli import main

class Rest(PathFinder):
    @classmethod
    def find_spec(cls, name, *where):
        return None if name == HIDDEN else super().find_spec(name, *where)

sys.meta_path[sys.meta_path.index(PathFinder)] = Rest
main()
"""


@pytest.mark.parametrize("hidden", ["torch", "transformers", "peft"])
def test_without_the_extra_one_line_says_how_to_get_it(hidden: str):
    code = WITHOUT.replace("HIDDEN", repr(hidden))
    command = [sys.executable, "-c", code, "generate", "tunelm-nano", "Hi"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"{hidden} is not installed" in done.stderr
    assert "pip install 'tunelm[local]'" in done.stderr
    assert "Traceback" not in done.stderr
