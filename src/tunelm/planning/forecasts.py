"""What a route is expected to need on this machine, and the file that carries it into a run.

`forecast_route` is a route's own plan; of the route `local` also its peak memory, by a dry run on
the model's shape, and its time, by a few real steps. `tunelm plan` writes what it found to a file
that the task file names as `compare.forecasts`; `tunelm compare` puts it into the run's plan.json,
where it is held against what was measured.
"""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunelm.config import Config, ModelConfig
from tunelm.data.split import Split
from tunelm.errors import ConfigError, TunelmError
from tunelm.models import remote_base
from tunelm.models.loading import resolve_base
from tunelm.routes import make_route
from tunelm.routes.base import FitContext
from tunelm.routes.local import LocalRoute
from tunelm.rundir import write_json
from tunelm.scoring.metrics import metric_to_fit
from tunelm.types import Estimate, Plan

SCHEMA_VERSION = 1
_NOT_ASKED = "unknown: nothing was timed; tunelm plan --probe times a few steps"
_NOT_MADE = "unknown: forecast for routes of kind local alone"
"""Where a route's own plan sends to tunelm plan, and this is it."""


def forecast_route(
    config: Config, name: str, split: Split, *, probe: bool = False
) -> dict[str, Estimate]:
    """What a route will need, by the names its plan uses; nothing is trained and nothing spent.

    Args:
        config: the task.
        name: one of its routes.
        split: its rows; test rows are not looked at.
        probe: time a few training steps, which takes up to some minutes.

    Raises:
        TunelmError: as the route's own `plan`.
    """
    route = make_route(config.routes[name])
    with tempfile.TemporaryDirectory() as folder:
        ctx = FitContext(
            name=name,
            task=config.task,
            model=config.model,
            metric=metric_to_fit(config.compare.primary_metric),
            train=split.train,
            dev=split.dev,
            work=Path(folder),
            seed=config.compare.seeds[0],
            corpus=config.data.corpus,
            budget=config.budget,
        )
        found = dict(route.plan(ctx).forecasts)
        if isinstance(route, LocalRoute) and remote_base(config.model) is None:
            found |= forecast_local(route, ctx, probe=probe)
        return {
            what: dataclasses.replace(each, method=_NOT_MADE)
            if each.method.startswith("unknown: tunelm plan")
            else each
            for what, each in found.items()
        }


def forecast_local(route: LocalRoute, ctx: FitContext, *, probe: bool) -> dict[str, Estimate]:
    """Peak memory, seconds and the weights' size of training `route`; unknown with the reason.

    `ctx.work` takes the files of the job that is looked at.
    """
    from tunelm.models.loading import require_torch
    from tunelm.training.job import write_job
    from tunelm.training.memory import dry_run, memory_estimate
    from tunelm.training.timing import time_estimate, time_probe

    found = {"weight_bytes": weight_bytes(ctx.model)}
    if (route.settings.processes or 1) > 1:
        reason = f"unknown: {route.settings.processes} processes train together; only one is tried"
        unknown = {"peak_memory_bytes": "bytes", "seconds": "s"}
        return found | {name: Estimate(None, unit, reason) for name, unit in unknown.items()}
    job, train, dev = route.job(ctx)
    write_job(ctx.work, job, train, dev)
    try:
        require_torch()
        found["peak_memory_bytes"] = memory_estimate(dry_run(ctx.work))
    except TunelmError as error:
        found["peak_memory_bytes"] = Estimate(None, "bytes", f"unknown: {error}")
    if not probe:
        return found | {"seconds": Estimate(None, "s", _NOT_ASKED)}
    try:
        found["seconds"] = time_estimate(time_probe(ctx.work), job)
    except TunelmError as error:
        found["seconds"] = Estimate(None, "s", f"unknown: {error}")
    return found


def weight_bytes(model: ModelConfig) -> Estimate:
    """The bytes of a base model's weights as they are stored; headers are read, no weights."""
    from tunelm.models.identity import base_folder

    try:
        folder = base_folder(resolve_base(model), model.revision)
    except TunelmError as error:
        return Estimate(None, "bytes", f"unknown: {error}")
    sizes = [_tensor_bytes(path) for path in sorted(folder.glob("model*.safetensors"))]
    if not sizes:
        return Estimate(None, "bytes", f"unknown: {folder} holds no model*.safetensors")
    return Estimate(sum(sizes), "bytes", "exact: safetensors headers", sum(sizes), sum(sizes))


def _tensor_bytes(path: Path) -> int:
    """Of all tensors in a safetensors file: its header says where each begins and ends.

    The format: 8 bytes with the header's length, little-endian, then the header as JSON.
    """
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    spans = [entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"]
    return sum(end - start for start, end in spans)


def write_forecasts(
    path: Path, config: Config, found: Mapping[str, Mapping[str, Estimate]]
) -> None:
    """Write the forecasts of some routes, with digests of what they were made for."""
    routes = {
        name: {
            "digest": config.route_digest(name),
            "forecasts": {key: dataclasses.asdict(each) for key, each in forecasts.items()},
        }
        for name, forecasts in found.items()
    }
    shared = config.shared_digest()
    write_json(path, {"schema_version": SCHEMA_VERSION, "shared": shared, "routes": routes})


def read_forecasts(config: Config) -> dict[str, Any]:
    """The file that `compare.forecasts` names; empty where none is named.

    Raises:
        ConfigError: it cannot be read, or is no file of forecasts.
    """
    path = config.compare.forecasts
    if path is None:
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema version {found['schema_version']}, not {SCHEMA_VERSION}")
        for each in found["routes"].values():
            _estimates(each["forecasts"])
        return {"shared": found["shared"], "routes": found["routes"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"compare.forecasts = {str(path)!r} is no file of forecasts: {error}. `tunelm plan` "
            "writes one; or take the line out."
        ) from None


def with_forecasts(plan: Plan, config: Config) -> Plan:
    """A route's plan with what the task's file of forecasts says of it, where that is more.

    A forecast of other rows or settings is left out, and the plan says so.
    """
    said = read_forecasts(config)
    mine = said.get("routes", {}).get(plan.route)
    if mine is None:
        return plan
    same = said["shared"] == config.shared_digest()
    if not same or mine["digest"] != config.route_digest(plan.route):
        what = "route" if same else "task, rows or base model"
        left = f"the forecasts of {config.compare.forecasts} are of another {what}, and left out"
        return dataclasses.replace(plan, notes=(*plan.notes, left))
    known = {n: e for n, e in _estimates(mine["forecasts"]).items() if e.value is not None}
    return dataclasses.replace(plan, forecasts={**plan.forecasts, **known})


def _estimates(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Estimate]:
    made = {name: Estimate(**fields) for name, fields in found.items()}
    numbers = [x for e in made.values() for x in (e.value, e.low, e.high) if x is not None]
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError("a forecast that is no number")
    return made
