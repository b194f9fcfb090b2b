"""People's ratings as sentences and tables: for a terminal, and as `review.md`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunelm.cells import inline, table
from tunelm.report.review.agreement import WEIGHTS
from tunelm.report.words import UNKNOWN, between, p_cell, points, signed

Result = Mapping[str, Any]
Rows = list[dict[str, str]]

CHANCE = 0.5
"""Of pairs that a coin would put in people's order."""


def review_page(result: Result) -> str:
    """`review.md`."""
    blocks = [
        f"# People's ratings: {inline(result['task'])}",
        *(inline(text) for text in sentences(result)),
    ]
    for heading, note, rows in tables(result):
        blocks += [f"## {heading}", note, table(rows)]
    if result["comments"]:
        blocks += ["## Comments", table(_comment_rows(result))]
    return "\n\n".join(block for block in blocks if block) + "\n"


def sentences(result: Result) -> list[str]:
    """What it comes to: who rated what, who is liked better, whether the metric can be trusted."""
    raters = ", ".join(one["name"] for one in result["raters"])
    many = len(result["raters"])
    return [
        (
            f"{result['items']} {result['of']} in {result['groups']} groups, rated blind by"
            f" {many} {'person' if many == 1 else 'people'}: {raters}. Intervals are 95% by group,"
            " and about other rows, not about other people."
        ),
        *_better(result),
        _trust(result),
        *_place(result),
        *(f"Warning: {text}." for text in result["warnings"]),
    ]


def tables(result: Result) -> list[tuple[str, str, Rows]]:
    """(heading, what to know, rows) of each table that has rows."""
    found = [
        ("Raters", "What was left open is counted here, and in no mean.", _rater_rows(result)),
        (
            "Scores",
            "Yes 100, partly 50, no 0: the mean of rows, each the mean of its raters.",
            _score_rows(result),
        ),
        (
            "Differences",
            (
                "In points, on rows that somebody rated both answers of. Holm: over"
                " the pairs for all criteria together; over pairs and criteria for the others."
            ),
            _difference_rows(result),
        ),
        (
            "Which is better",
            (
                "Won, in percent, a tie counting half; 50 is no difference. Rows where neither was"
                " called the best say nothing of the two."
            ),
            _preference_rows(result),
        ),
        (
            "How far raters agree",
            (
                "1 is always, 0 as often as by chance. Linear: no and partly are half as far"
                " apart as no and yes."
            ),
            _agreement_rows(result),
        ),
        ("Each two raters", "", _two_rows(result)),
        (
            "The run's metrics beside people",
            (
                "Pairs of answers to one row that people rate differently, put in the same order by"
                " the metric, in percent; 50 is a coin's."
            ),
            _metric_rows(result),
        ),
    ]
    return [(heading, note, rows) for heading, note, rows in found if rows]


def _better(result: Result) -> list[str]:
    said: list[str] = []
    for pair in result["preferences"]:
        if pair["share"] is None:
            said.append(f"Nobody said whether {pair['a']} or {pair['b']} is better.")
            continue
        share = f"won {points(pair['share'])}% of {pair['n']} {result['of']} against"
        found = f"{pair['a']} {share} {pair['b']} ({_limits(pair, 'share_')})"
        smallest = (
            f" Shares within {points(pair['mde'])} points of 50 are mostly not found."
            if pair["verdict"] == "not distinguishable" and pair["mde"] is not None
            else ""
        )
        said.append(f"{found}: {_liked(pair)}, p {p_cell(pair['p_holm'])} (Holm).{smallest}")
    return said


def _liked(pair: Mapping[str, Any]) -> str:
    if pair["verdict"] == "not distinguishable":
        return "not distinguishable"
    return f"{pair['a'] if pair['verdict'] == 'better' else pair['b']} is liked better"


def _trust(result: Result) -> str:
    name = result["primary_metric"]
    if name not in result["metrics"]:
        return (
            f"{name} has no value for a single one of these {result['of']}: not set beside people."
        )
    found = result["metrics"][name]["pairwise"]
    if found is None:
        return (
            f"No two answers to one row are rated differently: {name} cannot be set beside people."
        )
    share = f"{points(found['value'])}% ({_limits(found)}) of {found['n']} pairs of answers"
    if found["ci_low"] is not None and found["ci_low"] > CHANCE:
        verdict = "more often than a coin would"
    elif found["ci_high"] is not None and found["ci_high"] < CHANCE:
        verdict = "less often than a coin would: do not choose by it"
    else:
        verdict = "not shown to be more often than a coin would: do not rely on it alone"
    return f"{name} puts {share} in people's order: {verdict}."


def _place(result: Result) -> list[str]:
    place = result["first_place"]
    if not place["n"]:
        return []
    return [
        (
            f"The answer shown first was the best in {place['picked']} of {place['n']} choices; by"
            f" chance it would be in {place['by_chance']:.1f}."
        )
    ]


def _rater_rows(result: Result) -> Rows:
    return [
        {
            "rater": one["name"],
            "answers": str(one["answers"]),
            "fully rated": str(one["full"]),
            "half": str(one["half"]),
            "left open": str(one["open"]),
            "best named": f"{one['best']} of {one['items']}",
        }
        for one in result["raters"]
    ]


def _score_rows(result: Result) -> Rows:
    return [
        {
            "route": route,
            "criterion": name,
            "mean": points(found["value"]),
            "95% interval": between(found["ci_low"], found["ci_high"]),
            "rows": f"{found['n']} in {found['n_groups']} groups",
            "each rater": ", ".join(f"{r} {points(v)}" for r, v in found["by_rater"].items()),
        }
        for route, by_name in result["scores"].items()
        for name, found in by_name.items()
    ]


def _difference_rows(result: Result) -> Rows:
    return [
        {
            "pair": f"{pair['a']} - {pair['b']}",
            "criterion": pair["criterion"],
            "difference": signed(pair["diff"]),
            "95% interval": _signed_limits(pair),
            "p": p_cell(pair["p"]),
            "p, Holm": p_cell(pair["p_holm"]),
            "verdict": pair["verdict"],
            "finds from": points(pair["mde"]),
            "rows": str(pair["n"]),
        }
        for pair in result["pairs"]
    ]


def _preference_rows(result: Result) -> Rows:
    return [
        {
            "pair": f"{pair['a']} against {pair['b']}",
            "won, %": points(pair["share"]),
            "95% interval": between(pair["share_low"], pair["share_high"]),
            "won / tie / lost": f"{pair['wins']} / {pair['ties']} / {pair['losses']}",
            "not told": str(pair["not_told"]),
            "rows": str(pair["n"]),
            "p, Holm": p_cell(pair["p_holm"]),
            "verdict": pair["verdict"],
            "finds from 50 +-": points(pair["mde"]),
        }
        for pair in result["preferences"]
    ]


def _agreement_rows(result: Result) -> Rows:
    return [
        {
            "on": name,
            "measure": found["measure"],
            "unweighted": _coefficient(found["nominal"]),
            "linear weights": _coefficient(found["linear"]),
            "the same mark": f"{points(found['same'])}%",
            "answers or pairs": str(found["n"]),
            "groups": str(found["n_groups"]),
        }
        for name, found in result["agreement"].items()
        if found is not None
    ]


def _two_rows(result: Result) -> Rows:
    return [
        {
            "on": name,
            "raters": f"{pair['a']}, {pair['b']}",
            **{f"kappa, {w}": UNKNOWN if pair[w] is None else f"{pair[w]:.2f}" for w in WEIGHTS},
            "answers or pairs": str(pair["n"]),
        }
        for name, found in result["agreement"].items()
        if found is not None
        for pair in found["pairs"]
    ]


def _metric_rows(result: Result) -> Rows:
    rows = [
        {
            "metric": name + (" (primary)" if name == result["primary_metric"] else ""),
            "by ratings": _share(found["pairwise"]),
            "by best": _share(found["pairwise_best"]),
            "rank correlation": _correlation(found["spearman"]),
        }
        for name, found in result["metrics"].items()
    ]
    if len(result["raters"]) > 1:
        one = _share(result["one_rater"])
        blank = {"by best": "", "rank correlation": ""}
        rows.append({"metric": "a rater beside the others", "by ratings": one, **blank})
    return rows


def _comment_rows(result: Result) -> Rows:
    return [
        {
            "item": f"{one['item']} {one['letter']}",
            "route": ", ".join(one["routes"]),
            "rater": one["rater"],
            "comment": one["text"],
        }
        for one in result["comments"]
    ]


def _coefficient(found: Mapping[str, Any]) -> str:
    if found["value"] is None:
        return f"{UNKNOWN}: {found['reason']}"
    if found["ci_low"] is None:
        return f"{found['value']:.2f} (interval {UNKNOWN}: {found['reason']})"
    return f"{found['value']:.2f} ({found['ci_low']:.2f} to {found['ci_high']:.2f})"


def _share(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return UNKNOWN
    return f"{points(found['value'])} ({_limits(found)}), {found['n']} pairs"


def _correlation(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return UNKNOWN
    if found["ci_low"] is None:
        return f"{found['value']:.2f} (interval {UNKNOWN}), {found['n']} answers"
    limits = f"{found['ci_low']:.2f} to {found['ci_high']:.2f}"
    return f"{found['value']:.2f} ({limits}), {found['n']} answers"


def _limits(found: Mapping[str, Any], key: str = "ci_") -> str:
    return between(found[f"{key}low"], found[f"{key}high"])


def _signed_limits(pair: Mapping[str, Any]) -> str:
    if pair["ci_low"] is None:
        return UNKNOWN
    return f"{signed(pair['ci_low'])} to {signed(pair['ci_high'])}"


def as_table(rows: Sequence[Mapping[str, str]]) -> tuple[list[str], list[list[str]]]:
    """(header, cells) of rows, for a terminal."""
    return list(rows[0]), [list(row.values()) for row in rows]
