"""A batch script that a person can read, change and submit by hand."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from tunelm.cluster.request import JobRequest, time_text

WARNING_S = 120
"""How long before the time limit the job is told, so that it can stop where it can go on."""

FOLDER = "slurm"
"""Of a run directory: the script, the logs and the exit codes of its jobs."""


@dataclass(frozen=True)
class Work:
    """What a job runs: `command` in `folder`, after the shell lines `setup`, into `run`.

    `command` makes the run directory; `--resume` is put behind it where there is one already.
    `tasks` are the numbers of an array as sbatch takes them ("0-14%4"); each task gets its own
    behind `command`.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    run: Path
    setup: tuple[str, ...] = ()
    tasks: str | None = None


def batch_script(work: Work, request: JobRequest) -> str:
    """The whole script.

    The time limit and a preemption find the job able to go on: shortly before the limit Slurm
    sends USR1 to the script, which stops the work as Ctrl-C does and puts the job back into the
    queue; after a preemption Slurm does that itself. Each start takes up the run directory.
    `--open-mode=append` keeps the log: a requeued job would otherwise begin it anew.

    A task of an array names itself by array and task: the last one has the array's own id as its
    SLURM_JOB_ID, by which all of them would be put back into the queue.
    """
    me, task = "$SLURM_JOB_ID", ""
    if work.tasks is not None:
        me, task = "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID", ' "$SLURM_ARRAY_TASK_ID"'
    return "\n".join(
        [
            "#!/bin/bash",
            *(f"#SBATCH {option}" for option in _options(work, request)),
            "",
            "set -m  # else what runs in the background is deaf to Ctrl-C",
            *work.setup,
            f"cd {shlex.quote(str(work.folder))} || exit 1",
            f"run={shlex.quote(str(work.run))}",
            "resume=",
            'if [ -e "$run/config.json" ]; then resume=--resume; fi',
            "",
            f'{shlex.join(work.command)}{task} --out "$run" $resume &',
            "work=$!",
            "",
            "again() {  # the time is almost over: stop cleanly, and go on in the next turn",
            '  echo "time limit near: stopping, to be taken up again"',
            '  kill -INT "$work"; wait "$work"',
            f'  scontrol requeue "{me}" && exit 0',
            '  echo "this cluster does not requeue: submit again to go on"; exit 75',
            "}",
            "trap again USR1",
            'trap \'kill -INT "$work"; wait "$work"; exit 143\' TERM',
            "",
            'wait "$work"; code=$?',
            f'echo "$code" > "$run/{FOLDER}/{me}.exit"',
            'exit "$code"',
            "",
        ]
    )


def _options(work: Work, request: JobRequest) -> list[str]:
    log = "%j.log" if work.tasks is None else "%A_%a.log"
    wanted: list[tuple[str, str | int | None]] = [
        ("job-name", work.name),
        ("array", work.tasks),
        ("partition", request.partition),
        ("account", request.account),
        ("qos", request.qos),
        ("nodes", request.nodes),
        ("ntasks-per-node", 1),
        ("gpus-per-node", request.gpus or None),
        ("cpus-per-task", request.cpus),
        ("mem", request.memory),
        ("time", None if request.minutes is None else time_text(request.minutes)),
        ("output", str(work.run / FOLDER / log)),
        ("open-mode", "append"),
        ("signal", f"B:USR1@{WARNING_S}" if request.minutes else None),
    ]
    return [f"--{name}={value}" for name, value in wanted if value is not None] + ["--requeue"]
