"""`tunelm data prepare --to shards` on more rows than one would hold: time, memory, what is found.

    python benchmarks/stream.py                             # 300,000 and 3,000,000 rows
    python benchmarks/stream.py --rows 30000 300000 --processes 1
    python benchmarks/stream.py --disk /scratch             # where the rows lie meanwhile

Rows are made by the script: question and answer, 20 to 50 words by Zipf's law, with a topic for a
label; one in twenty cut from a template; 2% repeat an earlier row, 3% are an earlier row with 4% of
the question's words replaced. Which of them the command dropped is read from its ledger: a planted
row counts as found where its line says so. Prints a Markdown table with wall and CPU seconds of all
processes, the most memory they held together (resident, shared pages counted in each), and exits
with 1 if a promise is broken.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

MAX_BYTES, MAX_RATIO = 4_000_000_000, 1.2
MIN_EXACT, MIN_NEAR = 1.0, 0.95
EXACT, NEAR, TEMPLATE = 0.02, 0.05, 0.10
VOCABULARY, RECENT = 50_000, 2000
KINDS = b"uenc"
"""Of each row: unlike the others, equal to one, near to one, cut from the template."""


def main() -> None:
    """Run both sizes, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs=2, default=(300_000, 3_000_000))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--disk", type=Path, help="where the rows lie meanwhile")
    given = parser.parse_args()
    print("| rows | input | wall s | CPU s | rows/s | peak memory | disk at most | exact found "
          "| near found | others dropped | parts |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    found: list[dict[str, Any]] = []
    for count in given.rows:
        with tempfile.TemporaryDirectory(dir=given.disk) as folder:
            found.append(one(Path(folder), count, given.processes))
    ratio = found[1]["cpu"] / found[0]["cpu"] / (given.rows[1] / given.rows[0])
    print(f"\nCPU seconds a row: {ratio:.2f} times those of the smaller run (at most {MAX_RATIO})")
    kept = (
        ratio <= MAX_RATIO
        and all(run["memory"] < MAX_BYTES for run in found)
        and all(run["exact"] >= MIN_EXACT and run["near"] >= MIN_NEAR for run in found)
    )
    sys.exit(0 if kept else 1)


def one(folder: Path, count: int, processes: int) -> dict[str, Any]:
    """Make the rows, prepare them, see what was found of what was planted."""
    kinds = write_rows(folder / "rows.jsonl", count)
    command = [sys.executable, "-m", "tunelm", "data", "prepare", str(folder / "rows.jsonl")]
    command += ["--out", str(folder / "out"), "--to", "shards", "--label", "topic"]
    command += ["--processes", str(processes), "--json"]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    watch = Watch(process.pid, folder)
    said = process.communicate()[0]
    wall = time.perf_counter() - began
    watch.end()
    if process.returncode:
        sys.exit(f"the command failed ({process.returncode})")
    about = json.loads(said.splitlines()[-1])
    run = look(folder / "out", kinds) | {
        "wall": wall,
        "cpu": watch.cpu,
        "memory": watch.memory,
    }
    parts = ", ".join(f"{name} {part['rows']:,}" for name, part in about["parts"].items())
    size = (folder / "rows.jsonl").stat().st_size
    print(
        f"| {count:,} | {size / 1e6:,.0f} MB | {wall:,.0f} | {watch.cpu:,.0f} "
        f"| {count / wall:,.0f} | {watch.memory / 1e9:.2f} GB | {watch.disk / 1e9:.2f} GB "
        f"| {run['exact']:.2%} | {run['near']:.2%} | {run['others']:,} | {parts} |",
        flush=True,
    )
    return run


def look(out: Path, kinds: bytes) -> dict[str, Any]:
    """The share of planted rows that the ledger says were dropped, and how many others were."""
    import pyarrow.parquet as pq

    dropped: Counter[str] = Counter()
    planted = Counter(chr(kind) for kind in kinds)
    at = 0
    for shard in sorted((out / "rows").iterdir()):
        for status in pq.read_table(shard, columns=["status"])["status"].to_pylist():
            if status in ("duplicate", "near-duplicate"):
                dropped[chr(kinds[at])] += 1
            at += 1
    assert at == len(kinds), "the ledger has a line for every row"
    return {
        "exact": dropped["e"] / planted["e"],
        "near": dropped["n"] / planted["n"],
        "others": dropped["u"] + dropped["c"],
    }


def write_rows(path: Path, count: int) -> bytes:
    """Synthetic rows, the same for the same count; what each of them is."""
    rng = random.Random(count)
    names = [f"{'bcdfgklmnprst'[n % 13]}{'aeiou'[n % 5]}{n:x}" for n in range(VOCABULARY)]
    total, weights = 0.0, []
    for n in range(VOCABULARY):
        total += 1 / (n + 10)
        weights.append(total)
    recent: list[dict[str, str]] = []
    kinds = bytearray()
    drawn: list[str] = []

    def draw(size: int) -> list[str]:
        if len(drawn) < size:
            drawn.extend(rng.choices(names, cum_weights=weights, k=100_000))
        taken = drawn[-size:]
        del drawn[-size:]
        return taken

    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            luck = rng.random()
            kind = "u"
            if recent and luck < EXACT:
                row, kind = rng.choice(recent), "e"
            elif recent and luck < NEAR:
                row, kind = dict(rng.choice(recent)), "n"
                words = row["question"].split()
                for place in rng.sample(range(len(words)), max(1, round(0.04 * len(words)))):
                    words[place] = f"{draw(1)[0]}x{number % 97}"
                row["question"] = " ".join(words)
            elif luck < TEMPLATE:
                kind = "c"
                what, town = draw(2)
                row = {
                    "question": f"What is the usual price of {what} {number} in {town} town?",
                    "answer": f"It is about {rng.randrange(9999)} coins.",
                    "topic": "price",
                }
            else:
                row = {
                    "question": " ".join(draw(rng.randint(16, 30))),
                    "answer": " ".join(draw(rng.randint(8, 20))),
                    "topic": f"topic-{rng.randrange(20)}",
                }
            if kind == "u":  # what is planted is a copy of a row that stays
                if len(recent) < RECENT:
                    recent.append(row)
                else:
                    recent[rng.randrange(RECENT)] = row
            kinds += kind.encode()
            file.write(json.dumps(row) + "\n")
    return bytes(kinds)


class Watch(threading.Thread):
    """Memory and CPU seconds of a process and its children, and the disk, four times a second."""

    def __init__(self, pid: int, folder: Path) -> None:
        import psutil

        super().__init__(daemon=True)
        self._psutil, self._process, self._folder = psutil, psutil.Process(pid), folder
        self._given = sum(f.stat().st_size for f in folder.iterdir())
        self._seconds: dict[int, float] = {}
        self.memory = self.disk = 0
        self._ended = threading.Event()
        self.start()

    @property
    def cpu(self) -> float:
        """Seconds of all processes together."""
        return sum(self._seconds.values())

    def run(self) -> None:
        """Look until the end."""
        while not self._ended.wait(0.25):
            held = 0
            try:
                for process in (self._process, *self._process.children(recursive=True)):
                    times = process.cpu_times()
                    self._seconds[process.pid] = times.user + times.system
                    held += process.memory_info().rss
            except self._psutil.Error:
                continue
            self.memory = max(self.memory, held)
            self.disk = max(self.disk, _size(self._folder) - self._given)

    def end(self) -> None:
        """No more to look at."""
        self._ended.set()
        self.join()


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:  # gone in between
            continue
    return total


if __name__ == "__main__":
    main()
