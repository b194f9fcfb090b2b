"""Which label is taken for which, and how far confidence can be believed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunelm.report.evidence import Answers
from tunelm.report.read import RouteRun, Run
from tunelm.report.words import UNKNOWN, p_cell, points, signed
from tunelm.scoring.label_metrics import BINS, bin_of, is_right, sure_and_right
from tunelm.scoring.metrics import get_metric
from tunelm.scoring.statistics import RESAMPLES, paired
from tunelm.types import NO_LABEL, Example, Prediction, label_form

Table = dict[str, Any]
Cells = list[dict[str, str]]

MOST_LABELS = 12
"""With more labels no table has a column for each: their commonest mistakes are listed instead."""
MOST_ROWS = 20
NONE = "none of them"
LOOKS_LIKE = "looks_like"
"""What a row's metadata may say: the label that it is easily taken for."""
SIMPLE = ("constant", "classifier", "nearest")
"""Kinds of route without a language model."""


@dataclass(frozen=True)
class Labelled:
    """A finished route's answers to the test rows, those of all its seeds one after another.

    `gold` and `got` are in the form in which labels are compared; `got` is NONE where an answer is
    no label. Rows that failed are left out.
    """

    name: str
    rows: tuple[tuple[Example, Prediction], ...]
    gold: tuple[str, ...]
    got: tuple[str, ...]


def label_tables(run: Run, answers: Sequence[Answers]) -> list[Table]:
    """Against the best simple route, by label, mistakes, confidence; all on the test rows.

    Each {heading, note, rows}: rows are dicts of text with the same keys.
    """
    if not answers:
        return []
    found = [_labelled(run, one.route) for one in answers]
    names = {label_form(e.answers[0]): e.answers[0] for e in run.parts["test"]}
    for one in found:
        names |= {form: form for form in one.got if form != NONE and form not in names}
    return [
        *_against_simple(run, answers),
        _by_label(found, names, Counter(label_form(e.answers[0]) for e in run.parts["test"])),
        *_look_alikes(found),
        *(_confusion(one, names) for one in found if len(set(one.got)) > 1),
        *_calibration(found),
    ]


def _labelled(run: Run, route: RouteRun) -> Labelled:
    rows: list[tuple[Example, Prediction]] = []
    for seed in route.finished:
        made = seed.by_example["test"]
        rows += [(e, made[e.id]) for e in run.parts["test"] if e.id in made]
    kept = [(e, p) for e, p in rows if p.output is not None]
    gold = [label_form(e.answers[0]) for e, _ in kept]
    got = [_answered(e, p) for e, p in kept]
    return Labelled(route.name, tuple(kept), tuple(gold), tuple(got))


def _answered(example: Example, prediction: Prediction) -> str:
    output = prediction.output or ""
    if is_right(output, example):  # of several right labels, the one that is counted
        return label_form(example.answers[0])
    invalid = (prediction.format_error or "").startswith(NO_LABEL)
    return NONE if invalid else label_form(output)


def _against_simple(run: Run, answers: Sequence[Answers]) -> list[Table]:
    """McNemar's exact test of each route against the best simple one, beside the test by group."""
    simple = [one for one in answers if one.route.kind in SIMPLE]
    if not simple or len(answers) < 2:
        return []
    best = max(simple, key=lambda one: _on_dev(one.route, run.primary))
    rows: Cells = []
    for one in answers:
        if one is best:
            continue
        ours, theirs = _only_one_right(run, one.route, best.route)
        groups = one.groups("accuracy")
        found = paired(one.stats["accuracy"], best.stats["accuracy"], groups, resamples=RESAMPLES)
        rows.append(
            {
                "route": one.route.name,
                "only it right": str(ours),
                f"only {best.route.name} right": str(theirs),
                "difference of accuracy": signed(found.diff),
                "p, McNemar": p_cell(mcnemar(ours, theirs)),
                "p, by group": p_cell(found.p),
                "rows": f"{found.n} in {found.n_groups} groups",
            }
        )
    note = (
        f"Each route beside {best.route.name}, the best on dev of those without a language model, "
        "on the same test rows. McNemar's exact test takes rows for independent, which those of "
        "one group are not, so its p is often too small: believe the p by group."
    )
    if any(len(one.route.finished) > 1 for one in answers):
        note += " The counts and McNemar's p are of the first seed that both have."
    return [{"heading": "Against the best simple route", "note": note, "rows": rows}]


def _on_dev(route: RouteRun, primary: str) -> float:
    """The mean over seeds of the primary metric on dev; less than any where it is unknown."""
    values = [seed.scores["dev"]["metrics"][primary] for seed in route.finished]
    known = [get_metric(primary).sign * value for value in values if value is not None]
    return sum(known) / len(known) if known else float("-inf")


def _only_one_right(run: Run, a: RouteRun, b: RouteRun) -> tuple[int, int]:
    """(rows that only A has right, rows that only B has right), of those that both answered."""
    seeds = {seed.seed: seed for seed in b.finished}
    first = next((s for s in a.finished if s.seed in seeds), a.finished[0])
    other = seeds.get(first.seed, b.finished[0])  # a route without seeds has but one
    counts: Counter[tuple[bool, bool]] = Counter()
    for example in run.parts["test"]:
        outputs = [s.outputs["test"].get(example.id) for s in (first, other)]
        if None not in outputs:
            counts[is_right(outputs[0] or "", example), is_right(outputs[1] or "", example)] += 1
    return counts[True, False], counts[False, True]


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided p of McNemar's exact test, from the rows that only one of two has right.

    >>> mcnemar(0, 0), round(mcnemar(1, 9), 4)
    (1.0, 0.0215)
    """
    if not only_a + only_b:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(only_a, only_a + only_b).pvalue)


def _by_label(found: Sequence[Labelled], names: Mapping[str, str], counts: Counter[str]) -> Table:
    """F1, precision and recall of each label, a column a route; `counts` are the test rows."""
    forms = sorted(names, key=lambda form: -counts[form]) if len(names) > MOST_LABELS else names
    shown = sorted(list(forms)[:MOST_ROWS])
    rows: Cells = []
    for form in shown:
        cells = {one.name: _quality(one, form) for one in found}
        rows.append({"label": names[form], "rows": str(counts[form]), **cells})
    left = len(names) - len(shown)
    note = "F1 in points, in brackets precision and recall."
    if left:
        note += f" The {MOST_ROWS} commonest labels; {left} others are left out."
    return {"heading": "By label", "note": note, "rows": rows}


def _quality(one: Labelled, form: str) -> str:
    gold, got = one.gold.count(form), one.got.count(form)
    right = sum(a == b == form for a, b in zip(one.gold, one.got, strict=True))
    if not gold + got:
        return UNKNOWN
    precision = points(right / got) if got else "never answered"
    recall = points(right / gold) if gold else "no rows"
    return f"{points(2 * right / (gold + got))} ({precision}, {recall})"


def _look_alikes(found: Sequence[Labelled]) -> list[Table]:
    """How routes do on rows that are known to look like another label's."""
    rows: Cells = []
    for one in found:
        hard: Counter[str] = Counter()
        easy: Counter[str] = Counter()
        for (example, _), gold, got in zip(one.rows, one.gold, one.got, strict=True):
            lure = example.metadata.get(LOOKS_LIKE)
            if not isinstance(lure, str):
                easy["right" if gold == got else "wrong"] += 1
            elif gold == got:
                hard["right"] += 1
            else:
                hard["lured" if got == label_form(lure) else "wrong"] += 1
        if not hard:
            return []
        n, others = hard.total(), easy.total()
        rows.append(
            {
                "route": one.name,
                "rows that look like another": str(n),
                "right": points(hard["right"] / n),
                "taken for what it looks like": points(hard["lured"] / n),
                "other rows": str(others),
                "right of the others": points(easy["right"] / others) if others else UNKNOWN,
            }
        )
    note = f"Rows whose {LOOKS_LIKE} names a label that they are easily taken for. In percent."
    return [{"heading": "Rows that look like another label's", "note": note, "rows": rows}]


def _confusion(one: Labelled, names: Mapping[str, str]) -> Table:
    """Rows by gold label, columns by what was answered; of many labels the commonest mistakes."""
    cells = Counter(zip(one.gold, one.got, strict=True))
    heading = f"What {one.name} answers"
    if len(names) > MOST_LABELS:
        wrong = [(pair, n) for pair, n in cells.most_common() if pair[0] != pair[1]]
        rows = [
            {"label": names[gold], "answered": names.get(got, got), "rows": str(n)}
            for (gold, got), n in wrong[:MOST_ROWS]
        ]
        note = f"Its commonest mistakes, {len(rows)} of {len(wrong)} kinds."
        return {"heading": heading, "note": note, "rows": rows}
    forms = sorted(names)
    columns = [*forms, *([NONE] if NONE in one.got else [])]
    rows = [
        {
            "label": names[gold],
            **{names.get(got, got): str(cells[gold, got]) for got in columns},
            "all": str(one.gold.count(gold)),
        }
        for gold in forms
    ]
    note = "A row for each label, a column for each answer; right ones stand on the diagonal."
    return {"heading": heading, "note": note, "rows": rows}


def _calibration(found: Sequence[Labelled]) -> list[Table]:
    """In each bin of confidence: how sure the route was, and how often it was right."""
    rows: Cells = []
    silent: list[str] = []
    for one in found:
        known = [pair for e, p in one.rows if (pair := sure_and_right(p, e)) is not None]
        if not known:
            silent.append(one.name)
        for place in range(BINS):
            inside = [pair for pair in known if bin_of(pair[0]) == place]
            if inside:
                n = len(inside)
                rows.append(
                    {
                        "route": one.name,
                        "confidence": f"{100 * place // BINS} to {100 * (place + 1) // BINS}",
                        "rows": str(n),
                        "mean confidence": points(sum(sure for sure, _ in inside) / n),
                        "right": points(sum(right for _, right in inside) / n),
                    }
                )
    if not rows:
        return []
    note = "In percent. Where confidence can be believed, the last two columns are alike."
    if silent:
        note += f" Unknown for {', '.join(silent)}: no confidence is given."
    return [{"heading": "Confidence", "note": note, "rows": rows}]
