"""What answers of some tasks are held to beside the metrics of their kind, by `task.checks`."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunelm.scoring.docstring_metrics import OF_DOCSTRINGS
from tunelm.scoring.email_metrics import OF_EMAILS
from tunelm.scoring.faq_metrics import OF_FAQ
from tunelm.scoring.metric import Metric
from tunelm.types import Example, Prediction

if TYPE_CHECKING:
    from tunelm.models.base import ChatModel

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Checks:
    """A set of metrics. `finder` is "module:function" where some are too slow to find out twice.

    It takes the model, the examples and their predictions, and gives each prediction's further
    facts, which its metrics then read. `required`, "module:function" too, raises where something
    is not installed. `form` and `content` are the metrics that tell the two
    apart; those `left_out` compare with the whole gold answer, which no other answer equals.
    """

    metrics: Mapping[str, Metric]
    finder: str = ""
    form: str = "token_f1"
    content: str = "contains"
    left_out: tuple[str, ...] = ()
    required: str = ""


_WHOLE = ("exact_match", "contains")

CHECKS: Mapping[str, Checks] = {
    "email": Checks(OF_EMAILS, "", "greeting_and_signoff", "facts_kept", _WHOLE),
    "docstring": Checks(
        OF_DOCSTRINGS,
        "tunelm.scoring.docstring_facts:facts_of",
        "doc_style",
        "tells_mutants",
        _WHOLE,
        "tunelm.scoring.docstring_style:require_ruff",
    ),
    "faq": Checks(OF_FAQ, "tunelm.scoring.faq_facts:facts_of"),
}


def form_and_content(checks: str | None) -> tuple[str, str]:
    """The metrics that tell whether form or content became better.

    >>> form_and_content(None)
    ('token_f1', 'contains')
    """
    if checks is None:
        return Checks.form, Checks.content
    return CHECKS[checks].form, CHECKS[checks].content


def require_checks(checks: str | None) -> None:
    """Raise PrerequisiteError where a task's checks need what is not installed."""
    if checks and (required := CHECKS[checks].required):
        _function(required)()


def _function(target: str) -> Callable[..., Any]:
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def with_facts(
    checks: str | None,
    model: ChatModel,
    examples: Sequence[Example],
    predictions: Sequence[Prediction],
) -> list[Prediction]:
    """The predictions with what the task's checks found out about them."""
    finder = CHECKS[checks].finder if checks else ""
    if not finder:
        return list(predictions)
    find: Callable[..., Sequence[Facts]] = _function(finder)
    return [
        dataclasses.replace(prediction, facts={**(prediction.facts or {}), **facts})
        if facts
        else prediction
        for prediction, facts in zip(predictions, find(model, examples, predictions), strict=True)
    ]
