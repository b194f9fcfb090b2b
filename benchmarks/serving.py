"""Throughput and time to first token of `tunelm serve` beside `transformers serve`, in one run.

    python benchmarks/serving.py --rounds 2

Same model (the bundled one), same questions, greedy, at most 64 tokens, streamed, from the same
client, on the same machine; one server at a time, in turn, so that a change of the machine's load
meets all of them. The peer runs with and without its continuous batching, each with PyTorch's
choice of threads and with one thread; the better of the two counts. Answers are counted in tokens
of the model's own tokenizer, from their text. Needs `pip install 'transformers[serving]'`; its
command is taken from this environment unless --transformers names another.

A last run sends many requests at once to `tunelm serve`: those beyond its queue must be refused
at once, and the others begin to be answered. Exits with 1 where a promise was not kept.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import http.client
import json
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from tunelm.config import ModelConfig
from tunelm.models.loading import BUNDLED, load_tokenizer

CONCURRENT = (1, 8, 32)
MAX_TOKENS = 64
BURST = 200
TOPICS = ("lists", "loops", "functions", "files", "strings", "classes", "modules", "errors")
ASKED = ("Explain {} in Python with an example.", "What are {} for?", "Why do programs have {}?")
PEERS = {
    "continuous batching": (["--continuous-batching"], None),
    "continuous batching, one thread": (["--continuous-batching"], "1"),
    "one at a time": ([], None),
    "one at a time, one thread": ([], "1"),
}


@dataclass
class Answered:
    """One answer: its text, seconds until its first text and until its end, and the status."""

    text: str
    first: float
    whole: float
    status: int


@contextlib.contextmanager
def served(command: list[str], port: int, threads: str | None = None) -> Iterator[str]:
    """The base URL of a server while it runs."""
    env = os.environ | ({"OMP_NUM_THREADS": threads} if threads else {})
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([*command, "--port", str(port)], env=env, **silent)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}/health").status_code == 200:
                    break
            if process.poll() is not None:
                sys.exit(f"{command[0]} ended with {process.returncode}")
            time.sleep(0.2)
        yield f"{url}/v1"
    finally:
        process.terminate()
        process.wait(60)


_own = threading.local()
"""Each client's connection."""


def ask(address: str, model: str, question: str) -> Answered:
    """One streamed answer. It is parsed after its end, so that the servers are measured alone."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": MAX_TOKENS,
        "temperature": 0,
        "stream": True,
    }
    if getattr(_own, "address", None) != address:
        _own.address, _own.connection = address, http.client.HTTPConnection(address, timeout=600)
    connection = _own.connection
    began, arrived = time.perf_counter(), list[tuple[float, bytes]]()
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    reply = connection.getresponse()
    while chunk := reply.read1(65536):
        arrived.append((time.perf_counter() - began, chunk))
    whole = time.perf_counter() - began
    reply.read()  # or else a body of known length does not count as read
    if reply.status != 200:
        return Answered("", 0.0, whole, reply.status)
    first = next((at for at, chunk in arrived if _SAYS.search(chunk)), 0.0)
    text = ""
    for line in b"".join(chunk for _, chunk in arrived).decode().splitlines():
        choices = json.loads(line[6:]).get("choices") if line.startswith("data: {") else None
        text += (choices[0]["delta"].get("content") or "") if choices else ""
    return Answered(text, first, whole, 200)


_SAYS = re.compile(rb'"content": ?"[^"]')


def load(url: str, model: str, concurrent: int, requests: int) -> tuple[float, list[Answered]]:
    """(seconds, answers) of so many requests, so many of them at any time."""
    rng = random.Random(0)
    questions = [rng.choice(ASKED).format(rng.choice(TOPICS)) + f" ({i})" for i in range(requests)]
    address = urlsplit(url).netloc
    with ThreadPoolExecutor(concurrent) as pool:
        began = time.perf_counter()
        answers = list(pool.map(lambda question: ask(address, model, question), questions))
        return time.perf_counter() - began, answers


def measure(
    url: str, model: str, requests: int, tokenizer: Any
) -> dict[int, tuple[float, float, float]]:
    """{concurrent: (tokens a second, median and 95th percentile of seconds to the first text)}."""
    load(url, model, 2, 4)  # a warm-up
    found: dict[int, tuple[float, float, float]] = {}
    for count in CONCURRENT:
        seconds, answers = load(url, model, count, max(requests, 2 * count) if count > 1 else 8)
        tokens = sum(len(tokenizer.encode(a.text, add_special_tokens=False)) for a in answers)
        firsts = sorted(answer.first for answer in answers)
        late = firsts[min(int(0.95 * len(firsts)), len(firsts) - 1)]
        found[count] = (tokens / seconds, statistics.median(firsts), late)
    return found


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def burst(url: str) -> tuple[int, int, float, float]:
    """(answered, refused, seconds to the last first text, to the last refusal) of many at once."""
    _, answers = load(url, "tunelm-nano", BURST, BURST)
    done = [answer for answer in answers if answer.status == 200]
    refused = [answer.whole for answer in answers if answer.status == 503]
    return len(done), len(refused), max(a.first for a in done), max(refused, default=0.0)


def main() -> None:
    """Run, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--requests", type=int, default=48, help="for each load of 8 or more")
    parser.add_argument(
        "--transformers", default=str(Path(sys.executable).with_name("transformers"))
    )
    args = parser.parse_args()
    tokenizer = load_tokenizer(ModelConfig())
    gc.collect()
    gc.freeze()  # the client's own pauses are not the servers'
    folder = str(BUNDLED["tunelm-nano"])
    own = [sys.executable, "-m", "tunelm", "serve", "tunelm-nano", "--no-train"]
    rates: dict[str, dict[int, list[tuple[float, float, float]]]] = {}
    for _ in range(args.rounds):
        with served(own, free_port()) as url:
            note(rates, "tunelm serve", measure(url, "tunelm-nano", args.requests, tokenizer))
        for name, (options, threads) in PEERS.items():
            command = [args.transformers, "serve", folder, "--device", "cpu", *options]
            with served(command, free_port(), threads) as url:
                note(rates, name, measure(url, folder, args.requests, tokenizer))
    with served(own, free_port()) as url:
        answered, refused, last, slowest = burst(url)

    print("| server | " + " | ".join(f"{n} at once" for n in CONCURRENT) + " |")
    print("|---|" + "---|" * len(CONCURRENT))
    for name, found in rates.items():
        cells = [
            f"{best(found[n]):.0f} tokens/s, first text after {1000 * median(found[n], 1):.0f} ms "
            f"(95%: {1000 * median(found[n], 2):.0f})"
            for n in CONCURRENT
        ]
        print(f"| {name} | {' | '.join(cells)} |")
    mine = best(rates["tunelm serve"][8])
    batched = max(best(v[8]) for k, v in rates.items() if k.startswith("continuous"))
    single = max(best(v[8]) for k, v in rates.items() if k.startswith("one at"))
    promises = [
        (
            "8 at once: 1.5 times continuous batching",
            f"{mine / batched:.1f}",
            mine >= 1.5 * batched,
        ),
        ("8 at once: 3 times one at a time", f"{mine / single:.1f}", mine >= 3 * single),
        (
            f"{BURST} at once: answered or refused, none left waiting",
            f"{answered} answered, begun in {last:.2f} s; {refused} refused, in {slowest:.2f} s",
            answered + refused == BURST and refused > 0,
        ),
    ]
    print("\n| promise | measured | kept |\n|---|---|---|")
    for promise, measured, ok in promises:
        print(f"| {promise} | {measured} | {'yes' if ok else 'NO'} |")
    sys.exit(0 if all(ok for *_, ok in promises) else 1)


def note(
    rates: dict[str, dict[int, list[tuple[float, float, float]]]],
    name: str,
    found: dict[int, tuple[float, float, float]],
) -> None:
    """Keep one round's figures."""
    for count, figures in found.items():
        rates.setdefault(name, {}).setdefault(count, []).append(figures)


def best(rounds: list[tuple[float, float, float]]) -> float:
    """The highest rate: the round that other work disturbed least."""
    return max(rate for rate, *_ in rounds)


def median(rounds: list[tuple[float, float, float]], which: int) -> float:
    """The median of one of the figures over the rounds."""
    return statistics.median(figures[which] for figures in rounds)


if __name__ == "__main__":
    main()
