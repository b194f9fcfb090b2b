"""How the parts of a split compare: length, vocabulary, labels; and whether chance explains it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelm.data.shingles import Hashes

_WORDS = 1 << 22
"""Places in the table of words: two words share one by chance, 1 in 40 of 100,000."""
_BLOCK = 1 << 18
FAR, SLACK = 2.0, 0.02
"""More than twice what chance gives, and two points besides, is called different."""


@dataclass
class Tally:
    """Counts over the rows of one part; memory does not grow with them."""

    rows: int = 0
    lengths: Counter[int] = field(default_factory=Counter[int])
    labels: Counter[str] = field(default_factory=Counter[str])
    words: NDArray[np.int32] = field(default_factory=lambda: np.zeros(_WORDS, np.int32))
    _waiting: list[Hashes] = field(default_factory=list[Hashes])
    _size: int = 0

    def add(self, words: Hashes, label: str | None) -> None:
        """One more row, by the hashes of its words."""
        self.rows += 1
        self.lengths[words.size] += 1
        if label is not None:
            self.labels[label] += 1
        self._waiting.append(words)
        self._size += words.size
        if self._size >= _BLOCK:
            self.settle()

    def settle(self) -> None:
        """Count the words that wait to be counted."""
        if self._waiting:
            said = np.concatenate(self._waiting) & np.uint32(_WORDS - 1)
            places, times = np.unique(said, return_counts=True)
            self.words[places] += times.astype(np.int32)
        self._waiting, self._size = [], 0

    def join(self, other: Tally) -> None:
        """Count in what another one counted, of other rows."""
        other.settle()
        self.rows += other.rows
        self.lengths += other.lengths
        self.labels += other.labels
        self.words += other.words

    def length_at(self, share: float) -> int:
        """The length in words that this share of the rows does not exceed."""
        wanted, seen = share * self.rows, 0
        for length in sorted(self.lengths):
            seen += self.lengths[length]
            if seen >= wanted:
                break
        else:
            length = 0
        return length


def compare_parts(tallies: Mapping[str, Tally], groups: Mapping[str, int]) -> dict[str, Any]:
    """Each part's figures, and for all but train how far they are from train's.

    A distance is the total variation distance, half the sum of the differences of all shares: the
    share of the rows that would have to change. `by_chance` is what a split by lot of as many
    groups gives on average.
    """
    for tally in tallies.values():
        tally.settle()
    train = tallies["train"]
    compared: dict[str, Any] = {}
    for name, tally in tallies.items():
        part: dict[str, Any] = {
            "rows": tally.rows,
            "groups": groups[name],
            "words": int(tally.words.sum(dtype=np.int64)),
            "words_a_row": {"median": tally.length_at(0.5), "p90": tally.length_at(0.9)},
            "vocabulary": int(np.count_nonzero(tally.words)),
            "labels": dict(tally.labels.most_common(50)),
        }
        if name != "train" and tally.rows and train.rows:
            sizes = (groups["train"], groups[name])
            known = int(tally.words[train.words > 0].sum(dtype=np.int64))
            part["against_train"] = {
                "length": _distance(_binned(train.lengths), _binned(tally.lengths), sizes),
                "labels": _distance(train.labels, tally.labels, sizes) if train.labels else None,
                "words_in_train": known / part["words"] if part["words"] else None,
            }
        compared[name] = part
    return compared


def sentences(compared: Mapping[str, Any]) -> list[str]:
    """What the figures say, in plain words."""
    said: list[str] = []
    for name, part in compared.items():
        against = part.get("against_train")
        if against is None:
            continue
        far = [what for what in ("length", "labels") if _is_far(against[what])]
        figures = [
            f"{what} {100 * d['distance']:.1f}% apart (by chance {100 * d['by_chance']:.1f}%)"
            for what in ("length", "labels")
            if (d := against[what])
        ]
        if against["words_in_train"] is not None:
            figures.append(f"{100 * against['words_in_train']:.1f}% of its words stand in train")
        verdict = f"differs from train in {' and '.join(far)}" if far else "is like train"
        said.append(f"{name} {verdict}: {', '.join(figures)}.")
        if "length" in far:
            ours, theirs = (p["words_a_row"]["median"] for p in (part, compared["train"]))
            said.append(f"  Half of its rows have at most {ours} words, in train {theirs}.")
        if far:
            said.append(
                "  Large groups, or the order of a label's groups, can do this: try another --seed."
            )
    return said


def _is_far(distance: Mapping[str, float] | None) -> bool:
    return bool(distance) and distance["distance"] > FAR * distance["by_chance"] + SLACK


def _binned(lengths: Mapping[int, int]) -> Counter[int]:
    """Lengths in steps of a factor of the square root of two."""
    binned: Counter[int] = Counter()
    for length, count in lengths.items():
        binned[int(2 * math.log2(length + 1))] += count
    return binned


def _distance(
    one: Mapping[Any, int], other: Mapping[Any, int], groups: tuple[int, int]
) -> dict[str, float]:
    """Total variation distance, and its expectation when both are drawn from one population.

    A difference of shares is about normal with variance p (1 - p) (1/n + 1/m), whose absolute
    value is sqrt(2 / pi) deviations on average; rows of one group are not independent, so n and m
    are groups.
    """
    totals = sum(one.values()), sum(other.values())
    if not all(totals) or not all(groups):
        return {"distance": 0.0, "by_chance": 0.0}
    keys: set[Hashable] = {*one, *other}
    distance = chance = 0.0
    for key in keys:
        shares = one.get(key, 0) / totals[0], other.get(key, 0) / totals[1]
        both = (one.get(key, 0) + other.get(key, 0)) / sum(totals)
        distance += abs(shares[0] - shares[1]) / 2
        variance = both * (1 - both) * (1 / groups[0] + 1 / groups[1])
        chance += math.sqrt(2 / math.pi * variance) / 2
    return {"distance": round(distance, 6), "by_chance": round(chance, 6)}
