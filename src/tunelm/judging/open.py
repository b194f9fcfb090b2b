"""A judge by its name: the one door through which commands and reports get one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunelm.judging.judge import Judge
from tunelm.models.base import ChatModel


def open_judge(
    target: str | Path, model: Callable[[str], ChatModel] | None = None, **settings: Any
) -> Judge:
    """A learned judge's folder, or a language model's name, `llm:TARGET:DIMENSION`.

    Args:
        target: which judge.
        model: opens a language model by its TARGET; None: as `[model].base` of a task.
        settings: further ones of a language model's judge.

    Raises:
        ConfigError: neither a folder with a judge nor the name of a language model.
        ModelError: the judge is damaged.
    """
    if isinstance(target, str) and not Path(target).is_dir():
        from tunelm.judging.llm import open_llm_judge

        return open_llm_judge(target, model, **settings)
    from tunelm.judging.learned import open_learned

    return open_learned(Path(target))
