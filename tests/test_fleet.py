"""Several endpoints with one model: who is free, who is busy, who is gone, and the same answers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import tunelm
from tunelm.config import ModelConfig
from tunelm.errors import ConfigError, ModelError
from tunelm.models.address import key_variable, parse_address
from tunelm.models.endpoint import Endpoint
from tunelm.models.fleet import FIRST, MOST, Fleet
from tunelm.models.remote import RemoteModel, open_remote
from tunelm.testing import ChatServer, Failure, ScriptedModel
from tunelm.types import Message, Request

from .conftest import make_task

QUESTIONS = [f"Question {i}?" for i in range(60)]
GOOD = [f"You asked: {q}" for q in QUESTIONS]
Fail = Callable[[Mapping[str, Any], int], Failure | None]


def echo(request: Request) -> str:
    return f"You asked: {request.messages[-1].content}"


def server(fail: Fail = lambda body, seen: Failure(delay_s=0.01)) -> ChatServer:
    return ChatServer(ScriptedModel(echo), fail=fail)


def fleet(*urls: str, backoff_s: float = 0.01) -> RemoteModel:
    address = parse_address(", ".join(urls))
    endpoints = [Endpoint(one, None, 20.0) for one in address.each]
    return RemoteModel(Fleet(endpoints, address, backoff_s), "scripted")


def ask(model: RemoteModel) -> list[str]:
    return [a.text for a in model.complete([Request((Message("user", q),)) for q in QUESTIONS])]


def counts(model: RemoteModel) -> list[dict[str, Any]]:
    assert model.endpoints is not None
    return model.endpoints


def test_whoever_is_free_takes_the_next_row_and_the_order_stays():
    slow = Failure(delay_s=0.5)
    with server() as quick, server(lambda body, seen: slow) as other:
        model = fleet(quick.url, other.url)
        assert ask(model) == GOOD
        assert len(quick.bodies) > len(other.bodies) > 0
        assert quick.most_at_once <= MOST
        assert other.most_at_once <= FIRST + 2  # it grows with its answers, of which it has few
    assert [c["answered"] for c in counts(model)] == [len(quick.bodies), len(other.bodies)]
    assert f"{quick.url} ({len(quick.bodies)} answered)" in model.notes[0]


def test_one_that_is_busy_is_left_alone_as_long_as_it_says():
    came: list[float] = []
    wait = 2.0

    def busy(body: Mapping[str, Any], seen: int) -> Failure | None:
        came.append(time.monotonic())
        first = came[-1] - came[0] < wait / 2
        return Failure(503, headers={"Retry-After": str(wait)}) if first else None

    with server() as free, server(busy) as full:
        model = fleet(free.url, full.url)
        until = time.monotonic() + 2 * wait
        while time.monotonic() < until:
            assert ask(model) == GOOD
    at_first = [t for t in came if t - came[0] < wait / 2]
    assert 1 <= len(at_first) <= FIRST  # those under way when it said so
    back = [t for t in came if t not in at_first]
    assert back[0] - at_first[-1] >= wait * 0.9
    assert counts(model)[1]["busy"] == len(at_first)
    assert counts(model)[1]["answered"] == len(back)


def test_rows_of_one_that_dies_go_to_the_others_and_it_is_asked_again():
    down = threading.Event()

    def falls(body: Mapping[str, Any], seen: int) -> Failure | None:
        return Failure(drop=True) if down.is_set() else Failure(delay_s=0.01)

    with server() as stays, server(falls) as other:
        model = fleet(stays.url, other.url, "http://127.0.0.1:9/v1")
        assert ask(model) == GOOD
        down.set()
        assert ask(model) == GOOD
        lost = counts(model)[1]["lost"]
        assert 1 <= lost <= MOST
        down.clear()
        before = counts(model)[1]["answered"]
        until = time.monotonic() + 20
        while counts(model)[1]["answered"] == before and time.monotonic() < until:
            assert ask(model) == GOOD
        assert counts(model)[1]["answered"] > before
    assert counts(model)[2]["answered"] == 0
    assert "no connection" in counts(model)[2]["error"]


def test_a_row_that_breaks_every_endpoint_fails_alone():
    def poisoned(body: Mapping[str, Any], seen: int) -> Failure | None:
        return Failure(500) if body["messages"][-1]["content"] == QUESTIONS[7] else None

    with server(poisoned) as one, server(poisoned) as other:
        model = fleet(one.url, other.url)
        answers = model.complete([Request((Message("user", q),)) for q in QUESTIONS])
    assert [i for i, a in enumerate(answers) if a.error] == [7]
    assert "HTTP 500" in (answers[7].error or "")
    assert "(5 tries)" in (answers[7].error or "")


def test_one_that_has_not_got_the_model_is_left_out_and_named():
    with server() as right, ChatServer(ScriptedModel(echo, "another")) as wrong:
        model = fleet(wrong.url, right.url)
        assert ask(model) == GOOD
        assert wrong.bodies == []
    assert "HTTP 404" in counts(model)[0]["error"]
    assert "no model 'scripted'" in model.notes[0]


def test_streams_go_to_whoever_answers():
    with server(lambda body, seen: Failure(503)) as full, server() as free:
        model = fleet(full.url, free.url)
        for _ in range(4):
            parts = model.stream(Request((Message("user", "Hm?"),)))
            assert "".join(d.text for d in parts) == "You asked: Hm?"
    assert counts(model)[1]["answered"] == 4


def test_where_none_answers_one_line_names_each():
    model = fleet("http://127.0.0.1:9/v1", "http://127.0.0.1:7/v1")
    with pytest.raises(ModelError) as raised:
        ask(model)
    assert "none of the 2 endpoints answers: http://127.0.0.1:9/v1: no connection" in str(
        raised.value
    )
    assert "http://127.0.0.1:7/v1: no connection" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_addresses_are_checked_one_by_one():
    both = parse_address("http://127.0.0.1:1/v1, https://b.example/v1")
    assert (both.own, both.host, both.open_wire) == (False, "b.example", False)
    assert parse_address("http://127.0.0.1:1/v1,http://b.example/v1").open_wire
    for text, why in (
        ("http://a/v1, http://a/v1/", "twice"),
        ("http://a/v1, nowhere", "no address"),
        ("http://a/v1,", "no address"),
        ("http://a/v1, http://me:secret@b/v1", "user name"),
    ):
        with pytest.raises(ConfigError, match=why):
            parse_address(text)
    assert key_variable(None, parse_address("https://api.openai.com/v1, http://b/v1")) is None
    with pytest.raises(tunelm.TunelmError, match="may charge"):
        open_remote("m", "http://127.0.0.1:1/v1, http://b.example/v1")
    config = ModelConfig(base="m", base_url="http://127.0.0.1:1/v1, http://127.0.0.1:2/v1")
    assert len(parse_address(config.base_url).each) == 2


def settings(url: str) -> list[str]:
    return ['compare.routes=["baseline"]', "model.base=scripted", f'model.base_url="{url}"']


def outputs(run: Path) -> list[dict[str, Any]]:
    path = run / "routes" / "baseline" / "seed-0" / "predictions.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{k: v for k, v in row.items() if k != "latency_s"} for row in rows]


def fit(run: Path) -> dict[str, Any]:
    return json.loads((run / "routes" / "baseline" / "seed-0" / "fit.json").read_text())


def test_a_comparison_at_a_fleet_that_died_goes_on_where_it_stopped(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tunelm.models.fleet.BACKOFF_S", 0.01)
    task = make_task(tmp_path, tiny_model)
    with server() as alone:
        tunelm.compare(task, tmp_path / "single", overrides=settings(alone.url))
    left = [50]
    lock = threading.Lock()

    def dies(body: Mapping[str, Any], seen: int) -> Failure | None:
        with lock:
            left[0] -= 1
            return Failure(drop=True) if left[0] < 0 else None

    with server(dies) as one, server(dies) as other:
        where = settings(f"{one.url}, {other.url}")
        tunelm.compare(task, tmp_path / "fleet", overrides=where)
        assert fit(tmp_path / "fleet")["status"] == "failed"
        assert "none of the 2 endpoints answers" in fit(tmp_path / "fleet")["reason"]
        answered = len(outputs(tmp_path / "fleet"))
        assert answered > 0
        left[0], before = 10_000, len(one.bodies) + len(other.bodies)
        tunelm.compare(task, tmp_path / "fleet", overrides=where, resume=True)
        asked = len(one.bodies) + len(other.bodies) - before
    assert outputs(tmp_path / "fleet") == outputs(tmp_path / "single")
    timed = 6
    assert asked == len(outputs(tmp_path / "single")) - answered + timed
    found = fit(tmp_path / "fleet")
    assert sum(one["answered"] for one in found["endpoints"]) == asked
    assert any("answers by endpoint" in note for note in found["notes"])


def test_real_servers_one_killed_in_the_middle_one_often_full(tmp_path: Path, tiny_model: Path):
    pytest.importorskip("fastapi")
    from .serving import serving

    ready = tmp_path / "ready.json"
    command = [sys.executable, "-m", "tunelm", "serve", str(tiny_model), "--no-train", "--no-chat"]
    command += ["--port", "0", "--state", str(tmp_path / "state"), "--ready-file", str(ready)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    requests = [Request((Message("user", q),), max_tokens=16) for q in QUESTIONS * 4]
    try:
        with serving(tiny_model) as one, serving(tiny_model, max_batch=2, max_waiting=2) as full:
            single = open_remote(tiny_model.name, one.url).complete(requests)
            until = time.monotonic() + 60
            while not ready.exists() and time.monotonic() < until:
                time.sleep(0.05)
            mortal = json.loads(ready.read_text())["url"]
            model = open_remote(tiny_model.name, f"{mortal}, {one.url}, {full.url}")
            killed = threading.Thread(target=kill_when_answering, args=(model, process.pid))
            killed.start()
            answers = model.complete(requests)
            killed.join()
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert [a.text for a in answers] == [a.text for a in single]
    assert all(a.error is None for a in answers)
    dead, whole, often = counts(model)
    assert dead["answered"] > 0
    assert dead["lost"] > 0
    assert whole["answered"] > 0
    assert often["answered"] > 0
    assert often["busy"] > 0
    assert dead["answered"] + whole["answered"] + often["answered"] == len(requests)


def kill_when_answering(model: RemoteModel, pid: int) -> None:
    until = time.monotonic() + 60
    while counts(model)[0]["answered"] < 5 and time.monotonic() < until:
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
