"""What every model can be asked, whichever engine answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from tunelm.errors import ModelError
from tunelm.types import Completion, Delta, Message, Request, TokenLogprobs


def innermost(model: object) -> Any:
    """The model behind whatever stands before it: prompts, passages, labels."""
    while (inner := getattr(model, "inner", None)) is not None:
        model = inner
    return model


def as_stream(answer: Completion) -> Iterator[Delta]:
    """A whole answer as a stream of one piece. Raises ModelError where it failed."""
    if answer.error is not None:
        raise ModelError(answer.error)
    yield Delta(answer.text, answer.finish_reason, answer.usage)


@runtime_checkable
class ChatModel(Protocol):
    """A model that answers chats.

    Contract
    - `capabilities` names what works: "complete", "stream", "score". Calling another method
      raises ModelError; it never pretends.
    - `complete` returns one Completion for each Request, in order. One bad request (too long,
      refused by the provider) is a Completion with `error` set; only a failure of the whole
      model raises. It is safe to call from several threads: a local model runs concurrent
      callers as one batch.
    - `stream` yields deltas whose texts join to what `complete` returns; the last one carries
      the finish reason. Closing the iterator stops the work.
    - `score` returns log-probabilities of each continuation's tokens given its prompt.
    - Greedy requests (temperature 0) are deterministic on one machine.
    """

    name: str
    capabilities: frozenset[str]

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer each request."""
        ...

    def stream(self, request: Request) -> Iterator[Delta]:
        """Answer one request piece by piece."""
        ...

    def score(self, pairs: Sequence[tuple[tuple[Message, ...], str]]) -> list[TokenLogprobs]:
        """Log-probabilities of each (prompt, continuation)."""
        ...
