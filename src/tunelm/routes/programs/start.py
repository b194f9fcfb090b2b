"""Where a program begins: its steps as the settings have them, before any search."""

from __future__ import annotations

from collections.abc import Sequence

from tunelm.config import TaskConfig
from tunelm.errors import ConfigError
from tunelm.route_settings import PromptSettings
from tunelm.routes.programs.program import Near, Program, Step
from tunelm.types import ZERO_USAGE

ANSWER = "answer"
"""The name of the last step, and of every step's last output."""
REASONING = "reasoning"

PASS = 0.9
"""What the model's own answer must score to become a demonstration.

A demonstration is taken for right. With answers in sentences a wrong fact in the right words
still reaches a token-F1 of .8 or more, so the bar stands above that; where nothing passes,
gold answers fill the prompt.
"""


def start_steps(settings: PromptSettings, task: TaskConfig) -> tuple[Step, ...]:
    """The steps of `settings.program`, without demonstrations.

    Raises ConfigError where named steps are missing, or have names that cannot be told apart.
    """
    if settings.program != "steps" and settings.steps:
        raise ConfigError(
            f"steps are given and program = {settings.program!r} has none: set program = 'steps'."
        )
    if settings.program == "cot":
        outputs = (REASONING, ANSWER)
        room = settings.reasoning_tokens
        return (Step(ANSWER, task.instructions, outputs, extra_tokens=room),)
    if settings.program == "steps" and not settings.steps:
        raise ConfigError(
            "program = 'steps' needs its steps: steps = [{name = ..., instructions = ...}]; the"
            " answer comes after them by itself."
        )
    names = [ANSWER, *(step.name for step in settings.steps)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(
            f"steps: the name {twice[0]!r} is taken: each step needs one of its own, and the last"
            f" step, which is added by itself, is {ANSWER!r}."
        )
    before = (
        Step(step.name, step.instructions, extra_tokens=settings.reasoning_tokens)
        for step in settings.steps
    )
    return (*before, Step(ANSWER, task.instructions))


def bare(steps: Sequence[Step], near: Near | None = None) -> Program:
    """A program of these steps, without provenance: to be carried out, not to be kept."""
    return Program(tuple(steps), near, {}, {}, {}, ZERO_USAGE, {})


def shows_more(steps: Sequence[Step]) -> bool:
    """Whether a worked example must show more than question and answer.

    Gold rows do not have the reasoning, or what earlier steps answered. Where that is wanted, only
    rows that the program itself answered well can be shown.
    """
    return len(steps) > 1 or len(steps[-1].outputs) > 1
