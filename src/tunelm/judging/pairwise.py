"""Two replies to the same words, and a model that says which is better: asked in both orders.

Judges favour a place. Of the verdicts that MT-Bench ships with GPT-4 as its judge, 12.9% turn when
the replies change places (FastChat, issue 3911). So each pair is asked twice, disagreement is a
tie, and how often it happens stands beside the result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tunelm.judging.asking import CHUNK, MAX_TOKENS, Said, ask, material, request
from tunelm.judging.llm import Progress, described
from tunelm.judging.rubrics import OVERALL, Rubric, rubric_of
from tunelm.models.base import ChatModel
from tunelm.scoring.statistics import Interval, Paired, interval, paired
from tunelm.types import ZERO_USAGE, Example, Usage

Winner = Literal["a", "b", "tie"]

SAME = "Same"
CHOICES = ("A", "B", SAME)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two replies to one example."""

    example: Example
    a: str
    b: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one pair.

    Attributes:
        winner: the reply that both orders named, or a tie; None: an answer could not be read.
        orders: who was named with `a` shown first, and with `b` shown first.
        notes: why an answer could not be read.
        usage: tokens of both answers.
    """

    winner: Winner | None
    orders: tuple[Winner | None, Winner | None]
    notes: tuple[str, ...]
    usage: Usage

    @property
    def flipped(self) -> bool | None:
        """Whether the two orders disagree; None where one of them could not be read."""
        first, second = self.orders
        return None if first is None or second is None else first != second


@dataclass(frozen=True, slots=True)
class PairTally:
    """Many pairs, counted. Every share with its 95% interval by group.

    Attributes:
        win_rate: share of pairs that `a` wins, ties as one half.
        test: the same beside the win rate of `b`: its p is that of the sign test by group.
        flips: share of pairs on which the two orders disagree.
        first: share of verdicts for one reply that name the one shown first; .5 is no bias.
        longer: share of decided pairs that the longer reply wins.
        wins: pairs that `a` wins.
        losses: pairs that `b` wins.
        ties: pairs without a winner, the flipped ones among them.
        failures: pairs without a verdict, by reason; they are in none of the shares.
        usage: tokens of all answers.
    """

    win_rate: Interval
    test: Paired
    flips: Interval
    first: Interval
    longer: Interval
    wins: int
    losses: int
    ties: int
    failures: Counter[str]
    usage: Usage


class PairJudge:
    """A model that chooses between two replies, asked in both orders."""

    def __init__(
        self,
        model: ChatModel,
        dimension: str = OVERALL,
        *,
        reference: bool = True,
        max_tokens: int = MAX_TOKENS,
        identity: object = None,
        progress: Progress | None = None,
    ) -> None:
        """A judge of pairs.

        Args:
            model: who judges.
            dimension: a name of `RUBRICS` with an order, or `overall`.
            reference: whether it is shown the problem's solution.
            max_tokens: most tokens of an answer.
            identity: as for `LLMJudge`.
            progress: told (what, done, of how many).

        Raises:
            ConfigError: an unknown dimension.
        """
        self.model, self.dimension = model, dimension
        self.reference, self.max_tokens = reference, max_tokens
        self.identity, self.progress = identity, progress
        self._question = _question(rubric_of(dimension, pairs=True))

    def describe(self) -> dict[str, Any]:
        """All that the verdicts depend on, as plain data."""
        return {
            **described(self.model, self.identity),
            "dimension": self.dimension,
            "question": self._question,
            "reference": self.reference,
            "max_tokens": self.max_tokens,
        }

    def compare(self, pairs: Sequence[Pair]) -> list[Outcome]:
        """All pairs, each in both orders. Two replies that are the same text are a tie unasked."""
        asked = [i for i, pair in enumerate(pairs) if pair.a.strip() != pair.b.strip()]
        shown = [(pairs[i].example, two) for i in asked for two in _orders(pairs[i])]
        requests = [
            request(
                self._question, material(example, two, self.reference), CHOICES, self.max_tokens
            )
            for example, two in shown
        ]
        texts = ["\n".join(two) for _, two in shown]
        said: list[Said] = []
        for start in range(0, len(requests), CHUNK):
            part = slice(start, start + CHUNK)
            said += ask(self.model, CHOICES, requests[part], texts[part])
            if self.progress:
                self.progress("pairs judged", len(said), len(requests))
        done = {i: _outcome(said[2 * k], said[2 * k + 1]) for k, i in enumerate(asked)}
        same = Outcome("tie", ("tie", "tie"), (), ZERO_USAGE)
        return [done.get(i, same) for i in range(len(pairs))]


def compare_pair(
    model: ChatModel, dimension: str, example: Example, reply_a: str, reply_b: str
) -> Outcome:
    """One pair, asked in both orders. Raises ConfigError for an unknown dimension."""
    return PairJudge(model, dimension).compare([Pair(example, reply_a, reply_b)])[0]


def tally(
    pairs: Sequence[Pair], outcomes: Sequence[Outcome], groups: Sequence[Hashable]
) -> PairTally:
    """Count outcomes, by group."""
    worth = {"a": 1.0, "b": 0.0, "tie": 0.5}
    scores = [None if o.winner is None else worth[o.winner] for o in outcomes]
    rest = [None if s is None else 1 - s for s in scores]
    named = [(o, place) for o in outcomes for place in (0, 1)]
    first = [_named_first(o.orders[place], place) for o, place in named]
    count = Counter(o.winner for o in outcomes)
    return PairTally(
        win_rate=_share(scores, groups),
        test=paired(_stats(scores), _stats(rest), groups, scale=1.0),
        flips=_share([None if o.flipped is None else float(o.flipped) for o in outcomes], groups),
        first=_share(first, [group for group in groups for _ in (0, 1)]),
        longer=_share([_longer(*one) for one in zip(pairs, outcomes, strict=True)], groups),
        wins=count["a"],
        losses=count["b"],
        ties=count["tie"],
        failures=Counter(note for o in outcomes if o.winner is None for note in o.notes[:1]),
        usage=sum((o.usage for o in outcomes), ZERO_USAGE),
    )


def _orders(pair: Pair) -> tuple[tuple[str, str], tuple[str, str]]:
    return (pair.a, pair.b), (pair.b, pair.a)


def _outcome(first: Said, second: Said) -> Outcome:
    """`first` was shown a as A, `second` was shown b as A."""
    orders = (_who(first.label, ("a", "b")), _who(second.label, ("b", "a")))
    notes = tuple(said.note for said in (first, second) if said.note)
    winner: Winner | None = None
    if None not in orders:
        winner = orders[0] if orders[0] == orders[1] else "tie"
    return Outcome(winner, orders, notes, first.usage + second.usage)


def _who(label: str | None, shown: tuple[Winner, Winner]) -> Winner | None:
    if label is None or label == SAME:
        return None if label is None else "tie"
    return shown[CHOICES.index(label)]


def _named_first(who: Winner | None, place: int) -> float | None:
    return None if who in (None, "tie") else float((who == "a") == (place == 0))


def _longer(pair: Pair, outcome: Outcome) -> float | None:
    if outcome.winner in (None, "tie") or len(pair.a) == len(pair.b):
        return None
    return float((outcome.winner == "a") == (len(pair.a) > len(pair.b)))


def _stats(values: Sequence[float | None]) -> list[tuple[float, float]]:
    unknown = (float("nan"), float("nan"))
    return [unknown if value is None else (value, 1.0) for value in values]


def _share(values: Sequence[float | None], groups: Sequence[Hashable]) -> Interval:
    if all(value is None for value in values):
        return Interval(None, None, None, 0, 0)
    return interval(_stats(values), groups, scale=1.0)


def _question(rubric: Rubric) -> str:
    return (
        f"Which of the two replies {rubric.better}?\n\n"
        "- A: reply A\n- B: reply B\n"
        f"- {SAME}: there is no difference that matters\n\n"
        "Neither its place nor its length makes a reply better."
    )
