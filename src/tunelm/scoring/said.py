"""Whether an answer is said in a text: word by word, and neither denied nor one of several.

It reads words, not meaning. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_TOKEN = re.compile(
    r"(?<![\w.])-?\d+(?:[.,/:]\d+)*(?![^\W_])|[^\W_]+(?:['’][^\W_]+)*", re.IGNORECASE
)
_ARTICLES = frozenset(("a", "an", "the"))
_DENIALS = frozenset(("not", "isn't", "never", "wasn't", "aren't", "doesn't", "neither", "nor"))


def tokens(text: str) -> list[str]:
    """Words in one case without articles; numbers in one form.

    >>> tokens("It's the 1,000.50 $")
    ["it's", '1000.5']
    """
    found = (match.group().casefold().replace("’", "'") for match in _TOKEN.finditer(text))
    return [_number(token) for token in found if token not in _ARTICLES]


def states(text: str, answers: Sequence[str]) -> bool:
    """Whether one of the answers is said and not denied in the text.

    >>> states("Then it is 10.", ["10"]), states("It is 100.", ["10"])
    (True, False)
    >>> states("So it is not the newton.", ["newton"])
    False
    """
    return bool(_places(tokens(text), answers))


def settles_on(text: str, answers: Sequence[str], others: Sequence[str]) -> bool:
    """Whether a text gives one of the answers as its answer.

    Where one of the others is said as well, the later one counts, and none does where both are
    offered with "or".
    """
    said = tokens(text)
    right = _places(said, answers)
    if not right:
        return False
    # One of the others inside an answer ("carbon" in "carbon dioxide") is no answer of its own.
    covered = {i for start, end in right for i in range(start, end)}
    wrong = [p for p in _places(said, others) if p[0] not in covered]
    if not wrong:
        return True
    first, last = sorted((right[-1], wrong[-1]))
    return "or" not in said[first[1] : last[0]] and last == right[-1]


def gives_away(text: str, answers: Sequence[str], before: Sequence[str]) -> bool:
    """Whether a text says an answer that none of the texts before it has said."""
    return states(text, answers) and not any(states(earlier, answers) for earlier in before)


def _places(said: Sequence[str], answers: Sequence[str]) -> list[tuple[int, int]]:
    """Where an answer stands undenied, as (start, end) in tokens, in order."""
    found: list[tuple[int, int]] = []
    for answer in answers:
        wanted = tokens(answer)
        for start in range(len(said) - len(wanted) + 1) if wanted else ():
            end = start + len(wanted)
            if said[start:end] == wanted and not _denied(said[max(0, start - 2) : start]):
                found.append((start, end))
    return sorted(found)


def _denied(before: Sequence[str]) -> bool:
    """Whether the two words before turn it around: "not", "rather than", "instead of"."""
    if not before:
        return False
    pair = tuple(before[-2:])
    return bool(_DENIALS & set(before)) or pair in {("instead", "of"), ("rather", "than")}


def _number(token: str) -> str:
    if not token.lstrip("-")[0].isdigit() or not re.fullmatch(r"-?[\d.,]+", token):
        return token
    plain = re.sub(r",(?=\d{3}(?:\D|$))", "", token)
    return plain.rstrip("0").rstrip(".") if "." in plain else plain
