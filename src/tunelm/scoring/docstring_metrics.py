"""The metrics of docstrings. What they look at is found out in tunelm.scoring.docstring_facts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tunelm.scoring.metric import Metric, ratio
from tunelm.types import Example, Prediction


@dataclass(frozen=True)
class _OfDocstring(Metric):
    """The mean of a fact, over the answers that have it."""

    rules: str

    def signature(self, examples: Sequence[Example] = ()) -> str:
        return f"{self.name}|{self.rules}"

    def row_value(self, output: str, example: Example) -> float | None:
        from tunelm.scoring.docstring_facts import case_of, fact_for

        return fact_for(self.name, case_of(example, output))

    def statistics(self, output: str, example: Example) -> tuple[float, ...]:
        value = self.row_value(output, example)
        return (math.nan, math.nan) if value is None else (value, 1.0)

    def prediction_statistics(
        self, prediction: Prediction, example: Example
    ) -> tuple[float, ...] | None:
        if prediction.output is None:
            return None
        facts = prediction.facts or {}
        if self.name not in facts:
            found = self.statistics(prediction.output, example)
            return None if math.isnan(found[0]) else found
        value = facts[self.name]
        return None if value is None else (value, 1.0)

    @property
    def aggregate(self) -> Callable[[Sequence[float]], float]:
        return ratio


def _metric(name: str, rules: str, what: str) -> Metric:
    return _OfDocstring(name, what, 1.0, True, 2, rules)


OF_DOCSTRINGS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        _metric(
            "docstring_passes",
            "style,agrees,unchanged,examples,mutants>=0.5",
            "share of docstrings with clean style that agree with the code and leave it unchanged, "
            "whose examples pass and tell at least half of the mutants",
        ),
        _metric(
            "doc_style",
            "ruff:D(google),DOC(preview)|ignored:D100",
            "share of docstrings without a finding of ruff; form alone",
        ),
        _metric(
            "doc_agrees",
            "args,order,result,raises|raised:by name",
            "share of arguments, their order, result and exceptions on which docstring and code "
            "agree",
        ),
        _metric(
            "code_unchanged",
            "ast without docstrings",
            "share of answers that leave the function's code as it is",
        ),
        _metric(
            "examples_pass",
            "doctest:calls on literals|no example:0",
            "share of docstrings that have an example, and all of whose examples pass",
        ),
        _metric(
            "tells_mutants",
            "first-order,most:30|known by:gold examples,calls",
            "share of the function's mutants on which an example of the docstring fails",
        ),
        _metric(
            "tells_purpose",
            "words:4+ letters,not in the code|of:gold",
            "share of the gold docstring's words that do not stand in the code which the docstring "
            "says, too",
        ),
    )
}
"""Those of docstrings, by name."""
