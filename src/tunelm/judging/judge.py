"""What a judge is: it rates replies, and says what gives the same rating again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tunelm.types import Example


@dataclass(frozen=True, slots=True)
class Rating:
    """What a judge says of one reply.

    `value` is on the judge's scale, None where the reply could not be judged; `note` then says
    why. `label` is the name of the class where the judge has classes; a judge of classes without
    an order has no value to give, and no note either.
    """

    value: float | None
    label: str | None = None
    note: str | None = None


class Judge(Protocol):
    """Rates replies. Higher values are better."""

    @property
    def name(self) -> str:
        """What it judges, such as actionability."""
        ...

    @property
    def kind(self) -> str:
        """`learned` or `llm`."""
        ...

    @property
    def scale(self) -> tuple[float, float]:
        """The lowest and the highest value."""
        ...

    def rate(self, examples: Sequence[Example], outputs: Sequence[str]) -> list[Rating]:
        """A rating for each output, which answers the example at its place.

        The example's `messages` are the dialogue before the reply, its metadata may hold
        `problem` and `solutions`.
        """
        ...

    def signature(self) -> str:
        """What gives the same number again: a hash of weights, or model and rubric."""
        ...
