"""Pretrain tunelm-nano (or its smaller sibling) from scratch.

    python nano/train.py --size nano --out build/nano

Deterministic for a seed on one machine with one number of threads: the text of step N depends
on the seed and N alone, so a killed run goes on from its last checkpoint with `--out` the same.
Hidden matrices are trained with Muon (https://kellerjordan.github.io/posts/muon/), embeddings
and norms with AdamW. Documents are packed into rows without attention across documents.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import torch
from corpus import Writer
from evaluate import evaluate
from knowledge import load_facts
from tokenizer import CONTEXT, VOCABULARY, encode, make_tokenizer
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

SIZES: dict[str, dict[str, int]] = {
    "nano": {"hidden": 192, "layers": 6, "heads": 6, "mlp": 512, "steps": 6400},
    "nano-test": {"hidden": 32, "layers": 1, "heads": 2, "mlp": 64, "steps": 12},
    "nano-small": {"hidden": 96, "layers": 4, "heads": 4, "mlp": 256, "steps": 2400},
}
TOKENS_A_STEP = 4096
TOKENS_AT_ONCE = 2048
"""A forward pass takes a part of the step's rows: less memory to touch is faster."""
SHORT, LONG, LONG_EVERY = 512, CONTEXT, 8
PEAK_LR, EMBEDDING_LR, WARMUP, FLOOR = 4e-3, 4e-3, 60, 0.03
SAVE_EVERY, EVALUATE_EVERY = 100, 400


def make_model(size: dict[str, int], tokenizer: Any, seed: int) -> LlamaForCausalLM:
    """A randomly initialised Llama."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=size["hidden"],
        intermediate_size=size["mlp"],
        num_hidden_layers=size["layers"],
        num_attention_heads=size["heads"],
        num_key_value_heads=size["heads"],
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        initializer_range=0.02,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def make_batch(facts: list[Any], tokenizer: Any, seed: int, step: int) -> dict[str, torch.Tensor]:
    """The rows of one step: packed documents, positions from 0 in each, block-diagonal mask."""
    long = step % LONG_EVERY == LONG_EVERY - 1
    length = LONG if long else SHORT
    rows = TOKENS_A_STEP // length
    writer = Writer(facts, seed=seed * 1_000_003 + step)
    documents = writer.chapters() if long else writer.documents()
    ids = torch.full((rows, length), tokenizer.pad_token_id)
    labels = torch.full((rows, length), -100)
    positions = torch.zeros((rows, length), dtype=torch.long)
    owner = torch.full((rows, length), -1)
    for row in range(rows):
        start, number, misses = 0, 0, 0
        while misses < 3 and start < length:
            tokens, learn = encode(tokenizer, next(documents))
            if start + len(tokens) > length:
                misses += 1
                continue
            end = start + len(tokens)
            ids[row, start:end] = torch.tensor(tokens)
            counted = torch.tensor(learn)
            labels[row, start:end] = torch.where(counted, ids[row, start:end], -100)
            positions[row, start:end] = torch.arange(len(tokens))
            owner[row, start:end] = number
            start, number = end, number + 1
    same = owner[:, :, None] == owner[:, None, :]
    mask = (same & torch.ones(length, length).tril().bool())[:, None]
    return {
        "input_ids": ids,
        "labels": labels,
        "position_ids": positions,
        "attention_mask": mask,
    }


def forward_backward(
    trunk: Any, head: torch.nn.Module, batch: dict[str, torch.Tensor], bfloat16: bool
) -> float:
    """Gradients of the step's mean token loss, a few rows at a time; the loss.

    `trunk` is the model without its head: logits are computed where there is a label only.
    """
    labels = batch.pop("labels")[:, 1:]
    counted = (labels != -100).sum()
    rows = TOKENS_AT_ONCE // (labels.shape[1] + 1)
    total = 0.0
    for start in range(0, len(labels), rows):
        part = {name: tensor[start : start + rows] for name, tensor in batch.items()}
        wanted = labels[start : start + rows]
        here = wanted != -100
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits = head(trunk(**part).last_hidden_state[:, :-1][here])
        loss = cross_entropy(logits.float(), wanted[here], reduction="sum") / counted
        loss.backward()
        total += loss.item()
    return total


def make_optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the rest."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "layers" in n]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=PEAK_LR, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=EMBEDDING_LR, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def rate(step: int, steps: int) -> float:
    """Linear warm-up, then cosine down to FLOOR, as a part of the peak."""
    if step < WARMUP:
        return (step + 1) / WARMUP
    done = (step - WARMUP) / max(1, steps - WARMUP)
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * done))


def train(args: argparse.Namespace) -> None:
    """The whole training."""
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    size = SIZES[args.size]
    steps = args.steps or size["steps"]
    facts, tokenizer = load_facts(), make_tokenizer()
    model = make_model(size, tokenizer, args.seed)
    trunk = torch.compile(model.model, dynamic=False) if args.compile else model.model
    optimizers = make_optimizers(model)
    first = resume(out, model, optimizers)
    log = (out / "training_log.jsonl").open("a")
    began, tokens = time.time(), 0
    for step in range(first, steps):
        batch = make_batch(facts, tokenizer, args.seed, step)
        share = rate(step, steps)
        for optimizer, peak in zip(optimizers, (PEAK_LR, EMBEDDING_LR), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * share
        real = int((batch["input_ids"] != tokenizer.pad_token_id).sum())
        loss = forward_backward(trunk, model.lm_head, batch, bfloat16=not args.float32)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        tokens += real
        if (step + 1) % 20 == 0:
            speed = round(tokens / (time.time() - began))
            write(log, step=step + 1, loss=round(loss, 4), tokens_per_second=speed)
        if (step + 1) % EVALUATE_EVERY == 0 or step + 1 == steps:
            write(log, step=step + 1, **evaluate(model, tokenizer, facts, seed=step))
        stop = step + 1 == args.stop_after
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps or stop:
            save_checkpoint(out, model, optimizers, step + 1)
        if stop:
            break
    export(out / "model", model, tokenizer)


def write(log: Any, **fields: Any) -> None:
    """One line of the log, on screen too."""
    line = json.dumps(fields)
    print(line, flush=True)
    log.write(line + "\n")
    log.flush()


def save_checkpoint(
    out: Path, model: LlamaForCausalLM, optimizers: list[torch.optim.Optimizer], step: int
) -> None:
    """Everything a killed run needs, replaced atomically."""
    state = {
        "step": step,
        "model": model.state_dict(),
        "optimizers": [o.state_dict() for o in optimizers],
    }
    torch.save(state, out / "checkpoint.tmp")
    os.replace(out / "checkpoint.tmp", out / "checkpoint.pt")


def resume(out: Path, model: LlamaForCausalLM, optimizers: list[torch.optim.Optimizer]) -> int:
    """Load the checkpoint, if there is one; the step to go on with."""
    path = out / "checkpoint.pt"
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return int(state["step"])


def export(folder: Path, model: LlamaForCausalLM, tokenizer: Any) -> None:
    """What Transformers loads: float16 safetensors, half the size; computed in float32."""
    model.eval().to(torch.float16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    model.to(torch.float32)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="nano")
    parser.add_argument("--out", required=True, help="folder for log, checkpoint and model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="fewer steps than the size's own, to try out")
    parser.add_argument("--stop-after", type=int, help="stop at this step, to go on later")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--float32", action="store_true", help="no bfloat16 autocast")
    parser.add_argument("--compile", action="store_true", help="faster; needs a C++ compiler")
    train(parser.parse_args())
