"""`tunelm serve`: what is served from where, by how many at once, and when it refuses to start."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import httpx
import openai
import pytest
import torch
from safetensors.torch import load_file, save_file

import tunelm
from tunelm.cli import main
from tunelm.config import ModelConfig
from tunelm.errors import ConfigError, ModelError
from tunelm.models.identity import base_identity
from tunelm.models.loading import BUNDLED, load_base
from tunelm.models.local import open_local
from tunelm.models.render import encode_prompt
from tunelm.server.app import create_app
from tunelm.server.asking import Ask
from tunelm.server.engine import LightEngine
from tunelm.server.settings import ServerSettings
from tunelm.types import Message, Request

from .conftest import make_task
from .serving import Running, serving, slowly

QUESTIONS = [
    "What is a list in Python?",
    "Explain what a loop does, with an example.",
    "How many legs has a spider?",
    "Say hello",
    "Name the capital of Peru, of Chile, of Ecuador and of Bolivia, and a river of each of them.",
]
NANO = BUNDLED["tunelm-nano"]


def make_adapter(folder: Path, base: Path, seed: int, name: str | None = None) -> Path:
    """A LoRA adapter of random weights that changes every answer, as training would leave it."""
    from peft import LoraConfig, get_peft_model

    config = ModelConfig(base=name or str(base))
    torch.manual_seed(seed)
    lora = LoraConfig(
        r=4,
        lora_alpha=4,
        target_modules="all-linear",
        init_lora_weights=False,
        use_rslora=seed % 2 == 0,
        task_type="CAUSAL_LM",
    )
    get_peft_model(load_base(config).model, lora).save_pretrained(folder)
    card = {"base": config.model_dump(mode="json"), "identity": base_identity(base), "system": ""}
    (folder / "tunelm.json").write_text(json.dumps(card))
    return folder


def say(running: Running, model: str, question: str, **options: Any) -> str:
    answer = running.sdk.chat.completions.create(
        model=model, messages=[{"role": "user", "content": question}], temperature=0, **options
    )
    return answer.choices[0].message.content or ""


def at_once(work: Callable[[int], None], count: int) -> None:
    threads = [threading.Thread(target=work, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A finished run of every default route."""
    folder = tmp_path_factory.mktemp("run")
    tunelm.compare(make_task(folder, tiny_model), folder / "run")
    return folder / "run"


def test_the_bundled_model_answers_many_at_once_as_it_answers_one():
    local = open_local(ModelConfig(), None)
    requests = [
        Request((Message("user", q),), max_tokens=8 + 9 * i) for i, q in enumerate(QUESTIONS)
    ]
    expected = [answer.text for answer in local.complete(requests)]
    found: dict[int, str] = {}
    with serving("tunelm-nano", max_batch=4) as server:

        def ask(number: int) -> None:
            which = number % len(QUESTIONS)
            time.sleep(0.005 * number)
            found[number] = say(server, "tunelm-nano", QUESTIONS[which], max_tokens=8 + 9 * which)

        at_once(ask, 20)
    assert [found[i] for i in range(20)] == expected * 4


def test_adapters_are_loaded_and_dropped_while_others_answer(tmp_path: Path):
    """Three models, room for one adapter: each answer is that of its own model."""
    folders = [make_adapter(tmp_path / f"a{i}", NANO, i, "tunelm-nano") for i in range(2)]
    requests = [Request((Message("user", q),), max_tokens=12) for q in QUESTIONS]
    expected = {
        name: [answer.text for answer in open_local(ModelConfig(), folder).complete(requests)]
        for name, folder in (("tunelm-nano", None), ("a0", folders[0]), ("ft:a1", folders[1]))
    }
    assert len({tuple(texts) for texts in expected.values()}) == 3
    found: dict[int, bool] = {}
    with serving(folders[0], max_adapters=1) as server:
        catalog = server.app.state.target.catalog
        catalog.add(dataclasses.replace(catalog.get("a0"), id="ft:a1", adapter=folders[1]))
        assert [m.id for m in server.sdk.models.list()] == ["tunelm-nano", "a0", "ft:a1"]
        assert httpx.get(f"{server.url}/models/ft:a1").json()["parent"] == "tunelm-nano"

        def ask(number: int) -> None:
            name, which = ("tunelm-nano", "a0", "ft:a1")[number % 3], number % len(QUESTIONS)
            text = say(server, name, QUESTIONS[which], max_tokens=12)
            found[number] = text == expected[name][which]

        at_once(ask, 12)
        assert found == dict.fromkeys(range(12), True)
        assert server.idle()["adapters"] == 1
        for name in ("a0", "ft:a1"):
            catalog.remove(name)
        with pytest.raises(openai.NotFoundError):
            say(server, "a0", "x")
        for _ in range(2):  # what was forgotten goes after the step under way
            said = say(server, "tunelm-nano", QUESTIONS[0], max_tokens=12)
            assert said == expected["tunelm-nano"][0]
        assert server.idle()["adapters"] == 0


def test_an_adapter_that_cannot_be_loaded_fails_its_own_requests_only(tmp_path: Path):
    broken = make_adapter(tmp_path / "broken", NANO, 0, "tunelm-nano")
    weights = broken / "adapter_model.safetensors"
    with serving(broken) as server:
        save_file({f"x.{k}": v for k, v in load_file(weights).items()}, weights)
        with pytest.raises(openai.InternalServerError, match="cannot be loaded"):
            say(server, "broken", "x", stream=False)
        assert say(server, "tunelm-nano", "x", max_tokens=2)


def test_a_model_deleted_before_its_turn_is_not_found(tmp_path: Path):
    adapter = make_adapter(tmp_path / "short-lived", NANO, 0, "tunelm-nano")
    with serving(adapter) as server:
        shutil.rmtree(adapter)  # its name is still known, as to a request that waits
        with pytest.raises(openai.NotFoundError, match="deleted before its turn"):
            say(server, "short-lived", "x", stream=False)


def test_an_adapter_of_another_base_is_refused_at_the_start(tmp_path: Path, tiny_model: Path):
    adapter = make_adapter(tmp_path / "adapter", tiny_model, 0)
    card = json.loads((adapter / "tunelm.json").read_text())
    card["base"]["base"] = "tunelm-nano"
    (adapter / "tunelm.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match="not the one the adapter was trained on"):
        create_app(ServerSettings(str(adapter), tmp_path, train=False))


def test_a_run_serves_its_routes_as_they_were_evaluated(run: Path):
    with serving(run, verify=run) as server:
        names = [model.id for model in server.sdk.models.list()]
        assert names == ["model", "boxes/baseline", "boxes/prompt", "boxes/local"]
        assert "boxes/" in server.app.state.target.winner
        assert [line.split(":")[0] for line in server.app.state.verified] == names[1:]
        assert [line.split()[0] for line in server.app.state.target.left_out] == ["constant"]
        question = "What is the code of box 7?"
        for name in names[1:]:
            model = tunelm.load(run / name.removeprefix("boxes/"))
            request = Request((Message("user", question),), max_tokens=8)
            assert say(server, name, question, max_tokens=8) == model.complete([request])[0].text
        assert server.sdk.models.retrieve("boxes/local").id == "boxes/local"


def test_a_run_of_another_base_is_refused(run: Path, tmp_path: Path):
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    config = json.loads((copied / "config.json").read_text())
    config["base"]["weights_sha256"] = "0" * 64
    (copied / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="its weights are others now"):
        create_app(ServerSettings(str(copied / "prompt"), tmp_path, train=False))


def test_a_single_route_and_an_adapters_folder_can_be_served(run: Path):
    with serving(run / "prompt") as server:
        assert [model.id for model in server.sdk.models.list()] == ["model", "boxes/prompt"]
    adapter = run / "routes/local/seed-0/adapted"
    with serving(adapter, verify=run / "local") as server:
        assert [model.id for model in server.sdk.models.list()] == ["model", "adapted"]
    for target, said in (
        (run / "constant", "no model to serve"),
        (run / "nothing", "neither|cannot be loaded"),
        ("openai/gpt-4o", "behind an API"),
    ):
        with pytest.raises((ConfigError, ModelError), match=said):
            create_app(ServerSettings(str(target), run, train=False))


def test_verify_refuses_another_adapter_and_one_that_does_nothing(
    run: Path, tiny_model: Path, tmp_path: Path
):
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    settings = ServerSettings(str(copied), tmp_path, train=False, verify=copied)
    weights = copied / "routes/local/seed-0/adapted/adapter_model.safetensors"
    original = load_file(weights)
    save_file({k: v * (0 if "lora_B" in k else 1) for k, v in original.items()}, weights)
    with pytest.raises(ModelError, match=r"changes nothing|answer as the run's model"):
        create_app(settings)
    save_file({k: torch.randn_like(v) for k, v in original.items()}, weights)
    with pytest.raises(ModelError, match="does not answer as the run's model did"):
        create_app(settings)
    save_file({f"base_model.{k}": v for k, v in original.items()}, weights)
    with pytest.raises(ModelError, match="adapter cannot be loaded"):
        create_app(settings)
    save_file(original, weights)
    create_app(settings)
    with pytest.raises(ConfigError, match="none of its routes is served"):
        create_app(dataclasses.replace(settings, target=str(tiny_model)))
    with pytest.raises(ConfigError, match="no run there"):
        create_app(dataclasses.replace(settings, verify=tiny_model))


def test_adapters_take_turns_where_there_is_room_for_one(tmp_path: Path):
    folders = [make_adapter(tmp_path / f"a{i}", NANO, i, "tunelm-nano") for i in range(3)]
    engine = LightEngine(ModelConfig(), max_batch=2, max_adapters=1)
    asks = [Ask([5, 6, 7 + i], 3, folders[i % 3]) for i in range(9)]
    engine.start()
    answers = engine.complete(asks)
    engine.stop()
    assert [answer.error for answer in answers] == [None] * 9
    assert engine.counts()["answered"] == 9


SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "gpt_neox": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    "mistral": {"sliding_window": 8},
    "gemma3_text": {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
}


def make_words(folder: Path) -> None:
    """A tokenizer that writes spaces as a sign and unknown characters as bytes, as Llama 2's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(set("".join(QUESTIONS)) - {" "})
    words = [f"▁{letter}" for letter in letters]
    signs = ["<pad>", "<unk>", "<end>", *(f"<0x{i:02X}>" for i in range(256))]
    vocab = {token: i for i, token in enumerate([*signs, "▁", *letters, *words])}
    merges = [("▁", letter) for letter in letters]
    tokenizer = Tokenizer(models.BPE(vocab, merges, byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()  # pyright: ignore
    parts = [decoders.ByteFallback(), decoders.Metaspace(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(parts)  # pyright: ignore
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", unk_token="<unk>"
    )
    fast.save_pretrained(folder)


@pytest.mark.parametrize("kind", SHAPES)
def test_any_kind_of_model_is_served_as_it_generates(kind: str, tiny_model: Path, tmp_path: Path):
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoTokenizer

    if kind == "mistral":
        make_words(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path if kind == "mistral" else tiny_model)
    shape = SHAPES[kind]
    if kind in ("mistral", "gemma3_text"):
        small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
        shape = {**small, **heads, "max_position_embeddings": 256, **shape}
    ends = {"bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0}
    torch.manual_seed(1)
    config = CONFIG_MAPPING[kind](vocab_size=len(tokenizer), **ends, **shape)
    model = AutoModelForCausalLM.from_config(config).eval()
    for weights in model.parameters():
        if weights.dim() > 1:  # answers that depend on all that was said before
            torch.nn.init.normal_(weights, std=0.3)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)

    engine = LightEngine(ModelConfig(base=str(tmp_path), max_length=200), max_batch=3)
    prompts = [encode_prompt(tokenizer, (Message("user", q),)) for q in QUESTIONS]
    asks = [Ask(prompt, 10 + 5 * i, top=0) for i, prompt in enumerate(prompts)]
    engine.start()
    answers = engine.complete(asks)
    streamed = ["".join(p.text for p in pieces(engine, ask)) for ask in asks]
    engine.stop()
    assert (engine.why_single is None) == (kind not in ("bloom", "mamba"))
    for ask, answer in zip(asks, answers, strict=True):
        ids = torch.tensor([ask.prompt])
        whole = model.generate(ids, max_new_tokens=ask.max_tokens, do_sample=False)
        expected = [t for t in whole[0, len(ask.prompt) :].tolist() if t != 2]
        assert [scored.token for scored in answer.scored] == expected
        assert answer.text == tokenizer.decode(expected, skip_special_tokens=True)
    assert streamed == [answer.text for answer in answers]


def pieces(engine: LightEngine, ask: Ask) -> list[Any]:
    """The pieces of one streamed answer."""
    found: list[Any] = []
    done = threading.Event()

    def emit(_: int, piece: Any) -> None:
        found.append(piece)
        if piece.last:
            done.set()

    engine.submit([dataclasses.replace(ask, stream=True)], emit)
    done.wait()
    return found


def started(*options: str, env: dict[str, str] | None = None) -> tuple[subprocess.Popen[str], str]:
    """A server process that is ready, and its ready line."""
    command = [sys.executable, "-m", "tunelm", "serve", *options, "--port", "0", "--no-train"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, **pipes, env=env)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise AssertionError(process.communicate()[1])
    return process, line


def test_the_command_says_when_it_is_ready_and_ends_when_told(tiny_model: Path, tmp_path: Path):
    ready = tmp_path / "ready.json"
    process, line = started(str(tiny_model), "--ready-file", str(ready))
    said = json.loads(ready.read_text())
    assert line == f"ready: {said['url']} (models: model)\n"
    assert said["pid"] == process.pid
    assert httpx.get(f"{said['url']}/models").json()["data"][0]["id"] == "model"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[1].split() == ["interrupted"]
    assert process.returncode == 130
    assert not ready.exists()


def test_it_ends_with_the_process_it_belongs_to(tiny_model: Path):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as parent:
        process, _ = started(str(tiny_model), "--parent", str(parent.pid))
        parent.kill()
    assert process.communicate(timeout=30)[1] == ""
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["no/such-model"], 1, "cannot be loaded"),
        (["--host", "0.0.0.0"], 2, "a key is needed"),
        (["--api-key-env", "TUNELM_NO_SUCH_KEY"], 2, "is not set"),
        (["--api-key-env", "sk-secret-0"], 2, "never the key itself"),
        (["--verify", "nowhere"], 2, "no run there"),
        (["--port", "PORT"], 2, "cannot listen there"),
        (["--state", "STATE"], 1, "another server uses this folder"),
    ],
    ids=lambda v: str(v)[:30],
)
def test_a_wrong_start_is_one_line(
    options: list[str],
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    before = signal.getsignal(signal.SIGTERM)
    with socket.create_server(("127.0.0.1", 0)) as taken, filelock.FileLock(tmp_path / ".lock"):
        names = {"PORT": str(taken.getsockname()[1]), "STATE": str(tmp_path)}
        given = [names.get(option, option) for option in options]
        given += [] if "--state" in options else ["--no-train"]
        monkeypatch.setattr(sys, "argv", ["tunelm", "serve", *given])
        with pytest.raises(SystemExit) as ended:
            main()
    signal.signal(signal.SIGTERM, before)
    out, err = capfd.readouterr()
    (line,) = err.splitlines()
    assert (ended.value.code, out) == (code, "")
    assert said in line
    assert "sk-secret" not in line


COMPOSED = ["rag", "rag-local", "cot", "steps", "prompt", "hybrid", "nearest"]


@pytest.fixture(scope="module")
def composed_run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A run whose routes are more than one prompt: retrieval, chain of thought, named steps."""
    folder = tmp_path_factory.mktemp("composed")
    task = make_task(folder, tiny_model)
    (folder / "notes.md").write_text("\n\n".join(f"Box {i} is at shelf {i}." for i in range(60)))
    settings = [
        f"compare.routes={[*COMPOSED, 'baseline', 'distill']}",
        'data.corpus="notes.md"',
        "routes.rag-local.kind=rag",
        "routes.rag-local.generator=local",
        "routes.cot.kind=prompt",
        "routes.cot.strategy=zero-shot",
        "routes.cot.program=cot",
        "routes.cot.reasoning_tokens=8",
        "routes.steps.kind=prompt",
        "routes.steps.strategy=zero-shot",
        "routes.steps.program=steps",
        'routes.steps.steps=[{name="topic", instructions="Name the topic."}]',
        "routes.steps.reasoning_tokens=8",
        "routes.hybrid.training.max_steps=4",
        "routes.distill.student=tunelm-nano-small",
        "routes.distill.keep=all",
        "routes.distill.training.max_steps=4",
    ]
    tunelm.compare(task, folder / "run", overrides=settings)
    return folder / "run"


def test_routes_of_several_calls_are_served_as_they_were_evaluated(composed_run: Path):
    with serving(composed_run, verify=composed_run) as server:
        served = [model.id for model in server.sdk.models.list()]
        assert served == ["model", *(f"boxes/{name}" for name in [*COMPOSED, "baseline"])]
        assert [line.split(":")[0] for line in server.app.state.verified] == served[1:]
        (left,) = server.app.state.target.left_out
        assert "distill (has a base of its own: serve it alone" in left
        question = "What is the code of box 7?"
        for name in COMPOSED:
            model = tunelm.load(composed_run / name)
            asked = Request((Message("user", question),), max_tokens=8)
            wanted = model.complete([asked])[0]
            assert say(server, f"boxes/{name}", question, max_tokens=8) == wanted.text
            whole = say(server, f"boxes/{name}", question, max_tokens=8, stream=False)
            assert whole == wanted.text
    with serving(composed_run / "distill") as server:
        names = [model.id for model in server.sdk.models.list()]
        assert names == ["tunelm-nano-small", "boxes/distill"]


def test_what_a_route_of_several_calls_cannot_give_is_refused(composed_run: Path):
    with serving(composed_run / "cot") as server:
        ask = [{"role": "user", "content": "x"}]
        for name, value in (("logprobs", True), ("top_p", 0.5), ("presence_penalty", 1.0)):
            reply = server.post(model="boxes/cot", messages=ask, **{name: value})
            assert reply.status_code == 400, reply.text
            assert reply.json()["error"]["param"] == name
        long = [{"role": "user", "content": "box " * 20_000}]
        reply = server.post(model="boxes/cot", messages=long)
        assert reply.json()["error"]["code"] == "context_length_exceeded"
        reply = server.post(model="boxes/cot", messages=ask, n=2, temperature=1.0, max_tokens=4)
        assert len(reply.json()["choices"]) == 2
        assert reply.json()["usage"]["completion_tokens"] > 0


def test_a_client_that_leaves_ends_the_work_of_several_calls(
    composed_run: Path, monkeypatch: pytest.MonkeyPatch
):
    with serving(composed_run / "steps") as server:
        slowly(server.app, monkeypatch)
        ask = {"model": "boxes/steps", "messages": [{"role": "user", "content": "x"}]}
        url = f"{server.url}/chat/completions"
        with pytest.raises(httpx.ReadTimeout):  # 200 tokens would take half a minute
            httpx.post(url, json={**ask, "n": 64, "max_tokens": 200}, timeout=1)
        assert server.idle()["running"] == 0
        assert server.post(**ask, max_tokens=2).status_code == 200
