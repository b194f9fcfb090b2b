"""Functions of a task's rows are run here, within limits, and never anything that a model wrote.

A function may use a part of Python (`why_not_run`), the builtins and the modules of
tunelm.scoring.code_child. It runs in a process of its own: an empty folder, an empty environment,
limits on processor time, memory, files and processes where the platform has them (Windows has
not), and a wall clock. Calls are expressions of literals (`is_call`).
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, cast

from tunelm.scoring.code_child import NAMES

CHILD = Path(__file__).with_name("code_child.py")
SECONDS = 20
"""Wall time of all runs of one function. Its processor time is limited far below."""

_FORBIDDEN = (
    ast.ClassDef,
    ast.AsyncFunctionDef,
    ast.AsyncFor,
    ast.AsyncWith,
    ast.Await,
    ast.With,
    ast.Global,
    ast.MatchClass,
)
_INNER = ("_", "gi_", "cr_", "ag_", "tb_", "f_", "co_")
"""What attributes that lead out of the code begin with."""

_IN_CALLS = (
    ast.Expression,
    ast.Call,
    ast.Name,
    ast.Load,
    ast.Constant,
    ast.List,
    ast.Tuple,
    ast.Set,
    ast.Dict,
    ast.UnaryOp,
    ast.USub,
    ast.UAdd,
    ast.Not,
    ast.BinOp,
    ast.Add,
    ast.Sub,
    ast.Mult,
    ast.Div,
    ast.Compare,
    ast.cmpop,
    ast.Subscript,
    ast.Slice,
    ast.keyword,
)
CALLED = (
    "abs bool dict float frozenset int len list max min repr round set sorted str sum tuple "
    "Counter Decimal Fraction date datetime deque time timedelta"
)
"""What a call may call beside the function itself: builtins, and classes that the row imports."""


class Outcome(NamedTuple):
    """What a call came to. `kind` is value, raise or long; `text` as Python's prompt shows it."""

    kind: str
    text: str


@lru_cache(maxsize=4096)
def why_not_run(source: str) -> str | None:
    """Why this code is not run, in words; None where it may be.

    >>> why_not_run("import os")
    "it imports 'os'"
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, _FORBIDDEN):
            return f"it holds {type(node).__name__}"
        if isinstance(node, ast.Attribute) and node.attr.startswith(_INNER):
            return f"it uses the attribute {node.attr!r}"
        if isinstance(node, ast.Name) and node.id.startswith("__"):
            return f"it uses {node.id!r}"
        for name in imported(node):
            if name not in NAMES:
                return f"it imports {name!r}"
    return None


def imported(node: ast.AST) -> list[str]:
    """The modules that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return ["." * node.level + (node.module or "")]
    return []


def is_call(text: str, name: str) -> bool:
    """Whether the text is an expression of literals and a call of the function `name`.

    Beside them it may hold signs of arithmetic (no powers), comparisons, indices, and calls of a
    few builtins and classes such as `sorted`, `round` and `date`.

    >>> is_call("sorted(f([2, -1]))", "f"), is_call("f(open('x'))", "f"), is_call("1 + 1", "f")
    (True, False, False)
    """
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    names = {id(node.func): node.func for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if not isinstance(node, _IN_CALLS) or (isinstance(node, ast.keyword) and not node.arg):
            return False
        if isinstance(node, ast.Name) and (
            id(node) not in names or node.id not in {name, *CALLED.split()}
        ):
            return False
    called = [node.id for node in names.values() if isinstance(node, ast.Name)]
    return len(called) == len(names) and name in called


def run_calls(sources: Sequence[str], calls: Sequence[str]) -> list[list[Outcome] | None]:
    """What each call comes to with each source; None for sources that were not reached in time.

    The caller has seen to it that `why_not_run` and `is_call` let them through.
    """
    if not calls:
        return [[] for _ in sources]
    tree = ast.parse(sources[0])
    modules = sorted({name for node in ast.walk(tree) for name in imported(node)})
    job = json.dumps({"modules": modules, "sources": list(sources), "calls": list(calls)})
    command = [sys.executable, "-s", "-P", "-S", "-B", str(CHILD)]
    kept = {n: os.environ[n] for n in ("SYSTEMROOT",) if n in os.environ}  # Windows needs it
    environment = {**kept, "PYTHONHASHSEED": "0", "PYTHONIOENCODING": "utf-8"}
    with tempfile.TemporaryDirectory() as folder:
        try:
            written = subprocess.run(
                command,
                input=job.encode("utf-8", "surrogatepass"),
                capture_output=True,
                cwd=folder,
                env=environment,
                timeout=SECONDS,
                check=False,
            ).stdout
        except subprocess.TimeoutExpired as late:
            written = late.stdout or b""
    lines = written.decode("utf-8", "replace").split("\n")[:-1]
    found = [[Outcome(*cast(Sequence[str], o)) for o in json.loads(line)] for line in lines]
    return [*found, *([None] * (len(sources) - len(found)))]
