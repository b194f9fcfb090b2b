"""The jobs of a run directory: handed in, looked at, cancelled."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tunelm import room
from tunelm.cluster import slurm
from tunelm.cluster.request import JobRequest
from tunelm.cluster.script import FOLDER, Work, batch_script
from tunelm.cluster.trials import Piece, trials_in_words
from tunelm.cluster.words import OPEN, in_words
from tunelm.errors import ConfigError, RunDirError
from tunelm.rundir import read_json, write_json, write_text

RECORD = "job.json"
SCRIPT = "job.sh"
PREPARE, TRIALS, CONCLUDE = "prepare", "trials", "conclude"
"""The jobs of a study, in order; the one of a comparison has no name."""
_TAIL = 65536


@dataclass(frozen=True)
class Job:
    """A job of a run: `said` is what it does in words, `states` what Slurm says of its tasks.

    `part` is PREPARE, TRIALS (an array) or CONCLUDE of a study; else empty.
    """

    run: Path
    id: str
    part: str
    submitted: str
    states: tuple[slurm.JobState, ...]
    said: str

    @property
    def state(self) -> slurm.JobState | None:
        """What Slurm says of it; None where it has forgotten the job."""
        return self.states[0] if self.states else None

    @property
    def log(self) -> Path:
        """Where it writes what it says, if it is no array."""
        return self.run / FOLDER / f"{self.id}.log"

    @property
    def is_open(self) -> bool:
        """Whether it may still do something."""
        return any(state.state in OPEN for state in self.states)


def hand_in(work: Work, request: JobRequest) -> Job:
    """Write the script into the run directory, and submit it; `slurm.check_request` comes before.

    Raises:
        RunDirError: the run has a job that waits or runs.
        PrerequisiteError, SlurmError: there is no Slurm, or it refused.
    """
    folder = free_folder(work.run)
    write_text(folder / SCRIPT, batch_script(work, request))
    note(folder, {"job": slurm.submit(folder / SCRIPT)})
    return job_of(work.run)


def free_folder(run: Path) -> Path:
    """The folder for a run's scripts, made. Raises RunDirError where one waits or runs."""
    folder = run / FOLDER
    for job in jobs_of(run) if (folder / RECORD).is_file() else ():
        if job.is_open:
            raise RunDirError(
                f"{run}: its job {job.id} {job.said}. Wait for it, or cancel it: tunelm cancel "
                f"{run}."
            )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def note(folder: Path, submitted: dict[str, Any]) -> None:
    """Record what was submitted just now."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(folder / RECORD, {"schema_version": 1, **submitted, "submitted": now})


def jobs_of(run: Path) -> list[Job]:
    """The jobs of the latest submission of a run. Raises RunDirError where it has none."""
    record = run / FOLDER / RECORD
    if not record.is_file():
        raise RunDirError(f"{run}: no job was submitted for it (no {FOLDER}/{RECORD}).")
    kept: dict[str, Any] = read_json(record)
    parts: dict[str, str] = kept.get("parts") or {"": str(kept["job"])}
    found: list[Job] = []
    for part, number in parts.items():
        states = tuple(slurm.states_of(number))
        if part == TRIALS:
            pieces = [Piece(s, _said(run, f"{number}_{s.task}", s)) for s in states]
            said = trials_in_words(run, int(kept["trials"]), pieces)
        else:
            said = _said(run, number, states[0] if states else None)
        found.append(Job(run, number, part, str(kept["submitted"]), states, said))
    return found


def job_of(run: Path) -> Job:
    """The last job of a run. Raises RunDirError where it has none."""
    return jobs_of(run)[-1]


def _said(run: Path, name: str, state: slurm.JobState | None) -> str:
    """What a job or a task does, also where the controller has forgotten it."""
    if state is not None and state.state != "FAILED":
        return in_words(state)
    code = run / FOLDER / f"{name}.exit"
    if state is not None:
        value = state.exit_code
    elif code.is_file():
        value = code.read_text(encoding="utf-8").strip()
    else:
        return "ended without a word (killed, or its node died): submit again to go on"
    if value == "0":
        return "done"
    line = _last_error(run / FOLDER / f"{name}.log")
    if line is None and value == str(room.EXIT_CODE):
        line = f"no room to write, not even its log: make room in {run}, and submit again"
    return f"failed with exit code {value}" + (f": {line}" if line else "; see its log")


def _last_error(log: Path) -> str | None:
    """The last error that a log tells, in its own line."""
    if not log.is_file():
        return None
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL))
        text = "\n" + file.read().decode("utf-8", errors="replace")
    _, mark, rest = text.rpartition("\nerror: ")
    return rest.partition("\n")[0] if mark else None


def jobs_under(folder: Path) -> list[Job]:
    """The jobs of all runs in a folder, the latest first, those of a study in their order."""
    runs = [jobs_of(record.parents[1]) for record in folder.glob(f"*/{FOLDER}/{RECORD}")]
    runs.sort(key=lambda jobs: jobs[0].submitted, reverse=True)
    return [job for jobs in runs for job in jobs]


def cancel(run: Path, trial: int | None = None) -> list[Job]:
    """Cancel a run's jobs, or one trial of a study; what they are then.

    Raises ConfigError where nothing waits or runs, or there are no trials.
    """
    jobs = jobs_of(run)
    if trial is not None:
        array = trials_of(jobs)
        slurm.cancel(f"{array.id}_{trial}")
        return jobs_of(run)
    if not any(job.is_open for job in jobs):
        raise ConfigError(f"{run}: its job {jobs[-1].id} is over ({jobs[-1].said}).")
    # the last first: it would otherwise begin once those before it are gone
    slurm.cancel(*(job.id for job in reversed(jobs) if job.is_open))
    return jobs_of(run)


def trials_of(jobs: list[Job]) -> Job:
    """The array among a run's jobs. Raises ConfigError where there is none."""
    for job in jobs:
        if job.part == TRIALS:
            return job
    raise ConfigError(f"{jobs[0].run}: its job is no study, and has no trials.")
