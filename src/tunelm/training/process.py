"""Starting a training process, following what it reports, and stopping it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tunelm import room
from tunelm.errors import StoppedError, TrainingError

OnEvent = Callable[[dict[str, Any]], None]

FAILURE = "failure.json"
"""Of several processes the first that fails leaves its exit code and its error here."""

LOG = "log.txt"

_POLL_S = 0.1
_STOP_S = 30.0
_KILLED = re.compile(r"exitcode\s*: (-\d+)")
"""In torchrun's account of the processes that failed: one that a signal ended."""
_STOPPED = "training was stopped; the same call goes on from there."


def train(
    work: Path,
    scorer: str | None = None,
    on_event: OnEvent | None = None,
    stop: Callable[[], bool] | None = None,
    nice: int = 0,
    processes: int = 1,
) -> dict[str, Any]:
    """Run `python -m tunelm.training` on `work` to its end and return its result.

    The process does not outlive this one. An exception here, Ctrl-C included, asks it to
    write a checkpoint and end, waits for that, and is raised again.

    Args:
        work: a folder that `job.write_job` filled.
        scorer: `module:function` for `stop_on = "metric"` (see `worker.Scorer`).
        on_event: called with each line of `events.jsonl` that this run writes.
        stop: asked ten times a second whether to write a checkpoint and end.
        nice: by how much the process gives way to others, where the system knows that.
        processes: how many train together, started by torchrun; on each node of a Slurm job that
            has several, as many.

    Raises:
        StoppedError: `stop` said so, or somebody else; the same call goes on from there.
        TrainingError: with the process's last error.
        OSError: there was no room to write in `work`; the same call goes on from there.
    """
    command = ["-m", "tunelm.training", str(work), "--parent", str(os.getpid()), f"--nice={nice}"]
    if scorer is not None:
        command += ["--scorer", scorer]
    (work / FAILURE).unlink(missing_ok=True)
    events = follow(work / "events.jsonl")
    with (work / LOG).open("wb") as out:
        # a session of its own: the terminal's Ctrl-C reaches this process, which then stops it
        process = subprocess.Popen(
            [*starter(processes, os.environ), *command],
            env=environment(processes),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            running = True
            while running:
                running = process.poll() is None
                for event in next(events):
                    if on_event is not None:
                        on_event(event)
                if running and stop is not None and stop():
                    raise StoppedError(_STOPPED)
                if running:
                    time.sleep(_POLL_S)
        except BaseException:
            _stop(process)
            raise
    if process.returncode != 0:
        raise _error(process.returncode, work)
    return json.loads((work / "result.json").read_text(encoding="utf-8"))


def starter(processes: int, environment: Mapping[str, str]) -> list[str]:
    """What starts Python's `-m tunelm.training` so many times on each node of this job.

    Nodes are those of a Slurm job; torchrun's processes meet at the first of them.
    """
    nodes = int(environment.get("SLURM_JOB_NUM_NODES", "1"))
    if processes == 1 and nodes == 1:
        return [sys.executable]
    run = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    if nodes == 1:
        return [*run, "--standalone"]
    job = environment["SLURM_JOB_ID"]
    meet = f"{socket.gethostname()}:{20000 + int(job) % 40000}"
    step = ["srun", f"--nodes={nodes}", "--ntasks-per-node=1", "--overlap"]
    where = [f"--nnodes={nodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint={meet}"]
    return [*step, *run, *where, f"--rdzv-id={job}"]


def environment(processes: int) -> dict[str, str]:
    """This process's environment, with the cores dealt out among the processes."""
    if processes == 1:
        return dict(os.environ)
    return {"OMP_NUM_THREADS": str(max(1, cores() // processes)), **os.environ}


def cores() -> int:
    """How many of the machine's cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def follow(path: Path, whole: bool = False) -> Iterator[list[dict[str, Any]]]:
    """Endless: each `next` gives the events appended since.

    Those there before are skipped, or with `whole` come first.
    """
    at = path.stat().st_size if path.is_file() and not whole else 0
    rest = b""
    while True:
        events: list[dict[str, Any]] = []
        if path.is_file():
            with path.open("rb") as file:
                file.seek(at)
                data = file.read()
            at += len(data)
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                try:
                    events.append(json.loads(line))
                except ValueError:  # a line that a killed process left half written
                    continue
        yield events


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _error(code: int, work: Path) -> TrainingError | OSError:
    """What to raise when training ended with this code."""
    reason, killed = None, None
    if (work / FAILURE).is_file():
        failure = json.loads((work / FAILURE).read_text(encoding="utf-8"))
        code, reason = failure["code"], failure["reason"]
        if not failure["foreseen"]:  # perhaps only that another process is no more
            text = (work / LOG).read_text(encoding="utf-8", errors="replace")
            killed = _KILLED.search(text)
    if code == StoppedError.exit_code:
        return StoppedError(_STOPPED)
    if code == room.EXIT_CODE:
        return room.no_room(work, reason or _last_error(work / LOG))
    if killed:
        return TrainingError(_reason(int(killed[1]), work / LOG))
    return TrainingError(reason or _reason(code, work / LOG))


def _reason(code: int, log: Path) -> str:
    if code < 0:
        return (
            f"the training process was killed by signal {-code}"
            + (", as a machine does that runs out of memory" if code == -9 else "")
            + f". Its log: {log}. The same call goes on from the last checkpoint."
        )
    text = log.read_text(encoding="utf-8", errors="replace").strip()
    if message := _last_error(log):
        return message
    last = text.splitlines()[-1:] or ["it said nothing"]
    return f"the training process ended with code {code}: {last[0]}. Its log: {log}."


def _last_error(log: Path) -> str | None:
    text = "\n" + log.read_text(encoding="utf-8", errors="replace").strip()
    _, mark, message = text.rpartition("\nerror: ")
    return message if mark else None
