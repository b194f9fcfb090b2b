"""Bits per byte beside lm-evaluation-harness, over the same windows of the same texts.

    pip install lm_eval==0.4.13
    python benchmarks/perplexity.py                       # the bundled model, Python's own docs
    python benchmarks/perplexity.py --model FOLDER --texts 40

Prints the largest difference of a text's bits per byte, and of the corpus figure; exits with 1
where one is above 1e-6.
"""

from __future__ import annotations

import argparse
import math
import sys

from tunelm.config import ModelConfig
from tunelm.data.python_docs import documents
from tunelm.models.local import LocalModel, open_local
from tunelm.types import Message

TOLERANCE = 1e-6


def ours(model: LocalModel, texts: list[str]) -> list[float]:
    """Log-likelihood of each text, in nats."""
    scores = model.score([((Message("text", ""),), text) for text in texts])
    return [math.fsum(score.logprobs) for score in scores]


def theirs(model: LocalModel, texts: list[str]) -> list[float]:
    """The same by the harness."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    harness = HFLM(
        pretrained=model.model,
        tokenizer=model.tokenizer,
        max_length=model.max_length,
        batch_size=1,
        device="cpu",
    )
    requests = [Instance("loglikelihood_rolling", {}, (text,), i) for i, text in enumerate(texts)]
    return [float(value) for value in harness.loglikelihood_rolling(requests, disable_tqdm=True)]


def main() -> int:
    """Run both; 0 if they agree."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="tunelm-nano")
    parser.add_argument("--texts", type=int, default=20)
    parser.add_argument("--max-length", type=int, default=512)
    options = parser.parse_args()
    every = [text for _, text in documents()]
    texts = every[:: max(1, len(every) // options.texts)][: options.texts]
    config = ModelConfig(base=options.model, device="cpu", max_length=options.max_length)
    model = open_local(config, None)
    a, b = ours(model, texts), theirs(model, texts)
    sizes = [len(text.encode()) * math.log(2) for text in texts]
    worst = max(abs(x - y) / size for x, y, size in zip(a, b, sizes, strict=True))
    total = [-sum(values) / sum(sizes) for values in (a, b)]
    print(f"{len(texts)} texts, {sum(len(t.encode()) for t in texts):,} bytes, {options.model}")
    print(f"bits per byte: {total[0]:.9f} here, {total[1]:.9f} by lm_eval")
    corpus = abs(total[0] - total[1])
    print(f"largest difference of a text: {worst:.2e}; of the corpus: {corpus:.2e}")
    return 0 if max(worst, corpus) <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
