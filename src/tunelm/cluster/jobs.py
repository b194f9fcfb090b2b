"""The jobs of a run directory: handed in, looked at, read, cancelled."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tunelm.cluster import slurm
from tunelm.cluster.request import JobRequest
from tunelm.cluster.script import FOLDER, Work, batch_script
from tunelm.cluster.words import OPEN, in_words
from tunelm.errors import ConfigError, RunDirError
from tunelm.rundir import read_json, write_json, write_text

RECORD = "job.json"
SCRIPT = "job.sh"
_POLL_S = 1.0


@dataclass(frozen=True)
class Job:
    """A job of a run: `said` is what it does in words, `state` Slurm's word or None."""

    run: Path
    id: str
    submitted: str
    state: slurm.JobState | None
    said: str

    @property
    def log(self) -> Path:
        """Where it writes what it says."""
        return self.run / FOLDER / f"{self.id}.log"

    @property
    def is_open(self) -> bool:
        """Whether it may still do something."""
        return self.state is not None and self.state.state in OPEN


def hand_in(work: Work, request: JobRequest) -> Job:
    """Write the script into the run directory, and submit it.

    Raises:
        ConfigError: what the cluster cannot give.
        RunDirError: the run has a job that waits or runs.
        PrerequisiteError, SlurmError: there is no Slurm, or it refused.
    """
    slurm.check_request(request, slurm.partitions())
    folder = work.run / FOLDER
    if (folder / RECORD).is_file():
        before = job_of(work.run)
        if before.is_open:
            raise RunDirError(
                f"{work.run}: its job {before.id} {before.said}. Wait for it, or cancel it: tunelm "
                f"cancel {work.run}."
            )
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / SCRIPT, batch_script(work, request))
    number = slurm.submit(folder / SCRIPT)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(folder / RECORD, {"schema_version": 1, "job": number, "submitted": now})
    return job_of(work.run)


def job_of(run: Path) -> Job:
    """The latest job of a run. Raises RunDirError where it has none."""
    record = run / FOLDER / RECORD
    if not record.is_file():
        raise RunDirError(f"{run}: no job was submitted for it (no {FOLDER}/{RECORD}).")
    kept: dict[str, Any] = read_json(record)
    number = str(kept["job"])
    state = slurm.state_of(number)
    said = in_words(state) if state else _after(run, number)
    return Job(run, number, str(kept["submitted"]), state, said)


def _after(run: Path, number: str) -> str:
    """What became of a job that the controller has forgotten."""
    code = run / FOLDER / f"{number}.exit"
    if not code.is_file():
        return "ended without a word (killed, or its node died): submit again to go on"
    value = code.read_text(encoding="utf-8").strip()
    return "done" if value == "0" else f"failed with exit code {value}; see its log"


def jobs_under(folder: Path) -> list[Job]:
    """The jobs of all runs in a folder, the latest first."""
    found = [job_of(record.parents[1]) for record in folder.glob(f"*/{FOLDER}/{RECORD}")]
    return sorted(found, key=lambda job: job.submitted, reverse=True)


def cancel(run: Path) -> Job:
    """Cancel a run's job; what it is then. Raises ConfigError where nothing waits or runs."""
    job = job_of(run)
    if not job.is_open:
        raise ConfigError(f"{run}: its job {job.id} is over ({job.said}).")
    slurm.cancel(job.id)
    return job_of(run)


def log_lines(run: Path, follow: bool) -> Iterator[str]:
    """A job's log in pieces; with `follow` until it is over, through its restarts."""
    at = 0
    while True:
        job = job_of(run)
        if job.log.is_file():
            with job.log.open("rb") as file:
                file.seek(at)
                piece = file.read()
            at += len(piece)
            if piece:
                yield piece.decode("utf-8", errors="replace")
        if not (follow and job.is_open):
            return
        time.sleep(_POLL_S)
