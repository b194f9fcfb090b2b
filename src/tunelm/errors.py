"""Every error tunelm raises on purpose, in one tree.

    TunelmError
    ├── ConfigError        a task file, a flag or an argument is wrong            (exit code 2)
    ├── DataError          rows on disk are wrong; carries every problem found
    ├── PrerequisiteError  something is missing: an extra, a key, a GPU, a file
    ├── RunDirError        a run directory exists, differs or is in use
    ├── ModelError         a model cannot be loaded, or cannot do what was asked
    ├── TrainingError      training failed, or made something that must not be saved
    └── BudgetError        going on would spend more than was allowed

A message says what was got, what is valid, and how to mend it. The command line prints it
without a traceback. Each class also inherits the standard class it stands for, so callers
who do not know tunelm catch what they expect.
"""

from __future__ import annotations

from collections.abc import Sequence


class TunelmError(Exception):
    """Root of the tree. `exit_code` is what the command line returns."""

    exit_code = 1


class ConfigError(TunelmError, ValueError):
    """A task file, a flag or an argument is wrong."""

    exit_code = 2


class DataError(TunelmError, ValueError):
    """Rows on disk are wrong.

    `problems` holds one line per fault, each starting with `file:line:`.
    """

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        shown = list(self.problems[:20])
        if len(self.problems) > len(shown):
            shown.append(f"... and {len(self.problems) - len(shown)} more")
        super().__init__("\n".join(shown))


class PrerequisiteError(TunelmError, RuntimeError):
    """Something this machine or environment lacks; the message says how to get it."""


class RunDirError(TunelmError, RuntimeError):
    """A run directory exists already, holds another run, or is being written."""


class ModelError(TunelmError, RuntimeError):
    """A model cannot be loaded, or lacks the capability that was asked for."""


class TrainingError(TunelmError, RuntimeError):
    """Training failed, or what it made must not be used (NaN, empty mask, no movement)."""


class StoppedError(TrainingError):
    """Somebody asked a training to stop; a checkpoint was written, and it can go on later."""

    exit_code = 130


class BudgetError(TunelmError, RuntimeError):
    """Going on would spend more than the budget allows, or an unknown amount."""
