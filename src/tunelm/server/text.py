"""Tokens to text as they come: exact to the byte, without decoding the whole answer each time."""

from __future__ import annotations

import codecs
import random
import re
from collections.abc import Sequence, Set
from typing import Any, Protocol

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
_CUT = "�"
"""What decoding shows for bytes that are no whole character (yet)."""


class Detokenizer(Protocol):
    """Turns one answer's tokens into text that later tokens cannot change."""

    def push(self, token: int) -> str:
        """The text that became certain with this token; often one token's, at times none."""
        ...

    def flush(self) -> str:
        """What is left when no token follows: the start of a character, shown as U+FFFD."""
        ...


class Vocabulary:
    """A tokenizer's tokens as bytes. One for each model; safe to use from one thread at a time.

    Most tokenizers write text as bytes (GPT-2's, Llama 3's, Qwen's): there a table gives a
    token's bytes. Whether a tokenizer is of that kind is tried out on random tokens against its
    own `decode`; any other is asked to decode the last few tokens.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        special = {i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
        # ids beyond the tokenizer's (a padded output layer) are None there, and no text
        names: list[Any] = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        self._names = [str(name) if name is not None else "" for name in names]
        signs = _byte_signs()
        self._written = [b"" if i in special else _as_bytes(n, signs) for i, n in _each(names)]
        self._exact = not tokenizer.clean_up_tokenization_spaces and self._repeats_decode()
        self._loose = {i for i, name in enumerate(self._names) if _BYTE_TOKEN.fullmatch(name)}
        self._full = [_as_bytes(name, signs) for name in self._names]
        self.longest = max((len(name) for name in self._names), default=1)

    def detokenizer(self) -> Detokenizer:
        """For one answer."""
        return _Bytes(self._written) if self._exact else _Windows(self.tokenizer, self._loose)

    def bytes_of(self, token: int) -> bytes:
        """A token's own bytes, special tokens as they are written; part of a character at times."""
        if token >= len(self._full):
            return b""
        if self._exact:
            return self._full[token]
        name = self._names[token]
        if found := _BYTE_TOKEN.fullmatch(name):
            return bytes([int(found[1], 16)])
        return name.replace("▁", " ").encode()

    def _repeats_decode(self) -> bool:
        """Whether the table gives what `decode` gives, broken characters included."""
        rng = random.Random(0)
        for _ in range(64):
            tokens = [rng.randrange(len(self._written)) for _ in range(16)]
            stream = _Bytes(self._written)
            text = "".join(map(stream.push, tokens)) + stream.flush()
            if text != self.tokenizer.decode(tokens, skip_special_tokens=True):
                return False
        return True


class _Bytes:
    """A table of bytes, and a decoder that keeps the start of a character until its end comes."""

    def __init__(self, table: Sequence[bytes]) -> None:
        self._table = table
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def push(self, token: int) -> str:
        return self._decode(self._table[token]) if token < len(self._table) else ""

    def flush(self) -> str:
        return self._decode(b"", True)


class _Windows:
    """Decodes the last tokens with and without the newest ones; the difference is new.

    A window begins where a former one ended on a whole character, so that what a tokenizer does
    to the first word (a space less) is done to both. Tokens of a single byte (`loose`) wait for
    another kind of token: a byte that is no text spoils the whole run of them.
    """

    def __init__(self, tokenizer: Any, loose: Set[int]) -> None:
        self._tokenizer, self._loose = tokenizer, loose
        self._tokens: list[int] = []
        self._begin = 0
        self._said = 0

    def push(self, token: int) -> str:
        self._tokens.append(token)
        return self._news(final=False)

    def flush(self) -> str:
        return self._news(final=True)

    def _news(self, final: bool) -> str:
        window = self._tokens[self._begin :]
        before = self._text(window[: self._said - self._begin])
        now = self._text(window)
        certain = final or (self._tokens[-1] not in self._loose and not now.endswith(_CUT))
        if len(now) <= len(before) or not certain:
            return ""
        self._begin, self._said = self._said, len(self._tokens)
        return now[len(before) :]

    def _text(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))


class Stops:
    """Looks for stop strings in a text that grows; each part of it is looked at once."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops = stops
        self._longest = max((len(stop) for stop in stops), default=0)

    def find(self, text: str, fresh: int) -> int | None:
        """Where the first stop string begins, when the last `fresh` characters are new."""
        begin = max(len(text) - fresh - self._longest + 1, 0)
        places = [at for at in (text.find(stop, begin) for stop in self.stops) if at >= 0]
        return min(places, default=None)

    def held(self, text: str) -> int:
        """How many characters at the end may be the start of a stop string."""
        sizes = range(min(self._longest - 1, len(text)), 0, -1)
        return next((n for n in sizes if any(s.startswith(text[-n:]) for s in self.stops)), 0)


def _each(names: Sequence[Any]) -> list[tuple[int, str]]:
    return [(i, "" if name is None else str(name)) for i, name in enumerate(names)]


def _as_bytes(name: str, signs: dict[str, int]) -> bytes:
    """The bytes that a token of a byte-level tokenizer stands for."""
    try:
        return bytes(signs[sign] for sign in name)
    except KeyError:  # an added token is written as it is
        return name.encode()


def _byte_signs() -> dict[str, int]:
    """The printable sign by which byte-level tokenizers write each byte.

    Bytes that are printable Latin-1 stand for themselves, the others for signs from U+0100 on.
    """
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}
