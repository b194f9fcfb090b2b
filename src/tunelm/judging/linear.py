"""The linear half of a judge: word counts and features, weighed by ridge regression.

Word counts are TF-IDF as in scikit-learn's (sublinear, smoothed, unit length), written here so that
training and rating cannot differ and rating needs numpy and scipy alone; a test holds the equality.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

LEAST_ROWS = 3
"""A word in fewer replies than this is not counted."""
FEATURE_WEIGHT = 0.1
"""Standardised features are scaled by this, so that one ridge penalty suits them and words."""

_FIGURE = re.compile(r"\$?\d[\d,]*(?:\.\d+)?%?")
_TOKEN = re.compile(r"\w+|[?!]")


@dataclass(frozen=True)
class Terms:
    """Which words and pairs of words are counted, and how rare each is."""

    names: tuple[str, ...]
    idf: Matrix

    def count(self, texts: Sequence[str]) -> Any:
        """The texts as a sparse matrix (n, terms): (1 + log count) * idf, rows of length 1."""
        return self.weigh(tally(texts, self.names)[1])

    def weigh(self, counts: Any) -> Any:
        """Counts (n, terms) weighed so."""
        from scipy.sparse import diags

        weighed = counts.copy()
        weighed.data = 1 + np.log(weighed.data)
        weighed = weighed @ diags(self.idf)
        norms = np.sqrt(np.asarray(weighed.multiply(weighed).sum(axis=1)).ravel())
        return diags(1 / np.where(norms, norms, 1.0)) @ weighed


def tally(texts: Sequence[str], names: Sequence[str] | None = None) -> tuple[tuple[str, ...], Any]:
    """How often each term stands in each text, a sparse matrix (n, terms).

    Of the terms `names` in their order, or of all there are, in the order of the alphabet.
    """
    from scipy.sparse import csr_matrix

    found = [Counter(terms_of(text)) for text in texts]
    if names is None:
        names = sorted({term for counts in found for term in counts})
    at = {name: place for place, name in enumerate(names)}
    cells = [
        (row, at[term], count)
        for row, counts in enumerate(found)
        for term, count in counts.items()
        if term in at
    ]
    rows, columns, values = zip(*cells, strict=True) if cells else ((), (), ())
    matrix = csr_matrix(
        (np.array(values, np.float64), (rows, columns)), shape=(len(texts), len(names))
    )
    return tuple(names), matrix


def common_terms(names: Sequence[str], counts: Any) -> tuple[Terms, Any]:
    """The terms that stand in enough of these rows, and the places of their columns."""
    rows = np.asarray((counts > 0).sum(axis=0)).ravel().astype(np.float64)
    kept = np.flatnonzero(rows >= LEAST_ROWS)
    idf = np.log((1 + counts.shape[0]) / (1 + rows[kept])) + 1
    return Terms(tuple(names[place] for place in kept.tolist()), idf), kept


def terms_of(text: str) -> list[str]:
    """Words, question and exclamation marks, and pairs of neighbours; every figure is "#".

    >>> terms_of("What is 3 + 4?")
    ['what', 'is', '#', '#', '?', 'what is', 'is #', '# #', '# ?']
    """
    tokens = [t.replace("0", "#") for t in _TOKEN.findall(_FIGURE.sub(" 0 ", text.lower()))]
    return tokens + [f"{a} {b}" for a, b in pairwise(tokens)]


@dataclass(frozen=True)
class Linear:
    """Weights of terms and features: (terms + features, k) for k outputs.

    Outputs are deviations from the middle of the training labels: there is no intercept, because
    the level is set once, when the whole judge is calibrated (tunelm.judging.learned).
    """

    terms: Terms
    mean: Matrix
    spread: Matrix
    weights: Matrix

    def predict(self, texts: Sequence[str], features: Matrix) -> Matrix:
        """(n, k) from replies and their features (n, d)."""
        return self.predict_weighed(self.terms.count(texts), features)

    def predict_weighed(self, counted: Any, features: Matrix) -> Matrix:
        """The same for texts whose terms are counted and weighed."""
        size = len(self.terms.names)
        scaled = (features - self.mean) / self.spread * FEATURE_WEIGHT
        return np.asarray(counted @ self.weights[:size]) + scaled @ self.weights[size:]

    def arrays(self) -> dict[str, Matrix]:
        """What `from_arrays` needs, but for the terms' names."""
        return {
            "idf": self.terms.idf,
            "mean": self.mean,
            "spread": self.spread,
            "weights": self.weights,
        }

    @classmethod
    def from_arrays(cls, names: Sequence[str], arrays: Mapping[str, Matrix]) -> Linear:
        """The inverse of `arrays`."""
        terms = Terms(tuple(names), arrays["idf"])
        return cls(terms, arrays["mean"], arrays["spread"], arrays["weights"])
