"""A model with its adaptation's prompt in front: a system text and worked examples."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from tunelm.models.base import ChatModel
from tunelm.models.render import is_text
from tunelm.types import Completion, Delta, Message, Request, TokenLogprobs


def with_prompt(
    system: str, demos: Sequence[Message], messages: Sequence[Message]
) -> tuple[Message, ...]:
    """A caller's messages behind a system text and demonstration turns.

    A caller's own system message replaces `system` (a served model must obey its client);
    the demonstrations stay. Running text is left alone.
    """
    rest = tuple(messages)
    if is_text(rest):
        return rest
    if rest and rest[0].role == "system":
        head, rest = (rest[0],), rest[1:]
    else:
        head = (Message("system", system),) if system else ()
    return head + tuple(demos) + rest


class PromptedModel:
    """Puts a system message and demonstration turns before what the caller sends.

    See `with_prompt`.
    """

    one_call = True
    """Whether an answer is one call of the inner model, with something before the question."""

    def __init__(self, inner: ChatModel, system: str, demos: Sequence[Message] = ()) -> None:
        self.inner = inner
        self.system = system
        self.demos = tuple(demos)
        self.name = inner.name
        self.capabilities = inner.capabilities

    @property
    def notes(self) -> tuple[str, ...]:
        """What the inner model has to say about its answers; empty for most."""
        return getattr(self.inner, "notes", ())

    def render(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """The exact messages the inner model gets."""
        return with_prompt(self.system, self.demos, messages)

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """See ChatModel."""
        return self.inner.complete([self._prompted(r) for r in requests])

    def stream(self, request: Request) -> Iterator[Delta]:
        """See ChatModel."""
        return self.inner.stream(self._prompted(request))

    def score(self, pairs: Sequence[tuple[tuple[Message, ...], str]]) -> list[TokenLogprobs]:
        """See ChatModel."""
        return self.inner.score([(self.render(prompt), text) for prompt, text in pairs])

    def _prompted(self, request: Request) -> Request:
        return dataclasses.replace(request, messages=self.render(request.messages))
