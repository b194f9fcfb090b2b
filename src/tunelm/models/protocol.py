"""What is said on the wire of the OpenAI protocol, as far as answering goes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from tunelm.models.endpoint import Reply, printable
from tunelm.models.render import is_text
from tunelm.types import Request, Usage


class Answer(NamedTuple):
    """What a good reply holds. `served` is the model that the endpoint says answered."""

    text: str
    reason: str | None
    usage: Usage
    served: str | None


@dataclass
class Dialect:
    """How one endpoint wants to be asked, as far as its refusals have said."""

    limit: str = "max_tokens"
    temperature: bool = True
    count_stream: bool = True
    schema: bool = True

    def body(self, model: str, request: Request, stream: bool = False) -> dict[str, Any]:
        """What to send for a request."""
        body: dict[str, Any] = {"model": model}
        if is_text(request.messages):
            body["prompt"] = request.messages[0].content
            body["max_tokens"] = request.max_tokens
        else:
            body["messages"] = [dataclasses.asdict(m) for m in request.messages]
            body[self.limit] = request.max_tokens
        if self.temperature:
            body["temperature"] = request.temperature
        if request.stop:
            body["stop"] = list(request.stop)
        if request.seed is not None and request.temperature > 0:
            body["seed"] = request.seed
        if request.choices and self.schema and "messages" in body:
            body["response_format"] = _one_of(request.choices)
        if stream:
            body["stream"] = True
            if self.count_stream:
                body["stream_options"] = {"include_usage": True}
        return body

    def learn(self, reply: Reply, body: Mapping[str, Any]) -> bool:
        """Whether a refusal of `body` names a field that is now left out or called otherwise."""
        if reply.status not in (400, 422):
            return False
        renamed = "max_completion_tokens" in reply.error and "support" in reply.error
        if "messages" in body and "max_tokens" in body and renamed:
            self.limit = "max_completion_tokens"
        elif "temperature" in body and _names(reply, "temperature"):
            self.temperature = False
        elif "stream_options" in body and _names(reply, "stream_options"):
            self.count_stream = False
        elif "response_format" in body and (
            reply.param == "response_format" or "response_format" in reply.error
        ):
            self.schema = False
        else:
            return False
        return True


def model_names(reply: Reply) -> list[str]:
    """The ids in a reply of GET /models; empty where it has none."""
    return [entry["id"] for entry in model_entries(reply)]


def model_entries(reply: Reply) -> list[dict[str, Any]]:
    """The entries of a reply of GET /models that have an id."""
    listed = (reply.data or {}).get("data")
    rows = cast(list[Any], listed) if isinstance(listed, list) else []
    entries = [cast(dict[str, Any], row) for row in rows if isinstance(row, dict)]
    return [entry for entry in entries if isinstance(entry.get("id"), str)]


def path_of(request: Request) -> str:
    """Running text has a path of its own."""
    return "completions" if is_text(request.messages) else "chat/completions"


def read_answer(data: Mapping[str, Any]) -> Answer | None:
    """The text and the count of tokens in a completion; None where it has no choice."""
    choice = choice_of(data)
    if not choice or not ("text" in choice or isinstance(choice.get("message"), dict)):
        return None
    served, reason = data.get("model"), choice.get("finish_reason")
    return Answer(
        text_of(choice.get("message") or choice),
        reason if isinstance(reason, str) else None,
        read_usage(data),
        served if isinstance(served, str) else None,
    )


def read_usage(data: Mapping[str, Any]) -> Usage:
    """The count of tokens in a completion; what it does not say is None."""
    found = _object(data.get("usage"))
    details = _object(found.get("prompt_tokens_details"))

    def count(value: object) -> int | None:
        return value if type(value) is int and value >= 0 else None

    return Usage(
        count(found.get("prompt_tokens")),
        count(found.get("completion_tokens")),
        count(details.get("cached_tokens")),
    )


def choice_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """The first choice of a completion, or of a piece of one; empty where there is none."""
    choices = data.get("choices")
    return _object(cast(list[Any], choices)[0]) if isinstance(choices, list) and choices else {}


def text_of(message: object) -> str:
    """A message's text: `content` (some servers: a list of parts), or a completion's `text`."""
    fields = _object(message)
    content = fields.get("content", fields.get("text"))
    if isinstance(content, list):
        parts = [_object(part).get("text") for part in cast(list[Any], content)]
        content = "".join(part for part in parts if isinstance(part, str))
    return printable(content) if isinstance(content, str) else ""


def _one_of(choices: Sequence[str]) -> dict[str, Any]:
    """The `response_format` that holds an answer to {"label": one of the choices}.

    An object, since OpenAI's strict schemas must be one at the top. vLLM, Ollama and llama.cpp
    take the same field.
    """
    label = {"type": "string", "enum": list(choices)}
    schema = {
        "type": "object",
        "properties": {"label": label},
        "required": ["label"],
        "additionalProperties": False,
    }
    named = {"name": "label", "strict": True, "schema": schema}
    return {"type": "json_schema", "json_schema": named}


def _object(value: object) -> dict[str, Any]:
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}


def _names(reply: Reply, field: str) -> bool:
    """Whether an error is about this field: by `param`, or by its name in quotes."""
    return reply.param == field or re.search(f"['\"`]{field}['\"`]", reply.error) is not None
