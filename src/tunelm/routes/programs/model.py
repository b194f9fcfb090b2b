"""A prompt program on a model, as a ChatModel. Needs no DSPy."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from tunelm.errors import ModelError
from tunelm.models.base import ChatModel, as_stream
from tunelm.models.prompted import PromptedModel
from tunelm.routes.programs.form import read, render
from tunelm.routes.programs.program import Program, Step, turns_of
from tunelm.types import (
    Completion,
    Delta,
    FinishReason,
    Message,
    Request,
    TokenLogprobs,
)


def open_program(program: Program, model: ChatModel) -> ChatModel:
    """The model behind the program: a PromptedModel where one plain call is all there is."""
    if program.plain:
        return PromptedModel(model, program.last.instructions, program.last.turns)
    return ProgramModel(program, model)


class ProgramModel:
    """Carries out a program of several steps, outputs, or demonstrations a question.

    See ChatModel. Each step is one batch of calls. Usage and latency are those of all steps
    together, also of a row that fails half-way; unknown once one of them is. There is no
    `score`: a text has no one probability under several calls.
    """

    def __init__(self, program: Program, inner: ChatModel) -> None:
        self.program = program
        self.inner = inner
        self.name = inner.name
        self.capabilities = inner.capabilities - {"score"}

    @property
    def notes(self) -> tuple[str, ...]:
        """What the inner model has to say about its answers; empty for most."""
        return getattr(self.inner, "notes", ())

    def render(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """The exact messages of the first call."""
        first = self.program.steps[0]
        turns = self._turns([Request(tuple(messages))])[0] if first is self.program.last else None
        return render(first, messages, {}, turns)

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """See ChatModel."""
        answers, given = self._before(requests)
        left = [i for i, answer in enumerate(answers) if answer is None or answer.error is None]
        last, turns = self.program.last, self._turns(requests)
        asked = [self._request(last, requests[i], given[i], turns[i]) for i in left]
        for i, got in zip(left, self.inner.complete(asked), strict=True):
            answers[i] = _read(last, _after(answers[i], got))
        return [answer for answer in answers if answer is not None]

    def stream(self, request: Request) -> Iterator[Delta]:
        """See ChatModel. An answer behind other outputs comes whole, since they come first."""
        if len(self.program.last.outputs) > 1:
            yield from as_stream(self.complete([request])[0])
            return
        (before,), (given,) = self._before([request])
        if before is not None and before.error is not None:
            raise ModelError(before.error)
        turns = self._turns([request])[0]
        for delta in self.inner.stream(self._request(self.program.last, request, given, turns)):
            if before is not None and delta.usage is not None:
                yield dataclasses.replace(delta, usage=before.usage + delta.usage)
            else:
                yield delta

    def score(self, pairs: Sequence[tuple[tuple[Message, ...], str]]) -> list[TokenLogprobs]:
        """Raises ModelError: see the class."""
        raise ModelError("a program of several steps or outputs has no probability of a text.")

    def _before(
        self, requests: Sequence[Request]
    ) -> tuple[list[Completion | None], list[dict[str, str]]]:
        """What the steps before the last cost each request so far, and what they answered."""
        answers: list[Completion | None] = [None] * len(requests)
        given: list[dict[str, str]] = [{} for _ in requests]
        for step in self.program.steps[:-1]:
            left = [i for i, a in enumerate(answers) if a is None or a.error is None]
            asked = [self._request(step, requests[i], given[i], None) for i in left]
            for i, got in zip(left, self.inner.complete(asked), strict=True):
                answers[i] = answer = _read(step, _after(answers[i], got))
                given[i] = {**given[i], step.name: answer.text}
        return answers, given

    def _request(
        self,
        step: Step,
        request: Request,
        given: Mapping[str, str],
        turns: Sequence[Message] | None,
    ) -> Request:
        last = step is self.program.last
        room = step.extra_tokens + (request.max_tokens if last else 0)
        messages = request.messages
        if not last:  # a caller's own system message is about the answer
            messages = tuple(m for m in messages if m.role != "system")
        rendered = render(step, messages, given, turns)
        return dataclasses.replace(request, messages=rendered, max_tokens=room)

    def _turns(self, requests: Sequence[Request]) -> list[tuple[Message, ...] | None]:
        """The demonstrations chosen for each request; None: the step's own."""
        near = self.program.near
        if near is None:
            return [None] * len(requests)
        found = self._index.search([r.messages[-1].content for r in requests], near.k)
        return [turns_of([near.pool[hit.index] for hit in reversed(hits)]) for hits in found]

    @cached_property
    def _index(self) -> Any:
        from tunelm.retrieval.lexical import Bm25

        near = self.program.near
        assert near is not None
        return Bm25([demo.messages[-2].content for demo in near.pool])


def _after(before: Completion | None, got: Completion) -> Completion:
    """A step's completion with what the earlier steps took."""
    if before is None:
        return got
    seconds = None
    if before.latency_s is not None and got.latency_s is not None:
        seconds = before.latency_s + got.latency_s
    broken = before.format_error or got.format_error
    return dataclasses.replace(
        got, usage=before.usage + got.usage, latency_s=seconds, format_error=broken
    )


def _read(step: Step, got: Completion) -> Completion:
    """The completion with the step's last output as its text."""
    if got.error is not None:
        return got
    values, broken = read(step.outputs, got.text)
    if broken is not None and got.finish_reason is FinishReason.LENGTH:
        broken = f"{broken}; it was cut at the most tokens"
    return dataclasses.replace(
        got, text=values[step.outputs[-1]], format_error=got.format_error or broken
    )
