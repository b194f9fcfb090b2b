"""Messages to the text a model sees: the same for training, evaluation and serving."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunelm.errors import ModelError
from tunelm.types import Message


def is_text(messages: Sequence[Message]) -> bool:
    """Whether this is running text to go on from, and no chat."""
    return len(messages) == 1 and messages[0].role == "text"


def prefix_token(tokenizer: Any) -> int:
    """What stands before running text: BOS, or the end token where there is no BOS.

    The same as in lm-evaluation-harness. Raises ModelError where the model has neither.
    """
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if isinstance(token, int):
            return token
    raise ModelError("the model names neither a BOS nor an EOS token to begin a text with.")


def render_prompt(tokenizer: Any, messages: Sequence[Message]) -> str:
    """The prompt up to where the answer begins, by the model's own chat template.

    A model without a template (GPT-2 and the like) gets the messages' texts, a blank line
    apart, and a line break before the answer. Running text stays as it is.
    """
    if is_text(messages):
        return messages[0].content
    if tokenizer.chat_template:
        rows = [{"role": m.role, "content": m.content} for m in messages]
        return str(tokenizer.apply_chat_template(rows, tokenize=False, add_generation_prompt=True))
    return "\n\n".join(m.content for m in messages) + "\n"


def encode_prompt(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Token ids of `render_prompt`. A template writes its own special tokens; none are added."""
    text = render_prompt(tokenizer, messages)
    if is_text(messages):
        head = [prefix_token(tokenizer)]
        return head + list(tokenizer.encode(text, add_special_tokens=False, verbose=False))
    plain = not tokenizer.chat_template
    return list(tokenizer.encode(text, add_special_tokens=plain, verbose=False))


def rendered(model: Any, messages: Sequence[Message]) -> tuple[Message, ...]:
    """What a model makes of messages; a bare model leaves them as they are."""
    render = getattr(model, "render", None)
    return tuple(render(messages) if render else messages)
