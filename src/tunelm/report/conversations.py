"""What whole conversations with simulated students showed, and what each one took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from tunelm.report.evidence import Answers, interval_fields, paired_fields
from tunelm.report.read import RouteRun, Run
from tunelm.report.spending import endpoint_of
from tunelm.report.words import between, count, points, quantity, scale_of, signed, signed_between
from tunelm.scoring.dialogue_metrics import TALKS
from tunelm.scoring.statistics import interval, paired
from tunelm.types import Example, Prediction

PART = f"test{TALKS}"
HEADLINE = ("solved_unaided", "telling_rate")
"""The metrics that are given for each kind of student."""

NOTE = (
    "The students are simulated, by rules: they say how models compare with each other, not how "
    "many pupils would learn. The teacher is the model's own words, unmended; a tutor that is "
    "served has rules that mend them."
)

Report = Mapping[str, Any]
_Held = list[tuple[Example, Prediction]]


def conversations_of(
    run: Run, answers: Sequence[Answers], baseline: str | None
) -> dict[str, Any] | None:
    """The report's `conversations`; None for a task without any.

    `routes` has for each: `n` and `failed`; `endings`, `strategies` (how often each was asked
    for) and `students`, with HEADLINE's values and intervals by group; and what one conversation
    took: `teacher_turns`, `prompt_tokens`, `kept_tokens` (of the prompt, what stood at the
    beginning of the turn before, estimated by words: a provider's cache can have kept it),
    `completion_tokens`, `seconds`, `usd`, each a mean over those that did not fail, None where it
    is not known; and `prompt_by_turn`. `held_out` is the paired difference to the baseline with the
    students that are in no training data.
    """
    if PART not in run.parts:
        return None
    rival = next((a for a in answers if a.route.name == baseline), None)
    routes = {a.route.name: _route(run, a) for a in answers}
    pairs = [_held_out(run, a, rival) for a in answers if rival and a is not rival]
    return {"routes": routes, "held_out": pairs, "baseline": baseline, "note": NOTE}


def _route(run: Run, answers: Answers) -> dict[str, Any]:
    route = answers.route
    examples = {e.id: e for e in run.parts[PART]}
    rows = [(examples[p.example_id], p) for s in route.finished for p in s.predictions[PART]]
    held: _Held = [(e, p) for e, p in rows if p.output is not None and p.facts]
    facts = [p.facts or {} for _, p in held]
    return {
        "n": len(rows),
        "failed": len(rows) - len(held),
        "endings": _endings(facts),
        "strategies": dict(Counter(s for f in facts for s in f["strategies"]).most_common()),
        "students": _students(run, answers),
        "teacher_turns": _mean([f["teacher_turns"] for f in facts]),
        "prompt_tokens": _mean([_total(f["prompt_tokens"]) for f in facts]),
        "kept_tokens": _mean([_kept(f) for f in facts]),
        "completion_tokens": _mean([_total(f["completion_tokens"]) for f in facts]),
        "prompt_by_turn": _by_turn([f["prompt_tokens"] for f in facts]),
        "seconds": _mean([p.latency_s for _, p in held]),
        **_usd(route, facts),
    }


def _endings(facts: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    solved = sum(f["solved_unaided"] == 1 for f in facts)
    told = sum(f["solved_after_telling"] == 1 for f in facts)
    return {
        "solved": solved,
        "solved after telling": told,
        "not solved": len(facts) - solved - told,
    }


def _students(run: Run, answers: Answers) -> dict[str, dict[str, Any]]:
    """By kind of student: how many conversations, and HEADLINE's metrics with their intervals."""
    examples = run.parts[PART]
    found: dict[str, dict[str, Any]] = {}
    for profile in dict.fromkeys(str(e.metadata["profile"]) for e in examples):
        mine = [i for i, e in enumerate(examples) if e.metadata["profile"] == profile]
        its: dict[str, Any] = {
            "n": len(mine),
            "held_out": bool(examples[mine[0]].metadata["held_out"]),
        }
        for name in HEADLINE:
            metric = answers.metrics[name]
            groups = np.array(answers.groups(name))[mine].tolist()
            got = interval(answers.stats[name][:, mine], groups, metric.aggregate, scale=1.0)
            its[name] = interval_fields(got)
        found[profile] = its
    return found


def _held_out(run: Run, a: Answers, b: Answers) -> dict[str, Any]:
    """A's value less B's with the held-out students, on the conversations that both held."""
    mine = [i for i, e in enumerate(run.parts[PART]) if e.metadata["held_out"]]
    found: dict[str, Any] = {"a": a.route.name, "b": b.route.name}
    for name in HEADLINE:
        groups = np.array(a.groups(name))[mine].tolist()
        sides = [side.stats[name][:, mine] for side in (a, b)]
        got = paired(sides[0], sides[1], groups, a.metrics[name].aggregate, scale=1.0)
        found[name] = paired_fields(got)
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean; None where there is nothing, or something that is not known."""
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def _total(counts: Sequence[int | None]) -> int | None:
    known = [n for n in counts if n is not None]
    return sum(known) if len(known) == len(counts) else None


def _kept(facts: Mapping[str, Any]) -> float | None:
    counts = [n for n in facts["prompt_tokens"][1:] if n is not None]
    shared: list[float] = facts["shared"]
    if len(counts) < len(shared):
        return None
    return sum(share * n for share, n in zip(shared, counts, strict=True))


def _by_turn(counts: Sequence[Sequence[int | None]]) -> list[float | None]:
    """The mean tokens of the prompt at each turn, over the conversations that came so far."""
    longest = max(map(len, counts), default=0)
    return [_mean([turns[i] for turns in counts if len(turns) > i]) for i in range(longest)]


def _usd(route: RouteRun, facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a conversation costs by the prices of the endpoint that answered, nothing cached."""
    endpoint = endpoint_of(route)
    prices = endpoint["prices"] if endpoint else next(
        (s.detail["prices"] for s in route.finished if "prices" in s.detail), {}
    )  # fmt: skip
    usd_in, usd_out = prices.get("usd_in"), prices.get("usd_out")
    prompt = _mean([_total(f["prompt_tokens"]) for f in facts])
    completion = _mean([_total(f["completion_tokens"]) for f in facts])
    if usd_in is None or usd_out is None or prompt is None or completion is None:
        return {"usd": None, "usd_reason": "no price, or no count of tokens, is known"}
    usd = (prompt * usd_in + completion * usd_out) / 1e6
    return {"usd": usd, "usd_reason": "measured tokens x the prices given, none of them cached"}


# --- as tables --------------------------------------------------------------------------------


def ending_rows(report: Report) -> list[dict[str, str]]:
    """How conversations ended, a row a route."""
    return [
        {
            "route": name,
            "conversations": count(its["n"]),
            **{ending: count(n) for ending, n in its["endings"].items()},
            "failed": count(its["failed"]),
            **{
                f"{metric}, %": _scored(report, name, metric)
                for metric in HEADLINE
            },
            "turns to solve": _scored(report, name, "turns_to_solve"),
        }
        for name, its in _routes(report)
    ]  # fmt: skip


def student_rows(report: Report) -> list[dict[str, str]]:
    """Solved unaided, and in brackets told first, in percent: a row a kind of student."""
    routes = _routes(report)
    names = dict.fromkeys(name for _, its in routes for name in its["students"])
    return [
        {
            "student": name + (" (in no training data)" if _is_held_out(routes, name) else ""),
            "each": count(routes[0][1]["students"][name]["n"]),
            **{route: _student_cell(its["students"][name]) for route, its in routes},
        }
        for name in names
    ]


def held_out_rows(report: Report) -> list[dict[str, str]]:
    """The difference to the baseline with students who are in no training data."""
    return [
        {
            "pair": f"{pair['a']} - {pair['b']}",
            "conversations": count(pair["solved_unaided"]["n"]),
            **{
                f"{metric}, points": f"{signed(pair[metric]['diff'])} "
                f"({signed_between(pair[metric]['ci_low'], pair[metric]['ci_high'])})"
                for metric in HEADLINE
            },
        }
        for pair in report["conversations"]["held_out"]
    ]


def strategy_rows(report: Report) -> list[dict[str, str]]:
    """How often each strategy was asked for, by route."""
    routes = _routes(report)
    names = dict.fromkeys(name for _, its in routes for name in its["strategies"])
    return [
        {"strategy": name, **{r: count(its["strategies"].get(name, 0)) for r, its in routes}}
        for name in names
    ]


def price_rows(report: Report) -> list[dict[str, str]]:
    """What one conversation takes, a row a route."""
    return [
        {
            "route": name,
            "teacher's turns": _decimal(its["teacher_turns"]),
            "prompt tokens": count(its["prompt_tokens"]),
            "of them kept": _share(its["kept_tokens"], its["prompt_tokens"]),
            "completion tokens": count(its["completion_tokens"]),
            "seconds, many at once": quantity(its["seconds"], "s"),
            "money": quantity(its["usd"], "USD"),
            "prompt at turn 1, 2, ...": ", ".join(map(count, its["prompt_by_turn"])),
        }
        for name, its in _routes(report)
    ]


def _routes(report: Report) -> list[tuple[str, dict[str, Any]]]:
    return list(report["conversations"]["routes"].items())


def _scored(report: Report, route: str, metric: str) -> str:
    scores = next(r["scores"] for r in report["routes"] if r["name"] == route)
    score, scale = scores[metric], scale_of(report, metric)
    return f"{points(score['value'], scale)} ({between(score['ci_low'], score['ci_high'], scale)})"


def _is_held_out(routes: Sequence[tuple[str, Mapping[str, Any]]], student: str) -> bool:
    return any(its["students"][student]["held_out"] for _, its in routes)


def _student_cell(student: Mapping[str, Any]) -> str:
    solved, told = (points(student[name]["value"]) for name in HEADLINE)
    return f"{solved} ({told})"


def _decimal(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1f}"


def _share(part: float | None, whole: float | None) -> str:
    return "unknown" if part is None or not whole else f"about {part / whole:.0%}"


def judge_notes(report: Report) -> list[str]:
    """How far the judge behind a metric agrees with people, or why there is none."""
    return [_judge_note(name, judge) for name, judge in report["judges"].items()]


def _judge_note(name: str, judge: Mapping[str, Any]) -> str:
    if "unknown" in judge:
        return f"{name} is unknown: {judge['unknown']}"
    figures = [
        f"{title} {found['value']:.2f} ({found['low']:.2f} to {found['high']:.2f})"
        for title, found in ((t, judge["agreement"][t]) for t in ("accuracy", "kappa"))
    ]
    return (
        f"{name} is by a judge learned from the labels of this run's {judge['rows']:,} train rows; "
        f"on rows of problems that it has not seen it agrees with the labels: {', '.join(figures)}."
    )


TABLES: tuple[tuple[str, str, Callable[[Report], list[dict[str, str]]]], ...] = (
    ("How they ended", "", ending_rows),
    ("By kind of student", "Solved unaided, and in brackets told first, in percent.", student_rows),
    ("Students in no training data, against the baseline", "", held_out_rows),
    ("Strategies asked for", "By rules that read the student, turn by turn.", strategy_rows),
    (
        "What a conversation takes",
        "The prompt grows with the turns. Kept: estimated by words, what a cache can have kept.",
        price_rows,
    ),
)
"""(heading, what to know, rows) of each table."""
