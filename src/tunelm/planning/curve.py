"""From scores on slices of the train rows to the score on all of them, with an 80% interval.

The curve is the rectified scaling law of fine-tuning (Lin et al. 2024, arXiv 2402.02314):

    L(D) = B / (D_l + D^b) + E

which, unlike a plain power law, has a slow beginning (its "pre-power phase"). Written with what
the unadapted model scores, L(0), and the rows h by which half of what can be gained is gained:

    L(D) = E + (L(0) - E) / (1 + (D / h)^b)

Four numbers cannot be fitted to four noisy points, so none is: a hundred thousand curves are drawn
from wide priors, each weighs as much as it explains the points, and the forecast is what they say
together, with the noise of training and of the rows that are scored on top.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunelm.errors import ConfigError

Array = NDArray[np.float64]

DRAWS = 100_000
LEVEL = 0.80
"""Of the interval: an 80% one, as of every forecast."""
_TRAINING_NOISE = (0.01, 0.1)
"""Standard deviation of the same training under another seed, as a share of the scale."""


@dataclass(frozen=True, slots=True)
class Point:
    """What was scored after `rows` train rows, 0 for the unadapted model.

    `loss`: less is better, 0 the best: 1 - score for a metric between 0 and 1. `noise`: standard
    error of the difference between two points on the same dev rows.
    """

    rows: int
    loss: float
    noise: float


@dataclass(frozen=True, slots=True)
class Reach:
    """A forecast loss with its 80% interval."""

    rows: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Curve:
    """Weighted curves that explain the points. Arrays are (draws,); `weights` add up to 1."""

    floor: Array
    start: Array
    half: Array
    power: Array
    training: Array
    weights: Array
    seed: int

    def at(self, rows: int, level_noise: float) -> Reach:
        """The loss after `rows` rows.

        Args:
            rows: how many.
            level_noise: standard error of what all points share and the rows to be scored do not:
                the dev rows' own difficulty, and the test rows' own.
        """
        rng = np.random.default_rng(self.seed)
        noise = rng.standard_normal(len(self.floor)) * np.hypot(self.training, level_noise)
        mean = _law(self, float(rows))
        tail = (1 - LEVEL) / 2
        low, high = _quantiles(np.maximum(mean + noise, 0.0), self.weights, (tail, 1 - tail))
        (middle,) = _quantiles(mean, self.weights, (0.5,))
        return Reach(rows, middle, low, high)


def fit_curve(points: Sequence[Point], seed: int = 0) -> Curve:
    """Curves that explain the points.

    Args:
        points: two or more with rows, and usually the unadapted model's at 0.
        seed: of the draws; the same points and seed give the same curves.

    Raises:
        ConfigError: fewer than two slices, or a loss that is negative or no number.
    """
    slices = sorted({point.rows for point in points if point.rows > 0})
    if len(slices) < 2:
        raise ConfigError(
            f"a learning curve needs two slices of the train rows or more; got {len(slices)}."
        )
    if not all(math.isfinite(p.loss) and p.loss >= 0 for p in points):
        raise ConfigError("a learning curve needs losses of 0 or more.")
    scale = max(point.loss for point in points) or 1.0
    rng = np.random.default_rng(seed)
    drawn = _drawn(points, slices, scale, rng)
    log_weight = np.zeros(DRAWS)
    for point in points:
        spread = np.hypot(drawn.training, point.noise)
        off = (point.loss - _law(drawn, float(point.rows))) / spread
        log_weight += -0.5 * off * off - np.log(spread)
    weights = np.exp(log_weight - log_weight.max())
    return Curve(
        drawn.floor,
        drawn.start,
        drawn.half,
        drawn.power,
        drawn.training,
        weights / weights.sum(),
        seed,
    )


def _drawn(
    points: Sequence[Point], slices: Sequence[int], scale: float, rng: np.random.Generator
) -> Curve:
    """Curves before anything was seen but where the points lie."""
    base = [point.loss for point in points if point.rows == 0]
    least = min(point.loss for point in points)
    # A floor near 0 is as likely as one near the best point; one above it is possible by noise.
    floor = rng.uniform(0.0, 1.0, DRAWS) * (least + 0.03 * scale)
    if base:
        start = base[0] + rng.standard_normal(DRAWS) * 0.03 * scale
    else:
        start = rng.uniform(least, 2 * scale, DRAWS)
    half = np.exp(rng.uniform(math.log(slices[0] / 50), math.log(slices[-1] * 50), DRAWS))
    power = np.exp(rng.uniform(math.log(0.25), math.log(4.0), DRAWS))
    low, high = (math.log(bound * scale) for bound in _TRAINING_NOISE)
    training = np.exp(rng.uniform(low, high, DRAWS))
    return Curve(floor, np.maximum(start, floor), half, power, training, np.zeros(0), 0)


def _law(curve: Curve, rows: float) -> Array:
    share = (rows / curve.half) ** curve.power
    return curve.floor + (curve.start - curve.floor) / (1 + share)


def _quantiles(values: Array, weights: Array, wanted: Sequence[float]) -> tuple[float, ...]:
    """Of weighted values."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    places = np.searchsorted(reached, wanted).clip(0, len(values) - 1)
    return tuple(float(values[order][place]) for place in places)
