"""Retrieval: a tuned retriever beside BM25, on questions about paragraphs of SQuAD 2.0.

The corpus is all paragraphs of the file. The titles are dealt into three parts: questions on the
first tune the embedding model, those on the second choose its epoch, and those on the third are
measured. So the measured paragraphs were never trained on. Only answerable questions are taken;
the paragraph that a question was written about is the one to be found. Intervals are by paragraph.

    python benchmarks/retrieval.py --model FOLDER --rows ../shared/data/squad2/squad2.jsonl

FOLDER holds a sentence-transformers model. Rows are JSON lines with `title`, `context`,
`question`, `answers` and `is_impossible`. It takes about fifteen minutes on one core.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

from tunelm.retrieval.chunks import Passage
from tunelm.retrieval.embed import Embedder, open_embedder
from tunelm.retrieval.index import ByMeaning, ByWords, Fused, Retriever
from tunelm.retrieval.quality import compare_retrievers, figures
from tunelm.retrieval.tune import training_pairs, tune
from tunelm.types import Example, Message, content_hash

K = 5
TUNE, CHOOSE = 4, 5
"""Of the titles in the order of their hashes: the first 4 tune, the fifth chooses the epoch."""
SHOWN = ("recall@1", "recall@5", "recall@10", "mrr")


def main() -> None:
    """Run it, and print a table and the verdicts; `--out` also writes them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder of a sentence-transformers model")
    parser.add_argument("--rows", default="../shared/data/squad2/squad2.jsonl", type=Path)
    parser.add_argument("--epochs", default=2, type=int)
    parser.add_argument("--threads", default=1, type=int)
    parser.add_argument("--seed", default=0, type=int)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    import torch

    torch.set_num_threads(args.threads)
    began = time.perf_counter()
    passages, parts, gold = read(args.rows)
    texts = [passage.searched for passage in passages]
    words = ByWords(texts)
    embedder = open_embedder(args.model, "cpu")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)

        def by_meaning(model: Embedder) -> ByMeaning:
            return ByMeaning(model, model.passages(texts))

        untuned = by_meaning(embedder)
        retrievers: dict[str, Retriever] = {
            "bm25": words,
            "embeddings": untuned,
            "bm25+embeddings": Fused([words, untuned]),
        }
        found = {name: search(r, parts["test"]) for name, r in retrievers.items()}

        def judge(model: Embedder) -> tuple[float, float]:
            dev = parts["dev"]
            got = search(Fused([words, by_meaning(model)]), dev)
            figure = figures(dev, got, gold, K)
            return figure[f"recall@{K}"]["value"], figure["mrr"]["value"]

        questions = {row.id: row.question for row in parts["train"]}
        pairs = training_pairs(questions, parts["train"], gold, passages)
        at = time.perf_counter()
        tuned = by_meaning(
            tune(
                embedder,
                pairs,
                passages,
                work / "tuned",
                judge,
                seed=args.seed,
                epochs=args.epochs,
                progress=show,
            )
        )
        seconds = time.perf_counter() - at
        record = json.loads((work / "tuned" / "tuning.json").read_text(encoding="utf-8"))
        found["embeddings tuned"] = search(tuned, parts["test"])
        found["bm25+embeddings tuned"] = search(Fused([words, tuned]), parts["test"])
    result = report(parts["test"], found, gold)
    result |= {
        "passages": len(passages),
        "rows": {part: len(rows) for part, rows in parts.items()},
        "tuning": record | {"seconds": seconds},
        "seconds": time.perf_counter() - began,
        "threads": args.threads,
        "platform": platform.platform(),
    }
    print(json.dumps({k: v for k, v in result.items() if k not in ("figures", "pairs")}, indent=2))
    if args.out:
        args.out.write_text(json.dumps(result, indent=2), encoding="utf-8")


def read(path: Path) -> tuple[list[Passage], dict[str, list[Example]], dict[str, frozenset[int]]]:
    """(the paragraphs, questions by part, the paragraph of each question)."""
    with path.open(encoding="utf-8") as file:
        rows: list[dict[str, Any]] = [json.loads(line) for line in file]
    places: dict[str, int] = {}
    for row in rows:
        places.setdefault(row["context"], len(places))
    passages = [Passage(content_hash(text), text, path.name) for text in places]
    titles = sorted({row["title"] for row in rows}, key=content_hash)
    parts: dict[str, list[Example]] = {"train": [], "dev": [], "test": []}
    gold: dict[str, frozenset[int]] = {}
    for row in rows:
        if row["is_impossible"]:
            continue
        rank = titles.index(row["title"])
        part = "train" if rank < TUNE else "dev" if rank < CHOOSE else "test"
        place = places[row["context"]]
        message = Message("user", row["question"])
        parts[part].append(Example(row["id"], (message,), tuple(row["answers"]), str(place)))
        gold[row["id"]] = frozenset([place])
    return passages, parts, gold


def search(retriever: Retriever, rows: list[Example]) -> list[Any]:
    """What each question finds."""
    return retriever.search([row.question for row in rows], 10)


def report(rows: list[Example], found: dict[str, list[Any]], gold: Any) -> dict[str, Any]:
    """Print the table and each retriever's difference to BM25; both as JSON."""
    table = {name: figures(rows, hits, gold, K) for name, hits in found.items()}
    print(f"{'':24}" + "".join(f"{name:>26}" for name in SHOWN))
    for name, figure in table.items():
        cells = (figure[shown] for shown in SHOWN)
        text = (f"{c['value']:.3f} [{c['low']:.3f}, {c['high']:.3f}]" for c in cells)
        print(f"{name:24}" + "".join(f"{cell:>26}" for cell in text))
    pairs: dict[str, Any] = {}
    for name in table:
        if name == "bm25":
            continue
        for shown in (f"recall@{K}", "mrr"):
            got = compare_retrievers(shown, rows, found[name], found["bm25"], gold)
            pairs[f"{name} - bm25, {shown}"] = dataclasses.asdict(got)
            print(
                f"{name} - bm25, {shown}: {got.diff:+.3f} [{got.low:+.3f}, {got.high:+.3f}], "
                f"p = {got.p:.4f}, n = {got.n} in {got.n_groups} paragraphs"
            )
    return {"figures": table, "pairs": pairs}


def show(done: int, total: int) -> None:
    """One line every ten steps."""
    if done % 10 == 0 or done == total:
        print(f"step {done} of {total}", flush=True)


if __name__ == "__main__":
    main()
