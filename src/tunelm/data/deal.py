"""Which part each group belongs to: by a hash of its content, evenly within each label.

Three things are wanted, and no rule gives all three in full: each label stands in every part in
its share (stratified), added rows move no old ones (stable), and the order of the file does not
matter. A rule that is stable whatever is added, in whatever order, can look at nothing but the row
itself; the share of a label in a part is then left to chance, 10 of 100 give or take 3. So:

- Without labels the hash alone decides. Rows may be added anywhere, taken away, or reordered.
- With labels the groups of a label are dealt in the order of the file. The hash decides as long as
  the part's count stays within one group above and half a group below its share of those dealt so
  far; at the edge the count decides (the big-stick design of clinical trials: Soares and Wu,
  Communications in Statistics 12, 1983). A deal looks only back: rows added at the end move none;
  rows put in between move about a quarter of those behind them that do not train.
- Rare labels: the first group of a label trains, since what was never trained on cannot be judged.
  From 1 / (2 x share) groups on, 6 at a tenth, the half group below makes sure of one in the part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TRAIN, DEV, TEST, NONE = range(4)
ABOVE, BELOW = 1.0, 0.5


def by_hash(points: NDArray[np.uint64], dev: float, test: float) -> NDArray[np.uint8]:
    """The part of each group by where its hash stands."""
    shares = points / 2.0**64
    parts = np.full(points.size, TRAIN, np.uint8)
    parts[shares < test + dev] = DEV
    parts[shares < test] = TEST
    return parts


def by_label(
    points: NDArray[np.uint64], labels: Sequence[int], dev: float, test: float
) -> NDArray[np.uint8]:
    """The part of each group, groups in the order of the file, `labels` a number for each."""
    wanted = by_hash(points, dev, test).tolist()
    parts = np.empty(points.size, np.uint8)
    dealt: dict[int, list[int]] = {}
    for place, label in enumerate(labels):
        counts = dealt.setdefault(label, [0, 0, 0])
        part = _dealt(wanted[place], counts, dev, test)
        counts[part] += 1
        parts[place] = part
    return parts


def _dealt(wanted: int, counts: Sequence[int], dev: float, test: float) -> int:
    groups = sum(counts) + 1
    if groups == 1:
        return TRAIN
    missing = {p: share * groups - counts[p] for p, share in ((TEST, test), (DEV, dev))}
    most = max(missing, key=lambda part: missing[part])
    if missing[most] > BELOW:
        return most
    if wanted != TRAIN and missing[wanted] < 1 - ABOVE:
        return TRAIN
    return wanted


@dataclass(frozen=True)
class Dealt:
    """The part and the group of each row, and what had to be done for it."""

    parts: NDArray[np.uint8]
    """TRAIN, DEV or TEST; `NONE` for rows that are in no part."""
    groups: NDArray[np.int32]
    """Number of the joined group; -1 for rows in no part."""
    joined: NDArray[np.int32]
    """Pairs of rows alike whose groups would have stood in two parts, and do no more."""
    stratified: bool


def deal(
    hashes: NDArray[np.uint64],
    alike: NDArray[np.int32],
    labels: NDArray[np.int32],
    kept: NDArray[np.bool_],
    shares: tuple[float, float],
    seed: int,
) -> Dealt:
    """Deal the kept rows out to the parts.

    Args:
        hashes: of each row's group.
        alike: pairs of kept rows that must stand on one side; their groups are joined, and the
            part of the one that comes first in the file decides.
        labels: number of each row's label, -1 none.
        kept: which rows there are to deal.
        shares: of dev and of test, from 0 to 1.
        seed: another seed, another split.
    """
    dev, test = shares
    alike = np.unique(np.sort(alike, axis=1), axis=0)
    rows = np.flatnonzero(kept)
    _, first, group = np.unique(hashes[rows], return_index=True, return_inverse=True)
    order = np.argsort(first)  # groups numbered as they come in the file
    number = np.empty(order.size, np.int64)
    number[order] = np.arange(order.size)
    group, opening = number[group], rows[first[order]]
    points = _points(hashes[opening], seed)
    strata = labels[opening]
    # labels that hardly recur are no labels
    stratified = bool((strata >= 0).any()) and np.unique(strata).size * 2 <= strata.size
    parts = (
        by_label(points, strata.tolist(), dev, test) if stratified else by_hash(points, dev, test)
    )
    place = np.full(kept.size, -1, np.int64)
    place[rows] = group
    owner = _owners(place[alike], order.size)
    apart = parts[place[alike[:, 0]]] != parts[place[alike[:, 1]]]
    of_row = np.full(kept.size, NONE, np.uint8)
    of_row[rows] = parts[owner[group]]
    of_group = np.full(kept.size, -1, np.int32)
    of_group[rows] = owner[group]
    return Dealt(of_row, of_group, alike[apart], stratified)


def pairs_of_equals(values: NDArray[np.uint64], kept: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Pairs of neighbours among the kept rows that have the same value; 0 is none."""
    rows = np.flatnonzero(kept & (values != 0))
    order = rows[np.argsort(values[rows], kind="stable")]
    same = values[order[1:]] == values[order[:-1]]
    return np.stack((order[:-1][same], order[1:][same]), axis=1).astype(np.int32)


def seed_that_fills(
    hashes: NDArray[np.uint64], kept: NDArray[np.bool_], shares: tuple[float, float]
) -> int | None:
    """A seed with which no part that has a share stays empty, of the first thousand."""
    groups = np.unique(hashes[kept])
    wanted = 1 + sum(share > 0 for share in shares)
    for seed in range(1000):
        if np.unique(by_hash(_points(groups, seed), *shares)).size == wanted:
            return seed
    return None


def _owners(pairs: NDArray[np.int64], groups: int) -> NDArray[np.int64]:
    """For each group the first of those it is joined with."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), (groups, groups))
    count, component = connected_components(graph, directed=False)
    first = np.full(count, groups, np.int64)
    np.minimum.at(first, component, np.arange(groups))
    return first[component]


def _points(hashes: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Where the groups stand, from 0 to 2**64: their hashes mixed with the seed (splitmix64)."""
    mixed = hashes + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
