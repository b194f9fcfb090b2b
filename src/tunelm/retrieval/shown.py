"""How passages stand before a question, and what is searched for.

One place for prompting, training and serving, so that all three are the same text.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunelm.models.render import is_text
from tunelm.retrieval.chunks import Passage
from tunelm.retrieval.lexical import words
from tunelm.types import Message

SHORT_QUESTION = 5
"""A last message of fewer words is searched together with the one before: `And in winter?`"""


def search_text(messages: Sequence[Message]) -> str:
    """What is searched for: the user's last message, with the one before where it is short."""
    said = [m.content for m in messages if m.role == "user"]
    if len(said) > 1 and len(words(said[-1])) < SHORT_QUESTION:
        return f"{said[-2]} {said[-1]}"
    return said[-1] if said else ""


def with_passages(messages: Sequence[Message], passages: Sequence[Passage]) -> tuple[Message, ...]:
    """The messages with numbered passages before the user's last text.

    Without passages, or in running text, they stay as they are.
    """
    last = max((i for i, m in enumerate(messages) if m.role == "user"), default=None)
    if not passages or last is None or is_text(messages):
        return tuple(messages)
    shown = "\n".join(f"[{n}] {passage.text}" for n, passage in enumerate(passages, 1))
    question = Message("user", f"Passage: {shown}\n\nQuestion: {messages[last].content}")
    return (*messages[:last], question, *messages[last + 1 :])
