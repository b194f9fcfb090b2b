"""Starting a training process, following what it reports, and stopping it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tunelm import room
from tunelm.errors import StoppedError, TrainingError

OnEvent = Callable[[dict[str, Any]], None]

_POLL_S = 0.1
_STOP_S = 30.0
_STOPPED = "training was stopped; the same call goes on from there."


def train(
    work: Path,
    scorer: str | None = None,
    on_event: OnEvent | None = None,
    stop: Callable[[], bool] | None = None,
    nice: int = 0,
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

    Raises:
        StoppedError: `stop` said so, or somebody else; the same call goes on from there.
        TrainingError: with the process's last error.
        OSError: there was no room to write in `work`; the same call goes on from there.
    """
    command = [sys.executable, "-m", "tunelm.training", str(work), "--parent", str(os.getpid())]
    if scorer is not None:
        command += ["--scorer", scorer]
    if nice:
        command += ["--nice", str(nice)]
    log = work / "log.txt"
    events = follow(work / "events.jsonl")
    with log.open("wb") as out:
        # a session of its own: the terminal's Ctrl-C reaches this process, which then stops it
        process = subprocess.Popen(
            command,
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
    _require_done(process.returncode, work, log)
    return json.loads((work / "result.json").read_text(encoding="utf-8"))


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


def _require_done(code: int, work: Path, log: Path) -> None:
    """Raise what `train` raises where the process did not end with the code 0."""
    if code == StoppedError.exit_code:
        raise StoppedError(_STOPPED)
    if code == room.EXIT_CODE:
        raise room.no_room(work, _last_error(log))
    if code != 0:
        raise TrainingError(_reason(code, log))


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
