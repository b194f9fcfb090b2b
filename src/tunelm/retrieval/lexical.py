"""Search by words: BM25 (Robertson and Zaragoza 2009), through the library bm25s."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunelm.errors import PrerequisiteError

_ASCII = re.compile(r"[a-z0-9]+")
_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    r"\uf900-\ufaff\U00020000-\U0003ffff]+"
)
"""Scripts written without spaces between words: Thai, Lao, Burmese, Khmer, Kana, Han."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A text that was found: its place among the texts, and how well it fits."""

    index: int
    score: float


class Bm25:
    """Texts to be searched by their words, in any script.

    Lucene's form of BM25 with k1 = 1.5 and b = 0.75. Words are neither stemmed nor left out:
    the weights make little of those that stand everywhere, whatever the language.

    Raises:
        PrerequisiteError: bm25s is not installed.
    """

    name = "bm25"

    def __init__(self, texts: Sequence[str]) -> None:
        try:
            import bm25s
        except ImportError:
            raise PrerequisiteError(
                "search by words needs bm25s, which is not installed: pip install 'tunelm[rag]'"
            ) from None
        logging.getLogger("bm25s").setLevel(logging.WARNING)  # it tells of every index
        self.size = len(texts)
        tokens = [words(text) for text in texts]
        self._engine = None
        if any(tokens):  # the library cannot index a corpus without words
            self._engine = bm25s.BM25(method="lucene", k1=1.5, b=0.75, backend="numpy")
            self._engine.index(tokens, show_progress=False)

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """The best `k` texts for each query, best first, equal ones by their place.

        There are always k, or all texts where there are fewer; one that has no word in common
        with the query has the score 0.
        """
        return [top(self.scores(query), k) for query in queries]

    def scores(self, query: str) -> NDArray[np.float32]:
        """The score of every text."""
        found = words(query)
        if self._engine is not None:
            found = [word for word in found if word in self._engine.vocab_dict]
        if self._engine is None or not found:
            return np.zeros(self.size, np.float32)
        return self._engine.get_scores(found)


def top(scores: NDArray[np.float32], k: int) -> list[Hit]:
    """The `k` highest of the scores of all texts, best first, equal ones by their place.

    >>> [hit.index for hit in top(np.array([1.0, 3.0, 1.0, 2.0], np.float32), 3)]
    [1, 3, 0]
    """
    k = min(k, len(scores))
    if k < 1:
        return []
    least = np.partition(scores, len(scores) - k)[len(scores) - k]
    able = np.flatnonzero(scores >= least)
    best = able[np.argsort(-scores[able], kind="stable")][:k]
    return [Hit(int(i), float(scores[i])) for i in best]


def words(text: str) -> list[str]:
    """The words of a text in any script, lower case, in order.

    Where a script has no spaces between words, its characters and pairs of neighbours stand for
    them, as in Lucene's CJK analyzer.

    >>> words("H₂O isn't CO2!"), words("光合作用")
    (['h2o', 'isn', 't', 'co2'], ['光', '光合', '合', '合作', '作', '作用', '用'])
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    if text.isascii():
        return _ASCII.findall(text)
    # marks belong to the letter before them, as the vowels of Hindi do; \w knows only letters
    text = "".join(c if c.isalnum() or unicodedata.category(c)[0] == "M" else " " for c in text)
    found: list[str] = []
    for word in text.split():
        at = 0
        for run in _UNSPACED.finditer(word):
            found += [word[at : run.start()]] if run.start() > at else []
            at, characters = run.end(), run[0]
            for i, character in enumerate(characters):
                found += [character, characters[i : i + 2]][: 1 + (i + 1 < len(characters))]
        found += [word[at:]] if at < len(word) else []
    return found
