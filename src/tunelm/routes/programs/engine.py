"""DSPy's door to any ChatModel: in-process, metered, each distinct request asked once.

DSPy's own usage tracker loses the tokens of calls made in threads (3.4.1 found 4 to 31% of
them in a search), so they are counted here, where every call passes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING

from tunelm.models.base import ChatModel
from tunelm.types import (
    ZERO_USAGE,
    Completion,
    FinishReason,
    Message,
    Request,
    Usage,
)

if TYPE_CHECKING:
    from dspy import lm15


class ChatEngine:
    """A custom engine for `dspy.LM("local/NAME", engine=...)`.

    It is called from DSPy's threads and passes each call straight on; a local model joins
    concurrent callers into batches. Requests must be greedy: a request asked before is
    answered from memory (counted in `repeated`), also while the first is still under way, so
    nothing is generated, or paid for, twice.

    Attributes:
        usage: tokens of all calls that reached the model; unknown once one is unknown.
        made: calls that reached the model.
        failed: those that came back with an error.
        repeated: calls answered from memory.
        first_error: the first error seen, in words.
    """

    def __init__(self, model: ChatModel, on_call: Callable[[int], None] | None = None) -> None:
        self.model = model
        self.usage: Usage = ZERO_USAGE
        self.made = 0
        self.failed = 0
        self.repeated = 0
        self.first_error: str | None = None
        self._on_call = on_call
        self._lock = threading.Lock()
        self._answers: dict[Request, Future[Completion]] = {}
        self._broken: Exception | None = None

    def complete(self, request: lm15.Request) -> lm15.Response:
        """Answer one request of DSPy's; a failed row raises `lm15.InvalidRequestError`."""
        from dspy import lm15

        try:
            asked = from_lm15(request)
        except ValueError as error:
            self.fail(error)
            raise
        completion = self.answer([asked])[0]
        if completion.error is not None:
            raise lm15.InvalidRequestError(completion.error)
        usage = completion.usage
        return lm15.Response(
            id=None,
            model=request.model,
            message=lm15.Message.assistant(completion.text),
            finish_reason="length" if completion.finish_reason is FinishReason.LENGTH else "stop",
            usage=lm15.Usage(
                input_tokens=usage.prompt_tokens,
                output_tokens=usage.completion_tokens,
                cache_read_tokens=usage.cached_tokens,
            ),
        )

    def answer(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer several requests as one batch. Raises what the model as a whole raised."""
        self.check()
        fresh: dict[Request, Future[Completion]] = {}
        futures: list[Future[Completion]] = []
        with self._lock:
            for request in requests:
                future = self._answers.get(request)
                if future is None:
                    future = self._answers[request] = fresh[request] = Future()
                else:
                    self.repeated += 1
                futures.append(future)
        if fresh:
            self._ask(fresh)
        return [future.result() for future in futures]

    def fail(self, error: Exception) -> None:
        """Remember an error that is no single row's; every later call raises it."""
        self._broken = self._broken or error

    def check(self) -> None:
        """Raise what `fail` was told, or what ended the whole model.

        DSPy takes any exception for a failed row, so without this a dead model would end as
        a program that scores zero.
        """
        if self._broken is not None:
            raise self._broken

    def counts(self) -> dict[str, int | str | None]:
        """The calls by what became of them, for JSON."""
        return {
            "made": self.made,
            "failed": self.failed,
            "repeated": self.repeated,
            "first_error": self.first_error,
        }

    def _ask(self, fresh: dict[Request, Future[Completion]]) -> None:
        try:
            completions = self.model.complete(list(fresh))
        except BaseException as error:
            if isinstance(error, Exception):
                self.fail(error)
            for future in fresh.values():
                future.set_exception(error)
            raise
        for future, completion in zip(fresh.values(), completions, strict=True):
            self._count(completion)
            future.set_result(completion)

    def _count(self, completion: Completion) -> None:
        with self._lock:
            self.made += 1
            self.usage += completion.usage
            if completion.error is not None:
                self.failed += 1
                self.first_error = self.first_error or completion.error
            if self._on_call is not None:
                self._on_call(self.made)


def from_lm15(request: lm15.Request) -> Request:
    """DSPy's request as ours: text messages, byte for byte, and the decoding settings."""
    messages: list[Message] = []
    if request.system is not None:
        messages.append(Message("system", _text(request.system)))
    messages.extend(Message(m.role, _text(m.parts)) for m in request.messages)
    config = request.config
    if config.temperature:
        raise ValueError(f"temperature {config.temperature}: the prompt search is greedy only.")
    return Request(
        messages=tuple(messages),
        max_tokens=Request.max_tokens if config.max_tokens is None else config.max_tokens,
        stop=tuple(config.stop),
        seed=config.seed,
    )


def _text(parts: str | Sequence[object]) -> str:
    if isinstance(parts, str):
        return parts
    texts = [getattr(part, "text", None) for part in parts]
    if any(text is None for text in texts):
        raise ValueError("only text messages can be sent to a tunelm model.")
    return "".join(str(text) for text in texts)
