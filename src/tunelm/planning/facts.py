"""What a run measured of each route, as far as money depends on it. Plain records."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from tunelm.planning.costs import TokenPrices
from tunelm.prices import Price

Array = NDArray[np.float64]

MACHINE, ENDPOINT = "this machine", "an endpoint"

WITHOUT_MODEL = ("constant", "rule", "nearest", "classifier")
"""Kinds that answer without a language model: there is nothing to host, on any machine."""


@dataclass(frozen=True, slots=True)
class Spent:
    """Tokens of one phase, over all seeds, and what they are priced by.

    `item` is what a person would call it: training, optimizer calls, teacher's answers, judge
    calls, evaluation. `usd_train` prices the tokens of a hosted fine-tuning job; `prices` all
    others; both None: the work of a machine (its time stands in `RouteFacts.fit_seconds`), or
    nobody knows the price, and `why` says so.
    """

    phase: str
    item: str
    prompt: float | None
    completion: float | None
    prices: TokenPrices | None = None
    usd_train: float | None = None
    on_machine: bool = False
    why: str = ""

    def usd(self, factor: float) -> float | None:
        """Dollars, with prices so many times as high; None: unknown."""
        if self.prompt is None or self.completion is None:
            return None
        if self.usd_train is not None:
            return self.prompt * self.usd_train * factor / 1e6
        if self.prices is None:
            return None
        return self.prices.times(factor).cost(self.prompt, self.completion)


@dataclass(frozen=True, slots=True)
class Answered:
    """The test rows, or conversations, of a route: what each took and whether it passed.

    Arrays are (seeds, rows), NaN where a row failed or is not known. `passes` None: the metric is
    no 0/1 share and no threshold was given, or it has no values of single rows; `why` then.
    """

    groups: tuple[str, ...]
    prompt: Array
    completion: Array
    passes: Array | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class RouteFacts:
    """One route.

    Attributes:
        name: of the route.
        kind: of the route.
        control: whether it is there for comparison alone.
        status: done, failed, unfinished or not run.
        where: MACHINE or ENDPOINT: who answers.
        as_if: whose list prices stand in for this machine, as PROVIDER/MODEL.
        model: who answers, by name.
        prompt: tokens of a unit's prompts, on average.
        completion: tokens of a unit's answers, on average.
        cacheable: of the prompt, what is the same in unit after unit, or stood there a turn
            before: what a provider's cache could hold.
        cacheable_how: how that was made.
        turns: answers of a unit; 1 where units are answers.
        seconds: of the machine a unit, one at a time.
        prices: of answers; None where unknown, with `why`.
        hosting: what a deployment costs by the hour; None where none is needed.
        spent: once, by phase, over all seeds.
        fit_seconds: of this machine for fitting all seeds; None where it was not measured.
        lost_usd: what failed or uncounted calls cost at most, by the ledger; they are no part of
            `spent`.
        lost_calls: how many those are.
        learns: whether it learns from train rows.
        seeds: how many fits `spent` has.
        ends: the day on which its model shuts down, with `ends_source`.
        answered: the test rows.
        training: the listed price of training by the token, where there is one.
        score: by the primary metric on the test rows; None where there is none.
    """

    name: str
    kind: str
    control: bool
    status: str
    where: str = MACHINE
    as_if: str | None = None
    model: str | None = None
    prompt: float | None = None
    completion: float | None = None
    cacheable: float | None = None
    cacheable_how: str = ""
    turns: float | None = None
    seconds: float | None = None
    prices: TokenPrices | None = None
    why: str = ""
    hosting: Price | None = None
    spent: tuple[Spent, ...] = ()
    fit_seconds: float | None = None
    lost_usd: float = 0.0
    lost_calls: int = 0
    learns: bool = False
    seeds: int = 1
    ends: date | None = None
    ends_source: str = ""
    answered: Answered | None = None
    training: Price | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class RunFacts:
    """A run: its routes and its test set.

    `best` is the best value of the metric, None where it has none; `winner` the route that the
    comparison chose, on dev.
    """

    path: str
    task: str
    unit: str
    metric: str
    n: int
    made: date
    routes: tuple[RouteFacts, ...]
    best: float | None = 1.0
    winner: str | None = None
    other_usd: float = 0.0
    """What the ledger has for no route of the run: a judge's calls."""
    other_calls: int = 0
