"""Personal data and secrets in text: found by form, checked by check digit, shown masked.

Meant to be right when it speaks: dates, ISBNs, order numbers, plain numbers and URLs do not
count, nor do the addresses and numbers that are reserved for examples (RFC 2606, 555-01xx).
Names and postal addresses have no form to find them by; they are not looked for.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple


class Finding(NamedTuple):
    """A stretch of text. `code` as in `check_codes`; `kind` for people: "AWS access key"."""

    code: str
    kind: str
    start: int
    end: int
    masked: str


def find_personal(text: str) -> list[Finding]:
    """All personal data and secrets in a text, in order, none inside another.

    >>> [f.masked for f in find_personal("write to jane.doe@acme-corp.com, ISBN 978-3-16-148410-0")]
    ['j***@***.com']
    """
    found: list[Finding] = []
    for finding in sorted(_all(text), key=lambda f: (f.start, -f.end)):
        if not found or finding.start >= found[-1].end:
            found.append(finding)
    return found


def redact(text: str) -> str:
    """The text with each finding replaced by its masked form."""
    parts: list[str] = []
    end = 0
    for finding in find_personal(text):
        parts += [text[end : finding.start], finding.masked]
        end = finding.end
    return "".join([*parts, text[end:]])


_CUT = re.compile(
    r"(sk-|AKIA|ASIA|gh[pousr]_|github_pat_|glpat-|AIza|ya29\.|xox[a-z]-|[rs]k_live_|hf_|eyJ)"
    r"[A-Za-z0-9_\-.]{4,}(?=\.\.\.|$)"
)


def redact_excerpt(text: str) -> str:
    """`redact`, for a text that may have been cut in the middle of a key.

    >>> redact_excerpt("not valid JSON: 'the key is sk-proj-a1B2c3...'")
    "not valid JSON: 'the key is sk-***...'"
    """
    return _CUT.sub(r"\1***", redact(text))


def _all(text: str) -> Iterator[Finding]:
    # cheap tests first: most rows hold none of these
    if "@" in text:
        yield from _emails(text)
    if _DIGITS.search(text):
        yield from _cards(text)
        yield from _ibans(text)
        yield from _phones(text)
    yield from _secrets(text)


# --- secrets ---------------------------------------------------------------------------------

_B, _E = r"(?<![A-Za-z0-9_\-])", r"(?![A-Za-z0-9_\-])"
SECRETS: dict[str, tuple[tuple[str, ...], re.Pattern[str]]] = {
    "private key": (
        ("PRIVATE KEY",),
        re.compile(
            r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"
            r"(?:[\s\S]{0,20000}?-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----)?"
        ),
    ),
    "sk-ant key": (("sk-ant-",), re.compile(rf"{_B}sk-ant-[A-Za-z0-9_\-]{{20,}}")),
    "OpenAI key": (
        ("sk-",),
        re.compile(
            rf"{_B}sk-(?:(?:proj|svcacct|admin)-[A-Za-z0-9_\-]{{20,}}|[A-Za-z0-9]{{32,}}){_E}"
        ),
    ),
    "AWS access key": (("AKIA", "ASIA"), re.compile(rf"{_B}(?:AKIA|ASIA)[A-Z0-9]{{16}}{_E}")),
    "GitHub token": (
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
        re.compile(rf"{_B}(?:gh[pousr]_[A-Za-z0-9]{{36,}}|github_pat_[A-Za-z0-9_]{{40,}}){_E}"),
    ),
    "GitLab token": (("glpat-",), re.compile(rf"{_B}glpat-[A-Za-z0-9_\-]{{20,}}")),
    "Google key": (
        ("AIza", "ya29."),
        re.compile(rf"{_B}(?:AIza[A-Za-z0-9_\-]{{35}}{_E}|ya29\.[A-Za-z0-9_\-]{{20,}})"),
    ),
    "Slack token": (
        ("xox", "hooks.slack.com"),
        re.compile(
            rf"{_B}xox[abeoprs]-[A-Za-z0-9\-]{{10,}}"
            r"|hooks\.slack\.com/services/T[A-Z0-9]{6,}/B[A-Z0-9]{6,}/[A-Za-z0-9]{16,}"
        ),
    ),
    "Stripe key": (("k_live_",), re.compile(rf"{_B}[rs]k_live_[A-Za-z0-9]{{16,}}")),
    "Hugging Face token": (("hf_",), re.compile(rf"{_B}hf_[A-Za-z0-9]{{30,}}{_E}")),
    "JSON web token": (
        ("eyJ",),
        re.compile(rf"{_B}eyJ[A-Za-z0-9_\-]{{8,}}\.eyJ[A-Za-z0-9_\-]{{8,}}\.[A-Za-z0-9_\-]{{8,}}"),
    ),
}
"""Kind -> (what stands in every one of them, its form as the issuer documents it)."""

_NEEDLE = re.compile("|".join(re.escape(n) for needles, _ in SECRETS.values() for n in needles))
_URL_PASSWORD = re.compile(r"[a-z][a-z0-9+.\-]{1,20}://[^\s/:@'\"<>]{1,64}:([^\s/@'\"<>]{3,64})@")
_ASSIGNED = re.compile(
    r"(?:password|passwd|passphrase|pwd|secret|token|api[_\-]?key|access[_\-]?key|auth[_\-]?key"
    r"|client[_\-]?secret|private[_\-]?key)[A-Za-z0-9_\-]{0,20}[\"']?\s{0,3}(?::=|=>|[:=])\s{0,3}"
    r"([\"'`]?)([^\s\"'`,;<>(){}\[\]$]{16,200})\1",
    re.IGNORECASE,
)
_NAMED = re.compile(r"pass(?:w|p)|pwd|secret|token|key", re.IGNORECASE)
_NOT_REAL = re.compile(
    r"example|sample|dummy|fake|your|change|placeholder|redacted|xxxx|\*\*|\.\.\.|1234567|abcdef",
    re.IGNORECASE,
)
_MIN_ENTROPY = 3.5
"""Bits a character (Shannon); English words have about 2.5 to 3.3 at these lengths."""


def _secrets(text: str) -> Iterator[Finding]:
    for kind, (_, pattern) in SECRETS.items() if _NEEDLE.search(text) else ():
        for match in pattern.finditer(text):
            if not _is_filler(match.group()):
                yield _secret(kind, match.start(), match.end(), match.group()[:4])
    if "://" in text:
        for match in _URL_PASSWORD.finditer(text):
            if not _NOT_REAL.search(match.group(1)) and match.group(1).lower() != "password":
                yield _secret("password in a URL", match.start(1), match.end(1), "")
    if ("=" not in text and ":" not in text) or not _NAMED.search(text):
        return
    for match in _ASSIGNED.finditer(text):
        value = match.group(2)
        mixed = re.search(r"\d", value) and re.search(r"[A-Za-z]", value)
        path_like = value.count("/") > 2 or "." in value.strip(".")
        if (
            mixed
            and not path_like
            and not _NOT_REAL.search(value)
            and _entropy(value) >= _MIN_ENTROPY
        ):
            yield _secret("assigned secret", match.start(2), match.end(2), "")


def _secret(kind: str, start: int, end: int, shown: str) -> Finding:
    return Finding("secret", kind, start, end, f"{shown}***")


def _is_filler(key: str) -> bool:
    """Whether a key-like text is one of those that documentation writes: sk-xxxxxxxx."""
    body = re.sub(r"[^A-Za-z0-9]", "", key)[-20:]
    return _entropy(body) < 2.0 or "EXAMPLE" in key


def _entropy(text: str) -> float:
    """Bits a character, by the text's own frequencies.

    >>> round(_entropy("aabb"), 2), round(_entropy("abcdefgh"), 2)
    (1.0, 3.0)
    """
    total = len(text) or 1
    return -sum(n / total * math.log2(n / total) for n in Counter(text).values())


# --- people ----------------------------------------------------------------------------------

_DIGITS = re.compile(r"\d[\d\s().\-/]{5,}\d")
_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+\-/:])([A-Za-z0-9][A-Za-z0-9._%+\-]{0,63})@"
    r"((?:[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?\.){1,8}([A-Za-z]{2,24}))(?![A-Za-z0-9\-@])"
)
_RESERVED = re.compile(r"(?:^|\.)(?:example(?:\.[a-z]+)?|test|invalid|localhost|local)$", re.I)


def _emails(text: str) -> Iterator[Finding]:
    for match in _EMAIL.finditer(text):
        name, domain, top = match.groups()
        if not _RESERVED.search(domain):
            masked = f"{name[0]}***@***.{top}"
            yield Finding("personal-email", "e-mail address", *match.span(), masked)


_CARD = re.compile(r"(?<![\d.\-])\d(?:[ \-]?\d){12,18}(?![\d\-]|\.\d)")
_ISSUERS = re.compile(
    r"4\d{12}(?:\d{3}){0,2}"  # Visa
    r"|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|(?:6011|65\d\d|64[4-9]\d)\d{12}"  # Discover
    r"|35(?:2[89]|[3-8]\d)\d{12}"  # JCB
    r"|3(?:0[0-5]|[68]\d)\d{11}"  # Diners
)


def _cards(text: str) -> Iterator[Finding]:
    for match in _CARD.finditer(text):
        digits = re.sub(r"\D", "", match.group())
        grouped = re.fullmatch(r"\d+|\d{4}([ \-])\d{4,6}\1\d{4,5}(?:\1\d{1,4})?", match.group())
        if grouped and _ISSUERS.fullmatch(digits) and luhn(digits) and len(set(digits)) > 3:
            yield Finding("personal-card", "card number", *match.span(), f"***{digits[-2:]}")


def luhn(digits: str) -> bool:
    """The check digit of payment cards (ISO/IEC 7812-1).

    >>> luhn("4539148803436467"), luhn("4539148803436468")
    (True, False)
    """
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d\d(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)")
_IBAN_LENGTHS = {
    **dict.fromkeys(("NO",), 15),
    **dict.fromkeys(("BE",), 16),
    **dict.fromkeys(("DK", "FI", "NL"), 18),
    **dict.fromkeys(("AT", "EE", "LT", "LU"), 20),
    **dict.fromkeys(("CH", "HR", "LI", "LV"), 21),
    **dict.fromkeys(("BG", "DE", "GB", "IE"), 22),
    **dict.fromkeys(("AE", "IL"), 23),
    **dict.fromkeys(("CZ", "ES", "RO", "SA", "SE", "SK"), 24),
    **dict.fromkeys(("PT",), 25),
    **dict.fromkeys(("TR",), 26),
    **dict.fromkeys(("FR", "GR", "IT"), 27),
    **dict.fromkeys(("CY", "HU", "PL"), 28),
    **dict.fromkeys(("BR", "UA"), 29),
}


def _ibans(text: str) -> Iterator[Finding]:
    for match in _IBAN.finditer(text):
        number = match.group().replace(" ", "")
        if len(number) == _IBAN_LENGTHS.get(number[:2]) and iban_valid(number):
            masked = f"{number[:2]}***{number[-2:]}"
            yield Finding("personal-iban", "IBAN", *match.span(), masked)


def iban_valid(number: str) -> bool:
    """The check digits of an IBAN (ISO 13616, modulo 97).

    >>> iban_valid("GB82WEST12345698765432"), iban_valid("GB83WEST12345698765432")
    (True, False)
    """
    moved = number[4:] + number[:4]
    return int("".join(str(int(c, 36)) for c in moved)) % 97 == 1


_INTERNATIONAL = re.compile(r"(?<![\w+.=/\-])\+[1-9]\d{0,2}[ .\-/]?(?:\(0?\d{1,4}\)[ .\-/]?)?")
_REST = re.compile(r"\d(?:[ .\-/]?\d){5,12}(?![\d\-])")
_AMERICAN = re.compile(
    r"(?<![\w.\-/+])(?:1[ .\-])?(?:\([2-9]\d\d\)[ .\-]?|[2-9]\d\d[.\-])([2-9]\d\d)([.\-])(\d{4})"
    r"(?![\w\-]|\.\d)"
)
_CUED = re.compile(
    r"(?:tel|phone|telephone|telefon|mobile|mobil|cell|handy|fax|call me (?:at|on)|whatsapp)"
    r"\b[^\w\n]{0,4}(?:(?:number|nummer|no|nr|is|at|on)\b[^\w\n]{0,4}){0,2}"
    r"(\(?0?\d(?:[ ./()\-]{0,3}\d){6,13})(?![\d\-])",
    re.IGNORECASE,
)


def _phones(text: str) -> Iterator[Finding]:
    for match in _INTERNATIONAL.finditer(text):
        rest = _REST.match(text, match.end())
        if rest is None:
            continue
        digits = re.sub(r"\D", "", text[match.start() : rest.end()])
        if 8 <= len(digits) <= 15 and not re.match(r"1?\d{3}55501\d\d$", digits):
            yield _phone(match.start(), rest.end(), digits)
    for match in _AMERICAN.finditer(text):
        exchange, _, line = match.groups()
        if not (exchange == "555" and line.startswith("01")):
            yield _phone(match.start(), match.end(), line)
    for match in _CUED.finditer(text):
        digits = re.sub(r"\D", "", match.group(1))
        if not re.search(r"55501\d\d$", digits):
            yield _phone(match.start(1), match.end(1), digits)


def _phone(start: int, end: int, digits: str) -> Finding:
    return Finding("personal-phone", "telephone number", start, end, f"***{digits[-2:]}")
