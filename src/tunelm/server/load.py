"""A route under the load of a class, opened as the server opens it: how many at once, how fast.

Simulated students hold conversations with a tutor on the route, N side by side; each writes again
the moment it has its answer, so N answers are always under way. The problems are those of the dev
rows, never of the test rows. A task without conversations is asked its dev rows. The students are
in this process and nothing goes over a network, so the network's own time is in no figure.
"""

from __future__ import annotations

import itertools
import math
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tunelm.data.records import Record
from tunelm.errors import DataError, ModelError
from tunelm.models.base import ChatModel
from tunelm.models.budget import Wallet
from tunelm.report.read import Run, read_run
from tunelm.rundir import host, peak_memory, versions
from tunelm.scoring.dialogue_metrics import TALKS
from tunelm.server.app import check_base
from tunelm.server.catalog import open_target
from tunelm.server.chat_models import FULL, open_served
from tunelm.server.engine import LightEngine, QueueFullError
from tunelm.server.listen import SWITCH_S
from tunelm.server.settings import ServerSettings
from tunelm.target import open_route, read_route
from tunelm.tutor.dialogues import TEACHER, Turn, from_record
from tunelm.tutor.safety_check import check_safety
from tunelm.tutor.students import make_student
from tunelm.tutor.talks import MOST_TURNS, talks_of
from tunelm.tutor.tutor import Reply, TeacherStudentDialogueModel, TutorSettings
from tunelm.types import Example, Request

LEVEL_S = 15.0
"""How long each number of students goes on; answers under way at the end are waited for."""
TOO_SLOW = 2.0
"""Where answers take so many times as long as they may, more students are not tried."""
RETRY_S = 1.0
"""How long a student waits who got no answer."""
MOST_TALKS = 60
"""Conversations, where the run holds none on its dev rows."""

Progress = Callable[[str, int, int], None]


@dataclass
class _Level:
    """What a number of students met; shared by their threads."""

    until: float
    lock: threading.Lock = field(default_factory=threading.Lock)
    first_s: list[float] = field(default_factory=list[float])
    reply_s: list[float] = field(default_factory=list[float])
    tokens: list[int | None] = field(default_factory=list[int | None])
    conversations: int = 0
    failed: int = 0
    refused: int = 0
    error: str | None = None

    @property
    def open(self) -> bool:
        """Whether another message may be sent."""
        return time.monotonic() < self.until

    def answered(self, first: float | None, whole: float, tokens: int | None) -> None:
        """A whole answer; `first`: seconds to its first text."""
        with self.lock:
            if first is not None:
                self.first_s.append(first)
            self.reply_s.append(whole)
            self.tokens.append(tokens)

    def fail(self, error: Exception) -> None:
        """The server had no room, or the model failed."""
        with self.lock:
            full = isinstance(error, QueueFullError) or str(error).startswith(FULL.split("{")[0])
            self.refused += full
            self.failed += not full
            self.error = self.error or (None if full else str(error))
        time.sleep(RETRY_S)


Visit = Callable[[Example, _Level], None]
"""One conversation, or one answer, noted in a level."""


def take_load(
    run: Path,
    route: str,
    students: Sequence[int],
    limit_s: float,
    wallet: Wallet | None,
    progress: Progress,
) -> dict[str, Any]:
    """Put each number of students on a route of a run, the fewest first.

    Args:
        run: a run's folder.
        route: one of its routes that finished.
        students: how many at once, for each level.
        limit_s: how long an answer may take; far beyond it, no higher level is tried.
        wallet: what pays for a route behind an API.
        progress: called with (what, done, total).

    Returns:
        `levels` with what was measured at each, `skipped` the levels that were not tried, `safety`
        (`check_safety`; None without conversations), and on which machine. JSON-ready.

    Raises:
        DataError: the run has no dev rows to ask.
        TunelmError: the route cannot be opened, or not even one student got an answer.
    """
    began, busy = time.monotonic(), psutil.getloadavg()[0]
    ordered = sorted(set(students))
    stored = read_run(run)
    visits, held = _visits(stored)
    task = stored.task
    with _opened(run, route, wallet) as model:
        tutor = _tutor(model, task) if held else None
        visit = _talking(tutor) if tutor else _asking(model, task["max_tokens"])
        warm = _Level(time.monotonic())
        visit(visits[0], warm)  # one answer: lazy parts of the model and the kernels are there then
        if not warm.reply_s:
            raise ModelError(f"{run / route}: did not answer, so there is no load to measure: "
                             f"{warm.error or 'it was refused'}")  # fmt: skip
        levels = _levels(visit, visits, ordered, limit_s, progress)
        progress("messages that are not for a lesson", len(ordered), len(ordered))
        safety = check_safety(model, tutor.settings) if tutor else None
    return {
        "levels": levels,
        "skipped": ordered[len(levels) :],
        "kind": "conversations" if held else "single answers",
        "problems": len(visits),
        "safety": safety,
        "max_tokens": task["max_tokens"],
        "level_s": LEVEL_S,
        "too_slow": TOO_SLOW,
        "host": host(),
        "load_average": busy,
        "versions": versions(),
        "seconds": time.monotonic() - began,
    }


def _visits(run: Run) -> tuple[list[Example], bool]:
    """(the conversations to hold, True), or where the task has none (the dev rows, False)."""
    dev = run.parts["dev"]
    if run.task["kind"] == "dialogue":
        talks = run.parts.get(f"dev{TALKS}") or talks_of(dev, MOST_TALKS)
        if talks:
            return list(talks), True
    if not dev:
        raise DataError([f"{run.path}: has no dev rows, and test rows are not asked for this."])
    return dev, False


@contextmanager
def _opened(run: Path, route: str, wallet: Wallet | None) -> Generator[ChatModel]:
    """The route behind the server's engine, or at its endpoint."""
    if "endpoint" in read_route(run, route)[1].detail:
        yield open_route(run, route, wallet)
        return
    target = open_target(str(run / route))
    check_base(target)
    as_served = ServerSettings(str(run / route), run)
    engine = LightEngine(
        target.config, as_served.max_batch, as_served.max_waiting, as_served.max_adapters
    )
    engine.start()
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    try:
        served = target.catalog.get(target.winner or target.catalog.base)
        yield open_served(served, engine)[0]
    finally:
        sys.setswitchinterval(before)
        engine.stop()


def _tutor(model: ChatModel, task: dict[str, Any]) -> TeacherStudentDialogueModel:
    return TeacherStudentDialogueModel(model, settings=TutorSettings(max_tokens=task["max_tokens"]))


def _levels(
    visit: Visit,
    visits: Sequence[Example],
    students: Sequence[int],
    limit_s: float,
    progress: Progress,
) -> list[dict[str, Any]]:
    """What was measured at each level, up to the first that was far too slow."""
    levels: list[dict[str, Any]] = []
    for number, count in enumerate(students):
        progress(f"{count} students at once", number, len(students))
        levels.append(_level(visit, visits, count))
        if (levels[-1]["reply_s"]["p95"] or math.inf) > TOO_SLOW * limit_s:
            break
    return levels


def _level(visit: Visit, visits: Sequence[Example], count: int) -> dict[str, Any]:
    """So many students for LEVEL_S; each has at least one answer."""
    start = threading.Barrier(count + 1)
    level = _Level(math.inf)
    turns = itertools.cycle(visits)

    def student() -> None:
        start.wait()
        while True:
            with level.lock:
                talk = next(turns)
            visit(talk, level)
            if not level.open:
                return

    threads = [threading.Thread(target=student, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    level.until = time.monotonic() + LEVEL_S
    start.wait()
    began = time.monotonic()
    for thread in threads:
        thread.join()
    return _measured(level, count, time.monotonic() - began)


def _talking(tutor: TeacherStudentDialogueModel) -> Visit:
    """A conversation as a pupil has it, in a stream; broken off where the level's time is over."""

    def visit(talk: Example, level: _Level) -> None:
        messages = tuple({"role": m.role, "content": m.content} for m in talk.messages)
        record = Record("", 0, "messages", messages, extra={**talk.metadata, "group": talk.group})
        dialogue, student = from_record(record), make_student(talk.metadata["profile"])
        for _ in range(MOST_TURNS):
            reply = _timed(tutor.stream_reply(dialogue), level)
            if reply is None:
                return
            dialogue = dialogue.plus(Turn(TEACHER, reply.text, reply.strategy))
            if reply.closes:
                break
            if not level.open:
                return
            dialogue = student.answer(dialogue)
        with level.lock:
            level.conversations += 1

    return visit


def _asking(model: ChatModel, max_tokens: int) -> Visit:
    """One answer to a dev row, in a stream."""

    def visit(row: Example, level: _Level) -> None:
        began, first, tokens = time.monotonic(), None, None
        try:
            for delta in model.stream(Request(row.messages, max_tokens=max_tokens)):
                if delta.text and first is None:
                    first = time.monotonic() - began
                if delta.usage is not None:
                    tokens = delta.usage.completion_tokens
        except (ModelError, QueueFullError) as error:
            level.fail(error)
            return
        level.answered(first, time.monotonic() - began, tokens)

    return visit


def _timed(pieces: Iterator[str | Reply], level: _Level) -> Reply | None:
    """The reply at the end of a stream, timed; None where it failed."""
    began, first = time.monotonic(), None
    try:
        for piece in pieces:
            if isinstance(piece, Reply):
                tokens = piece.raw.usage.completion_tokens
                level.answered(first, time.monotonic() - began, tokens)
                return piece
            if piece and first is None:
                first = time.monotonic() - began
    except (ModelError, QueueFullError) as error:
        level.fail(error)
    return None


def _measured(level: _Level, count: int, seconds: float) -> dict[str, Any]:
    known = [n for n in level.tokens if n is not None]
    counted = len(known) == len(level.tokens)
    replies = len(level.reply_s)
    return {
        "students": count,
        "seconds": seconds,
        "replies": replies,
        "conversations": level.conversations,
        "failed": level.failed,
        "refused": level.refused,
        "first_error": level.error,
        "first_text_s": _quantiles(level.first_s),
        "reply_s": _quantiles(level.reply_s),
        "replies_per_second": replies / seconds,
        "tokens_per_second": sum(known) / seconds if counted and known else None,
        "memory_bytes": peak_memory(),
        "gpu_memory_bytes": _gpu_memory(),
    }


def _quantiles(values: Sequence[float]) -> dict[str, Any]:
    """Median and 95th percentile by nearest rank: of few values the second is the largest.

    >>> _quantiles([0.3, 0.1, 0.2])
    {'n': 3, 'p50': 0.2, 'p95': 0.3}
    """
    ordered = sorted(values)

    def rank(share: float) -> float | None:
        return ordered[math.ceil(share * len(ordered)) - 1] if ordered else None

    return {"n": len(ordered), "p50": rank(0.5), "p95": rank(0.95)}


def _gpu_memory() -> int | None:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return int(torch.cuda.max_memory_allocated())
