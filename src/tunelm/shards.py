"""The rows of one route answered by several processes, each with a model of its own.

Rows are dealt out by whole chunks (`predict.CHUNK`), so the same rows share a batch as in one
process, and the answers are the same. Each chunk is a file in the route's folder, written at once
when it is answered: whoever is killed loses the chunk it was at, and any number of processes may
go on. When all are there they become predictions.jsonl, in order.

`python -m tunelm.shards RUN ROUTE --shard 2/8` is one of the processes. It needs the run's folder
alone, so the other seven may be on other machines that see it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunelm.config import TaskConfig
from tunelm.errors import ConfigError, ModelError, TunelmError
from tunelm.evaluate import answering_part
from tunelm.judging.carried_out import FOLDER as JUDGE
from tunelm.lifeline import Parent, end_with_parent
from tunelm.predict import CHUNK, read_predictions, write_predictions
from tunelm.report.read import read_parts
from tunelm.rundir import read_json, write_json
from tunelm.target import open_route
from tunelm.types import Adapted, Example, Prediction

FOLDER = "shards"
"""Of a route's folder: the chunks that are answered and not yet merged, and the processes' logs."""
WITHOUT_MODEL = ("constant", "rule", "nearest", "classifier")
"""Kinds of route that answer faster than another process starts."""
TOLD = 3
"""Exit code of a process that says why it cannot go on: starting it again would not help."""
_POLL_S = 0.1

Progress = Callable[[str, int, int], None]
Parts = Mapping[str, Sequence[Example]]


@dataclass(frozen=True)
class Chunk:
    """Rows of one part that are asked for at once; `start` is the first one's place in it."""

    part: str
    start: int
    rows: tuple[Example, ...]

    def file(self, folder: Path) -> Path:
        """Where its answers stand."""
        return folder / FOLDER / f"{self.part}-{self.start:09d}.jsonl"

    def answers(self, folder: Path) -> list[Prediction] | None:
        """Its answers; None where they are not there, or are those of other rows."""
        found = read_predictions(self.file(folder))
        same = [p.example_id for p in found] == [row.id for row in self.rows]
        return found if same else None


@dataclass
class Shared:
    """How rows were answered: by how many processes, with how many threads each."""

    processes: int
    threads: int
    notes: list[str] = field(default_factory=list[str])

    def to_json(self) -> dict[str, Any]:
        """For fit.json."""
        return {"count": self.processes, "threads": self.threads}


def chunks_of(parts: Parts, folder: Path) -> list[Chunk]:
    """What the route's predictions.jsonl lacks, in order."""
    stored = Counter(p.part for p in read_predictions(folder / "predictions.jsonl"))
    return [
        Chunk(part, start, tuple(rows[start : start + CHUNK]))
        for part, rows in parts.items()
        for start in range(stored[part], len(rows), CHUNK)
    ]


def dealt(chunks: Sequence[Chunk], shards: int) -> list[list[Chunk]]:
    """The chunks of each process: the longest first to whoever has fewest rows.

    The same chunks are always dealt in the same way.
    """
    hands: list[list[Chunk]] = [[] for _ in range(shards)]
    rows = [0] * shards
    for chunk in sorted(chunks, key=lambda c: -len(c.rows)):
        fewest = rows.index(min(rows))
        hands[fewest].append(chunk)
        rows[fewest] += len(chunk.rows)
    return hands


def can_share(kind: str, adapted: Adapted, folder: Path, processes: int) -> bool:
    """Whether a route's rows are to be answered by other processes than this one."""
    here = kind not in WITHOUT_MODEL and "endpoint" not in adapted.detail
    return here and (processes > 1 or (folder / FOLDER).is_dir())


# --- the process that shares out ----------------------------------------------------------------


def answer_in_processes(
    folder: Path, parts: Parts, processes: int, progress: Progress
) -> Shared | None:
    """Have the rows answered that predictions.jsonl in a route's folder lacks, and put them there.

    Args:
        folder: `RUN/routes/NAME/seed-K`, where the route has been fitted.
        parts: all rows by part, in order.
        processes: how many to start; fewer where there are fewer chunks.
        progress: called with (what, done, total).

    Returns:
        What was done; None where it was not worth another process, and nothing was.

    Raises:
        ModelError: a process said why it cannot go on, or died twice. Answers are kept.
    """
    chunks = chunks_of(parts, folder)
    missing = [chunk for chunk in chunks if chunk.answers(folder) is None]
    begun = len(missing) < len(chunks)
    if not begun and sum(len(chunk.rows) for chunk in chunks) <= CHUNK:
        shutil.rmtree(folder / FOLDER, ignore_errors=True)  # as a kill may have left it
        return None
    (folder / FOLDER).mkdir(exist_ok=True)
    count = min(processes, len(missing))
    shared = Shared(count, _threads(count))
    if missing:
        _Crew(folder, shared).work(chunks, progress)
    _merge(folder, parts, chunks)
    shared.notes += _notes(folder)
    shutil.rmtree(folder / FOLDER)
    return shared


def _threads(processes: int) -> int:
    """Threads for each of them: the cores that this process would use, shared."""
    import torch

    return max(1, torch.get_num_threads() // max(1, processes))


class _Crew:
    """The processes that answer, started, watched, and started again once where one dies."""

    def __init__(self, folder: Path, shared: Shared) -> None:
        self.folder = folder
        self.shared = shared
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        self.again: set[int] = set()

    def work(self, chunks: Sequence[Chunk], progress: Progress) -> None:
        """Until every process has ended well. Raises ModelError as `answer_in_processes`."""
        what = f"answers in {self.shared.processes} processes"
        total = sum(len(chunk.rows) for chunk in chunks)
        try:
            for number in range(1, self.shared.processes + 1):
                self._start(number)
            while self.running:
                time.sleep(_POLL_S)
                for number, process in list(self.running.items()):
                    if process.poll() is not None:
                        self._ended(number, process.returncode)
                there = [c for c in chunks if c.file(self.folder).exists()]
                progress(what, sum(len(c.rows) for c in there), total)
        finally:
            for process in self.running.values():
                process.terminate()
            for process in self.running.values():
                process.wait()

    def _log(self, number: int) -> Path:
        return self.folder / FOLDER / f"process-{number}.log"

    def _start(self, number: int) -> None:
        run, name, seed = _place(self.folder)
        command = [sys.executable, "-m", "tunelm.shards", str(run), name, "--seed", str(seed)]
        command += ["--shard", f"{number}/{self.shared.processes}", "--parent", str(os.getpid())]
        with self._log(number).open("wb") as out:
            # a session of its own: the terminal's Ctrl-C reaches this process, which then stops it
            self.running[number] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ | self._environment(number),
            )

    def _environment(self, number: int) -> dict[str, str]:
        """Its share of the cores, and one of the GPUs where there are several."""
        import torch

        found = {"OMP_NUM_THREADS": str(self.shared.threads)}
        if (gpus := torch.cuda.device_count()) > 1:
            named = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(gpus)))
            found["CUDA_VISIBLE_DEVICES"] = named.split(",")[number % gpus]
        return found

    def _ended(self, number: int, code: int) -> None:
        del self.running[number]
        if code == 0:
            return
        log = self._log(number).read_text(encoding="utf-8", errors="replace").strip()
        said = log.rpartition("error: ")[2] if code == TOLD else ""
        if said:
            raise ModelError(said)
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        if code == -9:
            how += ", as by a machine that runs out of memory"
        last = f": {log.splitlines()[-1]}" if log else ""
        who = f"process {number} of {self.shared.processes}"
        if number in self.again:
            raise ModelError(
                f"{who} that answer rows {how}, for the second time{last}. What was answered is "
                "kept: go on with --resume, with fewer compare.processes if memory is short."
            )
        self.again.add(number)
        self.shared.notes.append(f"{who} that answered rows {how}, and was started again{last}")
        self._start(number)


def _merge(folder: Path, parts: Parts, chunks: Sequence[Chunk]) -> None:
    """All chunks into predictions.jsonl, by part and row. Raises ModelError where one lacks."""
    path = folder / "predictions.jsonl"
    by_part: dict[str, list[Prediction]] = {part: [] for part in parts}
    for prediction in read_predictions(path):
        by_part.setdefault(prediction.part, []).append(prediction)
    for chunk in chunks:
        found = chunk.answers(folder)
        if found is None:
            raise ModelError(f"{chunk.file(folder)}: no answers, though all processes are done.")
        by_part[chunk.part] += found
    write_predictions(path, [p for part in by_part.values() for p in part])


def _notes(folder: Path) -> list[str]:
    """What the processes' models had to say, each thing once."""
    found = [read_json(path) for path in sorted((folder / FOLDER).glob("notes-*.json"))]
    return list(dict.fromkeys(note for notes in found for note in notes))


def _place(folder: Path) -> tuple[Path, str, int]:
    """(the run, the route, the seed) of a route's folder."""
    return folder.parents[2], folder.parent.name, int(folder.name.removeprefix("seed-"))


# --- one of the processes -----------------------------------------------------------------------


def answer_shard(
    run: Path,
    name: str,
    shard: tuple[int, int],
    seed: int | None = None,
    alive: Callable[[], bool] = lambda: True,
) -> int:
    """Answer one process's chunks of a fitted route, as far as nobody has; returns how many rows.

    Args:
        run: the run's folder.
        name: the route.
        shard: (which, of how many), from 1.
        seed: of the route; None: its first.
        alive: asked before each chunk whether to go on.

    Raises ConfigError where the route is not fitted or answers elsewhere; ModelError as its model.
    """
    which, of = shard
    if not 1 <= which <= of:
        raise ConfigError(f"--shard {which}/{of}: expected 1/{of} to {of}/{of}.")
    if not (run / "split.json").is_file():
        raise ConfigError(f"{run}: no run with rows there (no split.json).")
    numbers = sorted(int(p.name[5:]) for p in (run / "routes" / name).glob("seed-*"))
    folder = run / "routes" / name / f"seed-{numbers[0] if seed is None and numbers else seed}"
    mine = dealt(chunks_of(read_parts(run), folder), of)[which - 1]
    mine = [chunk for chunk in mine if chunk.answers(folder) is None]
    model = open_route(run, name, seed=seed)
    task = TaskConfig.model_validate(read_json(run / "config.json")["config"]["task"])
    judge = None
    if (run / JUDGE).is_dir():
        from tunelm.judging.open import open_judge

        judge = open_judge(run / JUDGE)
    (folder / FOLDER).mkdir(exist_ok=True)
    done = 0
    for chunk in mine:
        if not alive():
            break
        answers = answering_part(model, chunk.part, task, judge)(chunk.rows)
        write_predictions(chunk.file(folder), answers)
        done += len(answers)
    write_json(folder / FOLDER / f"notes-{which}.json", list(getattr(model, "notes", ())))
    return done


def main(arguments: list[str] | None = None) -> int:
    """One of the processes; returns the exit code: 0 done, 2 wrong use, TOLD where it says why."""
    parser = argparse.ArgumentParser(
        prog="python -m tunelm.shards",
        description="Answer a part of the rows of a route that has been fitted.",
        epilog="example: python -m tunelm.shards runs/first local --shard 2/8",
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("route")
    parser.add_argument("--shard", default="1/1", help="which of how many, such as 2/8")
    parser.add_argument("--seed", type=int, help="the route's first one if it is not given")
    parser.add_argument("--parent", type=int, help="stop when the process of this id is gone")
    given = parser.parse_args(arguments)
    found = re.fullmatch(r"(\d+)/(\d+)", given.shard)
    if found is None:
        parser.error(f"--shard {given.shard}: expected such as 2/8")
    shard = (int(found[1]), int(found[2]))
    try:
        if given.parent:
            end_with_parent()
        alive = Parent(given.parent).is_there if given.parent else lambda: True
        done = answer_shard(given.run, given.route, shard, given.seed, alive)
    except TunelmError as error:
        print(f"error: {error}", file=sys.stderr)
        return TOLD
    print(f"{done} rows answered")
    return 0


if __name__ == "__main__":
    sys.exit(main())
