"""A process that does not outlive the one it works for."""

from __future__ import annotations

import ctypes
import signal
import sys
import time

import psutil

_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Have the system send this process SIGTERM when the one that started it is gone (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Parent:
    """A process by its id; another that gets the id later is not taken for it."""

    def __init__(self, pid: int) -> None:
        try:
            self._process = psutil.Process(pid)
        except psutil.NoSuchProcess:
            self._process = None

    def is_there(self) -> bool:
        """Whether it runs; one that has ended and that nobody waited for does not."""
        try:
            found = self._process
            return bool(found and found.is_running() and found.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False

    def wait(self, every_s: float) -> None:
        """Return once it is gone, looked for every so many seconds."""
        while self.is_there():
            time.sleep(every_s)
