"""An optional sentence encoder beside the features: how near a reply is to what it answers.

Whose encoder it is decides the user: a folder or a hub id. Nothing here loads torch until one is
opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelm.errors import ConfigError, ModelError, PrerequisiteError
from tunelm.judging.features import scene_of
from tunelm.retrieval.embed import Embedder, Vectors, open_embedder
from tunelm.types import Example

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Encoder:
    """A sentence encoder that describes replies."""

    embedder: Embedder

    @property
    def name(self) -> str:
        """The folder or hub id it was opened by."""
        return self.embedder.name

    @property
    def identity(self) -> str:
        """Hash of its files."""
        return self.embedder.identity

    def to_json(self) -> dict[str, Any]:
        """The part of judge.json that opens it again."""
        return {"name": self.name, "identity": self.identity}

    def describe(self, examples: Sequence[Example], outputs: Sequence[str]) -> Matrix:
        """(n, 5): how near each reply is to what was said before.

        Cosines with the student's last words, all of the student's, the problem, the solution and
        the teacher's last turn; 0 where there is none. The reply's own vector is left out: it adds
        nothing to what the words and features tell (measured: benchmarks/RESULTS.md).
        """
        scenes = [scene_of(e, o) for e, o in zip(examples, outputs, strict=True)]
        replies = self.vectors([scene.reply for scene in scenes])
        sides = [
            [scene.last for scene in scenes],
            [" ".join(scene.student) for scene in scenes],
            [scene.problem for scene in scenes],
            [scene.solution for scene in scenes],
            [scene.teacher[-1] if scene.teacher else "" for scene in scenes],
        ]
        near = [(replies * self.vectors(side)).sum(axis=1) for side in sides]
        return np.column_stack(near).astype(np.float64)

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """(n, width) of length 1, zero for an empty text; each text is encoded once."""
        distinct = sorted({text for text in texts if text})
        vectors = dict(zip(distinct, self.embedder.passages(distinct), strict=True))
        nothing = np.zeros(self.embedder.width, np.float32)
        return np.array([vectors.get(text, nothing) for text in texts])


def open_encoder(name: str) -> Encoder:
    """The encoder in a folder or on the hub.

    Raises:
        PrerequisiteError: sentence-transformers is not installed.
        ConfigError: there is no such folder, and it is no hub id.
        ModelError: it cannot be loaded.
    """
    try:
        return Encoder(open_embedder(name))
    except (PrerequisiteError, ConfigError, ModelError) as error:
        # the words are those of [routes.rag], whose key for an encoder is `retriever`
        text = str(error).replace("retriever =", "encoder").replace("bm25, or a ", "a ")
        raise type(error)(text.replace("bm25, a folder", "a folder")) from error
