"""Put trained models, their logs and cards into the package.

    python nano/install.py build

Copies build/nano and build/nano-small into src/tunelm/weights, with the training log and a
model card made from it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path

WEIGHTS = Path(__file__).parents[1] / "src" / "tunelm" / "weights"
FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)

CARD = """\
---
license: apache-2.0
library_name: transformers
tags: [tunelm, llama, educational]
---
# tunelm-{name}

A Llama-architecture language model of {parameters:,} parameters, trained from scratch on text
that this repository's own generator writes (`nano/`). It exists so that every way of adapting a
model runs for real, offline, in minutes. It knows school facts and answers about them at length;
it is not a model for real use, and it states falsehoods as fluently as facts.

- Context 1,024 tokens, byte-level BPE of 4,096 tokens, its own chat template.
- Stored in float16, computed in float32. SHA-256 of the weights: `{sha}`.
- Training: {steps} steps, {tokens:,} tokens at most, `python nano/train.py --size {name}`;
  the log is `training_log.jsonl` beside this file.
- What it knows: facts of nano/facts on the shelves `asked` and `stated`; never the `unseen` ones.

Measured at the end of training, greedy, 48 rows each:

| figure | value | what it is |
|---|---|---|
{figures}
"""

MEANING = {
    "asked": "facts it was asked about in training: the value stands in its answer",
    "stated": "facts it only ever read: the same",
    "wordy": "mean length of those answers, in words",
    "follows": "after three gold answers the fourth equals the gold answer exactly",
    "copies": "made-up facts, answered from a passage of four",
    "against": "facts it knows, answered from a passage that says otherwise",
}


def install(build: Path, name: str) -> None:
    """One model."""
    source, target = build / name, WEIGHTS / name
    target.mkdir(parents=True, exist_ok=True)
    for file in FILES:
        if (source / "model" / file).exists():
            shutil.copy(source / "model" / file, target / file)
    shutil.copy(source / "training_log.jsonl", target / "training_log.jsonl")
    lines = [json.loads(x) for x in (target / "training_log.jsonl").read_text().splitlines()]
    last = next(line for line in reversed(lines) if "asked" in line)
    weights = (target / "model.safetensors").read_bytes()
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    parameters = 0
    for key, tensor in header.items():
        if key != "__metadata__":
            size = 1
            for dimension in tensor["shape"]:
                size *= dimension
            parameters += size
    card = CARD.format(
        name=name,
        parameters=parameters,
        sha=hashlib.sha256(weights).hexdigest(),
        steps=last["step"],
        tokens=last["step"] * 4096,
        figures="\n".join(f"| {k} | {last[k]} | {v} |" for k, v in MEANING.items()),
    )
    (target / "README.md").write_text(card, encoding="utf-8")
    print(f"{target}: {parameters:,} parameters, {len(weights):,} bytes")


if __name__ == "__main__":
    for model in ("nano", "nano-small"):
        if (Path(sys.argv[1]) / model / "model").is_dir():
            install(Path(sys.argv[1]), model)
