"""Plain chat rows instead of DSPy's field markers. Imports DSPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dspy

from tunelm.types import Message


def signature(instructions: str) -> type[dspy.Signature]:
    """`messages -> answer`: a chat, of one turn or more, and what comes next."""
    fields = {
        "messages": (list[dict[str, str]], dspy.InputField()),
        "answer": (str, dspy.OutputField()),
    }
    return dspy.Signature(fields, instructions)  # pyright: ignore[reportReturnType, reportCallIssue, reportArgumentType]


class PlainAdapter(dspy.ChatAdapter):
    """Renders a `messages -> answer` program as an ordinary chat.

    A system message, each demonstration as its own turns and an assistant message, then the
    caller's messages: what PromptedModel sends, byte for byte. No field markers (a small
    model cannot keep them, and they make a short prompt 6.6 times as long); the whole
    completion is the answer, so nothing can fail to parse.

    `system` is sent exactly as given, and is needed because a DSPy signature strips and
    dedents its instructions; None sends the signature's.
    """

    def __init__(self, system: str | None = None) -> None:
        super().__init__(use_json_adapter_fallback=False)
        self.system = system

    def format(
        self,
        signature: type[dspy.Signature],
        demos: Sequence[Mapping[str, Any]],
        inputs: Mapping[str, Any],
    ) -> list[dict[str, Any]]:
        """The chat as role/content dicts."""
        rest = as_dicts(inputs["messages"])
        system = signature.instructions if self.system is None else self.system
        head = [{"role": "system", "content": system}] if system else []
        if rest and rest[0]["role"] == "system":
            head, rest = rest[:1], rest[1:]
        turns: list[dict[str, str]] = []
        for demo in demos:
            turns += [m for m in as_dicts(demo["messages"]) if m["role"] != "system"]
            turns.append({"role": "assistant", "content": demo["answer"]})
        return [*head, *turns, *rest]

    def format_assistant_message_content(
        self,
        signature: type[dspy.Signature],
        outputs: Mapping[str, Any],
        missing_field_message: str | None = None,
    ) -> str:
        """The answer alone."""
        return outputs["answer"]

    def parse(self, signature: type[dspy.Signature], completion: str) -> dict[str, Any]:
        """The whole text is the answer."""
        return {"answer": completion}

    def _call_postprocess(
        self,
        processed_signature: type[dspy.Signature],
        original_signature: type[dspy.Signature],
        outputs: Sequence[Mapping[str, Any] | str],
        lm: object,
        lm_kwargs: object,
    ) -> list[dict[str, Any]]:
        # The base class takes an empty answer for a failed call. It is a wrong answer.
        texts = [o if isinstance(o, str) else (o.get("text") or "") for o in outputs]
        return [self.parse(processed_signature, text) for text in texts]


def as_dicts(messages: Sequence[Mapping[str, str] | Message]) -> list[dict[str, str]]:
    """Messages as role/content dicts, copied."""
    return [
        {"role": m.role, "content": m.content}
        if isinstance(m, Message)
        else {"role": m["role"], "content": m["content"]}
        for m in messages
    ]
