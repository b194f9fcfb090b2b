"""Jobs in the store: how they are made, how they change state, and how the protocol shows them.

    validating_files -> queued -> running -> succeeded
            |             |          |
            +-------------+----------+----> failed, cancelled
            +--> paused <-+-- pausing <---- running, when a client asks for it; resume goes back

Every change of state names the states it may begin from, within one transaction: of two that
happen at the same time, one comes first and the other is refused.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tunelm.server.errors import ApiError
from tunelm.server.store import FINAL, Row, Store, new_id, now

ORGANIZATION = "tunelm"
RETRY_WINDOW_S = 600
"""For so long a request that calls itself a retry is taken for the one it repeats."""

Level = Literal["info", "warn", "error"]


@dataclass(frozen=True)
class NewJob:
    """What a client asked for, checked.

    Attributes:
        base: the ModelConfig of the base, as JSON.
        request: a hash of the whole body.
        key: the Idempotency-Key, if there was one.
        retry: whether the client says that it sends this again.
    """

    model: str
    base: str
    training_file: str
    validation_file: str | None
    suffix: str | None
    seed: int
    metadata: Mapping[str, str] | None
    hyperparameters: Mapping[str, Any]
    request: str
    key: str | None
    retry: bool


def same_job(store: Store, new: NewJob) -> Row | None:
    """The job that this very request has made before.

    With a key: the key's. Without one, a request that says it is a retry is the same as one with
    an equal body in the last ten minutes: official clients repeat a request that was cut off, and
    send no key.

    Raises:
        ApiError: the key was used for another request.
    """
    if new.key is not None:
        row = store.one("SELECT * FROM jobs WHERE idempotency_key = ?", new.key)
        if row is not None and row["request"] != new.request:
            raise ApiError(
                400,
                "the Idempotency-Key was used before, for a request with another body. Send the "
                "same body again, or choose another key.",
                "idempotency_key_reused",
                "Idempotency-Key",
            )
        return row
    if not new.retry:
        return None
    since = now() - RETRY_WINDOW_S
    return store.one(
        "SELECT * FROM jobs WHERE request = ? AND created_at >= ? AND idempotency_key IS NULL"
        " AND status != 'cancelled' ORDER BY seq DESC",
        new.request,
        since,
    )


def create_job(store: Store, new: NewJob) -> Row:
    """Add a job in the state `validating_files`."""
    job_id, at = new_id("ftjob-"), now()
    name = f"ft:{new.model}:{ORGANIZATION}:{new.suffix or ''}:{new_id('', 8)}"
    metadata = None if new.metadata is None else json.dumps(dict(new.metadata))
    columns = {
        "id": job_id,
        "created_at": at,
        "status": "validating_files",
        "model": new.model,
        "base": new.base,
        "training_file": new.training_file,
        "validation_file": new.validation_file,
        "name": name,
        "seed": new.seed,
        "metadata": metadata,
        "hyperparameters": json.dumps(dict(new.hyperparameters)),
        "idempotency_key": new.key,
        "request": new.request,
    }
    marks = ", ".join("?" * len(columns))
    with store.write() as db:
        db.execute(
            f"INSERT INTO jobs ({', '.join(columns)}) VALUES ({marks})", tuple(columns.values())
        )
        add_event(db, job_id, f"Created fine-tuning job: {job_id}")
        add_event(db, job_id, f"Validating training file: {new.training_file}")
    return get_job(store, job_id)


def get_job(store: Store, job_id: str) -> Row:
    """The row of a job. Raises ApiError (404)."""
    row = store.one("SELECT * FROM jobs WHERE id = ?", job_id)
    if row is None:
        raise ApiError(
            404, f"there is no job {job_id[:80]!r}.", "job_not_found", "fine_tuning_job_id"
        )
    return row


def status_of(store: Store, job_id: str) -> str:
    """The state a job is in."""
    return str(get_job(store, job_id)["status"])


def change(
    store: Store, job_id: str, states: Collection[str], to: str, message: str | None = None
) -> bool:
    """Move a job from one of `states` to another; False where it is in none of them."""
    finished = now() if to in FINAL else None
    marks = ", ".join("?" * len(states))
    with store.write() as db:
        done = db.execute(
            "UPDATE jobs SET status = ?, finished_at = ?, estimated_finish = NULL"
            f" WHERE id = ? AND status IN ({marks})",
            (to, finished, job_id, *states),
        )
        if done.rowcount and message is not None:
            add_event(db, job_id, message)
    return done.rowcount > 0


def fail(store: Store, job_id: str, code: str, message: str, param: str | None = None) -> bool:
    """End a job with an error; False where it has ended already."""
    error = json.dumps({"code": code, "message": message, "param": param})
    marks = ", ".join("?" * len(FINAL))
    with store.write() as db:
        done = db.execute(
            "UPDATE jobs SET status = 'failed', finished_at = ?, estimated_finish = NULL, error = ?"
            f" WHERE id = ? AND status NOT IN ({marks})",
            (now(), error, job_id, *FINAL),
        )
        if done.rowcount:
            add_event(db, job_id, f"The job failed: {message}", "error")
    return done.rowcount > 0


def cancel(store: Store, job_id: str) -> None:
    """End a job because a client wants it. Raises ApiError (400) where it has ended already."""
    states = ("validating_files", "queued", "running", "pausing", "paused")
    if not change(store, job_id, states, "cancelled", "The job was cancelled"):
        raise _wrong_state(store, job_id, "cancelled", states)


def pause(store: Store, job_id: str) -> None:
    """Stop a job for the time being. Raises ApiError (400) in other states."""
    waiting, states = ("validating_files", "queued"), ("validating_files", "queued", "running")
    paused = change(store, job_id, waiting, "paused", "The job was paused")
    if not paused and not change(store, job_id, ("running",), "pausing", "The job is pausing"):
        raise _wrong_state(store, job_id, "paused", states)


def resume(store: Store, job_id: str) -> None:
    """Let a paused job go on. Raises ApiError (400) in other states."""
    to = "queued" if get_job(store, job_id)["validated"] else "validating_files"
    message = "The job goes on"
    resumed = change(store, job_id, ("pausing",), "running", message)
    if not resumed and not change(store, job_id, ("paused",), to, message):
        raise _wrong_state(store, job_id, "resumed", ("paused", "pausing"))


def _wrong_state(store: Store, job_id: str, verb: str, states: Collection[str]) -> ApiError:
    return ApiError(
        400,
        f"the job is {status_of(store, job_id)}, and cannot be {verb}: only a job that is "
        f"{' or '.join(states)} can.",
        "invalid_job_state",
        "fine_tuning_job_id",
    )


# --- events -------------------------------------------------------------------------------------


def add_event(
    db: Any,
    job_id: str,
    message: str,
    level: Level = "info",
    data: Mapping[str, Any] | None = None,
    at: int | None = None,
) -> None:
    """Add an event of a job, within a transaction; one with `data` is of the type `metrics`."""
    db.execute(
        "INSERT INTO events (id, job_id, created_at, level, message, data)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (
            new_id("ftevent-"),
            job_id,
            now() if at is None else at,
            level,
            message,
            None if data is None else json.dumps(dict(data)),
        ),
    )


def metrics_by_step(store: Store, job_id: str) -> dict[int, dict[str, Any]]:
    """What was measured at each step, all events of a step together."""
    steps: dict[int, dict[str, Any]] = {}
    sql = "SELECT data FROM events WHERE job_id = ? AND data IS NOT NULL ORDER BY seq"
    for row in store.all(sql, job_id):
        data = json.loads(row["data"])
        steps.setdefault(data["step"], {}).update(data)
    return steps


# --- as the protocol shows them -------------------------------------------------------------------


def job_object(row: Row) -> dict[str, Any]:
    """A job."""
    hyperparameters = json.loads(row["hyperparameters"])
    return {
        "id": row["id"],
        "object": "fine_tuning.job",
        "created_at": row["created_at"],
        "finished_at": row["finished_at"],
        "model": row["model"],
        "fine_tuned_model": row["name"] if row["status"] == "succeeded" else None,
        "organization_id": f"org-{ORGANIZATION}",
        "status": row["status"],
        "hyperparameters": hyperparameters,
        "method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
        "training_file": row["training_file"],
        "validation_file": row["validation_file"],
        "result_files": [row["result_file"]] if row["result_file"] else [],
        "trained_tokens": row["trained_tokens"],
        "error": None if row["error"] is None else json.loads(row["error"]),
        "seed": row["seed"],
        "estimated_finish": row["estimated_finish"] if row["status"] == "running" else None,
        "integrations": [],
        "metadata": None if row["metadata"] is None else json.loads(row["metadata"]),
    }


def event_object(row: Row) -> dict[str, Any]:
    """An event."""
    return {
        "id": row["id"],
        "object": "fine_tuning.job.event",
        "created_at": row["created_at"],
        "level": row["level"],
        "message": row["message"],
        "type": "message" if row["data"] is None else "metrics",
        "data": {} if row["data"] is None else json.loads(row["data"]),
    }


def checkpoint_object(row: Row) -> dict[str, Any]:
    """A checkpoint."""
    return {
        "id": row["id"],
        "object": "fine_tuning.job.checkpoint",
        "created_at": row["created_at"],
        "fine_tuning_job_id": row["job_id"],
        "fine_tuned_model_checkpoint": row["model"],
        "step_number": row["step"],
        "metrics": json.loads(row["metrics"]),
    }
