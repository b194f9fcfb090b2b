"""The running interpreter's own documentation as a corpus: nothing is downloaded.

Two sources: the language topics that `help()` shows (`pydoc_data.topics`), a document each, and
the docstrings of the standard library, read from its source files without importing them, a
document a module. A paragraph of which a piece stands in an earlier document (topics quote
each other, and modules their base classes) is left out, so that no test document holds text
that was trained on. What it holds depends on the interpreter, so its version and the hash of the
text stand in the file's name, and with it in every result.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import platform
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from tunelm.errors import PrerequisiteError
from tunelm.rundir import cache_dir, write_text

LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"}
SHORTEST = 200
"""Characters; what has less to say is no document."""
PIECE = 8
"""Words in a row; a paragraph that shares as many with an earlier document is a quotation."""


def build_python_docs() -> Path:
    """Write the corpus into the cache folder, as JSONL with `text` and `group`; its path.

    Raises:
        PrerequisiteError: this interpreter came without its documentation or sources.
    """
    rows = [{"text": text, "group": name} for name, text in documents()]
    if len(rows) < 100:
        raise PrerequisiteError(
            f"this Python ({platform.python_version()}) has only {len(rows)} documents of its own: "
            "its pydoc topics or its standard library's sources are missing. Use a full "
            "installation of Python, or your own text in data.path."
        )
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    whole = "".join(lines)
    digest = hashlib.sha256(whole.encode()).hexdigest()[:12]
    path = cache_dir() / f"python-docs-{platform.python_version()}-{digest}.jsonl"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, whole)
    return path


def documents() -> Iterator[tuple[str, str]]:
    """(name, text) of each document, topics first, in an order that never changes."""
    seen: set[tuple[str, ...]] = set()
    for name, text in _sources():
        left = ""
        for paragraph in text.split("\n\n"):
            # with the end of the text so far: a quotation may be of several short paragraphs
            if not _pieces(f"{left[-200:]} {paragraph}") & seen:
                left += paragraph + "\n\n"
        left = left.strip()
        if len(left) >= SHORTEST:
            seen |= _pieces(left)
            yield name, left


def _pieces(text: str) -> set[tuple[str, ...]]:
    """Every PIECE words in a row, without case and punctuation."""
    words = re.findall(r"\w+", text.casefold())
    return {tuple(words[i : i + PIECE]) for i in range(len(words) - PIECE + 1)}


def _sources() -> Iterator[tuple[str, str]]:
    yield from _topics()
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if LEFT_OUT & set(parts):
            continue
        name = ".".join(parts).removesuffix(".py").removesuffix(".__init__")
        yield f"module {name}", _docstrings(path)


def _topics() -> Iterator[tuple[str, str]]:
    try:
        from pydoc_data.topics import topics
    except ImportError:
        return
    for name in sorted(topics):
        yield f"topic {name}", topics[name].strip()


def _docstrings(path: Path) -> str:
    """All docstrings of a source file, in order, a blank line apart."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return ""
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node, clean=False)
            if text and text.strip():
                found.append(inspect.cleandoc(text))
    return "\n\n".join(dict.fromkeys(found))  # a text repeated in one module stands there once
