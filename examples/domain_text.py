"""The classic homework, whole: adapt a small language model to a domain's text.

    python examples/domain_text.py                          # Python's own documentation
    python examples/domain_text.py my_texts.txt --model distilgpt2 --out domain_run

Curate, clean, split, fine-tune, evaluate before and after, save. The same as one command:
`tunelm compare python-docs`.
"""

from __future__ import annotations

import argparse
import json
import re
import unicodedata
from pathlib import Path

import tunelm


def curate(source: str, out: Path) -> list[str]:
    """Step 1: the domain's raw text, a document an entry."""
    if source == "python-docs":
        from tunelm.data.python_docs import documents

        texts = [text for _, text in documents()]
    else:
        raw = Path(source).read_text(encoding="utf-8")
        texts = re.split(r"\n\s*\n\s*\n", raw)  # two blank lines part two documents
    lines = sum(text.count("\n") + 1 for text in texts)
    print(f"1. curated {len(texts)} documents, {lines:,} lines from {source}")
    if lines < 10_000:
        print("   fewer than 10,000 lines: a model mostly learns so little by heart")
    return texts


def clean(texts: list[str]) -> list[str]:
    """Step 2: one form of each character, no control characters, no document twice."""
    cleaned: dict[str, None] = {}
    for text in texts:
        text = unicodedata.normalize("NFC", text)
        text = "".join(c for c in text if c in "\n\t" or unicodedata.category(c)[0] != "C")
        text = re.sub(r"[ \t]+\n", "\n", text).strip()
        if len(text) >= 200:
            cleaned[text] = None
    print(f"2. cleaned: {len(texts) - len(cleaned)} too short or double, {len(cleaned)} left")
    return list(cleaned)


def write_task(texts: list[str], model: str, steps: int | None, out: Path) -> Path:
    """Step 3: the split, 10% test by document, and the hyperparameters, in one task file."""
    out.mkdir(parents=True)
    rows = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts]
    (out / "texts.jsonl").write_text("".join(rows), encoding="utf-8")
    cap = "" if steps is None else f"max_steps = {steps}"
    task = out / "task.toml"
    task.write_text(f"""
[task]
name = "domain-text"
kind = "text"
[data]
path = "texts.jsonl"
dev = 0.05
test = 0.1
[model]
base = {json.dumps(model)}
max_length = 512
[routes.local]
method = "full"          # or "lora"
learning_rate = 5e-4
epochs = 1
batch_tokens = 4096
{cap}
""")
    print("3. split 85/5/10 by document; full fine-tuning, 1 epoch, 4,096 tokens a step")
    return task


def main() -> None:
    """Walk through the six steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", nargs="?", default="python-docs")
    parser.add_argument("--model", default="tunelm-nano")
    parser.add_argument("--steps", type=int, help="stop after so many steps, to try it out")
    parser.add_argument("--out", type=Path, default=Path("domain_run"))
    args = parser.parse_args()
    texts = clean(curate(args.source, args.out))
    task = write_task(texts, args.model, args.steps, args.out)

    print("4. fine-tuning ...")  # packed, no attention from one document to another
    report = tunelm.compare(task, args.out / "run")

    print("5. on the test documents, before and after:")
    for name in ("baseline", "local"):
        route = next(r for r in report["routes"] if r["name"] == name)
        if route["scores"] is None:
            raise SystemExit(f"{name}: {route['reason']}")
        for metric in ("bits_per_byte", "token_perplexity", "bleu"):
            s = route["scores"][metric]
            low, high = s["ci_low"], s["ci_high"]
            print(f"   {name:9} {metric:17} {s['value']:9.3f}  95% {low:.3f} to {high:.3f}")
    print("  ", report["verdict"][0])

    folder = args.out / "run/routes/local/seed-0/adapted/fine_tuned_model"
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = (c.from_pretrained(folder) for c in (AutoModelForCausalLM, AutoTokenizer))
    prompt = tokenizer("Return the", return_tensors="pt", return_token_type_ids=False)
    text = tokenizer.decode(model.generate(**prompt, max_new_tokens=20, do_sample=False)[0])
    print(f"6. saved in {folder}; plain Transformers goes on: {text!r}")


if __name__ == "__main__":
    main()
