"""The text forms in which answers are compared. Standard library only."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """The SQuAD form: lower case, no ASCII punctuation, no articles, single spaces.

    As in the official SQuAD v1.1 and v2.0 scripts (Rajpurkar et al. 2016, 2018). Deleting
    the punctuation makes one token of `3.5` and of `35`; the scripts do the same.

    >>> normalise("The  Sun's core.")
    'suns core'
    """
    return " ".join(_ARTICLES.sub(" ", _without_punctuation(text)).split())


def token_f1(output: str, reference: str) -> float:
    """F1 of two multisets of normalised tokens; two empty texts are equal (SQuAD v2.0).

    >>> round(token_f1("a cat, a cat", "cat"), 3)
    0.667
    """
    got, wanted = normalise(output).split(), normalise(reference).split()
    if not got or not wanted:
        return float(got == wanted)
    common = sum((Counter(got) & Counter(wanted)).values())
    return 2 * common / (len(got) + len(wanted))


def contains(output: str, key: str) -> bool:
    """Whether the key's tokens stand in the output, in order and unbroken.

    Both are normalised. A key that normalising would delete whole is compared in the first
    form that leaves something of it: with its article, then with its punctuation.

    >>> contains("It is photosynthesis.", "photosynthesis"), contains("vitamin A", "A")
    (True, True)
    >>> contains("a heartbeat", "heart")
    False
    """
    for form in (normalise, _without_punctuation, str.lower):
        if wanted := form(key).split():
            return _has_run(form(output).split(), wanted)
    return False


def _without_punctuation(text: str) -> str:
    return text.lower().translate(_PUNCTUATION)


def _has_run(tokens: Sequence[str], run: Sequence[str]) -> bool:
    last = len(tokens) - len(run)
    return any(tokens[i : i + len(run)] == run for i in range(last + 1))
