"""Which train rows may become demonstrations, and how many fit the model's context."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence

from tunelm.models.base import ChatModel
from tunelm.models.prompted import PromptedModel
from tunelm.routes.programs.program import gold_demo, turns_of
from tunelm.types import Completion, Example, FinishReason, Request

POOL_ROWS = 32
"""Most rows that demonstrations are drawn from; each costs one call of bootstrapping."""
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
    model: ChatModel, instructions: str, max_tokens: int
) -> Callable[[Sequence[Example], Example], Request]:
    """A function from (demonstration rows, row) to the request that answers the row."""

    def prompt(demos: Sequence[Example], row: Example) -> Request:
        turns = turns_of([gold_demo(demo) for demo in demos])
        rendered = PromptedModel(model, instructions, turns).render(row.messages)
        return Request(rendered, max_tokens=max_tokens)

    return prompt


def length(row: Example) -> int:
    """Characters of a row's messages and gold answer."""
    return sum(len(m.content) for m in row.messages) + len(row.answers[0])


def _by_id(row: Example) -> str:
    return row.id
