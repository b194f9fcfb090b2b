"""What the run's answers show: scores, paired differences, the winner, wins and losses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelm.report.read import RouteRun, Run, SeedRun
from tunelm.scoring.metric import Metric
from tunelm.scoring.metrics import get_metric, row_statistics, score_row
from tunelm.scoring.statistics import (
    ALPHA,
    POWER,
    RESAMPLES,
    Interval,
    Paired,
    holm,
    interval,
    mde,
    paired,
    verdict,
)
from tunelm.types import Example, Outcome, Prediction

Array = NDArray[np.float64]

TIE = 1e-9
"""Dev scores closer than this are equal; the route with fewer tokens an answer then wins."""

SHOWN = 6
"""Most wins, and most losses, shown as examples."""

RULE = (
    "highest {metric} on dev among the routes that finished and are neither controls nor parity "
    "checks, failed rows counted as wrong; equal scores go to the one with fewer tokens an answer"
)


@dataclass(frozen=True)
class Answers:
    """One finished route's answers on one part, and their statistics for every metric.

    All but `failed`, the failed rows of the task's own, is by metric: some score conversations.
    `stats` arrays are (S seeds, n rows, d): NaN in a row that failed under any seed, so that
    every seed counts the same rows. `as_wrong` holds the same with such rows scored as an
    empty answer.
    """

    route: RouteRun
    metrics: Mapping[str, Metric]
    examples: Mapping[str, Sequence[Example]]
    stats: Mapping[str, Array]
    as_wrong: Mapping[str, Array]
    failed: int

    def groups(self, metric: str) -> list[str]:
        """The group of each row that the metric scores."""
        return [example.group for example in self.examples[metric]]


def answers_of(run: Run, route: RouteRun, part: str) -> Answers:
    """Score one finished route's outputs on dev or test."""
    rows_of: dict[str, Sequence[Example]] = {}
    stats: dict[str, Array] = {}
    as_wrong: dict[str, Array] = {}
    for name, metric in run.metrics.items():
        scored = run.part_of(metric, part)
        rows_of[name] = examples = run.parts[scored]
        rows = np.array(
            [row_statistics(metric, examples, seed.predictions[scored]) for seed in route.finished]
        )
        missing = np.isnan(rows).any(axis=2)
        wrong = rows.copy()
        for seed, row in np.argwhere(missing):
            wrong[seed, row] = _wrong(metric, examples[row])
        rows[:, missing.any(axis=0)] = math.nan
        stats[name], as_wrong[name] = rows, wrong
    failed = sum(
        any(s.outputs[part].get(e.id) is None for s in route.finished) for e in run.parts[part]
    )
    return Answers(route, run.metrics, rows_of, stats, as_wrong, failed)


def _wrong(metric: Metric, example: Example) -> tuple[float, ...]:
    """Statistics of a row that got no answer, counted as wrong; a likelihood has no wrong."""
    if metric.lower_is_better:
        return (math.nan,) * metric.width
    return (0.0, 1.0) if metric.per_row else metric.statistics("", example)


def interval_scores(answers: Answers) -> dict[str, dict[str, Any]]:
    """Each metric's value with its interval, n and signature."""
    scores: dict[str, dict[str, Any]] = {}
    for name, metric in answers.metrics.items():
        found = interval(
            answers.stats[name],
            answers.groups(name),
            metric.aggregate,
            scale=metric.scale,
            resamples=RESAMPLES,
        )
        scores[name] = {
            **interval_fields(found),
            "value_failed_as_wrong": _value(metric, answers.as_wrong[name]),
            "signature": metric.signature(answers.examples[name]),
        }
    return scores


def dev_scores(answers: Answers) -> dict[str, dict[str, Any]]:
    """Each metric's value on dev, over scored rows and with failed rows as wrong."""
    return {
        name: {
            "value": _value(metric, answers.stats[name]),
            "value_failed_as_wrong": _value(metric, answers.as_wrong[name]),
            "n": int((~np.isnan(answers.stats[name]).any(axis=(0, 2))).sum()),
        }
        for name, metric in answers.metrics.items()
    }


def _value(metric: Metric, stats: Array) -> float | None:
    known = stats[~np.isnan(stats).any(axis=2)]
    return finite(metric.aggregate(known.sum(axis=0).tolist())) if len(known) else None


def outcomes(seeds: Sequence[SeedRun], part: str, n: int) -> dict[str, int]:
    """How many of the n rows of each seed had each outcome; a missing prediction failed.

    An answer that broke the form it was asked for is unparsed, and scored as it stands.
    """
    counts = dict.fromkeys((o.value for o in Outcome), 0)
    for seed in seeds:
        answered = [row for row in seed.predictions[part] if row.output is not None]
        broken = sum(row.format_error is not None for row in answered)
        counts[Outcome.SCORED] += len(answered) - broken
        counts[Outcome.UNPARSED] += broken
        counts[Outcome.FAILED] += n - len(answered)
    return counts


def choose_winner(
    routes: Sequence[Mapping[str, Any]], primary: str
) -> tuple[str | None, str | None]:
    """(the winner, the runner-up) by dev scores alone; None where there is none.

    Takes the report's routes. A route whose tokens an answer are unknown loses a tie.
    """
    sign = get_metric(primary).sign

    def on_dev(route: Mapping[str, Any]) -> float:
        return sign * route["scores_dev"][primary]["value_failed_as_wrong"]

    left = [
        route
        for route in routes
        if route["status"] == "done"
        and not route["control"]
        and route["parity_of"] is None
        and route["scores_dev"][primary]["value_failed_as_wrong"] is not None
    ]
    order: list[str] = []
    while left and len(order) < 2:
        best = max(on_dev(route) for route in left)
        tied = [route for route in left if on_dev(route) >= best - TIE]
        chosen = min(tied, key=_dev_tokens)
        order.append(chosen["name"])
        left.remove(chosen)
    winner, runner_up = (*order, None, None)[:2]
    return winner, runner_up


def _dev_tokens(route: Mapping[str, Any]) -> float:
    tokens = route["tokens_per_answer"]["dev"]
    return math.inf if tokens is None else tokens


def floors_of(run: Run) -> dict[str, float]:
    """Of metrics that are by a judge: the smallest difference that can be more than its errors.

    A judge that errs on a share e of the rows can make a difference of e out of nothing, where it
    errs on one route's rows alone. So e is taken, at the upper end of its interval.
    """
    return {
        name: 1 - judge["agreement"]["accuracy"]["low"]
        for name, judge in run.judges.items()
        if "unknown" not in judge
    }


def compare_pairs(
    answers: Sequence[Answers], primary: str, floors: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """Every pair of finished routes on every metric, the primary metric's first.

    `a` stands later in the task file than `b`, and a control is always `b`, so that `diff`
    mostly reads as a gain. Holm's correction runs over the primary metric's pairs of routes
    that are neither controls nor parity checks; every other pair's verdict is from its own p.
    No two are told apart by less than a metric's floor (`floors_of`).
    """
    pairs: list[dict[str, Any]] = []
    metrics = answers[0].metrics if answers else {}
    for name in [primary, *(m for m in metrics if m != primary)]:
        pairs += [_pair(*_oriented(x, y), name, primary) for x, y in combinations(answers, 2)]
    family = [pair for pair in pairs if pair["family"]]
    for pair, adjusted in zip(family, holm([pair["p"] for pair in family]), strict=True):
        pair["p_holm"] = adjusted
    return [judged(pair, (floors or {}).get(pair["metric"], 0.0), primary) for pair in pairs]


def judged(pair: dict[str, Any], floor: float = 0.0, primary: str = "") -> dict[str, Any]:
    """The pair with its verdict and a note; no better and no worse by less than `floor`."""
    p = pair["p_holm"] if pair["family"] else pair["p"]
    diff, sign = pair["diff"], get_metric(pair["metric"]).sign
    pair["verdict"] = verdict(None if diff is None else sign * diff, p)
    pair["note"] = _note(pair, primary)
    if diff is not None and abs(diff) < floor:
        pair["verdict"] = "not distinguishable"
        refused = f"below what its judge can show ({100 * floor:.1f} points)"
        pair["note"] = f"{pair['note']}; {refused}" if pair["note"] else refused
    return pair


def _oriented(first: Answers, second: Answers) -> tuple[Answers, Answers]:
    return (first, second) if second.route.control else (second, first)


def _pair(a: Answers, b: Answers, name: str, primary: str) -> dict[str, Any]:
    metric = get_metric(name)
    control = a.route.control or b.route.control
    parity = bool(a.route.parity_of or b.route.parity_of)
    found = paired(
        a.stats[name],
        b.stats[name],
        a.groups(name),
        metric.aggregate,
        resamples=RESAMPLES,
        scale=metric.scale,
    )
    return {
        "a": a.route.name,
        "b": b.route.name,
        "metric": name,
        **paired_fields(found),
        "p_holm": None,
        "verdict": None,
        "family": name == primary and not control and not parity,
        "control": control,
        "parity": parity,
        "agrees": found.agrees,
        "mde": _mde(a, b, metric),
        "left_out": len(a.examples[name]) - found.n,
        "note": None,
    }


def _mde(a: Answers, b: Answers, metric: Metric) -> float | None:
    """None also where the two never differ: no spread was seen, so nothing can be said."""
    name = metric.name
    return finite(mde(a.stats[name], b.stats[name], a.groups(name), metric.aggregate)) or None


def _note(pair: Mapping[str, Any], primary: str) -> str | None:
    notes: list[str] = []
    if pair["control"]:
        notes.append("with a control: outside Holm's correction, the verdict is from p alone")
    elif pair["parity"]:
        notes.append("with a parity check: outside Holm's correction")
    if pair["metric"] != primary:
        notes.append("exploratory: p is not corrected")
    if not pair["agrees"]:
        notes.append("the interval and p point different ways")
    if only_alone(pair):
        notes.append("p alone is at most 0.05, corrected for the other pairs it is not")
    if pair["left_out"]:
        talks = get_metric(pair["metric"]).of_conversations
        what = "conversations without a value" if talks else "rows that failed"
        notes.append(f"{pair['left_out']} {what} in either are left out")
    return "; ".join(notes) or None


def only_alone(pair: Mapping[str, Any]) -> bool:
    """Whether the pair would be distinguishable if it were the only one tested."""
    adjusted = pair["p_holm"]
    return adjusted is not None and pair["p"] <= ALPHA < adjusted


def smallest_difference(
    pairs: Sequence[Mapping[str, Any]], primary: str, a: str | None, b: str | None
) -> dict[str, Any]:
    """The report's `mde`: of the pair that the verdict turns on."""
    found: dict[str, Any] = {
        "value": None,
        "metric": primary,
        "a": a,
        "b": b,
        "alpha": ALPHA,
        "power": POWER,
        "reason": None,
    }
    pair = find_pair(pairs, primary, a, b)
    if pair is None:
        found["reason"] = "no two routes finished that could be compared"
    elif pair["mde"] is None:
        found["reason"] = "fewer than two groups, or the two scored the same in every group"
    else:
        found |= {"a": pair["a"], "b": pair["b"], "value": pair["mde"]}
    return found


def find_pair(
    pairs: Sequence[Mapping[str, Any]], metric: str, a: str | None, b: str | None
) -> dict[str, Any] | None:
    """The pair of two routes seen from `a`: turned round where it is stored the other way."""
    for pair in pairs:
        if pair["metric"] != metric or {pair["a"], pair["b"]} != {a, b}:
            continue
        if pair["a"] == a:
            return dict(pair)
        low, high = pair["ci_high"], pair["ci_low"]
        turned = {"better": "worse", "worse": "better"}
        return {
            **pair,
            "a": a,
            "b": b,
            "diff": None if pair["diff"] is None else 0.0 - pair["diff"],
            "ci_low": None if low is None else 0.0 - low,
            "ci_high": None if high is None else 0.0 - high,
            "verdict": turned.get(pair["verdict"], pair["verdict"]),
        }
    return None


def wins_and_losses(run: Run, a: RouteRun, b: RouteRun) -> dict[str, Any]:
    """Test rows on which A beat B most, and lost most: one of a group, up to SHOWN each.

    By the primary metric, or where that has no value for a row by token F1, else by the first
    metric of rows; both routes' first common seed.
    """
    metric = get_metric(run.primary)
    if not metric.per_row:
        of_rows = (m for m in run.metrics.values() if m.per_row and not m.of_conversations)
        metric = run.metrics.get("token_f1") or next(of_rows)
    both = {s.seed: s for s in a.finished}, {s.seed: s for s in b.finished}
    common = sorted(both[0].keys() & both[1].keys())
    # A route that ignores its seed is run with the first one only.
    seed_a = both[0][common[0]] if common else a.finished[0]
    seed_b = both[1][common[0]] if common else b.finished[0]
    rows: list[dict[str, Any]] = []
    part = run.part_of(metric, "test")
    for example in run.parts[part]:
        sides = [
            _side(metric, example, s.by_example[part].get(example.id)) for s in (seed_a, seed_b)
        ]
        if None in (sides[0]["value"], sides[1]["value"]):
            continue
        rows.append(
            {
                "id": example.id,
                "group": example.group,
                "question": example.question,
                "messages": [{"role": m.role, "content": m.content} for m in example.messages],
                "context": example.context,
                "gold": list(example.answers),
                "a": sides[0],
                "b": sides[1],
                "diff": sides[0]["value"] - sides[1]["value"],
            }
        )
    gain = {id(r): metric.sign * r["diff"] for r in rows}
    won = sorted((r for r in rows if gain[id(r)] > TIE), key=lambda r: -gain[id(r)])
    lost = sorted((r for r in rows if gain[id(r)] < -TIE), key=lambda r: gain[id(r)])
    return {
        "a": a.name,
        "b": b.name,
        "seeds": [seed_a.seed, seed_b.seed],
        "metric": metric.name,
        "counts": {
            "wins": len(won),
            "losses": len(lost),
            "ties": len(rows) - len(won) - len(lost),
        },
        "wins": _one_a_group(won),
        "losses": _one_a_group(lost),
    }


def _side(metric: Metric, example: Example, prediction: Prediction | None) -> dict[str, Any]:
    value = finite(score_row(metric, example, prediction).value)
    return {"output": prediction and prediction.output, "value": value}


def _one_a_group(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        first.setdefault(row["group"], row)
    return list(first.values())[:SHOWN]


def interval_fields(found: Interval) -> dict[str, Any]:
    """A value with its interval as the report's JSON has it."""
    return {
        "value": finite(found.value),
        "ci_low": finite(found.low),
        "ci_high": finite(found.high),
        "n": found.n,
        "n_groups": found.n_groups,
    }


def paired_fields(found: Paired) -> dict[str, Any]:
    """A paired difference likewise, with the p of its test."""
    return {
        "diff": finite(found.diff),
        "ci_low": finite(found.low),
        "ci_high": finite(found.high),
        "p": finite(found.p),
        "n": found.n,
        "n_groups": found.n_groups,
    }


def finite(value: float | None) -> float | None:
    """A plain float; None for what is unknown or no number."""
    return None if value is None or not math.isfinite(value) else float(value)
