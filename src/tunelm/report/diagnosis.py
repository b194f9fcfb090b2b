"""What the routes together say about the model: was the form missing, or the knowledge?

A better prompt can only bring out what the model has; retrieval also brings what it has not. So
the two beside the baseline tell which of the two was missing, as far as this test set shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunelm.report.evidence import find_pair
from tunelm.report.words import scale_of, signed, unit_of

Report = Mapping[str, Any]


def what_was_missing(report: Report) -> str | None:
    """The sentence; None where there is no baseline beside a route `prompt` and a route `rag`.

    One route of each kind stands for it: the first that finished. Passages also show how answers
    are worded; so that knowledge was missing is said only where answers then hold the right
    facts more often (the metric `contains`, where the task has it).
    """
    baseline = report["baseline"]
    prompt, rag = _first(report, "prompt"), _first(report, "rag")
    if baseline is None or prompt is None or rag is None:
        return None
    by_prompt, by_rag = (
        find_pair(report["pairs"], report["task"]["primary_metric"], name, baseline)
        for name in (prompt, rag)
    )
    if by_prompt is None or by_rag is None or by_prompt["diff"] is None or by_rag["diff"] is None:
        return None
    scale = scale_of(report, by_rag["metric"])
    against = (
        f"({prompt} {signed(by_prompt['diff'], scale)}, {rag} {signed(by_rag['diff'], scale)} "
        f"{unit_of(report, by_rag['metric'])} against {baseline})"
    )
    form, knowledge = by_prompt["verdict"] == "better", by_rag["verdict"] == "better"
    content = find_pair(report["pairs"], "contains", rag, baseline)
    if knowledge and content is not None and content["verdict"] != "better":
        return (
            f"Passages of the corpus raise {by_rag['metric']} {against}, but that answers then "
            f"hold the right facts more often is not shown (contains {signed(content['diff'])}): "
            "what they bring here may be form."
        )
    if knowledge and not form:
        return (
            "What the model lacks here is knowledge: passages of the corpus help, and a better "
            f"prompt alone is not shown to {against}."
        )
    if form and not knowledge:
        return (
            "What the model lacks here is the form of the answers: a better prompt alone helps, "
            f"and passages of the corpus are not shown to {against}."
        )
    if form:
        return (
            "The model lacks both the form of the answers and knowledge: a better prompt helps, "
            f"and so do passages of the corpus {against}."
        )
    return f"Neither a better prompt nor passages of the corpus are shown to help {against}."


def _first(report: Report, kind: str) -> str | None:
    names = [r["name"] for r in report["routes"] if r["kind"] == kind and r["scores"] is not None]
    return names[0] if names else None
