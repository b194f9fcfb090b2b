"""Route `rule`: answers written by a rule, without any model. What adapting one has to beat."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence

from tunelm.errors import ModelError
from tunelm.models.base import ChatModel
from tunelm.route_settings import RuleSettings
from tunelm.routes.base import FitContext
from tunelm.rundir import write_json
from tunelm.types import (
    ZERO_USAGE,
    Adapted,
    Completion,
    Delta,
    Estimate,
    FinishReason,
    Message,
    Plan,
    Request,
    TokenLogprobs,
)

Rule = Callable[[str], str]
"""From the text of the last message to the answer; raises ValueError where it has none."""

RULES: Mapping[str, str] = {
    "email": "tunelm.routes.email_rule:reply",
    "docstring": "tunelm.routes.docstring_rule:reply",
}


class RuleModel:
    """Answers the last message of the user by a rule. It uses no tokens."""

    capabilities = frozenset({"complete", "stream"})

    def __init__(self, name: str) -> None:
        module, _, function = RULES[name].partition(":")
        self.name = f"rule-{name}"
        self._rule: Rule = getattr(importlib.import_module(module), function)

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """See ChatModel. A message that the rule has no answer to fails by itself."""
        return [self._complete(request) for request in requests]

    def stream(self, request: Request) -> Iterator[Delta]:
        """See ChatModel. One piece."""
        done = self._complete(request)
        if done.error is not None:
            raise ModelError(done.error)
        yield Delta(done.text, done.finish_reason, done.usage)

    def score(self, pairs: Sequence[tuple[tuple[Message, ...], str]]) -> list[TokenLogprobs]:
        """Raises ModelError: a rule has no probabilities."""
        raise ModelError("a rule has no log-probabilities")

    def _complete(self, request: Request) -> Completion:
        try:
            text = self._rule(request.messages[-1].content)
        except ValueError as error:
            return Completion("", FinishReason.ERROR, ZERO_USAGE, 0.0, error=str(error))
        return Completion(text, FinishReason.STOP, ZERO_USAGE, 0.0)


class RuleRoute:
    """A rule as it is: nothing is learned from the rows."""

    kind = "rule"
    needs: tuple[str, ...] = ()

    def __init__(self, settings: RuleSettings) -> None:
        self.settings = settings

    def plan(self, ctx: FitContext) -> Plan:
        """Nothing is called, so nothing is needed."""
        return Plan(ctx.name, self.kind, {"seconds_fit": Estimate(0.0, "s", "prior")})

    def fit(self, ctx: FitContext) -> Adapted:
        """Write down which rule it is."""
        folder = ctx.work / "adapted"
        folder.mkdir(exist_ok=True)
        write_json(folder / "rule.json", {"rule": self.settings.rule})
        return Adapted(self.kind, str(folder), {}, "", {"rule": self.settings.rule})

    def open(self, adapted: Adapted) -> ChatModel:
        """The rule."""
        return RuleModel(str(adapted.detail["rule"]))
