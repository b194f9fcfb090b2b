"""Trying routes on slices of the train rows, to say what all of them, and more, would bring.

Each route is fitted on an eighth, a quarter and a half of the train groups, one inside the other,
with the dev rows to choose by as always, and scored on train rows that are in no slice: the test
rows are not looked at, and the dev rows flatter what was chosen on them. What a slice made is kept
in its folder, so that a stopped run goes on where it was.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunelm.config import Config
from tunelm.data.split import Split
from tunelm.errors import ConfigError, RunDirError, TunelmError
from tunelm.models.base import ChatModel
from tunelm.models.budget import Wallet
from tunelm.models.labels import held_to_labels, task_labels
from tunelm.planning.curve import LEVEL, Point, Reach, fit_curve
from tunelm.predict import predict
from tunelm.routes import make_route
from tunelm.routes.base import FitContext, Progress, no_progress
from tunelm.rundir import read_json, write_json
from tunelm.scoring.checks import with_facts
from tunelm.scoring.continuation import as_continuation
from tunelm.scoring.metric import Metric
from tunelm.scoring.metrics import get_metric, metric_to_fit, row_statistics
from tunelm.scoring.statistics import Interval, Paired, interval, paired
from tunelm.types import Adapted, Estimate, Example, content_hash

SHARES = (0.125, 0.25, 0.5)
"""Of the train groups."""

LEARNING = ("prompt", "rag", "local", "classifier", "nearest")
"""Kinds that learn from the train rows alone, and can be tried without another route's result."""

JUDGED = 200
"""Most rows that the slices are scored on."""

_Z95 = 1.959964
_FEW = 4
"""Rows that a slice must hold at least."""


@dataclass(frozen=True)
class ScoreForecast:
    """What a route is expected to score on the test rows after training on all train rows.

    `rows` are the points and the reach of the curve, as text for a table; `needed` says in words
    what more rows would bring. `forecast` is on the metric's own scale, its value None where no
    curve could be fitted, and `method` says why.
    """

    forecast: Estimate
    rows: tuple[dict[str, str], ...]
    needed: str


@dataclass(frozen=True)
class _Slice:
    """The scores of a route after `rows` rows; `stats` as row_statistics."""

    rows: int
    loss: float
    value: float
    stats: Sequence[tuple[float, ...]]


def learn(
    config: Config,
    split: Split,
    folder: Path,
    names: Sequence[str] = (),
    progress: Progress = no_progress,
) -> dict[str, ScoreForecast]:
    """Fit each route on the slices, and forecast its score after all train rows.

    Args:
        config: the task; its budget is what may be spent.
        split: its rows. The test rows are counted, not read.
        folder: where the slices' results are kept.
        names: routes of the config; none: those of its comparison that learn from rows alone.
        progress: called with (what, done, total).

    Raises:
        ConfigError: a route that the config does not have, or that builds on others; too few rows.
        RunDirError: `folder` holds slices of other rows or settings.
    """
    wanted = _wanted(config, names)
    trier = _Trier(config, split, folder, progress)
    metric = trier.metric
    start = trier.unadapted()
    found: dict[str, ScoreForecast] = {}
    for name in wanted:
        try:
            tried = [trier.tried(name, share) for share in SHARES]
        except RunDirError:
            raise
        except TunelmError as error:
            found[name] = _unknown(metric, f"unknown: a slice failed: {error}")
            continue
        found[name] = _forecast(trier, start, tried)
    return found


@dataclass(frozen=True)
class Slices:
    """Train rows of each share of the groups, each within the next, and rows in none of them."""

    fitted: Mapping[float, list[Example]]
    judged: list[Example]


def slices_of(train: Sequence[Example], seed: int) -> Slices:
    """The slices by groups in an order of the seed, rows in the train rows' order.

    Raises ConfigError where the smallest holds too few rows to learn from.
    """
    groups = sorted({row.group for row in train}, key=lambda g: content_hash(f"{seed}/{g}"))
    sizes = {share: max(1, round(len(groups) * share)) for share in SHARES}
    fitted = {s: _rows_of(train, groups[:size]) for s, size in sizes.items()}
    judged: list[Example] = []
    for group in groups[sizes[SHARES[-1]] :]:
        if len(judged) < JUDGED:
            judged += _rows_of(train, [group])
    if len(fitted[SHARES[0]]) < _FEW or not judged:
        raise ConfigError(
            f"a learning curve needs slices of {_FEW} rows or more, and an eighth of the "
            f"{len(groups)} train groups has {len(fitted[SHARES[0]])}. Give more rows, or plan "
            "without --learn."
        )
    return Slices(fitted, judged)


def _rows_of(train: Sequence[Example], groups: Sequence[str]) -> list[Example]:
    kept = set(groups)
    return [row for row in train if row.group in kept]


def _wanted(config: Config, names: Sequence[str]) -> list[str]:
    if not names:
        return [n for n in config.compare.routes if config.routes[n].kind in LEARNING]
    for name in names:
        if name not in config.routes:
            raise ConfigError(f"no route {name!r}. Valid: {', '.join(config.routes)}.")
        if config.routes[name].kind not in LEARNING:
            raise ConfigError(
                f"route {name!r} is of kind {config.routes[name].kind!r}; a learning curve is "
                f"tried with {', '.join(LEARNING)}."
            )
    return list(names)


class _Trier:
    """Fits routes on slices and scores them, each once."""

    def __init__(self, config: Config, split: Split, folder: Path, progress: Progress) -> None:
        self.task = config.task
        if config.task.kind == "classification":
            labels = task_labels(config.task, split.train)
            self.task = config.task.model_copy(update={"labels": labels})
        self.config, self.split = config, split
        self.folder, self.progress = folder, progress
        self.wallet = Wallet(config.budget, folder / "spending.jsonl")
        slices = slices_of(split.train, config.data.seed)
        self.slices, self.judged = slices.fitted, [as_continuation(e) for e in slices.judged]
        metric = get_metric(metric_to_fit(config.compare.primary_metric))
        self.metric = metric.bound(self.judged)
        self.kept = content_hash(
            [config.shared_digest(), [e.id for e in split.dev], [e.id for e in split.train]]
        )

    def unadapted(self) -> _Slice | None:
        """The base model's score; None where no route of the task is a baseline."""
        config = self.config
        name = next((n for n in config.compare.routes if config.routes[n].kind == "baseline"), None)
        return None if name is None else self._scored(name, 0.0, self.slices[SHARES[0]])

    def tried(self, name: str, share: float) -> _Slice:
        """A route's score after a share of the train groups."""
        return self._scored(name, share, self.slices[share])

    def _scored(self, name: str, share: float, rows: list[Example]) -> _Slice:
        settings = self.config.routes[name]
        work = self.folder / name / f"slice-{share:g}"
        made_from = content_hash([self.kept, self.config.route_digest(name), share])
        record = read_json(work / "made_from.json", {})
        if record.get("made_from", made_from) != made_from:
            raise RunDirError(
                f"{work} holds what was tried with other rows or settings. Give an empty folder."
            )
        work.mkdir(parents=True, exist_ok=True)
        write_json(work / "made_from.json", {"made_from": made_from})
        route = make_route(settings, self.wallet)

        def shown(what: str, done: int, total: int) -> None:
            self.progress(f"{name} on {len(rows)} rows: {what}", done, total)

        adapted = work / "adapted.json"
        if adapted.exists():
            fitted = Adapted.from_json(read_json(adapted), str(work / "adapted"))
        else:
            ctx = FitContext(
                name=name,
                task=self.task,
                model=self.config.model,
                metric=self.metric.name,
                train=rows,
                dev=self.split.dev,
                work=work,
                corpus=self.config.data.corpus,
                budget=self.config.budget,
                progress=shown,
            )
            fitted = route.fit(ctx)
            write_json(adapted, fitted.to_json())
        model = held_to_labels(route.open(fitted), self.task)
        return self._of(model, work, len(rows) if share else 0, shown)

    def _of(
        self, model: ChatModel, work: Path, count: int, shown: Callable[[str, int, int], None]
    ) -> _Slice:
        rows, path = self.judged, work / "predictions.jsonl"
        answers = predict(
            model, rows, "slice", path, self.task.max_tokens, lambda d, n: shown("answers", d, n)
        )
        answers = with_facts(self.task.checks, model, rows, answers)
        stats = row_statistics(self.metric, rows, answers)
        found = interval(stats, self.groups, self.metric.aggregate)
        if found.value is None:
            raise ConfigError(f"no row could be scored by {self.metric.name}.")
        return _Slice(count, loss_of(self.metric, found.value), found.value, stats)

    @property
    def groups(self) -> list[str]:
        """Of the rows that are scored."""
        return [row.group for row in self.judged]


def loss_of(metric: Metric, value: float) -> float:
    """A value of a metric as a loss: less is better, 0 the best."""
    if metric.lower_is_better:
        return value / (metric.scale or 1.0)
    return 1 - value / (metric.scale or 1.0)


def value_of(metric: Metric, loss: float) -> float:
    """The inverse of `loss_of`, kept on the metric's scale."""
    scale = metric.scale or 1.0
    if metric.scale is not None:
        loss = min(1.0, max(0.0, loss))
    return loss * scale if metric.lower_is_better else (1 - loss) * scale


def _forecast(trier: _Trier, start: _Slice | None, tried: Sequence[_Slice]) -> ScoreForecast:
    metric, split, groups = trier.metric, trier.split, trier.groups
    scale = metric.scale or 1.0
    between = paired(tried[0].stats, tried[-1].stats, groups, metric.aggregate)
    noise = _standard_error(between) / scale / 2**0.5
    own = _standard_error(interval(tried[-1].stats, groups, metric.aggregate)) / scale
    # how hard the scored rows are is in all points; the test rows are others
    tested = len({e.group for e in split.test})
    level = own * (1 + len(set(groups)) / max(1, tested)) ** 0.5
    known = [start, *tried] if start else list(tried)
    curve = fit_curve([Point(s.rows, max(0.0, s.loss), noise) for s in known])
    whole, twice = (curve.at(n, level) for n in (len(split.train), 2 * len(split.train)))
    method = (
        f"learning curve on {', '.join(str(s.rows) for s in tried)} of {len(split.train)} train "
        f"rows, scored on {len(groups)} others; {LEVEL:.0%} interval"
    )
    value, low, high = _ordered(metric, whole)
    estimate = Estimate(value, metric.name, method, low, high)
    rows = [(str(s.rows), f"{s.value:.3f}", f"measured, n = {len(groups)}") for s in known]
    for reach, how in ((whole, "forecast, all rows"), (twice, "forecast, twice as many")):
        middle, least, most = _ordered(metric, reach)
        text = f"{middle:.3f} ({least:.3f} to {most:.3f})"
        rows.append((str(reach.rows), text, f"{how}; {LEVEL:.0%} interval"))
    shown = tuple({"train rows": n, metric.name: v, "how": how} for n, v, how in rows)
    doubled = value_of(metric, twice.value)
    return ScoreForecast(estimate, shown, _needed(metric, value, doubled, len(split.train)))


def _standard_error(found: Interval | Paired) -> float:
    """The one behind a 95% interval; a tenth, which is wide, where there is no interval."""
    if found.low is None or found.high is None:
        return 0.1
    return (found.high - found.low) / (2 * _Z95)


def _ordered(metric: Metric, reach: Reach) -> tuple[float, float, float]:
    ends = sorted(value_of(metric, loss) for loss in (reach.low, reach.high))
    return value_of(metric, reach.value), ends[0], ends[1]


def _needed(metric: Metric, now: float, twice: float, rows: int) -> str:
    """What more rows would bring, in words; `now` and `twice` on the metric's scale."""
    gain = (twice - now) * metric.sign / (metric.scale or 1.0)
    unit = "" if metric.scale is None else " points"
    size = f"{gain:.3f}" if metric.scale is None else f"{100 * gain:.1f}"
    more = f"Twice the {rows} train rows would bring about {size}{unit} of {metric.name}"
    if gain < 0.005:
        return f"{more}: more rows of this kind are not what is missing."
    return f"{more} more."


def _unknown(metric: Metric, why: str) -> ScoreForecast:
    return ScoreForecast(Estimate(None, metric.name, why), (), "Unknown: no curve could be drawn.")


def forecasts_json(found: Mapping[str, ScoreForecast]) -> dict[str, Any]:
    """Forecasts as JSON, by route."""
    return json.loads(json.dumps({n: dataclasses.asdict(f) for n, f in found.items()}))
