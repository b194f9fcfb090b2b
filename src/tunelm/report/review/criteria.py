"""What answers are rated by: a checklist by kind of task, or one of the user's own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunelm.errors import ConfigError

LEVELS = ("no", "partly", "yes")
"""The marks from worst to best: worth 0, one half and 1."""

COLUMNS = ("sheet", "rater", "item", "letter", "asked", "reference", "answer", "best", "comment")
"""The columns of a sheet beside its criteria."""

OVERALL = "all criteria"
"""The mean of all criteria, of answers that a rater rated by each of them."""

PREFERENCE = "which is better"
"""Of two answers to one item."""

_MOST, _LONGEST = 12, 40
_DEFAULTS: Mapping[str, Mapping[str, str]] = {
    "qa": {
        "right": "What it says is true, and answers the question.",
        "complete": "Nothing that was asked for is missing.",
        "clear": "Easy to understand; no more words than it needs.",
    },
    "dialogue": {
        "asks": "The teacher asks and hints, and leaves the thinking to the student.",
        "fits": "It takes up what the student has just said.",
        "right": "Nothing that the teacher says is wrong.",
        "kind": "It is friendly and encourages the student.",
    },
    "classification": {
        "right": "The label fits what was asked about.",
    },
    "generation": {
        "on task": "It does what was asked for, and in the form that was asked for.",
        "faithful": "It makes nothing up: no fact, name, number or promise.",
        "reads well": "One could send or use it as it stands.",
    },
    "email": {
        "decision said": "The customer learns what was decided, with every number and date.",
        "understands": "It shows that it has understood what happened to the customer.",
        "polite": "It is warm and polite, and does not overdo it.",
        "could be sent": "The shop could send it as it stands.",
    },
    "docstring": {
        "true": "It says what the function does, and nothing that it does not do.",
        "complete": "Arguments, result and errors are all there.",
        "helps": "One could use the function without reading its code.",
    },
    "faq": {
        "right": "It says what the FAQ says, or declines where the FAQ says nothing.",
        "right entry": "The entry it names is the one that answers.",
        "clear": "Easy to understand; no more words than it needs.",
    },
}


@dataclass(frozen=True, slots=True)
class Criterion:
    """A column of the sheet, and the sentence that says what it asks."""

    name: str
    question: str


def criteria_for(kind: str, checks: str | None, given: Sequence[str] = ()) -> tuple[Criterion, ...]:
    """Those given as `name` or `name: what it asks`, else those of the task's checks or its kind.

    >>> criteria_for("qa", None, ["polite: It is polite."])
    (Criterion(name='polite', question='It is polite.'),)

    Raises:
        ConfigError: a name that cannot be a column: empty, taken, twice, long, or with signs that
            a table of cells could misread.
    """
    if not given:
        usual = _DEFAULTS.get(checks or kind, _DEFAULTS["generation"])
        return tuple(Criterion(name, question) for name, question in usual.items())
    found: dict[str, Criterion] = {}
    taken = (*COLUMNS, OVERALL, PREFERENCE)
    for text in given:
        name, _, question = (part.strip() for part in text.partition(":"))
        key = name.casefold()
        if not re.fullmatch(rf"\w[\w '/-]{{0,{_LONGEST - 1}}}", name):
            raise ConfigError(
                f"--criteria {text!r}: give `name` or `name: what it asks`; a name has letters, "
                f"digits and spaces, at most {_LONGEST}."
            )
        if key in taken or key in found:
            why = "is a name of every sheet" if key in taken else "is given twice"
            raise ConfigError(f"--criteria {text!r}: {name!r} {why}. Choose another name.")
        found[key] = Criterion(name, " ".join(question.split()))
    if len(found) > _MOST:
        raise ConfigError(f"{len(found)} criteria; people rate well by at most {_MOST}.")
    return tuple(found.values())
