"""A run's answers before a judge: what is asked, what came of it, and the file that keeps it."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelm.errors import ConfigError, ModelError, RunDirError
from tunelm.judging.families import check_family
from tunelm.judging.judge import Judge, Rating
from tunelm.judging.llm import PHASE, LLMJudge
from tunelm.judging.people import NOBODY, People, Said, agreement_of, known_of, said
from tunelm.judging.ranking import (
    Standing,
    System,
    compare,
    standing,
)
from tunelm.report.read import RouteRun, Run
from tunelm.report.spending import endpoint_of
from tunelm.rundir import read_json, write_json
from tunelm.target import find_run
from tunelm.types import Example, Usage, content_hash

Array = NDArray[np.float64]
FOLDER = "judged"
"""The folder of a run that holds what judges said."""


@dataclass(frozen=True)
class Answered:
    """A route's answers on one part: (S, n) outputs, None where there is none."""

    route: RouteRun
    outputs: tuple[tuple[str | None, ...], ...]

    @property
    def name(self) -> str:
        """The route's name."""
        return self.route.name


def answers_of(run: Run, part: str, names: Sequence[str]) -> list[Answered]:
    """The finished routes' answers, in the run's order; all of them where no names are given.

    Raises ConfigError for a name that is no finished route, or where there is none.
    """
    done = {route.name: route for route in run.routes if route.finished}
    for name in names:
        if name not in done:
            raise ConfigError(
                f"{run.path}: no finished route {name!r}. There are: {', '.join(done) or 'none'}."
            )
    if not done:
        raise ConfigError(f"{run.path}: no route has finished. Go on with --resume.")
    rows = run.parts[part]
    if rows and not rows[0].messages:
        raise ConfigError(f"{run.path}: a task of running text has no replies to judge.")
    return [
        Answered(
            route,
            tuple(tuple(s.outputs[part].get(row.id) for row in rows) for s in route.finished),
        )
        for name, route in done.items()
        if not names or name in names
    ]


def family_notes(
    judge: str, run: Run, routes: Sequence[RouteRun], allow: bool
) -> dict[str, str | None]:
    """What must be said of the judge's relation to each route. Raises as `check_family`."""
    who = _model_behind(judge)
    return {
        route.name: None if route.kind == "constant" else check_family(who, its, allow)
        for route in routes
        for its in [_model_of(run, route)]
    }


@dataclass(frozen=True)
class Rated:
    """What a judge said of the routes' answers, and of people's labelled replies."""

    routes: Mapping[str, list[list[Rating | None]]]
    labelled: list[Rating]


def rate_all(
    judge: Judge, rows: Sequence[Example], routes: Sequence[Answered], people: People | None
) -> Rated:
    """Everything in one go, so that a reply that occurs twice is judged once."""
    asked: dict[Said, tuple[Example, str]] = {}
    for route in routes:
        for outputs in route.outputs:
            for row, output in zip(rows, outputs, strict=True):
                if output is not None:
                    asked.setdefault(said(row, output), (row, output))
    for one in people.rows if people else ():
        asked.setdefault(said(one.example, one.output), (one.example, one.output))
    ratings = judge.rate([e for e, _ in asked.values()], [o for _, o in asked.values()])
    if all(r.value is None and r.label is None for r in ratings):
        why = Counter(r.note for r in ratings).most_common(1)
        raise ModelError(
            f"none of {len(ratings)} replies could be judged: {why[0][0] if why else 'no answers'}"
        )
    found = dict(zip(asked, ratings, strict=True))
    given = {
        route.name: [
            [None if o is None else found[said(r, o)] for r, o in zip(rows, outputs, strict=True)]
            for outputs in route.outputs
        ]
        for route in routes
    }
    labelled = [found[said(one.example, one.output)] for one in people.rows] if people else []
    return Rated(given, labelled)


def rate_run(
    rows: Sequence[Example],
    judge: Judge,
    routes: Sequence[Answered],
    people: People | None,
    families: Mapping[str, str | None],
) -> dict[str, Any]:
    """Rate the routes' answers to `rows`, correct by `people`, and compare: the result as data.

    Raises ModelError where not one reply could be judged. Others as the judge does.
    """
    rated = rate_all(judge, rows, routes, people)
    known = known_of(judge, people, rated.labelled)
    systems = systems_of(rows, routes, rated, people)
    groups = [row.group for row in rows]
    scores = [standing(system, groups, known, judge.scale) for system in systems]
    result: dict[str, Any] = {
        "judge": {"name": judge.name, "kind": judge.kind},
        "agreement": agreement_of(judge, people, rated.labelled),
        "routes": [
            route_json(r, rated.routes[r.name], s, families.get(r.name))
            for r, s in zip(routes, scores, strict=True)
        ],
        "pairs": [as_json(pair) for pair in compare(systems, groups, known, judge.scale)],
    }
    if isinstance(judge, LLMJudge):
        result["judge"] |= judge.describe()
        result["usage"] = {PHASE: usage_json(judge.usage)}
        result |= {"calls": judge.calls, "failures": dict(judge.failures), "spread": judge.spread}
    return result


def systems_of(
    rows: Sequence[Example], routes: Sequence[Answered], rated: Rated, people: People | None
) -> list[System]:
    """The ratings as arrays, with people's labels of the very same replies."""
    known = people.by_reply() if people else {}
    systems: list[System] = []
    for route in routes:
        judged = [
            [NOBODY if r is None or r.value is None else r.value for r in seed]
            for seed in rated.routes[route.name]
        ]
        labels = [
            [
                NOBODY if o is None else known.get(said(r, o), NOBODY)
                for r, o in zip(rows, seed, strict=True)
            ]
            for seed in route.outputs
        ]
        systems.append(System(route.name, np.array(judged), np.array(labels)))
    return systems


# --- the file -----------------------------------------------------------------------------------


def result_path(run: Path, name: str, signature: str) -> Path:
    """Where a result goes. Raises RunDirError where another one stands under that name."""
    path = run / FOLDER / f"{name}.json"
    if path.exists() and (there := read_json(path).get("signature")) != signature:
        raise RunDirError(
            f"{path}: holds another result ({there}), which is never written over. Give this one"
            " another name with --name, or remove that file."
        )
    return path


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """Write it atomically."""
    path.parent.mkdir(exist_ok=True)
    write_json(path, result)


def file_name(*parts: str) -> str:
    """A name for a file: letters, digits, dots and dashes.

    >>> file_name("actionability", "ollama/llama3.2:1b", "test")
    'actionability-ollama-llama3.2-1b-test'
    """
    return re.sub(r"[^A-Za-z0-9._]+", "-", "-".join(p for p in parts if p)).strip("-.")


def signature_of(asked: Mapping[str, Any], routes: Sequence[Answered]) -> str:
    """A hash of the question and of the answers it is about."""
    return content_hash([dict(asked), [[r.name, r.outputs] for r in routes]])


def as_json(record: Any) -> Any:
    """A frozen record, or a list of them, as plain data; NaN is null."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {k: as_json(v) for k, v in dataclasses.asdict(record).items()}
    if isinstance(record, Mapping):
        return {str(k): as_json(v) for k, v in record.items()}
    if isinstance(record, float):
        return None if np.isnan(record) else record
    return record


def route_json(
    answered: Answered, ratings: list[list[Rating | None]], found: Standing, note: str | None
) -> dict[str, Any]:
    """One route of a result."""
    flat = [r for seed in ratings for r in seed]
    given = [r for r in flat if r is not None]
    return {
        "name": answered.name,
        "kind": answered.route.kind,
        "rows": len(flat),
        "unanswered": len(flat) - len(given),
        "not_judged": dict(Counter(r.note for r in given if r.value is None and r.note)),
        "labels": dict(Counter(r.label for r in given if r.label is not None)),
        "value": found.raw.value,
        "ci_low": found.raw.low,
        "ci_high": found.raw.high,
        "n": found.raw.n,
        "groups": found.raw.n_groups,
        "corrected": as_json(found.corrected),
        "basis": found.basis,
        "family": note,
        "ratings": [
            [None if r is None else [r.value, r.label, r.note] for r in seed] for seed in ratings
        ],
    }


def usage_json(usage: Usage) -> dict[str, int | None]:
    """Tokens as plain data."""
    return dataclasses.asdict(usage)


# --- which model is behind what -----------------------------------------------------------------


def _model_of(run: Run, route: RouteRun) -> str:
    """The name of the model that a route's answers come from, or that it was made from."""
    endpoint = endpoint_of(route)
    if endpoint is not None:
        return str(endpoint.get("fine_tuned_model") or endpoint["model"])
    return str(run.config["config"]["model"]["base"])


def _model_behind(target: str) -> str:
    """The name to go by for a TARGET: that of a run's base, or itself."""
    found = find_run(Path(target))
    if found is None:
        return target
    return str(read_json(found[0] / "config.json")["config"]["model"]["base"])
