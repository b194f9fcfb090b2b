"""One paid job from its order to its end: what it is charged, what it did, how far it is."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunelm.errors import RunDirError, TrainingError, TunelmError
from tunelm.models.budget import Wallet
from tunelm.routes.base import FitContext
from tunelm.routes.cloud_place import Place
from tunelm.routes.finetune_client import FineTuneClient, Job, Order, UncertainError
from tunelm.rundir import read_json, write_json
from tunelm.types import Estimate

RECORD = "job.json"
"""The file in a route's job folder that says which job is its own."""
_ENDED = {"failed": "failed", "cancelled": "was cancelled"}


class Watch:
    """Follows a job: its events into a file, its progress to who is waiting.

    Attributes:
        client: asks the provider.
        place: where it is.
        folder: the route's job folder.
        step: the last step that is known; None: none is.
    """

    def __init__(
        self, ctx: FitContext, client: FineTuneClient, place: Place, training: Estimate
    ) -> None:
        self.client, self.place = client, place
        self.folder = ctx.work / "job"
        self.step: int | None = None
        self._ctx, self._usd = ctx, training.value
        self._steps = 0
        self._seen: set[str] = set()
        self._first: tuple[float, int] | None = None

    @property
    def what(self) -> dict[str, str]:
        """For the ledger of spending."""
        return {"route": self._ctx.name, "model": self.place.model, "endpoint": self.client.url}

    @property
    def events(self) -> Path:
        """The events of the last job of this order."""
        return self.folder / f"events-{read_json(self.folder / RECORD)['attempt']}.jsonl"

    def to_the_end(self, job: Job) -> Job:
        """The job when it has ended. Ctrl-C leaves it running, and says how to come back."""
        if self.events.is_file():
            for line in self.events.read_text(encoding="utf-8").split("\n"):
                if line.startswith("{") and line.endswith("}"):  # no line that a kill cut
                    self._note(json.loads(line))
        self._first = None
        try:
            return self.client.follow(job.id, self.show)
        except KeyboardInterrupt as stopped:
            if self.place.address is not None:
                url = self.place.address.url
                stopped.add_note(
                    f"job {job.id} goes on at {url}, and is paid for; --resume attaches to it "
                    f"again. To cancel it: POST {url}/fine_tuning/jobs/{job.id}/cancel"
                )
            raise

    def show(self, job: Job) -> None:
        """Write down what is new, and say how far it is."""
        with self.events.open("a", encoding="utf-8") as file:
            for event in self.client.events(job.id, self._seen):
                file.write(json.dumps(event, ensure_ascii=False) + "\n")
                self._note(event)
        told = [text for text in (self._left(job), self._spent()) if text]
        more = f" ({', '.join(told)})" if told and not job.ended else ""
        self._ctx.progress(f"job {job.status}{more}", self.step or 0, self._steps or 1)

    def fetch_results(self, job: Job) -> None:
        """The result files, as plain text, into the work folder."""
        for number, file_id in enumerate(job.said.get("result_files") or ()):
            name = f"result-{number}.csv" if number else "result.csv"
            text = self.client.result(str(file_id))
            (self.folder / name).write_text(text, encoding="utf-8")

    def _note(self, event: Mapping[str, Any]) -> None:
        self._seen.add(str(event["id"]))
        data = event.get("data")
        fields: Mapping[str, Any] = data if isinstance(data, dict) else {}
        found = re.match(r"Step (\d+)/(\d+)", str(event.get("message")))
        step = fields.get("step", found and int(found[1]))
        steps = fields.get("total_steps", found and int(found[2]))
        if isinstance(step, int):
            self.step = max(step, self.step or 0)
            self._first = self._first or (time.monotonic(), step)
        if isinstance(steps, int):
            self._steps = steps

    def _left(self, job: Job) -> str:
        """How much longer: by the provider, else by the steps seen so far."""
        left = job.seconds_left
        if left is None and self._first and self.step and self.step > self._first[1]:
            began, first = self._first
            each = (time.monotonic() - began) / (self.step - first)
            left = each * max(0, self._steps - self.step)
        if left is None:
            return ""
        return f"about {left / 60:.0f} min left" if left >= 90 else f"about {left:.0f} s left"

    def _spent(self) -> str:
        if self._usd is None or not self.place.charges or not self._steps:
            return ""
        return f"about ${self._usd * (self.step or 0) / self._steps:.2f} so far"


def run_job(wallet: Wallet, order: Order, watch: Watch, worst: float) -> Job:
    """The job of this order when it has succeeded, its cost in the wallet.

    Args:
        wallet: what pays for it.
        order: what is asked for; one that was asked for before is taken up.
        watch: who follows it.
        worst: the most it can cost, in dollars.

    Raises:
        BudgetError: that is more than is left.
        TrainingError: it failed or was cancelled, the provider refuses it, or nobody answers.
        RunDirError: the folder is of another job.
    """
    path = watch.folder / RECORD
    record = {"run_key": order.key, "attempt": 0, "sent": False, "id": None}
    record |= read_json(path, {})
    if record["run_key"] != order.key:
        raise RunDirError(
            f"{path} is of a job with other rows, settings or seed. Give the route an empty folder."
        )
    attempt = int(record["attempt"] or 0)
    with wallet.hold(worst, name=f"{order.key}-{attempt}", **watch.what) as hold:
        before = record["sent"]
        try:
            job = _submitted(watch, order, record)
        except UncertainError:
            raise  # what it may cost stays set aside
        except TunelmError:
            hold.usd = None if before else 0.0
            raise
        job = watch.to_the_end(job)
        hold.usd = watch.place.cost_of_training(job.trained_tokens)
    if job.status != "succeeded":
        write_json(path, {**record, "id": None, "sent": False, "attempt": attempt + 1})
        reason = f": {job.reason}" if job.status == "failed" else ""
        text = f"{watch.place.where}: job {job.id} {_ENDED[job.status]}{reason}"
        raise TrainingError(watch.client.wire.clean(text))
    return job


def _submitted(watch: Watch, order: Order, record: dict[str, Any]) -> Job:
    """The one job: that of the record, or one found at the provider, or a new one."""
    client, path = watch.client, watch.folder / RECORD
    # a server that is ours is asked for it by its key: its folder may have been removed
    if record["id"] is not None and watch.place.address is not None:
        job = client.job(str(record["id"]))
        if job.status not in _ENDED:
            return job
    files = (client.upload(order.train), client.upload(order.valid) if order.valid else None)
    record["sent"] = True
    write_json(path, record)  # from here on there may be a job
    job = client.submit(order, files)
    record["id"] = job.id
    write_json(path, {**record, "said": dict(job.said)})
    return job
