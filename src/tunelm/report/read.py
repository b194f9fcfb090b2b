"""Reads the files of a run directory, as they stand, into a few plain records."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from tunelm.errors import RunDirError
from tunelm.judging.carried_out import FOLDER, KEPT, UNKNOWN
from tunelm.rundir import SCHEMA_VERSION, read_json
from tunelm.scoring.continuation import as_continuation
from tunelm.scoring.dialogue_metrics import TALKS
from tunelm.scoring.metric import Metric
from tunelm.scoring.metrics import metrics_for
from tunelm.types import Example, Prediction

EVALUATED = ("dev", "test")
"""The parts on which every route answers."""

TALKS_FILE = "talks.jsonl"
"""The conversations that every route of a task of dialogues holds, with their parts."""

NEUTRAL = "neutral"
"""The texts on which a text task's routes are scored too, to see what was forgotten."""


@dataclass(frozen=True)
class SeedRun:
    """What one route left behind under one seed. `fit` is empty where the run was cut short."""

    seed: int
    fit: Mapping[str, Any]
    plan: Mapping[str, Any]
    detail: Mapping[str, Any]
    scores: Mapping[str, Any]
    prompt: list[dict[str, str]] | None
    predictions: Mapping[str, list[Prediction]]

    @property
    def done(self) -> bool:
        """Whether it was fitted and evaluated to the end."""
        return self.fit.get("status") == "done"

    @cached_property
    def by_example(self) -> dict[str, dict[str, Prediction]]:
        """{part: {example id: its prediction}}."""
        return {part: {p.example_id: p for p in rows} for part, rows in self.predictions.items()}

    @cached_property
    def outputs(self) -> dict[str, dict[str, str | None]]:
        """{part: {example id: output, None where it failed}}."""
        return {
            part: {i: p.output for i, p in rows.items()} for part, rows in self.by_example.items()
        }


@dataclass(frozen=True)
class RouteRun:
    """One route under all its seeds."""

    name: str
    kind: str
    control: bool
    seeds: tuple[SeedRun, ...]
    parity_of: str | None = None
    """The route that this one does over again in another way, to see that both agree."""

    @property
    def finished(self) -> tuple[SeedRun, ...]:
        """The seeds that were fitted and evaluated."""
        return tuple(seed for seed in self.seeds if seed.done)

    @property
    def backend(self) -> str | None:
        """Where a job of fine-tuning ran; `local` is this machine. None: there was no such job."""
        return next(
            (seed.detail["backend"] for seed in self.seeds if "backend" in seed.detail), None
        )

    @property
    def status(self) -> str:
        """done, failed, unfinished or not run. Done needs one finished seed."""
        if self.finished:
            return "done"
        if any(seed.fit.get("status") == "failed" for seed in self.seeds):
            return "failed"
        return "unfinished" if self.seeds else "not run"

    @property
    def reason(self) -> str | None:
        """Why seeds are missing; None when none is."""
        if not self.seeds:
            return "the run stopped before it; take it up again with --resume"
        reasons = {
            seed.seed: seed.fit.get("reason") or "not run to its end; go on with --resume"
            for seed in self.seeds
            if not seed.done
        }
        if len(self.seeds) == 1:
            return next(iter(reasons.values()), None)
        return "; ".join(f"seed {k}: {why}" for k, why in reasons.items()) or None


@dataclass(frozen=True)
class Run:
    """A run directory's content."""

    path: Path
    config: Mapping[str, Any]
    split: Mapping[str, Any]
    parts: Mapping[str, list[Example]]
    ledger: Mapping[str, int]
    lines: int | None
    """Lines of running text that were kept; None where the rows are no texts."""
    routes: tuple[RouteRun, ...] = field(default=())
    judges: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """By metric: `agreement` with people's labels, `rows` and `groups` of the judge behind it; or
    `unknown`, why there is none."""

    @property
    def task(self) -> dict[str, Any]:
        """The `[task]` section."""
        return self.config["config"]["task"]

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """The metrics of this kind of task."""
        rows = [e for part in EVALUATED for e in self.parts[part]]
        found = metrics_for(self.task["kind"], rows, self.task.get("checks"))
        return {n: m for n, m in found.items() if self.part_of(m, "test") in self.parts}

    def part_of(self, metric: Metric, part: str) -> str:
        """The part that dev or test stands for where this metric scores it."""
        return part + TALKS * metric.of_conversations

    @property
    def primary(self) -> str:
        """The name of the primary metric."""
        return self.config["config"]["compare"]["primary_metric"]


def read_run(path: Path) -> Run:
    """Everything a report needs.

    Raises RunDirError where `path` is no run, another version's, or stopped too early.
    """
    if not (path / "config.json").is_file():
        raise RunDirError(f"{path}: no run there (no config.json). Give the folder of a run.")
    config = cast(dict[str, Any], read_json(path / "config.json"))
    if config.get("schema_version") != SCHEMA_VERSION:
        raise RunDirError(
            f"{path}: written with schema version {config.get('schema_version')}, this tunelm "
            f"reads {SCHEMA_VERSION}. Report it with the tunelm it was made with."
        )
    for name in ("split.json", "rows.jsonl"):
        if not (path / name).is_file():
            raise RunDirError(
                f"{path}: has no {name}, so the run stopped before its rows were split. "
                "Take it up again with --resume."
            )
    split = cast(dict[str, Any], read_json(path / "split.json"))
    parts, ledger, lines = _rows(path / "rows.jsonl", split)
    parts |= _talks(path / TALKS_FILE)
    names = config["config"]["compare"]["routes"]
    routes = [_route(path, name, config["config"]["routes"][name]) for name in names]
    found = _with_parity(routes)
    return Run(path, config, split, parts, ledger, lines or None, found, _judges(path))


def read_parts(path: Path) -> dict[str, list[Example]]:
    """The rows that every route of a run answers, and its conversations, by part."""
    return _rows(path / "rows.jsonl", read_json(path / "split.json"))[0] | _talks(path / TALKS_FILE)


def _with_parity(routes: Sequence[RouteRun]) -> tuple[RouteRun, ...]:
    """The routes; a job of fine-tuning on this machine is a parity check of a route `local`."""
    peers = [r.name for r in routes if r.kind == "local" and not r.control and r.finished]
    peer = peers[0] if peers else None
    return tuple(
        dataclasses.replace(route, parity_of=peer) if route.backend == "local" else route
        for route in routes
    )


def _rows(
    path: Path, split: Mapping[str, Any]
) -> tuple[dict[str, list[Example]], dict[str, int], int]:
    """The rows of each evaluated part in the split's order, how many rows had each status, and
    the lines of running text among those kept.
    """  # noqa: D205
    wanted = {i: part for part in EVALUATED for i in split["parts"][part]["ids"]}
    found: dict[str, Example] = {}
    ledger: Counter[str] = Counter()
    lines = 0
    with path.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            ledger[row["status"]] += 1
            example = row["example"]
            if example and not example["messages"]:
                lines += example["answers"][0].count("\n") + 1
            if example and row["part"] == wanted.get(example["id"], ""):
                found[example["id"]] = as_continuation(Example.from_json(example))
    missing = [i for i in wanted if i not in found]
    if missing:
        raise RunDirError(
            f"{path}: {len(missing)} rows of split.json are not in it, the first: {missing[0]}. "
            "The files of this run do not belong together."
        )
    parts = {part: [found[i] for i in split["parts"][part]["ids"]] for part in EVALUATED}
    return parts, dict(ledger), lines


def _judges(path: Path) -> dict[str, Any]:
    """The judges of a run, by the metric they are behind."""
    about = _optional(path / FOLDER / "judge.json")
    if about:
        kept = {key: about[key] for key in ("agreement", "rows", "groups")}
        return {KEPT: kept}
    return {name: {"unknown": why} for name, why in _optional(path / UNKNOWN).items()}


def _talks(path: Path) -> dict[str, list[Example]]:
    """The conversations by part; none where the task has none."""
    found: dict[str, list[Example]] = {}
    for line in path.read_text(encoding="utf-8").split("\n")[:-1] if path.is_file() else ():
        row = json.loads(line)
        found.setdefault(row["part"], []).append(Example.from_json(row["example"]))
    return found


def _route(run: Path, name: str, settings: Mapping[str, Any]) -> RouteRun:
    folder = run / "routes" / name
    numbers = sorted(int(p.name.removeprefix("seed-")) for p in folder.glob("seed-*") if p.is_dir())
    seeds = tuple(_seed(folder / f"seed-{number}", number) for number in numbers)
    control = settings["kind"] == "constant" or bool(settings.get("shuffle_answers"))
    return RouteRun(name, settings["kind"], control, seeds)


def _seed(folder: Path, number: int) -> SeedRun:
    talks = [f"{part}{TALKS}" for part in EVALUATED]
    predictions: dict[str, list[Prediction]] = {p: [] for p in (*EVALUATED, *talks, NEUTRAL)}
    path = folder / "predictions.jsonl"
    if path.is_file():
        with path.open(encoding="utf-8") as file:  # outputs may hold what splitlines splits at
            for line in file:
                row = Prediction.from_json(json.loads(line))
                predictions[row.part].append(row)
    return SeedRun(
        number,
        _optional(folder / "fit.json"),
        _optional(folder / "plan.json"),
        _optional(folder / "adapted.json").get("detail", {}),
        _optional(folder / "scores.json").get("parts", {}),
        _optional(folder / "prompt.json").get("messages"),
        predictions,
    )


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
