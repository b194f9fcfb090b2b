"""Adapting by retrieval: passages of the corpus found for each question, put before it.

With an embedding model, `retriever` means that model and BM25 fused by rank. The model that
answers is the base, or is itself adapted, by `prompt` or `local`, on rows that show the passages
found for them: fine-tuned retrieval and a fine-tuned generator in one.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tunelm.config import ModelConfig
from tunelm.data.split import part_hash
from tunelm.errors import ConfigError, ModelError, RunDirError
from tunelm.models.base import ChatModel
from tunelm.models.budget import Wallet
from tunelm.retrieval.chunks import Corpus, passages_hash, read_corpus, read_passages
from tunelm.retrieval.embed import Embedder, check_name, embedder_identity, open_embedder
from tunelm.retrieval.index import BM25, build_retriever
from tunelm.retrieval.model import RagModel
from tunelm.route_settings import RagSettings
from tunelm.routes.base import MODEL_KEYS, FitContext
from tunelm.routes.baseline import CHARACTERS_A_TOKEN
from tunelm.routes.rag_fit import ANSWERING, FILE, PASSAGES, TUNED, WORKING, Fitting, deliver
from tunelm.routes.rag_generator import Generator, Open
from tunelm.rundir import read_json, write_json
from tunelm.types import Adapted, Estimate, Plan


class RagRoute:
    """Retrieval before the question. Needs the extra `rag`.

    `wallet` pays where the base model's endpoint charges. `open_model` replaces how the base
    model is opened, for models of the caller's own; `generator = "local"` cannot use it.
    """

    kind = "rag"
    needs: tuple[str, ...] = ()

    def __init__(
        self,
        settings: RagSettings,
        wallet: Wallet | None = None,
        open_model: Open | None = None,
    ) -> None:
        self.settings = settings
        self.generator = Generator(settings, wallet, open_model)

    def plan(self, ctx: FitContext) -> Plan:
        """Passages by reading the corpus; what the generator's own route says of its rows.

        Those rows show what BM25 finds: no embedding model is loaded for a forecast.

        Raises:
            ConfigError: no corpus, or settings that do not fit together.
            DataError: a corpus without text.
        """
        self._check(ctx)
        corpus = self._corpus(ctx)
        settings = self.settings
        shown = settings.top_k * sum(len(p.text) + 5 for p in corpus.passages)
        added = shown / len(corpus.passages)
        timing = "unknown: depends on the machine; nothing was timed"
        forecasts = {
            "passages": Estimate(len(corpus.passages), "passages", "exact"),
            "prompt_tokens_added": Estimate(
                round(added / CHARACTERS_A_TOKEN),
                "tokens",
                f"formula: top_k x a mean passage's characters / {CHARACTERS_A_TOKEN:g}",
                0,
                round(settings.top_k * max(len(p.text) + 5 for p in corpus.passages) / 2.5),
            ),
            "calls": Estimate(len(ctx.dev) if settings.cite else 0, "calls", "formula"),
            "seconds": Estimate(None, "s", timing),
        }
        notes = ["prompt_tokens_added is what each question grows by", *corpus.left_out]
        if settings.cite:
            notes.append("the dev rows are answered once to see how citations are")
        route = self.generator.route
        if route is not None:
            by_words = build_retriever(corpus.passages, None)
            its = route.plan(self.generator.context(ctx, corpus.passages, by_words)[0])
            calls = its.forecasts.get("calls")
            forecasts = {**its.forecasts, **forecasts, "seconds": forecasts["seconds"]}
            if calls is not None:
                forecasts["calls"] = _plus(calls, len(ctx.dev) if settings.cite else 0)
            notes += [f"generator {settings.generator}: {note}" for note in its.notes]
            if settings.retriever != BM25:
                notes.append("the generator's rows are reckoned with the passages BM25 finds")
        return Plan(ctx.name, self.kind, forecasts, tuple(notes))

    def fit(self, ctx: FitContext) -> Adapted:
        """Cut the corpus, tune what is to be tuned, and measure retrieval on dev.

        A finished result of the same rows, corpus, settings and seed is returned as it is. A
        killed run goes on: a tuned retriever, vectors, a generator's training and answers that
        were finished are not made again.

        Raises:
            ConfigError: no corpus, or settings that do not fit together.
            DataError: a corpus without text; `tune` where no row's passage is known.
            RunDirError: the folder holds what was made from something else.
            PrerequisiteError: an extra is missing.
        """
        self._check(ctx)
        corpus = self._corpus(ctx)
        made_from = self._made_from(ctx, corpus)
        folder = ctx.work / "adapted"
        _claim(ctx.work, made_from)
        if not (folder / FILE).is_file():
            deliver(Fitting(self.generator, ctx, corpus), folder, made_from)
        for name in WORKING:
            shutil.rmtree(ctx.work / name, ignore_errors=True)
        return _adapted(ctx, folder)

    def open(self, adapted: Adapted) -> ChatModel:
        """The generator behind the retriever; the corpus file itself is not needed.

        Raises:
            ModelError: the passages or the embedding model are not those it was made with.
        """
        behind = self._retrieving(adapted)
        config = ModelConfig.model_validate(adapted.base["config"])
        return behind(self.generator.open(config, adapted.system, _generator(adapted)))

    def around(self, adapted: Adapted) -> Callable[[ChatModel], ChatModel]:
        """What `open` makes of a base model that is loaded already, with `adapter` on it.

        Passages and embedding model are read once. Raises as `open` does.
        """
        behind, made = self._retrieving(adapted), _generator(adapted)

        def made_of(inner: ChatModel) -> ChatModel:
            return behind(self.generator.dressed(inner, adapted.system, made))

        return made_of

    def adapter(self, adapted: Adapted) -> Path | None:
        """The folder of the generator's adapter; None where the base itself answers."""
        folder = Path(adapted.folder) / ANSWERING
        return folder if (folder / "adapter_config.json").exists() else None

    def _retrieving(self, adapted: Adapted) -> Callable[[ChatModel], ChatModel]:
        folder = Path(adapted.folder)
        record = read_json(folder / FILE)
        passages = read_passages(folder / PASSAGES)
        if passages_hash(passages) != record["passages_hash"]:
            raise ModelError(f"{folder / PASSAGES} was changed since the route was fitted.")
        config = ModelConfig.model_validate(adapted.base["config"])
        embedder = _embedder(folder, record["retriever"], config.device)
        retriever = build_retriever(passages, embedder, folder)
        top_k, room = record["top_k"], record["max_tokens"]
        return lambda inner: RagModel(inner, retriever, passages, top_k, room)

    def _check(self, ctx: FitContext) -> None:
        settings = self.settings
        if ctx.corpus is None:
            raise ConfigError(
                f"route {ctx.name!r} has no corpus to search: set data.corpus to a document, a "
                "folder of documents, or a file of rows with 'text'."
            )
        if ctx.task.kind == "text":
            raise ConfigError(f"route {ctx.name!r} answers questions; a text task has none.")
        check_name(settings.retriever)
        if settings.tune and settings.retriever == BM25:
            raise ConfigError(
                f"routes.{ctx.name}.tune: BM25 has nothing to tune. Set retriever to a "
                "sentence-transformers model, or tune to false."
            )

    def _corpus(self, ctx: FitContext) -> Corpus:
        assert ctx.corpus is not None
        return read_corpus(ctx.corpus, self.settings.passage_words, self.settings.overlap_words)

    def _made_from(self, ctx: FitContext, corpus: Corpus) -> dict[str, Any]:
        """All that the result depends on."""
        model = ctx.model.model_dump(mode="json")
        name = Path(self.settings.retriever)
        return {
            "settings": self.settings.model_dump(mode="json"),
            "seed": ctx.seed,
            "metric": ctx.metric,
            "instructions": ctx.task.instructions,
            "max_tokens": ctx.task.max_tokens,
            "model": {key: model[key] for key in MODEL_KEYS},
            "corpus": corpus.hash,
            "retriever": embedder_identity(name) if name.is_dir() else None,
            "train": part_hash(ctx.train),
            "dev": part_hash(ctx.dev),
        }


def _generator(adapted: Adapted) -> Adapted | None:
    """What the generator's own route made; None where the base itself answers."""
    folder = Path(adapted.folder)
    made = read_json(folder / FILE)["generator"]
    return None if made is None else Adapted.from_json(made, str(folder / ANSWERING))


def _claim(work: Path, made_from: Mapping[str, Any]) -> None:
    """Tie the folder to what is made in it; a RunDirError where that was something else."""
    path = work / "made_from.json"
    begun = read_json(path, made_from)
    if begun != made_from:
        differing = sorted(key for key in made_from if begun.get(key) != made_from[key])
        raise RunDirError(
            f"{work} was begun with other {', '.join(differing)}. Give the route an empty folder."
        )
    work.mkdir(parents=True, exist_ok=True)
    write_json(path, made_from)


def _adapted(ctx: FitContext, folder: Path) -> Adapted:
    record = read_json(folder / FILE)
    base = {"config": ctx.model.model_dump(mode="json")}
    made = {key: record[key] for key in ("system", "detail", "usage")}
    return Adapted.from_json({"kind": RagRoute.kind, "base": base, **made}, str(folder))


def _embedder(folder: Path, record: Mapping[str, Any], device: str) -> Embedder | None:
    """The embedding model of a fitted route. Raises ModelError where it is another one."""
    if record["name"] == BM25:
        return None
    name = str(folder / TUNED) if record["tuned"] else str(record["name"])
    embedder = open_embedder(name, device)
    if embedder.identity != record["identity"]:
        raise ModelError(
            f"{name}: this embedding model ({embedder.identity}) is not the one the passages were "
            f"embedded with ({record['identity']}). Use the same one, or fit the route again."
        )
    return embedder


def _plus(estimate: Estimate, more: int) -> Estimate:
    """An estimate of calls with so many more."""
    sums = [v if v is None else v + more for v in (estimate.value, estimate.low, estimate.high)]
    return dataclasses.replace(estimate, value=sums[0], low=sums[1], high=sums[2])
