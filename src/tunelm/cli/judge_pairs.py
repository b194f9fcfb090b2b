"""Two routes of a run before a judge that chooses, pair by pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunelm.cli.judge_rating import Answered, as_json, usage_json
from tunelm.judging.check import Error
from tunelm.judging.labels import Labelled
from tunelm.judging.llm import PHASE
from tunelm.judging.pairwise import Outcome, Pair, PairJudge, PairTally, tally
from tunelm.judging.people import NOBODY, People, known_from, said
from tunelm.judging.ranking import Comparison, Known, System, compare
from tunelm.scoring.statistics import interval
from tunelm.types import Example


@dataclass(frozen=True)
class PairsResult:
    """Two routes, pair by pair.

    `win` is the win rate of the first less one half, compared with 0; `agreement` is on pairs of
    people's labels, None without.
    """

    tally: PairTally
    win: Comparison
    outcomes: list[Outcome]
    agreement: dict[str, Any] | None


def judge_pairs(
    judge: PairJudge,
    rows: Sequence[Example],
    routes: tuple[Answered, Answered],
    people: People | None,
) -> PairsResult:
    """Compare two routes' answers under their first seeds, on the rows that both answered."""
    a, b = routes
    found = [
        (Pair(row, x, y), row.group)
        for row, x, y in zip(rows, a.outputs[0], b.outputs[0], strict=True)
        if x is not None and y is not None
    ]
    theirs = labelled_pairs(people) if people else []
    pairs, groups = [p for p, _ in found], [g for _, g in found]
    every = judge.compare([*pairs, *(t.pair for t in theirs)])
    outcomes, on_labels = every[: len(pairs)], every[len(pairs) :]
    known = people.by_reply() if people else {}
    values = [(known.get(said(p.example, p.a)), known.get(said(p.example, p.b))) for p in pairs]
    judged = np.array([[_won(o.winner) for o in outcomes]])
    human = np.array([[_preferred(x, y) for x, y in values]])
    half = np.where(np.isnan(judged), np.nan, 0.5), np.where(np.isnan(human), np.nan, 0.5)
    error = _pair_known(theirs, on_labels) if theirs else Known(Error.unknown())
    win = compare([System(a.name, judged, human), System(b.name, *half)], groups, error)[0]
    agreement = _pair_agreement(theirs, on_labels) if theirs else None
    return PairsResult(tally(pairs, outcomes, groups), win, outcomes, agreement)


@dataclass(frozen=True)
class LabelledPair:
    """Two replies that people have labelled: `worth` is 1, .5 or 0 for the first."""

    pair: Pair
    worth: float
    rows: tuple[Labelled, Labelled]


def labelled_pairs(people: People, seed: int = 0) -> list[LabelledPair]:
    """One pair of replies for each item that has two, drawn by `seed`: pairs of one item depend."""
    by_item: dict[str, list[int]] = {}
    for place, row in enumerate(people.rows):
        if people.values[place] is not None:
            by_item.setdefault(row.item, []).append(place)
    rng = np.random.default_rng(seed)
    found: list[LabelledPair] = []
    for places in by_item.values():
        if len(places) < 2:
            continue
        i, j = rng.choice(np.array(places), 2, replace=False).tolist()
        one, other = people.rows[i], people.rows[j]
        worth = _preferred(people.values[i], people.values[j])
        pair = Pair(one.example, one.output, other.output)
        found.append(LabelledPair(pair, worth, (one, other)))
    return found


def _pair_known(theirs: Sequence[LabelledPair], outcomes: Sequence[Outcome]) -> Known:
    """How much more often a system wins with the judge than with people, from both sides."""
    rows = [pair.rows[side] for side in (0, 1) for pair in theirs]
    judged, people = [_won(o.winner) for o in outcomes], [t.worth for t in theirs]
    mirrored = [[1 - v for v in values] for values in (judged, people)]
    return known_from(rows, np.array(people + mirrored[1]), np.array(judged + mirrored[0]))


def _pair_agreement(theirs: Sequence[LabelledPair], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """How often the judge names the reply that people prefer, a tie as one half."""
    stats: list[tuple[float, float]] = []
    for pair, outcome in zip(theirs, outcomes, strict=True):
        got = _won(outcome.winner)
        unknown = pair.worth == 0.5 or np.isnan(got)
        stats.append((np.nan, np.nan) if unknown else (1 - abs(got - pair.worth), 1.0))
    found = interval(stats, [t.rows[0].group for t in theirs], scale=1.0)
    return {"pairwise": as_json(found), "failures": sum(o.winner is None for o in outcomes)}


def _won(winner: str | None) -> float:
    return NOBODY if winner is None else {"a": 1.0, "b": 0.0}.get(winner, 0.5)


def _preferred(a: float | None, b: float | None) -> float:
    if a is None or b is None:
        return NOBODY
    return 0.5 if a == b else float(a > b)


def pairs_json(
    found: PairsResult, names: Sequence[str], rows: int, about: Mapping[str, Any]
) -> dict[str, Any]:
    """The result of a comparison in pairs."""
    counted = found.tally
    return {
        "schema_version": 1,
        **about,
        "a": names[0],
        "b": names[1],
        "rows": rows,
        "pairs": len(found.outcomes),
        "wins": counted.wins,
        "losses": counted.losses,
        "ties": counted.ties,
        "failures": dict(counted.failures),
        "win_rate": as_json(counted.win_rate),
        "p_sign_test": counted.test.p,
        "flips": as_json(counted.flips),
        "first": as_json(counted.first),
        "longer": as_json(counted.longer),
        "against_half": as_json(found.win),
        "agreement": found.agreement,
        "usage": {PHASE: usage_json(counted.usage)},
        "ratings": [[o.winner, *o.orders] for o in found.outcomes],
    }
