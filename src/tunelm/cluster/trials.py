"""The trials of a study as tasks of an array: which are left, and what became of them in words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunelm.cluster.slurm import JobState
from tunelm.cluster.words import OPEN, WAITS
from tunelm.rundir import read_json

_RANGE = re.compile(r"(\d+)(?:-(\d+))?(?::(\d+))?")
_NAMED = 5
"""At most so many trials are named with what befell them."""


@dataclass(frozen=True)
class Piece:
    """Slurm's state of a task, or of tasks that wait together, and what it is in words."""

    state: JobState
    said: str

    @property
    def numbers(self) -> list[int]:
        """The tasks."""
        return numbers_in(self.state.task or "")


def numbers_in(tasks: str) -> list[int]:
    """The numbers of an array's tasks as Slurm writes them.

    >>> numbers_in("0-3,7,10-14:2%4")
    [0, 1, 2, 3, 7, 10, 12, 14]
    """
    found: list[int] = []
    for first, last, step in _RANGE.findall(tasks.partition("%")[0]):
        found += range(int(first), int(last or first) + 1, int(step or 1))
    return found


def as_tasks(numbers: Iterable[int], at_once: int | None) -> str:
    """Numbers as sbatch takes them, at most `at_once` of them at a time.

    >>> as_tasks([0, 1, 2, 5, 7, 8], 4), as_tasks([3], None)
    ('0-2,5,7-8%4', '3')
    """
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    parts = [str(first) if first == last else f"{first}-{last}" for first, last in spans]
    return ",".join(parts) + (f"%{at_once}" if at_once else "")


def ended_trials(run: Path, count: int) -> dict[int, tuple[str, str | None]]:
    """(state, reason) of each of the trials that came to their end, by number."""
    found: dict[int, tuple[str, str | None]] = {}
    for number in range(count):
        path = run / "study" / "trials" / f"{number:03d}" / "trial.json"
        if path.is_file():
            trial = read_json(path)
            found[number] = (trial["state"], trial["reason"])
    return found


def trials_in_words(run: Path, count: int, pieces: Sequence[Piece]) -> str:
    """How many trials are done, which failed and of what, which run, and why others wait."""
    ended = ended_trials(run, count)
    is_open = {n: p for p in pieces if p.state.state in OPEN for n in p.numbers if n not in ended}
    waiting = [n for n, piece in is_open.items() if piece.state.state == "PENDING"]
    running = [n for n in is_open if n not in waiting]
    gone = {n: p.said for p in pieces for n in p.numbers if n not in ended and n not in is_open}
    lost = [n for n in range(count) if n not in ended and n not in is_open]
    parts: list[str] = []
    for state in ("done", "pruned"):
        if its := [n for n, (its_state, _) in ended.items() if its_state == state]:
            parts.append(f"{len(its)} {state}")
    if failed := {n: reason for n, (state, reason) in ended.items() if state == "failed"}:
        parts.append(f"{len(failed)} failed ({_named(failed)})")
    if lost:
        named = {
            n: gone.get(n, "never begun: cancelled, or forgotten by the cluster") for n in lost
        }
        parts.append(f"{len(lost)} without an end ({_named(named)}): submit again to go on")
    if running:
        parts.append(f"{len(running)} under way ({', '.join(map(str, sorted(running)))})")
    if waiting:
        reasons = {is_open[n].state.reason: n for n in waiting}
        why = "; ".join(WAITS.get(reason, reason) for reason in reasons)
        parts.append(f"{len(waiting)} waiting: {why}")
    return f"{count} trials: {', '.join(parts)}"


def _named(reasons: Mapping[int, str | None]) -> str:
    shown = [f"{number}: {reason or 'failed'}" for number, reason in list(reasons.items())[:_NAMED]]
    more = [f"and {len(reasons) - _NAMED} more"] if len(reasons) > _NAMED else []
    return "; ".join(shown + more)
