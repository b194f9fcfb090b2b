"""What a docstring says in words that the code does not hold: what only understanding can add."""

from __future__ import annotations

import re

from tunelm.scoring.docstring_parse import Function

_WORD = re.compile(r"[a-z]{4,}", re.IGNORECASE)
_EXAMPLES = re.compile(r"^Examples?:\s*\n(?:[ \t]+.*(?:\n|\Z)|\n)*", re.M)
_PARTS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
COMMON = (
    "about above after args arguments below both case compute does each either else error example "
    "from given have into least less means more most none number only other others over raise "
    "raises result return returned returns same some such take tell text than that their them then "
    "there these they this those true false type used value very what when where whether which "
    "while whose with without yield yields"
)
"""Words of four letters or more that say little about one function."""


def own_words(docstring: str, function: Function) -> frozenset[str]:
    """The content words of its prose that do not stand in the code, names split and without s.

    A content word has four letters or more and is none of COMMON. Examples are no prose.
    """
    code = {_plain(part) for part in _PARTS.findall(function.source)}
    said = {_plain(word) for word in _WORD.findall(_EXAMPLES.sub("", docstring))}
    return frozenset(said - code - set(map(_plain, COMMON.split())))


def purpose_told(docstring: str, gold: str, function: Function) -> float | None:
    """The share of the gold docstring's own words that a docstring says; None where it has none."""
    wanted = own_words(gold, function)
    return len(wanted & own_words(docstring, function)) / len(wanted) if wanted else None


def _plain(word: str) -> str:
    return word.lower().removesuffix("s")
