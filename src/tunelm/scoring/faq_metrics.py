"""The metrics of answers from an FAQ, and of declining.

A row says in its metadata which entry answers it: `faq` is the entry's id, or null where the FAQ
does not answer. What is right is decided by the entry that is cited and by a key answer, not by
how an answer is worded. Selective risk and coverage after El-Yaniv and Wiener (2010, JMLR 11);
precision and recall of declining as in AbstentionBench (arXiv 2506.09038).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tunelm.errors import DataError
from tunelm.scoring import text
from tunelm.scoring.metric import Metric, ratio, row_metric
from tunelm.types import Example

DECLINES = (
    "I do not know",
    "I don't know",
    "I cannot answer",
    "I can't answer",
    "the FAQ does not say",
    "the FAQ doesn't say",
    "not in the FAQ",
    "not answered in the FAQ",
    "not answered by the FAQ",
)
"""An output declines where one of these stands in it, whatever the case and punctuation."""

_MARK = re.compile(r"\[([A-Za-z][\w.-]*)\]")
"""An entry's id in brackets. It begins with a letter, so that a passage's [1] is none."""


class Verdict(StrEnum):
    """The four cells of the table of answering and declining."""

    ANSWERED_RIGHT = "answered_right"
    ANSWERED_WRONG = "answered_wrong"
    DECLINED_RIGHT = "declined_right"
    DECLINED_WRONG = "declined_wrong"


UTILITY: Mapping[str, float] = {
    Verdict.ANSWERED_RIGHT: 1.0,
    Verdict.DECLINED_RIGHT: 1.0,
    Verdict.DECLINED_WRONG: 0.5,
    Verdict.ANSWERED_WRONG: 0.0,
}
"""The costs +1, +1, 0 and -1, moved to lie between 0 and 1: (cost + 1) / 2."""


def answerable(example: Example) -> bool:
    """Whether an entry of the FAQ answers the row. Raises DataError where the row does not say."""
    if "faq" not in example.metadata:
        raise DataError(
            f"row {example.id} does not say which entry answers it: give it a field 'faq' with "
            "the entry's id, or null where the FAQ does not answer"
        )
    return example.metadata["faq"] not in (None, "")


def declines(output: str) -> bool:
    """Whether an output says that it does not answer.

    >>> declines("Sorry, I don’t know."), declines("I know: at nine. [faq-01]")
    (True, False)
    """
    plain = output.replace("\u2019", "'")
    return any(text.contains(plain, phrase) for phrase in DECLINES)


def cited(output: str) -> set[str]:
    """The ids of the entries that an output cites.

    >>> sorted(cited("From nine to seven [faq-04], see [1]."))
    ['faq-04']
    """
    return set(_MARK.findall(output))


@dataclass(frozen=True, slots=True)
class Found:
    """What became of a row: its verdict, and what the rates are made of.

    `cites` is whether the row's entry was cited, and no other: citing them all is no citation.
    """

    verdict: Verdict
    answerable: bool
    cites: bool

    @property
    def answered(self) -> bool:
        """Whether it was answered, rightly or wrongly."""
        return self.verdict in (Verdict.ANSWERED_RIGHT, Verdict.ANSWERED_WRONG)


def look(output: str, example: Example) -> Found:
    """What became of a row.

    An answer is right where it cites the row's entry, and no other, and one of the row's key
    answers stands in it. Whatever does not decline is an answer, an empty output too.

    Raises:
        DataError: the row does not say whether it can be answered, or by what words.
    """
    can = answerable(example)
    cites = can and cited(output) == {str(example.metadata["faq"])}
    if declines(output):
        return Found(Verdict.DECLINED_WRONG if can else Verdict.DECLINED_RIGHT, can, cites)
    if not can:
        return Found(Verdict.ANSWERED_WRONG, can, cites)
    keys = example.metadata.get("key_answers")
    if not keys:
        raise DataError(
            f"row {example.id} has the entry {example.metadata['faq']} and no key answer: give it "
            "a field 'key_answer' with the words that a right answer must have"
        )
    said = _MARK.sub(" ", output)
    right = cites and any(text.contains(said, key) for key in keys)
    return Found(Verdict.ANSWERED_RIGHT if right else Verdict.ANSWERED_WRONG, can, cites)


RATES: Mapping[str, Callable[[Found], tuple[bool, bool]]] = {
    **{
        name: (lambda found, name=name: (found.verdict == name, True)) for name in map(str, Verdict)
    },
    "coverage": lambda found: (found.answered, True),
    "selective_risk": lambda found: (found.verdict == Verdict.ANSWERED_WRONG, found.answered),
    "abstention_precision": lambda found: (
        found.verdict == Verdict.DECLINED_RIGHT,
        not found.answered,
    ),
    "abstention_recall": lambda found: (
        found.verdict == Verdict.DECLINED_RIGHT,
        not found.answerable,
    ),
    "citation_accuracy": lambda found: (found.cites, found.answered and found.answerable),
}
"""Of each rate: whether a row is counted, and whether it is one of those it is counted among."""


def counts(rate: str, output: str, example: Example) -> tuple[float, float]:
    """What a row adds to both counts of a rate."""
    counted, among = RATES[rate](look(output, example))
    return float(counted and among), float(among)


def share(vector: Sequence[float]) -> float | None:
    """The first count as a share of the second; None where nothing was counted."""
    return vector[0] / vector[1] if vector[1] else None


@dataclass(frozen=True)
class _Rate(Metric):
    """A count as a share of another. Both are sums over rows, and are resampled together.

    Only those among all rows have a value for each row.
    """

    less: bool = False

    def signature(self, examples: Sequence[Example] = ()) -> str:
        return f"{self.name}|{_SIGNATURE}"

    def row_value(self, output: str, example: Example) -> float | None:
        return counts(self.name, output, example)[0] if self.per_row else None

    def statistics(self, output: str, example: Example) -> tuple[float, ...]:
        return counts(self.name, output, example)

    @property
    def lower_is_better(self) -> bool:
        return self.less

    @property
    def aggregate(self) -> Callable[[Sequence[float]], Any]:
        """The share, of a rate among some rows None where there are none."""
        return ratio if self.per_row else share


_SIGNATURE = "entry:faq,no other|keys:key_answers,any|match:tokens|norm:squad|declines:phrases"


def _utility(output: str, example: Example) -> float:
    return UTILITY[look(output, example).verdict]


def _rate(name: str, what: str, less: bool = False, per_row: bool = True) -> Metric:
    return _Rate(name, f"{what}; less is better" if less else what, 1.0, per_row, 2, less)


OF_FAQ: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        row_metric(
            "faq_utility",
            f"faq_utility|answered_right:1,declined_right:1,declined_wrong:0.5,answered_wrong:0|"
            f"{_SIGNATURE}",
            _utility,
            "mean worth of a row: 1 for a right answer and for declining what the FAQ does not "
            "answer, 0.5 for declining what it does, 0 for a wrong answer",
        ),
        _rate("answered_right", "share of rows answered with their entry and a key answer of it"),
        _rate("answered_wrong", "share of rows answered otherwise", less=True),
        _rate("declined_right", "share of rows declined that the FAQ does not answer"),
        _rate("declined_wrong", "share of rows declined that the FAQ answers", less=True),
        _rate("coverage", "share of rows answered, rightly or wrongly"),
        _rate("selective_risk", "share of the answers that are wrong", True, False),
        _rate(
            "abstention_precision",
            "of the rows that were declined, the share that the FAQ does not answer",
            per_row=False,
        ),
        _rate(
            "abstention_recall",
            "of the rows that the FAQ does not answer, the share that was declined",
            per_row=False,
        ),
        _rate(
            "citation_accuracy",
            "of the rows that the FAQ answers and that were answered, the share that cites the "
            "right entry and no other",
            per_row=False,
        ),
    )
}
"""Those of answers from an FAQ, by name."""
