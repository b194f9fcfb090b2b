"""A judge learned from people's labels: half linear, half trees, calibrated, kept without pickle.

Both halves predict deviations from the middle of their training labels, so that models trained
without one system can be compared on it: with an intercept, what leaves the best system out expects
less of everybody, and the ranking turns against it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from tunelm.errors import ConfigError, ModelError
from tunelm.judging import features
from tunelm.judging.coding import Coding, choose
from tunelm.judging.encoder import Encoder, open_encoder
from tunelm.judging.forest import Forest
from tunelm.judging.judge import Rating
from tunelm.judging.linear import Linear
from tunelm.judging.tuning import TunedEncoder, open_tuned
from tunelm.rundir import write_json
from tunelm.types import Example, content_hash

Matrix = NDArray[np.float64]
WEIGHTS, ABOUT = "weights.npz", "judge.json"
FORMAT = 1


@dataclass(frozen=True)
class Learned:
    """The two halves and how they are put together.

    `blend` is the share of the trees. A value is `level` + `slope` * score, kept on the scale;
    `offsets` are added to the outputs before the class is chosen.
    """

    coding: Coding
    linear: Linear
    forest: Forest
    blend: float
    level: float
    slope: float
    offsets: Matrix

    def outputs(self, texts: Sequence[str], table: Matrix) -> Matrix:
        """(n, k) of both halves."""
        return mixed(self.linear.predict(texts, table), self.forest.predict(table), self.blend)

    def value(self, outputs: Matrix) -> Matrix | None:
        """(n,) on the scale; None for classes without an order."""
        score = self.coding.score(outputs)
        return (
            None if score is None else np.clip(self.level + self.slope * score, *self.coding.scale)
        )

    def labels(self, outputs: Matrix) -> list[str | None]:
        """The class of each row; None where labels are numbers."""
        if not self.coding.labels:
            return [None] * len(outputs)
        return [self.coding.labels[place] for place in choose(outputs, self.offsets)]


def mixed(linear: Matrix, trees: Matrix, blend: float) -> Matrix:
    """The outputs of both halves, `blend` of them from the trees."""
    return (1 - blend) * linear + blend * trees


@dataclass(frozen=True)
class LearnedJudge:
    """See Judge. `about` is all of judge.json: how it was made, and its agreement with people."""

    name: str
    learned: Learned
    encoder: Encoder | TunedEncoder | None
    about: Mapping[str, Any]
    kind: str = "learned"

    @property
    def scale(self) -> tuple[float, float]:
        """See Judge."""
        return self.learned.coding.scale

    def rate(self, examples: Sequence[Example], outputs: Sequence[str]) -> list[Rating]:
        """See Judge. An empty reply is not judged."""
        kept = [place for place, output in enumerate(outputs) if output.strip()]
        ratings = [Rating(None, None, "an empty reply") for _ in outputs]
        if not kept:
            return ratings
        texts = [outputs[place] for place in kept]
        table = described([examples[place] for place in kept], texts, self.encoder)
        given = self.learned.outputs(texts, table)
        values, labels = self.learned.value(given), self.learned.labels(given)
        for row, place in enumerate(kept):
            value = None if values is None else float(values[row])
            ratings[place] = Rating(value, labels[row])
        return ratings

    def signature(self) -> str:
        """See Judge."""
        return content_hash([self.about["weights"], self.about["features"], self.about["encoder"]])

    def save(self, folder: Path) -> None:
        """Write judge.json, weights.npz and a tuned encoder; no pickle.

        All of it or nothing: what was begun and broken off is removed.
        """
        making, there = folder / ".making", folder.exists()
        try:
            making.mkdir(parents=True)
            self._write(making)
            for made in sorted(making.iterdir(), key=lambda path: path.name == ABOUT):
                made.rename(folder / made.name)
            making.rmdir()
        except BaseException:
            shutil.rmtree(making if there else folder, ignore_errors=True)
            raise

    def _write(self, folder: Path) -> None:
        its = self.learned
        arrays = {f"linear_{k}": v for k, v in its.linear.arrays().items()}
        arrays["offsets"] = its.offsets
        arrays |= {f"forest_{k}": v for k, v in its.forest.arrays().items()}
        np.savez_compressed(folder / WEIGHTS, allow_pickle=False, **arrays)
        about = dict(self.about)
        if isinstance(self.encoder, TunedEncoder):
            about["encoder_files"] = self.encoder.save(folder)
        write_json(folder / ABOUT, about)


def described(
    examples: Sequence[Example], outputs: Sequence[str], encoder: Encoder | TunedEncoder | None
) -> Matrix:
    """(n, d) all numbers that are read off the replies."""
    table = features.feature_table(examples, outputs)[1]
    return table if encoder is None else np.hstack([table, encoder.describe(examples, outputs)])


def weights_hash(learned: Learned) -> str:
    """Hash of everything that a value depends on."""
    digest = hashlib.sha256()
    for part in (learned.linear.arrays(), learned.forest.arrays(), {"offsets": learned.offsets}):
        for name, array in sorted(part.items()):
            digest.update(f"{name}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    numbers = [learned.blend, learned.level, learned.slope, learned.linear.terms.names]
    return content_hash([numbers, digest.hexdigest()])


def about_of(learned: Learned) -> dict[str, Any]:
    """The part of judge.json that opens the judge again."""
    return {
        "format": FORMAT,
        "features": features.VERSION,
        "labels": list(learned.coding.labels),
        "ordered": learned.coding.ordered,
        "scale": list(learned.coding.scale),
        "blend": learned.blend,
        "level": learned.level,
        "slope": learned.slope,
        "terms": list(learned.linear.terms.names),
        "weights": weights_hash(learned),
    }


def open_learned(folder: Path) -> LearnedJudge:
    """The judge in a folder.

    Raises:
        ConfigError: the folder holds no judge, or one of another version; or its encoder is gone.
        ModelError: its files are damaged or do not belong together.
    """
    file = folder / ABOUT
    if not file.is_file():
        raise ConfigError(
            f"{folder}: no judge there (no {ABOUT}): make one with `tunelm judge train`"
        )
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        found = (about["format"], about["features"])
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ModelError(f"{file}: damaged ({error!r}): train the judge again") from None
    if found != (FORMAT, features.VERSION):
        raise ConfigError(
            f"{folder}: made by another version (format and features {found}, here"
            f" {(FORMAT, features.VERSION)}): train the judge again"
        )
    try:
        learned = _learned(about, folder / WEIGHTS)
    except (ValueError, KeyError, TypeError, OSError, EOFError, BadZipFile, zlib.error) as error:
        raise ModelError(f"{folder / WEIGHTS}: damaged or missing ({error}): train again") from None
    if weights_hash(learned) != about["weights"]:
        raise ModelError(f"{folder}: {ABOUT} and {WEIGHTS} do not belong together: train it again")
    return LearnedJudge(about["name"], learned, _encoder(folder, about), about)


def _encoder(folder: Path, about: Mapping[str, Any]) -> Encoder | TunedEncoder | None:
    known = about["encoder"]
    if known is None:
        return None
    if "tuned" in known:
        return open_tuned(folder, known, about["encoder_files"])
    encoder = open_encoder(known["name"])
    if encoder.identity != known["identity"]:
        raise ModelError(
            f"{folder}: the encoder {encoder.name} is another than the judge was trained with"
        )
    return encoder


def _learned(about: Mapping[str, Any], file: Path) -> Learned:
    # numpy leaves a file open that it finds damaged, unless it was opened here
    with file.open("rb") as opened, np.load(opened, allow_pickle=False) as loaded:
        arrays = {name: loaded[name] for name in loaded.files}

    def part(name: str) -> dict[str, Any]:
        return {k.removeprefix(name): v for k, v in arrays.items() if k.startswith(name)}

    scale = (float(about["scale"][0]), float(about["scale"][1]))
    return Learned(
        coding=Coding(tuple(about["labels"]), bool(about["ordered"]), scale),
        linear=Linear.from_arrays(about["terms"], part("linear_")),
        forest=Forest.from_arrays(part("forest_")),
        blend=about["blend"],
        level=about["level"],
        slope=about["slope"],
        offsets=arrays["offsets"],
    )
