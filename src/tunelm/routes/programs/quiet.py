"""DSPy without prints, bars, logs, and calls that are made twice. Imports DSPy."""

from __future__ import annotations

import importlib
import logging
import sys
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import tqdm
from dspy.utils.parallelizer import ParallelExecutor


class _NoBar(tqdm.tqdm):  # pyright: ignore[reportMissingTypeArgument]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "disable": True})


class _Once(ParallelExecutor):
    """DSPy submits a row again that takes more than two minutes: a slow one would be paid twice."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "timeout": 0})


def _nothing(*args: Any, **kwargs: Any) -> None:
    pass


_BARS = SimpleNamespace(tqdm=_NoBar)
_REPLACED: dict[str, dict[str, Any]] = {
    "dspy.teleprompt.random_search": {"print": _nothing},
    "dspy.teleprompt.bootstrap": {"print": _nothing, "tqdm": _BARS},
    "dspy.teleprompt.utils": {"print": _nothing},
    "dspy.propose.grounded_proposer": {"print": _nothing},
    "dspy.propose.utils": {"print": _nothing},
    "dspy.utils.parallelizer": {"tqdm": _BARS},
    "dspy.evaluate.evaluate": {"ParallelExecutor": _Once, "tqdm": _BARS},
    "dspy.predict.parallel": {"ParallelExecutor": _Once},
    "gepa.core.engine": {"tqdm": _NoBar},
}


@contextmanager
def quiet() -> Generator[None]:
    """Silence DSPy, which cannot be told to be silent, for a while.

    What prints is replaced where DSPy looks it up: redirecting stdout for the whole process
    would swallow the caller's own progress bar.
    """
    logger = logging.getLogger("dspy")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    before: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = []
    for module, replaced in _REPLACED.items():
        importlib.import_module(module)
        scope = vars(sys.modules[module])
        before.append((scope, replaced, {k: scope[k] for k in replaced if k in scope}))
        scope.update(replaced)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        for scope, replaced, old in before:
            for key in replaced:
                scope.pop(key)
            scope.update(old)
