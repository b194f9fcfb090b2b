"""What clients get: OpenAI's objects, whole and as the events of a stream."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from tunelm.server.asking import Piece, Scored
from tunelm.server.catalog import Served
from tunelm.server.text import Vocabulary

DONE = b"data: [DONE]\n\n"
FINGERPRINT = f"tunelm-{metadata.version('tunelm')}"


def model_object(served: Served, base: str) -> dict[str, Any]:
    """A model as /v1/models shows it; `parent` names the base that an adapted one stands on."""
    return {
        "id": served.id,
        "object": "model",
        "created": served.created,
        "owned_by": served.owned_by,
        "shutdown_date": None,
        "parent": None if served.id == base else base,
    }


def event(data: object) -> bytes:
    """One event of a stream. ASCII only: some clients break lines at U+2028."""
    return f"data: {_json(data)}\n\n".encode()


def _json(data: object) -> str:
    return json.dumps(data, separators=(",", ":"))


class Reply:
    """The answers to one request, as one object or as a stream of chunks.

    Args:
        model: the id of the model that answers.
        vocabulary: its tokens.
        prompt_tokens: of all prompts together.
        count_stream: whether a stream ends with a chunk that counts tokens.
    """

    prefix = "chatcmpl"
    object = "chat.completion"
    chunk = "chat.completion.chunk"

    def __init__(
        self, model: str, vocabulary: Vocabulary, prompt_tokens: int, count_stream: bool
    ) -> None:
        self._vocabulary = vocabulary
        self._prompt_tokens = prompt_tokens
        self._count_stream = count_stream
        self._head = {
            "id": f"{self.prefix}-{uuid.uuid4().hex}",
            "object": self.object,
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": FINGERPRINT,
        }
        # of a chunk, all but the choice stays the same
        self._begin = _json({**self._head, "object": self.chunk})[:-1] + ',"choices":['
        self._end = '],"usage":null}' if count_stream else "]}"

    def whole(self, pieces: Sequence[Piece]) -> bytes:
        """All answers at once, each in one piece."""
        choices = [self._choice(i, piece) for i, piece in enumerate(pieces)]
        count = self._usage(sum(piece.tokens for piece in pieces))
        return _json({**self._head, "choices": choices, "usage": count}).encode()

    def opening(self, answers: int) -> bytes:
        """The events before any text: who speaks."""
        said = {"role": "assistant", "content": "", "refusal": None}
        return b"".join(self._event(self._delta(i, said)) for i in range(answers))

    def events(self, number: int, piece: Piece) -> bytes:
        """The events of one piece of an answer."""
        found = b""
        if piece.text or piece.scored:
            delta = self._delta(number, {"content": piece.text}, self._logprobs(piece))
            found = self._event(delta)
        if piece.finish is not None:
            found += self._event(self._delta(number, {}, finish=piece.finish))
        return found

    def closing(self, tokens: int) -> bytes:
        """The events after the last answer."""
        if not self._count_stream:
            return DONE
        count = {**self._head, "object": self.chunk, "choices": [], "usage": self._usage(tokens)}
        return event(count) + DONE

    def _event(self, choice: str) -> bytes:
        return f"data: {self._begin}{choice}{self._end}\n\n".encode()

    def _choice(self, number: int, piece: Piece) -> dict[str, Any]:
        return {
            "index": number,
            "message": {"role": "assistant", "content": piece.text, "refusal": None},
            "logprobs": self._logprobs(piece),
            "finish_reason": piece.finish,
        }

    def _delta(
        self,
        number: int,
        delta: dict[str, Any],
        logprobs: dict[str, Any] | None = None,
        finish: str | None = None,
    ) -> str:
        return _json(
            {"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        )

    def _logprobs(self, piece: Piece) -> dict[str, Any] | None:
        if not piece.scored:
            return None
        content = [
            {
                **self._token(scored.token, scored.logprob),
                "top_logprobs": [self._token(*likely) for likely in scored.top],
            }
            for scored in piece.scored
        ]
        return {"content": content, "refusal": None}

    def _token(self, token: int, logprob: float | None) -> dict[str, Any]:
        own = self._vocabulary.bytes_of(token)
        return {"token": _named(own), "logprob": logprob, "bytes": list(own)}

    def _usage(self, tokens: int) -> dict[str, Any]:
        return {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": tokens,
            "total_tokens": self._prompt_tokens + tokens,
            "prompt_tokens_details": {"cached_tokens": 0},
        }


@dataclass(frozen=True, slots=True)
class Echo:
    """A prompt that is repeated before its answer.

    `tokens` are its token ids; of a text, the first one stands before the text and is not shown.
    """

    text: str
    tokens: tuple[int, ...]
    shows_first: bool


class TextReply(Reply):
    """The same for running text: `text_completion`. `echo` has one entry for each answer."""

    prefix = "cmpl"
    object = chunk = "text_completion"

    def __init__(
        self,
        model: str,
        vocabulary: Vocabulary,
        prompt_tokens: int,
        count_stream: bool,
        echo: Sequence[Echo] = (),
    ) -> None:
        super().__init__(model, vocabulary, prompt_tokens, count_stream)
        self._echo = dict(enumerate(echo))

    def opening(self, answers: int) -> bytes:
        """Nothing: a prompt that is to be repeated comes with the first piece of its answer."""
        return b""

    def events(self, number: int, piece: Piece) -> bytes:
        """See Reply."""
        found = b""
        if piece.text or piece.scored or number in self._echo:
            found = self._event(_json(self._choice(number, piece) | {"finish_reason": None}))
            self._echo.pop(number, None)
        if piece.finish is not None:
            found += self._event(_json(self._choice(number, Piece("", finish=piece.finish))))
        return found

    def _choice(self, number: int, piece: Piece) -> dict[str, Any]:
        echo = self._echo.get(number)
        return {
            "index": number,
            "text": (echo.text if echo else "") + piece.text,
            "logprobs": self._legacy(piece, echo),
            "finish_reason": piece.finish,
        }

    def _legacy(self, piece: Piece, echo: Echo | None) -> dict[str, Any] | None:
        before = len(echo.text) if echo else 0
        rows: list[tuple[Scored, int]] = []
        if echo and piece.prompt:
            starts = self._starts(echo)
            first = [Scored(echo.tokens[0], None)] if echo.shows_first else []
            rows = list(zip([*first, *piece.prompt], starts, strict=True))
        rows += [(scored, before + scored.start) for scored in piece.scored]
        if not rows:
            return None
        return {
            "tokens": [self._name(scored.token) for scored, _ in rows],
            "token_logprobs": [scored.logprob for scored, _ in rows],
            "top_logprobs": [
                {self._name(token): value for token, value in scored.top} or None
                for scored, _ in rows
            ],
            "text_offset": [offset for _, offset in rows],
        }

    def _starts(self, echo: Echo) -> list[int]:
        """Where the text of each shown token of a prompt begins."""
        detokenizer, at = self._vocabulary.detokenizer(), 0
        starts: list[int] = []
        for token in echo.tokens if echo.shows_first else echo.tokens[1:]:
            starts.append(at)
            at += len(detokenizer.push(token))
        return starts

    def _name(self, token: int) -> str:
        return _named(self._vocabulary.bytes_of(token))


def _named(own: bytes) -> str:
    """A token's text; bytes that are no whole character are written as escapes."""
    return own.decode("utf-8", "backslashreplace")
