"""A judge from people's labels, and how far it agrees with people on what it has not seen.

Every choice (the ridge penalty, the share of the trees, the level, the thresholds) is made by folds
inside the training rows; the agreement that is reported is that of outer folds, which none of it
has seen. Where systems are named, it is measured a second time on systems that were not among the
training rows either: a judge that is to rank new systems must be judged so.

An encoder that is tuned on the labels (tunelm.judging.tuning) never describes rows that it was
tuned on: a training row's score is that of an encoder tuned on the other inner folds, a test row's
that of one tuned on all training rows. The inner folds are those by which choices are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelm.errors import ConfigError, DataError, PrerequisiteError
from tunelm.judging.check import (
    Agreement,
    Error,
    Judged,
    agreement,
    correlation,
    error_of,
    pairs_of,
    rank_statistics,
)
from tunelm.judging.coding import Coding, choose, f1_of, tune_offsets
from tunelm.judging.encoder import Encoder, open_encoder
from tunelm.judging.folds import group_folds, splits
from tunelm.judging.forest import Forest
from tunelm.judging.labels import Labelled
from tunelm.judging.learned import (
    Learned,
    LearnedJudge,
    about_of,
    described,
    mixed,
)
from tunelm.judging.linear import FEATURE_WEIGHT, Linear, common_terms, tally
from tunelm.judging.trial import row_hash
from tunelm.judging.tuning import TunedEncoder, Tuner, Tuning

Matrix = NDArray[np.float64]
Places = NDArray[np.int64]

PENALTIES = (2, 4, 8)
BLENDS = (0.25, 0.5, 0.75)
TREES, LEAST_IN_LEAF, FEATURES_TRIED = 150, 3, 0.3
TRIAL_TREES = 60
"""Of the forests by which the share of trees is chosen."""
DENSE_ROWS = 6_000
"""Up to here ridge regression is solved by the products of all pairs of rows."""
FOLDS, INNER_FOLDS = 5, 3
LEAST_GROUPS = 10
LEAST_SYSTEMS = 3
"""With fewer, leaving one out leaves too little to learn from."""
LEAST_PAIRS = 50
"""Pairs of comparable replies from which on the choice is made by them."""


@dataclass(frozen=True)
class Trained:
    """A judge and what is known of it.

    `agreement` is by nested cross-validation; `unseen` the same with the system left out of the
    training rows as well, None where too few systems are named. `error` is the judge's own.
    """

    judge: LearnedJudge
    agreement: Agreement
    unseen: Agreement | None
    error: Error


@dataclass(frozen=True)
class Data:
    """Labelled replies as numbers; made once, cut by row. `tuner` adds scores in every fit."""

    rows: Sequence[Labelled]
    coding: Coding
    names: tuple[str, ...]
    counts: Any
    table: Matrix
    target: Matrix
    tuner: Tuner | None = None

    @classmethod
    def of(cls, rows: Sequence[Labelled], coding: Coding, encoder: Encoder | None) -> Data:
        """Read everything off the replies, but for what a tuner adds."""
        texts = [row.output for row in rows]
        table = described([row.example for row in rows], texts, encoder)
        return cls(rows, coding, *tally(texts), table, coding.encode(rows))

    def take(self, places: Places) -> Data:
        """Some of the rows."""
        return replace(
            self,
            rows=[self.rows[place] for place in places.tolist()],
            counts=self.counts[places],
            table=self.table[places],
            target=self.target[places],
        )

    def beside(self, scores: Matrix) -> Data:
        """The same rows with further features, (n, k)."""
        return replace(self, table=np.hstack([self.table, scores]))

    @cached_property
    def groups(self) -> list[str]:
        """The group of each row."""
        return [row.group for row in self.rows]

    @cached_property
    def gold(self) -> Matrix:
        """(n,) labels as one number; for classes without an order the place of the class."""
        score = self.coding.score(self.target)
        return self.target.argmax(axis=1).astype(np.float64) if score is None else score


def train_judge(
    rows: Sequence[Labelled],
    name: str,
    out: Path,
    *,
    seed: int = 0,
    encoder: str | Tuning | None = None,
    order: Sequence[str] = (),
    folds: int = FOLDS,
) -> Trained:
    """Train a judge, measure its agreement, and write it into the new folder `out`.

    Args:
        rows: labelled replies (`read_labels`).
        name: of what they are labelled with.
        out: where to; must not exist yet, or be empty.
        seed: of folds and trees. The same rows and seed give the same judge.
        encoder: a sentence encoder's folder or hub id, for features of nearness; `Tuning` of it:
            to be fine-tuned as well, in every fold.
        order: the labels from worst to best, where they are not the usual ones.
        folds: of the outer cross-validation.

    Raises:
        ConfigError: `out` holds something, or `order` leaves a label out.
        DataError: too few groups, or labels that are all the same.
        PrerequisiteError: scikit-learn is not installed, or, for an encoder, what opens it.
        ModelError: the encoder cannot be loaded, or not tuned.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: exists and is not empty. Choose another folder for the judge.")
    _check(rows, name, folds)
    data, opened = _read(rows, Coding.of(rows, name, order), encoder)
    fold = group_folds(data.groups, folds, seed)
    cuts = list(splits(fold))
    systems = [row.system for row in rows]
    named = len({s for s in systems if s}) >= LEAST_SYSTEMS and None not in systems
    harder = list(splits(fold, systems)) if named else []
    foresee(data, [*cuts, *harder], whole=True)
    seen = nested(data, cuts, seed)
    unseen = nested(data, harder, seed) if named else None
    learned, tuned = fit(data, seed)
    error = error_of(rows, data.gold, unseen or seen) if data.coding.ordered else Error.unknown()
    found = Trained(
        judge=LearnedJudge(name, learned, tuned or opened, {}),
        agreement=agreement(rows, data.coding, data.gold, seen, seed),
        unseen=agreement(rows, data.coding, data.gold, unseen, seed) if unseen else None,
        error=error,
    )
    about = {
        "name": name,
        **about_of(learned),
        "encoder": None if opened is None else (tuned or opened).to_json(),
        "seed": seed,
        "folds": folds,
        **_known(data, found),
    }
    found = replace(found, judge=replace(found.judge, about=about))
    found.judge.save(out)
    return found


def _read(
    rows: Sequence[Labelled], coding: Coding, encoder: str | Tuning | None
) -> tuple[Data, Encoder | None]:
    """The rows as numbers, and the encoder that took part."""
    if encoder is None:
        return Data.of(rows, coding, None), None
    if isinstance(encoder, str):
        opened = open_encoder(encoder)
        return Data.of(rows, coding, opened), opened
    opened = open_encoder(encoder.name)
    tuner = Tuner(opened, encoder.progress)
    return replace(Data.of(rows, coding, opened), tuner=tuner), opened


def _known(data: Data, found: Trained) -> dict[str, Any]:
    """The part of judge.json that says what is known of the judge."""
    return {
        "rows": len(data.rows),
        "groups": len(set(data.groups)),
        "systems": sorted({row.system for row in data.rows if row.system}),
        "row_hashes": sorted({row_hash(row) for row in data.rows}),
        "agreement": found.agreement.to_json(),
        "agreement_unseen_systems": found.unseen and found.unseen.to_json(),
        "error": found.error.to_json(),
    }


def nested(data: Data, cuts: Iterable[tuple[Places, Places]], seed: int = 0) -> Judged:
    """What judges that have not seen a row say of it, for every row."""
    count = len(data.rows)
    scores, values = np.full(count, np.nan), np.full(count, np.nan)
    labels: list[str | None] = [None] * count
    for train, test in cuts:
        learned, tuned = fit(data.take(train), seed)
        rows = _scored(data.take(test), tuned)
        outputs = learned.outputs([row.output for row in rows.rows], rows.table)
        score, value = learned.coding.score(outputs), learned.value(outputs)
        if score is not None and value is not None:
            scores[test], values[test] = score, value
        for place, label in zip(test.tolist(), learned.labels(outputs), strict=True):
            labels[place] = label
    return Judged(scores, values, labels)


def foresee(data: Data, cuts: Sequence[tuple[Places, Places]], whole: bool = False) -> None:
    """Let the tuner, if any, tell how long `nested` will take it for these cuts (and all rows)."""
    if data.tuner is None:
        return
    parts = [data.take(train) for train, _ in cuts] + [data] * whole
    sizes = [len(part.rows) for part in parts]
    for part in parts:
        sizes += [len(train) for train, _ in _inner(part, 0)]
    data.tuner.expect(data.rows, _taught(data), sizes)


def fit(data: Data, seed: int = 0) -> tuple[Learned, TunedEncoder | None]:
    """A judge of all rows of `data`: choices by inner folds, then both halves on everything.

    With a tuner also the encoder that is tuned on all of them.
    """
    cuts = _inner(data, seed)
    data, tuned = _tuned(data, cuts, seed)
    linear = {penalty: np.zeros_like(data.target) for penalty in PENALTIES}
    trees = np.zeros_like(data.target)
    for train, test in cuts:
        part, rest = data.take(train), data.take(test)
        solve = _Ridge(part)
        for penalty in PENALTIES:
            linear[penalty][test] = solve.predict(solve.linear(penalty), rest)
        trees[test] = _grow(part, seed, TRIAL_TREES).predict(rest.table)
    quality = _quality(data)
    penalty, blend = max(
        ((penalty, blend) for penalty in PENALTIES for blend in BLENDS),
        key=lambda pair: quality(mixed(linear[pair[0]], trees, pair[1])),
    )
    outputs = mixed(linear[penalty], trees, blend)
    level, slope = _calibrate(data, outputs)
    offsets = data.target.mean(axis=0)
    if data.coding.labels:
        offsets = tune_offsets(outputs, data.target.argmax(axis=1), offsets)
    both = _Ridge(data).linear(penalty), _grow(data, seed)
    return Learned(data.coding, *both, blend, level, slope, offsets), tuned


def _inner(data: Data, seed: int) -> list[tuple[Places, Places]]:
    """The folds inside the training rows."""
    count = max(2, min(INNER_FOLDS, len(set(data.groups))))
    return list(splits(group_folds(data.groups, count, seed + 1)))


def _tuned(
    data: Data, cuts: Sequence[tuple[Places, Places]], seed: int
) -> tuple[Data, TunedEncoder | None]:
    """The rows with scores of encoders that have not seen them, and one tuned on all rows."""
    if data.tuner is None:
        return data, None
    target = _taught(data)
    scores = np.zeros(target.shape)
    for train, test in cuts:
        part, rest = data.take(train).rows, data.take(test).rows
        tuned = data.tuner.tune(part, target[train], seed)
        scores[test] = tuned.scores([r.example for r in rest], [r.output for r in rest])
    return data.beside(scores), data.tuner.tune(data.rows, target, seed)


def _scored(data: Data, tuned: TunedEncoder | None) -> Data:
    """Rows with the score of an encoder that was tuned on others."""
    if tuned is None:
        return data
    rows = data.rows
    return data.beside(tuned.scores([r.example for r in rows], [r.output for r in rows]))


def _taught(data: Data) -> Matrix:
    """(n, k) what an encoder is tuned to: one number where labels have an order, else classes."""
    return data.gold[:, None] if data.coding.ordered else data.target


class _Ridge:
    """Ridge regression of some rows, for several penalties: what is common is done once."""

    def __init__(self, data: Data) -> None:
        from scipy.sparse import csr_matrix, hstack

        self._terms, self._kept = common_terms(data.names, data.counts)
        spread = data.table.std(axis=0)
        self._mean, self._spread = data.table.mean(axis=0), np.where(spread > 1e-9, spread, 1.0)
        scaled = (data.table - self._mean) / self._spread * FEATURE_WEIGHT
        counted = self._terms.weigh(data.counts[:, self._kept])
        self._inputs = hstack([counted, csr_matrix(scaled)]).tocsr()
        self._target = data.target - data.target.mean(axis=0)
        self._products: Matrix | None = None
        if len(data.rows) <= DENSE_ROWS:
            self._products = (counted @ counted.T).toarray() + scaled @ scaled.T

    def linear(self, penalty: int) -> Linear:
        """The solution for one penalty."""
        from sklearn.kernel_ridge import KernelRidge
        from sklearn.linear_model import Ridge

        if self._products is None:
            solver = Ridge(alpha=penalty, fit_intercept=False, solver="sparse_cg")
            coef = solver.fit(self._inputs, self._target).coef_
            weights = np.reshape(coef, (self._target.shape[1], -1)).T
        else:
            solver = KernelRidge(alpha=penalty, kernel="precomputed")
            weights = self._inputs.T @ solver.fit(self._products, self._target).dual_coef_
        return Linear(self._terms, self._mean, self._spread, np.asarray(weights))

    def predict(self, linear: Linear, data: Data) -> Matrix:
        """(n, k) for rows whose terms are counted already."""
        counted = linear.terms.weigh(data.counts[:, self._kept])
        return linear.predict_weighed(counted, data.table)


def _grow(data: Data, seed: int, trees: int = TREES) -> Forest:
    from sklearn.ensemble import ExtraTreesRegressor

    grown = ExtraTreesRegressor(
        trees, min_samples_leaf=LEAST_IN_LEAF, max_features=FEATURES_TRIED, random_state=seed
    ).fit(data.table, np.squeeze(data.target - data.target.mean(axis=0)))
    return Forest.of(grown)


def _quality(data: Data) -> Callable[[Matrix], float]:
    """What is best for these labels: pairwise agreement, else rank correlation, or macro-F1."""
    coding, gold = data.coding, data.gold
    pairs = pairs_of(data.rows, gold)

    def measure(outputs: Matrix) -> float:
        score = coding.score(outputs)
        if score is None:
            classes = data.target.argmax(axis=1)
            offsets = tune_offsets(outputs, classes, data.target.mean(axis=0))
            return f1_of(choose(outputs, offsets), classes, coding.width)
        if len(pairs.first) >= LEAST_PAIRS:
            return float(pairs.agreeing(score).mean())
        return correlation(rank_statistics(score, gold).sum(axis=0).tolist())

    return measure


def _calibrate(data: Data, outputs: Matrix) -> tuple[float, float]:
    """(level, slope) of the least-squares line from score to label."""
    score = data.coding.score(outputs)
    if score is None:
        return 0.0, 1.0
    spread = float(score.var())
    covered = float(((score - score.mean()) * (data.gold - data.gold.mean())).mean())
    slope = max(0.0, covered / spread) if spread > 1e-12 else 0.0
    return float(data.gold.mean() - slope * score.mean()), slope


def _check(rows: Sequence[Labelled], name: str, folds: int) -> None:
    if find_spec("sklearn") is None:
        raise PrerequisiteError(
            "training a judge needs scikit-learn, which is not installed:"
            " pip install 'tunelm[judge]'"
        )
    groups = len({row.group for row in rows})
    if groups < max(LEAST_GROUPS, folds):
        raise DataError(
            f"{len(rows)} labels of {name!r} in {groups} groups; a judge and the measure of it need"
            f" {max(LEAST_GROUPS, folds)} groups at least (a group: replies about one problem)"
        )
