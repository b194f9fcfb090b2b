"""The rows of the task docstrings, from the functions in the folder beside this file.

Each function is one row: its code without the docstring, with the imports that it needs, is the
question, and the docstring the answer. `calls` are made of its examples by changing one argument
each, so that changed versions of the function can be told from it by more than the examples.
"""

from __future__ import annotations

import ast
import copy
import json
from collections.abc import Iterator
from pathlib import Path

from tunelm.scoring.code_run import is_call
from tunelm.scoring.docstring_examples import read_examples
from tunelm.scoring.docstring_parse import Function, read_function

SOURCES = Path(__file__).with_suffix("")
FILE = "docstrings.jsonl"
MOST_CALLS, LONGEST_CALL = 6, 80


def build(target: Path) -> None:
    """Write the rows into the folder `target`."""
    rows = [row for path in sorted(SOURCES.glob("*.py")) for row in rows_of(path)]
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (target / FILE).write_text("".join(lines), encoding="utf-8", newline="\n")


def rows_of(path: Path) -> Iterator[dict[str, object]]:
    """The rows of one source file, in its order."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef):
            continue
        first = node.decorator_list[0] if node.decorator_list else node
        code = "\n".join(source.split("\n")[first.lineno - 1 : node.end_lineno])
        head = "\n".join(line for i in imports if (line := needed(i, node)))
        function = read_function(f"{head}\n\n\n{code}\n" if head else f"{code}\n")
        docstring = ast.get_docstring(node)
        assert function is not None, node.name
        assert docstring is not None, node.name
        yield {
            "question": function.source.rstrip("\n"),
            "answer": docstring,
            "calls": other_calls(docstring, function),
            "group": f"{path.stem}/{node.name}",
        }


def needed(statement: ast.Import | ast.ImportFrom, node: ast.FunctionDef) -> str:
    """The import with only those names that the function uses; "" where there are none."""
    used = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    statement = copy.deepcopy(statement)
    statement.names = [a for a in statement.names if (a.asname or a.name) in used]
    return ast.unparse(statement) if statement.names else ""


def other_calls(docstring: str, function: Function) -> list[str]:
    """Calls that differ from those of the examples in one argument, one example after the other."""
    examples = [example.call for example in read_examples(docstring, function.name)[0]]
    made = [list(changed_calls(call, function.name)) for call in examples]
    mixed = [calls[i] for i in range(max(map(len, made), default=0)) for calls in made if calls[i:]]
    usable = [
        call
        for call in dict.fromkeys(mixed)
        if call not in examples and len(call) <= LONGEST_CALL and is_call(call, function.name)
    ]
    return usable[:MOST_CALLS]


def changed_calls(call: str, name: str) -> Iterator[str]:
    """The call with one argument changed at a time: another number, a shorter text or list."""
    tree = ast.parse(call, mode="eval")
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and ast.unparse(node.func) == name):
            continue
        for keyword_or_none, argument in arguments(node):
            for other in changed(argument):
                keep = (node.args[:], [k.value for k in node.keywords])
                if keyword_or_none is None:
                    node.args = [other if a is argument else a for a in node.args]
                else:
                    keyword_or_none.value = other
                yield ast.unparse(tree)
                node.args = keep[0]
                for keyword, value in zip(node.keywords, keep[1], strict=True):
                    keyword.value = value


def arguments(node: ast.Call) -> list[tuple[ast.keyword | None, ast.expr]]:
    """Its arguments, with the keyword they are given by."""
    return [*((None, a) for a in node.args), *((k, k.value) for k in node.keywords)]


def changed(node: ast.expr) -> Iterator[ast.expr]:
    """Other values of the same kind."""
    match node:
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield ast.Constant(value + 1)
            yield ast.Constant(value - 1 if value > 1 else 2 * value + 3)
        case ast.Constant(value=str(value)) if len(value) > 1:
            yield ast.Constant(value[:-1])
            yield ast.Constant(value[1:] + value[0])
        case ast.List(elts=items) | ast.Tuple(elts=items) if len(items) > 1:
            for part in (items[:-1], items[::-1]):
                yield type(node)(part, ast.Load())
        case ast.Dict(keys=keys, values=values) if len(keys) > 1:
            yield ast.Dict(keys[1:], values[1:])
        case _:
            return
