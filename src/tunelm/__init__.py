"""Adapt a language model every way there is, and learn which way to ship.

    import tunelm
    report = tunelm.compare("edu-qa")
    model = tunelm.load("runs/edu-qa-20260101-120000")

Importing this loads nothing heavy: each name is imported at its first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunelm.config import Config, load_config
    from tunelm.errors import TunelmError
    from tunelm.models.base import ChatModel
    from tunelm.pipeline import compare
    from tunelm.routes import KINDS
    from tunelm.scoring.metrics import METRICS
    from tunelm.target import load
    from tunelm.types import Completion, Example, Message, Prediction, Request, Score, Usage

_WHERE = {
    "KINDS": "tunelm.routes",
    "METRICS": "tunelm.scoring.metrics",
    "ChatModel": "tunelm.models.base",
    "Completion": "tunelm.types",
    "Config": "tunelm.config",
    "Example": "tunelm.types",
    "Message": "tunelm.types",
    "Prediction": "tunelm.types",
    "Request": "tunelm.types",
    "Score": "tunelm.types",
    "TunelmError": "tunelm.errors",
    "Usage": "tunelm.types",
    "compare": "tunelm.pipeline",
    "load": "tunelm.target",
    "load_config": "tunelm.config",
}

__all__ = [
    "KINDS",
    "METRICS",
    "ChatModel",
    "Completion",
    "Config",
    "Example",
    "Message",
    "Prediction",
    "Request",
    "Score",
    "TunelmError",
    "Usage",
    "compare",
    "load",
    "load_config",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'tunelm' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return __all__
