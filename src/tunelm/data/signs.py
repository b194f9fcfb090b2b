"""Signs that are not seen, and change what is: control characters, and turns of direction."""

from __future__ import annotations

import unicodedata

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Signs that turn the direction of writing: words could stand where they were not written."""


def is_hidden(char: str) -> bool:
    r"""Whether a character is such a sign; line feeds and tabs are none.

    >>> is_hidden("\x1b"), is_hidden("\u202e"), is_hidden("\n"), is_hidden("a")
    (True, True, False, False)
    """
    return char in _BIDI or (unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t")
