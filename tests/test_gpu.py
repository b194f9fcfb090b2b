"""What training takes of a machine: choices, their trial, QLoRA, and the benchmark for a GPU.

There is no GPU where tests run. What only a GPU can show is left to `benchmarks/gpu.sh`; here is
what can go wrong without one: wrong masks, a wrong choice, a trial that leaves traces.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import subprocess
import sys
import types
from importlib.machinery import ModuleSpec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch.nn.functional import scaled_dot_product_attention

import tunelm
from tunelm.cli import cli
from tunelm.config import ModelConfig
from tunelm.errors import ConfigError, PrerequisiteError, TrainingError
from tunelm.models import quantized
from tunelm.models.loading import explained_dtype, load_base
from tunelm.models.local import open_local
from tunelm.route_settings import LocalSettings
from tunelm.training import machine, worker
from tunelm.training.adapter import make_trainable, trainable
from tunelm.training.job import TrainingJob, TrainingRow, write_job
from tunelm.training.machine import FLASH, Choice
from tunelm.training.memory_run import dry_run
from tunelm.training.packing import PackedRow
from tunelm.training.rows import EncodedRow
from tunelm.training.steps import Stepper, TrainRow, collate, logits_of
from tunelm.types import Message, Request

ROOT = Path(__file__).parents[1]
HAS_BITSANDBYTES = importlib.util.find_spec("bitsandbytes") is not None
ROWS = [
    EncodedRow(str(i), tuple((i * 13 + j * 7) % 200 for j in range(5 + i)), 1) for i in range(9)
]
PACKED: list[TrainRow] = [PackedRow(tuple(ROWS[i : i + 3])) for i in range(0, 9, 3)]


def stepper(**settings: Any) -> Stepper:
    """The bundled model with an adapter of random weights, so that all gradients are there."""
    model: Any = make_trainable(load_base(ModelConfig()).model, LocalSettings(**settings), 0)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter.normal_(std=0.05)
    return Stepper(model, 0, 10_000, False)


def gradients(one: Stepper, rows: list[TrainRow]) -> tuple[float, list[Any]]:
    one.model.zero_grad()
    loss = one.backward(rows).loss
    return loss, [p.grad.clone() for p in trainable(one.model).values()]


def install_flash_attention(monkeypatch: pytest.MonkeyPatch, leaks: bool = False) -> list[int]:
    """A `flash_attn` whose kernels are computed text by text, for Transformers' own code to call.

    Returns a list that grows with the texts of each call. `leaks`: texts see each other.
    """
    calls: list[int] = []

    def attend(q: Any, k: Any, v: Any, scale: float | None) -> Any:
        q, k, v = (x.transpose(-3, -2) for x in (q, k, v))
        return scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True)

    def dense(q: Any, k: Any, v: Any, softmax_scale: Any = None, causal: bool = False) -> Any:
        assert causal
        calls.append(1)
        return attend(q, k, v, softmax_scale).transpose(-3, -2)

    def ragged(
        q: Any,
        k: Any,
        v: Any,
        cu_seqlens_q: Any,
        cu_seqlens_k: Any,
        max_seqlen_q: int,
        max_seqlen_k: int,
        softmax_scale: Any = None,
        causal: bool = False,
    ) -> Any:
        assert causal
        assert cu_seqlens_q.dtype == torch.int32
        ends = cu_seqlens_q.tolist()
        sizes = [b - a for a, b in pairwise(ends)]
        assert ends == cu_seqlens_k.tolist()
        assert (ends[0], ends[-1]) == (0, len(q))
        assert max(sizes) == max_seqlen_q == max_seqlen_k
        calls.append(len(sizes))
        parts = [(0, len(q))] if leaks else list(pairwise(ends))
        return torch.cat(
            [attend(q[a:b], k[a:b], v[a:b], softmax_scale).transpose(-3, -2) for a, b in parts]
        )

    package: Any = types.ModuleType("flash_attn")
    package.__spec__ = ModuleSpec("flash_attn", None)
    package.flash_attn_func, package.flash_attn_varlen_func = dense, ragged
    package.flash_attn_with_kvcache = None
    padding: Any = types.ModuleType("flash_attn.bert_padding")
    padding.pad_input = padding.unpad_input = None
    monkeypatch.setitem(sys.modules, "flash_attn", package)
    monkeypatch.setitem(sys.modules, "flash_attn.bert_padding", padding)
    import transformers.modeling_flash_attention_utils as flash

    monkeypatch.setattr(flash, "is_flash_attn_2_available", lambda: True)
    for name in ("_loaded_implementation", "_flash_fn", "_flash_varlen_fn", "_flash_kvcache_fn"):
        if hasattr(flash, name):
            monkeypatch.setattr(flash, name, None)
    from transformers import PreTrainedModel, modeling_utils

    there = modeling_utils.FLASH_ATTENTION_COMPATIBILITY_MATRIX[2]
    monkeypatch.setitem(there, "general_availability_check", lambda: True)
    monkeypatch.setattr(PreTrainedModel, "_flash_attn_can_dispatch", lambda *_, **__: True)
    return calls


@pytest.mark.parametrize(
    "rows", [ROWS, PACKED, [*ROWS[:2], *PACKED]], ids=["rows", "packed", "both"]
)
def test_rows_end_to_end_have_the_loss_and_gradient_of_rows_with_a_mask(
    rows: list[TrainRow], monkeypatch: pytest.MonkeyPatch
):
    calls = install_flash_attention(monkeypatch)
    one = stepper()
    loss, expected = gradients(one, rows)
    padded = one.padded_tokens(rows)
    one.model.get_base_model().set_attn_implementation(FLASH)
    found, got = gradients(one, rows)
    assert set(calls) == {sum(len(row.pieces) for row in rows)}, "all texts in one call a layer"
    assert found == pytest.approx(loss, rel=1e-5)
    for a, b in zip(expected, got, strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-6)
    assert one.padded_tokens(rows) == sum(row.length for row in rows) < padded


def rehearsed(one: Stepper, rows: list[TrainRow], **chosen: Choice) -> machine.Choices:
    settings = LocalSettings(
        attention="auto", compile="on" if "compile" in chosen else "auto", batch_size=3
    )
    job = TrainingJob(model=ModelConfig(), settings=settings)
    choices = machine.choose(LocalSettings(), ModelConfig()) | chosen
    return machine.rehearse(one, rows, job, choices | {"device": Choice("cuda", "as if")})


def test_a_trial_keeps_what_agrees_and_takes_back_what_does_not(monkeypatch: pytest.MonkeyPatch):
    one = stepper()
    base = one.model.get_base_model()
    install_flash_attention(monkeypatch, leaks=True)
    found = rehearsed(one, PACKED, attention=Choice(FLASH, "there"))["attention"]
    assert found.value == base.config._attn_implementation == "sdpa"
    assert "flash_attention_2 was tried: the loss is" in found.why
    install_flash_attention(monkeypatch)
    found = rehearsed(one, PACKED, attention=Choice(FLASH, "there"))["attention"]
    assert found == (FLASH, "there")
    assert base.config._attn_implementation == FLASH


def test_a_trial_leaves_no_trace(monkeypatch: pytest.MonkeyPatch):
    one = stepper(dropout=0.5, neftune_alpha=5.0)
    before = {name: p.detach().clone() for name, p in trainable(one.model).items()}
    state = torch.get_rng_state()
    one.model.eval()
    monkeypatch.setattr(machine, "compile_blocks", lambda model: None)
    rehearsed(one, PACKED, compile=Choice("on", ""))
    assert torch.equal(state, torch.get_rng_state())
    assert not one.model.training
    for name, parameter in trainable(one.model).items():
        assert parameter.grad is None
        assert torch.equal(parameter, before[name])


def test_compiling_waits_for_a_long_run_and_gives_way_where_it_fails(
    monkeypatch: pytest.MonkeyPatch,
):
    def fails(_: object) -> None:
        raise RuntimeError("no C compiler\nand more")

    one, job = stepper(), TrainingJob(model=ModelConfig(), settings=LocalSettings())
    monkeypatch.setattr(machine, "compile_blocks", fails)
    on = machine.choose(LocalSettings(), ModelConfig()) | {
        "device": Choice("cuda", "as if"),
        "compile": Choice("on", ""),
    }
    short = machine.rehearse(one, ROWS, job, on)["compile"]
    assert short.value == "off"
    assert "too few to pay for it" in short.why
    monkeypatch.setattr(machine, "COMPILE_FROM_S", 0.0)
    failed = machine.rehearse(one, ROWS, job, on)["compile"]
    assert failed == ("off", "on was tried: no C compiler")
    asked = job.model_copy(update={"settings": LocalSettings(compile="on")})
    with pytest.raises(ConfigError, match=r"was tried on a step and .* no C compiler Take compile"):
        machine.rehearse(one, ROWS, asked, on)


def test_a_step_that_does_not_fit_is_one_line_that_says_what_to_lower(
    monkeypatch: pytest.MonkeyPatch,
):
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Stepper, "backward", full)
    with pytest.raises(TrainingError, match=r"a step of \d+ tokens \(3 rows of at most") as found:
        rehearsed(stepper(), ROWS, attention=Choice("sdpa", ""))
    assert "Lower batch_size" in str(found.value)
    assert "\n" not in str(found.value)


def test_compiled_blocks_train_to_the_same_loss(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
):
    """With the part of the compiler that needs no C compiler, and so takes seconds."""
    whole = torch.nn.Module.compile
    compiled: set[str] = set()

    def traced(block: Any, **how: Any) -> None:
        compiled.add(type(block).__name__)
        whole(block, backend="aot_eager", **how)

    monkeypatch.setattr(torch.nn.Module, "compile", traced)
    losses: list[float] = []
    for wish in ("off", "on"):
        settings = LocalSettings(max_steps=3, stop_on="none", compile=wish)
        job = TrainingJob(model=ModelConfig(base=str(tiny_model)), settings=settings)
        write_job(tmp_path / wish, job, chats(12), [])
        result = worker.run(tmp_path / wish)
        assert result["machine"]["compile"] == {"value": wish, "why": "asked for"}
        losses.append(result["train_loss"])
    assert compiled == {"LlamaDecoderLayer"}
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_bfloat16_where_the_gpu_computes_in_it(monkeypatch: pytest.MonkeyPatch):
    def asked(including_emulation: bool = True) -> bool:
        return including_emulation  # as on a card before Ampere

    monkeypatch.setattr("tunelm.models.loading.choose_device", lambda wanted: wanted)
    on_gpu = ModelConfig(device="cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", asked)
    assert explained_dtype(on_gpu) == (
        torch.float32,
        "this GPU has no bfloat16, and float16 overflows",
    )
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    assert explained_dtype(on_gpu)[0] == torch.bfloat16
    assert explained_dtype(ModelConfig(device="cuda", dtype="float32"))[0] == torch.float32
    assert explained_dtype(ModelConfig(device="cpu"))[0] == torch.float32


def test_the_mask_has_the_type_of_attention_and_rows_a_multiple_of_eight_apart():
    batch = collate(PACKED, 0, torch.device("cpu"), torch.bfloat16)
    assert batch.mask is not None
    assert batch.mask.dtype == torch.bfloat16
    assert batch.mask.shape[-1] % 8, "else this shows nothing"
    assert batch.mask.stride(-2) % 8 == 0
    assert batch.mask.stride(-1) == 1


def test_adapters_under_autocast_need_no_copy_of_their_input_in_float32():
    from peft.helpers import disable_input_dtype_casting

    one = stepper()
    one.model.get_base_model().to(torch.bfloat16)
    for parameter in trainable(one.model).values():
        parameter.data = parameter.data.float()
    batch = collate(ROWS, 0, torch.device("cpu"), torch.bfloat16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = logits_of(one.model, batch)
        with disable_input_dtype_casting(one.model):
            assert torch.equal(logits_of(one.model, batch), expected)


def chats(count: int) -> list[TrainingRow]:
    return [
        TrainingRow(
            str(i), (Message("user", f"What is {i}?"), Message("assistant", f"It is {i} and {i}."))
        )
        for i in range(count)
    ]


def qlora_job(work: Path, **settings: Any) -> Path:
    job = TrainingJob(
        model=ModelConfig(),
        settings=LocalSettings(method="qlora", max_steps=12, stop_on="none", **settings),
    )
    write_job(work, job, chats(24), chats(4))
    return work


@pytest.mark.skipif(HAS_BITSANDBYTES, reason="bitsandbytes is installed")
def test_qlora_without_bitsandbytes_is_refused_with_one_line(tmp_path: Path):
    with pytest.raises(PrerequisiteError, match="bitsandbytes is not installed: pip install"):
        worker.run(qlora_job(tmp_path / "work"))


def test_qlora_trains_and_answers_on_a_base_in_four_bits(tmp_path: Path):
    pytest.importorskip("bitsandbytes")
    result = worker.run(qlora_job(tmp_path / "work"))
    assert result["machine"]["quantization"] == {"value": "nf4", "why": "method = qlora"}
    assert result["dev_loss"] < 0.8 * result["dev_loss_before"]
    local = open_local(ModelConfig(), tmp_path / "work" / "adapter")
    weights = local.model.get_base_model().model.layers[0].mlp.up_proj.base_layer.weight
    assert weights.dtype == torch.uint8
    (answer,) = local.complete([Request((Message("user", "What is 3?"),), max_tokens=4)])
    assert answer.text


def test_gradients_in_four_bits_are_the_same_after_an_evaluation():
    """Else bitsandbytes may have repacked the layers for an operator without gradient."""
    pytest.importorskip("bitsandbytes")
    model = make_trainable(load_base(ModelConfig(), True).model, LocalSettings(method="qlora"), 0)
    one = Stepper(model, 0, 10_000, False)
    _, before = gradients(one, ROWS)
    one.evaluate(ROWS)
    _, after = gradients(one, ROWS)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert any(bool(gradient.any()) for gradient in before)


def test_the_forecast_knows_how_small_four_bits_are(tmp_path: Path):
    pytest.importorskip("bitsandbytes")
    forecast = dry_run(qlora_job(tmp_path / "work"))["weights"]
    model = load_base(ModelConfig(), True).model
    held = sum(p.numel() * p.element_size() for p in model.parameters())
    for module in model.modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is not None:
            tensors = (state.absmax, state.state2.absmax)
            held += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    assert forecast == pytest.approx(held, rel=0.01)


def test_an_adapter_of_four_bits_on_the_unquantized_base_answers_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    settings = LocalSettings(max_steps=2, stop_on="none")
    write_job(tmp_path / "w", TrainingJob(model=ModelConfig(), settings=settings), chats(8), [])
    worker.run(tmp_path / "w")
    card = tmp_path / "w" / "adapter" / "tunelm.json"
    card.write_text(card.read_text().replace('"method": "lora"', '"method": "qlora"'))
    monkeypatch.setattr(quantized, "why_not", lambda device: "bitsandbytes is not installed")
    with caplog.at_level(logging.WARNING):
        local = open_local(ModelConfig(), tmp_path / "w" / "adapter")
    assert "was trained on its base in 4 bits and answers on the unquantized one" in caplog.text
    (answer,) = local.complete([Request((Message("user", "What is 3?"),), max_tokens=4)])
    assert answer.error is None


def test_qlora_of_texts_and_of_shards_is_refused():
    with pytest.raises(ValueError, match='take sharding = "none"'):
        LocalSettings(method="qlora", sharding="full")
    with pytest.raises(ValueError, match="qlora is for chats"):
        TrainingJob(model=ModelConfig(), settings=LocalSettings(method="qlora"), text=True)


def test_what_the_task_file_asks_for_and_the_machine_has_not_is_refused():
    with pytest.raises(PrerequisiteError, match="half precision, on NVIDIA GPUs alone"):
        machine.choose(LocalSettings(attention=FLASH), ModelConfig())
    found = machine.choose(LocalSettings(), ModelConfig())
    assert found["weights"].value == found["compute"].value == "float32"
    assert (found["attention"].value, found["compile"].value) == ("sdpa", "off")
    assert all(choice.why for choice in found.values())


def test_doctor_says_what_training_takes_of_this_machine():
    shown = CliRunner().invoke(cli, ["doctor"]).output
    assert "training, weights: float32 (on cpu nothing is gained by less)" in shown
    assert "training, optimizer: fused AdamW" in shown
    assert "vLLM: " in shown


def test_the_benchmark_runs_from_end_to_end_and_says_that_it_measured_nothing():
    environment = os.environ | {"PYTHONPATH": str(Path(tunelm.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--tiny", "--only", "2"],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    assert "measures nothing" in done.stdout
    assert "failed" not in done.stdout
    (row,) = [line for line in done.stdout.splitlines() if "| lora |" in line]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:5] == ["Llama-3.2-1B", "packed", "lora", "sdpa", "off"]
    assert float(cells[5].replace(",", "")) > 0
    assert 0 < float(cells[6].rstrip("%")) < 100
    assert abs(float(cells[9].rstrip("%"))) < 30
    assert "light: " in done.stdout


def test_the_benchmarks_count_of_operations_is_what_pytorch_counts(tmp_path: Path):
    """But for attention, which PyTorch counts whole where half of it is masked out."""
    from torch.utils.flop_counter import FlopCounterMode

    spec = importlib.util.spec_from_file_location("gpu", ROOT / "benchmarks" / "gpu.py")
    assert spec is not None
    assert spec.loader is not None
    gpu = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gpu)
    shape = gpu.TINY[0]._replace(hidden=256, inner=512, layers=3)
    gpu.make_model(tmp_path / "base", shape)
    model = ModelConfig(base=str(tmp_path / "base"), max_length=128)
    job = TrainingJob(model=model, settings=LocalSettings(r=1), text=True)
    texts = gpu.make_rows(gpu.TINY_SIZE, chats=False)[:4]
    write_job(tmp_path / "work", job, texts, [])
    base = load_base(model)
    rows = list(worker.encode(job, base, texts))
    one = Stepper(make_trainable(base.model, job.settings, 0), 0, 10_000, False)
    with FlopCounterMode(display=False) as counter:
        for row in rows:  # one by one: without padding
            one.backward([row])
    tokens = sum(row.length for row in rows)
    seen = sum(row.length * (row.length + 1) / 2 for row in rows) / tokens
    attention = 12 * shape.layers * shape.hidden * seen
    counted = {str(op): n for op, n in counter.get_flop_counts()["Global"].items()}
    linear = sum(n for op, n in counted.items() if "mm" in op) / tokens
    assert linear == pytest.approx(gpu.flops(shape, job, tmp_path / "work") - attention, rel=0.05)
