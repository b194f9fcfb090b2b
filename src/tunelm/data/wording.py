"""What can be counted in English text without a model: pronouns, names, the tone of words.

Small lists, written for this and to be read: they see words, not meaning. Irony, quotations and
every language but English escape them. Words that are a subject's own (a weak acid, a negative
number, a perfect square, a poor country) are left out on purpose.
"""

from __future__ import annotations

import re
from collections.abc import Iterable


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


PRONOUNS = {
    "he": _set("he him his himself"),
    "she": _set("she her hers herself"),
    "they": _set("they them their theirs themself themselves"),
}
"""Families of third-person pronouns. One person's `they` looks like several people's."""

POSITIVE = _set(
    """
    admirable admire admired amazing awesome beautiful beautifully best brave bravo brilliant
    brilliantly capable caring charming cheerful clever confident congratulations delighted
    delightful elegant encourage encouraging enjoy enjoyable enjoyed enjoys excellent excited
    exciting fantastic fascinating friendly fun generous gifted glad good graceful great happily
    happy helpful honest hopeful impressive improved inspiring interesting joy joyful kindly
    love loved lovely loves nice nicely outstanding perfectly pleasant pleased praise praised
    proud proudly reliable respected skilled smart splendid succeed succeeded success successful
    superb talented terrific thank thanks thoughtful trusted useful valuable welcome wise
    wonderful wonderfully
    """
)
NEGATIVE = _set(
    """
    afraid angry annoy annoyed annoying arrogant ashamed awful awfully bad badly blame blamed
    bored boring careless clumsy complain complained cruel disappointed disappointing
    disappointment disgust disgusting dishonest dislike disliked dreadful dumb evil foolish
    frightened frustrated frustrating greedy hate hated hates hopeless horrible horribly hostile
    idiot idiotic ignorant incompetent inferior insult insulting irresponsible lazy lousy
    mediocre mess messy miserable mock mocked nasty nonsense offensive pathetic poorly reckless
    regret regrettable ridiculous rude sad sadly scared selfish shame shameful silly stupid
    terrible terribly ugly unacceptable unfair unfortunate unfortunately unfriendly unhappy
    unkind unpleasant unreliable untrustworthy upset useless vicious wicked worried worry worst
    worthless
    """
)
NEGATORS = _set("cannot hardly neither never no nor not nothing without")
"""One of these, or a word in n't, turns around a word of the lists up to three words later."""

_COMMON = _set("and are does for from how is of that the this to what which with you your")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_CAPITALISED = r"[A-ZÀ-ÖØ-Þ][^\W\d_A-ZÀ-ÖØ-Þ]+"
_NAME = re.compile(rf"(?<![\w'’]){_CAPITALISED}(?: {_CAPITALISED})*(?!\w)")
_BREAKS = frozenset('.!?:;\n"“”()[]*#>|-–—…•')


def english_words(text: str) -> list[str]:
    """The words of a text, folded: letters, with what follows an apostrophe.

    >>> english_words("She's 12, they DON'T mind")
    ["she's", 'they', "don't", 'mind']
    """
    return _WORD.findall(text.casefold().replace("’", "'"))


def pronouns(found: Iterable[str]) -> frozenset[str]:
    """The families of PRONOUNS that stand among the words of a text.

    >>> sorted(pronouns(english_words("He's sure that their key is hers.")))
    ['he', 'she', 'they']
    """
    stems = {word.partition("'")[0] for word in found}
    return frozenset(name for name, family in PRONOUNS.items() if not family.isdisjoint(stems))


def tone(found: Iterable[str]) -> int | None:
    """Positive less negative words; None where no word of the lists is among them.

    >>> [tone(english_words(t)) for t in ("A good and a great idea.", "Not good.", "It is blue.")]
    [2, -1, None]
    """
    score, seen, flip = 0, False, 0
    for word in found:
        value = (word in POSITIVE) - (word in NEGATIVE)
        if value:
            seen = True
            score += -value if flip else value
        flip = 3 if word in NEGATORS or word.endswith("n't") else max(0, flip - 1)
    return score if seen else None


def looks_english(found: Iterable[str]) -> bool:
    """Whether any of the commonest English words is among the words of a text."""
    return not _COMMON.isdisjoint(found)


def names(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """(all capitalised names, those inside a sentence, where a capital must mean something).

    Neighbouring capitalised words are one name. The first word of a sentence is in the first
    set only: whether it is a name is known when it also stands inside another.

    >>> every, inside = names("Ask Ada Lovelace. Perhaps Newton's law helps.")
    >>> sorted(every), sorted(inside)
    (['Ada Lovelace', 'Ask', 'Newton', 'Perhaps'], ['Ada Lovelace', 'Newton'])
    """
    every: set[str] = set()
    inside: set[str] = set()
    for match in _NAME.finditer(text):
        name = match.group()
        before = text[max(0, match.start() - 8) : match.start()].rstrip(" ")
        if not before or before[-1] in _BREAKS:
            first, _, name = name.partition(" ")
            every.add(first)
        if name:
            every.add(name)
            inside.add(name)
    return frozenset(every), frozenset(inside)
