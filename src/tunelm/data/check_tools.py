"""Checks of tools, tool calls and the tools' answers in one conversation."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from tunelm.data.check_text import excerpt
from tunelm.data.records import Record, Turn

NAME = re.compile(r"[A-Za-z0-9_\-]{1,64}")
"""What a function may be called (OpenAI's specification, FunctionObject)."""

Found = tuple[str, str]


def is_call(turn: Turn) -> bool:
    """Whether a turn calls a tool."""
    return bool(turn.get("tool_calls") or turn.get("function_call"))


def check_tools(record: Record) -> Iterator[Found]:
    """Declarations, calls, and that every call but those of the last turn is answered."""
    declared: set[str] = set()
    sound = True
    stray = record.extra.get("tools")  # left there by the reader: no list of objects
    if stray:
        sound = False
        yield "tool-definition", f'"tools" is {excerpt(repr(stray))}'
    legacy = record.extra.get("functions")  # the form before tools: bare functions
    bare = [{"type": "function", "function": f} for f in _list(legacy)]
    for number, tool in enumerate((*record.tools, *bare), 1):
        problem, called = _declaration(tool)
        declared.add(called)
        if problem:
            sound = False
            yield "tool-definition", f"tool {number} {problem}"
    names = declared if sound else None
    yield from _talk((*record.messages, *record.preferred), names)
    if record.rejected:  # its prompt has been checked already
        before = set(_talk(record.messages, names))
        after = _talk((*record.messages, *record.rejected), names)
        yield from (found for found in after if found not in before)


def _talk(turns: Sequence[Turn], declared: set[str] | None) -> Iterator[Found]:
    open_calls: dict[str, int] = {}
    for number, turn in enumerate(turns, 1):
        if not isinstance(turn, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            continue
        role = turn.get("role")
        if role in ("tool", "function"):
            key = str(turn.get("tool_call_id") if role == "tool" else turn.get("name"))
            if open_calls.pop(key, None) is None:
                yield "tool-answer-unasked", f"message {number} answers {excerpt(repr(key))}"
            continue
        for key, asked in open_calls.items():
            yield "tool-call-unanswered", f"message {asked} calls {excerpt(repr(key))}"
        open_calls = {}
        for code, found in _calls(turn, declared):
            yield code, f"message {number} {found}"
        for key in _keys(turn) if role == "assistant" else ():
            open_calls[key] = number
    last = turns[-1].get("role") if turns and isinstance(turns[-1], Mapping) else None  # pyright: ignore
    if last in ("tool", "function"):  # a last turn that calls is what there is to learn
        for key, asked in open_calls.items():
            yield "tool-call-unanswered", f"message {asked} calls {excerpt(repr(key))}"


def _declaration(tool: Any) -> tuple[str, str]:
    """(what is wrong or "", its name) of one tool."""
    function = tool.get("function") if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping) or tool.get("type") != "function":
        return f"is {excerpt(repr(tool))}", ""
    called = function.get("name")
    if not isinstance(called, str) or not NAME.fullmatch(called):
        return f"has the name {excerpt(repr(called))}", str(called)
    parameters = function.get("parameters")
    if parameters is not None and not isinstance(parameters, Mapping):
        return f"({called}) has parameters {excerpt(repr(parameters))}", called
    return "", called


def _calls(turn: Turn, declared: set[str] | None) -> Iterator[Found]:
    calls, legacy = turn.get("tool_calls"), turn.get("function_call")
    if not calls and not legacy:
        return
    if turn.get("role") != "assistant":
        role = excerpt(repr(turn.get("role")))
        yield "tool-call-malformed", f"has tool calls and the role {role}"
        return
    if calls and not _list(calls):
        yield "tool-call-malformed", f"has tool_calls {excerpt(repr(calls))}"
        return
    seen: set[Any] = set()
    for call in _list(calls):
        key = call.get("id") if isinstance(call, Mapping) else None
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(key, str) or not key or key in seen or call.get("type") != "function":
            yield "tool-call-malformed", f"has the call {excerpt(repr(call))}"
        else:
            yield from _function(function, declared)
        seen.add(str(key))
    if legacy:
        yield from _function(legacy, declared)


def _function(function: Any, declared: set[str] | None) -> Iterator[Found]:
    called = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(called, str) or not called:
        yield "tool-call-malformed", f"calls {excerpt(repr(function))}"
        return
    if declared is not None and called not in declared:  # None: who can tell
        known = f"the tools are {excerpt(repr(sorted(declared)))}" if declared else "it has none"
        yield "tool-unknown", f"calls {excerpt(called)!r}; {known}"
    arguments = function.get("arguments")
    if not isinstance(arguments, str) or not _is_object(arguments):
        yield "tool-arguments", f"calls {excerpt(called)!r} with {excerpt(repr(arguments))}"


def _list(value: Any) -> Sequence[Any]:
    return cast(Sequence[Any], value) if isinstance(value, list | tuple) else ()


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _keys(turn: Turn) -> Iterator[str]:
    """What the answers to a turn's calls must name: ids, or for the old form the function."""
    calls = turn.get("tool_calls")
    for call in _list(calls):
        if isinstance(call, Mapping) and isinstance(call.get("id"), str):
            yield call["id"]
    legacy = turn.get("function_call")
    if isinstance(legacy, Mapping) and isinstance(legacy.get("name"), str):
        yield legacy["name"]
