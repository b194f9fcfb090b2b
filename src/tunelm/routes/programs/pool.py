"""Which train rows may become demonstrations, and how many fit the model's context."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence

from tunelm.routes.programs.form import render, with_given, write
from tunelm.routes.programs.program import Step
from tunelm.types import Completion, Example, FinishReason, Message, Request

POOL_ROWS = 32
"""Most rows that demonstrations are drawn from; each costs one call of bootstrapping."""
_FILLER = "the "
"""One token, by most tokenizers."""
NEAREST_ROWS = 256
"""Most rows that the program answers itself, to be shown where they are nearest."""
PROBE_ROWS = 4
"""The longest rows, asked to see whether the longest prompt fits."""


def demo_pool(train: Sequence[Example], demos: int, seed: int) -> list[Example]:
    """Train rows to draw `demos` demonstrations from, in an order that `seed` decides.

    One row of each group, so that no prompt shows one fact twice, at most POOL_ROWS. Only
    where there are fewer groups than `demos` do further rows of a group fill it up.
    Independent of the order of `train`; no two rows have the same messages.
    """
    rows = sorted({row.messages: row for row in sorted(train, key=_by_id)}.values(), key=_by_id)
    random.Random(seed).shuffle(rows)
    first: dict[str, Example] = {}
    for row in rows:
        first.setdefault(row.group, row)
    pool = list(first.values())[: max(POOL_ROWS, demos)]
    chosen = {row.id for row in pool}
    spare = [row for row in rows if row.id not in chosen]
    return pool + spare[: max(0, demos - len(pool))]


def demos_that_fit(
    ask: Callable[[Sequence[Request]], list[Completion]],
    prompt: Callable[[Sequence[Example], Example], Request],
    pool: Sequence[Example],
    rows: Sequence[Example],
    demos: int,
    max_length: int,
) -> int:
    """The most demonstrations, at most `demos`, that leave room for the longest rows.

    Asks the PROBE_ROWS longest of `rows` with the `demos` longest of the pool in front, and
    takes one away while more of them do not fit than do not fit without any. To fit is to have
    no error, and room for prompt plus longest answer in `max_length` tokens and in the model's
    own context. Which are the longest is judged in characters.
    """
    longest = heapq.nlargest(PROBE_ROWS, rows, key=length)
    shown = heapq.nlargest(demos, pool, key=length)

    def misfits(count: int) -> int:
        requests = [prompt(shown[:count], row) for row in longest]
        pairs = zip(requests, ask(requests), strict=True)
        return sum(not _fits(request, got, max_length) for request, got in pairs)

    for count in range(len(shown), 0, -1):
        misfitting = misfits(count)
        if not misfitting or misfitting <= misfits(0):
            return count
    return 0


def _fits(request: Request, got: Completion, max_length: int) -> bool:
    tokens = got.usage
    if got.error is not None:
        return False
    if tokens.prompt_tokens is not None and tokens.prompt_tokens + request.max_tokens > max_length:
        return False
    cut = got.finish_reason is FinishReason.LENGTH and tokens.completion_tokens is not None
    return not (cut and (tokens.completion_tokens or 0) < request.max_tokens)


def prompt_builder(
    steps: Sequence[Step], max_tokens: int
) -> Callable[[Sequence[Example], Example], Request]:
    """A function from (demonstration rows, row) to the longest request of the last step.

    What the model writes before an answer is not known yet: as much of it as there is room for
    stands there instead.
    """
    *before, last = steps
    given = {step.name: _FILLER * step.extra_tokens for step in before}
    values = dict.fromkeys(last.outputs, _FILLER * last.extra_tokens)

    def prompt(demos: Sequence[Example], row: Example) -> Request:
        turns: list[Message] = []
        for demo in demos:
            said = write(last.outputs, {**values, last.outputs[-1]: demo.answers[0]})
            asked = [m for m in demo.messages if m.role != "system"]
            turns += [*with_given(asked, given), Message("assistant", said)]
        rendered = render(last, row.messages, given, turns)
        return Request(rendered, max_tokens=max_tokens + last.extra_tokens)

    return prompt


def length(row: Example) -> int:
    """Characters of a row's messages and gold answer."""
    return sum(len(m.content) for m in row.messages) + len(row.answers[0])


def nearest_rows(train: Sequence[Example], seed: int, answered: bool) -> list[Example]:
    """The rows that the nearest are looked for in: all, or NEAREST_ROWS that must be `answered`."""
    distinct = {row.messages: row for row in sorted(train, key=_by_id)}
    rows = sorted(distinct.values(), key=_by_id)
    return sample(rows, NEAREST_ROWS, seed) if answered else rows


def sample(rows: Sequence[Example], most: int, seed: int) -> list[Example]:
    """At most so many of the rows, in an order that `seed` decides, whatever theirs is."""
    ordered = sorted(rows, key=_by_id)
    return random.Random(seed).sample(ordered, min(most, len(ordered)))


def _by_id(row: Example) -> str:
    return row.id
