"""Models: one protocol, and the engines behind it, loaded when they are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunelm.config import ModelConfig
    from tunelm.models.base import ChatModel


def open_model(config: ModelConfig, adapter: Path | None = None) -> ChatModel:
    """The model a config names, with an adapter on it if one is given.

    Raises ModelError when it cannot be loaded, PrerequisiteError when an extra is missing.
    """
    from tunelm.models.local import open_local

    return open_local(config, adapter)
