"""A classifier without a language model: its features, its weights, its files.

The files are plain arrays and JSON, without pickle; scikit-learn counts the words here as it did
when the classifier was fitted.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from tunelm.errors import DataError, ModelError
from tunelm.judging.encoder import open_encoder
from tunelm.models.base import as_stream
from tunelm.retrieval.embed import Embedder
from tunelm.rundir import read_json, write_json
from tunelm.types import (
    ZERO_USAGE,
    Completion,
    Delta,
    FinishReason,
    Message,
    Request,
    TokenLogprobs,
)

Matrix = NDArray[np.float64]
ABOUT, WEIGHTS = "classifier.json", "weights.npz"

COUNTED: Mapping[str, Mapping[str, Any]] = {
    "words": {"ngram_range": (1, 2)},
    "characters": {"analyzer": "char_wb", "ngram_range": (2, 5)},
}
"""What is counted: words and pairs of them; pieces of words, which know `storms` from `storm`."""
MOST_TERMS = 50_000
"""Of words and of pieces each: the commonest."""


@dataclass(frozen=True)
class Counts:
    """TF-IDF of words and pieces of words, as scikit-learn counts them."""

    vectorizers: Mapping[str, Any]

    @classmethod
    def of(cls, texts: Sequence[str]) -> Counts:
        """Which terms these texts have, and how rare each is. Raises DataError without words."""
        try:
            return cls({name: _vectorizer(name).fit(texts) for name in COUNTED})
        except ValueError:
            raise DataError(
                "no train text has a word of two letters or more, so there is nothing to count."
            ) from None

    @classmethod
    def saved(cls, terms: Mapping[str, Sequence[str]], arrays: Mapping[str, Matrix]) -> Counts:
        """The inverse of `terms` and of the `idf_NAME` in `arrays`."""
        found: dict[str, Any] = {}
        for name in COUNTED:
            found[name] = _vectorizer(name, vocabulary=list(terms[name]))
            found[name].idf_ = arrays[f"idf_{name}"]
        return cls(found)

    @property
    def terms(self) -> dict[str, list[str]]:
        """The terms, in the order of their columns."""
        return {
            name: [str(term) for term in vectorizer.get_feature_names_out()]
            for name, vectorizer in self.vectorizers.items()
        }

    @property
    def arrays(self) -> dict[str, Matrix]:
        """How rare each term is."""
        return {f"idf_{name}": v.idf_ for name, v in self.vectorizers.items()}

    def __call__(self, texts: Sequence[str]) -> Any:
        """A sparse matrix (n, terms)."""
        from scipy.sparse import hstack

        return hstack([v.transform(texts) for v in self.vectorizers.values()]).tocsr()


@dataclass(frozen=True)
class Vectors:
    """A sentence encoder's vectors."""

    embedder: Embedder

    def __call__(self, texts: Sequence[str]) -> Matrix:
        """(n, width), each of length 1."""
        return self.embedder.passages(texts).astype(np.float64)

    @property
    def limit(self) -> int | None:
        """Tokens that the encoder reads of a text; None: of any length."""
        return self.embedder.model.max_seq_length

    def cut(self, texts: Sequence[str]) -> int:
        """How many texts are longer than that."""
        limit, tokenizer = self.limit, getattr(self.embedder.model, "tokenizer", None)
        if limit is None or tokenizer is None:
            return 0
        return sum(len(tokenizer(text)["input_ids"]) > limit for text in texts)


Features = Counts | Vectors


@dataclass(frozen=True)
class Fitted:
    """Labels, in the alphabet's order, with `weights` (labels, columns) and `bias` (labels,)."""

    labels: tuple[str, ...]
    weights: Matrix
    bias: Matrix

    def probabilities(self, table: Any) -> Matrix:
        """(n, labels) of texts as (n, columns), each row adding up to 1."""
        scores = np.asarray(table @ self.weights.T) + self.bias
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        return shares / shares.sum(axis=1, keepdims=True)


class ClassifierModel:
    """Answers with the likeliest label and how likely it is. See ChatModel.

    Its usage is no tokens: no language model is asked.
    """

    name = "classifier"
    capabilities = frozenset({"complete", "stream"})

    def __init__(self, features: Features, fitted: Fitted) -> None:
        self.features = features
        self.fitted = fitted

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """See ChatModel."""
        if not requests:
            return []
        began = time.perf_counter()
        table = self.features([text_of(request.messages) for request in requests])
        found = self.fitted.probabilities(table)
        seconds = time.perf_counter() - began
        return [
            Completion(
                self.fitted.labels[int(row.argmax())],
                FinishReason.STOP,
                ZERO_USAGE,
                seconds,
                confidence=float(row.max()),
            )
            for row in found
        ]

    def stream(self, request: Request) -> Iterator[Delta]:
        """See ChatModel. A label comes whole."""
        return as_stream(self.complete([request])[0])

    def score(self, pairs: Sequence[tuple[tuple[Message, ...], str]]) -> list[TokenLogprobs]:
        """Raises ModelError: it knows labels, and no tokens."""
        raise ModelError("a classifier has no log-probabilities of tokens")


def save(folder: Path, features: Features, fitted: Fitted) -> None:
    """Write ABOUT and WEIGHTS; no pickle."""
    folder.mkdir(parents=True, exist_ok=True)
    small = {"weights": fitted.weights, "bias": fitted.bias}
    arrays: dict[str, Any] = {name: array.astype(np.float32) for name, array in small.items()}
    about: dict[str, Any] = {"labels": list(fitted.labels), "terms": None, "encoder": None}
    if isinstance(features, Counts):
        arrays |= features.arrays
        about["terms"] = features.terms
    else:
        its = features.embedder
        about["encoder"] = {"name": its.name, "identity": its.identity}
    np.savez_compressed(folder / WEIGHTS, allow_pickle=False, **arrays)
    about["weights"] = _digest(folder / WEIGHTS)
    write_json(folder / ABOUT, about)


def load(folder: Path) -> ClassifierModel:
    """The inverse of `save`. Raises ModelError for damaged files or another encoder."""
    try:
        about = read_json(folder / ABOUT)
        if _digest(folder / WEIGHTS) != about["weights"]:
            raise ModelError(f"{folder}: {ABOUT} and {WEIGHTS} do not belong together: fit again.")
        with (folder / WEIGHTS).open("rb") as file, np.load(file, allow_pickle=False) as loaded:
            arrays = {name: loaded[name] for name in loaded.files}
        if about["encoder"] is None:
            features = Counts.saved(about["terms"], arrays)
        else:
            features = Vectors(_same_encoder(about["encoder"]))
        fitted = Fitted(tuple(about["labels"]), arrays["weights"], arrays["bias"])
        return ClassifierModel(features, fitted)
    except (ValueError, KeyError, TypeError, OSError, EOFError, BadZipFile) as error:
        raise ModelError(f"{folder}: damaged or incomplete ({error}): fit it again.") from None


def _same_encoder(about: Mapping[str, str]) -> Embedder:
    embedder = open_encoder(about["name"]).embedder
    if embedder.identity != about["identity"]:
        raise ModelError(
            f"{about['name']}: this encoder ({embedder.identity}) is not the one the classifier "
            f"was fitted with ({about['identity']}). Use the same one, or fit the route again."
        )
    return embedder


def text_of(messages: Sequence[Message]) -> str:
    """What is classified: all that was said, one message a line."""
    return "\n".join(message.content for message in messages)


def _vectorizer(name: str, **further: Any) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    limit = {} if further else {"max_features": MOST_TERMS}
    return TfidfVectorizer(sublinear_tf=True, **COUNTED[name], **limit, **further)


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
