"""A program's steps as a DSPy module that optimizers can change. Imports DSPy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Self

import dspy
from dspy.utils.exceptions import LMError

from tunelm.routes.programs.adapter import BROKEN, GIVEN, MESSAGES, as_dicts, shown, signature
from tunelm.routes.programs.limits import Stopped
from tunelm.routes.programs.program import Step
from tunelm.routes.programs.tracker import Run
from tunelm.types import Example


class Shape:
    """What all copies of one module share: where it began, and whose row is which.

    Args:
        steps: the start.
        max_tokens: most tokens of the answer, what the steps add apart.
    """

    def __init__(self, steps: Sequence[Step], max_tokens: int) -> None:
        self.steps = tuple(steps)
        self.max_tokens = max_tokens
        self.signatures = [signature(step, i > 0) for i, step in enumerate(steps)]
        self.rows: dict[str, Example] = {}
        self._ids: dict[tuple[tuple[str, str], ...], str] = {}
        pairs = zip(self.signatures, steps, strict=True)
        self.exact = {found.instructions: step.instructions for found, step in pairs}

    def as_dspy(self, rows: Iterable[Example]) -> list[dspy.Example]:
        """The rows as DSPy's examples; they are known by their ids from then on."""
        found: list[dspy.Example] = []
        for row in rows:
            self.rows[row.id] = row
            messages = as_dicts(row.messages)
            self._ids.setdefault(_key(messages), row.id)
            gold: dict[str, Any] = {"answer": row.answers[0], "row_id": row.id}
            found.append(dspy.Example(**{MESSAGES: messages}, **gold).with_inputs(MESSAGES))
        return found

    def row_id(self, demo: Any) -> str:
        """The id of a demonstration's row; a bootstrapped one is known by its messages only."""
        return demo.get("row_id") or self._ids.get(_key(demo[MESSAGES]), "unknown")

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


class ChatProgram(dspy.Module):
    """Answers a chat in steps; each step is given the answers of those before it."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        for i, step in enumerate(shape.steps):
            room = step.extra_tokens + (shape.max_tokens if i == len(shape.steps) - 1 else 0)
            setattr(self, f"step_{step.name}", dspy.Predict(shape.signatures[i], max_tokens=room))

    def forward(self, messages: list[dict[str, str]]) -> dspy.Prediction:
        """The last step's outputs."""
        return carry_out(self, messages)


def predictor(module: ChatProgram, step: Step) -> dspy.Predict:
    """The part of the module that carries out a step."""
    return getattr(module, f"step_{step.name}")


def carry_out(module: ChatProgram, messages: list[dict[str, str]]) -> dspy.Prediction:
    """Ask step after step. The prediction bears, unseen by optimizers, what the tracker needs.

    A failed call makes an empty prediction rather than an exception: optimizers leave a row that
    raised out of what they tell the metric, and it could not be counted.
    """
    *before, last = module.shape.steps
    values: dict[str, Any] = {}
    given: dict[str, str] = {}
    broken: str | None = None
    failed: str | None = None
    try:
        for step in (*before, last):
            asked = messages
            if step is not last:  # a caller's own system message is about the answer
                asked = [m for m in messages if m["role"] != "system"]
            inputs: dict[str, Any] = {MESSAGES: asked, **({GIVEN: dict(given)} if given else {})}
            values = dict(predictor(module, step)(**inputs).items())
            broken = broken or values.pop(BROKEN, None)
            given[step.name] = values[step.outputs[-1]]
    except LMError as error:
        failed = str(error)
    except Exception as error:  # DSPy would take it for a failed row
        raise Stopped(f"{type(error).__name__}: {error}", error) from error
    if failed is not None:
        values = dict.fromkeys(last.outputs, "")
    found = dspy.Prediction(**{name: values[name] for name in last.outputs})
    found._run = Run(steps_of(module), _greedy(module), failed, broken)
    return found


def steps_of(module: ChatProgram) -> tuple[Step, ...]:
    """The module as it now is, as data."""
    shape, found = module.shape, list[Step]()
    for step in shape.steps:
        part: Any = predictor(module, step)
        said: str = part.signature.instructions
        demos = [shown(part.signature, demo, shape.row_id(demo)) for demo in part.demos]
        found.append(
            Step(
                step.name,
                shape.exact.get(said, said),
                step.outputs,
                tuple(demo for demo in demos if demo is not None),
                step.extra_tokens,
            )
        )
    return tuple(found)


def _greedy(module: ChatProgram) -> bool:
    parts: list[Any] = module.predictors()
    models = [part.lm or dspy.settings.lm for part in parts]
    return not any(model.kwargs.get("temperature") for model in models)


def _key(messages: Sequence[Any]) -> tuple[tuple[str, str], ...]:
    dicts = as_dicts(messages)
    return tuple((m["role"], m["content"]) for m in dicts if m["role"] != "system")
