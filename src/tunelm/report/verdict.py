"""The result in plain words: what to ship, how sure that is, and what to be wary of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunelm.config import MIN_TEST_GROUPS
from tunelm.report.diagnosis import what_was_missing
from tunelm.report.evidence import find_pair, only_alone
from tunelm.report.words import between, count, p_text, points, route_of, scale_of, signed, unit_of
from tunelm.scoring.checks import form_and_content

Report = Mapping[str, Any]

FEW_LINES = 10_000
"""Of text; the usual least for adapting a model to a domain."""


def sentences(report: Report) -> list[str]:
    """The verdict, one sentence or two an item, the most important first.

    Where the test set has too few groups the first item says so, before anything else.
    """
    said = [text for text in (too_few_groups(report),) if text]
    winner = report["winner"]["name"]
    if winner is None:
        return [*said, "Nothing to ship: no route finished. The table says why."]
    said += [
        headline(report),
        _test_score(report, winner),
        _against_baseline(report, winner),
        _runner_up(report, winner),
        what_was_missing(report),
        _smallest(report),
        _chosen(report, winner),
    ]
    return [text for text in said if text]


def too_few_groups(report: Report) -> str | None:
    """The sentence that must come first when the test set is too small to prove anything."""
    groups = report["split"]["test"]["groups"]
    if groups >= MIN_TEST_GROUPS:
        return None
    s = "" if groups == 1 else "s"
    return (
        f"With only {groups} independent test group{s} this comparison proves nothing: at least "
        f"{MIN_TEST_GROUPS} are needed. Read the numbers below as an illustration."
    )


def headline(report: Report) -> str:
    """What to do, in one sentence."""
    winner, baseline = report["winner"]["name"], report["baseline"]
    metric = report["task"]["primary_metric"]
    unbeaten = [name for name in _controls(report) if not _beats(report, winner, name)]
    if baseline is None:
        advice = (
            f"{winner} is the best of these routes on dev; no baseline finished, so whether "
            "adapting helps at all is not known."
        )
    elif winner == baseline:
        advice = (
            f"Keep the model as it is: nothing here is shown to beat the baseline, and {winner} "
            "itself did best on dev."
        )
    elif (pair := find_pair(report["pairs"], metric, winner, baseline)) is None:
        advice = f"{winner} did best on dev, but it cannot be compared with the baseline."
    elif pair["verdict"] == "better" and not unbeaten:
        return f"Ship {winner}."
    elif pair["verdict"] == "better":
        return (
            f"Do not ship on this evidence: {winner} scores higher than the baseline, but is not "
            f"shown to beat the control {' or '.join(unbeaten)}."
        )
    elif pair["verdict"] == "worse":
        advice = (
            f"Do not ship {winner}: nothing here is shown to beat the baseline. It did best on "
            "dev, and is worse than the baseline on the test rows."
        )
    else:
        advice = (
            f"Nothing here is shown to beat the baseline. {winner} did best on dev, but on the "
            "test rows the two are not distinguishable."
        )
    return advice


def _test_score(report: Report, winner: str) -> str:
    metric = report["task"]["primary_metric"]
    score, scale = route_of(report, winner)["scores"][metric], scale_of(report, metric)
    text = (
        f"On the test rows {winner} scores {points(score['value'], scale)} "
        f"{unit_of(report, metric)} "
        f"(95% interval {between(score['ci_low'], score['ci_high'], scale)}; {score['n']} "
        f"{report['metrics'][metric]['of']} "
        f"in {score['n_groups']} independent groups)."
    )
    seeds = route_of(report, winner)["seeds"]
    if len(seeds) > 1:
        text += f" That is over {len(seeds)} seeds; what they differ by is part of the interval."
    return text


def _against_baseline(report: Report, winner: str) -> str | None:
    baseline, metric = report["baseline"], report["task"]["primary_metric"]
    pair = find_pair(report["pairs"], metric, winner, baseline)
    if pair is None or pair["diff"] is None:
        return None
    return f"{_difference(report, pair)} {_plain(pair)}"


def _difference(report: Report, pair: Mapping[str, Any]) -> str:
    scale = scale_of(report, pair["metric"])
    more = "more" if pair["diff"] >= 0 else "less"
    rows = f"{pair['n']} {report['metrics'][pair['metric']]['of']}"
    return (
        f"That is {points(abs(pair['diff']), scale)} {_unit(scale)}{more} than {pair['b']} on the "
        f"same {rows} (95% interval of the difference "
        f"{_signed_interval(pair, scale)}; {_tested(report, pair)})."
    )


def _unit(scale: float | None) -> str:
    return "" if scale is None else "points "


def _signed_interval(pair: Mapping[str, Any], scale: float | None) -> str:
    if pair["ci_low"] is None:
        return "unknown"
    return f"{signed(pair['ci_low'], scale)} to {signed(pair['ci_high'], scale)}"


def _tested(report: Report, pair: Mapping[str, Any]) -> str:
    if not pair["family"]:
        return f"{p_text(pair['p'])}, not corrected"
    family = sum(1 for p in report["pairs"] if p["family"])
    if family == 1:
        return p_text(pair["p_holm"])
    return f"{p_text(pair['p_holm'])} after Holm's correction over {family} pairs"


def _plain(pair: Mapping[str, Any]) -> str:
    if only_alone(pair):
        return (
            "Tested alone that would be a difference; with as many pairs tested as here it is "
            "not enough, and the two are not distinguishable."
        )
    if pair["verdict"] == "not distinguishable":
        return "So large a difference can well be chance: the two are not distinguishable."
    return f"{pair['a']} is {pair['verdict']}, beyond what chance explains."


def _runner_up(report: Report, winner: str) -> str | None:
    other, metric = report["runner_up"], report["task"]["primary_metric"]
    if other is None:
        return "No other route finished, so there is no runner-up."
    if other == report["baseline"]:
        name = "" if other == route_of(report, other)["kind"] else f", {other},"
        return f"The runner-up on dev is the baseline{name} itself."
    pair = find_pair(report["pairs"], metric, winner, other)
    if pair is None or pair["diff"] is None:
        return None
    scale = scale_of(report, metric)
    facts = (
        f"{signed(pair['diff'], scale)}{' points' if scale else ''}, 95% interval "
        f"{_signed_interval(pair, scale)}, {_tested(report, pair)}"
    )
    if pair["verdict"] == "not distinguishable":
        return (
            f"From the runner-up on dev, {other}, it is not distinguishable ({facts}): between "
            f"these two, let cost decide.{_costs(report, winner, other)}"
        )
    return f"On the test rows it is {pair['verdict']} than the runner-up on dev, {other} ({facts})."


def _costs(report: Report, winner: str, other: str) -> str:
    each = [route_of(report, name)["tokens_per_answer"]["test"] for name in (winner, other)]
    if None in each:
        return ""
    return f" {winner} takes {count(each[0])} tokens an answer, {other} {count(each[1])}."


def _smallest(report: Report) -> str:
    mde = report["mde"]
    if mde["value"] is None:
        return f"How small a difference this test set could show is unknown: {mde['reason']}."
    scale = scale_of(report, mde["metric"])
    return (
        f"Between {mde['a']} and {mde['b']} this test set finds a true difference of "
        f"{points(mde['value'], scale)} {_unit(scale)}four times in five "
        "(before correction for several tests); smaller ones it often misses."
    )


def _chosen(report: Report, winner: str) -> str:
    metric = report["task"]["primary_metric"]
    dev = route_of(report, winner)["scores_dev"][metric]
    value = points(dev["value_failed_as_wrong"], scale_of(report, metric))
    of = report["metrics"][metric]["of"]
    n = report["split"]["dev"]["rows"] if of == "rows" else f"{dev['n']} {of} about"
    return (
        f"The winner was chosen on the dev rows ({value} {_unit(scale_of(report, metric))}on "
        f"{n} {'rows' if of == 'rows' else 'their problems'}), never on the test rows."
    )


def _controls(report: Report) -> list[str]:
    return [r["name"] for r in report["routes"] if r["control"] and r["scores"] is not None]


def _beats(report: Report, winner: str, control: str) -> bool:
    pair = find_pair(report["pairs"], report["task"]["primary_metric"], winner, control)
    return pair is not None and pair["verdict"] == "better"


def warnings_of(report: Report) -> list[str]:
    """What a reader must know before trusting the verdict, the gravest first."""
    warned: list[str] = []
    if text := too_few_groups(report):
        warned.append(text)
    if report["winner"]["name"] is not None:
        warned += _control_warnings(report)
        warned += _form_and_content(report)
    warned += _backends(report)
    warned += _failures(report)
    warned += [f"{r['name']}: {note}" for r in report["routes"] for note in r["notes"]]
    warned += _disagreements(report)
    warned += _rows_and_looks(report)
    warned += _texts(report)
    return warned


def _texts(report: Report) -> list[str]:
    """What concerns running text only: too little of it, and what was forgotten."""
    warned: list[str] = []
    lines = report["source"]["lines"]
    if lines is not None and lines < FEW_LINES:
        warned.append(
            f"There are only {lines:,} lines of text. With fewer than {FEW_LINES:,} a model "
            "mostly learns them by heart; expect little on texts of the domain it has not seen."
        )
    for row in report["forgetting"]:
        if row["change_low"] is not None and row["change_low"] > 0:
            warned.append(
                f"{row['route']} forgot some of what the base model knew: "
                f"{points(row['change'], None)} bits per byte more on {row['n']} neutral texts "
                f"(95% interval {between(row['change_low'], row['change_high'], None)})."
            )
    return warned


def _control_warnings(report: Report) -> list[str]:
    winner, metric = report["winner"]["name"], report["task"]["primary_metric"]
    warned: list[str] = []
    for name in _controls(report):
        if _beats(report, winner, name):
            continue
        pair = find_pair(report["pairs"], metric, winner, name)
        does = "does better" if pair and pair["verdict"] == "worse" else "does as well"
        if route_of(report, name)["kind"] == "constant":
            why = f"one fixed answer to every question {does}, so the score may be form only"
        else:
            why = f"training on shuffled answers {does}, so what was gained may be form only"
        diff = signed(pair["diff"], scale_of(report, metric)) if pair else "unknown"
        warned.append(
            f"{winner} is not shown to be better than the control {name} ({diff} "
            f"{unit_of(report, metric)}): as far as these rows show, {why}."
        )
    return warned


def _backends(report: Report) -> list[str]:
    """That a job which ran here says nothing about a hosted model."""
    base = (report["base"] or {}).get("name", "the base model")
    warned: list[str] = []
    for route in report["routes"]:
        if route["backend"] != "local" or route["scores"] is None:
            continue
        name, peer = route["name"], route["parity_of"]
        text = (
            f"{name} is no hosted model: it is {base}, trained on this machine by the fine-tuning "
            "protocol."
        )
        if peer is not None:
            pair = find_pair(report["pairs"], report["task"]["primary_metric"], name, peer)
            diff = signed(pair["diff"], scale_of(report, pair["metric"])) if pair else "unknown"
            text += (
                f" It is there as a parity check of {peer} ({diff}; equal where the settings are), "
                "and outside the choice of the winner."
            )
        warned.append(text)
    return warned


def _form_and_content(report: Report) -> list[str]:
    winner, baseline = report["winner"]["name"], report["baseline"]
    names = form_and_content(report["task"].get("checks"))
    form, content = (find_pair(report["pairs"], name, winner, baseline) for name in names)
    if not form or not content or form["diff"] is None or content["diff"] is None:
        return []
    facts = f"{names[0]} {signed(form['diff'])}, {names[1]} {signed(content['diff'])} points"
    who = f"{winner} against {baseline}"
    if form["diff"] > 0 > content["diff"] and content["verdict"] == "worse":
        meaning = "Answers look more like the references, and hold the right answer less often."
        return [f"{who}: form improved, content did not ({facts}). {meaning}"]
    if form["diff"] < 0 < content["diff"] and content["verdict"] == "better":
        meaning = "Answers hold the right answer more often, and look less like the references."
        return [f"{who}: content improved, form did not ({facts}). {meaning}"]
    if form["verdict"] == "better" and content["verdict"] != "better":
        return [f"{who}: form improved; that content did is not shown ({facts})."]
    return []


def _failures(report: Report) -> list[str]:
    metric = report["task"]["primary_metric"]
    warned: list[str] = []
    for route in report["routes"]:
        if route["status"] != "done":
            warned.append(f"{route['name']}: {route['status']}. {route['reason']}")
            continue
        if route["reason"]:
            warned.append(
                f"{route['name']}: only seeds {', '.join(map(str, route['seeds']))} count; "
                f"{route['reason']}"
            )
        failed, scores = route["failed_rows"], route["scores"][metric]
        if failed["test"]:
            scale = scale_of(report, metric)
            error = f" The first error: {route['first_error']}" if route["first_error"] else ""
            warned.append(
                f"{route['name']}: {failed['test']} of {report['split']['test']['rows']} test rows "
                f"failed and are left out of its score and its pairs. {metric} is "
                f"{points(scores['value'], scale)} on the rest, and "
                f"{points(scores['value_failed_as_wrong'], scale)} with them as wrong.{error}"
            )
        if broken := route["outcomes"]["unparsed"]:
            of = sum(route["outcomes"].values())
            warned.append(
                f"{route['name']}: {broken} of {of} test answers broke the form that its prompt "
                "asks for; they are scored as they stand."
            )
        if failed["dev"]:
            warned.append(
                f"{route['name']}: {failed['dev']} of {report['split']['dev']['rows']} dev rows "
                "failed; they counted as wrong when the winner was chosen."
            )
    return warned


def _disagreements(report: Report) -> list[str]:
    return [
        f"{pair['a']} against {pair['b']} on {pair['metric']}: the interval "
        f"({_signed_interval(pair, scale_of(report, pair['metric']))}) and the test "
        f"({p_text(pair['p'])}) point different ways. It is a borderline case: take the "
        "verdict as open."
        for pair in report["pairs"]
        if pair["metric"] == report["task"]["primary_metric"] and not pair["agrees"]
    ]


def _rows_and_looks(report: Report) -> list[str]:
    split, warned = report["split"], list[str]()
    looks = split["test_looks"]
    if looks and looks > 1:
        warned.append(
            f"Runs on this machine have looked at this test set {looks} times. Each look that "
            "steers what you try next makes its verdict weaker; fresh test rows restore it."
        )
    if text := _shared_words(split["contamination"]):
        warned.append(text)
    for status, what in (("dropped", "left out"), ("cut", "cut to fit the model's context")):
        if number := split["ledger"].get(status):
            warned.append(f"{number} input rows were {what}; rows.jsonl says which and why.")
    return warned


def _shared_words(shared: Mapping[str, Any] | None) -> str | None:
    """That test rows say what train rows say: in what is asked, or in the answers alone."""
    if not shared or not shared["rows"]:
        return None
    known = "asked" in shared  # a split that was made before is not looked at again
    of, asked = shared["of"], shared["asked" if known else "rows"]
    where = "what is asked in a train row" if known else "a train row"
    first = f"the first: {shared['found'][0]['piece'][:120]!r}. split.json names the rows."
    answers = shared["rows"] - asked
    if not asked:
        return (
            f"{answers} of {of} test rows share 13 words in a row with a train row in the answer "
            "alone, and none in what is asked: set phrases, or one answer to several questions. "
            f"Metrics that compare whole answers count them; {first}"
        )
    more = f" {answers} more do so in the answer alone, as set phrases do." if answers else ""
    return (
        f"{asked} of {of} test rows share 13 words in a row, or a whole short question, with "
        f"{where}; {first} Where that is more than quoted text, the scores are too good.{more}"
    )
