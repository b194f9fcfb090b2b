"""What a file of rows looks like as a whole: lengths, balance, and what may tilt a model.

Made in one pass over the rows; `findings.py` says what stands out and what to do. No model is
needed: the length of a row in tokens comes in through a function.
"""

from __future__ import annotations

import random
import statistics
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from tunelm.data import wording
from tunelm.data.findings import Finding, Lengths, findings_of, limits_of
from tunelm.data.records import Fault, Record
from tunelm.data.shares import Share, histogram, quantile, share
from tunelm.data.tally import ANSWER, Counts, Facts, Tally, categories, facts_of

MOST_VALUES = 50
"""A field with more different values than this is no category."""
ROWS_A_VALUE = 3
"""Nor is one that has fewer rows a value than this, in the mean."""
LONGEST_VALUE = 80
"""Nor is one with a value of more characters than this."""
MEASURED = 10_000
"""Rows whose length is measured; of a larger file a random sample of so many."""
SHOWN_NAMES = 12


class Measured(NamedTuple):
    """One row's length, or why training refuses it; `over` where it is too long."""

    length: int | None
    refused: str | None = None
    over: bool = False


Measure = Callable[[Record], Measured]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Value:
    """The rows that have one value of a field.

    `groups` counts the groups they are in, None where rows do not come in groups. `pronouns`
    holds rows by place (question, answer) and family; `names` pairs of a name and its rows.
    """

    value: str
    rows: int
    groups: int | None
    share: Share
    answer_words: int
    positive: Share
    negative: Share
    pronouns: Mapping[str, Mapping[str, int]]
    names: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Field:
    """A field that sorts the rows into a few kinds, the most frequent value first."""

    name: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Groups:
    """How many groups of related rows there are, and how large."""

    groups: int
    median_rows: float
    most_rows: int
    largest: str


@dataclass(frozen=True, slots=True)
class Profile:
    """The profile of a file; `to_json` gives it as plain data.

    `unreadable` counts rows in which a fault was found at reading, and `faults` are the first
    of them; `of_file` has those of a file as a whole. `left_out` says of each field that is no
    category why not. `comparisons` is how many were made between values to find what stands out.
    """

    rows: int
    unreadable: int
    faults: tuple[str, ...]
    of_file: tuple[str, ...]
    lengths: Lengths
    fields: tuple[Field, ...]
    left_out: Mapping[str, str]
    groups: Groups | None
    overall: Value
    english: Share
    findings: tuple[Finding, ...]
    comparisons: int
    limits: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """A plain dict, for JSON."""
        return asdict(self)


class Profiler:
    """Counts rows as they pass; memory grows with categories, groups and words, not with text.

    Args of the constructor: `measure` gives a row's length in tokens (None: words are counted),
    `limit` is the most tokens a row may have.
    """

    def __init__(self, measure: Measure | None = None, limit: int | None = None) -> None:
        self._measure = measure or _words
        self._unit = "words" if measure is None else "tokens"
        self._limit = limit
        self._overall = Tally()
        self._fields: dict[str, dict[str, Tally]] = {}
        self._left_out: dict[str, str] = {}
        self._groups: Counter[str] = Counter()
        self._inside: Counter[str] = Counter()
        self._faults: list[str] = []
        self._of_file: list[str] = []
        self._unreadable: set[tuple[str, int]] = set()
        self._sample: list[Record] = []
        self._random = random.Random(0)

    def fault(self, fault: Fault) -> None:
        """Count a row that could not be read. Warnings about rows are for `data check`."""
        if not fault.line:
            self._of_file.append(str(fault))
        elif fault.level == "error":
            self._unreadable.add((fault.file, fault.line))
            if len(self._faults) < 5:
                self._faults.append(str(fault))

    def add(self, record: Record) -> None:
        """Count one row."""
        facts = facts_of(record)
        group = record.extra.get("group")
        unit = None if group is None else hash(str(group))
        if group is not None:
            self._groups[str(group)] += 1
        self._overall.add(facts, unit)
        self._inside.update(facts.inside)
        for name, value in categories(record):
            if name not in self._left_out:
                self._count(name, value, facts, unit)
        # algorithm R: every row has the same chance to be in the sample
        if len(self._sample) < MEASURED:
            self._sample.append(record)
        elif (place := self._random.randrange(self._overall.rows)) < MEASURED:
            self._sample[place] = record

    def finish(self, progress: Progress | None = None) -> Profile:
        """The profile of all rows so far. Lengths are measured here, which takes longest."""
        self._drop_no_categories()
        clustered = bool(self._groups)
        kinds = {name: values for name, values in self._fields.items() if name != "group"}
        counts = Counts(self._overall, kinds, self._groups, clustered, self._inside)
        lengths = self._lengths(progress)
        findings, comparisons = findings_of(counts, lengths)
        english = share(self._overall.marks["english"], self._overall.rows)
        return Profile(
            rows=self._overall.rows,
            unreadable=len(self._unreadable),
            faults=tuple(self._faults),
            of_file=tuple(self._of_file[:20]),
            lengths=lengths,
            fields=tuple(_field(name, values, counts) for name, values in self._fields.items()),
            left_out={k: v for k, v in self._left_out.items() if k not in ("group", ANSWER)},
            groups=_sizes(self._groups),
            overall=_value("", self._overall, self._overall.rows, counts, SHOWN_NAMES),
            english=english,
            findings=findings,
            comparisons=comparisons,
            limits=limits_of(english, lengths, clustered),
        )

    def _count(self, name: str, value: str, facts: Facts, unit: int | None) -> None:
        values = self._fields.setdefault(name, {})
        values.setdefault(value, Tally()).add(facts, unit)
        if len(value) > LONGEST_VALUE:
            self._leave_out(name, f"has values of more than {LONGEST_VALUE} characters")
        elif len(values) > MOST_VALUES:
            self._leave_out(name, f"has more than {MOST_VALUES} different values")

    def _drop_no_categories(self) -> None:
        for name, values in list(self._fields.items()):
            rows = sum(tally.rows for tally in values.values())
            if len(values) < 2:
                self._leave_out(name, f"has one value only: {next(iter(values))}")
            elif rows < ROWS_A_VALUE * len(values):
                self._leave_out(name, f"has {len(values)} different values in {rows} rows")

    def _leave_out(self, name: str, reason: str) -> None:
        self._left_out[name] = reason
        del self._fields[name]

    def _lengths(self, progress: Progress | None) -> Lengths:
        found: Counter[int] = Counter()
        refused: list[str] = []
        over = 0
        for number, record in enumerate(self._sample, 1):
            one = self._measure(record)
            if one.length is not None:
                found[one.length] += 1
                over += one.over
            if one.refused is not None and not one.over:
                refused.append(f"{record.source}: {one.refused}")
            if progress and number % 50 == 0:
                progress("measuring rows", number, len(self._sample))
        measured = found.total()
        return Lengths(
            unit=self._unit,
            of=len(self._sample),
            sampled=self._overall.rows > len(self._sample),
            median=quantile(found, 0.5) if measured else None,
            p95=quantile(found, 0.95) if measured else None,
            most=max(found, default=None),
            limit=self._limit,
            over=None if self._limit is None else share(over, len(self._sample)),
            histogram=histogram(found),
            refused=len(refused),
            refusals=tuple(refused[:5]),
        )


def _words(record: Record) -> Measured:
    return Measured(len(record.plain().split()))


def _sizes(groups: Counter[str]) -> Groups | None:
    if not groups:
        return None
    name, most = groups.most_common(1)[0]
    return Groups(len(groups), statistics.median(groups.values()), most, name)


def _field(name: str, values: Mapping[str, Tally], counts: Counts) -> Field:
    total = sum(tally.rows for tally in values.values())
    ordered = sorted(values.items(), key=lambda item: (-item[1].rows, item[0]))
    return Field(name, tuple(_value(v, tally, total, counts, 3) for v, tally in ordered))


def _value(value: str, tally: Tally, total: int, counts: Counts, names: int) -> Value:
    per_row = tally.per_row(counts.clustered)
    return Value(
        value=value,
        rows=tally.rows,
        groups=len(tally.units) if counts.clustered else None,
        share=share(tally.rows, total, counts.overall.per_row(counts.clustered)),
        answer_words=quantile(tally.words, 0.5),
        positive=share(tally.marks["positive"], tally.rows, per_row),
        negative=share(tally.marks["negative"], tally.rows, per_row),
        pronouns={
            place: {name: tally.marks[f"{place} {name}"] for name in wording.PRONOUNS}
            for place in ("question", "answer")
        },
        names=counts.names(tally, names),
    )
