"""What an e-mail says that can be checked: amounts, dates, time spans, numbers, addresses.

Each is brought into one form, so that `EUR 24.90`, `24,90 €` and `24.9 euros` are the same, and
`five business days` is `5 working days`. English words; standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

KEPT = 4096
"""Texts whose reading is remembered: metrics ask for the same one several times."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A text as its tokens, in order: words by their stem, what can be checked in one form.

    `entities` are those tokens that must come from somewhere: everything with digits, spans of
    time, days of the week, addresses.
    """

    tokens: tuple[str, ...]
    entities: frozenset[str]

    def has(self, phrase: Reading) -> bool:
        """Whether the phrase's tokens stand here in order, one behind the other."""
        width = len(phrase.tokens)
        places = range(len(self.tokens) - width + 1)
        return any(self.tokens[i : i + width] == phrase.tokens for i in places)


@lru_cache(maxsize=KEPT)
def read(text: str) -> Reading:
    """The tokens of a text, and which of them can be checked.

    >>> read("Five business days: by May 12th").tokens
    ('5 working day', 'by', '12 may')
    >>> sorted(read("Order #48213, EUR 24,90, paid on Monday").entities)
    ['24.9 eur', '48213', 'monday']
    """
    tokens: list[str] = []
    entities: set[str] = set()
    for token, checked in _tokens(_LIST_MARK.sub(" ", text.replace("\u2019", "'"))):
        tokens.append(token)
        if checked:
            entities.add(token)
    return Reading(tuple(tokens), frozenset(entities))


@lru_cache(maxsize=KEPT)
def known(text: str) -> frozenset[str]:
    """The entities that may be said by someone who has read this text.

    Beside its own they are what follows from them: both ends of a range, a number without its
    currency, the digits of a code.

    >>> sorted(known("3 to 5 days"))
    ['3 day', '3-5 day', '5 day']
    """
    found = set(read(text).entities)
    for entity in list(found):
        number, _, unit = entity.partition(" ")
        if unit in _ISO or unit == "%":
            found.add(number)
        elif unit and "-" in number:
            found |= {f"{end} {unit}" for end in number.split("-")}
        elif not unit and _CODE_FORM.fullmatch(entity):
            found.add(re.sub(r"\D", "", entity))
    return frozenset(found)


def stem(word: str) -> str:
    """A word without the commonest endings, so that `refunded` and `refunds` are `refund`.

    >>> [stem(w) for w in ("replacement", "replaced", "shipping", "address", "parcels")]
    ['replac', 'replac', 'ship', 'address', 'parcel']
    """
    word = word.lower().removesuffix("'s").replace("'", "")
    if word.endswith("ss"):
        return word
    for ending in ("ments", "ment", "ings", "ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word.removesuffix(ending)
            if ending in ("ed", "ing") and word[-1] == word[-2] != "s":
                word = word[:-1]
            break
    return word.removesuffix("e") if len(word) > 3 else word


# --- the forms ------------------------------------------------------------------------------------

_ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
_TEENS = "fifteen sixteen seventeen eighteen nineteen"
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_FIRST = {word: n for n, word in enumerate(f"{_ONES} {_TEENS}".split())}
_WORDS = {
    **_FIRST,
    **{ten: 20 + 10 * n for n, ten in enumerate(_TENS)},
    **{
        f"{ten}-{one}": 20 + 10 * n + _FIRST[one]
        for n, ten in enumerate(_TENS)
        for one in _ONES.split()[1:10]
    },
}
_SHORT = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_LONG = "january february march april may june july august september october november december"
_MONTHS = {"sept": "sep", **{name: name[:3] for name in (*_LONG.split(), *_SHORT)}}
_CURRENCIES = {
    "€": "eur", "eur": "eur", "euro": "eur", "euros": "eur",
    "$": "usd", "usd": "usd", "dollar": "usd", "dollars": "usd",
    "£": "gbp", "gbp": "gbp", "pound": "gbp", "pounds": "gbp",
    "chf": "chf", "franc": "chf", "francs": "chf",
}  # fmt: skip
_ISO = frozenset(_CURRENCIES.values())
_UNITS = {"week": (7, "day"), "fortnight": (14, "day"), "year": (12, "month")}


def _one_of(words: Iterable[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


_DIGITS = r"\d+(?:[.,]\d+)*"
_COUNT = rf"(?:{_DIGITS}|(?:{_one_of(_WORDS)})(?![\w-]))"
_FEW = rf"(?:\d{{1,3}}(?:[.,]\d{{1,2}})?|(?:{_one_of(_WORDS)})(?![\w-]))"
_MONTH = rf"(?:{_one_of(_MONTHS)})(?![a-z])"
_CURRENCY = rf"(?:[€$£]|(?:{_one_of(filter(str.isalpha, _CURRENCIES))})(?!\w))"
_DAY = r"[0-3]?\d"
_TO = r"(?:\s?[-\u2013]\s?|\s(?:to|or|and)\s)"
_LIST_MARK = re.compile(r"(?m)^[ \t]*(?:\d{1,2}[.)]|[-*\u2022])[ \t]+")
_CODE_FORM = re.compile(r"(?=.*\d)(?=.*[A-Z])[A-Z0-9]+")

_FORMS = (
    ("mail", r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+"),
    ("web", r"(?:https?://|www\.)[^\s<>)\]]+|[a-z][\w-]*\.(?:com|org|net|shop|eu|example)\b"),
    ("iso", r"\d{4}-\d\d-\d\d(?!\d)"),
    ("numeric_date", rf"{_DAY}(?:\.{_DAY}\.|/{_DAY}/)(?:\d{{4}}|\d\d)(?!\d)"),
    ("days", rf"{_DAY}(?:st|nd|rd|th)?{_TO}{_DAY}(?:st|nd|rd|th)?\s(?:of\s)?{_MONTH}"),
    ("day_month", rf"{_DAY}(?:st|nd|rd|th)?\s(?:of\s)?{_MONTH}"),
    ("month_day", rf"{_MONTH}\.?\s{_DAY}(?:st|nd|rd|th)?(?![\d.,]*\d)"),
    ("clock", r"\d{1,2}(?::\d\d(?:\s?[ap]\.?m\b)?|\s?[ap]\.?m\b|\so'clock)"),
    (
        "span",
        (
            rf"(?:(?:(?<=within )|(?<=in ))an?|{_FEW}(?:{_TO}{_FEW})?)[\s-]"
            r"(?:(?:working|business|calendar)[\s-])?"
            r"(?:minute|hour|day|week|fortnight|month|year)s?\b"
        ),
    ),
    ("percent", rf"{_COUNT}\s?(?:%|per\s?cent\b)"),
    ("money", rf"{_CURRENCY}\s?{_COUNT}|{_COUNT}\s?{_CURRENCY}"),
    ("code", r"#?(?:[a-z]{1,6}-?\d[a-z0-9-]*|\d+-?[a-z]{1,4}-?\d[a-z0-9]*)"),
    ("phone", r"\+\d[\d ()/-]{5,}\d|0\d{1,4}[ /-]\d[\d -]{3,}\d|(?:\d{3}-)?\d{3}-\d{4}(?!\d)"),
    ("number", _DIGITS),
    ("when", r"tomorrow|tonight|yesterday|(?:this|next|the\sfollowing)\s(?:week|month)(?:end)?"),
    ("weekday", r"(?:mon|tues|wednes|thurs|fri|satur|sun)days?\b"),
    ("word", r"[^\W\d_]+(?:['-][^\W\d_]+)*"),
)
_TOKEN = re.compile(
    "|".join(rf"(?P<{name}>(?<!\w)(?:{form}))" for name, form in _FORMS), re.IGNORECASE
)


def _tokens(text: str) -> Iterator[tuple[str, bool]]:
    """(token, whether it must come from somewhere)."""
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or ""
        said = match.group()
        if kind == "word":
            word = said.lower()
            yield (str(_WORDS[word]) if word in _WORDS else stem(word)), False
        else:
            for token in _READERS[kind](said.lower()):
                yield token, True


def _value(number: str) -> str:
    """A count in one form: `24,90` is 24.9, `1,240.00` and `1.240,00` are 1240, `five` is 5."""
    if number in _WORDS:
        return str(_WORDS[number])
    whole, sign, rest = number, "", ""
    last = max(number.rfind("."), number.rfind(","))
    grouped = number.count(number[last]) > 1 if last >= 0 else False
    if last >= 0 and not grouped and len(number) - last - 1 != 3:
        whole, sign, rest = number[:last], ".", number[last + 1 :].rstrip("0")
    whole = re.sub(r"[.,]", "", whole)
    return whole + (sign + rest if rest else "")


def _counts(text: str) -> list[str]:
    return [_value(count) for count in re.findall(_COUNT, text)]


def _date(day: str, month: str) -> str:
    return f"{int(day)} {month}"


def _month_number(number: str) -> str:
    return _SHORT[int(number) - 1] if 1 <= int(number) <= 12 else number


def _read_iso(text: str) -> list[str]:
    year, month, day = text.split("-")
    return [_date(day, _month_number(month)), year]


def _read_numeric(text: str) -> list[str]:
    """Day first, as in 12.05.2026; month first where the second number can be no month."""
    day, month, _ = re.split(r"[./]", text)
    if int(month) > 12:
        day, month = month, day
    return [_date(day, _month_number(month))]


def _read_date(text: str) -> list[str]:
    month = next(iter(re.findall(r"[a-z]{3,}", re.sub(r"\b(?:of|to|or|and)\b", "", text))), "")
    return [_date(day, _MONTHS[month]) for day in re.findall(r"\d+", text)]


def _read_clock(text: str) -> list[str]:
    hours, *minutes = (int(number) for number in re.findall(r"\d+", text))
    late = "p" in text and hours < 12
    return [f"{hours + 12 * late}:{minutes[0] if minutes else 0:02d}"]


def _read_span(text: str) -> list[str]:
    unit = re.findall(r"[a-z]+", text)[-1].removesuffix("s")
    times, unit = _UNITS.get(unit, (1, unit))
    working = "working " if re.search(r"working|business", text) else ""
    counts = [_value(c) for c in re.findall(_COUNT, text)] or ["1"]
    if times > 1:
        counts = [f"{float(count) * times:g}" for count in counts]
    return [f"{'-'.join(counts)} {working}{unit}"]


def _read_money(text: str) -> list[str]:
    currency = re.search(_CURRENCY, text)
    return [f"{_counts(text)[0]} {_CURRENCIES[currency.group()] if currency else ''}"]


def _itself(text: str) -> list[str]:
    return [" ".join(text.split()).rstrip(".,")]


_READERS: dict[str, Callable[[str], list[str]]] = {
    "mail": _itself,
    "web": _itself,
    "iso": _read_iso,
    "numeric_date": _read_numeric,
    "days": _read_date,
    "day_month": _read_date,
    "month_day": _read_date,
    "clock": _read_clock,
    "span": _read_span,
    "percent": lambda text: [f"{_counts(text)[0]} %"],
    "money": _read_money,
    "code": lambda text: [re.sub(r"[#-]", "", text).upper()],
    "phone": lambda text: [re.sub(r"\D", "", text)],
    "number": lambda text: [_value(text)],
    "when": _itself,
    "weekday": lambda text: [text.removesuffix("s")],
}
"""For each form its reader: lower-case text to tokens."""
