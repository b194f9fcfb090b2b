"""First-order mutants: a function with one small change each, as a careless reader might take it.

The operators are the usual ones of mutation testing (arithmetic, comparison and logical operators,
constants, conditions, returned values, arguments), as surveyed by Jia and Harman, "An Analysis and
Survey of the Development of Mutation Testing", IEEE TSE 37 (5), 2011.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator, Mapping

MOST = 30
"""Most mutants of one function; of more, those are taken that lie evenly spread."""

Edit = Callable[[ast.AST], None]

_OPERATORS: Mapping[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
_COMPARISONS: Mapping[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
_PAIRS = (
    ("min", "max"),
    ("any", "all"),
    ("floor", "ceil"),
    ("lower", "upper"),
    ("startswith", "endswith"),
    ("lstrip", "rstrip"),
    ("find", "rfind"),
    ("append", "extend"),
)
_TWINS = {one: other for pair in _PAIRS for one, other in (pair, pair[::-1])}


def mutants(source: str, name: str) -> list[str]:
    r"""The code with one change each to the function `name`; at most MOST, none of them twice.

    Hints, decorators, docstrings and what a `raise` says stay as they are.

    >>> mutants("def f(a): return a + 1", "f")[1]
    'def f(a):\n    return a - 1'
    """
    tree = ast.parse(source)
    function = next(
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name
    )
    made: dict[str, None] = {}
    for node in _changeable(function):
        for edit in _edits(node):
            memo: dict[int, ast.AST] = {}
            changed = copy.deepcopy(tree, memo)
            edit(memo[id(node)])
            made[ast.unparse(ast.fix_missing_locations(changed))] = None
    made.pop(ast.unparse(tree), None)
    found = list(made)
    if len(found) <= MOST:
        return found
    return [found[round(i * (len(found) - 1) / (MOST - 1))] for i in range(MOST)]


def _changeable(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that decide what a function does, in their order."""
    if isinstance(node, ast.Raise):
        return
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    yield node
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _changeable(child)


def _edits(node: ast.AST) -> Iterator[Edit]:
    """The changes that can be made to a copy of this node."""
    match node:
        case ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in _OPERATORS:
            yield _setting("op", _OPERATORS[type(op)]())
        case ast.Compare(ops=ops):
            for place, op in enumerate(ops):
                new = [*ops[:place], _COMPARISONS[type(op)](), *ops[place + 1 :]]
                yield _setting("ops", new)
        case ast.BoolOp(op=op):
            yield _setting("op", ast.Or() if isinstance(op, ast.And) else ast.And())
        case ast.UnaryOp(op=ast.USub()):
            yield _setting("op", ast.UAdd())
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield _setting("operand", ast.UnaryOp(ast.Not(), operand))
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            yield _setting("test", ast.UnaryOp(ast.Not(), test))
        case ast.comprehension(ifs=[first, *rest]):
            yield _setting("ifs", rest)
            yield _setting("ifs", [ast.UnaryOp(ast.Not(), first), *rest])
        case ast.Return(value=value) if value is not None:
            yield _setting("value", ast.Constant(None))
        case ast.Slice():
            for field in ("lower", "upper"):
                bound = getattr(node, field)
                if bound and not _is_number(bound):
                    yield _setting(field, _plus_one(bound))
        case ast.Call():
            yield from _call_edits(node)
        case ast.Attribute(attr=attr) if attr in _TWINS:
            yield _setting("attr", _TWINS[attr])
        case ast.Name(id=name) if name in _TWINS:
            yield _setting("id", _TWINS[name])
        case ast.Constant(value=value):
            for other in _other_values(value):
                yield _setting("value", other)
        case _:
            return


def _call_edits(node: ast.Call) -> Iterator[Edit]:
    if len(node.args) > 1:
        yield _setting("args", [node.args[1], node.args[0], *node.args[2:]])
    if isinstance(node.func, ast.Name) and node.func.id == "range":
        stop = min(1, len(node.args) - 1)
        if not _is_number(node.args[stop]):
            later = [*node.args[:stop], _plus_one(node.args[stop]), *node.args[stop + 1 :]]
            yield _setting("args", later)


def _other_values(value: object) -> tuple[object, ...]:
    match value:
        case bool():
            return (not value,)
        case int():
            return (value + 1, value - 1)
        case float():
            return (value + 1.0,)
        case str():
            return ("",) if value else ("x",)
        case _:
            return ()


def _is_number(node: ast.expr) -> bool:
    """Whether it is a number as it stands, which has changes of its own."""
    if isinstance(node, ast.UnaryOp):
        node = node.operand
    return isinstance(node, ast.Constant)


def _plus_one(node: ast.expr) -> ast.expr:
    return ast.BinOp(node, ast.Add(), ast.Constant(1))


def _setting(field: str, value: object) -> Edit:
    def edit(node: ast.AST) -> None:
        setattr(node, field, value)

    return edit
