"""Takes jobs from the store and trains them: one at a time, the oldest first.

Two threads: one checks files, so that a job need not wait for another's training to hear that its
file is broken; one trains, in a process of its own. What is to be done stands in the store alone.
So a server that was killed goes on where it was, and a job that a client cancels or pauses is
found in its new state within a tenth of a second.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import logging
import os
import re
import shutil
import threading
from collections.abc import Callable

from tunelm.config import ModelConfig
from tunelm.errors import StoppedError, TrainingError, TunelmError
from tunelm.room import is_full
from tunelm.route_settings import LocalSettings
from tunelm.server.catalog import Catalog
from tunelm.server.errors import ApiError
from tunelm.server.files import insert_file
from tunelm.server.job_rows import BadFileError, Checked, check_files, resolved
from tunelm.server.job_table import (
    add_event,
    change,
    fail,
    get_job,
    metrics_by_step,
    status_of,
)
from tunelm.server.progress import Progress, copy_model, insert_model, serve_all, serve_model
from tunelm.server.store import FINAL, Row, Store, discard, new_id, now, settle

COLUMNS = ("train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")
"""Of the result file, beside `step`."""
RESULT_FILE = "step_metrics.csv"
NICE = 10
"""By how much the training process gives way to answering."""

_IDLE_S = 5.0
_LITTLE_ROOM = 16 << 20
_JOIN_S = 40.0
_LOG = logging.getLogger(__name__)


class Runner:
    """Checks and trains until it is stopped."""

    def __init__(self, store: Store, catalog: Catalog) -> None:
        self._store, self._catalog = store, catalog
        self._stopping = threading.Event()
        self._wake = threading.Condition()
        self._news = 0
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Go on with what a stopped or killed server left, and with what comes."""
        self._store.sweep()
        serve_all(self._store, self._catalog)
        for work in (self._check_next, self._train_next):
            thread = threading.Thread(target=self._loop, args=(work,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def wake(self) -> None:
        """There may be something to do."""
        with self._wake:
            self._news += 1
            self._wake.notify_all()

    def stop(self) -> None:
        """End both threads; training writes a checkpoint, and its job goes on at the next start."""
        self._stopping.set()
        self.wake()
        for thread in self._threads:
            thread.join(_JOIN_S)
        self._store.close()

    def _loop(self, work: Callable[[], bool]) -> None:
        seen = -1
        while not self._stopping.is_set():
            try:
                if work():
                    continue
            except Exception:
                # a full disk, mostly, on which not even the error can be stored: try again later
                _LOG.exception("a fine-tuning thread failed; it goes on")
            with self._wake:
                if self._news == seen:
                    self._wake.wait(_IDLE_S)
                seen = self._news

    # --- checking -------------------------------------------------------------------------------

    def _check_next(self) -> bool:
        job = self._store.one("SELECT * FROM jobs WHERE status = 'validating_files' ORDER BY seq")
        if job is None:
            self._store.expire()
            return False
        try:
            self._check(job)
        except StoppedError:
            pass
        except BadFileError as error:
            with self._store.write() as db:
                for line in error.lines[1:20]:
                    add_event(db, job["id"], f"{error.param.replace('_', ' ')}: {line}", "error")
            fail(self._store, job["id"], error.code, str(error), error.param)
        except Exception as error:
            self._failed(job["id"], error)
        self.wake()
        return True

    def _check(self, job: Row) -> None:
        from tunelm.training.job import TrainingJob, write_job
        from tunelm.training.lens import open_lens

        job_id = job["id"]
        base = ModelConfig.model_validate_json(job["base"])
        lens = open_lens(base)

        def stop() -> bool:
            return self._stopping.is_set() or status_of(self._store, job_id) != "validating_files"

        validation = job["validation_file"]
        checked = check_files(
            self._store.files / job["training_file"],
            self._store.files / validation if validation else None,
            lens,
            stop,
        )
        numbers = resolved(json.loads(job["hyperparameters"]), len(checked.train))
        settings = LocalSettings(
            epochs=numbers["n_epochs"],
            batch_size=int(numbers["batch_size"]),
            learning_rate=_learning_rate(base, float(numbers["learning_rate_multiplier"])),
            stop_on="none",
        )
        training = TrainingJob(model=base, settings=settings, seed=job["seed"], keep_epochs=True)
        work = self._store.jobs / job_id
        discard(work)  # of a check that was cut off
        write_job(work, training, checked.train, checked.dev)
        self._validated(job_id, checked, numbers)

    def _validated(self, job_id: str, checked: Checked, numbers: dict[str, int | float]) -> None:
        with self._store.write() as db:
            done = db.execute(
                "UPDATE jobs SET status = 'queued', validated = 1, hyperparameters = ?"
                " WHERE id = ? AND status = 'validating_files'",
                (json.dumps(numbers), job_id),
            )
            if done.rowcount:
                for warning in checked.warnings:
                    add_event(db, job_id, warning, "warn")
                add_event(db, job_id, "Files validated, moving job to queued state")

    # --- training -------------------------------------------------------------------------------

    def _train_next(self) -> bool:
        self._clean()
        for row in self._store.all("SELECT id FROM jobs WHERE status = 'pausing'"):
            # nothing is being trained at this point
            change(self._store, row["id"], ("pausing",), "paused", "The job is paused")
        job = self._store.one(
            "SELECT * FROM jobs WHERE status IN ('running', 'queued')"
            " ORDER BY status = 'queued', seq"
        )
        if job is None:
            return False
        job_id = job["id"]
        change(self._store, job_id, ("queued",), "running", "Fine-tuning job started")
        try:
            self._train(job_id)
        except Exception as error:
            self._failed(job_id, error)
        return True

    def _train(self, job_id: str) -> None:
        from tunelm.training.process import train

        progress = Progress(self._store, self._catalog, job_id)
        work = self._store.jobs / job_id

        def stop() -> bool:
            return self._stopping.is_set() or status_of(self._store, job_id) != "running"

        progress.read()
        if stop():
            return
        try:
            result = train(work, on_event=lambda _: progress.read(), stop=stop, nice=NICE)
        except StoppedError:
            progress.read()
            return
        progress.read()
        self._deliver(get_job(self._store, job_id), int(result["tokens"]))

    def _deliver(self, job: Row, tokens: int) -> None:
        """Serve the model, store the result file, and say that the job has succeeded."""
        store, job_id, name, at = self._store, job["id"], job["name"], now()
        copy_model(store, store.jobs / job_id / "adapter", job_id)
        file_id = new_id("file-")
        with store.new_file() as path:
            path.write_bytes(_result_file(store, job_id))
            size = path.stat().st_size
            settle(path, store.files / file_id)
        serve_model(store, self._catalog, name, at, job_id)
        with store.write() as db:
            done = db.execute(
                "UPDATE jobs SET status = 'succeeded', finished_at = ?, trained_tokens = ?,"
                " result_file = ?, estimated_finish = NULL"
                " WHERE id = ? AND status IN ('running', 'pausing')",
                (at, tokens, file_id, job_id),
            )
            if done.rowcount:
                insert_file(db, file_id, RESULT_FILE, "fine-tune-results", size)
                insert_model(db, name, at, job_id)
                add_event(db, job_id, f"New fine-tuned model created: {name}")
                add_event(db, job_id, "The job has successfully completed")
        if not done.rowcount:  # cancelled meanwhile
            self._catalog.remove(name)
            discard(store.models / job_id)
            discard(store.files / file_id)

    def _clean(self) -> None:
        """Remove the work folders of jobs that have ended."""
        for path in self._store.jobs.iterdir():
            row = self._store.one("SELECT status FROM jobs WHERE id = ?", path.name)
            if row is None or row["status"] in FINAL:
                self._store.drop_work(path.name)

    def _failed(self, job_id: str, error: Exception) -> None:
        known = isinstance(error, (TunelmError, ApiError, OSError))
        _LOG.warning("%s failed: %s", job_id, error, exc_info=None if known else error)
        store = self._store
        # torch reports a full disk as an error of its own
        if is_full(error) or shutil.disk_usage(store.folder).free < _LITTLE_ROOM:
            said = "the disk of the server is full. Make room there, and create the job again."
            try:
                fail(store, job_id, "disk_full", said)
            except ApiError:
                discard(store.jobs / job_id)  # makes the room to store the error in
                fail(store, job_id, "disk_full", said)
        else:
            code = "training_failed" if isinstance(error, TrainingError) else "server_error"
            fail(store, job_id, code, _reason(error, store))


def _reason(error: Exception, store: Store) -> str:
    """Why a job failed, in one line for its client, without a path of this machine."""
    if isinstance(error, FileNotFoundError):
        return "a file of the job is missing on the server. Upload it, and create the job again."
    if not isinstance(error, (TunelmError, ApiError)):
        return f"the server failed at this job ({type(error).__name__})."
    text = " ".join(str(error).replace(f"{store.folder}{os.sep}", "").split())
    text = text.partition(" Its log:")[0]
    return re.sub(r"(?<![\w:/.])(?:[A-Za-z]:)?[/\\](?:[^\s/\\'\"]+[/\\])+", "", text)


def _learning_rate(base: ModelConfig, multiplier: float) -> float | None:
    """The peak learning rate; None, the trainer's own, for a multiplier of 1."""
    if multiplier == 1:
        return None
    from transformers import AutoConfig

    from tunelm.models.loading import resolve_base
    from tunelm.training.adapter import default_learning_rate

    shape = AutoConfig.from_pretrained(resolve_base(base), revision=base.revision)
    width: int = shape.get_text_config().hidden_size
    return multiplier * default_learning_rate(width, LocalSettings())


def _result_file(store: Store, job_id: str) -> bytes:
    """The CSV of a job's metrics, in base64, as OpenAI's files hold it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("step", *COLUMNS))
    names = {"train_accuracy": "train_mean_token_accuracy"}
    for step, found in sorted(metrics_by_step(store, job_id).items()):
        writer.writerow((step, *(found.get(names.get(name, name), "") for name in COLUMNS)))
    return base64.b64encode(text.getvalue().encode())
