"""A task file written from a config: the plan that `tunelm compare` carries out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tunelm.config import Config

_BARE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


def task_file(config: Config, notes: Sequence[str], extra: Mapping[str, Any]) -> str:
    """The text of a task file.

    Args:
        config: what it says; only what was set is written, so defaults stay defaults.
        notes: lines of comment at its head.
        extra: further keys of its `[compare]`.
    """
    sections = config.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    routes: Mapping[str, Any] = sections.pop("routes", {})
    routes = {name: fields for name, fields in routes.items() if fields != {"kind": name}}
    sections["compare"] = {**sections.get("compare", {}), **extra}
    lines = [f"# {' '.join(note.split())}" for note in notes]
    for name, fields in sections.items():
        lines += ["", f"[{_key(name)}]", *_fields(fields)]
    for name, fields in routes.items():
        lines += ["", f"[routes.{_key(name)}]", *_fields(fields)]
    return "\n".join(lines).lstrip("\n") + "\n"


def _fields(fields: Mapping[str, Any]) -> list[str]:
    return [f"{_key(key)} = {_value(value)}" for key, value in fields.items()]


def _key(name: str) -> str:
    return name if name and set(name) <= _BARE else _text(name)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        pairs: Mapping[str, Any] = value  # pyright: ignore[reportUnknownVariableType]
        return "{ " + ", ".join(_fields(pairs)) + " }" if pairs else "{}"
    items: list[Any] = list(value)
    return "[" + ", ".join(_value(item) for item in items) + "]"


def _text(text: str) -> str:
    # a JSON text is a TOML basic string but for DEL, which TOML wants escaped
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
