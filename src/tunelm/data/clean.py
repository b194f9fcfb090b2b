"""Text put into one form, each change named: encoding, characters, white space, boilerplate.

Only how a text is written changes, never what it says. Nothing is cut but the lines that repeat
over many documents (`Boilerplate`), and they are counted. Fields that are names or data (group,
label, tool calls) stay as they are.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import unicodedata
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from tunelm.data.records import Record, Turn, turn_text
from tunelm.data.shingles import words
from tunelm.errors import PrerequisiteError

CLEANED_FIELDS = ("context", "answers", "key_answer")
"""Fields beside the conversation whose text a model sees, or is held against what it writes."""
REPEATED_FIELDS = {"alpaca": ("input",)}
"""Fields that repeat a piece of a turn, by the row's shape: they must go on fitting it."""

MIN_DOCUMENTS, MIN_SHARE, MIN_WORDS = 10, 0.1, 3
"""A boilerplate line has at least three words, and stands in at least ten documents and in a
tenth of them."""

# Text without any of these is in order, and most text is.
_SUSPECT = re.compile(r"[^\x20-\x7e\n\t]|  | \n|\t\n|\n\n\n\n|\A\s|\s\Z")
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# \x0b and \x0c end a line here; U+0085 and the rest of C1 are mis-decoded bytes.
_LINE_END = re.compile(r"\r\n?|[\x0b\x0c\u2028\u2029]")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
# Not the joiners U+200C and U+200D: Persian, Indic scripts and emoji need them.
_INVISIBLE = re.compile(r"[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
_SPACE = re.compile(r"[\u00a0\u1680\u2000-\u200a\u202f\u205f]")
_RULE = re.compile(r"[-=+|:~^\s]+")


def clean_text(text: str, document: bool = False) -> tuple[str, tuple[str, ...]]:
    r"""The text in order, and the names of what was changed.

    With `document`, a line end that closes the text stays.

    >>> clean_text("Cafe\u0301\u200b  au lait \r\n")
    ('Caf\xe9 au lait', ('line ends', 'invisible characters', 'NFC', 'white space'))
    """
    if not _SUSPECT.search(text.removesuffix("\n") if document else text):
        return text, ()
    changed: dict[str, None] = {}
    for name, step in _STEPS:
        after = step(text)
        if after != text:
            changed[name] = None
            text = after
    after = _tidy(text)
    if document and after and text.endswith("\n") and "\n" in text[:-1]:
        after += "\n"
    if after != text:
        changed["white space"] = None
    return after, tuple(changed)


def clean_record(record: Record) -> tuple[Record, tuple[str, ...]]:
    """The record with all its text in order, and the names of what was changed."""
    if _in_order(record):
        return record, ()
    changed: dict[str, None] = {}

    def own(text: str) -> str:
        after, names = clean_text(text, document=record.text is not None)
        changed.update(dict.fromkeys(names))
        return after

    def whole(value: object) -> Any:
        return _mapped(value, own)

    def rest(value: object) -> Any:
        return _mapped(value, _whole_characters)

    ours = (*CLEANED_FIELDS, *REPEATED_FIELDS.get(record.shape, ()))
    extra = {k: (whole if k in ours else rest)(v) for k, v in record.extra.items()}
    after = dataclasses.replace(
        record,
        messages=_turns(record.messages, own),
        text=None if record.text is None else own(record.text),
        preferred=_turns(record.preferred, own),
        rejected=_turns(record.rejected, own),
        tools=tuple(rest(tool) for tool in record.tools),
        extra=extra,
    )
    if not changed and after != record:
        changed["half characters"] = None
    return (after, tuple(changed)) if changed else (record, ())


class Boilerplate:
    """Lines that many documents share: first shown all documents, then taken out of each.

    Memory: 16 bytes for each different line, in a table that is merged as it grows.
    """

    def __init__(self) -> None:
        self.documents = 0
        self._new = array("Q")
        self._lines: NDArray[np.uint64] = np.zeros(0, np.uint64)
        self._counts: NDArray[np.int64] = np.zeros(0, np.int64)
        self._found: frozenset[int] | None = None
        self.removed: dict[str, int] = {}
        """Each line that was taken out, and how often (the first 1,000 different ones)."""

    def look(self, text: str) -> None:
        """One more text; with a single line it is no document."""
        if "\n" not in text:
            return
        self.documents += 1
        self._new.extend({_line_hash(line) for line in text.split("\n") if line.strip()})
        if len(self._new) >= 1 << 21:
            self._merge()

    def strip(self, text: str) -> tuple[str, int]:
        """The text without boilerplate lines, and how many there were."""
        found = self._boilerplate()
        if not found:
            return text, 0
        kept: list[str] = []
        count = 0
        for line in text.split("\n"):
            if line.strip() and _line_hash(line) in found and len(words(line)) >= MIN_WORDS:
                count += 1
                shown = line.strip()
                if shown in self.removed or len(self.removed) < 1000:
                    self.removed[shown] = self.removed.get(shown, 0) + 1
            else:
                kept.append(line)
        return (clean_text("\n".join(kept), document=True)[0], count) if count else (text, 0)

    def _boilerplate(self) -> frozenset[int]:
        if self._found is None:
            self._merge()
            least = max(MIN_DOCUMENTS, MIN_SHARE * self.documents)
            self._found = frozenset(self._lines[self._counts >= least].tolist())
        return self._found

    def _merge(self) -> None:
        new = np.frombuffer(self._new, np.uint64) if self._new else np.zeros(0, np.uint64)
        lines = np.concatenate((self._lines, new))
        counts = np.concatenate((self._counts, np.ones(new.size, np.int64)))
        self._lines, place = np.unique(lines, return_inverse=True)
        self._counts = np.bincount(place, counts, self._lines.size).astype(np.int64)
        self._new = array("Q")


def text_and_calls(turn: Turn) -> str:
    """What a turn says: its text, its tool calls, its refusal."""
    content = turn.get("content")
    text = turn_text(turn) if isinstance(content, list) else str(content or "")
    said = [text] if text else []
    said += [
        str(turn[name]) for name in ("tool_calls", "function_call", "refusal") if turn.get(name)
    ]
    return "\n".join(said)


def _in_order(record: Record) -> bool:
    """Whether nothing in it can need a change: so it is with most rows, and quickly seen."""
    if record.tools or (record.text is not None and _SUSPECT.search(record.text)):
        return False
    for turn in (*record.messages, *record.preferred, *record.rejected):
        for value in turn.values():
            if not isinstance(value, str) or _SUSPECT.search(value):
                return False
    for value in record.extra.values():
        if isinstance(value, str):
            if _SUSPECT.search(value):
                return False
        elif isinstance(value, Mapping | list | tuple):
            return False
    return True


def _turns(turns: Sequence[Turn], own: Callable[[str], str]) -> tuple[Turn, ...]:
    return tuple(_turn(turn, own) for turn in turns)


def _turn(turn: Turn, own: Callable[[str], str]) -> Turn:
    after = {k: _mapped(v, own if k == "content" else _whole_characters) for k, v in turn.items()}
    if isinstance(turn.get("content"), list):  # parts: only their text is text
        after["content"] = [
            {**part, "text": own(part["text"])}
            if isinstance(part, dict) and isinstance(part.get("text"), str)
            else _mapped(part, _whole_characters)
            for part in cast(list[Any], turn["content"])
        ]
    return after


def _mapped(value: object, change: Callable[[str], str]) -> Any:
    """The value with every text in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list | tuple):
        items = cast(Sequence[object], value)
        return type(value)(_mapped(item, change) for item in items)  # pyright: ignore
    if isinstance(value, Mapping):
        fields = cast(Mapping[str, object], value)
        return {key: _mapped(item, change) for key, item in fields.items()}
    return value


def _whole_characters(text: str) -> str:
    """Without lone halves of UTF-16 pairs, which no file can hold."""
    return text if text.isascii() else _SURROGATE.sub("", text)


def _mend_encoding(text: str) -> str:
    """UTF-8 that was read as something else, by the judgement of ftfy."""
    if text.isascii():
        return text
    try:
        import ftfy
        from ftfy.badness import is_bad
    except ImportError:
        raise PrerequisiteError(
            "mending text that was read in the wrong encoding needs ftfy: pip install"
            " 'tunelm[data]'"
        ) from None
    return ftfy.fix_encoding(text) if is_bad(text) else text


def _tidy(text: str) -> str:
    """No blanks at line ends, none doubled in prose, no long gaps, none around the text.

    Indented lines, code between fences, lines with a bar and columns (runs of three blanks in
    neighbouring lines) keep their blanks. One leading blank goes; deeper indentation is code.
    """
    lines = [line.rstrip(" \t") for line in text.split("\n")]
    first = next((n for n, line in enumerate(lines) if line), 0)
    if lines[first][:1] == " " and lines[first][1:2] not in (" ", "\t"):
        lines[first] = lines[first][1:]
    kept: list[str] = []
    fenced = False
    blank = 0
    for place, line in enumerate(lines):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif "  " in line and not fenced and not _aligned(lines, place):
            line = re.sub(r" {2,}", " ", line)
        blank = 0 if line else blank + 1
        if blank <= 2 and (line or kept):
            kept.append(line)
    while kept and not kept[-1]:
        kept.pop()
    return "\n".join(kept)


def _aligned(lines: Sequence[str], place: int) -> bool:
    line = lines[place]
    if line[0] in " \t" or "|" in line or "\t" in line or _RULE.fullmatch(line):
        return True
    around = (*lines[max(0, place - 1) : place], *lines[place + 1 : place + 2])
    return "   " in line and any("   " in other for other in around)


def _line_hash(line: str) -> int:
    digest = hashlib.blake2b(line.strip().encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


_STEPS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("half characters", _whole_characters),
    ("encoding", _mend_encoding),
    ("line ends", lambda text: _LINE_END.sub("\n", text)),
    ("control characters", lambda text: _CONTROL.sub("", _ANSI.sub("", text))),
    ("invisible characters", lambda text: _INVISIBLE.sub("", text)),
    ("NFC", lambda text: unicodedata.normalize("NFC", text)),
    ("white space", lambda text: _SPACE.sub(" ", text)),
)
