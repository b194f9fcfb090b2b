"""The doctest examples of a docstring: which of them are run, and what each of them shows."""

from __future__ import annotations

import doctest
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunelm.scoring.code_run import Outcome, is_call


@dataclass(frozen=True)
class Shown:
    """One example: its `call`, and what its docstring says that it comes to.

    `wanted` is the outcome in the form of tunelm.scoring.code_child.
    """

    call: str
    wanted: Outcome


def read_examples(docstring: str, name: str) -> tuple[tuple[Shown, ...], tuple[str, ...]]:
    """(the examples that can be run, why the others cannot), of a docstring of the function `name`.

    An example is run where it is one expression of literals that calls the function (see
    tunelm.scoring.code_run.is_call), without doctest's options.
    """
    try:
        examples = doctest.DocTestParser().get_examples(docstring)
    except ValueError as error:
        return (), (f"examples that cannot be read: {error}",)
    found: list[Shown] = []
    faults: list[str] = []
    for example in examples:
        call = example.source.strip()
        if example.options or not is_call(call, name):
            faults.append(f"{call!r} is not run: no call of {name} on literals alone")
        elif example.exc_msg is not None:
            found.append(Shown(call, Outcome("raise", example.exc_msg.strip())))
        else:
            found.append(Shown(call, Outcome("value", example.want)))
    return tuple(found), tuple(faults)


def failing(examples: Sequence[Shown], came_to: Mapping[str, Outcome]) -> list[str]:
    """The examples whose calls came to something else than they show, in words."""
    found = [(example, came_to[example.call]) for example in examples]
    return [
        f"{example.call} gives {got.text.strip() or got.kind}, not {example.wanted.text.strip()}"
        for example, got in found
        if got != example.wanted
    ]
