"""From a run's files to the facts that its costs are reckoned from.

Reads report.json, the answers on the test rows, what each route says of its endpoint, and the
ledger of what was spent. Nothing here depends on assumptions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from tunelm.errors import ConfigError, RunDirError
from tunelm.planning.answered import answered_rows, pass_limit
from tunelm.planning.facts import (
    MACHINE,
    WITHOUT_MODEL,
    RouteFacts,
    RunFacts,
    Spent,
)
from tunelm.planning.listed import Listing, as_if_hosted, hosted, shutdown_of
from tunelm.rundir import SCHEMA_VERSION, read_json

LEARNING = ("prompt", "rag", "local", "cloud", "hybrid", "distill", "classifier", "nearest")
"""Kinds that learn from train rows."""
_ITEMS = {
    "train": "training",
    "optimize": "optimizer calls",
    "propose": "optimizer calls",
    "trace": "optimizer calls",
    "check": "optimizer calls",
    "teach": "teacher's answers",
}
EVALUATION, JUDGE, OTHER = "evaluation", "judge calls", "other calls"
ITEMS = ("training", "optimizer calls", "teacher's answers", OTHER, EVALUATION, JUDGE)
"""What is paid once, in the order of tables."""

_KEYS = frozenset(
    ("task", "metrics", "split", "routes", "conversations", "created", "base", "baseline", "winner")
)

Report = Mapping[str, Any]


def read_facts(
    run: Path, today: date, price_as: str | None = None, pass_at: float | None = None
) -> RunFacts:
    """The facts of a finished run.

    Args:
        run: its folder.
        today: on which list prices are looked up.
        price_as: PROVIDER/MODEL whose list prices stand in for this machine.
        pass_at: from which value on a row passes, where the metric is no 0/1 share.

    Raises:
        RunDirError: no run, or one without a report.
        ConfigError: `price_as` names nothing in the price list.
    """
    report = _report(run)
    metric = report["task"]["primary_metric"]
    talks = report["conversations"]
    of_talks = talks is not None and report["metrics"][metric]["of"] == "conversations"
    made = date.fromisoformat(str(report["created"])[:10])
    lost, other = _ledger(run / "spending.jsonl", [r["name"] for r in report["routes"]])
    reader = _Reader(run, report, made, today, price_as, pass_at)
    routes = [reader.route(r, lost.get(r["name"], (0, 0.0))) for r in report["routes"]]
    return RunFacts(
        path=str(run),
        task=report["task"]["name"],
        unit="conversation" if talks else "answer",
        metric=metric,
        n=_count(report, metric, of_talks),
        made=made,
        routes=tuple(routes),
        best=report["metrics"][metric]["scale"],
        winner=report["winner"]["name"],
        other_calls=other[0],
        other_usd=other[1],
    )


def _report(run: Path) -> Report:
    if not (run / "config.json").is_file():
        raise RunDirError(f"{run}: no run there (no config.json). Give the folder of a run.")
    if not (run / "report.json").is_file():
        raise RunDirError(
            f"{run}: has no report.json. Finish the run (tunelm compare --resume --out {run}), or "
            f"write its report: tunelm report {run}"
        )
    try:
        report = read_json(run / "report.json")
        version = report["schema_version"]
        missing = _KEYS - report.keys()
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RunDirError(f"{run}/report.json: no report. Write it: tunelm report {run}") from None
    if version != SCHEMA_VERSION:
        raise RunDirError(
            f"{run}/report.json: schema version {version}, this tunelm reads {SCHEMA_VERSION}. "
            f"Write it again: tunelm report {run}"
        )
    if missing:
        raise RunDirError(
            f"{run}/report.json: has no {', '.join(sorted(missing))}, so an older tunelm wrote it. "
            f"Write it again: tunelm report {run}"
        )
    return report


def _count(report: Report, metric: str, of_talks: bool) -> int:
    if not of_talks:
        return int(report["split"]["test"]["rows"])
    return max((its["n"] for its in report["conversations"]["routes"].values()), default=0)


class _Reader:
    """Reads one route after the other of a run."""

    def __init__(
        self,
        run: Path,
        report: Report,
        made: date,
        today: date,
        price_as: str | None,
        pass_at: float | None,
    ) -> None:
        self.run, self.report, self.made, self.today = run, report, made, today
        self.price_as, self.limit = price_as, pass_limit(run, report, pass_at)

    def route(self, route: Mapping[str, Any], lost: tuple[int, float]) -> RouteFacts:
        """The facts of one route of the report."""
        seeds = [self._detail(route["name"], seed) for seed in _seed_numbers(self.run, route)]
        detail: dict[str, Any] = {k: v for d in seeds for k, v in d.items()}
        listing = self._listing(route, detail)
        done = route["status"] == "done"
        answered = answered_rows(self.run, self.report, route, self.limit) if done else None
        prompt, completion = (
            (_mean(answered.prompt), _mean(answered.completion)) if answered else (None, None)
        )
        prefix, prefix_how = self._cacheable(route, prompt, listing)
        turns = self._turns(route)
        on_machine = listing.where == MACHINE
        return RouteFacts(
            name=route["name"],
            kind=route["kind"],
            control=route["control"],
            status=route["status"],
            where=listing.where,
            as_if=listing.as_if,
            model=listing.model,
            prompt=prompt,
            completion=completion,
            cacheable=prefix,
            cacheable_how=prefix_how,
            turns=turns,
            seconds=_times(_value(route["latency"], "seconds_per_answer"), turns)
            if on_machine
            else None,
            prices=listing.prices,
            why=listing.why,
            hosting=listing.hosting,
            spent=tuple(self._spent(route, detail, listing)),
            fit_seconds=self._fit_seconds(route) if on_machine else None,
            lost_calls=lost[0],
            lost_usd=lost[1],
            learns=route["kind"] in LEARNING,
            seeds=max(1, len(seeds)),
            ends=listing.ends,
            ends_source=listing.ends_source,
            answered=answered,
            training=listing.training,
            score=(route["scores"] or {})
            .get(self.report["task"]["primary_metric"], {})
            .get("value"),
        )

    def _detail(self, name: str, seed: int) -> dict[str, Any]:
        path = self.run / "routes" / name / f"seed-{seed}" / "adapted.json"
        return read_json(path).get("detail", {}) if path.is_file() else {}

    def _listing(self, route: Mapping[str, Any], detail: Mapping[str, Any]) -> Listing:
        if route["kind"] in WITHOUT_MODEL:
            return Listing(MACHINE, "no language model", why="this machine has no list price")
        endpoint = route["endpoint"] or detail.get("endpoint")
        tuned = route["kind"] in ("local", "cloud", "hybrid", "distill")
        if endpoint is not None and not (
            endpoint.get("own") and endpoint["prices"]["usd_in"] is None
        ):
            job = detail.get("prices") or {}
            provider = route["backend"]
            found = hosted(endpoint, self.made, provider, job.get("usd_train"))
            return shutdown_of(found, endpoint, provider)
        listed = self.price_as or (detail.get("prices") or {}).get("listed")
        if listed is not None and not route["control"]:
            return as_if_hosted(listed, tuned)
        model = endpoint["model"] if endpoint else (self.report["base"] or {}).get("name")
        return Listing(MACHINE, Path(str(model)).name, why="this machine has no list price")

    def _turns(self, route: Mapping[str, Any]) -> float | None:
        talks = self.report["conversations"]
        if talks is None:
            return 1.0
        its = talks["routes"].get(route["name"])
        return None if its is None else its["teacher_turns"]

    def _cacheable(
        self, route: Mapping[str, Any], prompt: float | None, listing: Listing
    ) -> tuple[float | None, str]:
        """Tokens a unit that a cache can hold, by the provider's least prefix, and how made."""
        if prompt is None:
            return None, ""
        least = (listing.prices.least_prefix if listing.prices else None) or 0
        talks = self.report["conversations"]
        if talks is not None:
            its = talks["routes"][route["name"]]
            return _kept(its, least), "kept from turn to turn, estimated by words"
        messages: Sequence[Mapping[str, str]] = route["prompt"] or ()
        sizes = [len(message["content"]) for message in messages]
        share = sum(sizes[:-1]) / sum(sizes) if sum(sizes) else 0.0
        prefix = prompt * share
        how = "what stands before the question, estimated by characters of the first test row"
        if prefix < least:
            return 0.0, f"{how}: about {prefix:.0f} tokens, and fewer than {least:,} are not cached"
        return prefix, how

    def _spent(
        self, route: Mapping[str, Any], detail: Mapping[str, Any], listing: Listing
    ) -> list[Spent]:
        paid: Mapping[str, Any] = detail.get("paid", {})
        found: list[Spent] = []
        for phase, usage in (route["usage"] or {}).items():
            tokens = (usage["prompt_tokens"], usage["completion_tokens"])
            item = _item(phase)
            if phase in paid:
                helper = hosted(paid[phase], self.made, None, None)
                found.append(Spent(phase, item, *tokens, helper.prices, why=helper.why))
            elif listing.where == MACHINE:
                found.append(Spent(phase, item, *tokens, on_machine=True))
            elif phase == "train":
                why = "" if listing.usd_train is not None else "no price of training is known"
                found.append(Spent(phase, item, *tokens, usd_train=listing.usd_train, why=why))
            else:
                found.append(Spent(phase, item, *tokens, listing.prices, why=listing.why))
        return found

    def _fit_seconds(self, route: Mapping[str, Any]) -> float | None:
        """Over all seeds that have a record, those of failed ones too."""
        total = 0.0
        for seed in _seed_numbers(self.run, route):
            fit = read_json(self.run / "routes" / route["name"] / f"seed-{seed}" / "fit.json", {})
            seconds = _value(fit.get("measured") or {}, "seconds_fit")
            if seconds is None:
                return None
            total += seconds
        return total


def _seed_numbers(run: Path, route: Mapping[str, Any]) -> list[int]:
    folder = run / "routes" / route["name"]
    return sorted(int(p.name.removeprefix("seed-")) for p in folder.glob("seed-*") if p.is_dir())


def _item(phase: str) -> str:
    if phase.startswith("evaluate"):
        return EVALUATION
    if phase.startswith("judge"):
        return JUDGE
    return _ITEMS.get(phase, OTHER)


def _kept(its: Mapping[str, Any], least: int) -> float | None:
    """Kept tokens of a conversation, without the turns whose kept part is below the least."""
    kept, turns = its["kept_tokens"], its["prompt_by_turn"]
    if kept is None or None in turns:
        return None
    before: list[float] = turns[:-1]  # what stood there a turn before is at most its prompt
    if not sum(before):
        return 0.0
    return kept * sum(n for n in before if n >= least) / sum(before)


def _ledger(
    path: Path, routes: Sequence[str]
) -> tuple[dict[str, tuple[int, float]], tuple[int, float]]:
    """By route, calls whose cost nobody reported and their worst case; and calls of no route."""
    opened: dict[str, dict[str, Any]] = {}
    usd: dict[str, float] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue  # cut short by a kill: the call was not made, or its worst case stands
        if "worst" in row:
            opened[row["id"]] = row
        elif row.get("usd") is not None:
            usd[row["id"]] = float(row["usd"])
    lost: dict[str, tuple[int, float]] = {}
    calls, other = 0, 0.0
    for name, row in opened.items():
        cost = usd.get(name, float(row["worst"]))
        if row.get("route") not in routes:
            calls, other = calls + 1, other + cost
        elif name not in usd:
            count, sum_ = lost.get(row["route"], (0, 0.0))
            lost[row["route"]] = (count + 1, sum_ + cost)
    return lost, (calls, other)


def _mean(values: Any) -> float | None:
    """The mean; None where there is nothing, or something that is not known."""
    return float(values.mean()) if values.size and not np.isnan(values).any() else None


def _value(quantities: Mapping[str, Any] | None, name: str) -> float | None:
    found = (quantities or {}).get(name)
    return None if found is None else found["value"]


def _times(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a * b


def check_unit(facts: RunFacts, requests: bool, conversations: bool, batch: bool) -> None:
    """Refuse a volume in a unit that the task does not have, and conversations in batches.

    Raises ConfigError.
    """
    if facts.unit == "conversation":
        if requests:
            raise ConfigError(
                f"the task {facts.task} is of conversations: give --conversations-a-month, not "
                "--requests-a-month."
            )
        if batch:
            raise ConfigError(
                "--batch is for single answers: a conversation waits for each of its turns."
            )
    elif conversations:
        raise ConfigError(
            f"the task {facts.task} has single answers: give --requests-a-month, not "
            "--conversations-a-month."
        )
