"""`tunelm serve` as the provider of one job: a process of its own, reached over HTTP.

It ends when this process does. What it was training goes on from its state folder when a server
is started there again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import filelock

from tunelm.config import ModelConfig
from tunelm.errors import TrainingError
from tunelm.rundir import write_json

READY_S = 180.0
"""Longest wait for a server: a model of several billion parameters has to be read."""
STOP_S = 60.0
"""Longest wait for one that was asked to end: training writes a checkpoint first."""
_POLL_S = 0.1
MOST_STARTS = 5


class LocalServer:
    """A server on a free port of this machine, as a context manager.

    Args:
        base: the model to serve and to train on.
        folder: where its files, jobs and adapters stand (`state`), and its log.

    Raises:
        TrainingError: it did not become ready, with the last line of its log.
    """

    def __init__(self, base: ModelConfig, folder: Path) -> None:
        self.base = base
        self.folder = folder
        self.log = folder / "log.txt"
        self._ready = folder / "ready.json"
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0
        self.url = ""

    def adapter(self, job_id: str) -> Path:
        """Where the adapter of a succeeded job stands."""
        return self.folder / "state" / "models" / job_id

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop()

    def revive(self) -> str:
        """Its address; where it has died, it is started again.

        Raises TrainingError when it keeps dying.
        """
        process = self._process
        if process is not None and process.poll() is not None:
            if self._starts >= MOST_STARTS:
                raise TrainingError(self._why(f"ended {self._starts} times", process.returncode))
            self._start()
        return self.url

    def _start(self) -> None:
        self._starts += 1
        self._wait_for_the_last_one()
        self._ready.unlink(missing_ok=True)
        with self.log.open("ab") as out:
            # a session of its own: the terminal's Ctrl-C reaches this process, which then stops it
            self._process = process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + READY_S
        while not self._ready.is_file():
            if process.poll() is not None:
                raise TrainingError(self._why("did not start", process.returncode))
            if time.monotonic() > deadline:
                raise TrainingError(self._why(f"was not ready after {READY_S:g} s", None))
            time.sleep(_POLL_S)
        self.url = json.loads(self._ready.read_text(encoding="utf-8"))["url"]

    def _wait_for_the_last_one(self) -> None:
        """Until the server of a client that was killed has ended: it lets go of the folder then."""
        state = self.folder / "state"
        state.mkdir(parents=True, exist_ok=True)
        try:
            with filelock.FileLock(state / ".lock", timeout=STOP_S):
                pass
        except filelock.Timeout:
            raise TrainingError(
                f"{state}: another server uses this folder. Stop it, and go on with --resume."
            ) from None

    def _command(self) -> list[str]:
        command = [
            sys.executable,
            "-m",
            "tunelm",
            "serve",
            self._target(),
            "--port",
            "0",
            "--no-chat",
            "--engine",
            "light",  # what it answers is held against the route `local`
        ]
        command += ["--state", str(self.folder / "state"), "--ready-file", str(self._ready)]
        return [*command, "--parent", str(os.getpid())]

    def _target(self) -> str:
        """The base's name; where more is said of it, a run without routes, which holds that."""
        if self.base == ModelConfig(base=self.base.base):
            return self.base.base
        run = self.folder / "base"
        (run / "routes").mkdir(parents=True, exist_ok=True)
        config = {"task": {"name": "base"}, "compare": {"routes": []}}
        config["model"] = json.loads(self.base.model_dump_json())
        write_json(run / "config.json", {"config": config})
        return str(run)

    def _stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _why(self, what: str, code: int | None) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = lines[-1].removeprefix("error: ") if lines else "it said nothing"
        ended = "" if code is None else f" (code {code})"
        return f"tunelm serve {what}{ended}: {last} Its log: {self.log}."
