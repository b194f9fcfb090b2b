"""vLLM as the engine: a process of its own on loopback, which is given tokens and gives tokens.

Everything a client sees stays this server's: keys, names, chat templates, prompts, stop strings,
text. What vLLM does is the part that a GPU is for: it turns token ids into token ids, with
adapters loaded while it runs (`--enable-lora`, VLLM_ALLOW_RUNTIME_LORA_UPDATING).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import torch

from tunelm.config import ModelConfig
from tunelm.errors import ModelError, TunelmError
from tunelm.models import quantized
from tunelm.models.decoding import end_tokens
from tunelm.models.identity import base_identity, check_adapter
from tunelm.models.loading import load_tokenizer, resolve_base, weights_dtype
from tunelm.server.asking import Ask, Piece, Scored
from tunelm.server.engine import STOPPED, UNLOADABLE, QueueFullError, Waiting, emit_here
from tunelm.server.rows import Event, Row, Ticket
from tunelm.server.text import Vocabulary
from tunelm.server.vllm_process import BASE, VllmProcess
from tunelm.training.adapter import load_shapes
from tunelm.types import FinishReason

RETRY_S = 5
ENDING_S = 0.5
"""From a broken connection to the end of the process that held it."""
log = logging.getLogger(__name__)


class VllmEngine(Waiting):
    """See `engines.Engine`: answers Asks by a `vllm serve` that it starts.

    Args:
        config: the base model.
        max_batch, max_waiting, max_adapters: as of `LightEngine`.
        rank: the largest rank of an adapter that may come; None: no adapter will.
        share: of the GPU's memory that vLLM may take.

    Raises:
        ModelError: vLLM ended before it was ready, with its last words.
    """

    def __init__(
        self,
        config: ModelConfig,
        max_batch: int,
        max_waiting: int,
        max_adapters: int,
        rank: int | None,
        share: float,
    ) -> None:
        shapes: Any = load_shapes(resolve_base(config), config.revision)
        context = getattr(shapes.config, "max_position_embeddings", None)
        self.tokenizer = load_tokenizer(config)
        self.vocabulary = Vocabulary(self.tokenizer)
        self.max_length: int = min(config.max_length, context or config.max_length)
        self.tokens: int = min(len(self.tokenizer), shapes.config.vocab_size)
        self.ends = end_tokens(shapes, self.tokenizer)
        self.dtype: torch.dtype = weights_dtype(config)
        self.deliver: Callable[[list[Event]], None] = emit_here
        self.why_single: str | None = None
        self._config, self._most, self._batch = config, max_batch + max_waiting, max_batch
        limits: dict[str, object] = {
            "--dtype": str(self.dtype).removeprefix("torch."),
            "--max-model-len": self.max_length,
            "--max-num-seqs": max_batch,
            "--gpu-memory-utilization": share,
        }
        self._process = VllmProcess(config, limits, rank, max_adapters)
        self._lock = threading.RLock()
        self._tasks: dict[Ticket, set[Future[None]]] = {}
        self._loaded: dict[Path, asyncio.Task[str]] = {}
        self._open = self._answered = 0
        self._thread: threading.Thread | None = None
        self.start()

    @property
    def alive(self) -> bool:
        """Whether requests are being answered."""
        return self._thread is not None and self._process.alive

    def counts(self) -> dict[str, int]:
        """As of `LightEngine`; which of the answers wait is not known, only how many must."""
        running = min(self._open, self._batch)
        return {
            "running": running,
            "waiting": self._open - running,
            "answered": self._answered,
            "adapters": len(self._loaded),
        }

    def start(self) -> None:
        """Start vLLM and wait until it answers; nothing happens when it runs already."""
        if self.alive:
            return
        self._process.start()
        self._loop = asyncio.new_event_loop()
        self._client = httpx.AsyncClient(
            base_url=self._process.url,
            headers={"Authorization": f"Bearer {self._process.key}"},
            timeout=httpx.Timeout(None, connect=10),
            limits=httpx.Limits(max_connections=None),
        )
        self._loaded.clear()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vllm", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End vLLM; what is under way gets an error."""
        self._process.stop()
        if self._thread is None:
            return
        with self._lock:
            tasks = [task for tasks in self._tasks.values() for task in tasks]
        for task in tasks:
            with contextlib.suppress(Exception):
                task.result(timeout=10)  # its connection is gone: it says so and ends
        self._run(self._client.aclose()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._thread = None

    def submit(self, asks: Sequence[Ask], emit: Callable[[int, Piece], None]) -> Ticket:
        """Begin with the asks of one request. Raises QueueFullError where too many wait."""
        ticket = Ticket(emit)
        with self._lock:
            if self._open and self._open + len(asks) > self._most:
                raise QueueFullError(RETRY_S)
            self._open += len(asks)
            rows = [Row(ticket, i, ask, self.vocabulary, self.ends) for i, ask in enumerate(asks)]
            tasks = self._tasks[ticket] = {self._run(self._answer(row)) for row in rows}
            for task in list(tasks):
                task.add_done_callback(partial(self._done, ticket))
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Give a request up: vLLM ends what nobody listens to."""
        with self._lock:
            ticket.cancelled = True
            tasks = list(self._tasks.get(ticket, ()))
        for task in tasks:
            task.cancel()

    def forget(self, adapter: Path) -> None:
        """Have vLLM drop an adapter."""
        self._run(self._unload(adapter))

    def _run(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _answer(self, row: Row) -> None:
        """One row from its prompt to its last piece, which comes whatever happens."""
        try:
            model = await self._model(row.ask.adapter)
            if row.ask.score_prompt:
                await self._score_prompt(row, model)
            if row.finish is None:
                await self._generate(row, model)
            event = row.event() or row.failed("vLLM gave no answer.")
        except Exception as error:  # nobody is left waiting, whatever the child sends
            log.error("%s", str(error) or type(error).__name__)
            if isinstance(error, httpx.TransportError):
                await asyncio.sleep(ENDING_S)
            event = row.failed(str(error) if isinstance(error, ModelError) else self._why(error))
        self._answered += event[2].error is None
        self._give(event)

    def _done(self, ticket: Ticket, task: Future[None]) -> None:
        """A row is answered or given up."""
        with self._lock:
            self._open -= 1
            self._tasks[ticket].discard(task)
            if not self._tasks[ticket]:
                del self._tasks[ticket]

    def _why(self, error: Exception) -> str:
        if self._process.stopped:
            return STOPPED
        if not self._process.alive:
            log.error("vLLM ended: %s", self._process.last_words())
            return "vLLM ended; the server's log says why."
        return f"vLLM failed ({type(error).__name__})."

    def _give(self, event: Event) -> None:
        if not event[0].cancelled:
            self.deliver([event])

    async def _generate(self, row: Row, model: str) -> None:
        """Tokens as they come, until vLLM or the row itself (a stop string) ends."""
        body = self._body(row.ask, model) | {"stream": True, "logprobs": row.ask.top}
        why = "stop"
        async with self._client.stream("POST", "/v1/completions", json=body) as response:
            if response.status_code != 200:
                raise ModelError(_refusal(await response.aread()))
            async for line in response.aiter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                data = json.loads(line[6:])
                if "error" in data:
                    raise ModelError(_refusal(line[6:].encode()))
                for choice in data["choices"]:
                    why = choice["finish_reason"] or why
                    self._take(row, choice)
                if row.finish is not None:
                    return
                if (event := row.event()) is not None:
                    self._give(event)
        if why == "length":
            row.finish = FinishReason.LENGTH
        else:
            row.take(next(iter(self.ends)))  # the end token itself was not sent

    def _take(self, row: Row, choice: dict[str, Any]) -> None:
        found = choice.get("logprobs") or {}
        for i, token in enumerate(choice.get("token_ids") or ()):
            if row.finish is not None:
                return
            scored = None
            if row.ask.top is not None:
                named = {} if not row.ask.top else found["top_logprobs"][i] or {}
                top = [(int(name.removeprefix("token_id:")), p) for name, p in named.items()]
                value = found["token_logprobs"][i]
                scored = Scored(token, value, _best(top, row.ask.top), len(row.text))
            row.take(token, scored)

    async def _score_prompt(self, row: Row, model: str) -> None:
        """Log-probabilities of the prompt's own tokens, which vLLM gives to no stream."""
        top = row.ask.top or 0
        body = self._body(row.ask, model) | {"max_tokens": 1, "prompt_logprobs": top}
        response = await self._client.post("/v1/completions", json=body)
        if response.status_code != 200:
            raise ModelError(_refusal(response.content))
        places = response.json()["choices"][0]["prompt_logprobs"]
        scored: list[Scored] = []
        for token, place in zip(row.ask.prompt[1:], places[1:], strict=True):
            all_there = [(int(name), entry["logprob"]) for name, entry in place.items()]
            scored.append(Scored(token, dict(all_there)[token], _best(all_there, top)))
        row.take_prompt(scored)

    def _body(self, ask: Ask, model: str) -> dict[str, Any]:
        seed, how = None, ask.sampling
        if how.seed is not None:
            seed = int.from_bytes(hashlib.sha256(how.seed.encode()).digest()[:6], "big")
        return {
            "model": model,
            "prompt": ask.prompt,
            "max_tokens": ask.max_tokens,
            "temperature": how.temperature,
            "top_p": how.top_p,
            "seed": seed,
            "frequency_penalty": how.frequency_penalty,
            "presence_penalty": how.presence_penalty,
            "logit_bias": {str(token): value for token, value in how.bias.items()} or None,
            "stop_token_ids": sorted(self.ends),
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
        }

    async def _model(self, adapter: Path | None) -> str:
        """VLLM's name of the model, whose adapter is loaded if it is not yet."""
        if adapter is None:
            return BASE
        loading = self._loaded.get(adapter)
        if loading is None or (loading.done() and loading.exception() is not None):
            loading = self._loaded[adapter] = asyncio.ensure_future(self._load(adapter))
        return await asyncio.shield(loading)

    async def _load(self, adapter: Path) -> str:
        folder, revision = resolve_base(self._config), self._config.revision
        try:
            check_adapter(adapter, await asyncio.to_thread(base_identity, folder, revision))
        except TunelmError as error:
            log.error("%s", error)
            raise ModelError(UNLOADABLE) from None
        if quantized.trained_on(adapter):
            log.warning(quantized.UNQUANTIZED, adapter, "one base serves all adapters")
        name = f"adapter-{hashlib.sha256(str(adapter).encode()).hexdigest()[:16]}"
        body = {"lora_name": name, "lora_path": str(adapter)}
        response = await self._client.post("/v1/load_lora_adapter", json=body)
        if response.status_code != 200:
            log.error("%s: %s", adapter, _refusal(response.content))
            raise ModelError(UNLOADABLE)
        return name

    async def _unload(self, adapter: Path) -> None:
        loading = self._loaded.pop(adapter, None)
        if loading is not None and not (loading.done() and loading.exception()):
            body = {"lora_name": await loading}
            await self._client.post("/v1/unload_lora_adapter", json=body)


def _best(found: list[tuple[int, float]], top: int | None) -> tuple[tuple[int, float], ...]:
    return tuple(sorted(found, key=lambda item: -item[1])[: top or 0])


def _refusal(body: bytes) -> str:
    """What vLLM says was wrong, in one line."""
    try:
        data = json.loads(body)
        said = str(data.get("error", data).get("message", data))
    except (ValueError, AttributeError):
        said = body.decode(errors="replace")
    return f"vLLM refused: {said.strip().splitlines()[0][:300] if said.strip() else 'no reason'}"
