"""DSPy's door to any ChatModel: in-process, metered, each distinct request asked once.

DSPy's own usage tracker loses the tokens of calls made in threads (3.4.1 found 4 to 31% of
them in a search), so they are counted here, where every call passes.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from tunelm.errors import ModelError
from tunelm.models.base import ChatModel
from tunelm.routes.programs.answers import AnswerFile, Kept, key_of
from tunelm.routes.programs.limits import Limits, Stopped
from tunelm.types import (
    MAX_TOKENS,
    ZERO_USAGE,
    Completion,
    Delta,
    FinishReason,
    Message,
    Request,
    TokenLogprobs,
    Usage,
    content_hash,
)

if TYPE_CHECKING:
    from dspy import lm15

GIVE_UP = 5
"""A proposer that failed so often in a row is taken to be down."""


class ChatEngine:
    """A custom engine for `dspy.LM("local/NAME", engine=...)`, and the meter of all its calls.

    It is called from DSPy's threads and passes each call straight on; a local model joins
    concurrent callers into batches. A greedy request asked before is answered from memory
    (counted in `repeated`), also while the first is still under way, so nothing is generated,
    or paid for, twice. A sampled one is asked anew each time, with a seed made of its content,
    of how often it was asked, and of `seed`: the same search samples the same answers.

    Args:
        model: who answers.
        on_call: called with the number of calls so far after each.
        phase: `optimize` for the model that is adapted, `propose` for one that helps.
        limits: what may be used; shared with the search's other engine.
        kept: where answers are kept, and those of a killed search are found.
        seed: of the sampling.
        at_once: most requests of one batch between two looks at the limits.

    Attributes:
        usage: tokens of all calls that reached the model; unknown once one is unknown.
        made: calls that reached the model, those of a search killed before included.
        failed: those that came back with an error.
        repeated: calls answered from memory.
        first_error: the first error seen, in words.
    """

    def __init__(
        self,
        model: ChatModel,
        on_call: Callable[[int], None] | None = None,
        phase: str = "optimize",
        limits: Limits | None = None,
        kept: AnswerFile | None = None,
        seed: int = 0,
        at_once: int = 16,
    ) -> None:
        self.model = model
        self.phase = phase
        self.limits = limits or Limits()
        self.usage: Usage = ZERO_USAGE
        self.made = 0
        self.failed = 0
        self.repeated = 0
        self.first_error: str | None = None
        self._on_call = on_call
        self._seed = seed
        self._at_once = at_once
        self._lock = threading.Lock()
        self._answers: dict[Request, Future[Completion]] = {}
        self._sampled: Counter[tuple[Request, int]] = Counter()
        self._failed_in_a_row = 0
        self._broken: Stopped | None = None
        self._kept = kept
        self._before: dict[str, Completion] = {}
        for line in kept.read() if kept is not None else ():
            if line.phase == phase:
                self._recall(line)

    def complete(self, request: lm15.Request, rollout: int = 0) -> lm15.Response:
        """Answer one request of DSPy's; a failed row raises `lm15.InvalidRequestError`.

        So does a proposer that is gone: optimizers can do without. `rollout` tells apart samples
        that are asked for together.
        """
        from dspy import lm15

        try:
            asked = from_lm15(request)
        except ValueError as error:
            raise self._stop(error) from error
        try:
            completion = self.answer([self._seeded(asked, rollout)])[0]
        except Stopped as stop:
            if not stop.proposer:
                raise
            raise lm15.InvalidRequestError(stop.reason) from stop
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
        """Answer several requests as one batch.

        Raises Stopped at a limit, and where the model as a whole broke.
        """
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

    def check(self) -> None:
        """Raise what ended the whole model."""
        if self._broken is not None:
            raise self._broken

    @property
    def broken(self) -> str | None:
        """What ended the whole model, in words."""
        return None if self._broken is None else self._broken.reason

    def counts(self) -> dict[str, int | str | None]:
        """The calls by what became of them, for JSON."""
        return {
            "made": self.made,
            "failed": self.failed,
            "repeated": self.repeated,
            "first_error": self.first_error,
        }

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # DSPy copies its programs with all they hold

    def _ask(self, fresh: dict[Request, Future[Completion]]) -> None:
        left = [request for request in fresh if not self._known(request, fresh[request])]
        try:
            while left:
                most = min(len(left), self._at_once) if self.limits.any else len(left)
                now = left[: self.limits.take(most)]
                for request, got in zip(now, self._send(now), strict=True):
                    self._count(request, got)
                    fresh[request].set_result(got)
                left = left[len(now) :]
        except BaseException as error:
            with self._lock:  # they may be asked again, when there is room again
                for request in left:
                    self._answers.pop(request, None)
            for request in left:
                if not fresh[request].done():
                    fresh[request].set_exception(error)
            raise

    def _send(self, requests: Sequence[Request]) -> list[Completion]:
        try:
            return self.model.complete(requests)
        except Exception as error:
            raise self._stop(error) from error

    def _stop(self, error: Exception) -> Stopped:
        """What is raised from now on: the model as a whole broke."""
        helper = self.phase == "propose"
        said = f"{self.model.name} broke: {type(error).__name__}: {error}"
        self._broken = self._broken or Stopped(said, None if helper else error, helper)
        return self._broken

    def _count(self, request: Request, got: Completion) -> None:
        tokens, usd = self.limits.add(request, got, getattr(self.model, "prices", None))
        if self._kept is not None:
            seconds = round(self.limits.seconds, 3)
            self._kept.write(Kept(self.phase, key_of(request), tokens, usd, seconds, got))
        with self._lock:
            self._tally(got)
            self._failed_in_a_row = self._failed_in_a_row + 1 if got.error else 0
            if self._on_call is not None:
                self._on_call(self.made)
            if self.phase == "propose" and self._failed_in_a_row >= GIVE_UP:
                times = f"{self.model.name} failed {GIVE_UP} times in a row"
                self._broken = Stopped(f"{times}: {got.error}", proposer=True)
        self.check()

    def _tally(self, got: Completion) -> None:
        self.made += 1
        self.usage += got.usage
        if got.error is not None:
            self.failed += 1
            self.first_error = self.first_error or got.error

    def _recall(self, line: Kept) -> None:
        """Take up a call of a search that was killed; one that failed is made again."""
        self._tally(line.completion)
        self.limits.resume(line.tokens, line.usd, line.seconds)
        if line.completion.error is None:
            self._before[line.asked] = line.completion

    def _known(self, request: Request, future: Future[Completion]) -> bool:
        if not self._before or (got := self._before.get(key_of(request))) is None:
            return False
        future.set_result(got)
        return True

    def _seeded(self, asked: Request, rollout: int) -> Request:
        if not asked.temperature or asked.seed is not None:
            return asked
        with self._lock:
            times = self._sampled[asked, rollout]
            self._sampled[asked, rollout] += 1
        made_of = [dataclasses.asdict(asked), rollout, times, self._seed]
        return dataclasses.replace(asked, seed=int(content_hash(made_of)[:7], 16))


class Door:
    """What a `dspy.LM` holds: the engine, until the search is over.

    An optimizer that was stopped leaves threads behind that would go on asking; once the door
    is shut they are stopped too. `rollout` is DSPy's number of a sample.
    """

    def __init__(self, engine: ChatEngine, rollout: int = 0, gate: _Gate | None = None) -> None:
        self.engine = engine
        self.rollout = rollout
        self._gate = gate or _Gate()

    def complete(self, request: lm15.Request) -> lm15.Response:
        """See ChatEngine."""
        with self._gate.passing():
            return self.engine.complete(request, self.rollout)

    def at(self, rollout: int) -> Door:
        """The same door, for another sample."""
        return Door(self.engine, rollout, self._gate)

    def shut(self, wait: bool = True) -> None:
        """Let nothing more in, and wait for what is under way."""
        self._gate.shut(wait)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


class _Gate:
    def __init__(self) -> None:
        self._change = threading.Condition()
        self._inside = 0
        self._open = True

    @contextmanager
    def passing(self) -> Generator[None]:
        with self._change:
            if not self._open:
                raise Stopped("the search is over")
            self._inside += 1
        try:
            yield
        finally:
            with self._change:
                self._inside -= 1
                self._change.notify_all()

    def shut(self, wait: bool) -> None:
        with self._change:
            self._open = False
            if wait:
                self._change.wait_for(lambda: not self._inside)


class Metered:
    """The engine as a ChatModel, for programs that are carried out without DSPy."""

    capabilities = frozenset({"complete"})

    def __init__(self, engine: ChatEngine) -> None:
        self.engine = engine
        self.name = engine.model.name

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """See ChatModel, and ChatEngine.answer."""
        return self.engine.answer(requests)

    def stream(self, request: Request) -> Iterator[Delta]:
        """Raises ModelError: a search asks for whole answers."""
        raise ModelError("a search asks for whole answers only.")

    def score(self, pairs: Sequence[tuple[tuple[Message, ...], str]]) -> list[TokenLogprobs]:
        """Raises ModelError: a search asks for answers."""
        raise ModelError("a search asks for whole answers only.")


def from_lm15(request: lm15.Request) -> Request:
    """DSPy's request as ours: text messages, byte for byte, and the decoding settings.

    Raises ValueError for a message that is not text.
    """
    messages: list[Message] = []
    if request.system is not None:
        messages.append(Message("system", _text(request.system)))
    messages.extend(Message(m.role, _text(m.parts)) for m in request.messages)
    config = request.config
    return Request(
        messages=tuple(messages),
        max_tokens=MAX_TOKENS if config.max_tokens is None else config.max_tokens,
        temperature=config.temperature or 0.0,
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
