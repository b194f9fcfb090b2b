"""The cloud route: one job whatever happens, and what its result is called."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from datetime import date

import pytest

import tunelm
from tunelm.config import BudgetConfig, ModelConfig, TaskConfig
from tunelm.errors import (
    BudgetError,
    ConfigError,
    DataError,
    ModelError,
    PrerequisiteError,
    RunDirError,
    TrainingError,
)
from tunelm.models.address import parse_address
from tunelm.models.budget import Wallet, spent_before
from tunelm.route_settings import CloudSettings
from tunelm.routes import cloud, cloud_place
from tunelm.routes.base import FitContext
from tunelm.routes.cloud import CloudRoute
from tunelm.routes.finetune_client import FineTuneClient, Order, decoded
from tunelm.routes.finetune_wire import Patience, Wire
from tunelm.testing import Failure, ScriptedModel
from tunelm.testing_finetune import STEPS, TOKENS, FineTuningServer
from tunelm.types import Adapted, Example, Message, Request

from .conftest import make_task
from .serving import listening

pytest.importorskip("openai")

PATIENCE = Patience(poll=0.01, first=0.01, most=0.1, looks=(0.01, 0.05, 0.6), lost=5, answer=0.5)
CREATE = ("POST", "/fine_tuning/jobs")


@pytest.fixture
def order(tmp_path):
    rows = [
        {"messages": [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": "x"}]}
        for i in range(10)
    ]
    for name in ("train", "valid"):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text)
        rows = rows[:2]
    files = tmp_path / "train.jsonl", tmp_path / "valid.jsonl"
    return Order("base", *files, {"n_epochs": 2, "batch_size": "auto"}, 0, "mine")


@contextlib.contextmanager
def client_of(server, **changes):
    with Wire(parse_address(server.url), patience=PATIENCE, **changes) as wire:
        yield FineTuneClient(wire)


def submit(server, order, **changes):
    with client_of(server, **changes) as client:
        files = client.upload(order.train), client.upload(order.valid)
        return client.submit(order, files)


def at_creation(*failures):
    """Fail the creations one after the other; all else goes well."""

    def fail(method, path, before):
        return failures[before] if (method, path) == CREATE and before < len(failures) else None

    return fail


def test_a_job_is_uploaded_created_and_followed_once(order):
    with FineTuningServer() as server:
        job = submit(server, order)
        assert submit(server, order) == job
        shown, seen = [], set()
        with client_of(server) as client:
            done = client.follow(job.id, lambda job: shown.append(job.status))
            events = client.events(job.id, seen)
            assert client.events(job.id, seen) == []
            assert client.result(done.said["result_files"][0]).startswith("step,train_loss")
        assert [e["data"]["step"] for e in events] == list(range(1, STEPS + 1))
    assert shown == ["validating_files", "queued", "running", "succeeded"]
    assert done.fine_tuned_model.startswith("ft:base:org:")
    assert (len(server.files), len(server.bodies)) == (3, 1)
    assert server.bodies[0]["metadata"] == {"tunelm_run_key": order.key}
    settings = server.bodies[0]["method"]["supervised"]["hyperparameters"]
    assert settings == {"n_epochs": 2, "batch_size": "auto"}
    assert all("Authorization" not in h or "no key" in h["Authorization"] for h in server.headers)


@pytest.mark.parametrize("metadata", ["filter", "keep", "drop"])
@pytest.mark.parametrize(
    "failure",
    [
        Failure(drop=True),
        Failure(cut=True),
        Failure(delay_s=0.7),
        Failure(status=500),
        Failure(status=429, headers={"Retry-After": "0.02"}),
        Failure(status=409),
        Failure(body=b"<html>busy</html>"),
    ],
    ids=["before", "during", "late", "500", "429", "409", "no JSON"],
)
def test_a_creation_without_an_answer_is_one_job(order, failure, metadata):
    """The fake makes a job for each POST that reaches it, whatever its Idempotency-Key says."""
    with FineTuningServer(fail=at_creation(failure), metadata=metadata) as server:
        job = submit(server, order)
        assert submit(server, order).id == job.id
        assert [j["id"] for j in server.jobs] == [job.id]


def test_an_order_is_told_from_others_of_the_same_files(order):
    with FineTuningServer(metadata="keep") as server:
        first = submit(server, order)
        for other in ({"seed": 1}, {"model": "another"}, {"hyperparameters": {"n_epochs": 3}}):
            assert submit(server, dataclasses.replace(order, **other)).id != first.id
        assert submit(server, order).id == first.id
        assert len(server.files) == 2


def test_a_failed_job_is_not_taken_up_and_gets_another_key(order):
    with FineTuningServer(idempotent=True) as server:
        first = submit(server, order)
        server.jobs[0]["status"] = "failed"
        second = submit(server, order)
        assert second.id != first.id
        assert submit(server, order).id == second.id


def test_of_two_jobs_the_oldest_is_kept_and_the_other_cancelled(order):
    with FineTuningServer() as server:
        first = submit(server, order)
        server.create({**server.bodies[0]}, None)
        assert submit(server, order).id == first.id
        assert [j["status"] for j in server.jobs] == ["validating_files", "cancelled"]


def test_concurrent_clients_with_one_idempotency_key_make_one_job(order):
    with FineTuningServer(idempotent=True) as server:
        ids = []
        threads = [
            threading.Thread(target=lambda: ids.append(submit(server, order).id)) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(ids) == 8
    assert len(set(ids)) == len(server.jobs) == 1


def test_orders_over_a_bad_network_are_as_many_jobs(order):
    luck = random.Random(0)
    kinds = [None, Failure(drop=True), Failure(cut=True), Failure(status=503)]

    def fail(method, path, before):
        return luck.choice(kinds) if method == "POST" else luck.choice([None] * 9 + kinds)

    with FineTuningServer(fail=fail, idempotent=True) as server:
        for seed in range(6):
            again = dataclasses.replace(order, seed=seed)
            for _ in range(5):  # what --resume does
                with contextlib.suppress(TrainingError):
                    submit(server, again)
        assert sorted(j["seed"] for j in server.jobs) == list(range(6))
        assert len(server.files) == 2


def test_a_creation_that_never_gets_an_answer_says_so(order):
    fail = at_creation(*[Failure(drop=True)] * 9)
    with (
        FineTuningServer(fail=fail) as server,
        pytest.raises(TrainingError, match=r"no answer 3 times.*--resume"),
    ):
        submit(server, order)


def test_a_refusal_is_one_line_and_sent_once(order):
    error = {"message": "Fine-tuning is closed.", "code": "closed"}
    with (
        FineTuningServer(fail=at_creation(Failure(status=403, error=error))) as server,
        pytest.raises(TrainingError, match=r"HTTP 403: Fine-tuning is closed") as raised,
    ):
        submit(server, order)
    assert "\n" not in str(raised.value)
    assert server._seen[CREATE] == 1


def test_polling_outlives_a_bad_network_and_shows_states_it_does_not_know(order):
    luck = random.Random(1)

    def fail(method, path, before):
        if "/jobs/" not in path:
            return None
        return luck.choice(
            [
                None,
                Failure(drop=True),
                Failure(status=429, headers={"Retry-After": "0.01"}),
                Failure(status=502, body=b"bad gateway"),
            ]
        )

    states = ("queued", "pausing", "paused", "molten", "running", "succeeded")
    told, shown = [], []
    with FineTuningServer(states=states, fail=fail) as server:
        job = submit(server, order)
        with client_of(server, tell=told.append) as client:
            assert client.follow(job.id, lambda job: shown.append(job.status)).ended
    assert list(dict.fromkeys(shown)) == list(states)
    assert any("trying again" in text for text in told)


def test_a_provider_that_is_gone_for_good_is_given_up(order):
    with FineTuningServer() as server:
        job = submit(server, order)
    short = Patience(first=0.01, most=0.01, lost=0.1)
    with (
        Wire(parse_address(server.url), patience=short) as wire,
        pytest.raises(TrainingError, match=r"no connection.*--resume"),
    ):
        FineTuneClient(wire).job(job.id)


def test_the_key_is_sent_and_shown_nowhere(order, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-secret")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-mine")
    with FineTuningServer(key="sk-secret") as server:
        assert submit(server, order, variable="MY_KEY").id
        assert "OpenAI-Organization" not in server.headers[-1]
        monkeypatch.setenv("MY_KEY", "sk-wrong")
        with pytest.raises(TrainingError, match=r"HTTP 401.*\[key\]") as raised:
            submit(server, order, variable="MY_KEY")
    assert "sk-wrong" not in str(raised.value)
    with pytest.raises(PrerequisiteError, match="MY_OTHER_KEY"):
        Wire(parse_address("https://api.example.com/v1"), "MY_OTHER_KEY")


def test_a_result_file_is_read_in_either_form():
    table = "step,train_loss\n1,0.5\n"
    assert decoded(table.encode()) == table
    assert decoded(b"c3RlcCx0cmFpbl9sb3NzCjEsMC41Cg==\n") == table


# --- the route at a provider ----------------------------------------------------------------------


def examples(count):
    return [
        Example(
            id=f"e{i}",
            messages=(Message("user", f"Which colour is thing {i}?"),),
            answers=(f"It is {('red', 'green', 'blue')[i % 3]}.",),
            group=f"g{i // 2}",
        )
        for i in range(count)
    ]


def context(folder, **changes):
    ctx = FitContext(
        name="hosted",
        task=TaskConfig(name="colours", instructions="Name the colour.", max_tokens=8),
        model=ModelConfig(),
        metric="token_f1",
        train=examples(12),
        dev=examples(15)[12:],
        work=folder,
    )
    return dataclasses.replace(ctx, **changes)


def settings(server, **changes):
    return CloudSettings(base_url=server.url, model="gpt-4o", poll_s=0.01, **changes)


def test_what_a_provider_made_is_asked_through_its_api(tmp_path):
    told = []
    with FineTuningServer(ScriptedModel(lambda request: "It is red.")) as server:
        route = CloudRoute(settings(server, n_epochs=2))
        plan = route.plan(context(tmp_path))
        assert server.headers == []
        adapted = route.fit(context(tmp_path, progress=lambda *event: told.append(event)))
        again = Adapted.from_json(json.loads(json.dumps(adapted.to_json())), adapted.folder)
        answer = route.open(again).complete([Request((Message("user", "Which?"),))])[0]
        assert server.model.requests[0].messages[0] == Message("system", "Name the colour.")
        assert route.fit(context(tmp_path)) == adapted
        assert len(server.bodies) == 1
        url = server.url
    assert answer.text == "It is red."
    assert plan.forecasts["usd"].value is None
    assert plan.forecasts["train_tokens"].value > 0
    assert adapted.detail["backend"] == url.split("/")[2]
    assert adapted.usage["train"].prompt_tokens == TOKENS
    assert told[-1] == ("job succeeded", STEPS, STEPS)
    rows = [json.loads(line) for line in (tmp_path / "job/train.jsonl").read_text().splitlines()]
    assert [m["role"] for m in rows[0]["messages"]] == ["system", "user", "assistant"]
    assert (tmp_path / "job/result.csv").read_text().startswith("step,train_loss")
    assert len((tmp_path / "job/events-0.jsonl").read_text().splitlines()) == STEPS
    with pytest.raises(RunDirError, match="other rows"):
        route.fit(context(tmp_path, train=examples(11)))


def test_earlier_answers_of_a_dialogue_are_not_learned_from(tmp_path):
    turns = (Message("user", "Hello"), Message("assistant", "Yes?"), Message("user", "Which?"))
    rows = [dataclasses.replace(e, messages=(*turns, *e.messages)) for e in examples(12)]
    with FineTuningServer() as server:
        CloudRoute(settings(server)).fit(context(tmp_path, train=rows))
        sent = json.loads(server.files["file-0000"]["content"].splitlines()[0])["messages"]
    assert [m.get("weight") for m in sent] == [None, None, 0, None, None, None]


@pytest.mark.parametrize(("state", "words"), [("failed", "it broke"), ("cancelled", "cancelled")])
def test_a_job_that_ends_badly_is_one_line_and_resuming_makes_another(tmp_path, state, words):
    with FineTuningServer(states=("running", state)) as server:
        route = CloudRoute(settings(server))
        with pytest.raises(TrainingError, match=words) as raised:
            route.fit(context(tmp_path))
        assert "\n" not in str(raised.value)
        server.states = ("running", "succeeded")
        assert route.fit(context(tmp_path)).detail["job"]["id"] == "ftjob-0001"
        assert len(server.jobs) == 2


def test_a_client_killed_at_any_call_takes_up_the_same_job(tmp_path):
    """As a kill does, an exception ends the client in the midst of its n-th request."""

    class KilledError(BaseException):
        pass

    calls = 0

    def kill(*event):
        nonlocal calls
        calls += 1
        if calls % 2:
            raise KilledError

    def fail(method, path, before):
        kinds = [Failure(drop=True), Failure(cut=True), None]
        return random.Random(f"{method}{path}{before}").choice(kinds) if method == "POST" else None

    with FineTuningServer(fail=fail) as server:
        route = CloudRoute(settings(server))
        for _ in range(40):
            try:
                adapted = route.fit(context(tmp_path, progress=kill))
                break
            except KilledError:
                continue
        assert adapted.detail["job"]["id"] == server.jobs[0]["id"]
        assert len(server.jobs) == 1


def test_ctrl_c_leaves_the_job_and_says_how_to_come_back(tmp_path):
    def interrupt(what, done, total):
        if what.startswith("job running"):
            raise KeyboardInterrupt

    with FineTuningServer() as server:
        route = CloudRoute(settings(server))
        with pytest.raises(KeyboardInterrupt) as raised:
            route.fit(context(tmp_path, progress=interrupt))
        assert "ftjob-0000 goes on" in raised.value.__notes__[0]
        assert "--resume" in raised.value.__notes__[0]
        assert server.jobs[0]["status"] == "running"
        assert route.fit(context(tmp_path)).detail["job"]["id"] == "ftjob-0000"


def test_money_is_spent_only_when_allowed_and_once(tmp_path):
    prices = {"usd_per_million_train": 100.0, "usd_per_million_in": 0.0, "usd_per_million_out": 0.0}
    ledger = tmp_path / "spending.jsonl"

    def fit(server, budget, progress=lambda *event: None):
        route = CloudRoute(settings(server, n_epochs=4, **prices), Wallet(budget, ledger))
        return route.fit(context(tmp_path / "work", budget=budget, progress=progress))

    def interrupt(what, done, total):
        if what.startswith("job running"):
            assert "$" in what
            raise KeyboardInterrupt

    (tmp_path / "work").mkdir()
    with FineTuningServer() as server:
        with pytest.raises(BudgetError, match="--spend"):
            fit(server, BudgetConfig(max_usd=1.0))
        with pytest.raises(BudgetError, match="could cost"):
            fit(server, BudgetConfig(max_usd=0.01, spend=True))
        assert server.headers == []
        allowed = BudgetConfig(max_usd=0.25, spend=True)
        with pytest.raises(KeyboardInterrupt):
            fit(server, allowed, interrupt)
        worst = spent_before(ledger)
        assert 0.125 < worst < 0.25  # twice that would not fit: taken up again, it counts once
        fit(server, allowed)
        assert len(server.jobs) == 1
    assert spent_before(ledger) == pytest.approx(TOKENS * 100 / 1e6)


def test_a_refused_creation_costs_nothing(tmp_path):
    prices = {"usd_per_million_train": 100.0, "usd_per_million_in": 0.0, "usd_per_million_out": 0.0}
    ledger, budget = tmp_path / "spending.jsonl", BudgetConfig(max_usd=9, spend=True)
    with FineTuningServer(fail=at_creation(Failure(status=400))) as server:
        route = CloudRoute(settings(server, **prices), Wallet(budget, ledger))
        with pytest.raises(TrainingError, match="HTTP 400"):
            route.fit(context(tmp_path, budget=budget))
    assert spent_before(ledger) == 0


@pytest.fixture
def in_2026(monkeypatch):
    """What is known of providers and prices was true on this day; it is dated for a reason."""

    class Day(date):
        @classmethod
        def today(cls):
            return date(2026, 11, 21)

    for module in (cloud, cloud_place):
        monkeypatch.setattr(module, "date", Day)


def test_nothing_is_sent_to_a_provider_that_cannot_or_should_not_have_it(
    tmp_path, monkeypatch, in_2026
):
    budget = BudgetConfig(max_usd=100, spend=True)

    def fit(**changes):
        route = CloudRoute(CloudSettings(**{"provider": "openai", "model": "gpt-4o"} | changes))
        ctx = context(tmp_path, budget=budget)
        route.plan(ctx)
        route.fit(ctx)

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for changes, words in (
        ({}, "--accept-shutdown 2027-01-14"),
        ({"provider": "opena"}, "Did you mean 'openai'"),
        ({"provider": "together"}, "shape of its own"),
        ({"model": None}, "needs the model"),
        ({"provider": "azure", "model": "gpt-4o-mini"}, "set base_url"),
        ({"provider": "local"}, "tunes the base model"),
        ({"n_epochs": 99}, "n_epochs"),
        ({"price_as": "openai/gpt-4o"}, "price_as is for provider 'local'"),
    ):
        with pytest.raises(ConfigError, match=words):
            fit(**changes)
    few = CloudRoute(CloudSettings(provider="openai", model="m", n_epochs=1))
    with pytest.raises(DataError, match="9 examples, and a fine-tuning job takes 10 or more"):
        few.fit(context(tmp_path, train=examples(9), budget=budget))
    accepted = {"accept_shutdown": "2027-01-14", "model": "gpt-4o-mini-2024-07-18"}
    with pytest.raises(PrerequisiteError, match="OPENAI_API_KEY"):
        fit(**accepted, usd_per_million_train=3.0)
    unknown = {"base_url": "https://example.invalid/v1", "provider": "local", "model": "m"}
    with pytest.raises(BudgetError, match="the price of m"):
        fit(**unknown)
    with pytest.raises(BudgetError, match=r"what training m at .* costs is not known"):
        fit(**unknown, usd_per_million_in=1.0, usd_per_million_out=1.0)


def test_the_command_line_takes_the_day_of_a_shutdown_for_jobs_only(tmp_path):
    from click.testing import CliRunner

    from tunelm.cli import cli

    command = ["compare", "--accept-shutdown", "2027-01-14", "--set", "compare.routes=['local']"]
    done = CliRunner().invoke(cli, command)
    assert (done.exit_code, "for a route of the kind cloud" in done.output) == (2, True)


def test_a_fine_tune_that_must_be_deployed_says_so(tmp_path):
    detail = {
        "backend": "azure",
        "route": "hosted",
        "endpoint": {"model": None, "fine_tuned_model": "ft:m", "base_url": "https://x/v1"},
    }
    with pytest.raises(ModelError, match=r"ft:m at azure .*deployment"):
        CloudRoute(CloudSettings()).open(Adapted("cloud", str(tmp_path), {}, "", detail))


# --- the route at our own server ------------------------------------------------------------------

ONLY = 'compare.routes=["baseline","local","cloud"]'
SAME = ("routes.local.epochs=4", "routes.local.max_steps=100000", "routes.cloud.n_epochs=4")


def wait_for(there, process):
    deadline = time.monotonic() + 120
    while not there():
        assert process.poll() is None, "it ended before"
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def compared(tiny_model, tmp_path_factory):
    """(run, report, the job's id) of a comparison that was killed while its job was running.

    When it was taken up again, the server was killed too.
    """
    pytest.importorskip("fastapi")
    folder = tmp_path_factory.mktemp("compared")
    task, run = make_task(folder, tiny_model), folder / "run"
    command = [sys.executable, "-m", "tunelm", "compare", str(task), "--out", str(run), "--quiet"]
    command += [word for option in (ONLY, *SAME) for word in ("--set", option)]
    work = run / "routes/cloud/seed-0"
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    wait_for(lambda: list(work.glob("server/state/jobs/*/checkpoints/step-*")), process)
    process.kill()
    process.wait()
    job = json.loads((work / "job/job.json").read_text())["id"]
    process = subprocess.Popen(
        [*command, "--resume", "--json"], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    ready = work / "server/ready.json"
    before = ready.stat().st_mtime_ns if ready.exists() else 0
    wait_for(lambda: ready.exists() and ready.stat().st_mtime_ns != before, process)
    os.kill(json.loads(ready.read_text())["pid"], signal.SIGKILL)
    report = json.loads(process.communicate(timeout=600)[0])
    return run, {route["name"]: route for route in report["routes"]} | {"report": report}, job


def test_a_killed_comparison_and_a_killed_server_go_on_with_the_same_job(compared):
    run, routes, job = compared
    assert routes["cloud"]["status"] == "done", routes["report"]["warnings"]
    made = json.loads((run / "routes/cloud/seed-0/adapted/job.json").read_text())
    assert made["id"] == job
    assert made["said"]["hyperparameters"]["n_epochs"] == 4


def test_the_protocol_trains_the_same_adapter_as_the_route_local(compared):
    import torch
    from safetensors.torch import load_file

    run, routes, _ = compared
    one, other = (
        load_file(run / f"routes/{name}/seed-0/adapted/adapter_model.safetensors")
        for name in ("cloud", "local")
    )
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert routes["cloud"]["scores"] == routes["local"]["scores"]
    assert routes["cloud"]["usage"]["train"] == routes["local"]["usage"]["train"]


def test_the_parity_row_is_labelled_and_outside_the_verdict(compared):
    run, routes, _ = compared
    report = routes["report"]
    assert (routes["cloud"]["backend"], routes["cloud"]["parity_of"]) == ("local", "local")
    assert report["winner"]["name"] != "cloud"
    pairs = [pair for pair in report["pairs"] if "cloud" in (pair["a"], pair["b"])]
    assert not any(pair["family"] for pair in pairs)
    assert any("parity check: outside Holm" in (pair["note"] or "") for pair in pairs)
    assert any("cloud is no hosted model" in text for text in report["warnings"])
    assert "backend local, parity check of local" in (run / "report.md").read_text()
    assert ">parity check</span>" in (run / "report.html").read_text()
    assert routes["cloud"]["cost"] is None
    assert "own machine; price_as names" in routes["cloud"]["cost_reason"]


def test_a_run_needs_no_server_once_the_job_is_done(compared):
    run, _, _ = compared
    work = run / "routes/cloud/seed-0"
    assert not (work / "server").exists()
    assert (work / "job/result.csv").read_text().startswith("step,train_loss")
    events = (work / "job/events-0.jsonl").read_text().splitlines()
    assert len({json.loads(line)["id"] for line in events}) == len(events)
    for target in (run / "cloud", work / "adapted"):  # an adapter knows its prompt by itself too
        model = tunelm.load(target)
        assert model.render([Message("user", "x")])[0] == Message("system", "Answer.")
    detail = json.loads((work / "adapted.json").read_text())["detail"]
    assert "endpoint" not in detail
    plan = json.loads((work / "plan.json").read_text())["forecasts"]
    assert plan["train_tokens"]["value"] == detail["job"]["trained_tokens"]
    assert plan["steps"]["value"] == detail["step"]


def test_a_list_price_is_called_one(tiny_model, tmp_path, in_2026):
    ctx = context(tmp_path, model=ModelConfig(base=str(tiny_model)))
    route = CloudRoute(CloudSettings(n_epochs=3, price_as="openai/gpt-4o-mini"))
    plan = route.plan(ctx)
    tokens = plan.forecasts["train_tokens"].value
    assert plan.forecasts["usd"].value == pytest.approx(tokens * 3.0 / 1e6)
    assert "not a bill" in plan.notes[1]
    unpriced = CloudRoute(CloudSettings()).plan(ctx).forecasts["usd"]
    assert (unpriced.value, unpriced.method[:7]) == (None, "unknown")
    with pytest.raises(ConfigError, match="price_as"):
        CloudRoute(CloudSettings(price_as="nobody/nothing")).plan(ctx)


# --- other clients of our own server --------------------------------------------------------------

CLIENTS = """
import time
slept = time.sleep
time.sleep = lambda seconds: slept(min(seconds, 0.5))  # it looks at its job every 20 seconds
import dspy, litellm
from dspy.utils.dummies import DummyLM

class Colour(dspy.Signature):
    question: str = dspy.InputField()
    answer: str = dspy.OutputField()

rows = [dspy.Example(question=f"Thing {i}?", answer="red") for i in range(10)]
rows = [row.with_inputs("question") for row in rows]
teacher, student = dspy.Predict(Colour), dspy.Predict(Colour)
teacher.set_lm(DummyLM([{"answer": "red"}] * 10))
student.set_lm(dspy.LM("openai/gpt-4.1-nano", max_tokens=4))
dspy.settings.configure(experimental=True)
tuner = dspy.BootstrapFinetune(num_threads=1, train_kwargs={"n_epochs": 1})
tuned = tuner.compile(student, trainset=rows, teacher=teacher).lm
print("DSPY", tuned.model, len(tuned("Thing 3?")))
asked = {"messages": [{"role": "user", "content": "Thing 3?"}], "max_tokens": 4, "temperature": 0}
whole = litellm.completion(model=tuned.model, **asked)
parts = litellm.completion(model=tuned.model, stream=True, **asked)
text = "".join(part.choices[0].delta.content or "" for part in parts)
print("LITELLM", text == whole.choices[0].message.content, whole.usage.completion_tokens)
"""


def test_dspy_fine_tunes_and_litellm_asks_through_the_base_url_alone(tmp_path):
    """LiteLLM knows by a name's beginning whose fine-tune it is: `ft:gpt-`, and no other."""
    pytest.importorskip("dspy")
    from tunelm.server.app import create_app
    from tunelm.server.settings import ServerSettings

    settings = ServerSettings("tunelm-nano-small", tmp_path / "state", name="gpt-4.1-nano")
    with listening(create_app(settings)) as url:
        env = {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "none"}
        env |= {"DSPY_CACHEDIR": str(tmp_path), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        done = subprocess.run(
            [sys.executable, "-c", CLIENTS],
            env={**os.environ, **env},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
    assert "DSPY ft:gpt-4.1-nano:tunelm::" in done.stdout, done.stderr[-2000:]
    assert "LITELLM True 4" in done.stdout, done.stdout + done.stderr[-2000:]
