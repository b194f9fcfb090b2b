"""A Transformers model on this machine, with or without an adapter, as a ChatModel.

Concurrent callers are answered as one batch: whoever comes while a batch runs waits for the
next one, so eight threads with a request each cost little more than one.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from tunelm.config import ModelConfig
from tunelm.errors import ModelError
from tunelm.models import quantized
from tunelm.models.decoding import Row, decode
from tunelm.models.loading import choose_device, load_base, require_torch, resolve_base
from tunelm.models.render import encode_prompt, is_text
from tunelm.models.rolling import Window, logprobs_of, windows
from tunelm.types import (
    ZERO_USAGE,
    Completion,
    Delta,
    FinishReason,
    Message,
    Request,
    TokenLogprobs,
    Usage,
)

log = logging.getLogger(__name__)

_Job = tuple[Request, "Future[Completion]"]
GATHER_S = 0.003
"""How long a batch waits for company. A forward pass of the smallest model takes longer."""


def open_local(config: ModelConfig, adapter: Path | None) -> LocalModel:
    """Load a base model, and put an adapter on it; that they belong together is checked first.

    An adapter that was trained on a base in 4 bits gets it in 4 bits again, where that is possible
    here, else a warning with the base as it is.

    Raises ModelError when they do not, or when the base cannot be loaded.
    """
    four_bits = False
    if adapter is not None:
        from tunelm.models.identity import base_identity, check_adapter

        require_torch()
        check_adapter(adapter, base_identity(resolve_base(config), config.revision))
        if quantized.trained_on(adapter):
            problem = quantized.why_not(choose_device(config.device))
            four_bits = problem is None
            if problem is not None:
                log.warning(quantized.UNQUANTIZED, adapter, problem)
    base = load_base(config, four_bits)
    model, name = base.model, config.base
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(adapter)).eval()
        name = f"{config.base}+{adapter.name}"
    return LocalModel(model, base.tokenizer, name, config.max_length, config.batch_size)


class LocalModel:
    """See ChatModel. `max_length` and the model's own context bound prompt plus answer."""

    capabilities = frozenset({"complete", "stream", "score"})

    def __init__(
        self, model: Any, tokenizer: Any, name: str, max_length: int = 1024, batch_size: int = 32
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.name = name
        context = getattr(model.config, "max_position_embeddings", None) or max_length
        self.max_length = min(max_length, context)
        self.batch_size = batch_size
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._running = threading.Lock()

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """See ChatModel. Whichever caller gets the lock runs the batches of all who wait."""
        futures: list[Future[Completion]] = []
        for request in requests:
            future: Future[Completion] = Future()
            self._jobs.put((request, future))
            futures.append(future)
        while not all(f.done() for f in futures):
            with self._running:
                if not all(f.done() for f in futures):
                    self._run_waiting(alone=len(requests) > 1)
        return [f.result() for f in futures]

    def stream(self, request: Request) -> Iterator[Delta]:
        """See ChatModel."""
        row, problem = self._row(request)
        if row is None:
            raise ModelError(problem or "")
        sent = ""
        with self._lock:
            for _ in decode(self.model, self.tokenizer, [row]):
                ready = _certain(row)
                if len(ready) > len(sent):
                    yield Delta(ready[len(sent) :])
                    sent = ready
        yield Delta(row.text[len(sent) :], row.finish, _usage(row))

    def score(self, pairs: Sequence[tuple[tuple[Message, ...], str]]) -> list[TokenLogprobs]:
        """See ChatModel. Running text may be longer than the context: see `models.rolling`.

        Raises ModelError for a chat and its answer that are longer than the context.
        """
        cuts: list[list[Window]] = []
        for prompt, text in pairs:
            head = encode_prompt(self.tokenizer, prompt)
            tail = list(self.tokenizer.encode(text, add_special_tokens=False, verbose=False))
            if len(head) + len(tail) > self.max_length and not (is_text(prompt) and len(head) == 1):
                raise ModelError(
                    f"prompt and text have {len(head) + len(tail)} tokens; the context is "
                    f"{self.max_length}."
                )
            cuts.append(windows(tail, head, self.max_length))
        with self._lock:
            flat = [window for cut in cuts for window in cut]
            found = iter(logprobs_of(self.model, flat, self.tokenizer.pad_token_id))
        scored: list[TokenLogprobs] = []
        for cut in cuts:
            logprobs = tuple(p for _ in cut for p in next(found))
            tokens = [t for window in cut for t in window.targets]
            names = self.tokenizer.convert_ids_to_tokens(tokens)
            scored.append(TokenLogprobs(tuple(names), logprobs))
        return scored

    def _run_waiting(self, alone: bool) -> None:
        if not alone:
            time.sleep(GATHER_S)
        jobs: list[_Job] = []
        while not self._jobs.empty():
            jobs.append(self._jobs.get())
        try:
            self._answer(jobs)
        except BaseException as error:
            for _, future in jobs:
                if not future.done():
                    future.set_exception(error)
            raise

    def _answer(self, jobs: list[_Job]) -> None:
        rows: list[tuple[Row, Future[Completion]]] = []
        for request, future in jobs:
            row, problem = self._row(request)
            if row is None:
                future.set_result(Completion("", FinishReason.ERROR, ZERO_USAGE, error=problem))
            else:
                rows.append((row, future))
        # Alike lengths together: less padding, and the same batches whatever the arrival order.
        rows.sort(key=lambda item: (len(item[0].prompt), item[0].prompt))
        for start in range(0, len(rows), self.batch_size):
            batch = rows[start : start + self.batch_size]
            began = time.perf_counter()
            with self._lock:
                for _ in decode(self.model, self.tokenizer, [row for row, _ in batch]):
                    pass
            seconds = time.perf_counter() - began
            for row, future in batch:
                finish = row.finish or FinishReason.LENGTH
                future.set_result(Completion(row.text, finish, _usage(row), seconds))

    def _row(self, request: Request) -> tuple[Row | None, str | None]:
        prompt = encode_prompt(self.tokenizer, request.messages)
        room = self.max_length - len(prompt)
        if room < 1:
            return None, (
                f"context_length_exceeded: the prompt has {len(prompt)} tokens, the context "
                f"{self.max_length}"
            )
        row = Row(
            prompt, min(request.max_tokens, room), request.temperature, request.seed, request.stop
        )
        return row, None


def _usage(row: Row) -> Usage:
    return Usage(len(row.prompt), len(row.tokens), 0)


def _certain(row: Row) -> str:
    """The part of the text that later tokens cannot change or a stop string swallow."""
    text = row.text
    if row.finish is not None:
        return text
    if text.endswith("�"):  # a character whose bytes are not all there yet
        text = text.rstrip("�")
    held = 0
    for stop in row.stop:
        for size in range(1, min(len(stop), len(text) + 1)):
            if text.endswith(stop[:size]):
                held = max(held, size)
    return text[: len(text) - held]
