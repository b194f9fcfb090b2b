"""Classification: a model that answers with one of the task's labels, and with nothing else.

A model that can score says how likely each label is as the whole answer: the log-probabilities
of the label's tokens and of the token that ends the answer, added up. With that last token the
labels are answers that exclude each other, so a label that begins another one is not favoured,
and the sum is what the model was trained on. It is not divided by the label's length: the mean
of a long label's tokens is high because its later tokens follow from the first, and is the
probability of nothing (lm-evaluation-harness has both, as `acc` and `acc_norm`). Several words
for one thing share their probability (Holtzman et al. 2021, "surface form competition"); a model
adapted to the task has learned which of them is wanted.

Any other model writes an answer, in which the one label that stands there is looked for.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import string
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tunelm.errors import ConfigError, ModelError
from tunelm.models.base import ChatModel, as_stream
from tunelm.models.render import encode_prompt
from tunelm.types import (
    NO_LABEL,
    Completion,
    Delta,
    Example,
    FinishReason,
    Message,
    Request,
    TokenLogprobs,
    Usage,
    label_form,
)

if TYPE_CHECKING:
    from tunelm.config import TaskConfig
    from tunelm.data.split import Split
    from tunelm.rundir import RunDir

FILE = "labels.json"
"""The file of a run of a classification: its `labels`, and `warnings` about the answers."""

CHOICE_TOKENS = 16
"""Tokens that the JSON around a label may take, where an endpoint is held to the labels."""


def answering(model: ChatModel, task: TaskConfig, run: Path) -> ChatModel:
    """The model as it answers the run's task: held to the labels of a classification."""
    if task.kind != "classification":
        return model
    from tunelm.rundir import read_json  # only a run needs what that brings along

    settled = read_json(run / FILE)
    return LabelModel(model, settled["labels"], settled["warnings"])


def held_to_labels(model: ChatModel, task: TaskConfig) -> ChatModel:
    """The model as it will answer a classification; as it is for other tasks."""
    return LabelModel(model, task.labels) if task.kind == "classification" else model


def note_labels(run: RunDir, split: Split) -> None:
    """Settle a run's labels, where it is of a classification: in FILE, and in `run.config`.

    Raises ConfigError as `task_labels` does.
    """
    from tunelm.rundir import read_json, write_json

    task = run.config.task
    if task.kind != "classification":
        return
    labels = task_labels(task, split.train)
    warnings = unseen_labels(labels, {"dev": split.dev, "test": split.test})
    settled = {"labels": list(labels), "warnings": list(warnings)}
    if read_json(run.path / FILE, {}) != settled:
        write_json(run.path / FILE, settled)
    known = task.model_copy(update={"labels": labels})
    run.config = run.config.model_copy(update={"task": known})


def task_labels(task: TaskConfig, train: Sequence[Example]) -> tuple[str, ...]:
    """The labels of a classification: as the task names them, or the train answers, sorted.

    Raises:
        ConfigError: fewer than two, two that are the same to a reader, or a train answer that
            is none of those the task names.
    """
    found = Counter(row.answers[0] for row in train)
    labels = task.labels or tuple(sorted(found))
    if len(labels) < 2:
        raise ConfigError(f"a classification has two labels or more; here: {', '.join(labels)}.")
    forms = Counter(map(label_form, labels))
    alike = [label for label in labels if forms[label_form(label)] > 1 or not label.strip()]
    if alike:
        raise ConfigError(
            f"labels that are empty, or differ only in case and spaces: {alike!r}. Write each "
            "label in one way."
        )
    strange = [label for label in found if label_form(label) not in forms]
    if strange:
        raise ConfigError(
            f"task.labels lacks {strange[0]!r}, an answer in train (rows: {found[strange[0]]}). "
            "Name every label there is, or none: then those of the train rows are taken."
        )
    return labels


def unseen_labels(labels: Sequence[str], parts: Mapping[str, Sequence[Example]]) -> list[str]:
    """One warning for each part in which answers stand that are none of the labels."""
    forms = {label_form(label) for label in labels}
    warnings: list[str] = []
    for part, rows in parts.items():
        strange = Counter(
            row.answers[0] for row in rows if not forms & {label_form(a) for a in row.answers}
        )
        if strange:
            named = ", ".join(f"{label!r} (rows: {count})" for label, count in strange.items())
            warnings.append(f"labels in {part} that no route knows, always wrong: {named}")
    return warnings


def match_label(text: str, labels: Sequence[str]) -> str | None:
    """The label that an answer means; None where it means none, or more than one.

    An answer that is a label, punctuation around it aside; else the only label that stands in
    it as whole words. A label within a longer label that stands there too does not count.

    >>> match_label("Label: Positive.", ["positive", "negative"])
    'positive'
    >>> match_label("not good but very good", ["good", "very good"]) is None
    True
    >>> match_label("C++", ["C", "C++"])
    'C++'
    """
    wanted = label_form(_in_json(text))
    for form in (lambda t: t, lambda t: t.strip(string.punctuation + " ")):
        equal = [label for label in labels if form(label_form(label)) == form(wanted)]
        if len(equal) == 1 and form(wanted):
            return equal[0]
    found: set[str] = set()
    for label in sorted(labels, key=len, reverse=True):
        whole = re.compile(rf"(?<!\w){re.escape(label_form(label))}(?!\w)")
        if whole.search(wanted):
            found.add(label)
            wanted = whole.sub("\n", wanted)
    return found.pop() if len(found) == 1 else None


def _in_json(text: str) -> str:
    """The label in an answer held to the JSON that `Request.choices` asks for."""
    try:
        data: object = json.loads(text)
    except ValueError:
        return text
    label = cast(dict[str, object], data).get("label") if isinstance(data, dict) else None
    return label if isinstance(label, str) else text


class LabelModel:
    """Answers each request with one of the labels. See ChatModel, and the module.

    Temperature and seed change nothing where labels are scored: the likeliest is the answer.
    The usage is then what was fed: the prompt once for each label; the `confidence` is the label's
    probability, given that it is one of them. Where an answer is written
    instead and no one label is found in it, it stays as it was written and `format_error` says
    so; an endpoint that takes a JSON schema is held to the labels, so that this is rare. The
    confidence of a written answer is what the inner model says of it, if anything.

    Raises ConfigError with fewer than two labels.
    """

    def __init__(
        self, inner: ChatModel, labels: Sequence[str], warnings: Sequence[str] = ()
    ) -> None:
        if len(labels) < 2:
            raise ConfigError(f"a choice needs two labels or more; got {list(labels)!r}.")
        self.inner = inner
        self.labels = tuple(labels)
        self.warnings = tuple(warnings)
        self.name = inner.name
        self.capabilities = inner.capabilities
        self._scoring = "score" in inner.capabilities
        if hasattr(inner, "prices"):
            self.prices = cast(Any, inner).prices
        self._end = end_of_answer(inner) if self._scoring else ""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the inner model has to say about its answers, and warnings about the rows."""
        return (*getattr(self.inner, "notes", ()), *self.warnings)

    def render(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """The exact messages the inner model gets."""
        render = getattr(self.inner, "render", None)
        return render(messages) if render else tuple(messages)

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """See ChatModel."""
        if not self._scoring:
            return self._written(requests)
        began = time.perf_counter()
        scored = self._scored([request.messages for request in requests])
        seconds = time.perf_counter() - began
        done: list[Completion] = []
        for request, found in zip(requests, scored, strict=True):
            if isinstance(found, ModelError):
                done.append(Completion("", FinishReason.ERROR, Usage(0, 0, 0), error=str(found)))
                continue
            odds = self._odds(found)
            label = max(odds, key=odds.__getitem__)
            usage = self._usage(request.messages, found)
            done.append(
                Completion(label, FinishReason.STOP, usage, seconds, confidence=odds[label])
            )
        return done

    def probabilities(self, prompts: Sequence[Sequence[Message]]) -> list[dict[str, float]]:
        """For each prompt the probability of each label, given that it is one of them.

        Raises ModelError where the inner model cannot score, or a prompt is too long.
        """
        if not self._scoring:
            raise ModelError(f"{self.name} gives no probabilities of a given text.")
        odds: list[dict[str, float]] = []
        for found in self._scored([tuple(prompt) for prompt in prompts]):
            if isinstance(found, ModelError):
                raise found
            odds.append(self._odds(found))
        return odds

    def stream(self, request: Request) -> Iterator[Delta]:
        """See ChatModel. A label comes whole."""
        return as_stream(self.complete([request])[0])

    def score(self, pairs: Sequence[tuple[tuple[Message, ...], str]]) -> list[TokenLogprobs]:
        """See ChatModel: as the inner model."""
        return self.inner.score(pairs)

    def _scored(
        self, prompts: Sequence[tuple[Message, ...]]
    ) -> list[list[TokenLogprobs] | ModelError]:
        """The labels' scores for each prompt, or why it has none; one batch if all is well."""
        pairs = [(prompt, label + self._end) for prompt in prompts for label in self.labels]
        count = len(self.labels)
        try:
            found = self.inner.score(pairs)
        except ModelError as error:
            if len(prompts) == 1:
                return [error]
            return [self._scored([prompt])[0] for prompt in prompts]
        return [found[at : at + count] for at in range(0, len(found), count)]

    def _odds(self, found: Sequence[TokenLogprobs]) -> dict[str, float]:
        sums = [math.fsum(one.logprobs) for one in found]
        shares = [math.exp(value - max(sums)) for value in sums]
        total = math.fsum(shares)
        return {label: share / total for label, share in zip(self.labels, shares, strict=True)}

    def _usage(self, messages: tuple[Message, ...], found: Sequence[TokenLogprobs]) -> Usage:
        engine, rendered = _engine(self.inner, messages)
        tokenizer = getattr(engine, "tokenizer", None)
        if tokenizer is None:
            return Usage(None, sum(len(one.logprobs) for one in found), None)
        prompt = len(encode_prompt(tokenizer, rendered))
        return Usage(prompt * len(found), sum(len(one.logprobs) for one in found), 0)

    def _written(self, requests: Sequence[Request]) -> list[Completion]:
        if takes_choices(self.inner):
            requests = [
                dataclasses.replace(
                    request, choices=self.labels, max_tokens=request.max_tokens + CHOICE_TOKENS
                )
                for request in requests
            ]
        return [self._read(answer) for answer in self.inner.complete(requests)]

    def _read(self, answer: Completion) -> Completion:
        if answer.error is not None:
            return answer
        label = match_label(answer.text, self.labels)
        if label is not None:
            return dataclasses.replace(answer, text=label)
        broken = f"{NO_LABEL}, or more than one, in the answer"
        if answer.format_error:
            broken = f"{broken}; {answer.format_error}"
        return dataclasses.replace(answer, format_error=broken)


def end_of_answer(model: ChatModel) -> str:
    """The token that ends an answer, as text that is read as that token; "" where unknown."""
    engine, _ = _engine(model, ())
    tokenizer = getattr(engine, "tokenizer", None)
    if tokenizer is None:
        return ""
    from tunelm.models.decoding import end_tokens

    ends = end_tokens(engine.model, tokenizer)
    end = tokenizer.eos_token_id
    if tokenizer.chat_template:
        question = [{"role": "user", "content": "?"}]
        prompt = encode_prompt(tokenizer, [Message("user", "?")])
        chat = tokenizer.apply_chat_template(
            [*question, {"role": "assistant", "content": "x"}], tokenize=True, return_dict=True
        )
        end = next((token for token in chat["input_ids"][len(prompt) :] if token in ends), end)
    if end is None:
        return ""
    text = str(tokenizer.convert_ids_to_tokens(end))
    return text if tokenizer.encode(text, add_special_tokens=False) == [end] else ""


def _engine(model: ChatModel, messages: Sequence[Message]) -> tuple[Any, tuple[Message, ...]]:
    """The model behind the prompts, and the messages as it gets them."""
    rendered, engine = tuple(messages), cast(Any, model)
    while getattr(engine, "one_call", False):  # it only puts something before the question
        rendered = tuple(engine.render(rendered)) if rendered else rendered
        engine = engine.inner
    return engine, rendered


def takes_choices(model: ChatModel) -> bool:
    """Whether the answer is that of one call of an endpoint, so that a schema is about it."""
    from tunelm.models.remote import RemoteModel

    return isinstance(_engine(model, ())[0], RemoteModel)
