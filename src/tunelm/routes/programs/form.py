"""The form of a program's messages: how a step's inputs are written and its outputs read.

One place for the search, for answering and for training rows, so that all three are the same
text, byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tunelm.models.prompted import with_prompt
from tunelm.routes.programs.program import Step
from tunelm.types import Message


def render(
    step: Step,
    messages: Sequence[Message],
    given: Mapping[str, str] | None = None,
    turns: Sequence[Message] | None = None,
) -> tuple[Message, ...]:
    """The messages of one call.

    Args:
        step: whose instructions (with the form of its outputs) become the system message.
        messages: the caller's; a system message of their own replaces the step's.
        given: title to text, such as the answers of earlier steps; put before the last message.
        turns: the demonstrations; the step's own when None.
    """
    shown = step.turns if turns is None else turns
    return with_prompt(system_of(step), shown, with_given(messages, given or {}))


def system_of(step: Step) -> str:
    """The system message of a step: its instructions, then the form of several outputs."""
    return "\n\n".join(part for part in (step.instructions, form(step.outputs)) if part)


def form(outputs: Sequence[str]) -> str:
    """What tells the model how to write several outputs; empty for one.

    >>> print(form(("reasoning", "answer")))
    Write in this form:
    Reasoning: ...
    Answer: ...
    """
    if len(outputs) == 1:
        return ""
    return "Write in this form:\n" + "\n".join(f"{title(name)}: ..." for name in outputs)


def with_given(messages: Sequence[Message], given: Mapping[str, str]) -> tuple[Message, ...]:
    """The messages with what is given before the last one's text, a paragraph each."""
    if not given:
        return tuple(messages)
    *before, last = messages
    blocks = [f"{title(name)}: {text}" for name, text in given.items()]
    return (*before, Message(last.role, "\n\n".join([*blocks, last.content])))


def write(outputs: Sequence[str], values: Mapping[str, str]) -> str:
    r"""The completion that says `values`: the inverse of `read`.

    >>> write(("reasoning", "answer"), {"reasoning": "2 and 2.", "answer": "4"})
    'Reasoning: 2 and 2.\nAnswer: 4'
    """
    if len(outputs) == 1:
        return values[outputs[0]]
    return "\n".join(f"{title(name)}: {values[name]}" for name in outputs)


def read(outputs: Sequence[str], text: str) -> tuple[dict[str, str], str | None]:
    r"""(the outputs in a completion, how it broke the form or None).

    A completion that breaks the form is taken whole as the last output: what a model says
    without the form is still its answer, and the break is counted on its own.

    >>> read(("reasoning", "answer"), "Reasoning: 2 and 2.\nAnswer: 4")
    ({'reasoning': '2 and 2.', 'answer': '4'}, None)
    >>> read(("reasoning", "answer"), "It is 4.")[0]["answer"]
    'It is 4.'
    """
    if len(outputs) == 1:
        return {outputs[0]: text}, None
    values = dict.fromkeys(outputs, "")
    marks: list[tuple[int, int]] = []
    at = 0
    for name in outputs:
        found = re.compile(rf"^[ \t]*{re.escape(title(name))}[ \t]*:", re.M | re.I).search(text, at)
        if found is None:
            return values | {outputs[-1]: text.strip()}, f"no line begins with {title(name)!r}"
        marks.append(found.span())
        at = found.end()
    ends = [start for start, _ in marks[1:]] + [len(text)]
    for name, (_, start), end in zip(outputs, marks, ends, strict=True):
        values[name] = text[start:end].strip()
    if not values[outputs[-1]]:
        return values, f"nothing stands behind {title(outputs[-1])!r}"
    return values, None


def title(name: str) -> str:
    """A field's name as it stands in a prompt.

    >>> title("key_fact")
    'Key fact'
    """
    return name.replace("_", " ").capitalize()
