"""What stands out in a file of rows, with its n and interval, and what to do about it.

A finding needs a difference that is both sure (the interval, held over all comparisons made)
and large enough to matter, on at least MIN_N rows; where rows come in groups of related ones,
groups are counted instead. It says what is there, not why: nobody is accused of anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

from tunelm.data.shares import Bin, Share, difference, quantile, share, wilson
from tunelm.data.tally import ANSWER, Counts, Tally

MIN_N = 30
"""Fewer rows (or groups) than this raise no alarm, however they look."""
NOTABLE = 0.15
"""A smaller difference between two shares is not worth a word."""
LONGER = 1.5
"""Nor is a smaller ratio between two median lengths."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths of `of` rows. `unit` is tokens of prompt and answer together, or words.

    `sampled`: they are a random sample. `refused` of them cannot be trained on for another
    reason than their length; `refusals` has the first few reasons.
    """

    unit: str
    of: int
    sampled: bool
    median: int | None
    p95: int | None
    most: int | None
    limit: int | None
    over: Share | None
    histogram: tuple[Bin, ...]
    refused: int
    refusals: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that stands out: what was found, on how much, and what to do about it.

    `n` is what the interval from `low` to `high` rests on: groups where rows come in groups.
    `rows` names some to look at, as FILE:LINE.
    """

    kind: str
    found: str
    do: str
    n: int
    low: float | None = None
    high: float | None = None
    field: str | None = None
    value: str | None = None
    rows: tuple[str, ...] = ()


def findings_of(counts: Counts, lengths: Lengths) -> tuple[tuple[Finding, ...], int]:
    """(what stands out, how many comparisons between values were made to find it)."""
    contrasts, comparisons = _contrasts(counts)
    found = (
        *_lengths(lengths),
        *_large_group(counts),
        *_few_rows(counts),
        *_balance(counts),
        *contrasts,
        *_persons(counts),
        *_one_name(counts),
    )
    return found, comparisons


def limits_of(english: Share, lengths: Lengths, clustered: bool) -> tuple[str, ...]:
    """What the profile cannot see, in words."""
    words = (
        "Pronouns, names and tone are counted by short English word lists: irony, quotations and"
        " other languages escape them, `they` may mean one person or several, and no name is"
        " taken for a man's or a woman's."
    )
    sizes = (
        f"Findings need {MIN_N} {'groups' if clustered else 'rows'} on each side and a sure"
        f" difference of {NOTABLE:.0%} of the rows; what is smaller is not shown to be absent."
    )
    limits = [words, sizes]
    if english.share is not None and english.share < 0.5:
        limits.append(
            f"Only {english.share:.0%} of the rows hold any of the commonest English words, so"
            " these counts say little about this file."
        )
    if lengths.sampled:
        limits.append(
            f"Lengths are those of a random sample of {lengths.of:,} rows;"
            " `tunelm data check --model` measures every row."
        )
    return tuple(limits)


def _lengths(lengths: Lengths) -> Iterator[Finding]:
    over = lengths.over
    if over is not None and over.count:
        yield Finding(
            "over the limit",
            f"{over.count:,} of {over.of:,} rows have more than {lengths.limit:,} tokens"
            f" (at most {lengths.most:,}).",
            "Shorten or split them, or raise model.max_length if the model's context allows;"
            " data.over_long says whether a run stops, drops or cuts them.",
            over.of,
            over.low,
            over.high,
        )
    if lengths.refused:
        refused = share(lengths.refused, lengths.of)
        yield Finding(
            "refused",
            f"{refused.count:,} of {refused.of:,} rows cannot be trained on."
            f" First: {lengths.refusals[0]}",
            "Mend or leave out these rows; `tunelm data check` names every one.",
            refused.of,
            refused.low,
            refused.high,
        )


def _large_group(counts: Counts) -> Iterator[Finding]:
    if not counts.clustered or len(counts.groups) < 2:
        return
    name, rows = counts.groups.most_common(1)[0]
    part = share(rows, counts.overall.rows)
    if rows > 1 and part.share is not None and part.share >= 0.1:
        yield Finding(
            "one large group",
            f"The group {name} has {rows:,} of the {part.of:,} rows ({part.share:.0%}).",
            "A group is never split, so it decides what its part of the split looks like and"
            " weighs most in training: take fewer of its rows, or collect other groups. If the"
            " field says what kind of row it is, give it another name.",
            part.of,
            part.low,
            part.high,
            "group",
            name,
        )


def _few_rows(counts: Counts) -> Iterator[Finding]:
    for name, values in counts.fields.items():
        sizes = {v: _units(t, counts) for v, t in values.items()}
        few = sorted((v for v in values if sizes[v] < MIN_N), key=lambda v: (sizes[v], v))
        if not few:
            continue
        what = "groups" if counts.clustered else "rows"
        listed = _listed([f"{v} ({sizes[v]})" for v in few])
        yield Finding(
            "few rows",
            f"{name}: fewer than {MIN_N} {what} for {len(few)} of {len(values)} values: {listed}.",
            "Too few to judge a model on one by one, and perhaps to learn from: collect more of"
            " them, or join values that mean the same.",
            sum(sizes[v] for v in few),
            field=name,
            value=few[0] if len(few) == 1 else None,
        )


def _balance(counts: Counts) -> Iterator[Finding]:
    """Values whose share is surely under half, or over twice, the equal one."""
    per_row = counts.overall.per_row(counts.clustered)
    for name, values in counts.fields.items():
        total = sum(tally.rows for tally in values.values())
        n, equal = total * per_row, 1 / len(values)
        if n < MIN_N:
            continue
        z = _z(len(values))
        off: list[tuple[float, str, float, float]] = []
        for value, tally in values.items():
            low, high = wilson(tally.rows / total, n, z)
            if high < equal / 2 or low > 2 * equal:
                off.append((abs(tally.rows / total - equal), value, low, high))
        if not off:
            continue
        _, value, low, high = max(off)
        listed = _listed([f"{v} {values[v].rows / total:.0%}" for _, v, *_ in sorted(off)[::-1]])
        top = max(values, key=lambda v: values[v].rows)
        constant = (
            f" A model that always says {top} is right {values[top].rows / total:.0%} of the"
            " time: look at the control `constant` first."
        )
        yield Finding(
            "balance",
            f"{name}: far from equal shares ({equal:.0%} each): {listed}.",
            "Collect more of what is rare, or give its rows more weight (repeat them in the"
            f" training part only); report scores by {name}, not in all alone."
            + (constant if name in (ANSWER, "label") else ""),
            round(n),
            low,
            high,
            name,
            value,
        )


class _Side(NamedTuple):
    """`hits` of `of` rows, which are worth `n` independent units."""

    hits: int
    of: int
    n: float

    @property
    def share(self) -> float:
        return self.hits / self.of


class _Contrast(NamedTuple):
    kind: str
    field: str
    value: str
    part: _Side
    rest: _Side
    tally: Tally
    medians: tuple[int, int]


def _contrasts(counts: Counts) -> tuple[list[Finding], int]:
    """Each value of each field against all other rows, in tone, pronouns and length."""
    pairs = [pair for name in counts.fields if name != ANSWER for pair in _pairs(counts, name)]
    z = _z(len(pairs))
    found: list[Finding] = []
    for pair in pairs:
        part, rest = pair.part, pair.rest
        diff, low, high = difference(part.share, part.n, rest.share, rest.n, z)
        small, large = sorted(pair.medians)
        alike = pair.kind == "length" and large < LONGER * max(1, small)
        if abs(diff) >= NOTABLE and not low <= 0 <= high and not alike:
            n = round(min(part.n, rest.n))
            found.append(_described(pair, n, diff, (low, high)))
    return found, len(pairs)


def _pairs(counts: Counts, name: str) -> Iterator[_Contrast]:
    values = counts.fields[name]
    median = quantile(counts.overall.words, 0.5)
    # with two values, the second against the first would say the same again
    ordered = sorted(values, key=lambda v: (-values[v].rows, v))
    for value in ordered[: 1 if len(values) == 2 else None]:
        others = [tally for v, tally in values.items() if v != value]
        medians = (_median([values[value]]), _median(others))
        for kind in ("negative", "positive", "he or she", "length"):
            part = _side(kind, [values[value]], median, counts.clustered)
            rest = _side(kind, others, median, counts.clustered)
            if min(part.n, rest.n) >= MIN_N:
                yield _Contrast(kind, name, value, part, rest, values[value], medians)


def _side(kind: str, tallies: Sequence[Tally], median: int, clustered: bool) -> _Side:
    rows = sum(t.rows for t in tallies)
    per_row = sum(t.rows * t.per_row(clustered) for t in tallies) / rows
    if kind == "he or she":
        hits = sum(t.marks["only he"] for t in tallies)
        of = hits + sum(t.marks["only she"] for t in tallies)
    elif kind == "length":
        hits = sum(n for t in tallies for words, n in t.words.items() if words > median)
        of = rows
    else:
        hits, of = sum(t.marks[kind] for t in tallies), rows
    return _Side(hits, of, of * per_row)


def _described(pair: _Contrast, n: int, diff: float, ends: tuple[float, float]) -> Finding:
    part, where = pair.part, f"{pair.field} = {pair.value}"
    beside = f"{part.share:.0%} of {part.of:,}, against {pair.rest.share:.0%} of {pair.rest.of:,}"
    rows: Sequence[str] = ()
    if pair.kind == "length":
        found = (
            f"{where}: answers have {pair.medians[0]} words in the median, the other rows'"
            f" {pair.medians[1]}; longer than the median of all are {beside}."
        )
        do = (
            f"If the length should not depend on {pair.field}, even it out; score the values"
            " apart, since overlap metrics move with length."
        )
    elif pair.kind == "he or she":
        found = f"{where}: of the rows with he or she alone, he stands in {beside} elsewhere."
        rows = pair.tally.where.get("only he" if diff > 0 else "only she", ())
        do = (
            f"Where the person is not part of the fact, collect more {pair.value} rows with the"
            " other pronoun, or reword some with they or none."
        )
    else:
        found = f"{where}: answers that sound {pair.kind}: {beside} elsewhere."
        rows = pair.tally.where.get(pair.kind, ())
        do = (
            f"Look whether the tone belongs to the matter. If it should not depend on"
            f" {pair.field}, collect {pair.value} rows of the other tone, or reword."
        )
    return Finding(pair.kind, found, do, n, *ends, pair.field, pair.value, tuple(rows))


def _persons(counts: Counts) -> Iterator[Finding]:
    side = _side("he or she", [counts.overall], 0, counts.clustered)
    if side.n < MIN_N:
        return
    low, high = wilson(side.share, side.n)
    if low <= 0.6 and high >= 0.4:
        return
    rare = "she" if side.share > 0.5 else "he"
    yield Finding(
        "he or she",
        f"Of the {side.of:,} rows with he or she alone, he stands in {side.hits:,}"
        f" ({side.share:.0%}).",
        f"Where the person is not part of the fact, collect more rows with {rare}, or reword"
        " some with they or none.",
        round(side.n),
        low,
        high,
        rows=tuple(counts.overall.where.get(f"only {rare}", ())),
    )


def _one_name(counts: Counts) -> Iterator[Finding]:
    per_row = counts.overall.per_row(counts.clustered)
    for name, rows in counts.names(counts.overall, 1):
        part = share(rows, counts.overall.rows, per_row)
        if part.low is not None and part.low > 0.2 and part.of * per_row >= MIN_N:
            yield Finding(
                "one name",
                f"{name} stands in {rows:,} of {part.of:,} rows ({part.share:.0%}).",
                "Right where it is the subject. Otherwise vary it, or the model will expect it.",
                round(part.of * per_row),
                part.low,
                part.high,
                value=name,
            )


def _units(tally: Tally, counts: Counts) -> int:
    return len(tally.units) if counts.clustered and tally.units else tally.rows


def _median(tallies: Sequence[Tally]) -> int:
    total = tallies[0].words.copy()
    for tally in tallies[1:]:
        total.update(tally.words)
    return quantile(total, 0.5)


def _z(comparisons: int) -> float:
    """The normal quantile that holds 95% over that many comparisons (Bonferroni)."""
    return NormalDist().inv_cdf(1 - 0.05 / (2 * max(1, comparisons)))


def _listed(items: Sequence[str], most: int = 6) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
