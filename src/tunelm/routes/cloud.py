"""Route `cloud`: the OpenAI fine-tuning protocol, by the official SDK, to a named provider.

By default the provider is `tunelm serve` on this machine, started for the job: then the result is
an adapter, opened as the route `local` opens its own, and a parity check of that route rather than
a hosted model. Nothing is sent elsewhere before the rows, the dates and the money are checked, and
whatever happens there is one job.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from tunelm.config import ModelConfig
from tunelm.errors import ModelError, RunDirError
from tunelm.models import open_model
from tunelm.models.address import parse_address
from tunelm.models.base import ChatModel
from tunelm.models.budget import Wallet
from tunelm.models.prompted import PromptedModel
from tunelm.route_settings import CloudSettings
from tunelm.routes.base import FitContext
from tunelm.routes.cloud_job import RECORD, Watch, run_job
from tunelm.routes.cloud_place import (
    LOCAL,
    Place,
    check_money,
    local_settings,
    place_of,
    price_training,
    prices_as_json,
)
from tunelm.routes.cloud_rows import chat, check_rows, count_tokens, write_rows
from tunelm.routes.finetune_client import FineTuneClient, Job, Order
from tunelm.routes.finetune_server import LocalServer
from tunelm.routes.finetune_wire import Patience, Wire
from tunelm.rundir import read_json, write_json
from tunelm.training.job import replace_folder
from tunelm.types import Adapted, Estimate, Plan, Usage

RESULT = "job.json"
"""The file beside an adapter that says which job made it."""
MARKED = "azure"
"""The provider whose training files begin with a byte order mark."""
ELSEWHERE = "unknown: it was trained at its provider, which does not say"


class CloudRoute:
    """A fine-tuning job at a provider. Needs the extra `cloud`, and `local` also `local,serve`.

    `wallet` pays for it; None: one in which nothing may be spent.
    """

    kind = "cloud"
    needs: tuple[str, ...] = ()

    def __init__(self, settings: CloudSettings, wallet: Wallet | None = None) -> None:
        self.settings = settings
        self.wallet = wallet or Wallet()

    def plan(self, ctx: FitContext) -> Plan:
        """Tokens and money; nothing is sent, and no server is started.

        Raises ConfigError where the job cannot be, or ends too soon to be worth it.
        """
        place = place_of(self.settings, ctx.model)
        notes = [*_notes(place), *self._dates(place)]
        forecasts = self._forecasts(ctx, place)
        unknown = "unknown: depends on the provider; nothing was asked"
        forecasts.setdefault("seconds", Estimate(None, "s", unknown))
        return Plan(ctx.name, self.kind, forecasts, tuple(notes))

    def fit(self, ctx: FitContext) -> Adapted:
        """Have the one job of these rows, settings and seed done, and bring its result home.

        A finished result is returned as it is; a killed run takes up the job that is there.

        Raises:
            ConfigError: the provider, its dates or its settings do not allow it.
            BudgetError: it may cost money, and that was not allowed or cannot be capped.
            DataError: rows that the provider would refuse, with their lines.
            TrainingError: the job failed, was cancelled, or nobody answers.
            RunDirError: the folder holds the result of something else.
        """
        place = place_of(self.settings, ctx.model)
        order = self._order(ctx, place)
        folder, made_from = ctx.work / "adapted", f"{place.backend} {order.key}"
        if not (folder / RESULT).is_file():
            if not read_json(ctx.work / "job" / RECORD, {}).get("sent"):
                self._dates(place)  # a job that is there already goes on all the same
            training = self._forecasts(ctx, place)["usd"]
            check_money(place, ctx.budget, training)
            with self._client(ctx, place) as (client, server):
                watch = Watch(ctx, client, place, training)
                # somebody else's list price takes nothing out of the wallet
                worst = (training.high or 0.0) if place.charges else 0.0
                job = run_job(self.wallet, order, watch, worst)
                watch.fetch_results(job)
                self._deliver(ctx, made_from, job, watch, server)
            shutil.rmtree(ctx.work / "server", ignore_errors=True)  # was only needed to go on
        result = read_json(folder / RESULT)
        if result["made_from"] != made_from:
            raise RunDirError(
                f"{folder} holds what was made with other rows, settings or seed. Give the route "
                "an empty folder."
            )
        return self._adapted(ctx, place, folder, result)

    def open(self, adapted: Adapted) -> ChatModel:
        """The fine-tuned model behind the prompt it was trained with.

        Raises:
            ModelError: its base is another one, or its provider wants it deployed first.
            BudgetError: it charges, and the wallet does not allow that.
        """
        if adapted.detail["backend"] == LOCAL:
            config = ModelConfig.model_validate(adapted.base["config"])
            return PromptedModel(open_model(config, Path(adapted.folder)), adapted.system)
        from tunelm.models.remote import open_adapted

        endpoint = adapted.detail["endpoint"]
        if endpoint["model"] is None:
            raise ModelError(
                f"{endpoint['fine_tuned_model']} at {adapted.detail['backend']} answers only once "
                "it is deployed there (which may be billed by the hour). Deploy it, set deployment "
                "to the name of the deployment in the route's section, and go on with --resume."
            )
        return open_adapted(adapted, self.wallet)

    # --- before -----------------------------------------------------------------------------------

    def _order(self, ctx: FitContext, place: Place) -> Order:
        """The job's files, written and checked, and its settings."""
        work = ctx.work / "job"
        work.mkdir(parents=True, exist_ok=True)
        marked = place.provider.name == MARKED
        for name, rows in (("train", ctx.train), ("valid", ctx.dev)):
            chats = [chat(row, ctx.task.instructions) for row in rows]
            write_rows(work / f"{name}.jsonl", chats, marked)
        check_rows(work / "train.jsonl", place.provider.min_examples)
        if ctx.dev:
            check_rows(work / "valid.jsonl", None)
        name = re.sub(r"[^a-z0-9-]+", "-", ctx.task.name.lower())[:40].strip("-")
        return Order(
            model=place.model,
            train=work / "train.jsonl",
            valid=work / "valid.jsonl" if ctx.dev else None,
            hyperparameters=place.hyperparameters,
            seed=ctx.seed,
            suffix=self.settings.suffix or name or "tunelm",
            metadata=place.provider.metadata is not False,
        )

    def _dates(self, place: Place) -> tuple[str, ...]:
        """What to know before spending; ConfigError where the job cannot or should not be."""
        from tunelm.providers import check

        if place.address is None:
            return ()
        accepted = self.settings.accept_shutdown
        return check(place.provider.name, place.model, date.today(), accepted)

    def _forecasts(self, ctx: FitContext, place: Place) -> dict[str, Estimate]:
        if place.address is None:
            return _local_forecasts(ctx, place)
        rows = [chat(row, ctx.task.instructions) for row in ctx.train]
        counts, why_not, margin = count_tokens(rows, place.model)
        return {
            "train_tokens": _tokens(counts, why_not, margin, place.epochs()),
            "usd": price_training(place, counts, why_not, margin),
        }

    # --- the job ----------------------------------------------------------------------------------

    @contextmanager
    def _client(
        self, ctx: FitContext, place: Place
    ) -> Generator[tuple[FineTuneClient, LocalServer | None]]:
        def tell(text: str) -> None:
            ctx.progress(text, 0, 1)

        poll = self.settings.poll_s or (0.5 if place.own else 10.0)
        patience = Patience(poll=poll, job=self.settings.timeout_s)
        if place.address is not None:
            with Wire(place.address, place.variable, patience, tell) as wire:
                yield FineTuneClient(wire), None
            return
        tell("starting tunelm serve")
        with LocalServer(ctx.model, ctx.work / "server") as server:
            address = parse_address(server.url)
            with Wire(address, None, patience, tell, server.revive) as wire:
                yield FineTuneClient(wire), server

    # --- after ------------------------------------------------------------------------------------

    def _deliver(
        self, ctx: FitContext, made_from: str, job: Job, watch: Watch, server: LocalServer | None
    ) -> None:
        """Put the result, and the record of its job, in its place."""
        part = ctx.work / "adapted.part"
        shutil.rmtree(part, ignore_errors=True)
        if server is not None:
            shutil.copytree(server.adapter(job.id), part)
            card = read_json(part / "tunelm.json")
            write_json(part / "tunelm.json", {**card, "system": ctx.task.instructions})
        part.mkdir(exist_ok=True)
        write_json(
            part / RESULT,
            {
                "made_from": made_from,
                "id": job.id,
                "model": watch.place.model,
                "fine_tuned_model": job.fine_tuned_model,
                "hyperparameters": job.hyperparameters,
                "seed": ctx.seed,
                "trained_tokens": job.trained_tokens,
                "step": watch.step,
                "said": dict(job.said),
            },
        )
        replace_folder(part, ctx.work / "adapted")

    def _adapted(
        self, ctx: FitContext, place: Place, folder: Path, result: Mapping[str, Any]
    ) -> Adapted:
        detail: dict[str, Any] = {
            "backend": place.backend,
            "route": ctx.name,
            "job": {k: v for k, v in result.items() if k not in ("made_from", "said")},
            "step": result["step"],
            "prices": prices_as_json(place),
            "measured": _measured(place, folder),
        }
        base: dict[str, Any] = {}
        if place.address is None:
            card = read_json(folder / "tunelm.json")
            config = json.loads(ctx.model.model_dump_json())
            base = {"config": config, "identity": card["identity"]}
        else:
            answers_at_once = place.provider.serves is not False
            name = result["fine_tuned_model"] if answers_at_once else None
            detail["endpoint"] = {
                "model": self.settings.deployment or name,
                "fine_tuned_model": result["fine_tuned_model"],
                "base_url": place.address.url,
                "own": place.own,
                "api_key_env": place.variable,
                "prices": dataclasses.asdict(place.answers),
            }
        usage = {"train": Usage(result["trained_tokens"], 0, 0)}
        return Adapted(self.kind, str(folder), base, ctx.task.instructions, detail, usage)


def _local_forecasts(ctx: FitContext, place: Place) -> dict[str, Estimate]:
    """What the route `local` forecasts for the same settings: the server trains the same way."""
    from tunelm.routes.local import LocalRoute

    settings = local_settings(place, len(ctx.train))
    forecasts = dict(LocalRoute(settings).plan(ctx).forecasts)
    tokens = forecasts["train_tokens"].value
    epochs = int(settings.epochs)
    rows = None if tokens is None else [round(tokens / epochs)]
    once = dataclasses.replace(place, hyperparameters={**place.hyperparameters, "n_epochs": epochs})
    forecasts["usd"] = price_training(once, rows, "the tokens were not counted", 0.0)
    return forecasts


def _tokens(counts: list[int] | None, why_not: str, margin: float, epochs: int | None) -> Estimate:
    if counts is None or epochs is None:
        reason = why_not or "the provider chooses the number of epochs"
        return Estimate(None, "tokens", f"unknown: {reason}")
    total = sum(counts) * epochs
    how = f"formula: tokens of OpenAI's vocabulary x {epochs} epochs"
    return Estimate(total, "tokens", how, total * (1 - margin), total * (1 + margin))


def _notes(place: Place) -> list[str]:
    if place.address is None:
        notes = ["trained on this machine by tunelm serve: a parity check of the route local"]
        if place.listed:
            notes.append(f"usd is the list price of {place.listed} x these tokens: not a bill")
        return notes
    notes = [f"the train and dev rows are sent to {place.address.url}, later the test questions"]
    if place.charges:
        notes.append("it may charge: needs --spend, its prices, and budget.max_usd")
    return notes


def _measured(place: Place, folder: Path) -> dict[str, Any]:
    weights = folder / "adapter_model.safetensors"
    why = "unknown: it was trained in a process of tunelm serve"
    found = {"peak_memory": Estimate(None, "bytes", why if place.address is None else ELSEWHERE)}
    if weights.is_file():
        found["adapter_bytes"] = Estimate(weights.stat().st_size, "bytes", "measured")
    return {name: dataclasses.asdict(estimate) for name, estimate in found.items()}
