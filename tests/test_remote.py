"""A model behind an API: real HTTP on loopback, failures on demand, money, and no key anywhere."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

import tunelm
from tunelm.cli import cli
from tunelm.config import BudgetConfig, ModelConfig, TaskConfig
from tunelm.errors import BudgetError, ConfigError, ModelError, RunDirError
from tunelm.models import open_model, remote_name
from tunelm.models.address import key_variable, parse_address, read_key
from tunelm.models.base import ChatModel
from tunelm.models.budget import Prices, Wallet, spent_before
from tunelm.models.endpoint import CALLS_AT_ONCE, Endpoint
from tunelm.models.remote import TRIES, RemoteModel, open_remote
from tunelm.route_settings import BaselineSettings
from tunelm.routes.base import FitContext
from tunelm.routes.baseline import BaselineRoute
from tunelm.testing import ChatServer, Failure, ScriptedModel
from tunelm.types import Example, FinishReason, Message, Request, Usage

from .conftest import make_task

KEY = "sk-planted-4711-do-not-show"
QUESTIONS = [f"Which box is number {i}?" for i in range(20)]


def echo(request: Request) -> str:
    return f"You asked: {request.messages[-1].content}"


def ask(text: str, **more: object) -> Request:
    return Request((Message("user", text),), **{"max_tokens": 12, **more})  # type: ignore[arg-type]


def client(server: ChatServer, variable: str | None = None, **more: object) -> RemoteModel:
    """A model that waits hardly at all between tries."""
    timeout_s = float(more.pop("timeout_s", 20.0))  # type: ignore[arg-type]
    endpoint = Endpoint(parse_address(server.url), variable, timeout_s)
    settings = {"backoff_s": 0.001, **more}
    return RemoteModel(endpoint, server.model.name, **settings)  # type: ignore[arg-type]


def always(failure: Failure):
    return lambda body, seen: failure


def at_first(failure: Failure):
    return lambda body, seen: failure if seen == 0 else None


def texts(server: ChatServer) -> list[str]:
    return [body["messages"][-1]["content"] for body in server.bodies]


def test_answers_come_in_order_with_their_usage_a_few_at_once():
    with ChatServer(ScriptedModel(echo), fail=always(Failure(delay_s=0.02))) as server:
        model = client(server)
        assert isinstance(model, ChatModel)
        answers = model.complete([ask(q) for q in QUESTIONS])
        most = server.most_at_once
    assert [a.text for a in answers] == [f"You asked: {q}" for q in QUESTIONS]
    assert answers[0].usage == Usage(5, 7, 0)
    assert all(a.finish_reason is FinishReason.STOP and a.latency_s for a in answers)
    assert sorted(texts(server)) == sorted(QUESTIONS)
    assert 1 < most <= CALLS_AT_ONCE


def test_concurrent_callers_share_the_bound():
    with ChatServer(ScriptedModel(echo), fail=always(Failure(delay_s=0.02))) as server:
        model = client(server)
        threads = [
            threading.Thread(target=model.complete, args=([ask(q) for q in QUESTIONS[:8]],))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert len(server.bodies) == 24
    assert server.most_at_once <= CALLS_AT_ONCE


@pytest.mark.parametrize(
    "failure",
    [
        Failure(429, {"code": "rate_limit_exceeded"}, {"Retry-After": "0"}),
        Failure(408),
        Failure(500),
        Failure(503, body=b"<html>busy</html>"),
        Failure(drop=True),
        Failure(cut=True),
        Failure(body=b'{"choices": ['),
        Failure(body=b'{"choices": []}'),
        Failure(body=b"[" * 100_000),
    ],
    ids=["429", "408", "500", "html", "drop", "cut", "not json", "no choice", "nested"],
)
def test_what_passes_is_tried_again_and_counted_once(failure: Failure):
    with ChatServer(ScriptedModel(echo), fail=at_first(failure)) as server:
        model = client(server)
        answers = model.complete([ask(q) for q in QUESTIONS])
    assert [a.text for a in answers] == [f"You asked: {q}" for q in QUESTIONS]
    assert all(a.usage == Usage(5, 7, 0) for a in answers)
    assert len(server.bodies) == 2 * len(QUESTIONS)
    lost = failure.drop or failure.cut or (failure.body and failure.status == 200)
    assert bool(lost) == ("20 requests were sent and not answered" in " ".join(model.notes))


def test_a_row_that_still_fails_is_a_row_with_its_error():
    def fail(body, seen):
        return Failure(500) if "number 3?" in str(body) else None

    with ChatServer(ScriptedModel(echo), fail=fail) as server:
        answers = client(server).complete([ask(q) for q in QUESTIONS])
    assert [i for i, a in enumerate(answers) if a.error] == [3]
    assert answers[3].finish_reason is FinishReason.ERROR
    assert answers[3].usage == Usage(0, 0, 0)
    assert "HTTP 500" in str(answers[3].error)
    assert f"({TRIES} tries)" in str(answers[3].error)
    assert texts(server).count(QUESTIONS[3]) == TRIES


def test_a_slow_answer_and_a_lost_one_have_unknown_usage():
    def fail(body, seen):
        return Failure(delay_s=3) if "number 3?" in str(body) else None

    with ChatServer(ScriptedModel(echo), fail=fail) as server:
        answers = client(server, timeout_s=1.0).complete([ask(q) for q in QUESTIONS[:6]])
    assert [i for i, a in enumerate(answers) if a.error] == [3]
    assert answers[3].usage == Usage()


def test_a_refused_row_is_not_tried_again():
    def answer(request: Request) -> str:
        if "number 3?" in request.messages[-1].content:
            raise ValueError("context_length_exceeded: 9000 tokens")
        return echo(request)

    with ChatServer(ScriptedModel(answer)) as server:
        answers = client(server).complete([ask(q) for q in QUESTIONS])
    assert "context_length_exceeded" in str(answers[3].error)
    assert texts(server).count(QUESTIONS[3]) == 1


def test_retry_after_is_honoured_up_to_a_cap(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tunelm.models.remote.MOST_WAIT_S", 0.3)
    busy = Failure(429, headers={"Retry-After": "3600"})
    with ChatServer(ScriptedModel(echo), fail=at_first(busy)) as server:
        (answer,) = client(server).complete([ask("Now?")])
    assert answer.text == "You asked: Now?"


@pytest.mark.parametrize("stream", [False, True])
def test_an_endpoint_gets_the_fields_it_wants(stream: bool):
    def fail(body, seen):
        if "max_tokens" in body:
            message = (
                "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
                "'max_completion_tokens' instead."
            )
            return Failure(400, {"message": message, "param": "max_tokens"})
        if "temperature" in body:
            message = "Unsupported value: 'temperature' does not support 0 with this model."
            return Failure(400, {"message": message, "param": "temperature"})
        return None

    with ChatServer(ScriptedModel(echo), fail=fail) as server:
        model = client(server)
        if stream:
            assert "".join(d.text for d in model.stream(ask("Now?"))) == "You asked: Now?"
        answers = model.complete([ask(q) for q in QUESTIONS])
    assert not any(a.error for a in answers)
    assert len(server.bodies) == len(QUESTIONS) + 2 + stream
    assert server.bodies[-1]["max_completion_tokens"] == 12
    assert "that its answers are greedy is not assured" in " ".join(model.notes)


def test_what_is_sent_is_the_request():
    with ChatServer(ScriptedModel(echo)) as server:
        model = client(server)
        head = (Message("system", "Be brief \ud83d."), Message("user", "Grüße\u2028?"))
        model.complete([Request(head, 7, 0.5, ("\n", "###"), 3)])
        model.complete([Request((Message("text", "Once upon"),), 5)])
    chat, text = server.bodies
    assert chat == {
        "model": "scripted",
        "messages": [{"role": m.role, "content": m.content} for m in head],
        "max_tokens": 7,
        "temperature": 0.5,
        "stop": ["\n", "###"],
        "seed": 3,
    }
    assert text == {"model": "scripted", "prompt": "Once upon", "max_tokens": 5, "temperature": 0.0}


def test_tokens_that_nobody_reports_are_unknown_and_never_zero():
    with ChatServer(ScriptedModel(echo), fail=always(Failure(usage=False))) as server:
        model = client(server)
        (answer,) = model.complete([ask("Now?")])
        *_, last = model.stream(ask("Now?"))
    assert answer.usage == Usage()
    assert last.usage == Usage()
    assert "answers came without a count of tokens" in " ".join(model.notes)


@pytest.mark.parametrize(
    ("choice", "text", "error"),
    [
        ({"message": {"content": None}, "finish_reason": "length"}, "", None),
        ({"message": {"content": "a\ud800b"}, "finish_reason": "stop"}, "a\ufffdb", None),
        ({"message": {"content": [{"type": "text", "text": "ab"}]}}, "ab", None),
        ({"message": {"content": ""}, "finish_reason": "content_filter"}, "", "content_filter"),
    ],
)
def test_odd_answers_are_read_as_far_as_they_go(choice, text, error):
    usage = {"prompt_tokens": 4, "completion_tokens": -1, "prompt_tokens_details": "none"}
    data = {"choices": [choice], "usage": usage, "model": "another-0815"}
    failure = Failure(body=json.dumps(data).encode())
    with ChatServer(ScriptedModel(echo), fail=always(failure)) as server:
        model = client(server)
        (answer,) = model.complete([ask("Now?")])
    assert answer.text == text
    assert (answer.error or "").partition(":")[0] == (error or "")
    assert answer.usage == Usage(4, None, None)
    assert "the endpoint says that another-0815 answered" in " ".join(model.notes)
    answer.text.encode()  # what a file can hold


def test_a_stream_joins_to_the_completion_and_can_be_closed():
    with ChatServer(ScriptedModel(lambda r: "one two\u2028three \x85four")) as server:
        model = client(server)
        whole = model.complete([ask("Now?")])[0]
        deltas = list(model.stream(ask("Now?")))
        assert "".join(d.text for d in deltas) == whole.text
        assert deltas[-1].finish_reason is FinishReason.STOP
        assert deltas[-1].usage == whole.usage
        opened = model.stream(ask("Now?"))
        assert next(opened).text == "one "
        opened.close()  # type: ignore[attr-defined]
        assert model.complete([ask("Now?")])[0].text == whole.text


def test_a_stream_that_breaks_off_is_an_error_and_one_that_never_began_is_tried_again():
    with ChatServer(ScriptedModel(echo), fail=always(Failure(cut=True))) as server:
        with pytest.raises(ModelError, match="broke off"):
            list(client(server).stream(ask("Now?")))
        assert len(server.bodies) == 1
    with ChatServer(ScriptedModel(echo), fail=at_first(Failure(503))) as server:
        assert "".join(d.text for d in client(server).stream(ask("Now?"))) == "You asked: Now?"
        assert len(server.bodies) == 2


def test_probabilities_are_not_pretended():
    with ChatServer(ScriptedModel(echo)) as server:
        model = client(server)
        assert "score" not in model.capabilities
        with pytest.raises(ModelError, match="no probabilities of a given text"):
            model.score([((Message("user", "Now?"),), "Yes")])


def test_a_wrong_key_ends_the_model_at_its_first_call_and_is_not_shown(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("THE_KEY", f" {KEY}\n")
    with ChatServer(ScriptedModel(echo), key="another") as server:
        model = client(server, "THE_KEY")
        with pytest.raises(ModelError) as refused:
            model.complete([ask(q) for q in QUESTIONS])
        assert server.bodies == []
    assert "THE_KEY, which is set, but this key is not accepted" in str(refused.value)
    assert "HTTP 401" in str(refused.value)
    assert KEY not in str(refused.value)
    assert "[key]" in str(refused.value)  # the server repeated it
    assert KEY not in repr(model) + repr(model.endpoint)


def test_a_missing_key_names_its_variable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("THE_KEY", raising=False)
    with ChatServer(ScriptedModel(echo), key=KEY) as server:
        with pytest.raises(ModelError, match="THE_KEY, which is not set"):
            client(server, "THE_KEY").complete([ask("Now?")])
        with pytest.raises(ModelError, match="its name into api_key_env"):
            client(server).complete([ask("Now?")])


def test_a_wrong_name_says_which_models_there_are():
    with ChatServer(ScriptedModel(echo, name="llama3.2:1b")) as server:
        model = open_remote("llama3.2", server.url)
        with pytest.raises(ModelError, match=r"404 .* It has llama3.2:1b\."):
            model.complete([ask("Now?")])
        with pytest.raises(ModelError, match=r"most end in /v1"):
            open_remote("llama3.2:1b", server.url.removesuffix("/v1")).complete([ask("Now?")])


def test_an_account_without_money_is_not_waited_for():
    broke = Failure(429, {"code": "insufficient_quota", "message": "You exceeded your quota"})
    with ChatServer(ScriptedModel(echo), fail=always(broke)) as server:
        with pytest.raises(ModelError, match="nothing left to spend"):
            client(server).complete([ask(q) for q in QUESTIONS])
        assert len(server.bodies) == 1


def test_nobody_there_is_said_in_one_line():
    with ChatServer(ScriptedModel(echo)) as server:
        pass
    with pytest.raises(ModelError, match="Start the server there") as refused:
        client(server).complete([ask(q) for q in QUESTIONS])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("127.0.0.1:8000/v1", "is no address"),
        ("ftp://localhost/v1", "is no address"),
        ("http://", "is no address"),
        ("http://local host/v1", "is no address"),
        ("http://[::1/v1", "is no address"),
        ("http://localhost:99999/v1", "is no address"),
        ("http://localhost/v1/chat/completions", "goes too far"),
        (f"https://me:{KEY}@host/v1", "holds a user name"),
        (f"https://host/v1?key={KEY}", "holds a user name"),
    ],
)
def test_an_address_that_cannot_be_right_is_refused(url: str, found: str):
    with pytest.raises(ConfigError, match=found) as refused:
        open_remote("m", url)
    assert KEY not in str(refused.value)


def test_what_is_on_this_machine_is_told_from_what_is_not():
    own = ["http://127.0.0.1:1/v1", "http://127.8.8.8", "http://[::1]:1/v1", "http://LOCALHOST/v1"]
    other = ["http://127.0.0.1.evil.org/v1", "http://10.0.0.1/v1", "http://0.0.0.0/v1", None]
    assert [parse_address(url).own for url in own] == [True] * len(own)
    assert [parse_address(url).own for url in other] == [False] * len(other)


def test_a_key_goes_only_where_its_owner_said(monkeypatch: pytest.MonkeyPatch):
    assert key_variable(None, parse_address(None)) == "OPENAI_API_KEY"
    assert key_variable(None, parse_address("https://api.openai.com.evil.org/v1")) is None
    with pytest.raises(ConfigError) as refused:
        key_variable(KEY, parse_address(None))
    assert KEY not in str(refused.value)
    for broken in (f"{KEY} {KEY}", f"{KEY}\u2026"):
        monkeypatch.setenv("THE_KEY", broken)
        with pytest.raises(ConfigError, match="THE_KEY") as refused:
            read_key("THE_KEY")
        assert KEY not in str(refused.value)


# ---- money


def pay(max_usd: float, ledger: Path | None = None) -> Wallet:
    return Wallet(BudgetConfig(max_usd=max_usd, spend=True), ledger)


@pytest.mark.parametrize(
    ("url", "prices", "budget", "refused"),
    [
        ("http://127.0.0.1:9/v1", Prices(), {}, None),
        ("http://127.0.0.1:9/v1", Prices(0, 0), {}, None),
        ("http://127.0.0.1:9/v1", Prices(1, 1), {}, "--spend"),
        ("https://host.example/v1", Prices(0, 0), {}, "--spend"),
        ("https://host.example/v1", Prices(0, 0), {"spend": True}, None),
        ("https://host.example/v1", Prices(), {"spend": True, "max_usd": 1}, "is unknown"),
        ("https://host.example/v1", Prices(1, 1), {"max_usd": 1}, "--spend"),
        ("https://host.example/v1", Prices(1, 1), {"spend": True}, "max_usd is 0"),
        ("https://host.example/v1", Prices(1, 1), {"spend": True, "max_usd": 1}, None),
    ],
)
def test_what_may_cost_money_is_allowed_first(url, prices, budget, refused):
    wallet = Wallet(BudgetConfig(**budget))
    if refused is None:
        open_remote("m", url, prices=prices, wallet=wallet)
    else:
        with pytest.raises(BudgetError, match=refused):
            open_remote("m", url, prices=prices, wallet=wallet)


def test_one_price_alone_is_refused():
    with pytest.raises(ConfigError, match="usd_per_million_out is not set"):
        Prices(1.0, None)


def test_every_answer_is_paid_once_and_written(tmp_path: Path):
    ledger = tmp_path / "spending.jsonl"
    with ChatServer(ScriptedModel(echo), fail=at_first(Failure(500))) as server:
        wallet = pay(1.0, ledger)
        model = client(server, prices=Prices(100.0, 1000.0), wallet=wallet, route="api")
        model.complete([ask(q) for q in QUESTIONS])
    assert len(server.bodies) == 40
    each = (5 * 100 + 7 * 1000) / 1e6
    assert wallet.spent == pytest.approx(20 * each)
    assert spent_before(ledger) == pytest.approx(20 * each)
    rows = [json.loads(line) for line in ledger.read_text().splitlines()]
    paid = [row for row in rows if row.get("usd")]
    assert len(paid) == 20
    assert {row["prompt_tokens"] for row in paid} == {5}
    assert {row["route"] for row in rows if "worst" in row} == {"api"}


def test_the_cap_holds_whatever_is_under_way():
    """Each answer costs its worst case, so that every overstepping would show."""
    prices = Prices(0.0, 1000.0)  # $0.012 an answer at most, $0.007 as it comes

    with ChatServer(ScriptedModel(echo), fail=always(Failure(delay_s=0.01))) as server:
        wallet = pay(0.1)
        model = client(server, prices=prices, wallet=wallet)
        with pytest.raises(BudgetError, match=r"of budget.max_usd = \$0.1 at most \$0.09\d* is sp"):
            model.complete([ask(q) for q in QUESTIONS])
        assert wallet.spent == pytest.approx(len(server.bodies) * 0.007)
        assert 0.1 - 0.012 < wallet.spent <= 0.1  # calls under way are waited for, not counted out
        asked = len(server.bodies)
        with pytest.raises(BudgetError):
            list(model.stream(ask("Now?")))
        assert len(server.bodies) == asked


def test_a_call_whose_cost_nobody_knows_keeps_its_worst_case():
    for failure in (Failure(usage=False), Failure(drop=True), Failure(body=b"{}")):
        with ChatServer(ScriptedModel(echo), fail=at_first(failure)) as server:
            wallet = pay(1.0)
            model = client(server, prices=Prices(0.0, 1000.0), wallet=wallet)
            model.complete([ask("Now?")])
            answered = 0.0 if failure.usage is False else 0.003
        assert wallet.spent == pytest.approx(0.012 + answered)
    with ChatServer(ScriptedModel(echo)) as server:
        wallet = pay(1.0)
        stream = client(server, prices=Prices(0.0, 1000.0), wallet=wallet).stream(ask("Now?"))
        next(stream)
        stream.close()  # type: ignore[attr-defined]
        assert wallet.spent == pytest.approx(0.012)


def test_a_ledger_is_taken_up_again_with_what_a_kill_left(tmp_path: Path):
    ledger = tmp_path / "spending.jsonl"
    done = '{"time": 1, "id": "a", "worst": 0.5}\n{"time": 2, "id": "a", "usd": 0.1}\n'
    lost = '{"time": 3, "id": "b", "worst": 0.2}\n{"time": 4, "id": "c", "worst": 0.1}\n'
    ledger.write_text(done + lost + '{"time": 5, "id": "c", "us')
    assert spent_before(ledger) == pytest.approx(0.4)
    wallet = pay(1.0, ledger)
    with wallet.hold(0.05) as hold:
        hold.usd = 0.01
    assert wallet.spent == pytest.approx(0.41)
    assert spent_before(ledger) == pytest.approx(0.41)
    with pytest.raises(BudgetError), wallet.hold(0.6):
        raise AssertionError
    ledger.write_text(done + "x\n")
    with pytest.raises(RunDirError, match=r"spending\.jsonl:3: no line of a ledger"):
        Wallet(BudgetConfig(), ledger)


# ---- the route


def context(folder: Path, **budget: object) -> FitContext:
    def rows(name: str, count: int) -> list[Example]:
        return [
            Example(f"{name}{i}", (Message("user", f"Which box is {i}?"),), (f"Box {i}.",), name)
            for i in range(count)
        ]

    return FitContext(
        name="api",
        task=TaskConfig(name="boxes", instructions="Answer.", max_tokens=9),
        model=ModelConfig(),
        metric="token_f1",
        train=rows("train", 6),
        dev=rows("dev", 4),
        work=folder,
        budget=BudgetConfig.model_validate(budget),
    )


def settings(url: str | None, **more: object) -> BaselineSettings:
    return BaselineSettings.model_validate({"model": "scripted", "base_url": url, **more})


def test_a_plan_counts_and_sends_nothing(tmp_path: Path):
    with ChatServer(ScriptedModel(echo)) as server:
        prices = {"usd_per_million_in": 2.0, "usd_per_million_out": 8.0}
        plan = BaselineRoute(settings(server.url, **prices)).plan(context(tmp_path))
        own = BaselineRoute(settings(server.url)).plan(context(tmp_path))
        assert server.bodies == []
    tokens, usd = plan.forecasts["prompt_tokens_dev"], plan.forecasts["usd_dev"]
    assert tokens.method.startswith("formula: characters / 4, a rule of thumb")
    assert tokens.low < tokens.value < tokens.high  # type: ignore[operator]
    out = plan.forecasts["completion_tokens_dev"]
    assert out.high == 4 * 9
    assert usd.value == pytest.approx((tokens.value * 2 + out.value * 8) / 1e6)  # type: ignore
    assert "--spend" in " ".join(plan.notes)
    assert own.forecasts["usd_dev"].value is None
    assert own.forecasts["usd_dev"].method == "unknown: one's own endpoint, and no price is given"
    assert list(tmp_path.iterdir()) == []


def test_fit_says_what_the_endpoint_says_and_open_pays_from_the_wallet(tmp_path: Path):
    with ChatServer(ScriptedModel(echo)) as server:
        priced = settings(server.url, usd_per_million_in=0.0, usd_per_million_out=1000.0)
        with pytest.raises(BudgetError, match="--spend"):
            BaselineRoute(priced).fit(context(tmp_path))
        wallet = pay(1.0)
        route = BaselineRoute(priced, wallet)
        adapted = route.fit(context(tmp_path, spend=True, max_usd=1.0))
        said = adapted.detail["endpoint"]["says"]
        assert said == {
            "listed": 1,
            "entry": {"id": "scripted", "object": "model", "owned_by": "tunelm"},
        }
        (answer,) = route.open(adapted).complete([ask("Now?")])
        assert answer.text == "You asked: Now?"
        assert server.bodies[0]["messages"][0] == {"role": "system", "content": "Answer."}
        assert wallet.spent == pytest.approx(0.003)
        with pytest.raises(BudgetError):
            BaselineRoute(priced).open(adapted)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"model": None}, "name the model"),
        ({"base_url": "nowhere"}, "is no address"),
        ({"usd_per_million_in": 1.0}, "give both prices"),
    ],
)
def test_settings_that_cannot_be_right_are_refused_before_anything_is_sent(tmp_path, given, found):
    route = BaselineRoute(settings("http://127.0.0.1:9/v1", **given))
    for step in (route.plan, route.fit):
        with pytest.raises(ConfigError, match=found):
            step(context(tmp_path))


def test_names_with_a_provider_are_models_behind_an_api(tmp_path: Path, monkeypatch):
    assert remote_name("ollama/llama3.2:1b") == ("llama3.2:1b", "http://127.0.0.1:11434/v1")
    assert remote_name("runs/first") is None
    assert open_model(ModelConfig(base="ollama/llama3.2:1b")).name == "llama3.2:1b"
    with pytest.raises(BudgetError, match="--spend"):
        open_model(ModelConfig(base="openai/gpt-x"))
    with pytest.raises(ModelError, match="takes no adapter"):
        open_model(ModelConfig(base="ollama/llama3.2:1b"), tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "openai" / "mine").mkdir(parents=True)
    assert remote_name("openai/mine") is None


def files_with(folder: Path, text: str) -> list[str]:
    return [str(p) for p in folder.rglob("*") if p.is_file() and text.encode() in p.read_bytes()]


def test_compare_has_a_row_for_an_api_and_its_key_is_nowhere(
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    caplog.set_level("DEBUG")  # libraries' logs too
    monkeypatch.setenv("THE_KEY", KEY)

    def fail(body, seen):
        if "box 12" in str(body["messages"]):  # two rows of the test part
            return Failure(400, {"message": f"no boxes for {KEY}"})
        return Failure(429, headers={"Retry-After": "0"}) if seen == 0 else None

    task = make_task(tmp_path, tiny_model)
    with ChatServer(ScriptedModel(lambda r: "The code is 4."), key=KEY, fail=fail) as server:
        chosen = [
            'compare.routes=["baseline","api"]',
            "routes.api.kind=baseline",
            "routes.api.model=scripted",
            f"routes.api.base_url={server.url}",
            "routes.api.api_key_env=THE_KEY",
        ]
        command = ["compare", str(task), "--json", "--quiet", "--out", str(tmp_path / "run")]
        command += [part for text in chosen for part in ("--set", text)]
        done = CliRunner().invoke(cli, command)
        assert done.exit_code == 0, done.output
        asked = ["generate", str(tmp_path / "run" / "api"), "What is the code of box 1?"]
        answered = CliRunner().invoke(cli, asked)
        assert answered.stdout == "The code is 4.\n", answered.output
    report = json.loads(done.stdout)
    api = next(r for r in report["routes"] if r["name"] == "api")
    assert api["status"] == "done"
    assert api["failed_rows"] == {"dev": 0, "test": 2}
    assert api["first_error"].endswith("no boxes for [key]")
    ledger = [json.loads(x) for x in (tmp_path / "run/rows.jsonl").read_text().splitlines()]
    asked_for = {
        json.dumps([{"role": "system", "content": "Answer."}, *row["example"]["messages"]])
        for row in ledger
        if row["part"] in ("dev", "test")
    }
    sent = {json.dumps(b["messages"]) for b in server.bodies if not b.get("stream")}
    assert sent == asked_for
    answered_rows = report["split"]["test"]["rows"] - 2
    assert api["usage"]["evaluate_test"]["completion_tokens"] == 4 * answered_rows
    assert api["measured"]["peak_memory"]["value"] is None
    assert api["tokens_per_answer"]["test"] is not None
    assert files_with(tmp_path, KEY) == []
    assert KEY not in done.output + answered.output + caplog.text


def test_an_endpoint_that_is_not_there_is_a_failed_route(task: Path, tmp_path: Path):
    chosen = ['compare.routes=["constant","api"]', "routes.api.kind=baseline"]
    chosen += ["routes.api.model=m", "routes.api.base_url=http://127.0.0.1:9/v1"]
    report = tunelm.compare(task, tmp_path / "run", overrides=chosen)
    api = report["routes"][1]
    assert api["status"] == "failed"
    assert "Start the server there" in api["reason"]


def test_a_base_model_behind_an_api_is_adapted_by_prompt_and_not_by_weights(
    task: Path, tmp_path: Path
):
    def answer(request: Request) -> str:
        """Short where it was shown how, and chatty where it was not."""
        shown = any(m.role == "assistant" for m in request.messages)
        return "The code is 4." if shown else "Well, as for this code, one could say 4."

    with ChatServer(ScriptedModel(answer)) as server:
        chosen = [
            'compare.routes=["constant","baseline","prompt","local"]',
            "model.base=scripted",
            f"model.base_url={server.url}",
        ]
        report = tunelm.compare(task, tmp_path / "run", overrides=chosen)
        model = tunelm.load(tmp_path / "run" / "prompt")
        said = model.complete([Request((Message("user", "Box 1?"),), max_tokens=8)])[0]
        assert said.text == "The code is 4."
    routes = {r["name"]: r for r in report["routes"]}
    assert report["base"]["name"] == "scripted"
    assert report["base"]["parameters"] is None
    assert routes["local"]["status"] == "failed"
    assert "is behind an API and has no weights here" in routes["local"]["reason"]
    assert routes["baseline"]["endpoint"]["base_url"] == server.url
    assert routes["prompt"]["endpoint"]["base_url"] == server.url
    scores = {n: routes[n]["scores"]["token_f1"]["value"] for n in ("baseline", "prompt")}
    assert scores["prompt"] > scores["baseline"]
    assert routes["prompt"]["measured"]["peak_memory"]["value"] is None


def test_a_base_model_that_may_charge_is_not_asked_without_spend(task: Path, tmp_path: Path):
    chosen = ['compare.routes=["baseline","prompt"]', "model.base=openai/gpt-4.1-mini"]
    report = tunelm.compare(task, tmp_path / "run", overrides=chosen)
    for route in report["routes"]:
        assert route["status"] == "failed"
        assert "--spend" in route["reason"]
