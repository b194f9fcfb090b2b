"""What is found out about a docstring: style, agreement with the code, examples, mutants.

Only the row's own function is run, with the examples of the docstring: never code of an answer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from tunelm.errors import DataError
from tunelm.scoring.code_run import is_call, run_calls, why_not_run
from tunelm.scoring.docstring_examples import failing, read_examples
from tunelm.scoring.docstring_parse import (
    Answer,
    Function,
    agreement,
    read_answer,
    read_function,
    with_docstring,
)
from tunelm.scoring.docstring_prose import purpose_told
from tunelm.scoring.docstring_style import style_findings
from tunelm.scoring.metric import gold_answers
from tunelm.scoring.mutants import mutants
from tunelm.types import Example, Prediction

if TYPE_CHECKING:
    from tunelm.models.base import ChatModel

Facts = Mapping[str, Any]

ENOUGH = 0.5
"""Share of the mutants that the examples of a docstring that passes have to tell."""
MOST_FAULTS = 5


class Case(NamedTuple):
    """An answer to a row: the row's question, gold docstring and calls, and the output."""

    row: str
    question: str
    gold: str
    calls: tuple[str, ...]
    output: str


def facts_of(
    model: ChatModel, examples: Sequence[Example], predictions: Sequence[Prediction]
) -> list[Facts]:
    """The facts of each prediction, by the names of the metrics, and `faults` in words.

    Those of a failed row are empty. `docstring_passes` is 1 where all that is checked against the
    code is in order; `tells_purpose` is not part of it.

    Raises:
        DataError: a row has no function, one that is not run, or calls that are none.
        PrerequisiteError: ruff is not installed.
    """
    pairs = zip(examples, predictions, strict=True)
    found = _facts([case_of(e, p.output) for e, p in pairs if p.output is not None])
    return [{} if p.output is None else next(found) for p in predictions]


@lru_cache(maxsize=8192)
def fact_for(name: str, case: Case) -> float | None:
    """One fact of one answer, for what scores answers one at a time; slow checks come last.

    Raises what `facts_of` raises.
    """
    function = function_of(case)
    answer = read_answer(case.output, function)
    match name:
        case "docstring_passes":
            clear = answer.unchanged and not agreement(answer.docstring, function)[1]
            return float(clear and _is_told(_ran(case)) and not _style(case))
        case "doc_style":
            return float(not _style(case))
        case "examples_pass":
            return float(_ran(case).passed)
        case "tells_mutants":
            return _ran(case).told
        case _:
            return _facts_read(case, function, answer)[name]


def case_of(example: Example, output: str) -> Case:
    """An answer to a row. Raises DataError where the row's calls are no list of texts."""
    given = example.metadata.get("calls", ())
    if isinstance(given, str) or not all(isinstance(call, str) for call in given):
        raise DataError(f'row {example.id}: "calls" is {given!r}, expected a list of texts')
    gold = gold_answers("docstring", example)[0]
    return Case(example.id, example.question, gold, tuple(given), output)


def function_of(case: Case) -> Function:
    """The function that a row asks to describe.

    Raises:
        DataError: there is none, or it does what is not run.
    """
    function = read_function(case.question)
    if function is None:
        raise DataError(
            f"row {case.row}: no Python function was found in {case.question[:60]!r}; a row to be "
            "checked as a docstring asks about one function, from its def on or in a code fence"
        )
    why = why_not_run(function.source)
    if why:
        raise DataError(
            f"row {case.row}: the function {function.name} is not run to check examples: {why}. "
            "Take the row out, or leave task.checks out (docs/docstrings.md says what is run)."
        )
    return function


def _facts(cases: Sequence[Case]) -> Iterator[Facts]:
    """The facts of each answer; one call of ruff for all, and processes side by side."""
    styles = style_findings([_written(case) for case in cases])
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        all_ran = list(pool.map(_run_examples, cases))
    for case, style, ran in zip(cases, styles, all_ran, strict=True):
        function = function_of(case)
        answer = read_answer(case.output, function)
        disagreements = agreement(answer.docstring, function)[1]
        clear = answer.unchanged and not disagreements
        changed = () if answer.unchanged else ("the code was changed",)
        yield {
            **_facts_read(case, function, answer),
            "doc_style": float(not style),
            "examples_pass": float(ran.passed),
            "tells_mutants": ran.told,
            "docstring_passes": float(clear and _is_told(ran) and not style),
            "faults": [*style, *disagreements, *changed, *ran.faults][:MOST_FAULTS],
        }


def _facts_read(case: Case, function: Function, answer: Answer) -> dict[str, Any]:
    """The facts that need nothing but reading."""
    facts, disagreements = agreement(answer.docstring, function)
    gold = read_answer(case.gold, function).docstring
    return {
        "doc_agrees": 1 - len(disagreements) / facts if facts else None,
        "code_unchanged": float(answer.unchanged),
        "tells_purpose": purpose_told(answer.docstring, gold, function),
    }


def _written(case: Case) -> str:
    """The row's function with the answer's docstring."""
    function = function_of(case)
    return with_docstring(function, read_answer(case.output, function).docstring)


@lru_cache(maxsize=8192)
def _style(case: Case) -> tuple[str, ...]:
    return style_findings([_written(case)])[0]


@lru_cache(maxsize=8192)
def _ran(case: Case) -> _Ran:
    return _run_examples(case)


class _Ran(NamedTuple):
    """Whether there are examples and all pass, the share of mutants told, and faults."""

    passed: bool
    told: float | None
    faults: Sequence[str] = ()


def _is_told(ran: _Ran) -> bool:
    return ran.passed and (ran.told is None or ran.told >= ENOUGH)


def _run_examples(case: Case) -> _Ran:
    function = function_of(case)
    answer = read_answer(case.output, function)
    shown, faults = read_examples(answer.docstring, function.name)
    if not shown or faults:
        return _Ran(False, 0.0, faults or ("no example",))
    calls = list(dict.fromkeys([*(e.call for e in shown), *_known_calls(case, function)]))
    changed = mutants(function.source, function.name)
    true, again, *others = run_calls([function.source] * 2 + changed, calls)
    if true is None or again is None:
        return _Ran(False, 0.0, ("the function did not end",))
    came_to = dict(zip(calls, true, strict=True))
    failed = failing(shown, came_to)
    if failed:
        return _Ran(False, 0.0, failed)
    steady = [call for call, one in zip(calls, again, strict=True) if came_to[call] == one]
    differing = told = 0
    for outcomes in others:
        if outcomes is None:  # not reached in time
            continue
        other = dict(zip(calls, outcomes, strict=True))
        differing += any(other[call] != came_to[call] for call in steady)
        told += bool(failing(shown, other))
    if not differing:
        return _Ran(True, None)
    few = told / differing < ENOUGH
    return _Ran(True, told / differing, (f"{told} of {differing} mutants told",) if few else ())


def _known_calls(case: Case, function: Function) -> list[str]:
    """The calls by which mutants are known to differ: those of the gold docstring, and `calls`.

    Raises:
        DataError: one of them cannot be run.
    """
    for call in case.calls:
        if not is_call(call, function.name):
            raise DataError(
                f"row {case.row}: calls: {call!r} is no call of {function.name} on literals "
                "(docs/docstrings.md says what is run)"
            )
    gold = read_examples(read_answer(case.gold, function).docstring, function.name)[0]
    return [*(example.call for example in gold), *case.calls]
