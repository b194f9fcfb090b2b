"""The same work shared out over processes, the caller's own among them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from tunelm.errors import DataError

Task = TypeVar("Task")
Found = TypeVar("Found")
Progress = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


def in_processes(
    function: Callable[[Task, int, Progress], Found], task: Task, count: int, progress: Progress
) -> list[Found]:
    """`function(task, share, progress)` for the shares 0 to `count` - 1, each in its own process.

    Share 0 runs here, and only it reports progress. Function, task and what it returns must be
    picklable. When one fails, or the caller is interrupted, the others are ended.

    Raises:
        DataError: a process ended without an answer (killed, out of memory).
        Exception: whatever a share raised.
    """
    with _children(function, task, count) as lines:
        found = [function(task, 0, progress)]
        return found + [_answer(line) for line in lines]


@contextmanager
def _children(function: Any, task: Any, count: int) -> Generator[list[Connection]]:
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads can hang
    children: list[Any] = []
    lines: list[Connection] = []
    try:
        for share in range(1, count):
            ours, theirs = context.Pipe(duplex=False)
            child = context.Process(
                target=_child, args=(function, task, share, theirs), daemon=True
            )
            child.start()
            theirs.close()
            children.append(child)
            lines.append(ours)
        yield lines
    finally:
        for child, line in zip(children, lines, strict=False):
            line.close()
            if child.is_alive():
                child.terminate()
            child.join()


def _answer(line: Connection) -> Any:
    try:
        done, value = line.recv()
    except EOFError:
        raise DataError(
            "a process of this command ended before its work was done: it was killed, or memory"
            " ran out. Nothing was written; fewer --processes need less memory."
        ) from None
    if not done:
        raise value
    return value


def _child(function: Any, task: Any, share: int, line: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, and ends this process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        answer = (True, function(task, share, silent))
    except Exception as error:
        answer = (False, error)
    try:
        line.send(answer)
    except OSError:  # nobody waits for it any more
        return


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
