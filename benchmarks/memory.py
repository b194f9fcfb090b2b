"""Forecasts of peak training memory, held against the memory that training really takes.

Models of many shapes are made on the spot with random weights, and each is trained for two steps
by `python -m tunelm.training`. Before that its peak is forecast from its shape alone. Measured is
the process's peak less what it held after its imports (on a GPU: the allocator's peak).

    python benchmarks/memory.py                  # 16 shapes, 1 to 5 GB, one after the other
    python benchmarks/memory.py --only 3 --keep  # one of them; its folder is kept

The constants in `tunelm.training.memory` were set on the shapes with odd numbers; the table gives
the error on the others too, which no constant has seen.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import tunelm
from tunelm.config import ModelConfig
from tunelm.route_settings import LocalSettings
from tunelm.training.job import TrainingJob, TrainingRow, write_job
from tunelm.training.memory import dry_run, memory_estimate
from tunelm.types import Message

TOKENIZER = Path(tunelm.__file__).parent / "weights" / "nano"
WORDS = ("the", "cat", "sees", "a", "small", "red", "ball", "and", "asks", "where", "it", "is")


class Shape(NamedTuple):
    """A model, how it is adapted, and rows of about `words` words."""

    kind: str
    hidden: int
    layers: int
    vocab: int
    dtype: str
    method: str
    r: int
    batch: int
    words: int
    answer: float = 0.3
    """The share of a row that carries loss; 1: running text, packed."""
    micro: int = 8192


SHAPES = (
    Shape("qwen2", 512, 4, 50000, "float32", "lora", 64, 8, 300),
    Shape("llama", 512, 4, 32000, "float32", "lora", 8, 16, 300),
    Shape("gpt2", 512, 6, 50257, "float32", "lora", 8, 8, 300),
    Shape("llama", 256, 8, 8000, "float32", "dora", 8, 16, 300),
    Shape("qwen2", 768, 4, 50000, "bfloat16", "lora", 8, 8, 300),
    Shape("llama", 1024, 4, 4096, "float32", "full", 8, 4, 300),
    Shape("gpt2", 768, 4, 50257, "bfloat16", "full", 8, 4, 300),
    Shape("llama", 1024, 8, 32000, "bfloat16", "lora", 64, 8, 200),
    Shape("qwen2", 256, 2, 50000, "float32", "lora", 8, 16, 200, 0.8),
    Shape("llama", 512, 8, 16000, "float32", "full", 8, 8, 300),
    Shape("llama", 768, 6, 32000, "bfloat16", "dora", 8, 8, 200),
    Shape("gpt2", 256, 8, 50257, "float32", "rslora", 64, 64, 60),
    Shape("qwen2", 1024, 2, 50000, "float32", "full", 8, 2, 200),
    Shape("llama", 512, 4, 50000, "float32", "lora", 8, 16, 300, 0.3, 1024),
    Shape("llama", 512, 4, 16000, "float32", "lora", 8, 4, 150, 1.0),
    Shape("gpt2", 512, 8, 32000, "bfloat16", "lora", 8, 16, 200),
)


def main() -> None:
    """Run the shapes, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=int, nargs="*", help="the shapes of these numbers, from 1")
    parser.add_argument("--keep", type=Path, help="a folder for models, jobs and results")
    given = parser.parse_args()
    folder = given.keep or Path(tempfile.mkdtemp())
    found: list[dict[str, Any]] = []
    for number, shape in enumerate(SHAPES, 1):
        if given.only and number not in given.only:
            continue
        place = folder / f"shape-{number}"
        if not (place / "row.json").is_file():
            (place / "row.json").write_text(json.dumps(one(place, number, shape)))
        found.append(json.loads((place / "row.json").read_text()))
        print(found[-1], file=sys.stderr, flush=True)
    if given.keep is None:
        shutil.rmtree(folder)
    report(found)


def one(place: Path, number: int, shape: Shape) -> dict[str, Any]:
    """Make, forecast and train one shape."""
    make(place, shape)
    work = place / "work"
    began = time.monotonic()
    dry = dry_run(work)
    took = time.monotonic() - began
    done = subprocess.run(
        [sys.executable, "-m", "tunelm.training", str(work)], capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"shape {number}: {done.stderr[-2000:]}")
    result = json.loads((work / "result.json").read_text())
    shutil.rmtree(place / "base")
    for name in ("checkpoints", "adapter"):
        shutil.rmtree(work / name)
    measured = result["peak_gpu_bytes"] or result["peak_rss_bytes"] - result["rss_before_model"]
    return {
        "number": number,
        "dry": dry,
        "seconds": took,
        "measured": measured,
        "device": result["device"],
    }


def report(found: list[dict[str, Any]]) -> None:
    """A Markdown table, and the errors of both halves."""
    print("\n| | shape | dry run | forecast (80%) | measured | error | |")
    print("|---|---|---|---|---|---|---|")
    errors: dict[int, list[float]] = {0: [], 1: []}
    for row in found:
        estimate, measured = memory_estimate(row["dry"]), row["measured"]
        assert estimate.value is not None
        assert estimate.low is not None
        assert estimate.high is not None
        error = estimate.value / measured - 1
        errors[row["number"] % 2].append(error)
        inside = estimate.low <= measured <= estimate.high
        verdict = "FALSE FIT" if measured > estimate.high else "" if inside else "outside"
        print(
            f"| {row['number']} | {describe(SHAPES[row['number'] - 1])} | {row['seconds']:.0f} s "
            f"| {estimate.value / 1e9:.2f} ({estimate.low / 1e9:.2f} to "
            f"{estimate.high / 1e9:.2f}) GB | {measured / 1e9:.2f} GB | {error:+.1%} | {verdict} |"
        )
    for half, name in ((1, "set on"), (0, "not seen")):
        if errors[half]:
            mean = statistics.fmean(abs(e) for e in errors[half])
            print(f"\nMean absolute error, shapes {name}: {mean:.1%} (n = {len(errors[half])})")


def describe(shape: Shape) -> str:
    """A shape in a line."""
    return (
        f"{shape.kind} {shape.hidden}x{shape.layers}, vocabulary {shape.vocab}, {shape.dtype}, "
        f"{shape.method} r={shape.r}, {shape.batch} x {shape.words} words"
    )


def make(place: Path, shape: Shape) -> None:
    """Write a model of this shape, and a job that trains it for two steps."""
    import torch
    import transformers

    heads = shape.hidden // 64
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "vocab_size": shape.vocab}
    if shape.kind == "gpt2":
        config: Any = transformers.GPT2Config(
            n_embd=shape.hidden, n_layer=shape.layers, n_head=heads, n_positions=1024, **ends
        )
    else:
        kinds: dict[str, Any] = {
            "llama": transformers.LlamaConfig,
            "qwen2": transformers.Qwen2Config,
        }
        config = kinds[shape.kind](
            hidden_size=shape.hidden,
            intermediate_size=shape.hidden * 11 // 4,
            num_hidden_layers=shape.layers,
            num_attention_heads=heads,
            num_key_value_heads=max(1, heads // 2),
            max_position_embeddings=1024,
            tie_word_embeddings=shape.layers % 4 == 0,
            **ends,
        )
    torch.manual_seed(0)
    model: Any = transformers.AutoModelForCausalLM.from_config(config)
    model.to(getattr(torch, shape.dtype)).save_pretrained(place / "base")
    transformers.AutoTokenizer.from_pretrained(TOKENIZER).save_pretrained(place / "base")
    rng = random.Random(0)

    def row(number: int) -> TrainingRow:
        words = rng.choices(WORDS, k=int(shape.words * rng.uniform(0.6, 1)))
        if shape.answer == 1:
            return TrainingRow(str(number), (Message("text", " ".join(words)),))
        asked = words[: int(len(words) * (1 - shape.answer))]
        told = words[len(asked) :]
        messages = (Message("user", " ".join(asked)), Message("assistant", " ".join(told)))
        return TrainingRow(str(number), messages)

    rows = [row(i) for i in range(4 * shape.batch + 16)]
    job = TrainingJob(
        model=ModelConfig(base=str(place / "base"), dtype=shape.dtype),  # pyright: ignore
        settings=LocalSettings(
            method=shape.method,  # pyright: ignore
            r=shape.r,
            batch_size=shape.batch,
            max_steps=2,
            stop_on="none",
        ),
        text=shape.answer == 1,
        micro_tokens=shape.micro,
    )
    (place / "work").mkdir()
    write_job(place / "work", job, rows[:-16], rows[-16:])


if __name__ == "__main__":
    main()
