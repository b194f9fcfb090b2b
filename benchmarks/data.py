"""`tunelm data prepare`: time, memory, the deduplication stage, near-duplicates found.

    python benchmarks/data.py                       # 100,000 and 1,000,000 rows
    python benchmarks/data.py --rows 5000 50000     # a look
    python benchmarks/data.py --input rows.jsonl    # a file of one's own, for the last two tables

Prints three Markdown tables, and exits with 1 if a promise is broken. Seconds are those of the
processor: all of it runs on one core, and what else the machine does is left out.

1. The whole command on synthetic short rows (question and answer, 20 to 50 words from a vocabulary
   with Zipf's law; one in ten cut from a template, 2% exact and 3% near-duplicates): time, the
   ratio of the two times, peak memory; each run in a process of its own.
2. The deduplication stage, from texts to decisions, beside the bare library (datasketch: a MinHash
   a row, query, insert where nothing is found) on the same rows and the same shingles; both in
   turn, the median of `--repeats`.
3. Recall and precision on planted near-duplicates: rows of 60 words, each once more with 1, 3, 5
   and 10% of its words replaced. Shingles: words and pairs of neighbours; threshold 0.8.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
MAX_RATIO, MAX_BYTES, MIN_SPEED = 12.0, 2_000_000_000, 0.8
MIN_RECALL_AT_5, MIN_PRECISION = 0.95, 0.99
VOCABULARY, LENGTH, PLANTED = 50_000, 60, 2000


def main() -> None:
    """Run all, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs=2, default=(100_000, 1_000_000))
    parser.add_argument("--dedupe-rows", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--input", type=Path, help="JSON lines with question or text")
    parser.add_argument("--one", choices=tuple(STAGES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(STAGES[given.one](given.folder)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        kept = [
            whole(folder, *given.rows),
            beside_library(folder, texts_of(given), given.repeats, given.dedupe_rows),
            planted(texts_of(given)),
        ]
    sys.exit(0 if all(kept) else 1)


# --- the whole command ------------------------------------------------------------------------


def whole(folder: Path, few: int, many: int) -> bool:
    """The first table."""
    print("| rows | seconds | rows a second | peak memory | kept | duplicates | near-duplicates |")
    print("|---|---|---|---|---|---|---|")
    found: list[dict[str, Any]] = []
    for count in (few, many):
        work = folder / str(count)
        work.mkdir()
        write_rows(work / "rows.jsonl", count)
        one = child("prepare", work)
        found.append(one)
        counts = one["counts"]
        print(
            f"| {count:,} | {one['seconds']:.1f} | {count / one['seconds']:,.0f} "
            f"| {one['peak'] / 1e9:.2f} GB | {counts['kept']:,} | {counts['duplicate']:,} "
            f"| {counts['near-duplicate']:,} |",
            flush=True,
        )
    ratio = found[1]["seconds"] / found[0]["seconds"]
    most = MAX_RATIO * many / few / 10
    print(
        f"\nratio of times {ratio:.1f} for {many / few:.0f} times the rows (at most {most:.0f})\n"
    )
    return ratio <= most and found[1]["peak"] < MAX_BYTES


def prepare(folder: Path) -> dict[str, Any]:
    """Run the command's work once."""
    from tunelm.data.prepare_files import prepare_files
    from tunelm.data.prepare_job import Preparation
    from tunelm.rundir import peak_memory

    begin = time.process_time()
    about = prepare_files(Preparation(folder / "rows.jsonl", folder / "out"))
    return {
        "seconds": time.process_time() - begin,
        "peak": peak_memory(),
        "counts": about["counts"],
    }


def write_rows(path: Path, count: int) -> None:
    """Synthetic rows; the same for the same count."""
    rng = random.Random(count)
    draw = word_drawer(rng)
    recent: list[dict[str, str]] = []
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            luck = rng.random()
            if recent and luck < 0.02:
                row = rng.choice(recent)
            elif recent and luck < 0.05:
                row = dict(rng.choice(recent))
                row["question"] = replaced(row["question"], 0.04, rng, draw)
            elif luck < 0.15:
                question = (
                    f"What is the usual price of {draw(1)} {number} in the town of {draw(1)}?"
                )
                row = {"question": question, "answer": f"It is about {rng.randrange(9999)} coins."}
            else:
                row = {"question": draw(rng.randint(12, 30)), "answer": draw(rng.randint(8, 20))}
            if len(recent) < 1000:
                recent.append(row)
            else:
                recent[rng.randrange(1000)] = row
            file.write(json.dumps(row) + "\n")


# --- the deduplication stage --------------------------------------------------------------------


def beside_library(folder: Path, texts: Iterator[str], repeats: int, count: int) -> bool:
    """The second table."""
    with (folder / "texts.jsonl").open("w", encoding="utf-8") as file:
        for _, text in zip(range(count), texts, strict=False):
            file.write(json.dumps(text) + "\n")
    runs: dict[str, list[dict[str, Any]]] = {"tunelm": [], "datasketch": []}
    for _ in range(repeats):
        for name, made in runs.items():
            made.append(child(name, folder))
    print("| deduplication | rows | rows a second | dropped | peak memory |")
    print("|---|---|---|---|---|")
    speed = {
        n: statistics.median(r["rows"] / r["seconds"] for r in made) for n, made in runs.items()
    }
    for name, made in runs.items():
        last = made[-1]
        print(
            f"| {name} | {last['rows']:,} | {speed[name]:,.0f} | {last['dropped']:,} "
            f"| {last['peak'] / 1e6:,.0f} MB |"
        )
    ratio = speed["tunelm"] / speed["datasketch"]
    print(f"\n{ratio:.2f} times the library's rows a second (at least {MIN_SPEED})\n", flush=True)
    return ratio >= MIN_SPEED


def dedupe_tunelm(folder: Path) -> dict[str, Any]:
    """Texts to decisions, as `data prepare` does it."""
    from tunelm.data.near import NearRows

    texts = read_texts(folder)
    begin = time.process_time()
    with NearRows(0.8) as near:
        for text in texts:
            near.add(text)
        dropped = sum(1 for _ in near.matches(drop=True))
    return measured(begin, texts, dropped)


def dedupe_datasketch(folder: Path) -> dict[str, Any]:
    """Texts to decisions, as the library's documentation does it."""
    from datasketch import MinHash, MinHashLSH

    from tunelm.data.shingles import words

    def tokens(text: str) -> list[bytes]:
        found = ["", *words(text), ""]
        pairs = [f"{a} {b}" for a, b in itertools.pairwise(found)]
        return [t.encode() for t in {*found[1:-1], *pairs}]

    texts = read_texts(folder)
    begin = time.process_time()
    index = MinHashLSH(threshold=0.8, num_perm=128)
    dropped = 0
    for key, sketch in enumerate(MinHash.generator(map(tokens, texts), num_perm=128)):
        if index.query(sketch):
            dropped += 1
        else:
            index.insert(key, sketch)
    return measured(begin, texts, dropped)


def measured(begin: float, texts: list[str], dropped: int) -> dict[str, Any]:
    """What a run says of itself."""
    from tunelm.rundir import peak_memory

    seconds = time.process_time() - begin
    return {"seconds": seconds, "rows": len(texts), "dropped": dropped, "peak": peak_memory()}


def read_texts(folder: Path) -> list[str]:
    """The texts that both are given."""
    return [json.loads(line) for line in (folder / "texts.jsonl").open(encoding="utf-8")]


# --- planted near-duplicates ------------------------------------------------------------------


def planted(texts: Iterator[str]) -> bool:
    """The third table."""
    from tunelm.data.near import NearRows

    rng = random.Random(7)
    draw = word_drawer(rng)
    stream = (word for text in texts for word in text.split())
    rows = [" ".join(next(stream) for _ in range(LENGTH)) for _ in range(PLANTED)]
    print("| words changed | recall | precision |")
    print("|---|---|---|")
    kept = True
    for share in (0.01, 0.03, 0.05, 0.1):
        with NearRows(0.8) as near:
            for text in [*rows, *(replaced(row, share, rng, draw) for row in rows)]:
                near.add(text)
            found = [(row, other) for row, other, _ in near.matches(drop=True)]
        right = sum(row == other + PLANTED for row, other in found)
        recall, precision = right / PLANTED, right / len(found) if found else 1.0
        print(f"| {share:.0%} | {recall:.1%} | {precision:.1%} |", flush=True)
        kept &= precision >= MIN_PRECISION and (share > 0.05 or recall >= MIN_RECALL_AT_5)
    return kept


# --- what they share --------------------------------------------------------------------------


def texts_of(given: argparse.Namespace) -> Iterator[str]:
    """Texts without end: of the file that was given, or made up."""
    if not given.input:
        draw = word_drawer(random.Random(3))
        lengths = random.Random(4)
        while True:
            yield draw(lengths.randint(20, 50))
    for line in given.input.open(encoding="utf-8"):
        row = json.loads(line)
        yield " ".join(str(row[name]) for name in ("question", "answer", "text") if name in row)


def word_drawer(rng: random.Random) -> Callable[[int], str]:
    """Draws words by Zipf's law: the n-th most frequent with a share of 1 / (n + 10)."""
    names = [f"{'bcdfgklmnprst'[n % 13]}{'aeiou'[n % 5]}{n:x}" for n in range(VOCABULARY)]
    total, weights = 0.0, []
    for n in range(VOCABULARY):
        total += 1 / (n + 10)
        weights.append(total)
    return lambda count: " ".join(rng.choices(names, cum_weights=weights, k=count))


def replaced(text: str, share: float, rng: random.Random, draw: Callable[[int], str]) -> str:
    """The text with this share of its words, at least one, replaced by other ones."""
    words = text.split()
    for place in rng.sample(range(len(words)), max(1, round(share * len(words)))):
        old = words[place]
        while words[place] == old:
            words[place] = draw(1)
    return " ".join(words)


def child(stage: str, folder: Path) -> dict[str, Any]:
    """Run a stage in a process of its own, whose memory is its own."""
    command = [sys.executable, str(HERE), "--one", stage, "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{stage} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


STAGES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "prepare": prepare,
    "tunelm": dedupe_tunelm,
    "datasketch": dedupe_datasketch,
}

if __name__ == "__main__":
    main()
