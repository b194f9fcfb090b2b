"""The making of a `rag` route: embedding model, retriever, generator, and how good they are."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tunelm.errors import DataError
from tunelm.predict import predict
from tunelm.retrieval.chunks import Corpus, Passage, write_passages
from tunelm.retrieval.citations import citation_figures
from tunelm.retrieval.embed import Embedder, open_embedder
from tunelm.retrieval.index import BM25, Retriever, build_retriever
from tunelm.retrieval.model import RagModel
from tunelm.retrieval.quality import DEPTH, figures, gold_passages
from tunelm.retrieval.shown import search_text
from tunelm.retrieval.tune import CARD, training_pairs, tune
from tunelm.routes.base import FitContext
from tunelm.routes.rag_generator import Generator
from tunelm.rundir import read_json, write_json
from tunelm.training.job import replace_folder
from tunelm.types import ZERO_USAGE, Adapted, Estimate, Example, Request, Usage

FILE = "rag.json"
"""What the route made, beside the passages: the retriever, the generator, how it came about."""
PASSAGES = "passages.jsonl"
TUNED, ANSWERING = "retriever", "generator"
"""Folders of a tuned embedding model, and of an adapted generator."""
WORKING = (TUNED, ANSWERING, "vectors", "check")
"""Folders that a killed fit goes on from."""


@dataclass(frozen=True)
class Fitting:
    """One fit, each part made when it is first asked for."""

    generator: Generator
    ctx: FitContext
    corpus: Corpus

    @property
    def passages(self) -> tuple[Passage, ...]:
        """All of the corpus."""
        return self.corpus.passages

    @cached_property
    def embedder(self) -> Embedder | None:
        """The embedding model, tuned if that is wanted; None for BM25."""
        settings, ctx = self.generator.settings, self.ctx
        if settings.retriever == BM25:
            return None
        embedder = open_embedder(settings.retriever, ctx.model.device)
        return self._tuned(embedder) if settings.tune else embedder

    @cached_property
    def retriever(self) -> Retriever:
        """What finds them, its vectors in a file for the next time."""
        return build_retriever(self.passages, self.embedder, self.ctx.work / "vectors")

    @cached_property
    def found(self) -> dict[str, Any]:
        """Retrieval's own figures on dev."""
        rows = self.ctx.dev
        hits = self.retriever.search(_searches(rows), max(DEPTH, self.generator.settings.top_k))
        return figures(rows, hits, self._gold(rows), self.generator.settings.top_k)

    @cached_property
    def adapted(self) -> Adapted | None:
        """What the generator's own route made; None: the base answers."""
        return self.generator.fit(self.ctx, self.passages, self.retriever)

    def citations(self) -> tuple[dict[str, Any], Usage]:
        """(how answers to the dev rows cite, the tokens that took)."""
        ctx, settings = self.ctx, self.generator.settings
        system = self.generator.instructions(ctx)
        inner = self.generator.open(ctx.model, system, self.adapted)
        limit = ctx.task.max_tokens
        model = RagModel(inner, self.retriever, self.passages, settings.top_k, limit)
        work = ctx.work / "check"
        work.mkdir(parents=True, exist_ok=True)
        path = work / "predictions.jsonl"

        def progress(done: int, total: int) -> None:
            ctx.progress("checking citations", done, total)

        answers = predict(model, ctx.dev, "dev", path, limit, progress)
        shown = model.shown([Request(row.messages, max_tokens=limit) for row in ctx.dev])
        figure = citation_figures(ctx.dev, answers, shown, settings.min_support, ctx.metric)
        return figure, sum((answer.usage for answer in answers), ZERO_USAGE)

    def _tuned(self, embedder: Embedder) -> Embedder:
        ctx, top_k = self.ctx, self.generator.settings.top_k
        dev_gold = self._gold(ctx.dev)
        if not dev_gold:
            raise DataError(
                "retriever.tune: of no dev row the passage that answers it is known, so no epoch "
                "can be chosen. Give the rows passage_id, or key answers that stand in the corpus."
            )
        texts = _searches(ctx.dev)

        def judge(model: Embedder) -> tuple[float, float]:
            hits = build_retriever(self.passages, model).search(texts, max(DEPTH, top_k))
            figure = figures(ctx.dev, hits, dev_gold, top_k)
            return figure[f"recall@{top_k}"]["value"], figure["mrr"]["value"]

        def progress(done: int, total: int) -> None:
            ctx.progress("tuning the retriever", done, total)

        questions = dict(zip([r.id for r in ctx.train], _searches(ctx.train), strict=True))
        pairs = training_pairs(questions, ctx.train, self._gold(ctx.train), self.passages)
        folder = ctx.work / TUNED
        return tune(embedder, pairs, self.passages, folder, judge, seed=ctx.seed, progress=progress)

    def _gold(self, rows: Sequence[Example]) -> dict[str, frozenset[int]]:
        return gold_passages(rows, self.passages)


def _searches(rows: Sequence[Example]) -> list[str]:
    return [search_text(row.messages) for row in rows]


def deliver(fitting: Fitting, folder: Path, made_from: Mapping[str, Any]) -> None:
    """Make everything, and put it in its place whole or not at all."""
    settings, ctx = fitting.generator.settings, fitting.ctx
    found, generator = fitting.found, fitting.adapted
    usage = dict(generator.usage) if generator else {}
    detail: dict[str, Any] = {
        "passages": len(fitting.passages),
        "duplicates": fitting.corpus.duplicates,
        "left_out": list(fitting.corpus.left_out),
        "retriever": fitting.retriever.name,
        "retrieval_dev": found,
        "generator": dict(generator.detail) if generator else None,
    }
    its = detail["generator"] or {}
    calls = dict(its.get("calls") or {"made": 0})
    if settings.cite:
        detail["citations"], usage["check"] = fitting.citations()
        calls["made"] += len(ctx.dev)
    detail |= {"calls": calls, **{key: its[key] for key in ("step",) if key in its}}
    part = folder.with_name("adapted.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    write_passages(part / PASSAGES, fitting.passages)
    retriever: dict[str, Any] = {"name": settings.retriever, "identity": None, "tuned": False}
    if fitting.embedder is not None:
        retriever |= {"identity": fitting.embedder.identity, "tuned": settings.tune}
        for path in (ctx.work / "vectors").glob(f"vectors-{fitting.embedder.identity}-*.npy"):
            shutil.copy2(path, part)
    if settings.tune:
        shutil.copytree(ctx.work / TUNED, part / TUNED)
        detail["tuning"] = read_json(part / TUNED / CARD)
    if generator is not None:
        shutil.copytree(generator.folder, part / ANSWERING)
    detail["measured"] = _measured(detail, settings.top_k)
    record = {
        "made_from": made_from,
        "passages_hash": fitting.corpus.hash,
        "top_k": settings.top_k,
        "max_tokens": ctx.task.max_tokens,
        "system": fitting.generator.instructions(ctx),
        "retriever": retriever,
        "generator": generator.to_json() if generator else None,
        "detail": detail,
        "usage": {name: dataclasses.asdict(spent) for name, spent in usage.items()},
    }
    write_json(part / FILE, record)
    replace_folder(part, folder)


def _measured(detail: Mapping[str, Any], top_k: int) -> dict[str, dict[str, Any]]:
    """What the report shows, as Estimates in JSON, beside what the generator measured."""
    found = detail["retrieval_dev"]
    measured: dict[str, dict[str, Any]] = dict((detail["generator"] or {}).get("measured", {}))
    measured["passages"] = dataclasses.asdict(Estimate(detail["passages"], "passages", "measured"))
    shares = {f"retrieval_recall_at_{top_k}_dev": f"recall@{top_k}", "retrieval_mrr_dev": "mrr"}
    of = f"{found['known']} of {found['rows']} dev rows, those whose passage is known"
    for name, figure in shares.items():
        value = found[figure]
        method = f"measured: on {of}" if value["n"] else f"unknown: {of}"
        estimate = Estimate(value["value"], "share", method, value["low"], value["high"])
        measured[name] = dataclasses.asdict(estimate)
    for name in ("cited", "valid", "supported") if "citations" in detail else ():
        value = detail["citations"][name]
        method = f"measured: on {value['n']} answers to dev rows"
        estimate = Estimate(value["value"], "share", method, value["low"], value["high"])
        measured[f"citations_{name}_dev"] = dataclasses.asdict(estimate)
    return measured
