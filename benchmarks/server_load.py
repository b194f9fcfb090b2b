"""A server under load: random disconnects, cancelled jobs, adapters swapped and deleted.

    python benchmarks/server_load.py                # ten minutes
    python benchmarks/server_load.py --minutes 1    # a look

Starts `tunelm serve tunelm-nano` with room for three adapters. Eight clients ask the base and all
fine-tuned models that there are, whole or streamed, and often hang up in the middle. Beside them
jobs are created, paused, resumed and cancelled, and models deleted. Afterwards every question is
asked again, one at a time: an answer under load that reads otherwise is wrong.

Exits with 1 if a job is lost, an answer is wrong, a request fails that should not, or the server's
memory has grown by more than a tenth between the third part of the time and its end.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import psutil

CLIENTS = 8
QUESTIONS = [
    f"{ask} {country}?"
    for ask in ("What is the capital of", "Which city is the seat of government of")
    for country in ("Canada", "Peru", "Kenya", "Norway", "Japan", "Egypt", "Chile", "Portugal")
]
ENDED = ("succeeded", "failed", "cancelled")
ROWS = 24


def training_file(number: int) -> bytes:
    """Rows whose answers only this file's adapter gives."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": QUESTIONS[i % len(QUESTIONS)] + " " * (i // 16)},
                {"role": "assistant", "content": f"It is city number {number} of item {i}."},
            ]
        }
        for i in range(ROWS)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


class Load:
    """What is going on, and what came of it; shared by all threads."""

    def __init__(self, url: str, until: float) -> None:
        self.url, self.until = url, until
        self.lock = threading.Lock()
        self.counts: collections.Counter[str] = collections.Counter()
        self.answers: dict[tuple[str, str], set[str]] = collections.defaultdict(set)
        self.wrong: list[str] = []
        self.deleted: set[str] = set()
        self.jobs: dict[str, str] = {}
        """Job -> what its end must be: succeeded, or cancelled (or succeeded before that)."""
        self.waits: list[float] = []

    def note(self, what: str) -> None:
        """Count it."""
        with self.lock:
            self.counts[what] += 1

    def fail(self, what: str) -> None:
        """Something that must not be."""
        with self.lock:
            self.wrong.append(what)

    @property
    def open(self) -> bool:
        """Whether there is time left."""
        return time.monotonic() < self.until


def body(model: str, question: str, **more: Any) -> dict[str, Any]:
    """A greedy request."""
    messages = [{"role": "user", "content": question}]
    return {"model": model, "messages": messages, "temperature": 0, "max_tokens": 48, **more}


def client(load: Load, seed: int) -> None:
    """Ask at random until the time is over."""
    rng = random.Random(seed)
    while load.open:
        with httpx.Client(base_url=load.url, timeout=120) as http:
            for _ in range(20):
                if not load.open:
                    return
                try:
                    models = [m["id"] for m in http.get("/models").json()["data"]]
                    one_request(load, http, rng, rng.choice(models), rng.choice(QUESTIONS))
                except httpx.HTTPError as error:
                    load.fail(f"{type(error).__name__}: {error}")


def one_request(
    load: Load, http: httpx.Client, rng: random.Random, model: str, question: str
) -> None:
    """One of: a whole answer, a stream, a stream left early, a wait given up."""
    draw = rng.random()
    began = time.monotonic()
    if draw < 0.5:
        answer = http.post("/chat/completions", json=body(model, question))
        if accepted(load, answer, model):
            keep(load, model, question, answer.json()["choices"][0]["message"]["content"])
            load.note("whole answers")
        return
    if draw < 0.62:
        try:
            patience = rng.uniform(0.002, 0.1)
            http.post("/chat/completions", json=body(model, question), timeout=patience)
        except httpx.TimeoutException:
            load.note("waits given up")
        return
    leave = rng.randint(1, 12) if draw < 0.8 else None
    request = body(model, question, stream=True)
    with http.stream("POST", "/chat/completions", json=request) as answer:
        if answer.status_code != 200:
            answer.read()
            accepted(load, answer, model)
            return
        text, done = "", False
        for number, line in enumerate(line for line in answer.iter_lines() if line):
            if leave is not None and number >= leave:
                load.note("streams left early")
                return
            if not number:
                with load.lock:
                    load.waits.append(time.monotonic() - began)
            if line == "data: [DONE]":
                done = True
                break
            event = json.loads(line.removeprefix("data: "))
            if "error" in event:
                load.fail(f"an error in a stream: {event['error']['message']}")
                return
            text += event["choices"][0]["delta"].get("content") or ""
        if not done:
            load.fail("a stream ended without [DONE]")
            return
        load.note("whole streams")
        keep(load, model, question, text)


def accepted(load: Load, answer: httpx.Response, model: str) -> bool:
    """Whether it was answered; a full queue and a deleted model are reasons not to be."""
    if answer.status_code == 200:
        return True
    if answer.status_code == 503 and "retry-after" in answer.headers:
        load.note("sent away from a full queue")
    elif answer.status_code == 404 and model in load.deleted:
        load.note("asked a deleted model")
    else:
        load.fail(f"{answer.status_code} for {model}: {answer.text[:200]}")
    return False


def keep(load: Load, model: str, question: str, text: str) -> None:
    """Remember an answer."""
    with load.lock:
        load.answers[model, question].add(text)


def trainer(load: Load) -> None:
    """Create jobs, pause, resume and cancel some, delete some models."""
    rng = random.Random(99)
    with httpx.Client(base_url=load.url, timeout=120) as http:
        number = 0
        while load.open:
            number += 1
            name = f"rows-{number}.jsonl"
            upload = http.post(
                "/files",
                files={"file": (name, training_file(number))},
                data={"purpose": "fine-tune"},
            )
            made = http.post(
                "/fine_tuning/jobs",
                json={
                    "model": "tunelm-nano",
                    "training_file": upload.json()["id"],
                    "suffix": f"load-{number}",
                    "method": {
                        "type": "supervised",
                        "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 4}},
                    },
                },
            )
            if made.status_code != 200:
                load.fail(f"creating a job: {made.status_code} {made.text[:200]}")
                continue
            job = made.json()["id"]
            load.jobs[job] = "succeeded"
            draw = rng.random()
            time.sleep(rng.uniform(0, 8))
            if draw < 0.3:
                if http.post(f"/fine_tuning/jobs/{job}/cancel").status_code == 200:
                    load.jobs[job] = "cancelled"
                    load.note("jobs cancelled")
            elif draw < 0.6 and http.post(f"/fine_tuning/jobs/{job}/pause").status_code == 200:
                load.note("jobs paused")
                time.sleep(rng.uniform(0, 4))
                while http.post(f"/fine_tuning/jobs/{job}/resume").status_code != 200:
                    if http.get(f"/fine_tuning/jobs/{job}").json()["status"] in ENDED:
                        break
                    time.sleep(0.5)
            while load.open and http.get(f"/fine_tuning/jobs/{job}").json()["status"] not in ENDED:
                time.sleep(0.5)
            delete_one(load, http, rng)


def delete_one(load: Load, http: httpx.Client, rng: random.Random) -> None:
    """Delete a model when there are many; its name is noted first."""
    tuned = [m["id"] for m in http.get("/models").json()["data"] if m["id"].startswith("ft:")]
    if len(tuned) > 8:
        gone = rng.choice(tuned)
        load.deleted.add(gone)
        answer = http.delete(f"/models/{gone}")
        if answer.status_code == 200:
            load.note("models deleted")
        else:
            load.fail(f"deleting {gone}: {answer.status_code} {answer.text[:200]}")


def check_answers(load: Load) -> tuple[int, int]:
    """Ask everything again, one at a time; (answers compared, answers that differ)."""
    compared = differing = 0
    with httpx.Client(base_url=load.url, timeout=120) as http:
        for (model, question), found in sorted(load.answers.items()):
            if model in load.deleted:
                continue
            answer = http.post("/chat/completions", json=body(model, question)).json()
            alone = answer["choices"][0]["message"]["content"]
            compared += len(found)
            for text in found - {alone}:
                differing += 1
                load.fail(f"{model}, {question!r}: {text!r} under load, {alone!r} alone")
    return compared, differing


def check_jobs(load: Load) -> collections.Counter[str]:
    """Wait for the last jobs; each must have ended as it should."""
    ends: collections.Counter[str] = collections.Counter()
    with httpx.Client(base_url=load.url, timeout=120) as http:
        for job, wanted in load.jobs.items():
            until = time.monotonic() + 120
            status = ""
            while status not in ENDED and time.monotonic() < until:
                status = http.get(f"/fine_tuning/jobs/{job}").json()["status"]
                if status == "paused":
                    http.post(f"/fine_tuning/jobs/{job}/resume")
                time.sleep(0.2)
            ends[status] += 1
            if status != wanted:
                load.fail(f"job {job} is {status}, not {wanted}")
        listed = http.get("/fine_tuning/jobs", params={"limit": 100}).json()
        if not listed["has_more"] and {j["id"] for j in listed["data"]} != set(load.jobs):
            load.fail("the jobs listed are not those created")
    return ends


def watch(load: Load, server: psutil.Process, sizes: list[tuple[float, int]]) -> None:
    """Note the server's resident memory each second."""
    while load.open:
        sizes.append((time.monotonic(), server.memory_info().rss))
        time.sleep(1)


def start(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A server that is ready, and its address."""
    ready = folder / "ready.json"
    command = [sys.executable, "-m", "tunelm", "serve", "tunelm-nano", "--port", "0"]
    command += ["--state", str(folder / "state"), "--ready-file", str(ready), "--max-adapters", "3"]
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    while not ready.is_file():
        if process.poll() is not None:
            raise SystemExit((folder / "log.txt").read_text())
        time.sleep(0.1)
    return process, json.loads(ready.read_text())["url"]


def main() -> int:
    """Run the load; 0 if all is as it should be."""
    parser = argparse.ArgumentParser(description="A server under random load.")
    parser.add_argument("--minutes", type=float, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        process, url = start(Path(name))
        try:
            load = Load(url, time.monotonic() + 60 * options.minutes)
            sizes: list[tuple[float, int]] = []
            threads = [threading.Thread(target=client, args=(load, i)) for i in range(CLIENTS)]
            threads.append(threading.Thread(target=trainer, args=(load,)))
            threads.append(
                threading.Thread(target=watch, args=(load, psutil.Process(process.pid), sizes))
            )
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            ends = check_jobs(load)
            compared, differing = check_answers(load)
        finally:
            process.terminate()
            process.wait(60)
    return report(load, sizes, ends, (compared, differing), options.minutes)


def report(
    load: Load,
    sizes: list[tuple[float, int]],
    ends: collections.Counter[str],
    answers: tuple[int, int],
    minutes: float,
) -> int:
    """Print what happened."""
    third = len(sizes) // 3
    tenth = max(1, len(sizes) // 10)
    early = max(size for _, size in sizes[third : third + tenth]) / 1e6
    late = max(size for _, size in sizes[-tenth:]) / 1e6
    waits = sorted(load.waits)
    print(f"{minutes:g} minutes, {CLIENTS} clients\n")
    print("| what | count |\n|---|---|")
    for what, count in sorted(load.counts.items()):
        print(f"| {what} | {count:,} |")
    print(f"| jobs, by their end | {', '.join(f'{n} {s}' for s, n in sorted(ends.items()))} |")
    print(f"| different answers asked again alone | {answers[0]:,}, {answers[1]} of them differ |")
    if waits:
        at = [f"{waits[int(share * (len(waits) - 1))]:.2f}" for share in (0.5, 0.95, 1)]
        print(f"| seconds to a stream's first event: median, 95%, longest | {', '.join(at)} |")
    print(f"| memory after a third, at the end | {early:.0f} MB, {late:.0f} MB |")
    grown = late > 1.1 * early
    for what in load.wrong[:20]:
        print(f"\nWRONG: {what}")
    print(f"\nfaults: {len(load.wrong)}; memory {'GREW' if grown else 'did not grow'}")
    return 1 if load.wrong or grown else 0


if __name__ == "__main__":
    sys.exit(main())
