"""Training and serving on a GPU: speed, share of its matmul rate, memory against forecast.

    benchmarks/gpu.sh                   # on a machine with an NVIDIA GPU; ten minutes at most
    python benchmarks/gpu.py --tiny     # the same with tiny shapes on a processor: no figures,
                                        # but a proof that it runs from end to end

Models of the shapes of Qwen2.5-0.5B and Llama-3.2-1B are made on the spot with random weights and
the bundled tokenizer; nothing is downloaded. Each is trained by `python -m tunelm.training`, LoRA
of rank 16 on all linear layers, texts packed into rows of 2,048 tokens, 8 rows a step. QLoRA is
measured on chats of the same length, which are not packed, since it is refused for texts.

Model FLOPs are counted so, for a token (`flops`):

    4 W + 4 V d s + 12 L a p

W: the frozen weights of the linear layers of the blocks. Each is used in one multiplication and
one addition forward, and in as many backward for the gradient of its input; it has no gradient of
its own. V d s: the same for the output layer (V tokens, width d), of the share s of tokens that
carry loss. The last term is attention: L layers, a = heads x head size, and p places that a token
sees, on average, in its own text: 4 a p forward for scores and sums, twice that backward. What is
computed beside it (adapters, norms, masked-out places, unpacking of 4 bits) counts as nothing.

Their rate over that of bf16 matrix products of 8192 x 8192, measured on the same card just before,
is the utilization. The bar is 45% for LoRA on packed rows; memory: 10% off the forecast at most.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import torch

import tunelm
from tunelm.config import ModelConfig
from tunelm.doctor import find_vllm
from tunelm.route_settings import LocalSettings
from tunelm.training.job import TrainingJob, TrainingRow, write_job
from tunelm.training.memory import dry_run, memory_estimate
from tunelm.types import Message

TOKENIZER = Path(tunelm.__file__).parent / "weights" / "nano"
WORDS = ("the", "cat", "sees", "a", "small", "red", "ball", "and", "asks", "where", "it", "is")
MINUTES = 9.0
"""No further run is begun after this."""
WARM_UP = 5
"""Steps that are not counted."""
BAR, MEMORY_BAR = 0.45, 0.10


class Shape(NamedTuple):
    """A model's shape; `kind` is a model type of Transformers."""

    name: str
    kind: str
    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    vocab: int


class Size(NamedTuple):
    """How much is done: tokens of a packed row, rows of a step, steps; of a matrix; requests."""

    length: int
    rows: int
    steps: int
    matrix: int
    requests: int


class Variant(NamedTuple):
    """A way to train, as the task file has it."""

    method: str
    attention: str
    compile: str


SHAPES = (
    Shape("Qwen2.5-0.5B", "qwen2", 896, 4864, 24, 14, 2, 151936),
    Shape("Llama-3.2-1B", "llama", 2048, 8192, 16, 32, 8, 128256),
)
SIZE = Size(2048, 8, 40, 8192, 128)
TINY = tuple(
    s._replace(hidden=64, inner=96, layers=2, heads=4, kv_heads=2, vocab=4096) for s in SHAPES
)
TINY_SIZE = Size(128, 4, WARM_UP + 3, 256, 4)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, on a processor too")
    parser.add_argument("--only", type=int, nargs="*", help="the shapes of these numbers, from 1")
    parser.add_argument("--compiled", action="store_true", help="with --tiny: compile too")
    given = parser.parse_args()
    if not (given.tiny or torch.cuda.is_available()):
        sys.exit("no NVIDIA GPU that PyTorch can use; --tiny needs none.")
    began = time.monotonic()
    size = TINY_SIZE if given.tiny else SIZE
    print(header(given.tiny))
    rate = matmul_rate(size.matrix)
    print(f"\nMatrix products, {dtype()}, {size.matrix} square: {rate / 1e12:.3g} TFLOP/s\n")
    columns = "shape | rows | method | attention | compile | tokens/s | utilization | peak memory"
    print(f"| {columns} | forecast | error |\n|{'---|' * 10}")
    with tempfile.TemporaryDirectory() as temporary:
        for number, shape in enumerate(TINY if given.tiny else SHAPES, 1):
            if given.only and number not in given.only:
                continue
            folder = Path(temporary) / shape.name
            make_model(folder / "base", shape)
            for variant in variants(given.tiny, given.compiled):
                if time.monotonic() - began > 60 * MINUTES:
                    print(f"| {shape.name} | | {' | '.join(variant)} | no time left | | | | |")
                    continue
                print(train(folder, shape, size, variant, rate), flush=True)
            if time.monotonic() - began < 60 * MINUTES:
                print(f"\n{serve(folder / 'base', size)}\n", flush=True)
            shutil.rmtree(folder)


def header(tiny: bool) -> str:
    """What was measured on what."""
    names = ("torch", "transformers", "peft", "bitsandbytes", "flash-attn", "vllm")
    found = [f"{name} {version(name)}" for name in names]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    note = "\nTiny shapes: this shows that the script runs, and measures nothing." if tiny else ""
    return f"{device}; {', '.join(found)}{note}"


def version(package: str) -> str:
    """A package's version, or that it is not there."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def dtype() -> str:
    """What weights are held in here."""
    return "bfloat16" if torch.cuda.is_available() else "float32"


def device() -> str:
    """Where it runs."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def wait() -> None:
    """Until a GPU has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def matmul_rate(size: int) -> float:
    """FLOP/s of products of random square matrices: the median of ten groups of ten."""
    a, b = (
        torch.randn(size, size, device=device(), dtype=getattr(torch, dtype())) for _ in range(2)
    )
    rates: list[float] = []
    for _ in range(13):
        wait()
        began = time.perf_counter()
        for _ in range(10):
            a @ b
        wait()
        rates.append(10 * 2 * size**3 / (time.perf_counter() - began))
    return sorted(rates[3:])[5]


def variants(tiny: bool, compiled: bool) -> list[Variant]:
    """What is there to be measured here; the plainest first."""
    from transformers.utils.import_utils import is_flash_attn_2_available

    found = [Variant("lora", "sdpa", "off")]
    if is_flash_attn_2_available():
        found.append(Variant("lora", "flash_attention_2", "off"))
    if compiled or not tiny:
        found += [Variant("lora", one.attention, "on") for one in found]
    if importlib.util.find_spec("bitsandbytes") is not None:
        found.append(Variant("qlora", "sdpa", "off"))
    return found


def make_model(folder: Path, shape: Shape) -> None:
    """Write a model of this shape with random weights, and the bundled tokenizer."""
    import transformers

    kinds: dict[str, Any] = {"llama": transformers.LlamaConfig, "qwen2": transformers.Qwen2Config}
    config = kinds[shape.kind](
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        vocab_size=shape.vocab,
        max_position_embeddings=SIZE.length,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    with torch.device(device()):
        model: Any = transformers.AutoModelForCausalLM.from_config(
            config, dtype=getattr(torch, dtype())
        )
    model.save_pretrained(folder)
    del model
    torch.cuda.empty_cache()  # what is measured runs in processes of its own
    transformers.AutoTokenizer.from_pretrained(TOKENIZER).save_pretrained(folder)


def make_rows(size: Size, chats: bool) -> list[TrainingRow]:
    """Texts that fill the rows of all steps, or as many chats of a row's length."""
    rng = random.Random(0)
    wanted = size.steps * size.rows
    if chats:  # a word is a token; the question, the template and the ends take some

        def chat(number: int) -> TrainingRow:
            words = " ".join(rng.choices(WORDS, k=int(0.7 * size.length)))
            return TrainingRow(str(number), (Message("user", "Go"), Message("assistant", words)))

        return [chat(number) for number in range(wanted)]
    rows: list[TrainingRow] = []
    tokens = 0
    while tokens < wanted * size.length:
        words = rng.choices(WORDS, k=int(size.length * rng.uniform(0.1, 0.7)))
        rows.append(TrainingRow(str(len(rows)), (Message("text", " ".join(words)),)))
        tokens += len(words)
    return rows


def train(folder: Path, shape: Shape, size: Size, variant: Variant, rate: float) -> str:
    """Forecast one variant, train it, and give its row of the table."""
    work = folder / "work"
    chats = variant.method == "qlora"
    job = TrainingJob(
        model=ModelConfig(base=str(folder / "base"), max_length=size.length),
        settings=LocalSettings(
            **variant._asdict(),
            batch_size=size.rows,
            max_steps=size.steps,
            stop_on="none",
        ),
        text=not chats,
        checkpoint_seconds=3600,
    )
    work.mkdir()
    write_job(work, job, make_rows(size, chats), [])
    forecast = folder / f"forecast-{variant.method}.json"
    if not forecast.is_file():  # the same however attention is computed
        forecast.write_text(json.dumps(memory_estimate(dry_run(work)).value))
    estimate = json.loads(forecast.read_text())
    done = subprocess.run(
        [sys.executable, "-m", "tunelm.training", str(work)], capture_output=True, text=True
    )
    head = f"| {shape.name} | {'chats' if chats else 'packed'} | {' | '.join(variant)}"
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        shutil.rmtree(work)
        return f"{head} | failed: {last} | | | | |"
    result = json.loads((work / "result.json").read_text())
    speed = tokens_per_second(work)
    share = speed * flops(shape, job, work) / rate
    peak = result["peak_gpu_bytes"] or result["peak_rss_bytes"] - result["rss_before_model"]
    shutil.rmtree(work)
    error = estimate / peak - 1
    judged = torch.cuda.is_available()
    met = ("", "") if not judged else (verdict(share >= BAR), verdict(abs(error) <= MEMORY_BAR))
    return (
        f"{head} | {speed:,.0f} | {share:.1%}{met[0]} | {peak / 1e9:.2f} GB "
        f"| {estimate / 1e9:.2f} GB | {error:+.1%}{met[1]} |"
    )


def verdict(met: bool) -> str:
    """Whether a bar is met."""
    return " (met)" if met else " (MISSED)"


def tokens_per_second(work: Path) -> float:
    """Tokens without padding, from the end of the warm-up to the last step."""
    lines = (work / "events.jsonl").read_text().splitlines()
    steps = [e for e in map(json.loads, filter(None, lines)) if e["event"] == "step"]
    first, last = steps[WARM_UP - 1], steps[-1]
    return (last["tokens"] - first["tokens"]) / (last["seconds"] - first["seconds"])


def flops(shape: Shape, job: TrainingJob, work: Path) -> float:
    """Model FLOPs of an average token: see the head of this file."""
    from tunelm.models.loading import Base, load_tokenizer, resolve_base
    from tunelm.training.adapter import load_shapes
    from tunelm.training.encoding import encode
    from tunelm.training.job import read_job

    base = Base(load_shapes(resolve_base(job.model), None), load_tokenizer(job.model), "meta")
    rows = list(encode(job, base, read_job(work)[1][:64]))
    tokens = sum(row.length for row in rows)
    supervised = sum(len(row.supervised) for row in rows) / tokens
    seen = sum(row.length * (row.length + 1) / 2 for row in rows) / tokens
    head = shape.hidden // shape.heads
    attention = shape.hidden * head * 2 * (shape.heads + shape.kv_heads)
    weights = shape.layers * (attention + 3 * shape.hidden * shape.inner)
    output = shape.vocab * shape.hidden * supervised
    return 4 * weights + 4 * output + 12 * shape.layers * shape.heads * head * seen


def serve(base: Path, size: Size) -> str:
    """Output tokens a second of `tunelm serve`, by each engine that is there, many at once."""
    engines = ["light", "vllm"] if find_vllm() else ["light"]
    lines = [f"{engine}: {served(base, size, engine)}" for engine in engines]
    if len(engines) == 1:
        lines.append("vllm: not installed")
    return f"Serving, {size.requests} requests at once: " + "; ".join(lines)


def served(base: Path, size: Size, engine: str) -> str:
    """The same of one engine, in words."""
    ready = base.parent / f"{engine}.json"
    command = [sys.executable, "-m", "tunelm", "serve", str(base), "--engine", engine]
    command += ["--port", "0", "--no-train", "--no-chat", "--ready-file", str(ready)]
    command += ["--max-batch", str(size.requests), "--max-length", str(size.length)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        while not ready.is_file():
            if process.poll() is not None:
                assert process.stderr is not None
                return f"failed: {process.stderr.read().decode().strip().splitlines()[-1]}"
            time.sleep(0.1)
        url = json.loads(ready.read_text())["url"]
        ask(url, size)
        began = time.monotonic()
        with ThreadPoolExecutor(size.requests) as pool:
            tokens = sum(pool.map(lambda _: ask(url, size), range(size.requests)))
        return f"{tokens / (time.monotonic() - began):,.0f} tokens/s"
    finally:
        process.terminate()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def ask(url: str, size: Size) -> int:
    """One completion; the tokens of its answer."""
    body = {
        "model": "base",
        "prompt": " ".join(WORDS * 8)[: 2 * size.length],
        "max_tokens": size.length // 8,
        "temperature": 0,
    }
    answer = httpx.post(f"{url}/completions", json=body, timeout=300)
    answer.raise_for_status()
    return answer.json()["usage"]["completion_tokens"]


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
