"""A language model as a judge: one dimension, one reply at a time, by a rubric.

It is one option and not the default: a judge of people's labels costs nothing to ask and its error
is known. Whatever judges, its agreement with people stands beside its scores (docs/judge-llm.md).
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from tunelm.config import ModelConfig
from tunelm.errors import ConfigError
from tunelm.judging.asking import CHUNK, MAX_TOKENS, SYSTEM, Said, ask, material, request
from tunelm.judging.judge import Rating
from tunelm.judging.rubrics import Rubric, rubric_of
from tunelm.models import open_model, remote_base
from tunelm.models.base import ChatModel, innermost
from tunelm.models.budget import Wallet
from tunelm.models.render import rendered
from tunelm.types import (
    ZERO_USAGE,
    Example,
    Message,
    Request,
    content_hash,
)

TEMPERATURE = 0.7
"""Of repeated answers: greedy ones would all be the same."""
PREFIX = "llm:"
"""What the name of an LLM judge begins with: llm:TARGET:DIMENSION."""

PHASE = "judge"
"""What a judge's tokens and dollars are counted under."""

Progress = Callable[[str, int, int], None]


class LLMJudge:
    """See Judge.

    Answers without a label are ratings without a value, with the reason in `note`; `failures`
    counts them by reason. The same prompt is asked once, however many rows have it.

    Attributes:
        usage: tokens of all answers so far.
        calls: how many answers there were.
        failures: how many of them held no label, by reason.
    """

    kind = "llm"

    def __init__(
        self,
        model: ChatModel,
        dimension: str,
        reference: bool = True,
        *,
        repeats: int = 1,
        max_tokens: int = MAX_TOKENS,
        identity: object = None,
        progress: Progress | None = None,
    ) -> None:
        """A judge.

        Args:
            model: who judges.
            dimension: a name of `RUBRICS`, or `strategy=NAME`.
            reference: whether it is shown the problem's solution.
            repeats: answers a reply, at TEMPERATURE where there is more than one; the value is
                their mean.
            max_tokens: most tokens of an answer.
            identity: what tells this model from another of its name, such as a hash of its weights.
            progress: told (what, done, of how many).

        Raises:
            ConfigError: an unknown dimension; repeats below 1, or of a model that scores labels and
                so always says the same.
        """
        if repeats < 1 or (repeats > 1 and "score" in model.capabilities):
            never = f"{model.name} scores labels, which never vary"
            why = "give 1 or more" if repeats < 1 else never
            raise ConfigError(f"repeats = {repeats}: {why}.")
        self.rubric: Rubric = rubric_of(dimension)
        self.model, self.reference, self.repeats = model, reference, repeats
        self.max_tokens, self.identity, self.progress = max_tokens, identity, progress
        self.usage, self.calls = ZERO_USAGE, 0
        self.failures: Counter[str] = Counter()
        self._spreads: list[float] = []

    @property
    def name(self) -> str:
        """The dimension."""
        return self.rubric.name

    @property
    def scale(self) -> tuple[float, float]:
        """The lowest and the highest value of the rubric's labels."""
        return self.rubric.scale

    @property
    def spread(self) -> float | None:
        """Standard deviation of repeated values for one reply, on average; None without repeats."""
        return fmean(self._spreads) if self._spreads else None

    def signature(self) -> str:
        """A hash of the model, the rubric and how it is asked."""
        return content_hash(self.describe())

    def describe(self) -> dict[str, Any]:
        """All that the ratings depend on, as plain data."""
        question = (Message("user", "?"),)
        return {
            **described(self.model, self.identity),
            "dimension": self.name,
            "rubric": [_question(self.rubric), dict(self.rubric.values), SYSTEM],
            "prompt": [[m.role, m.content] for m in rendered(self.model, question)],
            "reference": self.reference,
            "repeats": self.repeats,
            "max_tokens": self.max_tokens,
        }

    def rate(self, examples: Sequence[Example], outputs: Sequence[str]) -> list[Rating]:
        """See Judge. Raises BudgetError at the cap, ModelError where the model fails as a whole."""
        labels, question = list(self.rubric.labels), _question(self.rubric)
        asked: dict[Request, str] = {}
        keys: list[Request] = []
        for example, output in zip(examples, outputs, strict=True):
            shown = material(example, [output], self.reference)
            keys.append(request(question, shown, labels, self.max_tokens))
            asked.setdefault(keys[-1], output)
        said = self._said(list(asked), list(asked.values()))
        found = {key: self._rating(one) for key, one in zip(asked, said, strict=True)}
        return [found[key] for key in keys]

    def _said(self, requests: Sequence[Request], shown: Sequence[str]) -> list[list[Said]]:
        """`repeats` answers to each request."""
        every = [
            (one, text)
            for pair in zip(requests, shown, strict=True)
            for one, text in self._varied(pair)
        ]
        labels, said = list(self.rubric.labels), list[Said]()
        for start in range(0, len(every), CHUNK):
            chunk = every[start : start + CHUNK]
            said += ask(self.model, labels, [one for one, _ in chunk], [text for _, text in chunk])
            if self.progress:
                self.progress(f"{self.name} judged", len(said), len(every))
        self.calls += len(said)
        self.usage = sum((one.usage for one in said), self.usage)
        self.failures.update(one.note for one in said if one.note)
        return [said[i : i + self.repeats] for i in range(0, len(said), self.repeats)]

    def _varied(self, pair: tuple[Request, str]) -> list[tuple[Request, str]]:
        one, text = pair
        if self.repeats == 1:
            return [pair]
        return [
            (dataclasses.replace(one, temperature=TEMPERATURE, seed=k), text)
            for k in range(self.repeats)
        ]

    def _rating(self, said: Sequence[Said]) -> Rating:
        labels = [one.label for one in said if one.label is not None]
        if not labels:
            return Rating(None, None, said[0].note)
        lost = len(said) - len(labels)
        note = f"{lost} of {len(said)} answers had no label" if lost else None
        label = Counter(labels).most_common(1)[0][0]
        values = [self.rubric.values[one] for one in labels if one in self.rubric.values]
        if len(values) > 1:
            self._spreads.append(pstdev(values))
        return Rating(fmean(values) if values else None, label, note)


def open_llm_judge(
    target: str,
    model: Callable[[str], ChatModel] | None = None,
    wallet: Wallet | None = None,
    **settings: Any,
) -> LLMJudge:
    """The judge that `llm:TARGET:DIMENSION` names.

    Args:
        target: that name; TARGET may hold colons.
        model: opens TARGET; None: as `[model].base` of a task.
        wallet: pays for it where `model` is None; None: nothing may be spent.
        settings: further arguments of `LLMJudge`.

    Raises:
        ConfigError: no such form, or no such dimension. Others as the model does.
    """
    name, dimension = parse(target)
    rubric_of(dimension)  # before any weights are loaded
    opened = model(name) if model else open_asked(ModelConfig(base=name), wallet)
    return LLMJudge(opened, dimension, identity=weights_of(name), **settings)


def parse(target: str) -> tuple[str, str]:
    """(TARGET, DIMENSION) of `llm:TARGET:DIMENSION`.

    >>> parse("llm:ollama/llama3.2:1b:actionability")
    ('ollama/llama3.2:1b', 'actionability')
    """
    name, colon, dimension = target.removeprefix(PREFIX).rpartition(":")
    if not target.startswith(PREFIX) or not colon or not name or not dimension:
        raise ConfigError(
            f"{target!r} is no judge. Give the folder of a judge that was trained, or"
            f" {PREFIX}TARGET:DIMENSION, such as {PREFIX}ollama/llama3.2:actionability."
        )
    return name, dimension


def weights_of(target: str) -> str | None:
    """A hash of a model's weights, or of an adapter's; None where no weights are at hand."""
    from tunelm.models.loading import BUNDLED

    folder = BUNDLED.get(target, Path(target))
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16] if files else None


def described(model: ChatModel, identity: object) -> Mapping[str, Any]:
    """Which model it is: its name, its endpoint and what tells it from others of its name."""
    endpoint = getattr(innermost(model), "endpoint", None)
    return {
        "model": model.name,
        "endpoint": endpoint.address.url if endpoint is not None else None,
        "identity": identity,
    }


def open_asked(config: ModelConfig, wallet: Wallet | None) -> ChatModel:
    """The model of a config; what it costs stands under the phase `judge`. Raises as `load`."""
    if (endpoint := remote_base(config)) is None:
        return open_model(config)
    from tunelm.models.remote import open_endpoint

    return open_endpoint(endpoint, wallet, PHASE)


def _question(rubric: Rubric) -> str:
    lines = [rubric.question, ""]
    return "\n".join(lines + [f"- {label}: {when}" for label, when in rubric.labels.items()])
