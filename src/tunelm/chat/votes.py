"""Two models side by side, blind: which one people like better, and how sure that is.

Each message is answered by both, as A and B. The person picks, and the conversation goes on from
the answer that was picked, so that both always answer the same words. Answers of one conversation
are not independent; therefore the interval and the test count conversations.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

from tunelm.chat.records import Choice, Pair, Vote
from tunelm.chat.session import Chat, Piece, Said
from tunelm.chat.store import ChatStore
from tunelm.data.shares import wilson
from tunelm.errors import ConfigError, ModelError

Side = Literal["a", "b"]
ALPHA = 0.05
LEAST = 6
"""Conversations that must be decided, all one way, before a sign test can show anything at 5%."""


@dataclass(frozen=True, slots=True)
class Shown:
    """Something of one of the two answers."""

    side: Side
    item: Piece | Said


class Versus:
    """One conversation with two models at once. For one thread at a time.

    Which one is A is drawn by chance, but after each pair the other one's turn comes: over all
    pairs of the two that a store holds, each has been A as often as the other, or once more.
    """

    def __init__(self, model: Chat, other: Chat, chance: random.Random | None = None) -> None:
        """Both chats are taken over: they get one store and one conversation, the first's.

        Raises:
            ConfigError: both have the same label, so that a tally could not tell them apart.
        """
        if model.label == other.label:
            raise ConfigError(f"{model.label!r} beside itself: name two different models")
        self.model, self.other = model, other
        other.store, model.other = model.store, other.label
        self.pending: Pair | None = None
        self._chance = chance or random.SystemRandom()

    def say(self, text: str) -> Generator[Shown | Pair]:
        """Both answers to a message, A's before B's, and at last the pair, to be voted on.

        A pair that has had no vote is skipped. Where one of the two fails there is no pair; the
        conversation goes on from what there is.

        Raises:
            ConfigError: as `Chat.say`.
            ModelError: one of the two did not answer.
        """
        if self.pending:
            self.vote("skip")
        heard = self.model.hear(text)
        id = self.model.id or ""
        self.other.id, self.other.problem = id, self.model.problem
        a_is_model = self._drawn()
        first, second = (self.model, self.other) if a_is_model else (self.other, self.model)
        turns: dict[Side, str] = {}
        sides: tuple[tuple[Side, Chat], ...] = (("a", first), ("b", second))
        try:
            for side, chat in sides:
                with closing(chat.answer(heard)) as answer:
                    for item in answer:
                        if isinstance(item, Said):
                            turns[side] = item.turn.id
                        yield Shown(side, item)
        except ModelError as error:
            raise ModelError(
                f"one of the two did not answer, so there is nothing to compare: {error}"
            ) from None
        pair = self.model.store.add_pair(id, turns["a"], turns["b"], a_is_model)
        self.pending = pair
        yield pair

    def vote(self, choice: Choice) -> None:
        """What the person says of the last pair. Raises ConfigError where there is none."""
        if self.pending is None:
            raise ConfigError("there is no pair to vote on: say something first")
        self.model.store.vote(self.pending.id, choice)
        self.pending = None

    def tally(self) -> Tally:
        """How the two stand, over all conversations with both that the store holds."""
        return tally(self.model.store, self.model.label, self.other.label)

    def _drawn(self) -> bool:
        votes = self.model.store.votes(self.model.label, self.other.label)
        ahead = sum(1 if vote.a_is_model else -1 for vote in votes)
        return ahead < 0 if ahead else self._chance.random() < 0.5


@dataclass(frozen=True, slots=True)
class Tally:
    """How two models stand with people.

    Attributes:
        model, other: their names.
        better, worse, alike, skipped: pairs, from `model`'s side.
        won, lost, even: conversations, by which of the two was picked more often in each.
        share: of the decided conversations those that `model` won, with `low` and `high`, the 95%
            interval by Wilson; None while none is decided.
        p: of the sign test over decided conversations, exact and two-sided; None likewise.
        first: of the decided pairs those in which A was picked: far from half, the place counted.
    """

    model: str
    other: str
    better: int = 0
    worse: int = 0
    alike: int = 0
    skipped: int = 0
    won: int = 0
    lost: int = 0
    even: int = 0
    share: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    first: int = 0

    def lines(self) -> tuple[str, ...]:
        """It in words."""
        pairs, decided = self.better + self.worse, self.won + self.lost
        said = [
            f"{_count(pairs + self.alike, 'message')} compared: {self.model} better"
            f" {self.better}, {self.other} better {self.worse}, alike {self.alike}"
            + (f"; {self.skipped} skipped" if self.skipped else "")
        ]
        if self.share is not None and self.low is not None and self.high is not None:
            said.append(
                f"{self.model} won {self.won} of {_count(decided, 'decided conversation')}:"
                f" {self.share:.0%}, 95% interval {self.low:.0%} to {self.high:.0%};"
                f" sign test p = {self.p:.2g}: {self.verdict()}"
                + (f"; {self.even} even" if self.even else "")
            )
        else:
            said.append("no conversation is decided: which is better is not known")
        if decided < LEAST:
            said.append(f"fewer than {LEAST} decided conversations can show no difference")
        if pairs:
            said.append(f"the answer shown first was picked in {self.first} of {pairs}")
        return tuple(said)

    def verdict(self) -> str:
        """What may be said at 5%."""
        if self.p is None or self.p > ALPHA:
            return "not distinguishable"
        return f"{self.model if self.won > self.lost else self.other} is liked better"


def tally(store: ChatStore, model: str, other: str) -> Tally:
    """How two models stand, over all conversations with both."""
    return tally_of(store.votes(model, other), model, other)


def tally_of(votes: Sequence[Vote], model: str, other: str) -> Tally:
    """The same for votes that are given.

    The sign test and the interval count a conversation once: the turns of one depend on each
    other, and a long one must not outweigh ten short ones.
    """
    found: Counter[str] = Counter()
    by_conversation: Counter[str] = Counter()
    for vote in votes:
        if vote.choice in ("a", "b"):
            models = (vote.choice == "a") == vote.a_is_model
            found["better" if models else "worse"] += 1
            found["first"] += vote.choice == "a"
            by_conversation[vote.conversation] += 1 if models else -1
        elif vote.choice == "=":
            found["alike"] += 1
            by_conversation[vote.conversation] += 0
        else:
            found["skipped"] += 1
    signs = Counter((net > 0) - (net < 0) for net in by_conversation.values())
    won, lost = signs[1], signs[-1]
    share, low, high, p = None, None, None, None
    if decided := won + lost:
        share, p = won / decided, sign_test(won, lost)
        low, high = wilson(share, decided)
    return Tally(model, other, **found, won=won, lost=lost, even=signs[0],
                 share=share, low=low, high=high, p=p)  # fmt: skip


def sign_test(won: int, lost: int) -> float:
    """The exact two-sided p of so many wins and losses, were each as likely as the other.

    >>> sign_test(6, 0), sign_test(5, 0), sign_test(2, 2)
    (0.03125, 0.0625, 1.0)
    """
    n = won + lost
    tail = sum(math.comb(n, k) for k in range(min(won, lost) + 1))
    return min(1.0, 2 * tail / 2**n)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
