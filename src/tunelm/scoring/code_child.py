"""Runs a function, and changed versions of it, in a process of its own. Standard library only.

It is started by its path (see tunelm.scoring.code_run), in an empty folder and with an empty
environment, and imports nothing of tunelm. It reads one JSON object, {"modules", "sources",
"calls"}, and writes a line for each source: what each call of it came to.

The code sees the builtins and the names of modules listed here, and no others; what may stand in it
is checked before it gets here.
"""

from __future__ import annotations
import __future__

import builtins
import importlib
import io
import json
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from types import CodeType, FrameType, SimpleNamespace
from typing import Any

CPU_SECONDS, MEMORY_BYTES = 2, 512 * 2**20
STEPS = 10_000
"""Most lines that a call may take: the same end on every machine, however fast."""
LONGEST = 5_000
"""Characters of an outcome that are kept."""

NAMES: Mapping[str, str] = {
    "math": "",
    "re": "compile escape findall finditer fullmatch match search split sub subn I IGNORECASE "
    "M MULTILINE",
    "datetime": "date datetime time timedelta timezone",
    "itertools": "accumulate chain combinations count cycle dropwhile groupby islice pairwise "
    "permutations product repeat starmap takewhile zip_longest",
    "functools": "reduce",
    "collections": "Counter OrderedDict defaultdict deque",
    "collections.abc": "Callable Hashable Iterable Iterator Mapping Sequence",
    "typing": "Any Optional Union",
    "string": "ascii_letters ascii_lowercase ascii_uppercase digits hexdigits punctuation",
    "statistics": "fmean geometric_mean harmonic_mean mean median mode multimode pstdev pvariance "
    "stdev variance",
    "fractions": "Fraction",
    "decimal": "Decimal ROUND_DOWN ROUND_HALF_EVEN ROUND_HALF_UP ROUND_UP",
    "calendar": "isleap monthrange",
    "bisect": "bisect_left bisect_right insort",
    "heapq": "heapify heappop heappush merge nlargest nsmallest",
    "textwrap": "dedent fill indent shorten wrap",
    "unicodedata": "category combining name normalize",
}
"""Module -> what of it may be used; "" is all that is public."""

BUILTINS = (
    "abs all any bin bool bytes chr dict divmod enumerate filter float frozenset hex int "
    "isinstance iter len list map max min next oct ord pow print range repr reversed round set "
    "slice sorted str sum tuple zip ArithmeticError AttributeError Exception IndexError KeyError "
    "LookupError NotImplementedError OverflowError RuntimeError StopIteration TypeError "
    "UnicodeError ValueError ZeroDivisionError"
)

OWN = "<row>"


class TooLong(BaseException):
    """A call took more than STEPS lines."""


def main() -> None:
    """Run what stdin asks for."""
    job = json.load(sys.stdin)
    allowed = open_builtins(job["modules"])
    set_limits()
    for source in job["sources"]:
        print(json.dumps(outcomes(source, job["calls"], allowed)), flush=True)


def set_limits() -> None:
    """Processor time, memory, and no file and no process; where the platform has such limits."""
    try:
        import resource
    except ImportError:  # Windows: only the steps and the parent's clock are left
        return
    for name, most in (
        ("RLIMIT_CPU", CPU_SECONDS),
        ("RLIMIT_AS", MEMORY_BYTES),
        ("RLIMIT_FSIZE", 0),
        ("RLIMIT_NPROC", 0),
    ):
        with suppress(AttributeError, ValueError, OSError):  # macOS has not all of them
            resource.setrlimit(getattr(resource, name), (most, most))


def open_builtins(modules: Sequence[str]) -> dict[str, Any]:
    """The builtins that code sees; `import` finds these modules, and of them what NAMES says."""
    found: dict[str, Any] = {}
    for name in modules:
        module = importlib.import_module(name)
        names = NAMES[name].split() or [n for n in vars(module) if not n.startswith("_")]
        found[name] = SimpleNamespace(**{n: getattr(module, n) for n in names})

    def find(name: str, *rest: Any) -> Any:
        if name not in found:
            raise ImportError(f"{name} is not there")
        return found[name]

    return {name: getattr(builtins, name) for name in BUILTINS.split()} | {"__import__": find}


def outcomes(source: str, calls: Sequence[str], allowed: Mapping[str, Any]) -> list[list[str]]:
    """What each call came to: ["value", what is shown], ["raise", message] or ["long", ""].

    What is shown is what Python's prompt shows: what was printed, and the value's repr.
    """
    space: dict[str, Any] = {"__builtins__": dict(allowed), "__name__": "row"}
    flags = __future__.annotations.compiler_flag
    try:
        code = compile(source, OWN, "exec", flags=flags, dont_inherit=True)
        with counted_steps():
            exec(code, space)
    except (Exception, TooLong) as error:
        return [["raise", shown_error(error)] for _ in calls]
    return [outcome(compile(call, OWN, "eval", dont_inherit=True), space) for call in calls]


def outcome(call: CodeType, space: dict[str, Any]) -> list[str]:
    """What one call came to."""
    printed = io.StringIO()
    try:
        with redirect_stdout(printed), counted_steps():
            value = eval(call, space)
        text = printed.getvalue() + ("" if value is None else f"{value!r}\n")
    except TooLong:
        return ["long", ""]
    except Exception as error:
        return ["raise", shown_error(error)]
    return ["value", text[:LONGEST]]


def shown_error(error: BaseException) -> str:
    """The last line of its traceback."""
    kind, said = type(error), str(error)
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", "__main__"):
        name = f"{kind.__module__}.{name}"
    return (f"{name}: {said}" if said else name)[:LONGEST]


@contextmanager
def counted_steps() -> Generator[None]:
    """Raises TooLong in the row's own code once it has taken STEPS lines."""
    left = STEPS

    def step(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename != OWN:
            return None
        left -= 1
        if left < 0:
            raise TooLong
        return step

    sys.settrace(step)
    try:
        yield
    finally:
        sys.settrace(None)


if __name__ == "__main__":
    main()
