"""What ruff finds wrong with docstrings: its rules D by Google's convention, and DOC.

DOC, after pydoclint, is in preview: https://docs.astral.sh/ruff/rules/#pydoclint-doc
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from tunelm.errors import PrerequisiteError

COMMAND = (
    "check --isolated --preview --select D,DOC --ignore D100 --ignore-noqa --no-cache --exit-zero "
    "--output-format json --target-version py311 --config lint.pydocstyle.convention='google' ."
)


def require_ruff() -> None:
    """Raise PrerequisiteError where ruff is not installed."""
    if find_spec("ruff") is None:
        raise PrerequisiteError(
            "checking docstrings needs ruff, which is not installed: pip install 'tunelm[code]'"
        )


def style_findings(sources: Sequence[str]) -> list[tuple[str, ...]]:
    """For each piece of code what ruff says of its docstrings, as "D417 Missing ...".

    Code that cannot be parsed has a finding, too. One call of ruff for all.

    Raises:
        PrerequisiteError: ruff is not installed, or does not run.
    """
    if not sources:
        return []
    require_ruff()
    with tempfile.TemporaryDirectory() as folder:
        for place, source in enumerate(sources):
            Path(folder, f"{place}.py").write_text(source, "utf-8", "backslashreplace", "\n")
        command = [sys.executable, "-m", "ruff", *COMMAND.split()]
        done = subprocess.run(command, capture_output=True, cwd=folder, check=False)
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().split("\n")[0]
        raise PrerequisiteError(
            f"ruff could not check the docstrings: {said}. Take another one: pip install -U ruff"
        )
    found: list[list[str]] = [[] for _ in sources]
    for finding in json.loads(done.stdout):
        place = int(Path(finding["filename"]).stem)
        found[place].append(f"{finding['code'] or 'syntax'} {finding['message']}")
    return [tuple(findings) for findings in found]
