"""Checks of one stretch of text: markers, broken characters, remains, personal data."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator

from tunelm.data.personal import find_personal, redact

Found = tuple[str, str]
"""A code of `check_codes` and what stands there."""

SPECIAL = re.compile(
    r"<\|[A-Za-z][A-Za-z0-9_\-]{0,40}\|>"  # ChatML, Llama 3 and 4, Phi, Qwen, GPT, harmony
    r"|<\uff5c[^\uff5c<>\n]{1,40}\uff5c>"  # DeepSeek
    r"|\[/?INST\]|<</?SYS>>|\[/?(?:AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|SYSTEM_PROMPT)\]"
    r"|</?(?:start|end)_of_turn>|<(?:start|end)_of_image>"  # Gemma
    r"|</s>|<(?:s|bos|eos|pad|unk|endoftext)>"
)
"""Markers of the common families' templates; a model's own tokens come on top of them."""

# \t, \n and \r are white space; \x85 and others of C1 are nearly always mis-decoded bytes.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
# Not the joiners U+200C and U+200D: Persian, Indic scripts and emoji need them.
_INVISIBLE = re.compile(r"[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
_HTML = re.compile(
    r"</?(?:a|b|body|br|button|div|em|font|form|h[1-6]|head|hr|html|i|iframe|img|input|li|link|meta"
    r"|ol|option|p|script|section|select|small|span|strong|style|sub|sup|table|tbody|td|th|thead"
    r"|tr|u|ul)(?:\s[^<>\n]{0,300})?\s?/?>"
    r"|&(?:nbsp|amp|lt|gt|quot|apos|mdash|ndash|hellip|rsquo|lsquo|rdquo|ldquo|#\d{1,6}"
    r"|#x[0-9a-f]{1,6});",
    re.IGNORECASE,
)
# One brace pair only around a template's usual words, and not in LaTeX (\text{input}); two
# around any name.
_PLACEHOLDER = re.compile(
    r"(?<![\\\w$}{])\{(?:question|answer|input|output|context|instructions?|prompt|completion"
    r"|response|query|user_?input|document|documents|passage|chat_history|history|topic)\}(?!\})"
    r"|\{\{\s{0,3}[A-Za-z_][\w.]{1,40}(?:\s?\|\s?\w+)?\s{0,3}(?:\}\}|$)"
    r"|\{%-?\s{0,3}(?:if|for|endif|endfor|set|else)\b"
)
_AROUND = 20


def check_text(
    text: str, own_special: Collection[str] = (), bad_encoding: Callable[[str], bool] | None = None
) -> Iterator[Found]:
    """What is wrong with a text, each kind once.

    Args:
        text: of one turn, or of a row of running text.
        own_special: special tokens of the model at hand.
        bad_encoding: says whether a text was decoded with the wrong encoding; None: not asked.
    """
    # a quick look at the signs they are made of: most texts have none of them
    special = SPECIAL.search(text) if "<" in text or "[" in text else None
    own = next((token for token in own_special if token and token in text), None)
    if special or own:
        yield "special-token", f"holds {special.group() if special else own!r}"
    yield from _characters(text, bad_encoding)
    # what `special-token` has named already is not named again
    plain = SPECIAL.sub(" ", text) if special else text
    for code, signs, pattern in (("html", "<&", _HTML), ("placeholder", "{", _PLACEHOLDER)):
        match = pattern.search(plain) if any(sign in plain for sign in signs) else None
        if match:
            yield code, f"holds {excerpt(match.group())!r}"
    yield from _personal(text)


def _characters(text: str, bad_encoding: Callable[[str], bool] | None) -> Iterator[Found]:
    if match := _CONTROL.search(text):
        where = around(_CONTROL.sub("\N{MIDDLE DOT}", text), match.start(), match.end())
        yield "control-character", f"holds U+{ord(match.group()):04X}, in {where!r}"
    if text.isascii():
        return
    if match := _SURROGATE.search(text):
        yield "lone-surrogate", f"holds U+{ord(match.group()):04X} alone"
        text = _SURROGATE.sub("?", text)
    if (at := text.find("\N{REPLACEMENT CHARACTER}")) >= 0:
        yield "replacement-character", f"holds U+FFFD, in {around(text, at, at + 1)!r}"
    if match := _INVISIBLE.search(text):
        yield "invisible-character", f"holds U+{ord(match.group()):04X}"
    if bad_encoding and not _CONTROL.search(text) and bad_encoding(text):
        bad = next((w for w in text.split() if bad_encoding(w)), text)
        yield "mojibake", f"holds {excerpt(bad)!r}"


def _personal(text: str) -> Iterator[Found]:
    seen: dict[str, list[str]] = {}
    for finding in find_personal(text):
        seen.setdefault(finding.code, []).append(f"{finding.kind} {finding.masked}")
    for code, shown in seen.items():
        more = f" and {len(shown) - 1} more" if len(shown) > 1 else ""
        yield code, f"holds {shown[0]}{more}"


def encoding_checker() -> Callable[[str], bool] | None:
    """The judgement of ftfy, or None where ftfy is not installed.

    Bad is what ftfy both finds unlikely and knows how to turn into something likelier.
    """
    try:
        import ftfy
        from ftfy.badness import is_bad
    except ImportError:
        return None

    def bad(text: str) -> bool:
        return bool(is_bad(text)) and ftfy.fix_encoding(text) != text

    return bad


def excerpt(text: str, most: int = 60) -> str:
    """The text on one line, without secrets, at most `most` characters."""
    line = " ".join(redact(text).split())
    line = _SURROGATE.sub("?", line)
    return line if len(line) <= most else line[: most - 3] + "..."


def around(text: str, start: int, end: int) -> str:
    """A place in a text with a few characters on both sides, without secrets."""
    low, high = max(0, start - _AROUND), end + _AROUND
    for finding in find_personal(text):  # a secret cut in two is not recognised any more
        if finding.start < high and finding.end > low:
            low, high = max(low, min(finding.end, start)), min(high, max(finding.start, end))
    return " ".join(text[low:high].split())
