"""The strategy proposal as one dict: what `--json` prints and the page is written from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunelm.planning.cost_page import money
from tunelm.planning.hosts import Way, own_machine, rentable, ways
from tunelm.planning.known import ASSUMED, Known
from tunelm.planning.registry import size_of
from tunelm.planning.risks import WANTED, changes, risks
from tunelm.planning.rules import WAYS, Advice, Rule, advise, settings
from tunelm.planning.sample import Spread, groups_for, smallest_difference
from tunelm.planning.shortlist import SPEED, Candidate
from tunelm.scoring.metrics import metrics_for
from tunelm.types import Estimate

SCHEMA_VERSION = 1
Proposal = dict[str, Any]
Row = dict[str, str]


def propose(known: Known) -> Proposal:
    """The whole proposal; every figure in it has a source or a method beside it."""
    advice = advise(known.facts)
    rent = rentable(known.wishes, known.today)
    listed = rent[0] if rent else known.wishes.hardware.listed
    priced = ways(known.wishes, known.tokens, listed, known.today)
    task = known.config.task
    return {
        "schema_version": SCHEMA_VERSION,
        "made": known.today.isoformat(),
        "task": {
            "name": task.name,
            "kind": task.kind,
            "instructions": task.instructions,
            "scenario": known.scenario,
            "origin": known.origin,
        },
        "summary": _summary(known, advice, priced),
        "constraints": _constraints(known),
        "needed": needed(known),
        "models": _models(known),
        "data": None if known.sample is None else _data(known),
        "size": _size(known),
        "method": _method(known, advice),
        "evaluation": _evaluation(known),
        "risks": risks(known, priced),
        "forecasts": forecast_rows(known.forecasts),
        "costs": _costs(known, priced),
        "changes": changes(known, priced),
    }


def needed(known: Known) -> list[str]:
    """What only the user can give, before the plan can be carried out."""
    found = [known.missing] if known.missing else []
    if known.sample is None:
        found += [
            (
                "rows: a file with a question and its answer in each, 20 to begin with, 200 to "
                "decide by; put it where data.path in task.toml says"
            ),
            (
                f"until then a row is taken to have {ASSUMED.longest} tokens, {ASSUMED.answer} of "
                "them answer (assumed)"
            ),
        ]
    if known.facts["knowledge"] and not known.facts["corpus"] and known.config.task.kind == "qa":
        found.append("the text that states the facts (data.corpus), so that they can be looked up")
    if "requests_a_month" not in known.said:
        found.append("how many requests a month you expect (--requests-a-month)")
    if known.wishes.budget_usd is None and not known.wishes.private:
        found.append("what may be spent a month (--budget)")
    if "told from" in known.origin:
        found.append(
            f"a look at task.toml: that the task is of kind {known.config.task.kind} was told by a "
            "rule, and the instructions that every route is given are a general sentence"
        )
    return found


def forecast_rows(found: Mapping[str, Mapping[str, Estimate]]) -> list[dict[str, Any]]:
    """A row for each forecast, with its interval and how it was made."""
    return [
        {"route": route, "quantity": name.replace("_", " "), **dataclasses.asdict(estimate)}
        for route, estimates in found.items()
        for name, estimate in estimates.items()
    ]


def _summary(known: Known, advice: Advice, priced: Sequence[Way]) -> list[str]:
    first = [way for way in advice.ways if way != "control"]
    said = [f"Try first: {WAYS[first[0]]}." if first else "Nothing but the controls can be tried."]
    if len(first) > 1:
        said.append(f"Then, in this order: {'; '.join(WAYS[way] for way in first[1:])}.")
    said += _which_model(known)
    if rent := rentable(known.wishes, known.today):
        listed, elsewhere = rent
        hour = listed.rent(known.today)
        larger, top = known.models_on(elsewhere).top, known.models.top
        if larger and hour and (not top or larger[0].model.parameters > top[0].model.parameters):
            said.append(
                f"No GPU was found here. On a rented {listed.name} ({money(hour.value)} an hour, "
                f"{hour.provider}, {hour.as_of}) {larger[0].model.name} fits, "
                f"{size_of(larger[0].model.parameters)} parameters."
            )
    cheapest = next((way for way in priced if way.month is not None and not way.over), None)
    if cheapest is not None and known.config.task.kind != "text":
        said.append(
            f"Of the priced ways to answer the cheapest is {cheapest.name}: "
            f"{money(cheapest.month)} a month at {known.wishes.volume:,.0f} requests, by prices of "
            f"{cheapest.as_of}; whether it is good enough only a comparison says."
        )
    return said


def _which_model(known: Known) -> list[str]:
    """The base model to take, and what the plan is tried with."""
    top = known.models.top
    if not top:
        return ["No model of the registry fits the constraints: section 2 says why."]
    said = f"Base model for real work: {top[0].model.name}"
    if others := [c.model.name for c in top[1:]]:
        said += f"; beside it, to see whether a smaller one will do, {' and '.join(others)}"
    if known.base is not None and known.base.name == "tunelm-nano":
        said += ". The plan can be tried at once with the bundled tunelm-nano"
    return [f"{said}."]


def _constraints(known: Known) -> list[Row]:
    wishes, machine = known.wishes, known.wishes.hardware
    budget = None if wishes.budget_usd is None else f"${wishes.budget_usd:,.2f} a month, and once"
    latency = None if wishes.latency_s is None else f"{wishes.latency_s:g} s an answer at most"
    private = "no row leaves your machines" if wishes.private else "hosts are allowed"
    understood = (
        ("machine", f"{machine.name}, {machine.memory_bytes / 1e9:.0f} GB", "gpu"),
        ("volume", f"{wishes.volume:,.0f} requests a month", "requests_a_month"),
        ("horizon", f"{wishes.months:g} months", "months"),
        ("budget", budget, "budget"),
        ("privacy", private, "private"),
        ("latency", latency, "latency"),
        ("licence of the model", wishes.licence, "licence"),
        ("language of the rows", wishes.language, "language"),
    )
    rows: list[Row] = []
    for what, value, name in understood:
        flag = f"--{name.replace('_', '-')}"
        how = "you" if name in known.said else f"default: {flag}"
        how = machine.how if name == "gpu" else how
        rows.append({"constraint": what, "as understood": value or "not said", "from": how})
    if (words := known.words("private")) and not wishes.private:
        said = f"the task's words say {', '.join(words)}"
        how = "give --private if rows must not leave"
        rows.append({"constraint": "privacy, again", "as understood": said, "from": how})
    return rows


def _models(known: Known) -> dict[str, Any]:
    found = known.models
    return {
        "base": known.config.model.base,
        "parameters": None if known.base is None else known.base.parameters,
        "top": [_model_row(candidate) for candidate in found.top],
        "fell": [
            {"models": str(n), "constraint": why, "which": names} for why, n, names in found.fell
        ],
        "only_qlora": list(found.only_qlora),
        "others": list(found.others),
        "timed": SPEED if any(c.hours is not None for c in found.top) else "",
    }


def _model_row(candidate: Candidate) -> Row:
    model, seconds = candidate.model, candidate.seconds
    doubtful = ", ".join(model.doubtful())
    doubt = f"; not read there: {doubtful}" if doubtful else ""
    row = {
        "model": model.name,
        "size": size_of(model.parameters),
        "parameters": f"{model.parameters:,}",
        "context": f"{model.context:,}",
        "licence": model.licence,
        "fits": candidate.why[0],
        "known for": model.strengths,
        "source": f"{model.source}, {model.as_of}{doubt}",
    }
    if seconds is not None:
        row["fits"] += f"; {seconds:.2g} s an answer at least"
    return row


def _data(known: Known) -> dict[str, Any]:
    sample = known.sample
    assert sample is not None
    return {
        "path": sample.path,
        "name": Path(sample.path).name,
        "status": dict(sample.status),
        "parts": [
            {"part": part, "rows": f"{sample.rows[part]:,}", "groups": f"{sample.groups[part]:,}"}
            for part in sample.rows
        ],
        "lengths": [
            _length_row("prompt", sample.prompt),
            _length_row("answer", sample.answer),
            _length_row("both", sample.whole),
        ],
        "tokenizer": sample.tokenizer,
        "labels": [{"label": label, "train rows": str(n)} for label, n in sample.labels],
        "personal": dict(sample.personal),
        "english": sample.english,
        "example": dict(sample.example),
    }


def _length_row(what: str, spread: Spread) -> Row:
    return {
        "tokens of": what,
        "median": f"{spread.median:,}",
        "99th percentile": f"{spread.p99:,}",
        "longest": f"{spread.most:,}",
        "mean": f"{spread.mean:,.1f}",
    }


_PRIORS = {
    "classification": (
        "Prior, not measured on your rows: 200 to 500 labelled rows were enough for a fine-tuned "
        "encoder to beat large hosted models on every task of a study (arXiv 2406.08660)."
    ),
    "text": (
        "Prior, not measured on your rows: of running text more is better throughout; loss falls "
        "as a power of the tokens (arXiv 2402.17193)."
    ),
}
_PRIOR = (
    "Prior, not measured on your rows: scores of fine-tuning follow L = B / (D_l + D^b) + E, slow "
    "at first, then a power of the rows, then flat (arXiv 2402.02314). Where yours stand on that "
    "curve nobody can say before trying: --learn fits the routes on 12.5, 25 and 50% of them."
)


def _size(known: Known) -> dict[str, Any]:
    groups = 0 if known.sample is None else known.sample.groups["test"]
    least = smallest_difference(groups)
    return {
        "learned": [
            {"route": name, "rows": [dict(row) for row in rows], "needed": told}
            for name, (rows, told) in known.learned.items()
        ],
        "prior": "" if known.learned else _PRIORS.get(known.config.task.kind, _PRIOR),
        "test_groups": groups,
        "smallest": least,
        "wanted": WANTED,
        "groups_for_wanted": groups_for(WANTED),
        "how": "formula: (t(.975) + t(.8)) x sqrt(2 x 0.25 / test groups), independent answers",
    }


def _method(known: Known, advice: Advice) -> dict[str, Any]:
    def rows(pairs: Sequence[tuple[str, tuple[Rule, ...]]], out: bool) -> list[Row]:
        return [
            {
                "" if out else "order": "-" if out else str(place),
                "way": WAYS[way],
                "why": rule.reason,
                "source": rule.source,
                "what would change it": rule.changes,
            }
            for place, (way, its) in enumerate(pairs, 1)
            for rule in its
        ]

    order = rows(advice.order, out=False)
    against = [{k: v for k, v in row.items() if k} for row in rows(advice.against, out=True)]
    facts = {k: v for k, v in known.facts.items() if v}
    return {
        "ways": list(advice.ways),
        "order": order,
        "against": against,
        "settings": _settings(known) if "local" in advice.ways else [],
        "facts": facts,
        "words": {what: known.words(what) for what in ("form", "knowledge")},
    }


def _settings(known: Known) -> list[Row]:
    """Key parameters of training; what the task file sets itself stays, and says so."""
    local = known.config.routes.get("local")
    own = {} if local is None else local.model_dump(exclude_unset=True, exclude={"kind"})
    rows = [
        {"setting": s.key, "value": str(s.value), "why": s.reason, "source": s.source}
        for s in settings()
        if s.key not in own and not (s.way == "local" and own.get("method") == "full")
    ]
    for key, value in own.items():
        why = next((s.reason for s in settings() if s.key == key), "as the task file has it")
        rows.append({"setting": key, "value": str(value), "why": why, "source": "the task file"})
    return rows


def _evaluation(known: Known) -> dict[str, Any]:
    task, primary = known.config.task, known.config.compare.primary_metric
    metrics = metrics_for(task.kind, checks=task.checks)
    return {
        "primary": primary,
        "metrics": [
            {
                "metric": name + (" (decides)" if name == primary else ""),
                "measures": _short(m.description),
            }
            for name, m in metrics.items()
        ],
        "means": _short(metrics[primary].description),
        "criteria": [{"criterion": name, "what people are asked": q} for name, q in known.criteria],
        "controls": [
            "a constant answer: whatever it scores is no skill",
            "the base model with the instructions alone",
            (
                "LoRA on answers dealt to the wrong questions (`tunelm compare "
                "--shuffled-control`): what it gains is form, not content"
            ),
        ],
    }


def _short(description: str) -> str:
    """The first part of a metric's description, and whether it is about form."""
    what, _, rest = description.partition(";")
    return f"{what} (form)" if "measures form" in rest else what


def _costs(known: Known, priced: Sequence[Way]) -> dict[str, Any]:
    rows: list[Row] = []
    for way in priced:
        stale = " (STALE)" if way.stale else ""
        note = ["over the budget"] if way.over else []
        note += [f"until {way.ends}"] if way.ends else []
        note += filter(None, [way.why or way.how])
        row = {
            "way": way.name,
            "a month": "unknown" if way.month is None else money(way.month),
            "once": money(way.once) if way.once else "-",
            "note": "; ".join(note) or "-",
            "price from": f"{way.source.partition(' in ')[2] or way.source}, {way.as_of}{stale}"
            if way.source
            else "-",
        }
        rows.append(row)
    tokens = known.tokens
    return {
        "rows": [] if known.config.task.kind == "text" else rows,
        "tokens": f"{tokens.prompt:,.0f} tokens in, {tokens.output:,.0f} out",
        "own": own_machine(known.wishes.hardware),
        "volume": known.wishes.volume,
    }
