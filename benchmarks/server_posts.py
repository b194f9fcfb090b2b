"""POSTs that are dropped, delayed or repeated on their way: does each intended job exist once?

    python benchmarks/server_posts.py --posts 1000

Between the client and `tunelm serve` stands a proxy that, by chance, breaks a request off before
or after the server has it, holds the answer back until the client has given up, or sends the
request twice. The client creates one job after the other, each with an Idempotency-Key, and tries
again until it has an answer, until it has sent as many POSTs as asked. Then come concurrent
ones: eight threads with the same key each time; and the official client as it is by default,
without any key, which repeats what is broken off by itself. Jobs are counted by their metadata:
each intended one must be there once, and be the one that the client was told of. Exits with 1
otherwise.

The jobs have three examples, fewer than are taken, so that each fails at once and nothing trains.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import random
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

FAULTS = ("none", "dropped before", "dropped after", "delayed", "repeated")
TIMEOUT_S, DELAY_S = 0.5, 0.8
THREADS = 8
_END = b"\r\n\r\n"


class Proxy:
    """Passes requests on to a server, one a connection, each with a fault that `choose` names."""

    def __init__(self, host: str, port: int, choose: Callable[[], str]) -> None:
        self._to, self._choose = (host, port), choose
        self.faults: Counter[str] = Counter()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            request = _message(client)
            fault = self._choose()
            self.faults[fault] += 1
            if not request or fault == "dropped before":
                return
            answers = [self._ask(request) for _ in range(2 if fault == "repeated" else 1)]
            if fault == "delayed":
                time.sleep(DELAY_S)
            if fault != "dropped after":
                try:
                    client.sendall(answers[0])
                except OSError:  # the client has given up
                    return

    def _ask(self, request: bytes) -> bytes:
        with socket.create_connection(self._to) as server:
            server.sendall(request)
            answer = b""
            while piece := server.recv(1 << 16):
                answer += piece
            return answer


def _message(connection: socket.socket) -> bytes:
    """A whole request; the server is asked to close the connection after it."""
    data = b""
    while _END not in data:
        piece = connection.recv(1 << 16)
        if not piece:
            return b""
        data += piece
    head, _, body = data.partition(_END)
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
    lengths = [line for line in lines if line.lower().startswith(b"content-length:")]
    length = int(lengths[0].split(b":")[1]) if lengths else 0
    while len(body) < length:
        body += connection.recv(1 << 16)
    return b"\r\n".join([*lines, b"Connection: close"]) + _END + body


@dataclass(frozen=True)
class Outcome:
    """How many jobs were intended, what is wrong with those there are, and faults by kind."""

    jobs: int
    wrong: list[str]
    faults: Counter[str]


class Client:
    """Creates jobs through the proxy, and remembers which one it was told of."""

    def __init__(self, port: int, body: dict[str, Any]) -> None:
        self._url = f"http://127.0.0.1:{port}/v1"
        self._body, self._lock = body, threading.Lock()
        self._http = httpx.Client(timeout=TIMEOUT_S)
        self.told: dict[str, set[str]] = {}
        self.posts = 0

    def close(self) -> None:
        """Let go of its connections."""
        self._http.close()

    def create(self, run: str) -> None:
        """One intended job: the same request until there is an answer."""
        body = {**self._body, "metadata": {"run": run}}
        while True:
            with self._lock:
                self.posts += 1
            try:
                answer = self._http.post(
                    f"{self._url}/fine_tuning/jobs", json=body, headers={"Idempotency-Key": run}
                )
            except httpx.TransportError:
                continue
            answer.raise_for_status()
            with self._lock:
                self.told.setdefault(run, set()).add(answer.json()["id"])
            return

    def create_by_sdk(self, run: str) -> None:
        """One intended job by the official client with its own two retries, and no key."""
        import openai

        with openai.OpenAI(base_url=self._url, api_key="none") as sdk:
            job = sdk.fine_tuning.jobs.create(**self._body, metadata={"run": run})
        self.told.setdefault(run, set()).add(job.id)


def run(url: str, body: dict[str, Any], posts: int, seed: int) -> Outcome:
    """Create jobs with `body` at the server that is reached by `url`.

    It must have had no jobs with metadata before.
    """
    rng = random.Random(seed)
    address = httpx.URL(url)
    proxy = Proxy(address.host, address.port or 80, lambda: rng.choice(FAULTS))
    # the official client gives up after its third try, and waits longer than the delay
    kinds = ["dropped after", "none", "delayed", "dropped before", "dropped after", "none"]
    orderly = Proxy(address.host, address.port or 80, lambda: kinds.pop(0) if kinds else "none")
    client = Client(proxy.port, body)
    by_sdk = Client(orderly.port, body)
    try:
        while client.posts < posts:
            client.create(f"one-{len(client.told)}")
        with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
            for number in range(max(1, posts // 100)):
                list(pool.map(client.create, [f"together-{number}"] * THREADS))
        while kinds:
            by_sdk.create_by_sdk(f"sdk-{len(by_sdk.told)}")
    finally:
        proxy.close()
        orderly.close()
        client.close()
    told = client.told | by_sdk.told
    return Outcome(len(told), _wrong(url, told), proxy.faults + orderly.faults)


def _wrong(url: str, told: dict[str, set[str]]) -> list[str]:
    """What differs between the jobs that are there and those the client was told of."""
    there: dict[str, list[str]] = {}
    query: dict[str, Any] = {"limit": 1000}
    while True:
        page = httpx.get(f"{url}/fine_tuning/jobs", params=query).raise_for_status().json()
        for job in page["data"]:
            if job["metadata"] and "run" in job["metadata"]:
                there.setdefault(job["metadata"]["run"], []).append(job["id"])
        if not page["has_more"]:
            break
        query["after"] = page["data"][-1]["id"]
    return [
        f"{run}: told of {sorted(told.get(run, ()))}, there are {there.get(run, [])}"
        for run in told.keys() | there.keys()
        if [*told.get(run, ())] != there.get(run, [])
    ]


def main() -> None:
    """Send as many POSTs as asked; print a table and what went wrong."""
    from server_kills import Server

    from tunelm.testing import make_tiny_model

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--posts", type=int, default=1000, help="POSTs sent in sequence")
    parser.add_argument("--seed", type=int, default=0, help="of the faults")
    given = parser.parse_args()
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    with tempfile.TemporaryDirectory() as temporary:
        server = Server(make_tiny_model(Path(temporary) / "model"), Path(temporary) / "state")
        try:
            body = {"model": server.model.name, "training_file": server.upload([row] * 3)}
            outcome = run(str(server.http.base_url).rstrip("/"), body, given.posts, given.seed)
        finally:
            server.stop()
    print("| POSTs | " + " | ".join(FAULTS) + " | intended jobs | wrong |")
    print("|---" * (len(FAULTS) + 3) + "|")
    counts = " | ".join(str(outcome.faults[name]) for name in FAULTS)
    print(f"| {outcome.faults.total()} | {counts} | {outcome.jobs} | {len(outcome.wrong)} |")
    print("\n".join(outcome.wrong))
    sys.exit(1 if outcome.wrong else 0)


if __name__ == "__main__":
    main()
