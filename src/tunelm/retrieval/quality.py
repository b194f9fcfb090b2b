"""How good retrieval is by itself, on rows whose passage is known."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from tunelm.retrieval.chunks import Passage
from tunelm.retrieval.lexical import Hit
from tunelm.scoring.statistics import Interval, Paired, interval, paired
from tunelm.scoring.text import contains, normalise
from tunelm.types import Example

DEPTH = 10
"""How far down passages are looked for; one that stands lower counts as not found."""
KS = (1, 3, 5, DEPTH)
MOST_GOLD = 5
"""An answer that stands in more passages than this says little about which one is meant."""

Gold = Mapping[str, frozenset[int]]
"""Of each row whose passage is known, by its id: the places of the passages that will do."""


def gold_passages(
    rows: Sequence[Example], passages: Sequence[Passage]
) -> dict[str, frozenset[int]]:
    """The passages that hold each row's answer. Rows for which nobody can tell are left out.

    A row may name its passage: metadata `passage_id` or `source` that is a passage's id, the `id`
    of its row in the corpus, or its `file:line`. Of a long one that was cut, the parts that hold
    the answer count, or all if none does. Otherwise they are the passages in which a key answer
    (or, where there is none, an answer) stands word for word, if they are at most MOST_GOLD.
    """
    named: dict[str, list[int]] = {}
    for place, passage in enumerate(passages):
        for name in {passage.id, passage.key, passage.source} - {""}:
            named.setdefault(name, []).append(place)
    texts = [f" {normalise(passage.text)} " for passage in passages]
    places_of: dict[str, list[int]] = {}
    for place, text in enumerate(texts):
        for word in set(text.split()):
            places_of.setdefault(word, []).append(place)

    def standing_in(key: str) -> set[int]:
        wanted = normalise(key)
        if not wanted:  # all of it is articles or punctuation
            return {i for i, passage in enumerate(passages) if contains(passage.text, key)}
        rarest = min((places_of.get(word, []) for word in wanted.split()), key=len)
        return {i for i in rarest if f" {wanted} " in texts[i]}

    gold: dict[str, frozenset[int]] = {}
    for row in rows:
        names = [str(row.metadata.get(field, "")) for field in ("passage_id", "source")]
        given = [place for name in names for place in named.get(name, [])]
        keys = row.metadata.get("key_answers") or row.answers
        found = frozenset(place for key in keys for place in standing_in(key))
        if given:
            gold[row.id] = found & frozenset(given) or frozenset(given)
        elif 1 <= len(found) <= MOST_GOLD:
            gold[row.id] = found
    return gold


def found_at(found: Sequence[Hit], gold: frozenset[int]) -> int | None:
    """The rank, from 1, of the first passage that will do; None where there is none."""
    return next((rank for rank, hit in enumerate(found, 1) if hit.index in gold), None)


def figures(
    rows: Sequence[Example], found: Sequence[Sequence[Hit]], gold: Gold, k: int
) -> dict[str, Any]:
    """Recall@1, 3, 5, 10 and `k`, and MRR, for JSON, with 95% intervals by group.

    Recall@k is the share of rows with a passage that will do among the first k. MRR is the mean
    of 1 / its rank, 0 where it stands below the tenth. `rows` counts all, `known` those measured.
    """
    known = [row.id in gold for row in rows]
    groups = [row.group for row, is_known in zip(rows, known, strict=True) if is_known]
    figure: dict[str, Any] = {"rows": len(rows), "known": sum(known)}
    for name in (*(f"recall@{depth}" for depth in sorted({*KS, k})), "mrr"):
        values = [
            v
            for v, is_known in zip(row_values(name, rows, found, gold), known, strict=True)
            if is_known
        ]
        figure[name] = dataclasses.asdict(mean(values, groups))
    return figure


def compare_retrievers(
    name: str,
    rows: Sequence[Example],
    a: Sequence[Sequence[Hit]],
    b: Sequence[Sequence[Hit]],
    gold: Gold,
) -> Paired:
    """A's figure (`recall@5`, `mrr`) less B's, paired by row, with its interval by group."""
    stats = [
        [
            (value, 1.0 if not math.isnan(value) else math.nan)
            for value in row_values(name, rows, found, gold)
        ]
        for found in (a, b)
    ]
    return paired(stats[0], stats[1], [row.group for row in rows], scale=1.0)


def row_values(
    name: str, rows: Sequence[Example], found: Sequence[Sequence[Hit]], gold: Gold
) -> list[float]:
    """The figure's value of each row; NaN where its passage is not known."""
    depth = DEPTH if name == "mrr" else int(name.removeprefix("recall@"))
    values: list[float] = []
    for row, hits in zip(rows, found, strict=True):
        if row.id not in gold:
            values.append(math.nan)
            continue
        rank = found_at(hits[:depth], gold[row.id])
        values.append(0.0 if rank is None else 1 / rank if name == "mrr" else 1.0)
    return values


def mean(values: Sequence[float], groups: Sequence[str]) -> Interval:
    """The mean of values between 0 and 1, with its 95% interval; None of no values."""
    return interval(
        [(value, 1.0) for value in values] or [(math.nan, math.nan)], groups or ["-"], scale=1.0
    )
