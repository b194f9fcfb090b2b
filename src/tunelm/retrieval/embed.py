"""Texts to vectors, by a sentence-transformers model from a folder or the hub.

Importing this module loads neither torch nor sentence-transformers.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelm.errors import ConfigError, ModelError, PrerequisiteError
from tunelm.models.identity import base_folder
from tunelm.models.loading import choose_device
from tunelm.types import content_hash

BATCH = 32
_FILES = (".json", ".txt", ".model", ".safetensors", ".bin")
_OTHER_ENGINES = ("onnx", "openvino")

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Embedder:
    """A sentence-transformers model.

    Attributes:
        name: the folder or hub id it was opened by.
        identity: hash of its files.
        model: the SentenceTransformer.
    """

    name: str
    identity: str
    model: Any

    @property
    def width(self) -> int:
        """Numbers of a vector."""
        newer = getattr(self.model, "get_embedding_dimension", None)  # since 5.2
        return (newer or self.model.get_sentence_embedding_dimension)()

    def queries(self, texts: Sequence[str]) -> Vectors:
        """(n, d) unit vectors of questions, with the model's own prompt for them, if any."""
        return self._encode(self.model.encode_query, texts)

    def passages(self, texts: Sequence[str]) -> Vectors:
        """(n, d) unit vectors of passages, with the model's own prompt for them, if any."""
        return self._encode(self.model.encode_document, texts)

    def _encode(self, encode: Any, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.zeros((0, self.width), np.float32)
        found = encode(
            list(texts), batch_size=BATCH, show_progress_bar=False, normalize_embeddings=True
        )
        return np.asarray(found, np.float32)


def open_embedder(name: str, device: str = "auto") -> Embedder:
    """Load a model by its folder or hub id; no code that comes with it is run.

    Raises:
        PrerequisiteError: sentence-transformers is not installed.
        ConfigError: a name that can be neither.
        ModelError: it cannot be loaded.
    """
    check_name(name)
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise PrerequisiteError(
            f"retriever = {name!r} needs sentence-transformers, which is not installed: "
            "pip install 'tunelm[rag]'"
        ) from None
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        model = SentenceTransformer(name, device=choose_device(device))
    except Exception as error:  # a bad folder makes the libraries below fail in many ways
        first = (str(error).strip() or repr(error)).splitlines()[0]
        raise ModelError(
            f"retriever = {name!r} cannot be loaded: {first} Valid: bm25, a folder that "
            "sentence-transformers wrote, or a hub id."
        ) from error
    return Embedder(name, embedder_identity(base_folder(name)), model.eval())


def check_name(name: str) -> None:
    """Raise ConfigError for a retriever that is neither `bm25`, a folder, nor like a hub id."""
    if name == "bm25" or Path(name).is_dir():
        return
    parts = name.split("/")
    if len(parts) != 2 or not all(parts) or name.startswith((".", "~")):
        near = difflib.get_close_matches(name, ["bm25"], cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(
            f"retriever = {name!r}: no such folder.{hint} Valid: bm25, or a sentence-transformers "
            "model: its folder, or a hub id with its owner (owner/name)."
        )


def embedder_identity(folder: Path) -> str:
    """Hash of the files that decide what a model answers: settings, vocabulary and weights."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if not path.is_file() or name.parts[0] in _OTHER_ENGINES or path.suffix not in _FILES:
            continue
        if path.suffix == ".bin" and path.with_name("model.safetensors").is_file():
            continue  # the same weights a second time; not everyone has both
        with path.open("rb") as file:
            found[name.as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return content_hash(found)


def cached_vectors(embedder: Embedder, texts: Sequence[str], folder: Path) -> Vectors:
    """The passages' vectors, from a file in `folder` where this model wrote them before."""
    path = folder / f"vectors-{embedder.identity}-{content_hash(list(texts))}.npy"
    if path.is_file():
        return np.load(path, allow_pickle=False)
    vectors = embedder.passages(texts)
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".tmp")
    with part.open("wb") as file:
        np.save(file, vectors, allow_pickle=False)
    part.replace(path)
    return vectors
