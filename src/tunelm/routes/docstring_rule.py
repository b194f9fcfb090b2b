"""A docstring by rule: what a function's signature says, and examples made by running it.

Form, arguments and examples are right by construction, where it can run the function. What it is
for, the rule does not know: its sentences are the names in the code, written out.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence

from tunelm.scoring.code_run import Outcome, run_calls, why_not_run
from tunelm.scoring.docstring_parse import Documented, Function, of_function, read_function

_QUESTIONS = ("is", "has", "are", "can")
_VERBS = (
    "add apply build check choose chunk clamp clean count decode encode evaluate "
    "extract find flatten format get group hide insert interleave invert join list make mask merge "
    "mix move normalize number parse partition pick read remove rename reverse rotate round run "
    "scale schedule set split squeeze strip swap take transcribe transpose truncate"
)
_VALUES: Mapping[str, tuple[str, ...]] = {
    "int": ("3", "10", "7", "1", "0", "-1"),
    "float": ("2.5", "4.0", "10.0", "1.0", "0.0", "-1.0"),
    "str": ("'level'", "'Hello world'", "'a-b c'", "'12'", "'x'", "''"),
    "bool": ("True", "False"),
    "bytes": ("b'ab'", "b''"),
    "date": ("date(2024, 2, 28)", "date(2024, 5, 1)", "date(2023, 12, 31)"),
    "object": ("1", "'a'", "None"),
}
"""Literals for a hint. The last ones are often refused, which makes an example of an error."""
_WITHOUT_HINT = ("int", "str", "list[int]", "list[str]", "float")
_MOST_VALUES, _LONGEST = 2, 80


def reply(message: str) -> str:
    """The docstring of the function in a message.

    Raises:
        ValueError: there is none.
    """
    function = read_function(message)
    if function is None:
        raise ValueError(
            f"no Python function was found in {message[:60]!r}; write it from its def on, or in a "
            "code fence"
        )
    known = of_function(function)
    parts = [_summary(function.name)]
    if known.args:
        hints = _hints(function.node)
        parts.append("Args:\n" + "\n".join(_argument(n, hints.get(n)) for n in known.args))
    if known.result:
        hint = function.node.returns
        kind = f", as {ast.unparse(hint)}" if hint else ""
        parts.append(f"{known.result}:\n    The result{kind}.")
    if known.raises:
        parts.append("Raises:\n" + "\n".join(_raised(function.node, n) for n in known.raises))
    examples = _examples(function, known)
    if examples:
        parts.append("Examples:\n" + "\n".join(f"    {line}" for line in examples))
    return "\n\n".join(parts)


def _summary(name: str) -> str:
    words = name.strip("_").split("_")
    said = " ".join(words)
    if words[0] in _QUESTIONS:
        return f"Tell whether it {said}."
    if words[0] in _VERBS.split():
        return f"{said.capitalize()}."
    return f"Compute the {said}."


def _argument(name: str, hint: ast.expr | None) -> str:
    kind = f", as {ast.unparse(hint)}" if hint else ""
    return f"    {name}: The {name.strip('_').replace('_', ' ')}{kind}."


def _raised(node: ast.FunctionDef, name: str) -> str:
    """The exception, and the condition under which it stands in the code."""
    for part in ast.walk(node):
        if isinstance(part, ast.If) and any(name in _names(s) for s in part.body):
            return f"    {name}: If {ast.unparse(part.test)}."
    return f"    {name}: In the end."


def _names(statement: ast.stmt) -> set[str]:
    if not isinstance(statement, ast.Raise):
        return set()
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}


def _hints(node: ast.FunctionDef) -> dict[str, ast.expr]:
    known = node.args
    every = (*known.posonlyargs, *known.args, *known.kwonlyargs)
    return {a.arg: a.annotation for a in every if a.annotation}


def _examples(function: Function, known: Documented) -> list[str]:
    """Lines of doctest: two calls that give something, and one that is refused, if found."""
    try:
        why = why_not_run(function.source)
    except (RecursionError, MemoryError):
        return []
    calls = list(dict.fromkeys(_calls(function, known)))
    if why or not calls:
        return []
    first, again = run_calls([function.source] * 2, calls)
    if first is None or again is None:
        return []
    steady = [(c, one) for c, one, two in zip(calls, first, again, strict=True) if one == two]
    shown: dict[str, str] = {}
    for call, (kind, text) in steady:
        if kind == "value" and _can_be_shown(text) and len(shown) < _MOST_VALUES:
            shown.setdefault(text, call)
    lines = [line for text, call in shown.items() for line in (f">>> {call}", text.strip())]
    return lines + _refused(steady, known.raises)


def _can_be_shown(text: str) -> bool:
    return bool(text.strip()) and text.count("\n") == 1 and len(text) <= _LONGEST


def _refused(outcomes: Sequence[tuple[str, Outcome]], raises: Sequence[str]) -> list[str]:
    for call, (kind, text) in outcomes:
        if kind == "raise" and text.split(":")[0] in raises and "\n" not in text:
            return [f">>> {call}", "Traceback (most recent call last):", "    ...", text]
    return []


def _calls(function: Function, known: Documented) -> Iterator[str]:
    """Calls with a literal for each argument that has no default."""
    node = function.node
    needed = [*node.args.posonlyargs, *node.args.args]
    needed = needed[: len(needed) - len(node.args.defaults)]
    guesses = _WITHOUT_HINT if any(a.annotation is None for a in needed) else ("",)
    for guess in guesses:
        hints = [a.annotation or ast.parse(guess, mode="eval").body for a in needed]
        choices = [_values(hint) for hint in hints]
        if not all(choices):
            continue
        for turn in range(max(map(len, choices), default=1)):
            picked = [c[(turn + place) % len(c)] for place, c in enumerate(choices)]
            call = f"{function.name}({', '.join(picked)})"
            yield f"list({call})" if known.result == "Yields" else call


def _values(hint: ast.expr) -> tuple[str, ...]:
    """Literals of a type, as Python writes them; none where the hint says nothing known."""
    match hint:
        case ast.BinOp(left=left):
            return _values(left)
        case ast.Name(id="list"):
            return _values(ast.parse("list[int]", mode="eval").body)
        case ast.Name(id="dict"):
            return _values(ast.parse("dict[str, int]", mode="eval").body)
        case ast.Name(id=name):
            return _VALUES.get(name, ())
        case ast.Subscript(value=ast.Name(id="dict" | "Mapping"), slice=ast.Tuple(elts=[k, v])):
            keys, values = _values(k), _values(v)
            if not keys or not values:
                return ()
            pairs = zip(keys[:2], [*values, *values][:2], strict=False)
            return ("{" + ", ".join(f"{key}: {value}" for key, value in pairs) + "}", "{}")
        case ast.Subscript(value=ast.Name(id="tuple"), slice=ast.Tuple(elts=parts)):
            items = [_values(part) for part in parts]
            if not all(items):
                return ()
            return tuple(
                "(" + ", ".join(c[(turn + i) % len(c)] for i, c in enumerate(items)) + ")"
                for turn in range(3)
            )
        case ast.Subscript(value=ast.Name(id=name), slice=inner):
            items = _values(inner)
            if name == "set":
                return ("{" + ", ".join(items[:3]) + "}",) if items else ()
            return _lists(items) if items else ()
        case _:
            return ()


def _lists(items: Sequence[str]) -> tuple[str, ...]:
    """Short lists of the items, the empty one last."""
    first, second, third = [*items, *items, *items][:3]
    found = ([first, second, third], [second, second, first], [third], [])
    return tuple("[" + ", ".join(members) + "]" for members in found)
