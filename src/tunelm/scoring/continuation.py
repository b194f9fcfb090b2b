"""A text to be modelled, as something that can also be asked for: a beginning to go on from."""

from __future__ import annotations

import dataclasses

from tunelm.types import Example, Message

PREFIX_CHARACTERS, GOLD_CHARACTERS = 400, 200
"""How much of a text is shown, and how much of what follows an answer is compared with."""


def as_continuation(example: Example) -> Example:
    """An example of running text with its beginning as the prompt; others as they are.

    The prompt is the text's first half, at most 400 characters, and the gold answer the up to
    200 characters that follow, both cut between words. The whole text stays in the metadata.

    >>> text = Example("1", (), ("to be or not to be",), "1")
    >>> shown = as_continuation(text)
    >>> shown.question, shown.answers, full_text(shown)
    ('to be or', (' not to be',), 'to be or not to be')
    """
    if example.messages:
        return example
    text = example.answers[0]
    start = _between_words(text, min(len(text) // 2, PREFIX_CHARACTERS))
    end = _between_words(text, min(len(text), start + GOLD_CHARACTERS))
    return dataclasses.replace(
        example,
        messages=(Message("text", text[:start]),),
        answers=(text[start:end] or text[start:],),
        metadata={**example.metadata, "text": text},
    )


def full_text(example: Example) -> str | None:
    """The whole text behind a continuation; None for any other example."""
    if example.messages and example.messages[0].role == "text":
        return str(example.metadata["text"])
    return None


def _between_words(text: str, at: int) -> int:
    """The last place at or before `at` where a word ends, or `at` where there is none."""
    if at >= len(text) or text[at].isspace():
        return at
    cut = max(text.rfind(" ", 0, at), text.rfind("\n", 0, at))
    return cut if cut > 0 else at
