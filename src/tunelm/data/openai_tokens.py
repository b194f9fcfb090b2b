"""Tokens of training rows as OpenAI counts them, for what a job would cost there.

A local server's tokens are counted by the base model's own tokenizer instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunelm.data.openai_rules import TokenCount, openai_counter
from tunelm.data.records import Record


def count_openai_tokens(
    rows: Sequence[Mapping[str, Any]], model: str
) -> tuple[list[int] | None, str]:
    """(tokens of each row, ""), or (None, why they cannot be known here).

    Counted by tiktoken without the network, with the vocabulary that the `litellm` package
    brings where no other is on disk. `rows` are lines of a supervised training file: `messages`,
    and where there are any `tools` or `functions`. A message counts whatever its `weight`.
    """
    count, reason = openai_counter(model)
    if count is None:
        return None, reason
    counter = TokenCount(model, count)
    return [counter.tokens(_record(row, line)) for line, row in enumerate(rows, 1)], ""


def _record(row: Mapping[str, Any], line: int) -> Record:
    tools = (*(row.get("tools") or ()), *(row.get("functions") or ()))
    return Record("", line, "messages", messages=tuple(row["messages"]), tools=tools)
