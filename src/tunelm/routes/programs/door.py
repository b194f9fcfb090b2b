"""For DSPy programs of one's own: any ChatModel as a `dspy.LM`, and prompts as plain chats.

    import dspy, tunelm
    from tunelm.routes.programs.door import TextAdapter, dspy_lm

    dspy.configure(lm=dspy_lm(tunelm.load("tunelm-nano")), adapter=TextAdapter())
    dspy.Predict("question -> answer")(question="What is the capital of Canada?").answer

Imports DSPy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dspy

from tunelm.models.base import ChatModel
from tunelm.routes.programs.adapter import PlainAdapter, as_dicts
from tunelm.routes.programs.engine import ChatEngine
from tunelm.routes.programs.form import read, system_of, with_given, write
from tunelm.routes.programs.program import Step
from tunelm.types import Message


def dspy_lm(model: ChatModel, max_tokens: int = 64) -> dspy.LM:
    """The model as a `dspy.LM`: in this process, greedy, without DSPy's cache.

    `lm.engine.usage` counts the tokens of every call, in whatever thread; DSPy's own count does
    not (see ChatEngine).
    """
    return dspy.LM(
        "local/tunelm",  # DSPy guesses from names such as gpt-5 what a model accepts
        engine=ChatEngine(model),
        cache=False,
        temperature=0.0,
        max_tokens=max_tokens,
        num_retries=0,
    )


class TextAdapter(PlainAdapter):
    """Signatures of text fields as ordinary chats, without DSPy's field markers.

    The last input is the user's message, with the others before it as `Title: text`. A single
    output is the whole answer; several are lines `Title: text`. A small model cannot keep field
    markers, and they make a short prompt 6.6 times as long. An answer that breaks the form is
    taken whole as the last output.
    """

    def format(
        self,
        signature: type[dspy.Signature],
        demos: Sequence[Mapping[str, Any]],
        inputs: Mapping[str, Any],
    ) -> list[dict[str, Any]]:
        """The chat as role/content dicts. A demonstration without all outputs is left out."""
        outputs = tuple(signature.output_fields)
        system = system_of(Step("", signature.instructions, outputs))
        chat = [Message("system", system)] if system else []
        for demo in demos:
            if all(name in demo for name in (*signature.input_fields, *outputs)):
                chat += _asked(signature, demo)
                chat.append(Message("assistant", write(outputs, demo)))
        return as_dicts([*chat, *_asked(signature, inputs)])

    def parse(self, signature: type[dspy.Signature], completion: str) -> dict[str, Any]:
        """The outputs."""
        return dict(read(tuple(signature.output_fields), completion)[0])

    def takes_text(self, signature: type[dspy.Signature]) -> bool:
        """Always."""
        return True


def _asked(signature: type[dspy.Signature], values: Mapping[str, Any]) -> tuple[Message, ...]:
    *given, last = signature.input_fields
    before = {name: _written(values[name]) for name in given}
    return with_given((Message("user", _written(values[last])),), before)


def _written(value: Any) -> str:
    """A value as text; a list a line each."""
    return "\n".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
