"""Messages to the text a model sees: the same for training, evaluation and serving."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunelm.types import Message


def render_prompt(tokenizer: Any, messages: Sequence[Message]) -> str:
    """The prompt up to where the answer begins, by the model's own chat template.

    A model without a template (GPT-2 and the like) gets the messages' texts, a blank line
    apart, and a line break before the answer.
    """
    if tokenizer.chat_template:
        rows = [{"role": m.role, "content": m.content} for m in messages]
        return str(tokenizer.apply_chat_template(rows, tokenize=False, add_generation_prompt=True))
    return "\n\n".join(m.content for m in messages) + "\n"


def encode_prompt(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Token ids of `render_prompt`. A template writes its own special tokens; none are added."""
    text = render_prompt(tokenizer, messages)
    plain = not tokenizer.chat_template
    return list(tokenizer.encode(text, add_special_tokens=plain))
