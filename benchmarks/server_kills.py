"""kill -9 of `tunelm serve` at random moments of a fine-tuning job: is the end the same?

    python benchmarks/server_kills.py --kills 50

One job runs to its end undisturbed. Then, as often as asked, the same job is created anew, the
server is killed (SIGKILL) at a random moment between the job's creation and its end, and started
again at once; nobody asks for anything but the job's state. Each must succeed with the same
weights, byte for byte, and have told each step and each checkpoint once. One that fails with an
error is counted; one that is neither is a zombie. The same again with a server that is asked to
end (SIGTERM). Exits with 1 if there was any of the two, or other weights.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

HYPER = {"n_epochs": 6, "batch_size": 1}
ROWS = 24
LONGEST_S = 300.0
ENDED = ("succeeded", "failed", "cancelled")


class Server:
    """`tunelm serve` in a process of its own, which can be killed and started again."""

    def __init__(self, model: Path, state: Path) -> None:
        self.model, self.state = model, state
        self._ready = state.with_name("ready.json")
        self.start()

    def start(self) -> None:
        """Start it and wait until it is ready."""
        self._ready.unlink(missing_ok=True)
        command = [sys.executable, "-m", "tunelm", "serve", str(self.model), "--port", "0"]
        command += ["--state", str(self.state), "--ready-file", str(self._ready)]
        with self.state.with_name("server.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        while not self._ready.is_file():
            if self.process.poll() is not None:
                text = self.state.with_name("server.log").read_text(encoding="utf-8")
                sys.exit(f"the server ended with code {self.process.returncode}: {text[-2000:]}")
            time.sleep(0.02)
        self.http = httpx.Client(
            base_url=json.loads(self._ready.read_text(encoding="utf-8"))["url"], timeout=60
        )

    def kill(self) -> None:
        """End it as a power cut would."""
        self.http.close()
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it as Ctrl-C would."""
        self.http.close()
        self.process.terminate()
        self.process.wait()

    def get(self, path: str) -> Any:
        """A JSON answer."""
        return self.http.get(path).raise_for_status().json()

    def upload(self, rows: list[dict[str, Any]]) -> str:
        """The id of a file of rows."""
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        answer = self.http.post(
            "files", data={"purpose": "fine-tune"}, files={"file": ("rows.jsonl", content)}
        )
        return answer.raise_for_status().json()["id"]

    def create(self, **body: Any) -> str:
        """The id of a new job."""
        answer = self.http.post("fine_tuning/jobs", json={"model": self.model.name, **body})
        return answer.raise_for_status().json()["id"]

    def ended(self, job_id: str) -> dict[str, Any]:
        """The job once it has ended, or as it is after five minutes."""
        until = time.monotonic() + LONGEST_S
        while True:
            job = self.get(f"fine_tuning/jobs/{job_id}")
            if job["status"] in ENDED or time.monotonic() > until:
                return job
            time.sleep(0.05)


@dataclass(frozen=True)
class Ended:
    """What became of a job: its state, its weights, and what it told on the way."""

    status: str
    weights: bytes
    steps: tuple[int, ...]
    checkpoints: tuple[int, ...]


@dataclass(frozen=True)
class Kill:
    """One kill: when, in which state of the job, and what became of it."""

    seconds: float
    during: str
    ended: Ended


def what_became_of(server: Server, job_id: str) -> Ended:
    """Wait for a job's end and look at all of it."""
    job = server.ended(job_id)
    path = server.state / "models" / job_id / "adapter_model.safetensors"
    events = server.get(f"fine_tuning/jobs/{job_id}/events?limit=1000")["data"]
    kept = server.get(f"fine_tuning/jobs/{job_id}/checkpoints?limit=100")["data"]
    return Ended(
        job["status"],
        path.read_bytes() if job["status"] == "succeeded" else b"",
        tuple(event["data"]["step"] for event in events if "train_loss" in event["data"]),
        tuple(one["step_number"] for one in kept),
    )


def run(folder: Path, kills: int, stops: int, seed: int) -> tuple[Ended, list[Kill]]:
    """(the undisturbed job, one kill after the other, then the stops); `folder` must be empty."""
    from tunelm.testing import make_tiny_model

    rng = random.Random(seed)
    server = Server(make_tiny_model(folder / "model"), folder / "state")
    try:
        body = _body(server)
        began = time.monotonic()
        undisturbed = what_became_of(server, server.create(**body))
        span = time.monotonic() - began
        done: list[Kill] = []
        for number in range(kills + stops):
            moment = rng.uniform(0, span)
            job_id = server.create(**body)
            time.sleep(moment)
            during = server.get(f"fine_tuning/jobs/{job_id}")["status"]
            server.kill() if number < kills else server.stop()
            server.start()
            done.append(Kill(moment, during, what_became_of(server, job_id)))
        return undisturbed, done
    finally:
        server.stop()


def _body(server: Server) -> dict[str, Any]:
    def row(number: int) -> dict[str, Any]:
        turns = (("user", f"Box {number}?"), ("assistant", f"It is {number * 7 % 10}."))
        return {"messages": [{"role": role, "content": text} for role, text in turns]}

    return {
        "training_file": server.upload([row(i) for i in range(ROWS)]),
        "validation_file": server.upload([row(i) for i in range(100, 104)]),
        "seed": 7,
        "method": {"type": "supervised", "supervised": {"hyperparameters": HYPER}},
    }


def main() -> None:
    """Kill as often as asked; print a table and what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--stops", type=int, default=5, help="by SIGTERM")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        undisturbed, done = run(Path(folder), given.kills, given.stops, given.seed)
    if undisturbed.status != "succeeded":
        sys.exit(f"the undisturbed job is {undisturbed.status}")
    print("| killed while | kills | same weights, all told once | failed | zombies |")
    print("|---|---|---|---|---|")
    for during, count in Counter(kill.during for kill in done).items():
        ends = [kill.ended for kill in done if kill.during == during]
        same = sum(end == undisturbed for end in ends)
        failed = sum(end.status == "failed" for end in ends)
        zombies = sum(end.status not in ENDED for end in ends)
        print(f"| {during} | {count} | {same} | {failed} | {zombies} |")
    wrong = [kill for kill in done if kill.ended != undisturbed]
    for kill in wrong:
        print(f"after {kill.seconds:.3f} s, {kill.during}: {kill.ended.status}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
