"""One fine-tuning job at a provider, whatever happens on the way.

The official SDK sends a request that failed again, and a job whose creation got no answer is
then created, and paid for, once more. So nothing here is repeated by the SDK. A job carries a
key made of everything it depends on; before a job is created, and several times after a creation
that got no answer, the provider's list is looked through for that key, and what is found there is
adopted.
"""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunelm.data.given import file_hash
from tunelm.errors import TrainingError
from tunelm.routes.finetune_wire import (
    PAGE,
    Call,
    TroubleError,
    Wire,
    as_dict,
    content_of,
    named,
    rows_of,
)
from tunelm.types import content_hash

ENDED = ("succeeded", "failed", "cancelled")
"""The states that a job does not leave. Any other, known or not, is waited on."""
RUN_KEY = "tunelm_run_key"
"""The key of a job's metadata under which the run key stands."""
MOST_CREATED = 3
"""Times a creation is sent before it is given up; none of them after a job was seen."""


@dataclass(frozen=True)
class Order:
    """A job as it is asked for: a model, its files, its settings."""

    model: str
    train: Path
    valid: Path | None
    hyperparameters: Mapping[str, int | float | str]
    seed: int
    suffix: str
    metadata: bool = True
    """Whether the provider keeps metadata of a job."""

    @property
    def key(self) -> str:
        """A hash of all the job depends on: the same order is the same job."""
        return content_hash(
            {
                "model": self.model,
                "files": [file_hash(p) if p else None for p in (self.train, self.valid)],
                "hyperparameters": dict(self.hyperparameters),
                "seed": self.seed,
            }
        )


@dataclass(frozen=True)
class Job:
    """A provider's job, as it said it is. `said` is the whole of it."""

    id: str
    status: str
    said: Mapping[str, Any] = field(repr=False)

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status in ENDED

    @property
    def fine_tuned_model(self) -> str | None:
        """The name of what it made."""
        return self.said.get("fine_tuned_model")

    @property
    def trained_tokens(self) -> int | None:
        """The tokens that the provider counted, and charges for; None: not said."""
        tokens = self.said.get("trained_tokens")
        return tokens if isinstance(tokens, int) else None

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """What it was trained with, where the provider says so."""
        method = as_dict(self.said.get("method"))
        given = as_dict(as_dict(method.get(str(method.get("type")))).get("hyperparameters"))
        return given or as_dict(self.said.get("hyperparameters"))

    @property
    def seconds_left(self) -> float | None:
        """By the provider's own estimate; None where it gives none."""
        finish = self.said.get("estimated_finish")
        return max(0.0, finish - time.time()) if isinstance(finish, int | float) else None

    @property
    def reason(self) -> str:
        """Why it failed, in the provider's words."""
        error = as_dict(self.said.get("error"))
        words = str(error.get("message") or "it gives no reason")
        return f"{words} ({error['code']})" if error.get("code") else words


class UncertainError(TrainingError):
    """A job was asked for, and whether there is one is not known."""


class FineTuneClient:
    """Files and jobs at one provider, through its `wire`."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire

    @property
    def url(self) -> str:
        """Where the provider is."""
        return self.wire.address.url

    # --- files ----------------------------------------------------------------------------------

    def upload(self, path: Path) -> str:
        """The id of a file at the provider with this content: one that is there, or a new one.

        Raises TrainingError when the provider refuses it or cannot be reached.
        """
        name, size = f"tunelm-{file_hash(path)[:32]}.jsonl", path.stat().st_size
        began = time.monotonic()
        repeated = 0
        while True:
            for there in self.wire.listed("files", lambda sdk: sdk.files, purpose="fine-tune"):
                same = there.get("filename") == name and there.get("bytes") == size
                if same and there.get("status") != "error":
                    return str(there["id"])
            content = (name, path.read_bytes(), "application/jsonl")
            try:
                return self.wire.once(
                    lambda sdk, file=content: sdk.files.with_raw_response.create(
                        file=file, purpose="fine-tune"
                    ),
                    named,
                )["id"]
            except TroubleError as trouble:
                self.wire.wait(trouble, "uploading", began, repeated)
                repeated += 1

    # --- creating -------------------------------------------------------------------------------

    def submit(self, order: Order, files: tuple[str, str | None]) -> Job:
        """The one job of this order: one that is there already, or a new one.

        A job of the same order that failed or was cancelled before is not taken up again. Where
        more than one is found, the oldest is kept and the others are cancelled.

        Raises:
            UncertainError: there may be a job, and the provider does not say.
            TrainingError: the provider refuses it, or cannot be reached.
        """
        there = self._jobs_of(order, files, set())
        over = {job.id for job in there if job.status in ("failed", "cancelled")}
        left = [job for job in there if job.id not in over]
        if not left:
            left = self._created(order, files, over)
        for extra in left[1:]:
            if not extra.ended:
                self.cancel(extra.id)
        return left[0]

    def _created(self, order: Order, files: tuple[str, str | None], over: set[str]) -> list[Job]:
        """Send the creation, and look for the job where no answer says what came of it."""
        began = time.monotonic()
        sent = repeated = 0
        while True:
            sent += 1
            try:
                made = self.wire.once(lambda sdk: _create(sdk, order, files, len(over)), named)
            except TroubleError as trouble:
                if not trouble.perhaps:
                    self.wire.wait(trouble, "creating the job", began, repeated)
                    sent, repeated = sent - 1, repeated + 1
                    continue
                if found := self._looked_for(order, files, over):
                    return found
                if sent >= MOST_CREATED:
                    raise UncertainError(
                        f"the creation of the job got no answer {sent} times ({trouble}), and "
                        f"{self.url} lists no job of this run. Take it up again with --resume, "
                        "which looks for it first."
                    ) from None
            else:
                # an earlier try may have come through late
                late = self._jobs_of(order, files, over) if sent > 1 else []
                return late or [_job(made)]

    def _looked_for(self, order: Order, files: tuple[str, str | None], over: set[str]) -> list[Job]:
        for pause in self.wire.patience.looks:
            self.wire.tell("creating the job (no answer: looking whether it is there)")
            time.sleep(pause)
            try:
                found = self._jobs_of(order, files, over)
            except TrainingError as error:
                raise UncertainError(f"a job may have been created: {error}") from None
            if found:
                return found
        return []

    def _jobs_of(self, order: Order, files: tuple[str, str | None], over: set[str]) -> list[Job]:
        """All jobs of this order at the provider but those `over`, the oldest first."""
        wanted = {"metadata": {RUN_KEY: order.key}} if order.metadata else {}
        listed = self.wire.listed("jobs", lambda sdk: sdk.fine_tuning.jobs, **wanted)
        # a provider may pass over the filter, or keep no metadata
        found = [job for job in listed if _is_of(job, order, files)]
        found.sort(key=lambda job: (job.get("created_at") or 0, str(job["id"])))
        return [_job(job) for job in found if job["id"] not in over]

    # --- following ------------------------------------------------------------------------------

    def job(self, job_id: str) -> Job:
        """A job as it is now. Raises TrainingError where the provider does not know it."""
        call: Call = lambda sdk: sdk.fine_tuning.jobs.with_raw_response.retrieve(job_id)  # noqa: E731
        return _job(self.wire.patiently(call, f"asking for job {job_id}", named))

    def follow(self, job_id: str, show: Callable[[Job], None]) -> Job:
        """The job when it has ended; `show` is called with it at each look.

        Raises:
            TrainingError: `patience.job` is over, or nobody has answered for `patience.lost`.
        """
        began, limit = time.monotonic(), self.wire.patience.job
        while True:
            job = self.job(job_id)
            show(job)
            if job.ended:
                return job
            if limit is not None and time.monotonic() - began > limit:
                raise TrainingError(
                    f"job {job_id} is {job.status} after {limit:g} s, and timeout_s is over. It "
                    "goes on; take it up again with --resume."
                )
            time.sleep(self.wire.patience.poll)

    def events(self, job_id: str, seen: set[str]) -> list[dict[str, Any]]:
        """The events that are not among `seen`, the oldest first; their ids are added to it.

        A provider that keeps none, or does not answer now, has none.
        """
        found: list[dict[str, Any]] = []
        after: dict[str, Any] = {}
        try:
            while True:
                page = self.wire.once(
                    lambda sdk, more=after: sdk.fine_tuning.jobs.with_raw_response.list_events(
                        job_id, limit=PAGE, **more
                    )
                )
                rows = rows_of(page)
                new = [row for row in rows if row["id"] not in seen]
                found += new
                if len(new) < len(rows) or not rows or not page.get("has_more"):
                    break
                after = {"after": rows[-1]["id"]}
        except TroubleError:
            return []  # the newest come first, so what was read is no whole; the next look has it
        seen.update(row["id"] for row in found)
        return sorted(found, key=lambda row: row.get("created_at") or 0)

    def result(self, file_id: str) -> str:
        """A result file's text; some providers send it in base64."""
        call: Call = lambda sdk: sdk.files.with_raw_response.content(file_id)  # noqa: E731
        return decoded(self.wire.patiently(call, f"fetching {file_id}", content_of))

    def cancel(self, job_id: str) -> None:
        """Ask the provider to stop a job; that it has ended meanwhile is no error."""
        try:
            self.wire.once(lambda sdk: sdk.fine_tuning.jobs.with_raw_response.cancel(job_id))
        except TroubleError as trouble:
            if not self.job(job_id).ended:
                raise TrainingError(f"job {job_id} cannot be cancelled: {trouble}") from None


def decoded(content: bytes) -> str:
    """Text as it is, or out of base64.

    >>> decoded(b"step,loss"), decoded(b"c3RlcCxsb3Nz")
    ('step,loss', 'step,loss')
    """
    packed = b"".join(content.split())
    if packed and re.fullmatch(rb"[A-Za-z0-9+/]+={0,2}", packed):
        try:
            return base64.b64decode(packed, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            pass
    return content.decode("utf-8", "replace")


def _create(sdk: Any, order: Order, files: tuple[str, str | None], attempt: int) -> Any:
    """One POST. The key in its header is the same in each repetition of it."""
    settings = dict(order.hyperparameters)
    return sdk.fine_tuning.jobs.with_raw_response.create(
        model=order.model,
        training_file=files[0],
        **({"validation_file": files[1]} if files[1] else {}),
        method={"type": "supervised", "supervised": {"hyperparameters": settings}},
        seed=order.seed,
        suffix=order.suffix,
        **({"metadata": {RUN_KEY: order.key}} if order.metadata else {}),
        extra_headers={"Idempotency-Key": f"tunelm-{order.key}-{attempt}"},
    )


def _is_of(said: Mapping[str, Any], order: Order, files: tuple[str, str | None]) -> bool:
    """Whether a listed job is this order's: by its run key, or else by what it was made of."""
    metadata = as_dict(said.get("metadata"))
    if RUN_KEY in metadata:
        return metadata[RUN_KEY] == order.key
    job = _job(said)
    asked = {k: v for k, v in order.hyperparameters.items() if v != "auto"}
    return (
        said.get("training_file") == files[0]
        and said.get("validation_file") == files[1]
        # an alias comes back with its date
        and re.fullmatch(re.escape(order.model) + r"(-\d{4}-\d\d-\d\d)?", str(said.get("model")))
        is not None
        and said.get("seed") in (order.seed, None)
        and all(job.hyperparameters.get(k, v) == v for k, v in asked.items())
    )


def _job(said: Mapping[str, Any]) -> Job:
    return Job(str(said["id"]), str(said.get("status")), said)
