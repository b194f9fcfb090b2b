"""vLLM as the engine of a server: a process of vLLM's command line and protocol (fake_vllm.py)."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

import tunelm
from tunelm.config import ModelConfig
from tunelm.errors import ConfigError, ModelError
from tunelm.models.loading import BUNDLED
from tunelm.server.app import create_app
from tunelm.server.engine import LightEngine
from tunelm.server.settings import ServerSettings

from .conftest import make_task
from .serving import Running, serving
from .test_serve import make_adapter, say

NANO = BUNDLED["tunelm-nano"]


class Vllm:
    """What the fake wrote down."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def said(self, what: str) -> list[Any]:
        path = self.folder / "record.jsonl"
        lines = path.read_text().splitlines() if path.is_file() else []
        return [detail for name, detail in map(json.loads, lines) if name == what]

    def waits_for(self, what: str) -> Any:
        for _ in range(1200):
            if found := self.said(what):
                return found[-1]
            time.sleep(0.05)
        raise AssertionError(f"never {what}")


@pytest.fixture
def vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Vllm:
    """A command `vllm` on the PATH."""
    folder = tmp_path / "vllm"
    folder.mkdir()
    command = folder / "vllm"
    fake, source = Path(__file__).with_name("fake_vllm.py"), Path(tunelm.__file__).parents[1]
    command.write_text(
        f'#!/bin/sh\nexport PYTHONPATH="{source}"\nexec "{sys.executable}" "{fake}" "$@"\n'
    )
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_VLLM", str(folder))
    return Vllm(folder)


def answers(server: Running, model: str) -> list[str]:
    """Texts, log-probabilities and ends of several ways to ask."""
    asked: list[dict[str, Any]] = [
        {},
        {"stop": ["a"], "max_tokens": 40},
        {"max_tokens": 5, "logprobs": True, "top_logprobs": 2},
    ]
    found: list[str] = []
    for options in asked:
        message = [{"role": "user", "content": "Say hello"}]
        answer = server.sdk.chat.completions.create(
            model=model, messages=message, temperature=0, **{"max_tokens": 30, **options}
        )
        one = answer.choices[0]
        scored = one.logprobs.content if one.logprobs else []
        tops = [(t.token, [(x.token, round(x.logprob, 3)) for x in t.top_logprobs]) for t in scored]
        found.append(str((one.message.content, one.finish_reason, answer.usage, tops)))
    stream = server.sdk.chat.completions.create(
        model=model, messages=message, temperature=0, max_tokens=30, stream=True
    )
    found.append("".join(c.choices[0].delta.content or "" for c in stream if c.choices))
    echoed = server.sdk.completions.create(
        model=model, prompt="The heart", max_tokens=0, echo=True, logprobs=1, temperature=0
    )
    values = [v and round(v, 3) for v in echoed.choices[0].logprobs.token_logprobs]
    return [*found, str((echoed.choices[0].text, values))]


def test_every_answer_is_the_one_of_the_light_engine(tmp_path: Path, vllm: Vllm):
    adapter = make_adapter(tmp_path / "warm", NANO, 2, "tunelm-nano")
    with serving(adapter, engine="light") as light:
        expected = [answers(light, name) for name in ("tunelm-nano", "warm")]
    with serving(adapter, engine="vllm", max_length=512) as server:
        assert [answers(server, name) for name in ("tunelm-nano", "warm")] == expected
        assert server.idle()["adapters"] == 1
        (options,) = vllm.said("options")
        pid = vllm.said("pid")[0]
        assert psutil.pid_exists(pid)
        assert vllm.said("loaded") == [str(adapter.resolve())]
    assert expected[0] != expected[1]
    assert not psutil.pid_exists(pid), "vLLM outlived the server"
    assert vllm.said("may load adapters") == ["True"]
    assert options["host"] == "127.0.0.1"
    assert options["enable_lora"]
    assert options["max_lora_rank"] == 8, "the smallest that vLLM has for rank 4"
    assert options["max_model_len"] == 512
    assert options["dtype"] == "float32"


@pytest.mark.skipif("TUNELM_VLLM" not in os.environ, reason="names the command of a real vLLM")
def test_a_real_vllm_answers_as_the_light_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """To the letter on a processor; on a GPU both round, and near ties may fall otherwise."""
    monkeypatch.setenv("PATH", f"{Path(os.environ['TUNELM_VLLM']).parent}:{os.environ['PATH']}")
    monkeypatch.delenv("PYTHONPATH", raising=False)  # vLLM has packages of its own
    adapter = make_adapter(tmp_path / "warm", NANO, 2, "tunelm-nano")
    with serving(adapter, engine="light") as light:
        expected = [answers(light, name) for name in ("tunelm-nano", "warm")]
    with serving(adapter, engine="vllm", max_length=512) as server:
        assert [answers(server, name) for name in ("tunelm-nano", "warm")] == expected


def test_one_vllm_both_verifies_a_run_and_serves_it(tmp_path: Path, tiny_model: Path, vllm: Vllm):
    task = make_task(tmp_path, tiny_model)
    routes = '["constant", "baseline", "prompt", "local"]'
    task.write_text(task.read_text().replace(routes, '["baseline"]'))
    tunelm.compare(task, tmp_path / "run")
    with serving(tmp_path / "run", engine="vllm", verify=tmp_path / "run") as server:
        assert server.app.state.verified == ["boxes/baseline: 32 of 32 answers as evaluated"]
        assert say(server, "boxes/baseline", "What is the code of box 3?")
        assert len(vllm.said("pid")) == 1


def test_a_client_that_leaves_and_a_model_that_is_deleted_are_told_to_vllm(
    tmp_path: Path, vllm: Vllm
):
    adapter = make_adapter(tmp_path / "warm", NANO, 2, "tunelm-nano")
    with serving(adapter, engine="vllm") as server:
        assert say(server, "warm", "Say hello")
        never = {str(token): -100 for token in server.app.state.engine.ends}
        stream = server.sdk.chat.completions.create(
            model="warm",
            messages=[{"role": "user", "content": "Say hello"}],
            stream=True,
            max_tokens=900,
            logit_bias=never,
        )
        next(iter(stream))
        stream.close()
        vllm.waits_for("left")
        server.app.state.target.catalog.remove("warm")
        assert vllm.waits_for("unloaded") == str(adapter.resolve())


def test_vllm_that_does_not_come_up_ends_the_command_with_its_last_words(vllm: Vllm):
    (vllm.folder / "crash").write_text("loading the weights\nValueError: no kernel for this GPU")
    with pytest.raises(ModelError, match=r"ended with code 1 before it was ready: .*no kernel"):
        create_app(ServerSettings("tunelm-nano", Path("nowhere"), train=False, engine="vllm"))
    assert not psutil.pid_exists(vllm.said("pid")[0])


def test_vllm_that_dies_later_fails_the_answers_and_the_readiness(vllm: Vllm):
    with serving("tunelm-nano", engine="vllm") as server:
        (vllm.folder / "die").touch()
        with pytest.raises(openai.InternalServerError, match="vLLM ended"):
            say(server, "tunelm-nano", "Say hello")
        ready = server.url.removesuffix("v1") + "ready"
        assert httpx.get(ready).status_code == 503
        with pytest.raises(openai.InternalServerError):
            say(server, "tunelm-nano", "Say hello")


def test_an_adapter_that_vllm_does_not_take_is_refused_with_a_line(tmp_path: Path, vllm: Vllm):
    adapter = make_adapter(tmp_path / "dora", NANO, 2, "tunelm-nano")
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"use_dora": True}))
    settings = ServerSettings(str(adapter), tmp_path, train=False, engine="vllm")
    with pytest.raises(ConfigError, match="dora: vLLM takes no DoRA adapters"):
        create_app(settings)
    assert vllm.said("pid") == []


def test_without_a_gpu_and_without_vllm_the_light_engine_answers(
    tmp_path: Path, vllm: Vllm, monkeypatch: pytest.MonkeyPatch
):
    app = create_app(ServerSettings("tunelm-nano", tmp_path, train=False))
    assert isinstance(app.state.engine, LightEngine)
    assert app.state.which == "light: the model computes on cpu"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ModelError, match="vLLM is not installed"):
        create_app(ServerSettings("tunelm-nano", tmp_path, train=False, engine="vllm"))
    assert ModelConfig().device == "auto"
