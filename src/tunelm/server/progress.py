"""What a training process reports becomes events, metrics and checkpoints of its job, once each.

The process appends to `events.jsonl`. How far that was read stands in the job's row, and moves on
in the same transaction that stores what was read: a killed server neither loses an event nor
stores it twice. After a kill the process repeats the steps since its last checkpoint, bit for bit;
they are stored already, and passed over.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunelm.server.catalog import Catalog, Served
from tunelm.server.job_table import ORGANIZATION, add_event, get_job
from tunelm.server.store import FINAL, Row, Store, discard, new_id, settle

Event = Mapping[str, Any]


class Progress:
    """Follows one job's work folder."""

    def __init__(self, store: Store, catalog: Catalog, job_id: str) -> None:
        self._store, self._catalog, self._id = store, catalog, job_id
        self._work = store.jobs / job_id

    def read(self) -> None:
        """Store what was reported since the last time. Raises OSError, as on a full disk."""
        job = get_job(self._store, self._id)
        path = self._work / "events.jsonl"
        ended = job["status"] in FINAL
        if ended or not path.is_file() or path.stat().st_size <= job["read_to"]:
            return
        with path.open("rb") as file:
            file.seek(job["read_to"])
            data = file.read()
        data = data[: data.rfind(b"\n") + 1]  # the last line may be half written
        events = [event for line in data.split(b"\n") if (event := _parsed(line))]
        known = {row["step"] for row in self._checkpoints()}
        for event in events:
            if event["event"] == "kept" and event["step"] not in known:
                self._keep(job, event)
        with self._store.write() as db:
            for event in events:
                self._add(db, event)
            db.execute("UPDATE jobs SET read_to = read_to + ? WHERE id = ?", (len(data), self._id))
        for event in events:
            if event["event"] == "kept":
                discard(self._work / event["folder"])

    def _checkpoints(self) -> list[Row]:
        return self._store.all("SELECT step FROM checkpoints WHERE job_id = ?", self._id)

    def _names(self, job: Row, step: int) -> tuple[str, str]:
        """(model, folder) of a checkpoint."""
        return f"{job['name']}:ckpt-step-{step}", f"{self._id}-step-{step}"

    def _keep(self, job: Row, event: Event) -> None:
        """Copy a kept epoch to where models are served from, and serve it."""
        model, folder = self._names(job, event["step"])
        copy_model(self._store, self._work / event["folder"], folder)
        serve_model(self._store, self._catalog, model, int(event["time"]), folder)

    def _add(self, db: Any, event: Event) -> None:
        job = db.execute("SELECT * FROM jobs WHERE id = ?", (self._id,)).fetchone()
        kind, at = event["event"], int(event["time"])
        step, steps = event.get("step", 0), event.get("steps")
        if kind == "resumed":
            add_event(db, self._id, f"Training goes on after step {step}/{steps}", at=at)
        elif kind == "step" and step > job["step"]:
            data = _finite(
                step=step,
                total_steps=steps,
                train_loss=event["loss"],
                train_mean_token_accuracy=event.get("accuracy"),
            )
            message = f"Step {step}/{steps}: training loss={event['loss']:.4f}"
            add_event(db, self._id, message, data=data, at=at)
            finish = math.ceil(event["time"] + (steps - step) * event["seconds"] / step)
            db.execute(
                "UPDATE jobs SET step = ?, estimated_finish = ? WHERE id = ?",
                (step, finish, self._id),
            )
        elif kind == "evaluation" and step > job["evaluated"]:
            if event.get("dev_loss") is not None:
                message, data = _evaluation(event)
                add_event(db, self._id, message, data=data, at=at)
            db.execute("UPDATE jobs SET evaluated = ? WHERE id = ?", (step, self._id))
        elif kind == "kept":
            self._add_checkpoint(db, job, step, at)

    def _add_checkpoint(self, db: Any, job: Row, step: int, at: int) -> None:
        model, folder = self._names(job, step)
        known = "SELECT 1 FROM checkpoints WHERE job_id = ? AND step = ?"
        if db.execute(known, (self._id, step)).fetchone():
            return
        metrics: dict[str, Any] = {}
        last = "WHERE job_id = ? AND data IS NOT NULL ORDER BY seq DESC LIMIT 8"
        for row in db.execute(f"SELECT data FROM events {last}", (self._id,)).fetchall():
            data = json.loads(row["data"])
            if data.pop("step") == step:
                metrics |= data
        metrics.pop("total_steps", None)
        db.execute(
            "INSERT INTO checkpoints (id, job_id, created_at, model, step, metrics)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (new_id("ftckpt_"), self._id, at, model, step, json.dumps({"step": step, **metrics})),
        )
        insert_model(db, model, at, folder)
        add_event(db, self._id, f"Checkpoint created at step {step}: {model}", at=at)


# --- models ---------------------------------------------------------------------------------------


def copy_model(store: Store, source: Path, name: str) -> None:
    """Copy an adapter to `models/NAME`, whole or not at all; nothing to do where it is there."""
    final = store.models / name
    if final.is_dir():
        return
    part = store.incoming / name
    discard(part)
    try:
        shutil.copytree(source, part)
        settle(part, final)
    except BaseException:
        discard(part)
        raise


def insert_model(db: Any, model: str, at: int, folder: str) -> None:
    """The row of a model that stands in its place, within a transaction."""
    db.execute("INSERT INTO models (id, created_at, folder) VALUES (?, ?, ?)", (model, at, folder))


def serve_model(store: Store, catalog: Catalog, model: str, created: int, folder: str) -> None:
    """Let a model be asked for by its name, if this server serves its base."""
    if model.startswith(f"ft:{catalog.base}:"):
        owner = f"org-{ORGANIZATION}"
        catalog.add(Served(model, created, owner, adapter=store.models / folder))


def serve_all(store: Store, catalog: Catalog) -> None:
    """Serve every fine-tuned model of the store."""
    for row in store.all("SELECT * FROM models"):
        serve_model(store, catalog, row["id"], row["created_at"], row["folder"])


def _evaluation(event: Event) -> tuple[str, dict[str, Any]]:
    """(message, data) of an evaluation: on all validation rows, so both pairs are equal."""
    step, loss, accuracy = event["step"], event["dev_loss"], event.get("dev_accuracy")
    data = _finite(
        step=step,
        total_steps=event["steps"],
        valid_loss=loss,
        valid_mean_token_accuracy=accuracy,
        full_valid_loss=loss,
        full_valid_mean_token_accuracy=accuracy,
    )
    return f"Step {step}/{event['steps']}: validation loss={loss:.4f}", data


def _finite(**values: Any) -> dict[str, Any]:
    """Without what is unknown, or no number that JSON has."""
    return {k: v for k, v in values.items() if v is not None and math.isfinite(v)}


def _parsed(line: bytes) -> Event | None:
    try:
        return json.loads(line) if line.strip() else None
    except ValueError:  # a line that a killed process left half written
        return None
