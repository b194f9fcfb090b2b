"""What is compared of two texts: hashes of their words and of their pairs of neighbours."""

from __future__ import annotations

import re
import unicodedata
import zlib

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint32]

LIMIT = 512
"""Most shingles kept of one text."""

# Scripts written without spaces between words: each character is a word.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
)
_SIGNS = r"[+*/=<>^%]|-(?=\s?\d)"
_WORD = re.compile(rf"\w+|{_SIGNS}")
_WORD_ANY = re.compile(rf"[{_UNSPACED}]|(?:(?![{_UNSPACED}])\w)+|{_SIGNS}")


class _Known(dict[str, int]):
    """CRC-32 of words, remembered: a text repeats few, and they are looked up in C."""

    def __missing__(self, word: str) -> int:
        self[word] = value = zlib.crc32(word.encode("utf-8", "replace"))
        return value


_KNOWN = _Known()
_MOST_KNOWN = 1 << 17


def words(text: str) -> list[str]:
    """The words of a text, case folded; signs that change what a formula says count as words.

    >>> words("Is 3 - 5 less, or MORE?")
    ['is', '3', '-', '5', 'less', 'or', 'more']
    """
    folded = text.casefold()
    if folded.isascii():
        return _WORD.findall(folded)
    return _WORD_ANY.findall(unicodedata.normalize("NFKC", folded))


def word_hashes(text: str) -> Hashes:
    """A 32-bit hash for each word, in order; the same on every machine."""
    if len(_KNOWN) > _MOST_KNOWN:
        _KNOWN.clear()
    return np.array([_KNOWN[word] for word in words(text)], np.uint32)


def shingles(text: str | Hashes) -> Hashes:
    """Hashes of the words and the pairs of neighbours, sorted, at most `LIMIT`.

    A text may be given as its `word_hashes`.
    """
    single = word_hashes(text) if isinstance(text, str) else text
    if not single.size:
        return single
    ends = np.empty(single.size + 2, np.uint32)
    ends[0], ends[1:-1], ends[-1] = 0x5BD1E995, single, 0x27D4EB2F
    found = np.empty(2 * single.size + 1, np.uint32)
    found[: single.size] = single
    np.multiply(ends[:-1], np.uint32(0x9E3779B1), out=found[single.size :])
    found[single.size :] += ends[1:]
    found = _mixed(found)
    found.sort()
    distinct = np.empty(found.size, bool)
    distinct[0] = True
    np.not_equal(found[1:], found[:-1], out=distinct[1:])
    return found[distinct][:LIMIT]


def jaccard(a: Hashes, b: Hashes) -> float:
    """Jaccard similarity of two sets: shared of all."""
    if not a.size or not b.size:
        return 0.0
    both = np.concatenate((a, b))
    both.sort()
    shared = int(np.count_nonzero(both[1:] == both[:-1]))
    return shared / (both.size - shared)


def comparable(a: Hashes, b: Hashes) -> tuple[Hashes, Hashes]:
    """Both cut at the smallest hash up to which both are complete."""
    ends = [int(x[-1]) for x in (a, b) if x.size >= LIMIT]
    if not ends:
        return a, b
    end = min(ends)
    return a[: np.searchsorted(a, end, "right")], b[: np.searchsorted(b, end, "right")]


def _mixed(values: Hashes) -> Hashes:
    """The finalizer of MurmurHash3, 32 bits: every bit of the input moves every bit out."""
    values = (values ^ (values >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    values = (values ^ (values >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return values ^ (values >> np.uint32(16))
