"""Continuous batching: one thread answers all requests, a token in every row at each step.

New requests join between two steps, rows that are done or given up leave. Each adapter has a
batch of its own, and the batches are stepped in turn. Adapters are loaded when they are first
asked for, beside the running work, and the one not used longest makes room for another.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from tunelm.config import ModelConfig
from tunelm.models import quantized
from tunelm.models.decoding import end_tokens
from tunelm.models.identity import base_identity, check_adapter
from tunelm.models.loading import load_base, resolve_base
from tunelm.server.adapters import merges, put_on
from tunelm.server.asking import Ask, Piece
from tunelm.server.batch import Batch
from tunelm.server.rows import Event, Row, Ticket
from tunelm.server.runner import choose_runner
from tunelm.server.text import Vocabulary

PREFILL = 512
"""Prompt tokens taken in between two steps (one prompt may be longer); running rows wait."""
SMALL = 50_000_000
"""Parameters below which a step is computed by one thread."""
STOPPED = "the server is stopping."
DELETED = "the model was deleted before its turn came."
UNLOADABLE = "this model's adapter cannot be loaded."

log = logging.getLogger(__name__)


class QueueFullError(Exception):
    """Too many requests wait already. `retry_after`: seconds until there may be room."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after


class Waiting:
    """What every engine can do that can `submit`."""

    def submit(self, asks: Sequence[Ask], emit: Callable[[int, Piece], None]) -> Ticket:
        """Queue the asks of one request. Raises QueueFullError where too many wait."""
        raise NotImplementedError

    def complete(self, asks: Sequence[Ask]) -> list[Piece]:
        """The whole answer to each ask, for callers that can wait. Not while `deliver` is set."""
        found: dict[int, Piece] = {}
        done = threading.Event()

        def emit(number: int, piece: Piece) -> None:
            found[number] = piece
            if len(found) == len(asks):
                done.set()

        self.submit(asks, emit)
        done.wait()
        return [found[i] for i in range(len(asks))]


class LightEngine(Waiting):
    """Answers Asks on one base model and adapters for it.

    Args:
        config: the base model, which is loaded here.
        max_batch: most rows that are generated at once.
        max_waiting: most rows that wait for their turn.
        max_adapters: most adapters in memory.
        threads: CPU threads to compute with; None: one for a small model, whose steps are too
            short to be shared, else torch's choice.

    Attributes:
        deliver: called in the engine's thread after each step with what it brought. At first it
            calls each ticket's `emit` right there.
        why_single: why rows are not run as one batch; None where they are.
        max_length: most tokens of a prompt and its answer.
        tokens: how many tokens there are, numbered from 0.
        ends: those that end an answer.
        dtype: what the model computes in.

    Raises:
        ModelError: the base cannot be loaded.
        PrerequisiteError: the extra `local` is missing.
    """

    def __init__(
        self,
        config: ModelConfig,
        max_batch: int = 32,
        max_waiting: int = 64,
        max_adapters: int = 16,
        threads: int | None = None,
    ) -> None:
        base = load_base(config)
        self.tokenizer = base.tokenizer
        self.vocabulary = Vocabulary(base.tokenizer)
        context = getattr(base.model.config, "max_position_embeddings", None)
        self.max_length: int = min(config.max_length, context or config.max_length)
        self.deliver: Callable[[list[Event]], None] = emit_here
        self.tokens: int = min(len(base.tokenizer), base.model.config.vocab_size)
        self.dtype: torch.dtype = base.model.dtype
        self._config = config
        self._max_batch, self._max_waiting = max_batch, max_waiting
        self._max_adapters = max_adapters
        size = sum(parameter.numel() for parameter in base.model.parameters())
        self._threads = threads or (1 if size < SMALL else None)
        self.ends = end_tokens(base.model, base.tokenizer)
        self._make, self.why_single = choose_runner(base.model)
        self._merged = merges(base.model, max_adapters)
        self._models: dict[Path | None, Any] = {None: base.model}
        self._batches: dict[Path | None, Batch] = {None: Batch(self._make(base.model))}
        self._loading: dict[Path, Future[Any]] = {}
        self._waiting: deque[Row] = deque()
        self._forgotten: set[Path] = set()
        self._draining: Path | None = None
        self._wake = threading.Condition()
        self._news = self._stopping = False
        self._thread: threading.Thread | None = None
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="adapters")
        self._row_seconds = 1.0
        self._answered = 0

    @property
    def alive(self) -> bool:
        """Whether requests are being answered."""
        return self._thread is not None and self._thread.is_alive()

    def counts(self) -> dict[str, int]:
        """How many answers are under way, wait and were given; how many adapters are loaded."""
        return {
            "running": self._running(),
            "waiting": len(self._waiting),
            "answered": self._answered,
            "adapters": len(self._batches) - 1,
        }

    def start(self) -> None:
        """Begin to answer; nothing happens when it has begun already."""
        if not self.alive:
            self._stopping = False
            self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End; what is under way or waits gets an error. Returns when the thread has ended."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()

    def submit(self, asks: Sequence[Ask], emit: Callable[[int, Piece], None]) -> Ticket:
        """Queue the asks of one request. Raises QueueFullError where too many wait."""
        ticket = Ticket(emit)
        with self._wake:
            if self._waiting and len(self._waiting) + len(asks) > self._max_waiting:
                raise QueueFullError(self._retry_after())
            self._waiting += [
                Row(ticket, i, ask, self.vocabulary, self.ends) for i, ask in enumerate(asks)
            ]
            self._notify()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Give a request up; no further piece of it comes after the step under way."""
        with self._wake:
            ticket.cancelled = True
            self._waiting = deque(row for row in self._waiting if row.ticket is not ticket)
            self._notify()

    def forget(self, adapter: Path) -> None:
        """Drop an adapter from memory when its last request is done."""
        with self._wake:
            self._forgotten.add(adapter)
            self._notify()

    def _run(self) -> None:
        if self._threads is not None:
            torch.set_num_threads(self._threads)
        try:
            while self._sleep():
                events, entering = self._admit()
                self._give(events)
                for adapter in list(self._batches):
                    self._turn(adapter, entering.get(adapter, []))
                self._tidy()
        finally:
            self._end()

    def _sleep(self) -> bool:
        """Wait while there is nothing to do; False when the engine is to end."""
        with self._wake:
            while not (self._news or self._stopping or self._running()):
                self._wake.wait()
            self._news = False
            return not self._stopping

    def _admit(self) -> tuple[list[Event], dict[Path | None, list[Row]]]:
        """Which waiting rows are let in, the oldest first; and what became of failed adapters."""
        entering: dict[Path | None, list[Row]] = {}
        with self._wake:
            events = self._take_loaded()
            room, tokens = self._max_batch - self._running(), PREFILL
            blocked = False
            for row in list(self._waiting):
                adapter, length = row.ask.adapter, len(row.ask.prompt)
                if not room or (length > tokens and tokens < PREFILL):
                    self._news = True  # there is more to let in
                    break
                if adapter in self._batches:
                    if adapter is None or adapter != self._draining:
                        self._waiting.remove(row)
                        row.begun = time.monotonic()
                        entering.setdefault(adapter, []).append(row)
                        room, tokens = room - 1, tokens - length
                elif adapter is not None and not self._load(adapter, entering):
                    blocked = True
            else:
                self._draining = self._draining if blocked else None
            if blocked and (self._draining is None or self._draining not in self._batches):
                # one adapter takes no more rows when another has no room, so that none waits for
                # ever; it has had all rows that waited for it when it came
                self._draining = next((a for a in self._batches if a is not None), None)
        return events, entering

    def _turn(self, adapter: Path | None, new: list[Row]) -> None:
        """One batch's turn: rows that were given up leave, new ones enter, all get a token."""
        batch = self._batches[adapter]
        batch.drop({i for i, row in enumerate(batch.rows) if row.ticket.cancelled})
        rows = [*batch.rows, *new]
        self._give(self._guarded(adapter, rows, lambda: batch.step(new)))
        if adapter is not None and rows:
            self._batches[adapter] = self._batches.pop(adapter)  # the one used last comes last

    def _guarded(
        self, adapter: Path | None, rows: list[Row], work: Callable[[], list[Event]]
    ) -> list[Event]:
        """What `work` on a batch of `rows` brings; if it fails, they do, and the batch is new."""
        try:
            events = work()
        except Exception as error:  # out of memory, and whatever a model may raise
            log.exception("answering failed")
            self._batches[adapter] = Batch(self._make(self._models[adapter]))
            self._news = True
            return [row.failed(f"the model failed ({type(error).__name__}).") for row in rows]
        for row in rows:
            if row.finish is not None:
                self._answered += 1
                self._news = True  # there is room again
                self._row_seconds += 0.1 * (time.monotonic() - row.begun - self._row_seconds)
        return events

    def _give(self, events: list[Event]) -> None:
        if events:
            self.deliver(events)

    def _load(self, adapter: Path, entering: Mapping[Path | None, list[Row]]) -> bool:
        """Begin to load an adapter, or go on with it; False where there is no room for it."""
        if adapter in self._loading:
            return True
        if len(self._batches) - 1 + len(self._loading) >= self._max_adapters:
            wanted = {row.ask.adapter for row in self._waiting} - {self._draining}
            kept = wanted | set(entering)
            idle = (a for a, b in self._batches.items() if a and not b.rows and a not in kept)
            oldest = next(idle, None)
            if oldest is None:
                return False
            self._drop(oldest)
        loading = self._loader.submit(self._with_adapter, adapter)
        self._loading[adapter] = loading
        loading.add_done_callback(lambda _: self._notify())
        return True

    def _with_adapter(self, adapter: Path) -> Any:
        check_adapter(adapter, base_identity(resolve_base(self._config), self._config.revision))
        if quantized.trained_on(adapter):
            log.warning(quantized.UNQUANTIZED, adapter, "one base serves all adapters")
        return put_on(self._models[None], adapter, self._merged)

    def _take_loaded(self) -> list[Event]:
        """Adapters that have been loaded get a batch; those that cannot be fail their rows."""
        events: list[Event] = []
        for adapter, loading in list(self._loading.items()):
            if not loading.done():
                continue
            del self._loading[adapter]
            error = loading.exception()
            if error is None:
                self._models[adapter] = loading.result()
                self._batches[adapter] = Batch(self._make(loading.result()))
                continue
            deleted = adapter in self._forgotten or not adapter.is_dir()
            if not deleted:
                log.error("%s", error)
            why = DELETED if deleted else UNLOADABLE
            lost = [row for row in self._waiting if row.ask.adapter == adapter]
            self._waiting = deque(row for row in self._waiting if row not in lost)
            events += [row.failed(why) for row in lost]
        return events

    def _tidy(self) -> None:
        """Drop adapters that were forgotten and are done with."""
        with self._wake:
            self._forgotten &= {*self._batches, *self._loading}
            wanted = {row.ask.adapter for row in self._waiting}
            for adapter in list(self._forgotten):
                batch = self._batches.get(adapter)
                if batch is not None and not batch.rows and adapter not in wanted:
                    self._forgotten.discard(adapter)
                    self._drop(adapter)

    def _drop(self, adapter: Path) -> None:
        del self._batches[adapter], self._models[adapter]
        self._loader.submit(gc.collect)  # a model's modules may refer to one another

    def _end(self) -> None:
        """Nobody is left waiting for an answer that does not come."""
        with self._wake:
            rows = [row for batch in self._batches.values() for row in batch.rows]
            rows += self._waiting
            self._waiting.clear()
            for adapter, model in self._models.items():
                self._batches[adapter] = Batch(self._make(model))
        self._give([row.failed(STOPPED) for row in rows])

    def _running(self) -> int:
        return sum(len(batch.rows) for batch in list(self._batches.values()))

    def _retry_after(self) -> int:
        turns = 1 + len(self._waiting) / self._max_batch
        return min(max(round(turns * self._row_seconds), 1), 60)

    def _notify(self) -> None:
        with self._wake:
            self._news = True
            self._wake.notify()


def emit_here(events: list[Event]) -> None:
    """Give events out in the thread that has them."""
    for ticket, number, piece in events:
        ticket.emit(number, piece)
