"""Rows as a training file of the fine-tuning protocol, checked and counted before it is sent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunelm.data.check_rows import RowChecker
from tunelm.data.openai_rules import LEARNED_AS_IT_IS, check_file, check_openai
from tunelm.data.openai_tokens import count_openai_tokens
from tunelm.data.read import scan
from tunelm.data.records import Fault
from tunelm.errors import DataError
from tunelm.rundir import write_text
from tunelm.training.job import training_row
from tunelm.types import Example

BYTE_ORDER_MARK = "\ufeff"
OPENAI_MARGIN, OTHER_MARGIN = 0.1, 0.5
"""By what share a count by OpenAI's tokens may be off: for OpenAI's models, and for others."""


def chat(example: Example, system: str) -> list[dict[str, Any]]:
    """The messages that are trained on for an example: instructions, turns, gold answer.

    Earlier turns of the assistant get the weight 0: as everywhere else, the loss is on the gold
    answer alone.
    """
    *before, gold = training_row(example, system).to_json()["messages"]
    return [*({**m, "weight": 0} if m["role"] == "assistant" else m for m in before), gold]


def write_rows(path: Path, rows: Sequence[Sequence[Mapping[str, Any]]], marked: bool) -> None:
    """Write a training file, one chat a line; `marked` begins it with a byte order mark."""
    lines = (json.dumps({"messages": chat}, ensure_ascii=False) + "\n" for chat in rows)
    write_text(path, BYTE_ORDER_MARK * marked + "".join(lines))


def check_rows(path: Path, min_examples: int | None) -> None:
    """Refuse a training file that a provider would refuse, before it is sent.

    Args:
        path: the file.
        min_examples: fewest rows that the provider takes; None: not asked.

    Raises:
        DataError: every fault with its line, and how to mend it.
    """
    rows = sum(1 for line in path.read_text(encoding="utf-8").split("\n") if line)
    problems = [
        f"{one.file}:{one.line}: {one.found}. {one.mend}".rstrip()
        for one in _faults(path, rows)
        if one.level == "error"
        and one.code not in LEARNED_AS_IT_IS
        and one.code != "too-few-examples"
    ]
    if min_examples is not None and rows < min_examples:
        problems.append(
            f"{path}: {rows} examples, and a fine-tuning job takes {min_examples} or more. Add "
            "rows, or leave the route out."
        )
    if problems:
        raise DataError(problems)


def _faults(path: Path, rows: int) -> Iterator[Fault]:
    checker = RowChecker.make(())
    for item in scan(path, "jsonl:messages"):
        if isinstance(item, Fault):
            yield item
        else:
            yield from checker.check(item)
            yield from check_openai(item, "supervised")
    yield from check_file(path, rows)


def count_tokens(
    rows: Sequence[Sequence[Mapping[str, Any]]], model: str
) -> tuple[list[int] | None, str, float]:
    """(tokens of each row by OpenAI's vocabulary, or None; why not; how far off, as a share)."""
    counts, reason = count_openai_tokens([{"messages": chat} for chat in rows], model)
    known = model.removeprefix("ft:").startswith(("gpt-", "o4-", "babbage", "davinci"))
    return counts, reason, OPENAI_MARGIN if known else OTHER_MARGIN
