"""A study as three jobs: one prepares, an array runs a trial a task, a last one concludes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from tunelm.cluster import slurm
from tunelm.cluster.jobs import CONCLUDE, PREPARE, TRIALS, Job, free_folder, jobs_of, note
from tunelm.cluster.request import JobRequest
from tunelm.cluster.script import FOLDER, Work, batch_script
from tunelm.cluster.trials import as_tasks, ended_trials
from tunelm.errors import ConfigError
from tunelm.rundir import write_text


@dataclass(frozen=True)
class StudyWork:
    """A study of `count` trials, at most `at_once` of them at a time; `work` runs all of it."""

    work: Work
    count: int
    at_once: int | None = None

    @property
    def left(self) -> list[int]:
        """The trials that have not come to their end."""
        ended = ended_trials(self.work.run, self.count)
        return [number for number in range(self.count) if number not in ended]


def study_scripts(study: StudyWork, request: JobRequest) -> dict[str, str]:
    """The scripts by part, in order; without one for trials where none is left."""

    def script(part: str, argument: tuple[str, ...], tasks: str | None = None) -> str:
        whole = study.work
        command = (*whole.command, "--part", *argument)
        work = dataclasses.replace(whole, name=f"{whole.name}-{part}", command=command, tasks=tasks)
        return batch_script(work, request)

    found = {PREPARE: script(PREPARE, (PREPARE,))}
    if left := study.left:
        found[TRIALS] = script(TRIALS, (), as_tasks(left, study.at_once))
    return found | {CONCLUDE: script(CONCLUDE, (CONCLUDE,))}


def by_hand(study: StudyWork, request: JobRequest) -> str:
    """The scripts one after the other, and the lines that would submit them."""
    folder = study.work.run / FOLDER
    scripts = study_scripts(study, request)
    texts = [f"# {folder / part}.sh\n{text}" for part, text in scripts.items()]
    lines = ["# to submit:"]
    for part in scripts:
        after = _after(part, {name: f"${name}" for name in scripts})
        depends = f" --dependency={after}" if after else ""
        lines.append(f"# {part}=$(sbatch --parsable{depends} {folder / part}.sh)")
    return "\n".join([*texts, *lines]) + "\n"


def _after(part: str, ids: dict[str, str]) -> str | None:
    """What a part waits for: the trials all the same whether each came through."""
    if part == PREPARE:
        return None
    first = f"afterok:{ids[PREPARE]}"
    return f"{first},afterany:{ids[TRIALS]}" if part == CONCLUDE and TRIALS in ids else first


def hand_in_study(study: StudyWork, request: JobRequest) -> list[Job]:
    """Write the scripts into the run directory, and submit them; only what is left is run.

    `slurm.check_request` comes before.

    Raises:
        ConfigError: more trials than the cluster takes in one array.
        RunDirError: the run has a job that waits or runs.
        PrerequisiteError, SlurmError: there is no Slurm, or it refused; nothing is submitted then.
    """
    most = slurm.largest_array()
    if most is not None and study.count > most:
        raise ConfigError(f"--trials {study.count}: this cluster has arrays of at most {most}.")
    folder = free_folder(study.work.run)
    ids: dict[str, str] = {}
    try:
        for part, text in study_scripts(study, request).items():
            path: Path = folder / f"{part}.sh"
            write_text(path, text)
            ids[part] = slurm.submit(path, _after(part, ids))
    except BaseException:
        if ids:
            slurm.cancel(*ids.values())
        raise
    note(folder, {"parts": ids, "trials": study.count})
    return jobs_of(study.work.run)
