"""What clients send to be answered: OpenAI's fields, checked; what is not supported is refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, model_validator

from tunelm.errors import ModelError
from tunelm.models.prompted import with_prompt
from tunelm.models.render import encode_prompt
from tunelm.server.asking import Ask, Sampling
from tunelm.server.catalog import Served
from tunelm.server.engines import Engine
from tunelm.server.errors import ApiError, not_supported
from tunelm.server.replies import Echo
from tunelm.server.text import Vocabulary
from tunelm.types import Message, Request

MOST_STOPS = 4
MOST_TOP = 20
MOST_ANSWERS = 1024
"""Most answers of one request: prompts times `n`."""
DEFAULT_COMPLETION = 16
"""Most tokens of a text completion where the client does not say, as OpenAI has it."""


def _text(value: object) -> str:
    """A message's content: a string, or a list of text parts, which are joined."""
    if isinstance(value, list):
        parts: list[str] = []
        for part in cast(list[object], value):
            fields = cast(dict[str, object], part) if isinstance(part, dict) else {}
            kind, text = fields.get("type"), fields.get("text")
            if isinstance(kind, str) and kind != "text":
                raise not_supported("messages", f"Content of type {kind[:40]!r}")
            if not isinstance(text, str) or set(fields) != {"type", "text"}:
                raise ValueError('each part is {"type": "text", "text": "..."}')
            parts.append(text)
        value = "".join(parts)
    if not isinstance(value, str):
        raise ValueError("a string or a list of text parts is expected")
    return _whole(value)


def _whole(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half of a surrogate pair, which is no text") from None
    return value


def _stops(value: object) -> tuple[str, ...]:
    found = (value,) if isinstance(value, str) else value
    if found is None:
        return ()
    if not isinstance(found, list | tuple) or len(cast(list[object], found)) > MOST_STOPS:
        raise ValueError(f"a string or a list of at most {MOST_STOPS} is expected")
    stops = cast(list[object], found)
    if not all(isinstance(stop, str) and stop for stop in stops):
        raise ValueError("a stop string has at least one character")
    return tuple(cast(list[str], stops))


def _prompts(value: object) -> list[object]:
    """One prompt or several, each a string or token ids, as a list."""
    if isinstance(value, str) or (isinstance(value, list) and _are_tokens(cast(Any, value))):
        value = [value]
    prompts = cast(list[object], value) if isinstance(value, list) else []
    for prompt in prompts:
        if isinstance(prompt, str):
            _whole(prompt)
        elif not (isinstance(prompt, list) and _are_tokens(cast(list[object], prompt))):
            prompts = []
            break
    if not prompts:
        raise ValueError("a string, a list of strings, token ids or a list of those is expected")
    return prompts


def _are_tokens(value: list[object]) -> bool:
    return bool(value) and all(type(token) is int and token >= 0 for token in value)


Content = Annotated[str, BeforeValidator(_text)]
Stops = Annotated[tuple[str, ...], BeforeValidator(_stops)]
Penalty = Annotated[FiniteFloat, Field(ge=-2, le=2)]
Prompts = Annotated[list[str | list[int]], BeforeValidator(_prompts)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Turn(_Strict):
    """One message. Fields that clients copy from an earlier answer may be there, empty."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Content

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        fields = cast(dict[str, Any], data)
        if fields.get("role") in ("tool", "function"):
            raise not_supported("messages", f"The role {fields['role']!r}")
        kept: dict[str, Any] = {}
        for name, value in fields.items():
            if name not in _COPIED:
                kept[name] = value
            elif value not in (None, []):
                raise not_supported("messages", f"A message's {name!r}")
        return kept


_COPIED = ("name", "refusal", "tool_calls", "function_call", "audio", "annotations")


class StreamOptions(_Strict):
    """Whether the stream ends with a count of tokens. Obfuscation is not done."""

    include_usage: bool = False
    include_obfuscation: bool = False


class Body(_Strict):
    """What both endpoints take. A field that is null counts as left out."""

    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: Annotated[FiniteFloat, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[FiniteFloat, Field(gt=0, le=1)] = 1.0
    seed: int | None = None
    n: Annotated[int, Field(ge=1, le=128)] = 1
    stop: Stops = ()
    frequency_penalty: Penalty = 0.0
    presence_penalty: Penalty = 0.0
    logit_bias: dict[str, Annotated[FiniteFloat, Field(ge=-100, le=100)]] = Field(
        default_factory=dict
    )
    user: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _supported(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        fields = cast(dict[str, Any], data)
        kept: dict[str, Any] = {}
        for name, value in fields.items():
            if name in _HARMLESS:
                if value is not None and value not in _HARMLESS[name]:
                    raise not_supported(name, _said(name, value))
            elif value is not None and name not in _IGNORED:
                kept[name] = value
        return kept

    @model_validator(mode="after")
    def _fits(self) -> Body:
        if self.stream_options is not None and not self.stream:
            raise ApiError(
                400, "stream_options is for streams: set stream.", "invalid_value", "stream_options"
            )
        return self

    @property
    def counts_stream(self) -> bool:
        """Whether a stream ends with a count of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self, choice: int, engine: Engine) -> Sampling:
        """For one of the `n` answers; each has random numbers of its own."""
        return Sampling(
            self.temperature,
            self.top_p,
            None if self.seed is None else f"{self.seed}/{choice}",
            self.frequency_penalty,
            self.presence_penalty,
            {self._biased(name, engine): value for name, value in self.logit_bias.items()},
        )

    def _biased(self, name: str, engine: Engine) -> int:
        if name.isdecimal() and int(name) < engine.tokens:
            return int(name)
        raise ApiError(
            400,
            f"logit_bias: {name[:40]!r} is no token of this model; they are 0 to "
            f"{engine.tokens - 1}.",
            "invalid_value",
            "logit_bias",
        )


class ChatBody(Body):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Turn], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_TOP)] | None = None

    @model_validator(mode="after")
    def _agrees(self) -> ChatBody:
        if self.top_logprobs is not None and not self.logprobs:
            raise ApiError(
                400, "top_logprobs needs logprobs: true.", "invalid_value", "top_logprobs"
            )
        both = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(both) > 1:
            raise ApiError(
                400,
                "max_tokens and max_completion_tokens mean the same and differ: give one of them.",
                "invalid_value",
                "max_tokens",
            )
        return self

    def requests(self, engine: Engine) -> list[Request]:
        """The same for a model that is composed of several calls.

        Raises ApiError for what such a model cannot give: log-probabilities, and sampling by
        anything but a temperature.
        """
        for name in ("logprobs", "logit_bias", "frequency_penalty", "presence_penalty"):
            if getattr(self, name) or self.top_p != 1:
                name = name if getattr(self, name) else "top_p"
                raise ApiError(
                    400,
                    f"{name}: {self.model!r} is more than one call of the model, and does not "
                    "take it.",
                    "unsupported_parameter",
                    name,
                )
        messages = tuple(self._turns())
        _require_short(sum(len(m.content) for m in messages), engine, "messages")
        limit = self.max_completion_tokens or self.max_tokens or engine.max_length
        seeds = [None if self.seed is None else self.seed + choice for choice in range(self.n)]
        return [Request(messages, limit, self.temperature, self.stop, seed) for seed in seeds]

    def _turns(self) -> list[Message]:
        roles = {"developer": "system"}
        return [Message(roles.get(turn.role, turn.role), turn.content) for turn in self.messages]

    def asks(self, served: Served, engine: Engine) -> list[Ask]:
        """The `n` answers to generate. Raises ApiError where they do not fit the context."""
        messages = with_prompt(served.system, served.demos, self._turns())
        _require_short(sum(len(m.content) for m in messages), engine, "messages")
        prompt = _encode(engine, messages, "messages")
        given = self.max_completion_tokens or self.max_tokens
        limit = _room(engine, prompt, given, "messages")
        return [
            Ask(
                prompt,
                limit,
                served.adapter,
                self.sampling(choice, engine),
                self.stop,
                (self.top_logprobs or 0) if self.logprobs else None,
                stream=self.stream,
            )
            for choice in range(self.n)
        ]


class CompletionBody(Body):
    """POST /v1/completions."""

    prompt: Prompts
    max_tokens: Annotated[int, Field(ge=0)] = DEFAULT_COMPLETION
    echo: bool = False
    logprobs: Annotated[int, Field(ge=0, le=MOST_TOP)] | None = None

    def prompts(self, engine: Engine) -> list[list[int]]:
        """Token ids of each prompt. Text begins as the model's training had it begin."""
        found: list[list[int]] = []
        for one in self.prompt:
            if isinstance(one, str):
                _require_short(len(one), engine, "prompt")
                found.append(_encode(engine, (Message("text", one),), "prompt"))
            elif max(one) >= engine.tokens:
                raise ApiError(
                    400, "prompt: a token is not of this model.", "invalid_value", "prompt"
                )
            else:
                found.append(one)
        return found

    def asks(self, served: Served, engine: Engine) -> list[Ask]:
        """`n` answers to each prompt, prompt by prompt. Raises ApiError where one does not fit."""
        if len(self.prompt) * self.n > MOST_ANSWERS:
            raise ApiError(
                400,
                f"{len(self.prompt)} prompts times n = {self.n}: one request has at most "
                f"{MOST_ANSWERS} answers.",
                "invalid_value",
                "prompt",
            )
        prompts = self.prompts(engine)
        for prompt in prompts:
            _room(engine, prompt, self.max_tokens, "prompt")
        return [
            Ask(
                prompt,
                self.max_tokens,
                served.adapter,
                self.sampling(choice, engine),
                self.stop,
                self.logprobs,
                self.echo and self.logprobs is not None,
                self.stream,
            )
            for prompt in prompts
            for choice in range(self.n)
        ]

    def echoes(self, asks: list[Ask], vocabulary: Vocabulary) -> list[Echo]:
        """The prompt to repeat before each answer; none where that was not asked for."""
        if not self.echo:
            return []
        given = [one for one in self.prompt for _ in range(self.n)]
        return [
            Echo(
                one
                if isinstance(one, str)
                else b"".join(map(vocabulary.bytes_of, one)).decode("utf-8", "replace"),
                tuple(ask.prompt),
                not isinstance(one, str),
            )
            for one, ask in zip(given, asks, strict=True)
        ]


_IGNORED = (
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prompt_cache_options",
)
"""Fields about the client, or about how a provider does its work: they change no answer."""

_HARMLESS: dict[str, tuple[Any, ...]] = {
    "store": (False,),
    "service_tier": ("auto", "default"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "verbosity": ("medium",),
    "reasoning_effort": ("none",),
    "best_of": (1,),
    "suffix": ("",),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "moderation": (),
}
"""Fields that are not supported -> values that ask for nothing."""


def _said(name: str, value: Any) -> str:
    kind = cast(dict[str, Any], value).get("type") if isinstance(value, dict) else value
    shown = f" {kind!r}" if isinstance(kind, str | bool | int) else ""
    return f"{name}{shown[:60]}"


def _encode(engine: Engine, messages: tuple[Message, ...], param: str) -> list[int]:
    try:
        return encode_prompt(engine.tokenizer, messages)
    except ModelError as error:
        raise ApiError(400, str(error), "invalid_value", param) from None
    except Exception as error:  # a chat template refuses by errors of any kind
        raise ApiError(
            400,
            f"{param}: the model's chat template does not take these: {error}.",
            "invalid_value",
            param,
        ) from None


def _require_short(characters: int, engine: Engine, param: str) -> None:
    """Refuse what cannot fit before the work of tokenizing it, which grows with its length."""
    least = characters // engine.vocabulary.longest
    if least > engine.max_length:
        raise _too_long(engine, f"more than {least} tokens", param)


def _room(engine: Engine, prompt: list[int], limit: int | None, param: str) -> int:
    """How many tokens the answer may have: `limit`, or all that fit."""
    room = engine.max_length - len(prompt)
    if room < (1 if limit is None else limit):
        wanted = f"{len(prompt)} tokens"
        if limit is not None:
            wanted = f"{len(prompt) + limit} tokens ({len(prompt)} in the {param}, {limit} in the "
            wanted += "completion)"
        raise _too_long(engine, wanted, param)
    return room if limit is None else limit


def _too_long(engine: Engine, wanted: str, param: str) -> ApiError:
    return ApiError(
        400,
        f"This model's maximum context length is {engine.max_length} tokens. However, you "
        f"requested {wanted}. Please reduce the length of the {param} or of the completion.",
        "context_length_exceeded",
        param,
    )
