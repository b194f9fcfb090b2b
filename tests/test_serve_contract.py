"""The endpoints that answer, held to the OpenAI protocol, by the official SDK and by raw HTTP."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tunelm.config import ModelConfig
from tunelm.models.local import LocalModel, open_local
from tunelm.types import Message, Request

from .serving import Running, serving, slowly

SPEC = Path(__file__).parents[2] / "shared" / "spec" / "openai-fine-tuning.json"
FOX: list[Any] = [{"role": "user", "content": "the quick brown fox"}]
HELLO: list[Any] = [
    {"role": "system", "content": "Be brief."},
    {
        "role": "user",
        "content": [{"type": "text", "text": "Say "}, {"type": "text", "text": "it."}],
    },
]


@pytest.fixture(scope="module")
def server(tiny_model: Path) -> Iterator[Running]:
    with serving(tiny_model) as running:
        yield running


@pytest.fixture(scope="module")
def local(tiny_model: Path) -> LocalModel:
    """The same model without a server."""
    return open_local(ModelConfig(base=str(tiny_model)), None)


def chat(running: Running, messages: list[Any] = FOX, **options: Any) -> Any:
    return running.sdk.chat.completions.create(model="model", messages=messages, **options)


def text(running: Running, messages: list[Any] = FOX, **options: Any) -> str:
    return chat(running, messages, **options).choices[0].message.content


def events(running: Running, path: str = "/chat/completions", **body: Any) -> list[dict[str, Any]]:
    """The chunks of a stream; the protocol's framing is checked on the way."""
    with httpx.stream("POST", running.url + path, json={**body, "stream": True}) as reply:
        reply.read()
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/event-stream")
    *blocks, end = reply.content.decode().split("\n\n")
    assert end == ""
    assert blocks.pop() == "data: [DONE]"
    assert all(block.startswith("data: {") and "\n" not in block for block in blocks)
    return [json.loads(block[6:]) for block in blocks]


def joined(chunks: list[dict[str, Any]], index: int = 0) -> str:
    choices = [c for chunk in chunks for c in chunk["choices"] if c["index"] == index]
    return "".join(c["delta"].get("content") or "" for c in choices)


def test_models_are_listed_with_their_shutdown_date(server: Running):
    (model,) = server.sdk.models.list()
    assert (model.id, model.object, model.owned_by) == ("model", "model", "tunelm")
    raw = httpx.get(f"{server.url}/models/model").json()
    assert raw == httpx.get(f"{server.url}/models").json()["data"][0]
    assert raw["shutdown_date"] is None
    with pytest.raises(openai.NotFoundError, match="Served here: model"):
        server.sdk.models.retrieve("tiny/other")


def test_an_answer_is_the_local_models_with_its_usage(server: Running, local: LocalModel):
    answer = chat(server, HELLO, temperature=0, max_completion_tokens=12)
    messages = (Message("system", "Be brief."), Message("user", "Say it."))
    (expected,) = local.complete([Request(messages, max_tokens=12)])
    assert answer.choices[0].message.content == expected.text
    assert answer.choices[0].finish_reason == expected.finish_reason
    assert answer.usage.prompt_tokens == expected.usage.prompt_tokens
    assert answer.usage.completion_tokens == expected.usage.completion_tokens
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens_details.cached_tokens == 0
    assert answer.system_fingerprint


def test_a_developers_message_is_a_system_message(server: Running):
    asked = [{"role": r, "content": "Be brief."} for r in ("system", "developer")]
    both = [text(server, [head, *FOX], seed=1, max_tokens=8) for head in asked]
    assert both[0] == both[1] != text(server, seed=1, max_tokens=8)


def test_a_stream_comes_in_the_protocols_order(server: Running):
    options = {"model": "model", "messages": FOX, "temperature": 0, "max_tokens": 9}
    chunks = events(server, **options, stream_options={"include_usage": True})
    *body, count = chunks
    assert len({(c["id"], c["created"], c["model"], c["object"]) for c in chunks}) == 1
    assert chunks[0]["object"] == "chat.completion.chunk"
    first, *_, last = (chunk["choices"][0] for chunk in body)
    assert first["delta"]["role"] == "assistant"
    assert all("role" not in chunk["choices"][0]["delta"] for chunk in body[1:])
    assert (last["delta"], last["finish_reason"]) == ({}, "length")
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in body[:-1])
    assert [chunk["usage"] for chunk in body] == [None] * len(body)
    assert (count["choices"], count["usage"]["completion_tokens"]) == ([], 9)
    assert joined(body) == text(server, temperature=0, max_tokens=9)
    assert all("usage" not in chunk for chunk in events(server, **options))


def test_the_sdk_reads_a_stream_in_strict_mode(server: Running):
    with chat(server, stream=True, max_tokens=20, seed=3) as stream:
        deltas = [chunk.choices[0].delta.content or "" for chunk in stream]
    assert "".join(deltas) == text(server, max_tokens=20, seed=3)


@pytest.mark.parametrize("seed", range(4))
def test_streams_rejoin_across_characters_of_several_bytes(server: Running, seed: int):
    """Bytes of "é" and of an emoji come in any order: whole, broken and unfinished characters."""
    bias = {str(_byte(server, b)): 100 for b in "é🎉".encode()} | {"2": -100}
    options = {"logit_bias": bias, "seed": seed, "max_tokens": 60}
    whole = chat(server, logprobs=True, **options).choices[0]
    chunks = events(server, model="model", messages=FOX, logprobs=True, **options)
    assert joined(chunks) == whole.message.content
    assert "\ufffd" in whole.message.content
    assert "é" in whole.message.content
    own = bytes(b for token in whole.logprobs.content for b in token.bytes)
    assert own.decode("utf-8", "replace") == whole.message.content
    found = [c["choices"][0].get("logprobs") for c in chunks]
    streamed = [t["bytes"] for logprobs in found if logprobs for t in logprobs["content"]]
    assert streamed == [token.bytes for token in whole.logprobs.content]


def _byte(server: Running, value: int) -> int:
    """The token that is this one byte."""
    vocabulary = server.app.state.engine.vocabulary
    return next(t for t in range(320) if vocabulary.bytes_of(t) == bytes([value]))


def test_a_stop_string_ends_the_answer_and_is_not_in_it(server: Running):
    whole = text(server, seed=5, max_tokens=40)
    for begin, size in ((0, 1), (3, 5), (7, 2), (11, 9)):
        stop = whole[begin : begin + size]
        expected = whole[: whole.index(stop)]
        answer = chat(server, seed=5, max_tokens=40, stop=["never there", stop]).choices[0]
        assert (answer.message.content, answer.finish_reason) == (expected, "stop")
        chunks = events(server, model="model", messages=FOX, seed=5, max_tokens=40, stop=stop)
        assert joined(chunks) == expected
        assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_text_that_only_began_as_a_stop_string_is_not_lost(server: Running):
    whole = text(server, seed=5, max_tokens=40)
    stop = [whole[4:9] + "\0", whole[-3:] + "\0", whole + "\0"]
    chunks = events(server, model="model", messages=FOX, seed=5, max_tokens=40, stop=stop)
    assert joined(chunks) == whole
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"


def test_an_end_token_is_a_stop_and_no_text(server: Running):
    answer = chat(server, logit_bias={"2": 100}, max_tokens=5)
    assert answer.choices[0].message.content == ""
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == 0


def test_a_seed_gives_the_same_text_whatever_else_runs(server: Running):
    alone = text(server, seed=11, top_p=0.9, max_tokens=30)
    found: list[str] = []

    def ask(number: int) -> None:
        if number % 3 == 0:
            found.append(text(server, seed=11, top_p=0.9, max_tokens=30))
        else:
            words = [{"role": "user", "content": "fox " * number}]
            text(server, words, seed=number, max_tokens=2 * number, temperature=1.5)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(15)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [alone] * 5
    assert text(server, seed=12, top_p=0.9, max_tokens=30) != alone


def test_several_answers_differ_and_come_in_order(server: Running):
    answer = chat(server, n=3, seed=1, max_tokens=10)
    texts = [choice.message.content for choice in answer.choices]
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len(set(texts)) == 3
    assert texts[0] == text(server, seed=1, max_tokens=10)
    assert answer.usage.completion_tokens == 30
    assert answer.usage.prompt_tokens == chat(server, max_tokens=1).usage.prompt_tokens
    chunks = events(server, model="model", messages=FOX, n=3, seed=1, max_tokens=10)
    assert [joined(chunks, i) for i in range(3)] == texts
    roles = [c["choices"][0]["index"] for c in chunks if "role" in c["choices"][0]["delta"]]
    assert roles == [0, 1, 2]
    ends = [c["choices"][0]["index"] for c in chunks if c["choices"][0]["finish_reason"]]
    assert sorted(ends) == [0, 1, 2]


def test_logprobs_are_the_models(server: Running, local: LocalModel):
    options = {"max_tokens": 8, "logprobs": True, "top_logprobs": 3, "logit_bias": {"2": -100}}
    choice = chat(server, temperature=0, **options).choices[0]
    tokens = choice.logprobs.content
    assert [len(token.top_logprobs) for token in tokens] == [3] * 8
    for token in tokens:  # greedy: the likeliest, unless it was forbidden
        assert token.logprob in (token.top_logprobs[0].logprob, token.top_logprobs[1].logprob)
    messages = (Message("user", FOX[0]["content"]),)
    answer = local.tokenizer.decode([_token(local, token) for token in tokens])
    (scored,) = local.score([(messages, answer)])
    if len(scored.logprobs) == 8:  # the text is made of the same tokens again
        assert [t.logprob for t in tokens] == pytest.approx(scored.logprobs, abs=1e-4)
    assert (
        chat(server, max_tokens=3, logprobs=True).choices[0].logprobs.content[0].top_logprobs == []
    )


def _token(local: LocalModel, token: Any) -> int:
    (found,) = local.tokenizer.encode(token.token, add_special_tokens=False)
    return found


def test_penalties_and_biases_change_what_is_said(server: Running):
    options = {"temperature": 0, "max_tokens": 12, "logprobs": True}
    again = chat(server, **options, frequency_penalty=2, presence_penalty=2)
    said = [tuple(token.bytes) for token in again.choices[0].logprobs.content]
    assert len(set(said)) > len(
        {
            tuple(t.bytes)
            for t in chat(server, **options, presence_penalty=-2).choices[0].logprobs.content
        }
    )
    fixed = text(server, temperature=1, max_tokens=4, logit_bias={str(_byte(server, 65)): 100})
    assert fixed == "AAAA"


REFUSED: list[tuple[dict[str, Any], str | None, str]] = [
    ({"messages": []}, "messages", "invalid_value"),
    ({"messages": "hi"}, "messages", "invalid_value"),
    ({"messages": [{"role": "user"}]}, "messages.0.content", "missing_required_parameter"),
    ({"messages": [{"role": "user", "content": None}]}, "messages.0.content", "invalid_value"),
    ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages.0.content", "invalid_value"),
    ({"messages": [{"role": "king", "content": "x"}]}, "messages.0.role", "invalid_value"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages", "unsupported_parameter"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "messages",
        "unsupported_parameter",
    ),
    ({"messages": [{**FOX[0], "weight": 1}]}, "messages.0.weight", "unknown_parameter"),
    ({"messages": [{**FOX[0], "name": "Ann"}]}, "messages", "unsupported_parameter"),
    ({"foo": 1}, "foo", "unknown_parameter"),
    ({"max_tokens": -1}, "max_tokens", "invalid_value"),
    ({"max_tokens": 0}, "max_tokens", "invalid_value"),
    ({"max_tokens": "7"}, "max_tokens", "invalid_value"),
    ({"max_tokens": 7, "max_completion_tokens": 8}, "max_tokens", "invalid_value"),
    ({"max_tokens": 512}, "messages", "context_length_exceeded"),
    (
        {"messages": [{"role": "user", "content": "zq " * 600}]},
        "messages",
        "context_length_exceeded",
    ),
    (
        {"messages": [{"role": "user", "content": "zq" * 10**6}]},
        "messages",
        "context_length_exceeded",
    ),
    ({"temperature": 5}, "temperature", "invalid_value"),
    ({"temperature": -0.1}, "temperature", "invalid_value"),
    ({"temperature": "hot"}, "temperature", "invalid_value"),
    ({"top_p": 0}, "top_p", "invalid_value"),
    ({"top_p": 1.1}, "top_p", "invalid_value"),
    ({"n": 0}, "n", "invalid_value"),
    ({"seed": 1.5}, "seed", "invalid_value"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "invalid_value"),
    ({"stop": ""}, "stop", "invalid_value"),
    ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "invalid_value"),
    ({"frequency_penalty": 3}, "frequency_penalty", "invalid_value"),
    ({"logit_bias": {"99999": 1}}, "logit_bias", "invalid_value"),
    ({"logit_bias": {"x": 1}}, "logit_bias", "invalid_value"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
    ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}},
        "response_format",
        "unsupported_parameter",
    ),
    (
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        "tools",
        "unsupported_parameter",
    ),
    ({"tool_choice": "required"}, "tool_choice", "unsupported_parameter"),
    ({"functions": [{"name": "f"}]}, "functions", "unsupported_parameter"),
    ({"modalities": ["text", "audio"]}, "modalities", "unsupported_parameter"),
    ({"audio": {"voice": "alloy", "format": "wav"}}, "audio", "unsupported_parameter"),
    ({"prediction": {"type": "content", "content": "x"}}, "prediction", "unsupported_parameter"),
    ({"web_search_options": {}}, "web_search_options", "unsupported_parameter"),
    ({"reasoning_effort": "high"}, "reasoning_effort", "unsupported_parameter"),
    ({"store": True}, "store", "unsupported_parameter"),
    ({"service_tier": "priority"}, "service_tier", "unsupported_parameter"),
    ({"model": None}, "model", "missing_required_parameter"),
]


@pytest.mark.parametrize(("change", "param", "code"), REFUSED, ids=lambda v: str(v)[:40])
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_done_is_refused_by_name(
    server: Running, change: dict[str, Any], param: str, code: str, stream: bool
):
    body = {"model": "model", "messages": FOX, "max_tokens": 2, "stream": stream, **change}
    if "max_completion_tokens" not in change and stream:
        body |= {"max_tokens": change.get("max_tokens", 2)}
    if "stream_options" in change:
        body["stream"] = False
    reply = server.post(**body)
    error = reply.json()["error"]
    assert reply.status_code == 400
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["param"], error["code"]) == (param, code)
    assert error["type"] == "invalid_request_error"
    assert error["message"].endswith(".")
    assert "\n" not in error["message"]


def test_what_asks_for_nothing_is_accepted(server: Running):
    earlier = {"role": "assistant", "content": "Hm.", "refusal": None, "tool_calls": None}
    reply = server.post(
        model="model",
        messages=[*FOX, {**earlier, "annotations": []}, *FOX],
        max_tokens=2,
        max_completion_tokens=2,
        user="someone",
        metadata={"run": "1"},
        store=False,
        service_tier="auto",
        safety_identifier="x",
        prompt_cache_key="y",
        response_format={"type": "text"},
        modalities=["text"],
        tools=[],
        tool_choice="none",
        parallel_tool_calls=True,
        reasoning_effort=None,
        logit_bias=None,
        stop=None,
        seed=None,
        temperature=None,
        stream=None,
        stream_options=None,
        n=1,
    )
    assert reply.status_code == 200


def test_other_mistakes_get_the_same_envelope(server: Running):
    url = f"{server.url}/chat/completions"
    as_json = {"Content-Type": "application/json"}
    replies = [
        (httpx.post(url, content=b"{", headers=as_json), 400),
        (httpx.post(url, content=b"\xff{}", headers=as_json), 400),
        (httpx.post(url, content=b"[" * 100_000, headers=as_json), 400),
        (httpx.post(url, json=[1]), 400),
        (
            httpx.post(url, content=b'{"model": "model"}', headers={"Content-Type": "text/plain"}),
            400,
        ),
        (httpx.get(url), 405),
        (httpx.get(f"{server.url}/nothing"), 404),
        (server.post(model="other", messages=FOX), 404),
        (server.post("/completions", model="other", prompt="x"), 404),
    ]
    for reply, status in replies:
        assert reply.status_code == status, reply.text
        assert set(reply.json()["error"]) == {"message", "type", "param", "code"}


def test_without_a_limit_an_answer_has_the_room_that_is_left(server: Running):
    answer = chat(server, logit_bias={"2": -100}, seed=0)
    assert answer.usage.total_tokens == 512
    assert answer.choices[0].finish_reason == "length"


def test_a_completion_goes_on_from_the_text(server: Running, local: LocalModel):
    create = server.sdk.completions.create
    answer = create(model="model", prompt="the quick", max_tokens=6, temperature=0)
    (expected,) = local.complete([Request((Message("text", "the quick"),), max_tokens=6)])
    assert answer.choices[0].text == expected.text
    assert answer.usage.prompt_tokens == expected.usage.prompt_tokens
    assert create(model="model", prompt="x", seed=1).usage.completion_tokens <= 16
    ids = local.tokenizer.encode("the quick", add_special_tokens=False)
    several = create(model="model", prompt=[ids, ids[:1]], max_tokens=3, n=2, seed=4)
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
    assert several.usage.prompt_tokens == len(ids) + 1
    chunks = events(server, "/completions", model="model", prompt="the quick", max_tokens=6, seed=2)
    whole = create(model="model", prompt="the quick", max_tokens=6, seed=2).choices[0]
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == whole.text
    assert chunks[-1]["choices"][0]["finish_reason"] == whole.finish_reason
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}


def test_an_echo_scores_the_prompt(server: Running, local: LocalModel):
    prompt = "the quick brown fox é"
    answer = server.sdk.completions.create(
        model="model", prompt=prompt, max_tokens=2, echo=True, logprobs=2, temperature=0
    ).choices[0]
    assert answer.text.startswith(prompt)
    (scored,) = local.score([((Message("text", ""),), prompt)])
    size = len(scored.logprobs)
    assert answer.logprobs.token_logprobs[:size] == pytest.approx(scored.logprobs, abs=1e-4)
    assert answer.logprobs.text_offset[0] == 0
    assert answer.logprobs.text_offset[size] == len(prompt)
    assert all(len(top) == 2 for top in answer.logprobs.top_logprobs)
    only = server.post(
        "/completions", model="model", prompt=[5, 6, 7], max_tokens=0, echo=True, logprobs=0
    ).json()["choices"][0]
    assert only["logprobs"]["token_logprobs"][0] is None
    assert len(only["logprobs"]["tokens"]) == 3
    assert only["finish_reason"] == "length"
    chunks = events(
        server,
        "/completions",
        model="model",
        prompt=prompt,
        max_tokens=2,
        echo=True,
        logprobs=2,
        temperature=0,
    )
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == answer.text


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"suffix": "end"}, "suffix"),
        ({"best_of": 2}, "best_of"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["x", 1]}, "prompt"),
        ({"prompt": [99999]}, "prompt"),
        ({"prompt": "zq " * 600}, "prompt"),
        ({"prompt": ["x"] * 1025}, "prompt"),
        ({"logprobs": True}, "logprobs"),
        ({"messages": FOX}, "messages"),
    ],
    ids=lambda v: str(v)[:30],
)
def test_completions_refuse_by_name_too(server: Running, change: dict[str, Any], param: str):
    reply = server.post("/completions", **{"model": "model", "prompt": "x", **change})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


def test_a_client_that_leaves_ends_the_work(server: Running, monkeypatch: pytest.MonkeyPatch):
    before = server.idle()
    slowly(server.app, monkeypatch)
    body = {"model": "model", "messages": FOX, "n": 16}
    url = f"{server.url}/chat/completions"
    with httpx.stream("POST", url, json={**body, "stream": True}) as stream:
        pieces = stream.iter_bytes()
        next(pieces)
        assert server.health()["running"] == 16
    assert server.idle()["answered"] == before["answered"]
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(url, json=body, timeout=httpx.Timeout(10, read=1))
    assert server.idle()["answered"] == before["answered"]
    assert text(server, max_tokens=1, seed=0)


def test_a_full_queue_says_when_to_come_again(tiny_model: Path, monkeypatch: pytest.MonkeyPatch):
    found: list[httpx.Response] = []
    with serving(tiny_model, max_batch=1, max_waiting=2) as server:
        slowly(server.app, monkeypatch)

        def ask() -> None:
            found.append(server.post(model="model", messages=FOX, max_tokens=10))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    refused = [reply for reply in found if reply.status_code == 503]
    assert len(refused) + sum(reply.status_code == 200 for reply in found) == 8
    assert refused
    for reply in refused:
        assert 1 <= int(reply.headers["retry-after"]) <= 60
        assert reply.json()["error"]["code"] == "overloaded"


def test_a_failure_in_mid_stream_is_an_event(tiny_model: Path, monkeypatch: pytest.MonkeyPatch):
    with serving(tiny_model) as server:
        slowly(server.app, monkeypatch)
        body = {"model": "model", "messages": FOX, "stream": True}
        with httpx.stream("POST", f"{server.url}/chat/completions", json=body) as stream:
            lines = stream.iter_lines()
            next(lines)
            server.app.state.engine.stop()
            *_, last = [line for line in lines if line]
        assert json.loads(last.removeprefix("data: "))["error"]["message"].endswith("stopping.")
        assert httpx.get(server.url.removesuffix("/v1") + "/ready").status_code == 503
        assert server.post(model="model", messages=FOX).status_code == 503


KEY = "sk-test-0123456789"


def test_a_key_is_asked_for_and_never_shown(tiny_model: Path, capfd: pytest.CaptureFixture[str]):
    with serving(tiny_model, KEY, api_keys=("other", KEY)) as server:
        assert [model.id for model in server.sdk.models.list()] == ["model"]
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": KEY}):
            reply = httpx.get(f"{server.url}/models", headers=headers)
            assert reply.status_code == 401
            assert reply.json()["error"]["code"] == "invalid_api_key"
            assert "wrong" not in reply.text
            assert KEY not in reply.text
        assert server.health()["status"] == "ok"
        named = {"Host": "models.example.org", "Authorization": f"Bearer {KEY}"}
        assert httpx.get(f"{server.url}/models", headers=named).status_code == 200
        assert KEY not in repr(server.app.state.__dict__)
    assert KEY not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example:80"}, 403),
        ({"Host": "localhost:1234"}, 200),
        ({"Host": "[::1]:1234"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:3000"}, 200),
    ],
    ids=str,
)
def test_web_pages_from_elsewhere_are_refused(
    server: Running, headers: dict[str, str], status: int
):
    reply = httpx.get(f"{server.url}/models", headers=headers)
    assert reply.status_code == status
    assert not any(name.startswith("access-control") for name in reply.headers)


def test_a_body_has_a_limit_however_it_comes(tiny_model: Path):
    with serving(tiny_model, max_body=10_000) as server:
        url = f"{server.url}/chat/completions"
        body = json.dumps({"model": "model", "messages": FOX, "user": "x" * 20_000}).encode()
        headers = {"Content-Type": "application/json"}
        assert httpx.post(url, content=body, headers=headers).status_code == 413
        parts = (body[i : i + 1000] for i in range(0, len(body), 1000))
        reply = httpx.post(url, content=parts, headers=headers)
        assert (reply.status_code, reply.json()["error"]["type"]) == (413, "invalid_request_error")
        assert server.post(model="model", messages=FOX, max_tokens=1).status_code == 200


@pytest.mark.skipif(not SPEC.is_file(), reason="the published description is not here")
def test_answers_are_as_the_published_description_has_them(server: Running):
    jsonschema = pytest.importorskip("jsonschema")
    described = _nullable(json.loads(SPEC.read_text(encoding="utf-8")))

    def check(name: str, data: object) -> None:
        schema = {"$ref": f"#/components/schemas/{name}", "components": described["components"]}
        jsonschema.Draft202012Validator(schema).validate(data)

    check("ListModelsResponse", httpx.get(f"{server.url}/models").json())
    check("Model", httpx.get(f"{server.url}/models/model").json())
    body = {"model": "model", "messages": FOX, "n": 2, "max_tokens": 4, "seed": 1}
    for extra in ({}, {"logprobs": True, "top_logprobs": 2}):
        check("CreateChatCompletionResponse", server.post(**body, **extra).json())
        chunks = events(server, **body, **extra, stream_options={"include_usage": True})
        for chunk in chunks:
            check("CreateChatCompletionStreamResponse", chunk)


def _nullable(node: Any) -> Any:
    """The description with its `nullable: true` written as JSON Schema has it."""
    if isinstance(node, list):
        return [_nullable(part) for part in node]
    if not isinstance(node, dict):
        return node
    found = {key: _nullable(value) for key, value in copy.copy(node).items()}
    if found.pop("nullable", None) is True:
        return {"anyOf": [found, {"type": "null"}]}
    return found
