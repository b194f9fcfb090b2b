"""Route `classifier`: a label without a language model, which is what one has to beat.

Logistic regression by scikit-learn, on TF-IDF of words and of pieces of words, or on the vectors of
a sentence encoder. On short texts of few classes both are hard to beat with few rows (Edwards and
Camacho-Collados 2024, arXiv 2406.08660). Kept as plain arrays and JSON, without pickle.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelm.config import TaskConfig
from tunelm.errors import ConfigError, DataError, PrerequisiteError
from tunelm.judging.encoder import open_encoder
from tunelm.judging.folds import Places, group_folds, splits
from tunelm.models.base import ChatModel
from tunelm.models.labels import task_labels
from tunelm.route_settings import ClassifierSettings
from tunelm.routes.base import FitContext
from tunelm.routes.classifier_model import (
    Counts,
    Features,
    Fitted,
    Matrix,
    Vectors,
    load,
    save,
    text_of,
)
from tunelm.types import Adapted, Estimate, Example, Plan, label_form

TFIDF = "tfidf"

PENALTIES = (1.0, 4.0, 16.0, 64.0)
"""Tried as scikit-learn's C: the higher, the closer to the train rows."""
USUAL_PENALTY = 16.0
"""Taken where there are too few groups or labels to try."""
FOLDS = 5
TRIED_ROWS = 3_000
"""Most rows on which C is chosen; the classifier itself is fitted on all."""
LEAST_SHARE = 1e-6
"""What a label that was not in a fold's train rows counts as, in the log loss."""


class ClassifierRoute:
    """Logistic regression on the train rows; C is chosen by folds of their groups."""

    kind = "classifier"
    needs: tuple[str, ...] = ()

    def __init__(self, settings: ClassifierSettings) -> None:
        self.settings = settings

    def plan(self, ctx: FitContext) -> Plan:
        """Its parameters, by counting the terms. Raises as `fit` does."""
        self._check(ctx)
        labels = {label_form(row.answers[0]) for row in ctx.train}
        if self.settings.features == TFIDF:
            counted = Counts.of([text_of(row.messages) for row in ctx.train])
            columns = sum(map(len, counted.terms.values()))
            size = Estimate(float((columns + 1) * len(labels)), "parameters", "exact")
        else:
            size = Estimate(None, "parameters", "unknown: no encoder is opened for a forecast")
        unknown = Estimate(None, "s", "unknown: depends on the machine; nothing was timed")
        return Plan(ctx.name, self.kind, {"trainable_parameters": size, "seconds_fit": unknown})

    def fit(self, ctx: FitContext) -> Adapted:
        """Choose C and fit all train rows. The same rows and seed give the same classifier.

        Raises:
            ConfigError: the task is no classification; features that cannot be.
            DataError: train rows of one label only, or without words.
            PrerequisiteError: scikit-learn, or for an encoder sentence-transformers, is missing.
            ModelError: the encoder cannot be loaded.
        """
        self._check(ctx)
        texts = [text_of(row.messages) for row in ctx.train]
        gold = _gold(ctx.task, ctx.train)
        features = self._features(texts)
        table = features(texts)
        tried = _tried(ctx.train, ctx.seed)
        of_tried = (
            [texts[place] for place in tried] if isinstance(features, Counts) else table[tried]
        )
        groups = [ctx.train[place].group for place in tried]
        chosen, held_out = choose_penalty(of_tried, gold[tried], groups, ctx)
        fitted = logistic(table, gold, chosen)
        detail = {
            "features": self.settings.features,
            "penalty": chosen,
            "held_out": held_out,
            "tried_rows": len(tried),
            "measured": {
                "trainable_parameters": dataclasses.asdict(
                    Estimate(float(fitted.weights.size + fitted.bias.size), "parameters", "exact")
                )
            },
            "notes": _notes(ctx.name, features, texts),
        }
        folder = ctx.work / "adapted"
        save(folder, features, fitted)
        return Adapted(self.kind, str(folder), {}, "", detail)

    def open(self, adapted: Adapted) -> ChatModel:
        """The classifier.

        Raises:
            ModelError: its files are damaged, or the encoder is another one.
            PrerequisiteError: an extra is missing.
        """
        _require_sklearn()
        return load(Path(adapted.folder))

    def _features(self, texts: Sequence[str]) -> Features:
        name = self.settings.features
        return Counts.of(texts) if name == TFIDF else Vectors(open_encoder(name).embedder)

    def _check(self, ctx: FitContext) -> None:
        if ctx.task.kind != "classification":
            raise ConfigError(
                f"route {ctx.name!r} knows labels only, and this task is of kind "
                f"{ctx.task.kind!r}: leave it out of compare.routes, or set task.kind = "
                '"classification".'
            )
        name = self.settings.features
        if name != TFIDF and not Path(name).is_dir() and name.count("/") != 1:
            raise ConfigError(
                f"routes.{ctx.name}.features = {name!r}: no such folder. Valid: {TFIDF}, or a "
                "sentence-transformers model: its folder, or a hub id with its owner (owner/name)."
            )
        _require_sklearn()


def logistic(table: Any, gold: NDArray[np.str_], penalty: float) -> Fitted:
    """Multinomial logistic regression of (n, columns) on (n,) labels, two or more of them."""
    from sklearn.linear_model import LogisticRegression

    found = LogisticRegression(C=penalty, max_iter=1000).fit(table, gold)
    weights, bias = np.asarray(found.coef_), np.asarray(found.intercept_)
    if len(weights) == 1:  # of two labels scikit-learn keeps the second's alone
        weights, bias = np.vstack([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    return Fitted(tuple(map(str, found.classes_)), weights, bias)


def choose_penalty(
    inputs: list[str] | Matrix,
    gold: NDArray[np.str_],
    groups: Sequence[str],
    ctx: FitContext,
) -> tuple[float, dict[str, dict[str, float]]]:
    """The C of PENALTIES with the lowest log loss on folds that hold whole groups.

    `inputs` are texts, whose terms each fold counts for itself, or vectors (n, width). Also gives,
    for each C, the `log_loss` and the `accuracy` on the rows held out; {} where there are too few
    groups to try.
    """
    folds = group_folds(groups, min(FOLDS, len(set(groups))), ctx.seed)
    pairs = [(a, b) for a, b in splits(folds) if len(set(gold[a].tolist())) > 1]
    found: dict[float, list[tuple[float, float]]] = {penalty: [] for penalty in PENALTIES}
    for done, (known, held) in enumerate(pairs, 1):
        seen, unseen = _tables(inputs, known, held)
        for penalty in PENALTIES:
            its = logistic(seen, gold[known], penalty)
            shares = its.probabilities(unseen)
            for row, label in zip(shares, gold[held].tolist(), strict=True):
                share = float(row[its.labels.index(label)]) if label in its.labels else 0.0
                right = its.labels[int(row.argmax())] == label
                found[penalty].append((-math.log(max(share, LEAST_SHARE)), float(right)))
        ctx.progress("folds", done, len(pairs))
    if not pairs:
        return USUAL_PENALTY, {}
    means = {penalty: np.mean(rows, axis=0).tolist() for penalty, rows in found.items()}
    best = min(PENALTIES, key=lambda penalty: means[penalty][0])
    return best, {f"{c:g}": {"log_loss": m[0], "accuracy": m[1]} for c, m in means.items()}


def _tables(inputs: list[str] | Matrix, known: Places, held: Places) -> tuple[Any, Any]:
    """What a fold's classifier is fitted on, and what it then answers."""
    if not isinstance(inputs, list):
        return inputs[known], inputs[held]
    texts = [inputs[place] for place in known.tolist()]
    counted = Counts.of(texts)
    return counted(texts), counted([inputs[place] for place in held.tolist()])


def _gold(task: TaskConfig, train: Sequence[Example]) -> NDArray[np.str_]:
    """Each row's label as the task writes it. Raises DataError where all are the same."""
    written = {label_form(label): label for label in task_labels(task, train)}
    found = np.array([written[label_form(row.answers[0])] for row in train])
    if len(set(found.tolist())) < 2:
        raise DataError(
            f"all {len(found)} train rows have the label {str(found[0])!r}: a classifier needs "
            "rows of two labels or more."
        )
    return found


def _tried(train: Sequence[Example], seed: int) -> list[int]:
    """The places of the rows to choose C on: TRIED_ROWS at most, of groups at random."""
    names = sorted({row.group for row in train})
    random.Random(seed).shuffle(names)
    turn = {name: at for at, name in enumerate(names)}
    order = sorted(range(len(train)), key=lambda place: (turn[train[place].group], place))
    return sorted(order[:TRIED_ROWS])


def _notes(name: str, features: Features, texts: Sequence[str]) -> list[str]:
    if not isinstance(features, Vectors) or not (cut := features.cut(texts)):
        return []
    longer = f"{cut} of {len(texts)} train texts are longer than the encoder reads"
    return [f"{name}: {longer} ({features.limit} tokens); their ends are not seen"]


def _require_sklearn() -> None:
    if find_spec("sklearn") is None:
        raise PrerequisiteError(
            "a classifier needs scikit-learn, which is not installed: pip install 'tunelm[judge]'"
        )
