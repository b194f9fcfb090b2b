"""Rows to tokens, with the proof of the mask: one process beside several, on the same rows.

    python benchmarks/tokenizing.py                           # 100,000 rows; 1 and 2 processes
    python benchmarks/tokenizing.py --rows 300000 --processes 1 2 4 8

Rows are those of benchmarks/stream.py, as chats for `tunelm-nano`. Each number of processes runs
once forwards and once backwards. Prints a Markdown table, with what the process that reads and
writes took of a core, and exits with 1 if the files differ.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from stream import write_rows

from tunelm.config import ModelConfig
from tunelm.models.loading import Base, load_tokenizer, resolve_base
from tunelm.route_settings import LocalSettings
from tunelm.training.adapter import load_shapes
from tunelm.training.encoding import rules_of, shared_out
from tunelm.training.job import JobRows, TrainingJob
from tunelm.training.shards import EncodedShards, stored


def main() -> None:
    """Run all ways, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    given = parser.parse_args()
    job = TrainingJob(model=ModelConfig(), settings=LocalSettings())
    base = Base(load_shapes(resolve_base(job.model), None), load_tokenizer(job.model), "cpu")
    with tempfile.TemporaryDirectory() as folder:
        rows = chats(Path(folder), given.rows)
        runs = [
            (count, *one(Path(folder) / f"{turn}-{count}", job, base, rows, count))
            for turn, ways in enumerate((given.processes, given.processes[::-1]))
            for count in ways
        ]
    print("| processes | rows a second | seconds | to one process | CPU of the one that writes |")
    print("|---|---|---|---|---|")
    alone = sum(run[1] for run in runs if run[0] == given.processes[0])
    for count in given.processes:
        mine = [run for run in runs if run[0] == count]
        seconds = sum(run[1] for run in mine)
        print(
            f"| {count} | {2 * len(rows) / seconds:,.0f} "
            f"| {', '.join(f'{run[1]:.1f}' for run in mine)} | {alone / seconds:.2f} "
            f"| {sum(run[2] for run in mine) / seconds:.0%} |"
        )
    same = len({run[3] for run in runs}) == 1
    print(
        f"\n{len(rows):,} rows, {runs[0][4]:,} tokens; the files are {'' if same else 'NOT '}alike"
    )
    sys.exit(0 if same else 1)


def chats(folder: Path, count: int) -> JobRows:
    """The rows as a training process reads them."""
    write_rows(folder / "rows.jsonl", count)
    path = folder / "train.jsonl"
    with (folder / "rows.jsonl").open(encoding="utf-8") as made, path.open("w") as file:
        for number, line in enumerate(made):
            row = json.loads(line)
            said = [
                {"role": "user", "content": row["question"]},
                {"role": "assistant", "content": row["answer"]},
            ]
            file.write(json.dumps({"id": f"row-{number}", "messages": said}) + "\n")
    return JobRows(path)


def one(
    folder: Path, job: TrainingJob, base: Base, rows: JobRows, count: int
) -> tuple[float, float, str, int]:
    """(wall seconds, CPU seconds of this process, what the files hold, tokens)."""
    rules = rules_of(job, base)
    wall, cpu = time.perf_counter(), time.process_time()
    kept: EncodedShards = stored(
        folder,
        {"rows": rows.hash},
        lambda: (
            rules.encode(rows, base.tokenizer) if count == 1 else shared_out(rules, rows, count)
        ),
    )
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    about = json.loads((kept.folder / "about.json").read_text())
    return wall, cpu, json.dumps(about["sha256"]), about["tokens"]


if __name__ == "__main__":
    main()
