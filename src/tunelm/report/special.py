"""Tables that only some tasks have: of labels, of answering and declining."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunelm.report.abstention import abstention_tables
from tunelm.report.evidence import Answers
from tunelm.report.label_tables import label_tables
from tunelm.report.read import Run


def special_tables(run: Run, answers: Sequence[Answers]) -> list[dict[str, Any]]:
    """Each {heading, note, rows}: rows are dicts of text with the same keys, as for `table`."""
    if run.task["kind"] == "classification":
        return label_tables(run, answers)
    if run.task.get("checks") == "faq":
        return abstention_tables(run, answers)
    return []
