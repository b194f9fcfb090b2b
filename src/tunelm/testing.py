"""What tests of tunelm, and of programs built on it, need: real parts, only small."""

from __future__ import annotations

import dataclasses
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from tunelm.errors import ModelError
from tunelm.models.base import ChatModel
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

_TEMPLATE = """\
{%- for message in messages -%}
<|start|>{{ message.role }}
{% if message.role == 'assistant' -%}
{% generation %}{{ message.content }}<|end|>{% endgeneration %}
{% else -%}
{{ message.content }}<|end|>
{% endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|start|>assistant
{% endif -%}
"""


def make_tiny_model(folder: Path, seed: int = 0) -> Path:
    """Write an untrained Llama of about 40,000 parameters that Transformers can load.

    It has a byte-level BPE tokenizer, a chat template with generation markers, and a pad
    token that is not its end token. The same seed writes the same weights.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore
    specials = ["<|pad|>", "<|start|>", "<|end|>"]
    tokenizer.train_from_iterator(
        ["The quick brown fox jumps over the lazy dog. user assistant system\n"] * 4,
        trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=specials,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>"
    )
    fast.chat_template = _TEMPLATE
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(fast),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            pad_token_id=specials.index("<|pad|>"),
            bos_token_id=None,
            eos_token_id=specials.index("<|end|>"),
        )
    )
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return Path(folder)


class ScriptedModel:
    """A ChatModel that answers by a function; safe to call from several threads.

    Tokens are words between whitespace. A request for which `answer` raises ValueError fails
    by itself, as one that is too long does, and costs nothing; any other error is the whole
    model's.

    Attributes:
        requests: all requests answered or failed so far, in that order.
        usage: the sum of what it reported for them.
    """

    capabilities = frozenset({"complete", "stream"})

    def __init__(self, answer: Callable[[Request], str], name: str = "scripted") -> None:
        self.name = name
        self.requests: list[Request] = []
        self.usage = ZERO_USAGE
        self._answer = answer
        self._lock = threading.Lock()

    @property
    def calls(self) -> int:
        """How many requests there were."""
        return len(self.requests)

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """See ChatModel."""
        return [self._complete(request) for request in requests]

    def stream(self, request: Request) -> Iterator[Delta]:
        """See ChatModel. One word a delta."""
        done = self._complete(request)
        if done.error is not None:
            raise ModelError(done.error)
        *pieces, last = done.text.split(" ")
        for piece in pieces:
            yield Delta(piece + " ")
        yield Delta(last, done.finish_reason, done.usage)

    def score(self, pairs: Sequence[tuple[tuple[Message, ...], str]]) -> list[TokenLogprobs]:
        """Not possible: a function has no probabilities."""
        raise ModelError(f"{self.name} cannot score: it knows no probabilities.")

    def _complete(self, request: Request) -> Completion:
        try:
            text = self._answer(request)
        except ValueError as error:
            done = Completion("", FinishReason.ERROR, ZERO_USAGE, error=str(error))
        else:
            words = sum(len(m.content.split()) for m in request.messages)
            done = Completion(text, FinishReason.STOP, Usage(words, len(text.split()), 0))
        with self._lock:
            self.requests.append(request)
            self.usage += done.usage
        return done


@dataclass(frozen=True, slots=True)
class Failure:
    """How ChatServer answers one request otherwise than well.

    Attributes:
        status: an HTTP status; one other than 200 comes with `error`.
        error: fields of the error object (message, code, param).
        headers: further headers, such as Retry-After.
        body: sent instead of the answer, as it is.
        drop: close the connection without a word.
        cut: break off in the midst of the answer.
        delay_s: seconds to wait first.
        usage: whether tokens are reported.
    """

    status: int = 200
    error: Mapping[str, str] = field(default_factory=dict[str, str])
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes | None = None
    drop: bool = False
    cut: bool = False
    delay_s: float = 0.0
    usage: bool = True


class ChatServer:
    """A model behind the OpenAI chat protocol, on loopback, with failures on demand.

    Speaks GET /v1/models, POST /v1/chat/completions and, for running text, /v1/completions;
    whole answers and streams. Use it as a context manager; `url` is the `base_url`.

    Args:
        model: who answers.
        key: the key to ask for; None: none is asked for.
        fail: called with a request's body, and with how often the same messages came before;
            returns how to fail, or None to answer well.

    Attributes:
        bodies: the bodies of all POST requests, in the order in which they came.
        most_at_once: the most POST requests that were under way together.
    """

    def __init__(
        self,
        model: ChatModel,
        key: str | None = None,
        fail: Callable[[Mapping[str, Any], int], Failure | None] | None = None,
    ) -> None:
        self.model = model
        self.key = key
        self.bodies: list[dict[str, Any]] = []
        self.most_at_once = 0
        self._at_once = 0
        self._fail = fail or (lambda body, seen: None)
        self._lock = threading.Lock()
        self._http = _Listener(("127.0.0.1", 0), _Handler)
        self._http.chat = self
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def begin(self, body: dict[str, Any]) -> Failure:
        """Note a request; how to answer it."""
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            said = _said(body)
            seen = sum(_said(earlier) == said for earlier in self.bodies)
            self.bodies.append(body)
        return self._fail(body, seen) or Failure()

    def end(self) -> None:
        """Note that a request was answered."""
        with self._lock:
            self._at_once -= 1


def _said(body: Mapping[str, Any]) -> Any:
    return body.get("messages", body.get("prompt"))


class QuietListener(ThreadingHTTPServer):
    """A server of a test: a thread a connection, and nothing printed."""

    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class FailingHandler(BaseHTTPRequestHandler):
    """Sends answers as a Failure has them."""

    protocol_version = "HTTP/1.1"
    timeout = 30
    disable_nagle_algorithm = True  # head and body are two writes: the second would wait 40 ms

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def send(self, status: int, data: object, failure: Failure | None = None) -> None:
        """Send bytes as they are, anything else as JSON."""
        failure = failure or Failure()
        content = data if isinstance(data, bytes) else json.dumps(data).encode()
        if failure.body is not None:
            content = failure.body
        self.send_response(status)
        for name, value in failure.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if failure.cut:
            self.wfile.write(content[: len(content) // 2])
            self.hang_up()
        else:
            self.wfile.write(content)

    def hang_up(self) -> None:
        """Close the connection, whatever was promised."""
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True


class _Listener(QuietListener):
    chat: ChatServer


class _Handler(FailingHandler):
    @property
    def chat(self) -> ChatServer:
        assert isinstance(self.server, _Listener)
        return self.server.chat

    def do_GET(self) -> None:  # the name is http.server's
        if self.path != "/v1/models":
            self.send(404, {"error": {"message": f"no such path: {self.path}"}})
        elif self._known():
            entry = {"id": self.chat.model.name, "object": "model", "owned_by": "tunelm"}
            self.send(200, {"object": "list", "data": [entry]})

    def do_POST(self) -> None:  # the name is http.server's
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path not in ("/v1/chat/completions", "/v1/completions"):
            self.send(404, {"error": {"message": f"no such path: {self.path}"}})
        elif not self._known():
            return
        elif body["model"] != self.chat.model.name:
            error = {"message": f"no model {body['model']!r}", "code": "model_not_found"}
            self.send(404, {"error": error})
        else:
            failure = self.chat.begin(body)
            try:
                self._answer(body, failure)
            finally:
                self.chat.end()

    def _known(self) -> bool:
        got = self.headers.get("Authorization", "")
        if self.chat.key is None or got == f"Bearer {self.chat.key}":
            return True
        self.send(401, {"error": {"message": f"Incorrect API key provided: {got}"}})
        return False

    def _answer(self, body: dict[str, Any], failure: Failure) -> None:
        time.sleep(failure.delay_s)
        if failure.drop:
            self.hang_up()
        elif failure.status != 200:
            error = {"message": "failed on demand", **failure.error}
            self.send(failure.status, {"error": error}, failure)
        elif body.get("stream") and failure.body is None:
            self._stream(body, failure)
        else:
            done = self.chat.model.complete([_request(body)])[0]
            if done.error:
                self.send(400, {"error": {"message": done.error}}, failure)
            else:
                self.send(200, _completion(body, done, failure.usage), failure)

    def _stream(self, body: dict[str, Any], failure: Failure) -> None:
        deltas = self.chat.model.stream(_request(body))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        wanted = (body.get("stream_options") or {}).get("include_usage") and failure.usage
        for delta in deltas:
            choice = {
                "index": 0,
                "delta": {"content": delta.text},
                "finish_reason": delta.finish_reason,
            }
            self._event({"object": "chat.completion.chunk", "choices": [choice]})
            if failure.cut:
                self.hang_up()
                return
            if delta.usage and wanted:
                self._event({"choices": [], "usage": _usage(delta.usage)})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, data: object) -> None:
        # as many servers do: characters as they are, U+2028 too
        self.wfile.write(f"data: {json.dumps(data, ensure_ascii=False)}\n\n".encode())


def _request(body: Mapping[str, Any]) -> Request:
    if "prompt" in body:
        messages = (Message("text", body["prompt"]),)
    else:
        messages = tuple(Message(m["role"], m["content"]) for m in body["messages"])
    return Request(
        messages,
        body.get("max_completion_tokens") or body.get("max_tokens") or 64,
        body.get("temperature", 1.0),
        tuple(body.get("stop") or ()),
        body.get("seed"),
    )


def _completion(body: Mapping[str, Any], done: Completion, usage: bool) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": 0, "finish_reason": done.finish_reason}
    if "prompt" in body:
        choice["text"] = done.text
    else:
        choice["message"] = {"role": "assistant", "content": done.text}
    data = {"object": "chat.completion", "model": body["model"], "choices": [choice]}
    return data | ({"usage": _usage(done.usage)} if usage else {})


def _usage(usage: Usage) -> dict[str, Any]:
    counts = {k: v for k, v in dataclasses.asdict(usage).items() if v is not None}
    cached = counts.pop("cached_tokens", None)
    details = {} if cached is None else {"prompt_tokens_details": {"cached_tokens": cached}}
    return counts | details
