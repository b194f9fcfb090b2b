"""What an answer cites of the passages it was shown, and whether they hold what it says.

A mark is a passage's number in brackets: [1], or [1, 3]. Marks are part of an answer and stay in
its text, for whoever reads it: what is scored is what is served. `figures` also gives the score
without them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunelm.retrieval.chunks import Passage
from tunelm.retrieval.lexical import words
from tunelm.retrieval.quality import mean
from tunelm.scoring.metrics import corpus_value, get_metric
from tunelm.types import Example, Prediction

CITE = (
    "End each sentence with the number of the passage that it rests on, in brackets, such as [1]."
)
_MARK = re.compile(r"\s*\[(\d+(?:\s*[,;]\s*\d+)*)\]")
_ENGLISH = """
a about after all also am an and any are as at be because been before being both but by can
could did do does for from had has have he her his how i if in into is it its may more most
must no not of on one only or other our she should so some such than that the their them then
there these they this those to under up use used was we were what when where which while who
whom whose why will with would you your
"""
_FUNCTION_WORDS = frozenset(_ENGLISH.split())
"""Words of English that say nothing of a subject. In other languages every word counts."""


@dataclass(frozen=True, slots=True)
class Citations:
    """What an answer cites.

    Attributes:
        numbers: of the passages cited, each once, in order.
        valid: there are some, and all were shown.
        support: share of the answer's content words that stand in the passages cited; None
            where nothing shown is cited, or the answer has no content words.
    """

    numbers: tuple[int, ...]
    valid: bool
    support: float | None


def citations(answer: str, shown: Sequence[Passage]) -> Citations:
    """The passages that an answer cites, and how far they hold what it says.

    >>> shown = [Passage("a", "The heart pumps blood.", "book:1")]
    >>> citations("It pumps blood [1].", shown)
    Citations(numbers=(1,), valid=True, support=1.0)
    >>> citations("It pumps blood [2].", shown).valid
    False
    """
    found = [int(n) for mark in _MARK.findall(answer) for n in re.split(r"\D+", mark)]
    numbers = tuple(dict.fromkeys(found))
    there = [n for n in numbers if 1 <= n <= len(shown)]
    said = content_words(without_citations(answer))
    support = None
    if there and said:
        held = {word for n in there for word in content_words(shown[n - 1].searched)}
        support = len(said & held) / len(said)
    return Citations(numbers, bool(numbers) and len(there) == len(numbers), support)


def cited(answer: str, number: int) -> str:
    """An answer with a mark before its last full stop.

    >>> cited("It is the heart.", 2)
    'It is the heart [2].'
    """
    text = answer.rstrip()
    end = len(text.rstrip(".!?。"))
    return f"{text[:end]} [{number}]{text[end:]}"


def without_citations(answer: str) -> str:
    """An answer without its marks.

    >>> without_citations("It is the heart [1, 2].")
    'It is the heart.'
    """
    return _MARK.sub("", answer)


def content_words(text: str) -> frozenset[str]:
    """The words of a text that say something of its subject."""
    return frozenset(words(text)) - _FUNCTION_WORDS


def citation_figures(
    rows: Sequence[Example],
    predictions: Sequence[Prediction],
    shown: Sequence[Sequence[Passage]],
    min_support: float,
    metric: str,
) -> dict[str, Any]:
    """How answers cite, for JSON, with 95% intervals by group.

    Args:
        rows: the questions.
        predictions: the answers, in the same order; failed ones are counted and left out.
        shown: the passages that each was shown.
        min_support: what `Citations.support` must reach.
        metric: the task's, given of the answers as they are and without their marks.

    Returns:
        `cited` of all answers: share with a mark. `valid` and `supported` of those with one:
        share that cites only what was shown, and of which it also holds enough.
    """
    answered = [i for i, p in enumerate(predictions) if p.output is not None]
    found = {i: citations(predictions[i].output or "", shown[i]) for i in answered}
    marked = [i for i in answered if found[i].numbers]

    def share(places: Sequence[int], holds: Sequence[bool]) -> dict[str, Any]:
        groups = [rows[i].group for i in places]
        return dataclasses.asdict(mean([float(h) for h in holds], groups))

    def supported(its: Citations) -> bool:
        return its.valid and its.support is not None and its.support >= min_support

    bare = [
        p if p.output is None else dataclasses.replace(p, output=without_citations(p.output))
        for p in predictions
    ]
    judge = get_metric(metric)
    return {
        "answers": len(answered),
        "failed": len(predictions) - len(answered),
        "min_support": min_support,
        "cited": share(answered, [bool(found[i].numbers) for i in answered]),
        "valid": share(marked, [found[i].valid for i in marked]),
        "supported": share(marked, [supported(found[i]) for i in marked]),
        metric: corpus_value(judge, rows, predictions),
        f"{metric} without marks": corpus_value(judge, rows, bare),
    }
