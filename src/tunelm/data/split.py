"""Rows into train, dev and test: by group, by hash, and checked for leaks."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tunelm.config import DataConfig
from tunelm.data.near import NearRows
from tunelm.data.shingles import words
from tunelm.errors import DataError
from tunelm.types import Example, content_hash

PARTS = ("train", "dev", "test")
NEAR = 0.8
"""Two questions this similar are near-duplicates (see `tunelm.data.near`)."""
NEAR_WORDS = 20
"""Questions shorter than this are the same or not: one word of them makes another question."""


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

    train: Sequence[Example]
    dev: Sequence[Example]
    test: Sequence[Example]
    leaks: tuple[Leak, ...] = field(default=())

    def part(self, name: str) -> Sequence[Example]:
        """One part by its name."""
        return {"train": self.train, "dev": self.dev, "test": self.test}[name]


def split_rows(examples: Sequence[Example], config: DataConfig) -> Split:
    """Assign each group by a hash of its name and the seed: new rows move no old ones.

    Groups that share a question (after case, punctuation and spacing), or have questions that are
    near-duplicates, become one group first, so that one question never stands on both sides and is
    not counted as two independent ones; each pair that the split would have parted is reported as
    a leak that was mended.

    Raises DataError when a part is empty or the test part has too few groups.
    """
    if config.dev + config.test >= 1:
        raise DataError(
            f"data.dev + data.test = {config.dev + config.test:g} leaves no rows to train on; "
            "together they must stay below 1."
        )

    def own_part(group: str) -> str:
        return part_at(point_of(group, config.seed), config.dev, config.test)

    owner, leaks = join_alike(examples, own_part, NEAR)
    parts: dict[str, list[Example]] = {name: [] for name in PARTS}
    for example in examples:
        group = owner[example.group]
        parts[own_part(group)].append(dataclasses.replace(example, group=group))
    split = Split(*(tuple(parts[name]) for name in PARTS), leaks=tuple(leaks))
    require_enough(_groups(split), config, given=False)
    return split


def take_split(
    parts: Mapping[str, Sequence[Example]], config: DataConfig, near: float | None = NEAR
) -> Split:
    """A split that was made before, as it is; alike rows of one part become one group.

    `leaks` then names the rows that are alike across parts, and nothing is moved: the caller must
    not go on with them. `near` None looks for equal questions only.

    Raises DataError when a part is empty or the test part has too few groups.
    """
    part_of: dict[str, str] = {}
    leaks: list[Leak] = []
    holder: dict[str, Example] = {}
    for name in PARTS:
        for example in parts[name]:
            other = holder.setdefault(example.group, example)
            if part_of.setdefault(example.group, name) != name:
                there = part_of[example.group]
                leaks.append(Leak("the same group in two parts", example.id, other.id, there))
    everything = [example for name in PARTS for example in parts[name]]
    owner, alike = join_alike(everything, part_of.__getitem__, near)
    if not leaks:
        leaks = alike
    split = Split(
        *(
            tuple(dataclasses.replace(e, group=owner[e.group]) for e in parts[name])
            for name in PARTS
        ),
        leaks=tuple(leaks),
    )
    require_enough(_groups(split), config, given=True)
    return split


def part_hash(examples: Sequence[Example]) -> str:
    """Of the ids in a part, whatever their order; a part on disk knows it already."""
    known: str | None = getattr(examples, "hash", None)
    return known or content_hash(sorted(e.id for e in examples))


def normal_question(example: Example) -> str:
    """What counts as the same question: the whole dialogue, folded. Running text is its own."""
    turns = [m.content for m in example.messages] or list(example.answers[:1])
    return " ".join(words(" \n ".join(turns) + "\n" + (example.context or "")))


def point_of(group: str, seed: int) -> int:
    """Where a group stands, from 0 to 2**64, by a hash of its name."""
    digest = hashlib.sha256(f"{seed}\x00{group}".encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:8], "big")


def part_at(point: int, dev: float, test: float) -> str:
    """The part that a point falls into."""
    share = point / 2**64
    if share < test:
        return "test"
    return "dev" if share < test + dev else "train"


def join_alike(
    examples: Sequence[Example], part_of: Callable[[str], str], near: float | None
) -> tuple[dict[str, str], list[Leak]]:
    """For each group the group that decides for it, and the pairs that stood in two parts.

    `near` None looks for equal questions only.
    """
    parent: dict[str, str] = {}

    def root(group: str) -> str:
        while parent.setdefault(group, group) != group:
            group = parent[group]
        return group

    leaks: list[Leak] = []
    for kind, example, other in _alike(examples, near):
        ours, theirs = root(example.group), root(other.group)
        if ours == theirs:
            continue
        here, there = part_of(ours), part_of(theirs)
        if here != there:
            leaks.append(Leak(kind, example.id, other.id, there))
        parent[ours] = theirs
    return {e.group: root(e.group) for e in examples}, leaks


def _alike(
    examples: Sequence[Example], near: float | None
) -> Iterator[tuple[str, Example, Example]]:
    """(kind, row, an earlier one whose question is the same or nearly so)."""
    first: dict[str, Example] = {}
    longer: dict[str, Example] = {}
    for example in examples:
        question = normal_question(example)
        same = first.setdefault(question, example)
        if same is not example:
            yield "same question in another group", example, same
        elif near is not None and question.count(" ") >= NEAR_WORDS - 1:
            longer[question] = example
    if near is None or len(longer) < 2:
        return
    rows = list(longer.values())
    with NearRows(near) as index:
        for question in longer:
            index.add(question)
        for row, other, _ in index.matches(drop=False):
            yield "near-duplicate question in another group", rows[row], rows[other]


def require_enough(groups: Mapping[str, int], config: DataConfig, given: bool) -> None:
    """Raise DataError where one of the parts has no group, or test too few of them."""
    for name in PARTS:
        if not groups[name]:
            raise DataError(
                f"the {name} part got no rows: there are only {sum(groups.values())} groups in all."
                " Add rows, change data.dev and data.test, or take another data.seed."
                if not given
                else f"{config.path}: the {name} part has no rows. Prepare the data again."
            )
    if groups["test"] >= config.min_test_groups:
        return
    share = config.test
    needed = round(config.min_test_groups / share)
    more = (
        "Put more rows into it"
        if given
        else f"Add rows (about {needed} groups in all at data.test = {share:g}), raise data.test"
    )
    raise DataError(
        f"the test part has {groups['test']} independent groups; at least "
        f"{config.min_test_groups} are needed for a verdict. {more}, or set "
        f"data.min_test_groups = {groups['test']} to go on without one: the report will say "
        "that it proves nothing."
    )


def _groups(split: Split) -> dict[str, int]:
    return {name: len({e.group for e in split.part(name)}) for name in PARTS}
