"""A function in a text, the docstring in an answer, and what a Google-style docstring says.

The sections are those of the Google Python Style Guide, section 3.8.3.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

_FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.M | re.S)
_START = re.compile(r"^(?:import |from \w|@\w|def \w)", re.M)
_DEF = re.compile(r"^(?:async )?def \w+\s*\(", re.M)
_QUOTED = re.compile(r"[rR]?(\"\"\"|''')(.*?)(?:\1|\Z)", re.S)
_SECTION = re.compile(
    r"(Args|Arguments|Parameters|Returns?|Yields?|Raises|Examples?|Notes?|Warnings?|See Also|"
    r"Todo|References|Attributes):\s*$"
)
_ENTRY = re.compile(r"\*{0,2}([A-Za-z_][\w.]*)\s*(?:\([^)]*\))?\s*:")


@dataclass(frozen=True)
class Function:
    """A function without its docstring. `source` has the imports that stand before it."""

    source: str
    name: str

    @cached_property
    def node(self) -> ast.FunctionDef:
        """Its definition, not to be changed."""
        return _definitions(ast.parse(self.source))[self.name]


@dataclass(frozen=True)
class Answer:
    """What an answer says: a docstring, "" where there is none, and whether the code is the same.

    An answer that is a docstring alone leaves the code as it is.
    """

    docstring: str
    unchanged: bool


@dataclass(frozen=True)
class Documented:
    """What a docstring names, in its order; `result` is Returns, Yields or ""."""

    args: tuple[str, ...] = ()
    raises: tuple[str, ...] = ()
    result: str = ""


@lru_cache(maxsize=4096)
def read_function(text: str) -> Function | None:
    """The first function of a text, which may stand in a code fence; None where there is none.

    A docstring that it has is taken out.
    """
    for piece in _pieces(text):
        try:
            tree = ast.parse(piece)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        for name, node in _definitions(tree).items():
            return Function(_without_docstring(piece, node), name)
    return None


def read_answer(output: str, function: Function) -> Answer:
    """The docstring of an answer: its text alone, in quotes or in a fence, or of a whole function.

    Of several functions that one counts which is called as `function` is. A function that cannot
    be parsed, or of another name, is changed code.
    """
    pieces = list(_pieces(output))
    if not any(_DEF.search(piece) for piece in pieces):
        return Answer(_alone(output), True)
    for piece in pieces:
        try:
            node = _definitions(ast.parse(piece)).get(function.name)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        if node is not None:
            docstring = ast.get_docstring(node) or ""
            return Answer(docstring, _bare(node) == _bare(function.node))
    quoted = _QUOTED.search(output)
    return Answer(inspect.cleandoc(quoted[2]) if quoted else "", False)


def with_docstring(function: Function, docstring: str) -> str:
    """The function's code with this docstring in it; as it is where there is none."""
    if not docstring:
        return function.source
    source, first = function.source, function.node.body[0]
    if first.lineno == function.node.lineno:  # def f(x): return x
        source = ast.unparse(ast.parse(source))
        first = Function(source, function.name).node.body[0]
    indent = " " * first.col_offset
    end = "\n" if "\n" in docstring else ""
    text, prefix = docstring, "r" if "\\" in docstring else ""
    if '"""' in text or (not end and text.endswith('"')):
        text, prefix = text.replace("\\", "\\\\").replace('"', '\\"'), ""
    quoted = textwrap.indent(f'{prefix}"""{text}{end}"""', indent)
    lines = source.split("\n")
    lines.insert(first.lineno - 1, quoted)
    return "\n".join(lines)


def read_docstring(docstring: str) -> Documented:
    """What its sections Args, Returns or Yields, and Raises name."""
    args: list[str] = []
    raises: list[str] = []
    result = ""
    for section, lines in _sections(docstring):
        if section in ("Args", "Arguments", "Parameters"):
            args += _entries(lines)
        elif section == "Raises":
            raises += [name.rsplit(".", 1)[-1] for name in _entries(lines)]
        elif section.rstrip("s") in ("Return", "Yield") and any(map(str.strip, lines)):
            result = section.rstrip("s") + "s"
    return Documented(tuple(args), tuple(raises), result)


@lru_cache(maxsize=4096)
def of_function(function: Function) -> Documented:
    """What a docstring has to name: parameters, exceptions raised by name, and its result."""
    node = function.node
    known = node.args
    args = [a.arg for a in (*known.posonlyargs, *known.args)]
    args += [known.vararg.arg] if known.vararg else []
    args += [a.arg for a in known.kwonlyargs]
    args += [known.kwarg.arg] if known.kwarg else []
    raises: dict[str, None] = {}
    result = ""
    for part in _own_nodes(node):
        if isinstance(part, ast.Raise) and part.exc is not None:
            raised = part.exc.func if isinstance(part.exc, ast.Call) else part.exc
            raises[ast.unparse(raised).rsplit(".", 1)[-1]] = None
        elif isinstance(part, ast.Yield | ast.YieldFrom):
            result = "Yields"
        elif isinstance(part, ast.Return) and not _is_nothing(part.value):
            result = result or "Returns"
    return Documented(tuple(args), tuple(raises), result)


def agreement(docstring: str, function: Function) -> tuple[int, tuple[str, ...]]:
    """(facts looked at, those on which docstring and code disagree, in words).

    The facts: each parameter and each argument documented; the order of arguments, where two or
    more of them are parameters; the result, where either has one; each exception raised by name
    and each documented.
    """
    said, true = read_docstring(docstring), of_function(function)
    faults: list[str] = []
    facts = 0
    for what, ours, theirs in (
        ("Args", said.args, true.args),
        ("Raises", said.raises, true.raises),
    ):
        names = dict.fromkeys((*theirs, *ours))
        facts += len(names)
        faults += [f"{what}: {n} is not documented" for n in names if n not in ours]
        faults += [f"{what}: {n} is not in the code" for n in names if n not in theirs]
    common = [name for name in said.args if name in true.args]
    if len(common) > 1:
        facts += 1
        in_order = [name for name in true.args if name in common]
        faults += [] if common == in_order else ["Args: not in the order of the code"]
    if said.result or true.result:
        facts += 1
        if said.result != true.result:
            faults.append(f"{said.result or 'no result'} documented, {true.result or 'none'} due")
    return facts, tuple(faults)


def _pieces(text: str) -> Iterator[str]:
    """What of a text may be code: its fenced blocks, or it from its first line of code on."""
    fenced = _FENCE.findall(text)
    for block in fenced:
        if _DEF.search(block):
            yield block
    if fenced:
        return
    start = _START.search(text)
    if start and _DEF.search(text):
        yield text[start.start() :]


def _alone(output: str) -> str:
    """A docstring that is no function's: out of its fence and its quotation marks."""
    fenced = _FENCE.search(output)
    text = fenced[1] if fenced else output
    quoted = _QUOTED.search(text)
    return inspect.cleandoc(quoted[2] if quoted else text).strip()


def _definitions(tree: ast.Module) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def _without_docstring(source: str, node: ast.FunctionDef) -> str:
    """The source without the function's docstring, otherwise as it is written."""
    if ast.get_docstring(node) is None:
        return source.strip("\n") + "\n"
    if len(node.body) == 1 or node.body[1].lineno <= (node.body[0].end_lineno or 0):
        tree = ast.parse(source)
        body = _definitions(tree)[node.name].body
        body[:1] = [] if len(body) > 1 else [ast.Pass()]
        return ast.unparse(tree) + "\n"
    first = node.body[0]
    lines = source.split("\n")
    del lines[first.lineno - 1 : first.end_lineno]
    return "\n".join(lines).strip("\n") + "\n"


def _bare(node: ast.FunctionDef) -> str:
    """The definition without docstrings, its own and those of functions in it."""
    copy = ast.parse(ast.unparse(node))
    for part in ast.walk(copy):
        if isinstance(part, ast.FunctionDef) and ast.get_docstring(part) is not None:
            part.body = part.body[1:] or [ast.Pass()]
    return ast.dump(copy)


def _own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function's body, without those of functions in it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(
            child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef
        ):
            yield child
            yield from _own_nodes(child)


def _is_nothing(value: ast.expr | None) -> bool:
    return value is None or (isinstance(value, ast.Constant) and value.value is None)


def _sections(docstring: str) -> Iterator[tuple[str, list[str]]]:
    """(name, lines below it) of each section."""
    name, lines = "", list[str]()
    for line in inspect.cleandoc(docstring).split("\n"):
        found = _SECTION.match(line)
        if found or (line.strip() and not line.startswith((" ", "\t"))):
            if name:
                yield name, lines
            name, lines = (found[1] if found else ""), []
        else:
            lines.append(line)
    if name:
        yield name, lines


def _entries(lines: list[str]) -> list[str]:
    """The names before the colons of a section's entries; deeper lines go on with an entry."""
    written = [line for line in lines if line.strip()]
    depths = [len(line) - len(line.lstrip()) for line in written]
    least = min(depths, default=0)
    entries = [line.strip() for line, depth in zip(written, depths, strict=True) if depth == least]
    return [found[1] for entry in entries if (found := _ENTRY.match(entry))]
