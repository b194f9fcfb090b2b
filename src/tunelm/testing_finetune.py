"""A provider of fine-tuning for tests of programs that use one: real HTTP, nothing trained."""

from __future__ import annotations

import base64
import email.parser
import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from tunelm.models.base import ChatModel
from tunelm.testing import FailingHandler, Failure, QuietListener
from tunelm.types import Message, Request

STATES = ("validating_files", "queued", "running", "succeeded")
STEPS = 4
"""Steps that a job says it has."""
TOKENS = 1234
"""Tokens that a job says it trained on."""


class FineTuningServer:
    """Files, fine-tuning jobs and chats by the OpenAI protocol, on loopback.

    A job goes on by one of `states` each time it is looked at. Use it as a context manager;
    `url` is the `base_url`.

    Args:
        model: who answers as the fine-tuned model; None: nobody.
        states: what a job goes through, the last one for good.
        key: the key to ask for; None: none is asked for.
        fail: called with a request's method, its path, and how often both came before; returns
            how to fail, or None to answer well. `cut` is carried out and then breaks off,
            anything else fails before.
        metadata: what becomes of a job's metadata: it is a filter of the list, is kept and no
            filter, or is dropped.
        idempotent: whether a repeated Idempotency-Key gets the job that it made before.

    Attributes:
        files: {id: {"filename", "content"}}, in the order in which they came.
        jobs: all jobs, in the order in which they were made.
        bodies: the bodies of all creations that came.
        headers: the headers of all requests.
    """

    def __init__(
        self,
        model: ChatModel | None = None,
        states: tuple[str, ...] = STATES,
        key: str | None = None,
        fail: Callable[[str, str, int], Failure | None] | None = None,
        metadata: str = "filter",
        idempotent: bool = False,
    ) -> None:
        self.model = model
        self.states = states
        self.key = key
        self.metadata = metadata
        self.idempotent = idempotent
        self.files: dict[str, dict[str, Any]] = {}
        self.jobs: list[dict[str, Any]] = []
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.lock = threading.Lock()
        self._fail = fail or (lambda method, path, before: None)
        self._seen: dict[tuple[str, str], int] = {}
        self._made: dict[str, dict[str, Any]] = {}
        self._looks: dict[str, int] = {}
        self._http = _Listener(("127.0.0.1", 0), _Handler)
        self._http.provider = self
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> Self:
        thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def begin(self, method: str, path: str, headers: Mapping[str, str]) -> Failure:
        """Note a request; how to answer it."""
        with self.lock:
            self.headers.append(dict(headers))
            before = self._seen.get((method, path), 0)
            self._seen[method, path] = before + 1
        return self._fail(method, path, before) or Failure()

    def add_file(self, filename: str, content: bytes) -> dict[str, Any]:
        """Keep a file; its object."""
        with self.lock:
            file_id = f"file-{len(self.files):04d}"
            self.files[file_id] = {"filename": filename, "content": content}
        return self.file(file_id)

    def file(self, file_id: str) -> dict[str, Any]:
        """The object of a file."""
        kept = self.files[file_id]
        return {
            "id": file_id,
            "object": "file",
            "bytes": len(kept["content"]),
            "created_at": 1,
            "filename": kept["filename"],
            "purpose": "fine-tune",
            "status": "processed",
        }

    def create(self, body: dict[str, Any], token: str | None) -> dict[str, Any]:
        """A new job, or the one that the same Idempotency-Key made."""
        with self.lock:
            self.bodies.append(body)
            if self.idempotent and token in self._made:
                return self._made[token]
            method = body.get("method") or {}
            settings = (method.get("supervised") or {}).get("hyperparameters")
            job = {
                "id": f"ftjob-{len(self.jobs):04d}",
                "object": "fine_tuning.job",
                "created_at": int(time.time()),
                "error": None,
                "fine_tuned_model": None,
                "finished_at": None,
                "estimated_finish": None,
                "hyperparameters": settings or body.get("hyperparameters") or {},
                "model": body["model"],
                "organization_id": "org",
                "result_files": [],
                "seed": body.get("seed", 0),
                "status": self.states[0],
                "trained_tokens": None,
                "training_file": body["training_file"],
                "validation_file": body.get("validation_file"),
                "method": method or None,
                "metadata": None if self.metadata == "drop" else body.get("metadata"),
            }
            self.jobs.append(job)
            if token:
                self._made[token] = job
            return job

    def look(self, job: dict[str, Any]) -> dict[str, Any]:
        """A job as it is now; it is one state further at the next look."""
        with self.lock:
            at = self._looks.get(job["id"], 0)
            self._looks[job["id"]] = at + 1
            if job["status"] in ("succeeded", "failed", "cancelled"):
                return job
            job["status"] = state = self.states[min(at, len(self.states) - 1)]
        if state == "succeeded":
            table = "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n"
            table += "".join(f"{i},{1 / i:.3f},0.5,,\n" for i in range(1, STEPS + 1))
            made = self.add_file(f"{job['id']}.csv", base64.b64encode(table.encode()))
            job["result_files"] = [made["id"]]
            job["fine_tuned_model"] = f"ft:{job['model']}:org::{job['id'][-4:]}"
            job["trained_tokens"] = TOKENS
        elif state == "failed":
            job["error"] = {"code": "server_error", "message": "it broke", "param": None}
        return job

    def events(self, job: dict[str, Any]) -> list[dict[str, Any]]:
        """What happened in a job so far, the newest first."""
        looks = self._looks.get(job["id"], 0)
        rows = [
            {
                "id": f"{job['id']}-event-{i}",
                "object": "fine_tuning.job.event",
                "created_at": 1000 + i,
                "level": "info",
                "type": "metrics",
                "message": f"Step {i + 1}/{STEPS}: training loss=0.5",
                "data": {"step": i + 1, "train_loss": 0.5, "total_steps": STEPS},
            }
            for i in range(min(looks, STEPS))
        ]
        return rows[::-1]

    def listed(self, wanted: Mapping[str, str]) -> list[dict[str, Any]]:
        """The jobs that a list shows, the newest first."""
        jobs = self.jobs[::-1]
        if self.metadata != "filter":
            return jobs
        return [j for j in jobs if wanted.items() <= (j["metadata"] or {}).items()]


class _Listener(QuietListener):
    provider: FineTuningServer


class _Handler(FailingHandler):
    @property
    def provider(self) -> FineTuningServer:
        assert isinstance(self.server, _Listener)
        return self.server.provider

    def do_GET(self) -> None:  # noqa: N802  # the name is http.server's
        self._handle(b"")

    def do_POST(self) -> None:  # noqa: N802  # the name is http.server's
        self._handle(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def _handle(self, body: bytes) -> None:
        path, _, query = self.path.partition("?")
        path = path.removeprefix("/v1")
        failure = self.provider.begin(self.command, path, dict(self.headers))
        time.sleep(failure.delay_s)
        if failure.drop:
            self.hang_up()
        elif self.provider.key and self.headers.get("Authorization") != (
            f"Bearer {self.provider.key}"
        ):
            said = f"Incorrect API key provided: {self.headers.get('Authorization')}"
            self.send(401, {"error": {"message": said}}, failure)
        elif failure.status != 200:
            error = {"message": "failed on demand", **failure.error}
            self.send(failure.status, {"error": error}, failure)
        else:
            status, answer = self._answer(path.strip("/").split("/"), dict(parse_qsl(query)), body)
            self.send(status, answer, failure)

    def _answer(
        self, path: list[str], query: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, Any] | bytes]:
        provider, get = self.provider, self.command == "GET"
        match path:
            case ["models"] if get:
                return 200, {"object": "list", "data": []}
            case ["files"] if get:
                newest = [provider.file(i) for i in reversed(provider.files)]
                return 200, _page(newest, query)
            case ["files"]:
                return 200, provider.add_file(*_uploaded(self.headers["Content-Type"], body))
            case ["files", file_id, "content"]:
                return 200, provider.files[file_id]["content"]
            case ["fine_tuning", "jobs"] if get:
                wanted = {k[9:-1]: v for k, v in query.items() if k.startswith("metadata[")}
                return 200, _page(provider.listed(wanted), query)
            case ["fine_tuning", "jobs"]:
                return 200, provider.create(json.loads(body), self.headers["Idempotency-Key"])
            case ["fine_tuning", "jobs", job_id, *rest]:
                job = next((j for j in provider.jobs if j["id"] == job_id), None)
                if job is None:
                    return 404, {"error": {"message": f"no job {job_id}", "code": "not_found"}}
                if rest == ["events"]:
                    return 200, _page(provider.events(job), query)
                if rest == ["cancel"]:
                    job["status"] = "cancelled"
                    return 200, job
                return 200, provider.look(job)
            case ["chat", "completions"] if provider.model is not None:
                return 200, _chat(provider.model, json.loads(body))
            case _:
                return 404, {"error": {"message": f"no such path: {urlsplit(self.path).path}"}}


def _page(rows: list[dict[str, Any]], query: Mapping[str, str]) -> dict[str, Any]:
    """A page of a list after the id `after`, of at most `limit` rows."""
    ids = [row["id"] for row in rows]
    start = ids.index(query["after"]) + 1 if query.get("after") in ids else 0
    shown = rows[start : start + int(query.get("limit", 20))]
    more = start + len(shown) < len(rows)
    return {"object": "list", "data": shown, "has_more": more}


def _uploaded(content_type: str, body: bytes) -> tuple[str, bytes]:
    """The name and the content of the file in a multipart body."""
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    message: Any = email.parser.BytesParser().parsebytes(head + body)
    for part in message.get_payload():
        if part.get_filename():
            return part.get_filename(), part.get_payload(decode=True)
    raise ValueError("no file in the body")


def _chat(model: ChatModel, body: Mapping[str, Any]) -> dict[str, Any]:
    messages = tuple(Message(m["role"], m["content"]) for m in body["messages"])
    done = model.complete([Request(messages, body.get("max_tokens") or 64)])[0]
    return {
        "object": "chat.completion",
        "model": body["model"],
        "choices": [
            {
                "index": 0,
                "finish_reason": done.finish_reason,
                "message": {"role": "assistant", "content": done.text},
            }
        ],
        "usage": {
            "prompt_tokens": done.usage.prompt_tokens,
            "completion_tokens": done.usage.completion_tokens,
        },
    }
