"""How sure a model was of each answer, where it can tell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tunelm.errors import ModelError
from tunelm.models.base import ChatModel
from tunelm.predict import is_elsewhere
from tunelm.types import Example, Message, Prediction


def facts_of(
    model: ChatModel, examples: Sequence[Example], predictions: Sequence[Prediction]
) -> list[Mapping[str, Any]]:
    """`confidence` for each answer that has none: exp of the mean log-probability of its tokens.

    The mean and not the sum: a long answer is not less sure than a short one (Malinin and Gales,
    ICLR 2021, arXiv 2002.07650). Empty where the model cannot tell, and for a model behind an
    API, which would charge for every answer once more.
    """
    facts: list[Mapping[str, Any]] = [{} for _ in predictions]
    if "score" not in model.capabilities or is_elsewhere(model):
        return facts
    asked = [
        (place, (example.messages, prediction.output))
        for place, (example, prediction) in enumerate(zip(examples, predictions, strict=True))
        if prediction.output and "confidence" not in (prediction.facts or {})
    ]
    sure = _confidences(model, [pair for _, pair in asked])
    for (place, _), confidence in zip(asked, sure, strict=True):
        if confidence is not None:
            facts[place] = {"confidence": confidence}
    return facts


def _confidences(
    model: ChatModel, pairs: Sequence[tuple[tuple[Message, ...], str]]
) -> list[float | None]:
    """Between 0 and 1; None for a pair that does not fit into the context."""
    try:
        scored = model.score(pairs) if pairs else []
    except ModelError:
        if len(pairs) == 1:
            return [None]
        return [confidence for pair in pairs for confidence in _confidences(model, [pair])]
    return [
        min(1.0, math.exp(math.fsum(found.logprobs) / len(found.logprobs)))
        if found.logprobs
        else None
        for found in scored
    ]
