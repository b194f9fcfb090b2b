"""Plain chat rows instead of DSPy's field markers, and forgiving proposals. Imports DSPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dspy
from dspy.utils.exceptions import AdapterParseError

from tunelm.routes.programs.form import read, render, with_given, write
from tunelm.routes.programs.program import Demo, Step, turns_of
from tunelm.types import Message, as_messages

MESSAGES, GIVEN = "messages", "given"
BROKEN = "format_error"
"""The field in which a step's outputs say how the answer broke the form, where it did."""


def signature(step: Step, later: bool = False) -> type[dspy.Signature]:
    """`messages -> outputs`, and for a `later` step also what earlier ones answered."""
    fields: dict[str, Any] = {MESSAGES: (list[dict[str, str]], dspy.InputField())}
    if later:
        fields[GIVEN] = (dict[str, str], dspy.InputField())
    fields |= {name: (str, dspy.OutputField()) for name in step.outputs}
    return dspy.Signature(fields, step.instructions)  # pyright: ignore[reportReturnType, reportCallIssue, reportArgumentType]


def shown(signature: type[dspy.Signature], demo: Mapping[str, Any], row_id: str) -> Demo | None:
    """A demonstration of DSPy's as it is shown; None for one that lacks a part of the form.

    A gold row has neither reasoning nor the answers of earlier steps. Shown without them it would
    teach a model to leave them out.
    """
    if any(name not in demo for name in (*signature.input_fields, *signature.output_fields)):
        return None
    turns = [m for m in as_messages(as_dicts(demo[MESSAGES])) if m.role != "system"]
    answer = Message("assistant", write(tuple(signature.output_fields), demo))
    asked = with_given(turns, demo.get(GIVEN) or {})
    source = "bootstrapped" if demo.get("augmented") else "labeled"
    return Demo(row_id, source, (*asked, answer))


class PlainAdapter(dspy.ChatAdapter):
    """Renders the steps of a program as ordinary chats, by `form`, as ProgramModel does.

    No field markers: a small model cannot keep them, and they make a short prompt 6.6 times as
    long. An answer that breaks the form is taken as it is, and marked.

    Other signatures (those by which DSPy's optimizers ask for proposals) are rendered as
    ChatAdapter does. Where such a one wants a single text and the model left the markers out,
    all that it wrote is the text: asking again in JSON, as DSPy does, would cost a second call.

    `exact` gives the instructions to send for those of a signature, which DSPy strips and
    dedents; others are sent as the signature has them.
    """

    def __init__(self, exact: Mapping[str, str] | None = None) -> None:
        super().__init__(use_json_adapter_fallback=False)
        self.exact = dict(exact or {})

    def format(
        self,
        signature: type[dspy.Signature],
        demos: Sequence[Mapping[str, Any]],
        inputs: Mapping[str, Any],
    ) -> list[dict[str, Any]]:
        """The chat as role/content dicts."""
        if not _ours(signature):
            return super().format(signature, list(demos), dict(inputs))  # pyright: ignore[reportArgumentType]
        instructions = self.exact.get(signature.instructions, signature.instructions)
        step = Step("", instructions, tuple(signature.output_fields))
        turns = turns_of([d for demo in demos if (d := shown(signature, demo, "")) is not None])
        messages = as_messages(as_dicts(inputs[MESSAGES]))
        return as_dicts(render(step, messages, inputs.get(GIVEN), turns))

    def parse(self, signature: type[dspy.Signature], completion: str) -> dict[str, Any]:
        """The outputs; of a step of ours also BROKEN, where the answer broke the form."""
        if _ours(signature):
            values, broken = read(tuple(signature.output_fields), completion)
            return {**values, BROKEN: broken} if broken else {**values}
        try:
            return super().parse(signature, completion)
        except AdapterParseError:
            if (name := _only_text(signature)) is None:
                raise
            return {name: completion.strip()}

    def takes_text(self, signature: type[dspy.Signature]) -> bool:
        """Whether an empty answer is an answer too, rather than a failed call as DSPy has it."""
        return _ours(signature) or _only_text(signature) is not None

    def _call_postprocess(
        self,
        processed_signature: type[dspy.Signature],
        original_signature: type[dspy.Signature],
        outputs: list[dict[str, Any] | str],
        lm: Any,
        lm_kwargs: dict[str, Any],
    ) -> list[dict[str, Any]]:
        if not self.takes_text(processed_signature):
            return super()._call_postprocess(
                processed_signature, original_signature, outputs, lm, lm_kwargs
            )
        texts = [o if isinstance(o, str) else (o.get("text") or "") for o in outputs]
        return [self.parse(processed_signature, text) for text in texts]


def as_dicts(messages: Sequence[Mapping[str, str] | Message]) -> list[dict[str, Any]]:
    """Messages as role/content dicts, copied."""
    return [
        {"role": m.role, "content": m.content}
        if isinstance(m, Message)
        else {"role": m["role"], "content": m["content"]}
        for m in messages
    ]


def _ours(signature: type[dspy.Signature]) -> bool:
    return MESSAGES in signature.input_fields


def _only_text(signature: type[dspy.Signature]) -> str | None:
    """The name of the only output, where it is text."""
    fields = signature.output_fields
    (name, *others) = fields
    return name if not others and fields[name].annotation is str else None
