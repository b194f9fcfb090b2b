"""A model that is shown passages before it answers, as a ChatModel."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tunelm.errors import ModelError
from tunelm.models.base import ChatModel, innermost
from tunelm.models.render import encode_prompt, rendered
from tunelm.retrieval.chunks import Passage
from tunelm.retrieval.index import Retriever
from tunelm.retrieval.shown import search_text, with_passages
from tunelm.types import Completion, Delta, Message, Request, TokenLogprobs

Fits = Callable[[Sequence[Message], int], bool]
"""Whether messages and an answer of so many tokens fit into a model's context."""


class RagModel:
    """Searches for each question, and asks the inner model with the passages before it.

    See ChatModel. Where passages, question and answer do not fit into the context, the last
    passages are left out until they do: by the tokenizer where the model is here, and by asking
    again where an endpoint refuses a prompt as too long. `notes` counts it. `max_tokens` is the
    room that `render` and `score` leave for an answer.

    Attributes:
        asked: questions answered so far.
        shortened: of those, the ones shown fewer passages than were found.
        bare: of those again, the ones shown none.
    """

    one_call = True

    def __init__(
        self,
        inner: ChatModel,
        retriever: Retriever,
        passages: Sequence[Passage],
        top_k: int,
        max_tokens: int,
    ) -> None:
        self.inner = inner
        self.retriever = retriever
        self.passages = passages
        self.top_k = top_k
        self.name = inner.name
        self.capabilities = inner.capabilities
        self.asked = 0
        self.shortened = 0
        self.bare = 0
        self._fits = fits_in(inner)
        self._max_tokens = max_tokens
        self._lock = threading.Lock()

    @property
    def notes(self) -> tuple[str, ...]:
        """How often passages were left out for want of room, and the inner model's notes."""
        inner: tuple[str, ...] = getattr(self.inner, "notes", ())
        if not self.shortened:
            return inner
        note = (
            f"{self.shortened} of {self.asked} questions were shown fewer passages than found, "
            f"{self.bare} of them none: no more fitted into the context. Lower top_k or "
            "passage_words."
        )
        return (*inner, note)

    def render(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """The exact messages the inner model gets."""
        request = Request(tuple(messages), max_tokens=self._max_tokens)
        return rendered(self.inner, with_passages(messages, self.shown([request])[0]))

    def shown(self, requests: Sequence[Request]) -> list[tuple[Passage, ...]]:
        """The passages that each request is shown, best first."""
        return [kept for kept, _ in self._fitting(requests)]

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """See ChatModel."""
        fitting = self._fitting(requests)
        passages = [kept for kept, _ in fitting]
        answers = self.inner.complete(
            [_asking(request, kept) for request, kept in zip(requests, passages, strict=True)]
        )
        short = [len(kept) < found for kept, found in fitting]
        while again := [i for i, a in enumerate(answers) if passages[i] and _too_long(a.error)]:
            for i in again:
                passages[i], short[i] = passages[i][:-1], True
            got = self.inner.complete([_asking(requests[i], passages[i]) for i in again])
            for i, answer in zip(again, got, strict=True):
                usage = answers[i].usage + answer.usage
                answers[i] = dataclasses.replace(answer, usage=usage)
        self._count(short, passages)
        return answers

    def stream(self, request: Request) -> Iterator[Delta]:
        """See ChatModel."""
        ((passages, found),) = self._fitting([request])
        while True:
            begun = False
            try:
                for delta in self.inner.stream(_asking(request, passages)):
                    begun = True
                    yield delta
                break
            except ModelError as error:
                if begun or not passages or not _too_long(str(error)):
                    raise
                passages = passages[:-1]
        self._count([len(passages) < found], [passages])

    def score(self, pairs: Sequence[tuple[tuple[Message, ...], str]]) -> list[TokenLogprobs]:
        """See ChatModel. Each prompt is shown its passages; running text is left alone."""
        shown = self.shown([Request(prompt, self._max_tokens) for prompt, _ in pairs])
        return self.inner.score(
            [(with_passages(p, its), text) for (p, text), its in zip(pairs, shown, strict=True)]
        )

    def _fitting(self, requests: Sequence[Request]) -> list[tuple[tuple[Passage, ...], int]]:
        """(the passages that fit, how many were found) for each request."""
        return fitting_passages(self.retriever, self.passages, self.top_k, requests, self._fits)

    def _count(self, short: Sequence[bool], shown: Sequence[Sequence[Passage]]) -> None:
        with self._lock:
            self.asked += len(short)
            self.shortened += sum(short)
            self.bare += sum(s and not its for s, its in zip(short, shown, strict=True))


def fitting_passages(
    retriever: Retriever,
    passages: Sequence[Passage],
    top_k: int,
    requests: Sequence[Request],
    fits: Fits | None,
) -> list[tuple[tuple[Passage, ...], int]]:
    """(as many of the best passages as fit, how many were found) for each request."""
    texts = [search_text(request.messages) for request in requests]
    shown: list[tuple[tuple[Passage, ...], int]] = []
    for request, text, hits in zip(requests, texts, retriever.search(texts, top_k), strict=True):
        found = tuple(passages[hit.index] for hit in hits) if text.strip() else ()
        kept = found
        while kept and fits and not fits(with_passages(request.messages, kept), request.max_tokens):
            kept = kept[:-1]
        shown.append((kept, len(found)))
    return shown


def fits_in(model: ChatModel) -> Fits | None:
    """Whether a prompt fits, by the tokenizer of a model that runs here; None for any other."""
    engine = innermost(model)
    if not hasattr(engine, "tokenizer"):
        return None
    return fits_by(engine.tokenizer, engine.max_length, lambda messages: rendered(model, messages))


def fits_by(
    tokenizer: Any, context: int, render: Callable[[Sequence[Message]], Sequence[Message]]
) -> Fits:
    """Whether what `render` makes of messages, and an answer, fit into `context` tokens."""

    def fits(messages: Sequence[Message], max_tokens: int) -> bool:
        return len(encode_prompt(tokenizer, render(messages))) + max_tokens <= context

    return fits


def _asking(request: Request, passages: Sequence[Passage]) -> Request:
    return dataclasses.replace(request, messages=with_passages(request.messages, passages))


def _too_long(error: str | None) -> bool:
    """Whether an error says that the prompt is too long: all that are known say `context`."""
    return error is not None and "context" in error.lower()
