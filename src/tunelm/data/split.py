"""Rows into train, dev and test: by group, by hash, and checked for leaks."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from tunelm.config import DataConfig
from tunelm.errors import DataError
from tunelm.types import Example, content_hash

PARTS = ("train", "dev", "test")


@dataclass(frozen=True)
class Leak:
    """Two rows alike on both sides of the split; `test_id` moved to where `other_id` is."""

    kind: str
    test_id: str
    other_id: str
    other_part: str


@dataclass(frozen=True)
class Split:
    """The three parts, and what was done so that they do not overlap."""

    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    leaks: tuple[Leak, ...] = field(default=())

    def part(self, name: str) -> tuple[Example, ...]:
        """One part by its name."""
        return {"train": self.train, "dev": self.dev, "test": self.test}[name]


def split_rows(examples: Sequence[Example], config: DataConfig) -> Split:
    """Assign each group by a hash of its name and the seed: new rows move no old ones.

    Groups that share a question (after case, punctuation and spacing) become one group first, so
    that one question never stands on both sides and is not counted as two independent ones; each
    pair that the split would have parted is reported as a leak that was mended.

    Raises DataError when a part is empty or the test part has too few groups.
    """
    if config.dev + config.test >= 1:
        raise DataError(
            f"data.dev + data.test = {config.dev + config.test:g} leaves no rows to train on; "
            "together they must stay below 1."
        )
    owner, leaks = _join_alike(examples, config)
    parts: dict[str, list[Example]] = {name: [] for name in PARTS}
    for example in examples:
        group = owner[example.group]
        parts[_part(group, config)].append(dataclasses.replace(example, group=group))
    split = Split(*(tuple(parts[name]) for name in PARTS), leaks=tuple(leaks))
    _require_enough(split, config)
    return split


def part_hash(examples: Sequence[Example]) -> str:
    """Of the ids in a part, whatever their order."""
    return content_hash(sorted(e.id for e in examples))


def normal_question(example: Example) -> str:
    """What counts as the same question: the whole dialogue, folded."""
    whole = " \n ".join(m.content for m in example.messages) + (example.context or "")
    return " ".join(re.findall(r"\w+", whole.casefold()))


def _part(group: str, config: DataConfig) -> str:
    digest = hashlib.sha256(f"{config.seed}\x00{group}".encode()).digest()
    point = int.from_bytes(digest[:8], "big") / 2**64
    if point < config.test:
        return "test"
    return "dev" if point < config.test + config.dev else "train"


def _join_alike(
    examples: Sequence[Example], config: DataConfig
) -> tuple[dict[str, str], list[Leak]]:
    """For each group the group that decides for it, and the leaks this prevents."""
    first: dict[str, Example] = {}
    parent: dict[str, str] = {}

    def root(group: str) -> str:
        while parent.setdefault(group, group) != group:
            group = parent[group]
        return group

    leaks: list[Leak] = []
    for example in examples:
        same = first.setdefault(normal_question(example), example)
        ours, theirs = root(example.group), root(same.group)
        if ours == theirs:
            continue
        here, there = _part(ours, config), _part(theirs, config)
        if here != there:
            leaks.append(Leak("same question in another group", example.id, same.id, there))
        parent[ours] = theirs
    return {e.group: root(e.group) for e in examples}, leaks


def _require_enough(split: Split, config: DataConfig) -> None:
    groups: dict[str, set[str]] = defaultdict(set)
    for name in PARTS:
        groups[name] = {e.group for e in split.part(name)}
        if not groups[name]:
            total = len({e.group for p in PARTS for e in split.part(p)})
            raise DataError(
                f"the {name} part got no rows: there are only {total} groups in all. Add rows, "
                "change data.dev and data.test, or take another data.seed."
            )
    if len(groups["test"]) < config.min_test_groups:
        share = config.test
        needed = round(config.min_test_groups / share)
        raise DataError(
            f"the test part has {len(groups['test'])} independent groups; at least "
            f"{config.min_test_groups} are needed for a verdict. Add rows (about {needed} groups "
            f"in all at data.test = {share:g}), raise data.test, or set data.min_test_groups = "
            f"{len(groups['test'])} to go on without one: the report will say that it proves "
            "nothing."
        )
