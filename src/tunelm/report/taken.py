"""What each route took: to set up, to learn from, and what answers in the end."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from tunelm.errors import DataError
from tunelm.planning.listed import hosted, shutdown_of
from tunelm.report.read import RouteRun, Run
from tunelm.report.spending import endpoint_of
from tunelm.route_settings import KINDS
from tunelm.rundir import read_json

Taken = dict[str, Any]

ANSWERS_HERE = ("baseline", "prompt", "rag", "local", "hybrid", "distill")
"""Kinds whose answers come from a language model on this machine, where no endpoint is named."""

ALL_ROWS = ("cloud", "classifier", "nearest", "constant")
"""Kinds that learn from every train row, without saying so in what they made."""

NO_ROWS = ("rule", "baseline")
"""Kinds that learn from none."""


def taken_by(run: Run, route: RouteRun) -> Taken:
    """What a route took, over all its seeds.

    `extras`: of the package, to be installed; `key`: the environment variable with the key of its
    endpoint. `settings` counts those of its kind, `changed` holds those that are not their
    defaults. `attempts` and `failed` count seeds; `seconds` of fitting, those of failed seeds too.
    `calls` asked of a model while fitting; `lost`, the paid ones that ended without a count of
    tokens. `rows` of the train part that were learned from, `asked` those that a model was asked
    for an answer to, `pool` those a prompt could show and `examples` those it shows, `candidates`
    the programs tried on dev, `passages` of the corpus. `trained` counts parameters; `student` is
    the model that learned in place of the base; `stage` what a hybrid ended with. `helpers` are
    models at endpoints that were shown train rows: a proposer, a teacher. `ends` is the day on
    which its model shuts down, by `ends_source`. None: unknown, or there is no such thing.
    """
    detail: dict[str, Any] = dict(route.finished[0].detail) if route.finished else {}
    settings = run.config["config"]["routes"][route.name]
    found: Taken = {
        "extras": _extras(route, settings, detail),
        "key": None,
        "settings": len(KINDS[route.kind].model_fields) - 1,
        "changed": _changed(settings),
        "attempts": len(route.seeds),
        "failed": sum(seed.fit.get("status") == "failed" for seed in route.seeds),
        "seconds": _seconds(run.path, route),
        "calls": _calls(route),
        "lost": lost_calls(run.path).get(route.name, 0),
        **_learned(run, route, detail),
        "helpers": sorted(
            {
                str(one["model"])
                for seed in route.seeds
                for one in seed.detail.get("paid", {}).values()
            }
        ),
        "ends": None,
        "ends_source": None,
    }
    endpoint = endpoint_of(route)
    if endpoint is not None:
        found["key"] = endpoint.get("api_key_env")
        found |= _end(endpoint, date.fromisoformat(str(run.config["created"])[:10]), route.backend)
    return found


def _end(endpoint: Mapping[str, Any], made: date, provider: str | None) -> Taken:
    try:
        listing = shutdown_of(hosted(endpoint, made, provider, None), endpoint, provider)
    except DataError as error:
        return {"ends_source": f"the price list cannot be read: {error}"}
    ends = listing.ends.isoformat() if listing.ends else None
    return {"ends": ends, "ends_source": listing.ends_source or None}


def _extras(route: RouteRun, settings: Mapping[str, Any], detail: Mapping[str, Any]) -> list[str]:
    from tunelm.routes import KINDS as ROUTES  # the table alone, no route's code

    elsewhere = "endpoint" in detail
    found = {ROUTES[route.kind].extra}
    if route.kind in ANSWERS_HERE and not elsewhere:
        found.add("local")
    if route.kind == "baseline" and elsewhere:
        found.discard("local")
    if route.kind == "hybrid":
        found |= {"prompt", "cloud"} if settings.get("weights") == "cloud" else {"prompt"}
    if settings.get("generator") == "prompt":
        found.add("prompt")
    return sorted(found - {""})


def _changed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """By a field's name; a section within the settings is one of them."""
    fields = KINDS[settings["kind"]].model_fields
    changed: dict[str, Any] = {}
    for name, value in settings.items():
        if name == "kind" or name not in fields:
            continue
        field = fields[name]
        usual = None if field.is_required() else field.get_default(call_default_factory=True)
        if _plain(value) != _plain(usual):
            changed[name] = value
    return changed


def _plain(value: Any) -> Any:
    dump = getattr(value, "model_dump_json", None)
    return json.loads(dump() if dump else json.dumps(value, default=str))


def _seconds(run: Path, route: RouteRun) -> float | None:
    total = 0.0
    for seed in route.seeds:
        folder = run / "routes" / route.name / f"seed-{seed.seed}"
        measured = seed.fit.get("measured", {}).get("seconds_fit")
        found = measured or read_json(folder / "seconds_fit.json", {})
        if found.get("value") is None:
            return None
        total += found["value"]
    return total if route.seeds else None


def _calls(route: RouteRun) -> int | None:
    counts = [(seed.detail.get("calls") or {}).get("made") for seed in route.finished]
    known = [count for count in counts if count is not None]
    return sum(known) if known and len(known) == len(counts) else None


def lost_calls(run: Path) -> Mapping[str, int]:
    """By route, the paid calls of which nobody said what they took, by the ledger."""
    opened: dict[str, str] = {}
    path = run / "spending.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue  # cut short by a kill; what was opened before stands
        if "worst" in row:
            opened[row["id"]] = str(row.get("route"))
        elif row.get("usd") is not None:
            opened.pop(row["id"], None)
    return Counter(opened.values())


def _learned(run: Run, route: RouteRun, detail: Mapping[str, Any]) -> Taken:
    """What was learned from; of a route that did not finish nothing is known."""
    part: Mapping[str, Any] = detail.get("weights") or detail.get("generator") or detail
    search: Mapping[str, Any] = detail.get("search") or part
    counted: Mapping[str, Any] = detail.get("measured", {}).get("trainable_parameters") or {}
    stage = detail.get("chosen") if route.kind == "hybrid" else None
    own: Mapping[str, Any] = (detail.get("rows") or {}).get("train") or {}
    found: Taken = {
        "rows": part.get("train_rows"),
        "asked": own.get("asked") if own.get("calls") else None,
        "pool": search.get("pool_rows"),
        "examples": len(search["demos"]) if "demos" in search and stage is None else None,
        "candidates": len(search["candidates"]) if search.get("candidates") else None,
        "passages": detail.get("passages"),
        "trained": part.get("trainable_parameters", counted.get("value")),
        "student": detail.get("student"),
        "stage": stage,
    }
    if not route.finished:
        return found
    searches = route.kind == "rag" and not detail.get("generator") and not detail.get("tuning")
    if route.kind in NO_ROWS or searches:
        found["rows"] = 0
    elif found["rows"] is None and route.kind in ALL_ROWS:
        found["rows"] = run.split["parts"]["train"]["rows"]
    return found
