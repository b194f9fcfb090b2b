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

_START, _END, _PAIR = np.uint32(0x5BD1E995), np.uint32(0x27D4EB2F), np.uint32(0x9E3779B1)

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
    ends[0], ends[1:-1], ends[-1] = _START, single, _END
    found = np.empty(2 * single.size + 1, np.uint32)
    found[: single.size] = single
    np.multiply(ends[:-1], _PAIR, out=found[single.size :])
    found[single.size :] += ends[1:]
    found = _mixed(found)
    found.sort()
    distinct = np.empty(found.size, bool)
    distinct[0] = True
    np.not_equal(found[1:], found[:-1], out=distinct[1:])
    return found[distinct][:LIMIT]


def shingles_of(words: Hashes, sizes: NDArray[np.int64]) -> tuple[Hashes, NDArray[np.int64]]:
    """The `shingles` of many texts at once.

    Args:
        words: the `word_hashes` of all texts, one after the other.
        sizes: how many of them are each text's.

    Returns:
        The shingles of all texts, one after the other, and how many are each text's.
    """
    count = sizes.size
    filled = np.flatnonzero(sizes)
    of_word = np.repeat(np.arange(filled.size), sizes[filled])
    ends = np.empty(words.size + 2 * filled.size, np.uint32)
    last = np.cumsum(sizes[filled] + 2) - 1
    ends[last] = _END
    ends[last - sizes[filled] - 1] = _START
    ends[np.arange(words.size) + 2 * of_word + 1] = words
    pairs = ends[:-1] * _PAIR + ends[1:]
    inner = np.ones(pairs.size, bool)
    inner[last[:-1]] = False  # from one text's end to the next one's start
    of_pair = np.repeat(np.arange(filled.size), sizes[filled] + 1)
    found = _mixed(np.concatenate((words, pairs[inner])))
    keys = np.concatenate((of_word, of_pair)).astype(np.uint64) << np.uint64(32) | found
    keys.sort()
    distinct = np.ones(keys.size, bool)
    np.not_equal(keys[1:], keys[:-1], out=distinct[1:])
    keys = keys[distinct]
    found, of = keys.astype(np.uint32), (keys >> np.uint64(32)).astype(np.int64)
    own = np.bincount(of, minlength=filled.size)
    if own.size and own.max() > LIMIT:
        rank = np.arange(of.size) - np.repeat(np.cumsum(own) - own, own)
        found = found[rank < LIMIT]
        own = np.minimum(own, LIMIT)
    all_sizes = np.zeros(count, np.int64)
    all_sizes[filled] = own
    return found, all_sizes


def jaccard(a: Hashes, b: Hashes) -> float:
    """Jaccard similarity of two sets: shared of all."""
    if not a.size or not b.size:
        return 0.0
    both = np.concatenate((a, b))
    both.sort()
    shared = int(np.count_nonzero(both[1:] == both[:-1]))
    return shared / (both.size - shared)


def _mixed(values: Hashes) -> Hashes:
    """The finalizer of MurmurHash3, 32 bits: every bit of the input moves every bit out."""
    values = (values ^ (values >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    values = (values ^ (values >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return values ^ (values >> np.uint32(16))
