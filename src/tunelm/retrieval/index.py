"""Ways to find passages, all behind one protocol."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tunelm.errors import PrerequisiteError
from tunelm.retrieval.chunks import Passage
from tunelm.retrieval.embed import Embedder, Vectors, cached_vectors
from tunelm.retrieval.lexical import Bm25, Hit, top

BM25 = "bm25"
EXACT_BELOW = 50_000
"""Passages from which on FAISS searches: exact search takes tens of milliseconds until then."""
CELL_SHARE = 8
"""One cell in so many is searched by FAISS."""
FUSION_K = 60
"""The constant of reciprocal rank fusion, as its authors set it."""
FUSION_DEPTH = 100
"""Best hits of each retriever that are fused."""


class Retriever(Protocol):
    """Finds the texts that a question is about."""

    name: str

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """At most `k` texts for each query, best first, equal ones by their place."""
        ...


class ByWords:
    """BM25, without the texts that have no word in common with the query."""

    name = BM25

    def __init__(self, texts: Sequence[str]) -> None:
        self._engine = Bm25(texts)

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """See Retriever."""
        found = self._engine.search(queries, k)
        return [[hit for hit in hits if hit.score > 0] for hits in found]


class ByMeaning:
    """The cosine of a question's vector with each text's.

    Exact below `exact_below` texts. Above, FAISS puts the vectors into 4 sqrt(n) cells by
    k-means (IVF), and searches the eighth of them that lies nearest to the question. HNSW would
    be faster, but its graph depends on how threads interleave; this is the same at every run.

    Raises:
        PrerequisiteError: FAISS is needed and not installed.
    """

    def __init__(
        self, embedder: Embedder, vectors: Vectors, exact_below: int = EXACT_BELOW
    ) -> None:
        self.name = embedder.name
        self._embedder = embedder
        self._vectors = vectors
        self._cells = None if len(vectors) < exact_below else _cells(vectors)

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """See Retriever."""
        wanted = self._embedder.queries(queries)
        if self._cells is None:
            return [top(self._vectors @ query, k) for query in wanted]
        if not queries:
            return []
        scores, places = self._cells.search(wanted, min(k, len(self._vectors)))
        return [
            _in_order(Hit(int(i), float(s)) for i, s in zip(row, its, strict=True) if i >= 0)
            for row, its in zip(places, scores, strict=True)
        ]


class Fused:
    """Several retrievers by reciprocal rank fusion (Cormack et al., SIGIR 2009).

    A text's score is the sum of 1 / (60 + its rank) over the retrievers that found it. Ranks
    need no common scale, and nothing has to be weighed.
    """

    def __init__(self, parts: Sequence[Retriever]) -> None:
        self.name = "+".join(part.name for part in parts)
        self.parts = tuple(parts)

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """See Retriever."""
        fused: list[dict[int, float]] = [{} for _ in queries]
        for part in self.parts:
            for scores, hits in zip(fused, part.search(queries, max(k, FUSION_DEPTH)), strict=True):
                for rank, hit in enumerate(hits, 1):
                    scores[hit.index] = scores.get(hit.index, 0.0) + 1 / (FUSION_K + rank)
        return [_in_order(Hit(i, s) for i, s in scores.items())[:k] for scores in fused]


def build_retriever(
    passages: Sequence[Passage], embedder: Embedder | None, folder: Path | None = None
) -> Retriever:
    """BM25 alone, or fused with an embedding model, whose vectors are kept in `folder`."""
    texts = [passage.searched for passage in passages]
    words = ByWords(texts)
    if embedder is None:
        return words
    if folder is None:
        return Fused([words, ByMeaning(embedder, embedder.passages(texts))])
    return Fused([words, ByMeaning(embedder, cached_vectors(embedder, texts, folder))])


def _in_order(hits: Any) -> list[Hit]:
    return sorted(hits, key=lambda hit: (-hit.score, hit.index))


def _cells(vectors: Vectors) -> Any:
    try:
        import faiss
    except ImportError:
        raise PrerequisiteError(
            f"{len(vectors)} passages are searched by faiss, which is not installed: "
            "pip install 'tunelm[rag]'"
        ) from None
    count, width = vectors.shape
    cells = max(1, int(4 * np.sqrt(count)))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, cells, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    index.nprobe = max(8, cells // CELL_SHARE)
    return index
