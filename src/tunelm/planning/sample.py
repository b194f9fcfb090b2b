"""What a plan rests on: the user's rows, counted, measured and split as a comparison does it."""

from __future__ import annotations

import json
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunelm.config import Config
from tunelm.data.findings import Finding
from tunelm.data.given import find_given
from tunelm.data.personal import find_personal, redact
from tunelm.data.prepare import Reader, prepare
from tunelm.data.profile import Profiler
from tunelm.data.read import scan
from tunelm.data.records import Fault, Record, turn_text
from tunelm.data.shares import quantile
from tunelm.data.split import PARTS, Split
from tunelm.errors import DataError
from tunelm.types import Example

Measure = Callable[[Example], tuple[int, int]]
"""Tokens of (prompt, answer) by the base model's own tokenizer."""

SHOWN = 240
"""Characters of a text of the row that is shown."""
FEW_VALUES, ROWS_A_LABEL, LABEL_SIGNS = 50, 3, 80
"""Answers of at most so many values, so many rows each, and so long, are labels."""
LOOKED_AT = 2_000
"""Rows from which the kind of task is told."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Lengths in tokens: the middle one, the 99th percentile, the longest, and the mean."""

    median: int
    p99: int
    most: int
    mean: float


@dataclass(frozen=True, slots=True)
class Sample:
    """The user's rows.

    Attributes:
        path: the file or folder.
        status: input rows by what became of them: kept, duplicate, ...
        rows: of each part of the split.
        groups: of each part; rows of one group are related and stand on one side.
        moved: pairs of alike rows that the split would have parted, moved to one side.
        prompt: tokens before the answer, instructions included.
        answer: tokens of the gold answer.
        whole: tokens of both.
        labels: of a classification, with their train rows, the most frequent first.
        personal: kinds of personal data or secrets, with the rows they stand in.
        findings: what stands out in the rows as a whole.
        english: the share of rows that look English; None: unknown.
        example: a train row, cut and with personal data masked.
        limit: most tokens that a row may have with this base.
        tokenizer: of which model they were counted.
    """

    path: str
    status: Mapping[str, int]
    rows: Mapping[str, int]
    groups: Mapping[str, int]
    moved: int
    prompt: Spread
    answer: Spread
    whole: Spread
    labels: tuple[tuple[str, int], ...]
    personal: Mapping[str, int]
    findings: tuple[Finding, ...]
    english: float | None
    example: Mapping[str, str]
    limit: int
    tokenizer: str


def kind_of(path: Path) -> str:
    """The kind of task that a file of rows is of, told from its first rows.

    A task of dialogues is one whose rows name the problem that they are about.

    Raises DataError where the file cannot be read, or none of its rows can.
    """
    answers: Counter[str] = Counter()
    problems = texts = asked = rows = 0
    faults: list[str] = []
    for item in scan(path):
        if isinstance(item, Fault):
            faults += [str(item)] if item.level == "error" else []
            continue
        rows += 1
        texts += item.text is not None
        said = [turn_text(turn) for turn in item.messages]
        problems += len(said) > 2 and "problem" in item.extra
        answers.update(text.strip() for text in said[-1:])
        asked += any("?" in text for text in said[:-1])
        if rows >= LOOKED_AT:
            break
    if not rows:
        raise DataError(faults or f"{path}: holds no rows.")
    if texts == rows:
        return "text"
    if problems > rows / 2:
        return "dialogue"
    few = len(answers) <= min(FEW_VALUES, rows // ROWS_A_LABEL)
    if few and len(answers) > 1 and max(map(len, answers)) <= LABEL_SIGNS:
        return "classification"
    return "qa" if asked > rows / 2 else "generation"


def take_sample(
    config: Config, reader: Reader, measure: Measure, limit: int, tokenizer: str
) -> tuple[Sample, Split]:
    """Read, dedupe and split the rows as a comparison will, and count what a plan needs.

    Nothing is written, and the test rows are counted, not looked at one by one.

    Args:
        config: the task; with `data.path` a file or a folder.
        reader: what makes rows of a file of this kind.
        measure: tokens of a row.
        limit: most tokens of a row; 0: no limit.
        tokenizer: the model whose tokens they are.

    Raises:
        DataError: rows that cannot be read, are too long, or too few to split.
    """

    def length(example: Example) -> int:
        return sum(measure(example)) if limit else 0

    with tempfile.TemporaryDirectory() as folder:
        split = prepare(config.data, Path(folder), length, limit, look=False, reader=reader)
        ledger = (Path(folder) / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    status = Counter(str(json.loads(line)["status"]) for line in ledger)
    lengths = [measure(e) for part in PARTS for e in split.part(part)]
    profiler, personal = Profiler(), Counter[str]()
    for record in _records(config):
        profiler.add(record)
        personal.update({finding.kind for finding in find_personal(record.plain())})
    profile = profiler.finish()
    sample = Sample(
        path=str(config.data.path),
        status=status,
        rows={part: len(split.part(part)) for part in PARTS},
        groups={part: len({e.group for e in split.part(part)}) for part in PARTS},
        moved=len(split.leaks),
        prompt=_spread(p for p, _ in lengths),
        answer=_spread(a for _, a in lengths),
        whole=_spread(p + a for p, a in lengths),
        labels=_labels(config, split),
        personal=dict(personal.most_common()),
        findings=profile.findings,
        english=profile.english.share,
        example=_example(split.train[0]),
        limit=limit,
        tokenizer=tokenizer,
    )
    return sample, split


def smallest_difference(n: int) -> float | None:
    """The smallest difference of two shares near one half that n test groups show 4 times in 5.

    (t(.975) + t(.8)) x sqrt(2 x 0.5 x 0.5 / n): as `tunelm.scoring.statistics.mde`, for two
    independent answers to each question. Routes answer the same questions, and mostly agree, so
    what a report can show is smaller. None below two groups.

    >>> round(smallest_difference(300), 3)
    0.115
    """
    from scipy.special import stdtrit

    from tunelm.scoring.statistics import ALPHA, POWER

    if n < 2:
        return None
    factor = float(stdtrit(n - 1, 1 - ALPHA / 2) + stdtrit(n - 1, POWER))
    return factor * math.sqrt(0.5 / n)


def groups_for(difference: float) -> int:
    """Test groups by which such a difference shows 4 times in 5 (as `smallest_difference`)."""
    from scipy.special import ndtri

    from tunelm.scoring.statistics import ALPHA, POWER

    factor = float(ndtri(1 - ALPHA / 2) + ndtri(POWER))
    return math.ceil(0.5 * (factor / difference) ** 2)


def _records(config: Config) -> Iterator[Record]:
    """Rows as they stand in the file, or in the files of a split that was made before."""
    given = find_given(config.data.path)
    paths = list(given.files.values()) if given else [config.data.path]
    form = config.data.format or (given.format if given else None)
    for path in paths:
        for item in scan(path, form, config.data.columns):
            if isinstance(item, Record):
                yield item


def _spread(values: Iterable[int]) -> Spread:
    counts = Counter(values)
    n = counts.total() or 1
    mean = sum(value * rows for value, rows in counts.items()) / n
    return Spread(quantile(counts, 0.5), quantile(counts, 0.99), max(counts, default=0), mean)


def _labels(config: Config, split: Split) -> tuple[tuple[str, int], ...]:
    if config.task.kind != "classification":
        return ()
    return tuple(Counter(example.answers[0] for example in split.train).most_common())


def _example(example: Example) -> dict[str, str]:
    """A row in the form that every reader takes."""

    def shown(text: str) -> str:
        text = redact(text)
        return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."

    if not example.messages:
        return {"text": shown(example.answers[0])}
    if len(example.messages) > 1:
        turns: list[Any] = [{"role": m.role, "content": shown(m.content)} for m in example.messages]
        turns.append({"role": "assistant", "content": shown(example.answers[0])})
        return {"messages": turns}  # pyright: ignore[reportReturnType]
    found = {"question": shown(example.question), "answer": shown(example.answers[0])}
    if example.context:
        found["context"] = shown(example.context)
    return found
