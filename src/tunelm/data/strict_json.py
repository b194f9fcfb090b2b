"""JSON as the standard has it: no NaN, no key twice, no text that cannot be written again."""

from __future__ import annotations

import json
import math
from typing import Any

DEEPEST = 64
"""Levels of lists and objects in each other."""
_SPACE = " \t\n\r"


class JsonError(ValueError):
    """Text that is not valid JSON: the code of the fault, and where in the text it stands.

    `incomplete` is set where the text may just not be all there yet.
    """

    def __init__(self, code: str, found: str, at: int = 0, incomplete: bool = False) -> None:
        self.code = code
        self.at = at
        self.incomplete = incomplete
        super().__init__(found)


class StrictJson:
    """A decoder; what the standard library's accepts and JSON does not is a JsonError."""

    def __init__(self) -> None:
        self._problem: tuple[str, str] | None = None
        self._decoder = json.JSONDecoder(
            object_pairs_hook=self._object,
            parse_constant=self._constant,
            parse_float=self._float,
        )

    def parse(self, text: str) -> Any:
        """The value that is all of `text`. Raises JsonError."""
        start = len(text) - len(text.lstrip(_SPACE))
        try:
            value, end, error = self.value_at(text, start)
            rest = len(text[end:].lstrip(_SPACE))
            if rest:
                raise JsonError("not-json", "Extra data", len(text) - rest)
        except JsonError as refused:
            if refused.code != "not-json":
                raise
            column = refused.at - text.rfind("\n", 0, refused.at)
            raise JsonError(
                "not-json", f"not valid JSON ({refused} at column {column}): {shorten(text)}"
            ) from None
        if error:
            raise error
        return value

    def value_at(self, text: str, at: int) -> tuple[Any, int, JsonError | None]:
        """The value that begins at `at`, its end, and what is wrong with it though it has an end.

        Raises:
            JsonError: where it ends cannot be told.
        """
        self._problem = None
        try:
            value, end = self._decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            cut = error.pos >= len(text) - 16 or error.msg.startswith("Unterminated string")
            raise JsonError("not-json", error.msg, error.pos, incomplete=cut) from None
        except RecursionError:
            raise JsonError("nested-too-deep", "JSON nested too deeply", at) from None
        except ValueError:  # int() takes 4,300 digits at most
            raise JsonError("bad-number", "a number of more than 4,300 digits", at) from None
        problem = self._problem or _cannot_hold(text, at, end, value)
        return value, end, JsonError(*problem, at) if problem else None

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            seen: set[str] = set()
            twice = next(k for k, _ in pairs if k in seen or seen.add(k))
            self._problem = ("duplicate-key", f"the key {shorten(twice)} stands twice")
        return made

    def _constant(self, name: str) -> None:
        self._problem = ("bad-number", f"{name} is no JSON number")

    def _float(self, digits: str) -> float:
        value = float(digits)
        if math.isinf(value):
            self._problem = ("bad-number", f"the number {shorten(digits)} is too large")
        return value


def shorten(value: object, most: int = 60) -> str:
    """A value as Python writes it, cut so that a message stays one readable line."""
    if isinstance(value, str):
        return repr(value if len(value) <= most else value[: most - 3] + "...")
    text = repr(value)
    return text if len(text) <= most else text[: most - 3] + "..."


def too_deep(value: Any, most: int = DEEPEST) -> bool:
    """Whether lists and objects are nested in more than `most` levels."""
    level = [value]
    for _ in range(most + 1):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner += item.values()
            elif isinstance(item, list):
                inner += item
        if not any(isinstance(item, dict | list) for item in level):
            return False
        level = inner
    return True


def _cannot_hold(text: str, at: int, end: int, value: Any) -> tuple[str, str] | None:
    """Both checks look at the text first: they are needed for one row in a million."""
    if text.count("[", at, end) + text.count("{", at, end) > DEEPEST and too_deep(value):
        return "nested-too-deep", f"JSON nested too deeply (more than {DEEPEST} levels)"
    if text.find("\\ud", at, end) >= 0 or text.find("\\uD", at, end) >= 0:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return (
                "lone-surrogate",
                "half of a surrogate pair (\\ud800 to \\udfff) without the other",
            )
    return None
