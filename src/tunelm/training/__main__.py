"""`python -m tunelm.training WORK`: train what WORK describes, in this process."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path

import psutil

from tunelm import room
from tunelm.errors import StoppedError, TrainingError, TunelmError
from tunelm.lifeline import Parent, end_with_parent
from tunelm.training.process import FAILURE

BEAT_S = 2.0
_GONE_S = 30.0
_WAIT_S = _GONE_S + 10
"""Longer than a process lives whose parent is gone."""


class Stop:
    """Whether training is to end after its current step.

    A bare flag, because signals come in numbers (the system's, the parent's, a cluster's) and one
    interrupts the handler of another: the lock of a threading.Event would wait for itself, forever.
    """

    def __init__(self) -> None:
        self._asked = False

    def ask(self, *_: object) -> None:
        """Fit to be a signal's handler."""
        self._asked = True

    def is_asked(self) -> bool:
        """For whoever trains, before each step."""
        return self._asked


def main(arguments: list[str] | None = None) -> int:
    """Run one training job; returns the exit code: 0 done, 1 failed, 2 wrong use, 130 stopped.

    Where there is no room to write, room.EXIT_CODE.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tunelm.training",
        description="Train the adapter that WORK/job.json describes, or go on with it.",
        epilog="example: python -m tunelm.training runs/edu-qa/routes/local/seed-0/training",
    )
    parser.add_argument("work", type=Path, help="folder with job.json, train.jsonl, dev.jsonl")
    parser.add_argument("--scorer", help='module:function, for stop_on = "metric"')
    parser.add_argument("--parent", type=int, help="stop when the process of this id is gone")
    parser.add_argument("--nice", type=int, default=0, help="give way to others by so much")
    given = parser.parse_args(arguments)
    if given.nice and hasattr(os, "nice"):
        os.nice(given.nice)  # before there are other threads, which inherit it
    stop = Stop()
    signal.signal(signal.SIGTERM, stop.ask)
    signal.signal(signal.SIGINT, stop.ask)
    try:
        if not given.work.is_dir():
            raise TrainingError(f"{given.work}: no such folder.")
        if given.parent is not None:
            _die_with(given.parent, stop)
        if os.environ.get("RANK", "0") == "0":
            _take_over(given.work, stop)
            _start_heartbeat(given.work)
        from tunelm.training.worker import load_scorer, run

        run(given.work, load_scorer(given.scorer) if given.scorer else None, stop.is_asked)
    except TunelmError as error:
        return _failed(given.work, error.exit_code, str(error), foreseen=True)
    except Exception as error:
        if room.is_full(error):
            room.sweep(given.work)
            return _failed(given.work, room.EXIT_CODE, room.why(error), foreseen=True)
        traceback.print_exc()
        return _failed(given.work, 1, f"{type(error).__name__}: {error}", foreseen=False)
    return 0


def _failed(work: Path, code: int, reason: str, *, foreseen: bool) -> int:
    """Say why. Of several processes the first leaves it for the one that started them all."""
    print(f"error: {reason}", file=sys.stderr)
    if "RANK" in os.environ and work.is_dir():
        with contextlib.suppress(OSError), (work / FAILURE).open("x") as file:
            json.dump({"code": code, "reason": reason, "foreseen": foreseen}, file)
    return code


def _die_with(parent: int, stop: Stop) -> None:
    """Stop after the current step, with a checkpoint, once the parent is gone."""
    end_with_parent()
    process = Parent(parent)
    if not process.is_there():
        raise TrainingError("the process that started this training is gone.")

    def watch() -> None:
        process.wait(BEAT_S)
        stop.ask()
        time.sleep(_GONE_S)  # for a last checkpoint; a step that takes longer is given up
        os._exit(130)

    threading.Thread(target=watch, daemon=True).start()


def _take_over(work: Path, stop: Stop) -> None:
    """Wait for another process in this folder to end; refuse if it does not."""
    heartbeat = work / "heartbeat"
    until = time.monotonic() + _WAIT_S
    while _alive(heartbeat):
        if stop.is_asked():
            raise StoppedError(f"{work}: stopped before it began.")
        if time.monotonic() > until:
            pid, _, host = heartbeat.read_text().partition(" ")
            raise TrainingError(
                f"{work}: process {pid} on {host} is training here. Wait, or stop it."
            )
        time.sleep(0.2)


def _alive(heartbeat: Path) -> bool:
    try:
        pid, _, host = heartbeat.read_text().partition(" ")
        if host != socket.gethostname():  # a node that died has no processes here to look for
            return time.time() - heartbeat.stat().st_mtime < _GONE_S
        pid = int(pid)
        # another start of the same process id: the file is older than the process
        return pid != os.getpid() and (
            psutil.Process(pid).create_time() <= heartbeat.stat().st_mtime
            and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        )
    except (OSError, ValueError, psutil.Error):
        return False


def _start_heartbeat(work: Path) -> None:
    path = work / "heartbeat"
    path.write_text(f"{os.getpid()} {socket.gethostname()}")

    def beat() -> None:
        while True:
            time.sleep(BEAT_S)
            path.touch()

    threading.Thread(target=beat, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
