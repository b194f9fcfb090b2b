"""What the jobs of a run have written, all their turns in one."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

from tunelm.cluster.jobs import TRIALS, jobs_of, trials_of
from tunelm.cluster.script import FOLDER

_POLL_S = 1.0


def log_lines(run: Path, follow: bool, trial: int | None = None) -> Iterator[str]:
    """The logs of a run's jobs in pieces; with `follow` until they are over, through restarts.

    The lines of a study say of which part they are; with `trial` there are only that one's.
    """
    read: dict[Path, int] = {}
    while True:
        jobs = jobs_of(run)
        over = not (follow and any(job.is_open for job in jobs))
        if trial is None:
            logs = {path: sign for job in jobs for path, sign in _logs(run, job.id, job.part)}
        else:
            logs = {run / FOLDER / f"{trials_of(jobs).id}_{trial}.log": ""}
        for path, sign in logs.items():
            if path.is_file():
                yield from _new(path, sign, read, over)
        if over:
            return
        time.sleep(_POLL_S)


def _logs(run: Path, job: str, part: str) -> list[tuple[Path, str]]:
    """(file, what stands before its lines)."""
    if part != TRIALS:
        return [(run / FOLDER / f"{job}.log", f"[{part}] " if part else "")]
    found = [(int(p.stem.rpartition("_")[2]), p) for p in (run / FOLDER).glob(f"{job}_*.log")]
    return [(path, f"[trial {number}] ") for number, path in sorted(found)]


def _new(path: Path, sign: str, read: dict[Path, int], over: bool) -> Iterator[str]:
    """What was written since; behind a sign only whole lines, unless no more will come."""
    with path.open("rb") as file:
        file.seek(read.get(path, 0))
        piece = file.read()
    if sign and not over:
        piece = piece[: piece.rfind(b"\n") + 1]
    read[path] = read.get(path, 0) + len(piece)
    if piece:
        text = piece.decode("utf-8", errors="replace")
        yield re.sub(r"^(?=.)", sign, text, flags=re.M) if sign else text
