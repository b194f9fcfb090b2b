"""The fine-tuning half of a server, through the official SDK, with real training."""

from __future__ import annotations

import base64
import concurrent.futures
import csv
import hashlib
import io
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tunelm.config import ModelConfig
from tunelm.route_settings import LocalSettings
from tunelm.server.app import create_app
from tunelm.server.settings import ServerSettings
from tunelm.training.job import TrainingJob, TrainingRow, write_job
from tunelm.training.process import train
from tunelm.types import Message

from .serving import listening, strict_client
from .test_serve_kill import benchmark

SPEC = Path(__file__).parents[2] / "shared" / "spec" / "openai-fine-tuning.json"
EPOCHS, BATCH, SEED = 8, 1, 7
ENDED = ("succeeded", "failed", "cancelled")
SMALL_FILE = 200_000


@dataclass
class Running:
    """A server in this process."""

    url: str
    state: Path
    base: str
    sdk: openai.OpenAI
    http: httpx.Client

    def upload(self, rows: list[Any], name: str = "rows.jsonl", **rest: Any) -> str:
        content = "\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows).encode()
        return self.sdk.files.create(file=(name, content), purpose="fine-tune", **rest).id

    def create(self, file: str, **rest: Any) -> Any:
        return self.sdk.fine_tuning.jobs.create(model=self.base, training_file=file, **rest)

    def wait(self, job_id: str, until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The job once `until` holds of it; as plain JSON, since some states are not typed."""
        for _ in range(1200):
            job = self.http.get(f"{self.url}/fine_tuning/jobs/{job_id}").raise_for_status().json()
            if until(job):
                return job
            time.sleep(0.05)
        raise AssertionError(f"still {job['status']}")

    def ended(self, job_id: str) -> dict[str, Any]:
        return self.wait(job_id, lambda job: job["status"] in ENDED)

    def events(self, job_id: str) -> list[Any]:
        """All events, oldest first."""
        return list(self.sdk.fine_tuning.jobs.list_events(job_id, limit=100))[::-1]

    def weights(self, job_id: str) -> bytes:
        return (self.state / "models" / job_id / "adapter_model.safetensors").read_bytes()

    def database(self, sql: str, *values: object) -> None:
        """Change what the server stored, as time would."""
        with sqlite3.connect(self.state / "server.sqlite") as db:
            db.execute(sql, values)
        db.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Running]:
    state = tmp_path_factory.mktemp("server") / "state"
    app = create_app(ServerSettings(str(tiny_model), state, max_file=SMALL_FILE))
    with listening(app) as url, strict_client(url) as sdk, httpx.Client(timeout=60) as plain:
        yield Running(url, state, tiny_model.name, sdk, plain)


def chat(*turns: tuple[str, str], **weights: int) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [{"role": r, "content": c} for r, c in turns]
    for place, weight in weights.items():
        messages[int(place.removeprefix("at"))]["weight"] = weight
    return {"messages": messages}


def qa(number: int) -> dict[str, Any]:
    return chat(("user", f"The code of box {number}?"), ("assistant", f"It is {number * 7 % 10}."))


TALK = (
    ("developer", "Be short."),
    ("user", "One?"),
    ("assistant", "1"),
    ("user", "Two?"),
    ("assistant", "2"),
    ("user", "Three?"),
    ("assistant", "3"),
)
ROWS = [*(qa(i) for i in range(20)), chat(*TALK, at4=0), chat(*TALK, at6=0, at2=1)]
DEV = [qa(i) for i in range(100, 104)]


def training_rows(rows: list[dict[str, Any]]) -> list[TrainingRow]:
    return [
        TrainingRow(f"x{i}", tuple(Message(m["role"], m["content"]) for m in row["messages"]))
        for i, row in enumerate(rows)
    ]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> bytes:
    """The weights that the same rows, seed and settings give without any server."""
    work = tmp_path_factory.mktemp("direct") / "work"
    settings = LocalSettings(epochs=EPOCHS, batch_size=BATCH, stop_on="none")
    job = TrainingJob(model=ModelConfig(base=str(tiny_model)), settings=settings, seed=SEED)
    turns = tuple(Message(r.replace("developer", "system"), c) for r, c in TALK)
    talks = [TrainingRow("a", turns, learn=(2, 6)), TrainingRow("b", turns[:5], learn=(2, 4))]
    write_job(work, job, [*training_rows(ROWS[:20]), *talks], training_rows(DEV))
    train(work)
    return (work / "adapter" / "adapter_model.safetensors").read_bytes()


HYPER = {"n_epochs": EPOCHS, "batch_size": BATCH, "learning_rate_multiplier": "auto"}
METHOD: Any = {"type": "supervised", "supervised": {"hyperparameters": HYPER}}


@dataclass
class Trained:
    """A job that succeeded."""

    id: str
    file: str
    job: Any
    shown: list[dict[str, Any]]
    """What the job looked like on the way, each state once."""


@pytest.fixture(scope="module")
def trained(server: Running) -> Trained:
    file, dev = server.upload(ROWS), server.upload(DEV, "dev.jsonl")
    job = server.create(
        file,
        validation_file=dev,
        suffix="my-boxes-2",
        seed=SEED,
        method=METHOD,
        metadata={"task": "one", "a[b]": "c"},
    )
    shown: list[dict[str, Any]] = []

    def done(job: dict[str, Any]) -> bool:
        if not shown or shown[-1] != job:
            shown.append(job)
        return job["status"] in ENDED

    server.wait(job.id, done)
    return Trained(job.id, file, server.sdk.fine_tuning.jobs.retrieve(job.id), shown)


def schema(name: str) -> Callable[[Any], None]:
    """A check against the published schema."""
    jsonschema = pytest.importorskip("jsonschema")
    if not SPEC.is_file():
        pytest.skip("the specification is not here")
    text = SPEC.read_text(encoding="utf-8")
    # OpenAPI 3.0 wrote it so; a JSON Schema has a number there
    document = json.loads(text.replace('"exclusiveMinimum": true', '"title": ""'))
    root = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    return jsonschema.Draft202012Validator(root).validate


def get(server: Running, path: str, **query: Any) -> Any:
    return server.http.get(f"{server.url}{path}", params=query).raise_for_status().json()


# --- files ----------------------------------------------------------------------------------------


def test_a_file_is_listed_in_pages_read_and_deleted(server: Running):
    sdk = server.sdk
    ids = [server.upload([f"row {i}"], f"p{i}.jsonl") for i in range(5)]
    user_data = sdk.files.create(file=("x.bin", b"\0\xff"), purpose="user_data")
    assert sdk.files.content(user_data.id).content == b"\0\xff"
    assert sdk.files.retrieve(user_data.id).purpose == "user_data"
    page = sdk.files.list(purpose="fine-tune", limit=2, order="asc", after=ids[0])
    assert [f.id for f in page.data] == ids[1:3]
    assert page.has_more
    mine = [f.id for f in sdk.files.list(purpose="fine-tune", limit=2) if f.id in ids]
    assert mine == ids[::-1], "newest first, through all pages"
    assert sdk.files.wait_for_processing(ids[0]).status == "processed"
    assert sdk.files.delete(ids[0]).deleted
    for call in (sdk.files.retrieve, sdk.files.delete, sdk.files.content):
        with pytest.raises(openai.NotFoundError, match="there is no file"):
            call(ids[0])
    assert not (server.state / "files" / ids[0]).exists()


def test_file_objects_keep_the_published_schemas(server: Running):
    file = server.upload([qa(1)], expires_after={"anchor": "created_at", "seconds": 3600})
    schema("OpenAIFile")(get(server, f"/files/{file}"))
    schema("ListFilesResponse")(get(server, "/files"))
    schema("ListFilesResponse")(get(server, "/files", purpose="vision"))
    deleted = server.http.delete(f"{server.url}/files/{file}").json()
    schema("DeleteFileResponse")(deleted)


@pytest.mark.parametrize(
    "name", ["../../../planted", "..\\..\\planted", "/etc/planted", "a/planted"]
)
def test_a_name_from_a_client_is_never_a_path(server: Running, name: str):
    file = server.sdk.files.create(file=(name, b"x"), purpose="fine-tune")
    assert file.filename == "planted"
    assert (server.state / "files" / file.id).read_bytes() == b"x"
    assert not list(server.state.parent.rglob("*planted*"))


@pytest.mark.parametrize(
    "path", ["/files/..%2Fserver.sqlite", "/files/%2e%2e/server.sqlite", "/files/../server.sqlite"]
)
def test_an_id_from_a_client_is_never_a_path(server: Running, path: str):
    for suffix in ("", "/content"):
        answer = server.http.get(f"{server.url}{path}{suffix}")
        assert answer.status_code == 404
        assert answer.json()["error"]["message"]
    server.http.delete(f"{server.url}{path}")
    assert (server.state / "server.sqlite").is_file()


def test_uploads_out_of_form_are_refused_and_leave_nothing(server: Running):
    before = len(list((server.state / "files").iterdir()))
    post = f"{server.url}/files"
    form: Any = {"purpose": "fine-tune"}
    file: Any = {"file": ("a.jsonl", b"x" * 10)}
    cases = [
        (413, "file", {"data": form, "files": {"file": ("a", b"x" * (SMALL_FILE + 1))}}),
        (413, "file", {"data": form, "files": {"file": ("a", b"x" * (4 * SMALL_FILE))}}),
        (400, "file", {"data": form, "files": {"file": ("a", b"")}}),
        (400, "file", {"data": form, "files": {"other": ("a", b"x")}}),
        (400, "purpose", {"files": file}),
        (400, "purpose", {"data": {"purpose": "evals"}, "files": file}),
        (400, "color", {"data": {**form, "color": "red"}, "files": file}),
        (400, None, {"json": form}),
        (
            400,
            None,
            {"content": b"--b\r\n", "headers": {"content-type": "multipart/form-data; boundary=b"}},
        ),
    ]
    for seconds in ("1", "2592001", "-5", "one"):
        policy = {"expires_after[anchor]": "created_at", "expires_after[seconds]": seconds}
        cases.append((400, "expires_after.seconds", {"data": form | policy, "files": file}))
    for status, param, request in cases:
        answer = server.http.post(post, **request)
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (status, param), error
        assert set(error) == {"message", "type", "param", "code"}
    assert len(list((server.state / "files").iterdir())) == before
    assert not list((server.state / "incoming").iterdir())


def test_a_broken_off_upload_leaves_nothing(server: Running):
    import socket

    before = len(list((server.state / "files").iterdir()))
    host, port = httpx.URL(server.url).host, httpx.URL(server.url).port
    head = (
        "POST /v1/files HTTP/1.1\r\nHost: {}\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    )
    part = '--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nsome text'
    with socket.create_connection((host, port)) as raw:
        raw.sendall(f"{head.format(f'{host}:{port}')}Content-Length: 5000\r\n\r\n{part}".encode())
        time.sleep(0.2)
    for _ in range(100):
        if not list((server.state / "incoming").iterdir()):
            break
        time.sleep(0.05)
    assert not list((server.state / "incoming").iterdir())
    assert len(list((server.state / "files").iterdir())) == before


def test_an_expired_file_is_gone(server: Running):
    file = server.upload([qa(1)], expires_after={"anchor": "created_at", "seconds": 3600})
    shown = server.sdk.files.retrieve(file)
    assert shown.expires_at == shown.created_at + 3600
    server.database("UPDATE files SET expires_at = created_at - 1 WHERE id = ?", file)
    with pytest.raises(openai.NotFoundError):
        server.sdk.files.retrieve(file)
    assert file not in [f.id for f in server.sdk.files.list()]
    with pytest.raises(openai.BadRequestError, match="training_file: there is no file"):
        server.create(file)


# --- uploads --------------------------------------------------------------------------------------


def test_an_upload_in_parts_becomes_a_file(server: Running, tmp_path: Path):
    content = bytes(range(256)) * 300
    path = tmp_path / "large.jsonl"
    path.write_bytes(content)
    done = server.sdk.uploads.upload_file_chunked(
        file=path,
        mime_type="text/jsonl",
        purpose="fine-tune",
        part_size=10_000,
        md5=hashlib.md5(content).hexdigest(),
    )
    assert done.status == "completed"
    assert done.file is not None
    assert done.file.filename == "large.jsonl"
    assert server.sdk.files.content(done.file.id).content == content
    assert not list((server.state / "parts").iterdir())


def test_parts_stand_in_the_order_that_the_client_names(server: Running):
    uploads = server.sdk.uploads
    new = uploads.create(bytes=6, filename="x", mime_type="text/plain", purpose="fine-tune")
    assert new.expires_at == new.created_at + 3600
    parts = [uploads.parts.create(new.id, data=piece).id for piece in (b"cd", b"ab", b"ef")]
    order = [parts[1], parts[0], parts[2]]
    done = uploads.complete(new.id, part_ids=order)
    again = uploads.complete(new.id, part_ids=order)
    assert done.file is not None
    assert again == done, "an answer that was lost can be asked for again"
    assert server.sdk.files.content(done.file.id).content == b"abcdef"
    with pytest.raises(openai.BadRequestError, match="completed"):
        uploads.parts.create(new.id, data=b"x")
    with pytest.raises(openai.BadRequestError, match="completed"):
        uploads.cancel(new.id)
    schema("Upload")(
        server.http.post(f"{server.url}/uploads/{new.id}/complete", json={"part_ids": order}).json()
    )


def test_an_upload_that_does_not_add_up_is_refused(server: Running):
    uploads = server.sdk.uploads
    new = uploads.create(bytes=4, filename="x", mime_type="text/plain", purpose="fine-tune")
    part = uploads.parts.create(new.id, data=b"abc")
    schema("UploadPart")(part.model_dump())
    with pytest.raises(openai.BadRequestError, match="4 were announced"):
        uploads.parts.create(new.id, data=b"de")
    last = uploads.parts.create(new.id, data=b"d")
    for part_ids, match in [
        ([part.id], "3 bytes"),
        ([part.id, part.id], "twice"),
        ([part.id, "part_x"], "no part"),
    ]:
        with pytest.raises(openai.BadRequestError, match=match):
            uploads.complete(new.id, part_ids=part_ids)
    with pytest.raises(openai.BadRequestError, match="md5"):
        uploads.complete(new.id, part_ids=[part.id, last.id], md5="0" * 32)
    assert uploads.cancel(new.id).status == "cancelled"
    assert uploads.cancel(new.id).status == "cancelled"
    assert not list((server.state / "parts").iterdir())
    with pytest.raises(openai.BadRequestError, match="cancelled"):
        uploads.complete(new.id, part_ids=[part.id, last.id])
    with pytest.raises(openai.NotFoundError):
        uploads.cancel("upload_x")
    with pytest.raises(openai.BadRequestError, match="bytes"):
        uploads.create(
            bytes=SMALL_FILE + 1, filename="x", mime_type="text/plain", purpose="fine-tune"
        )


def test_an_upload_expires_after_an_hour(server: Running):
    uploads = server.sdk.uploads
    new = uploads.create(bytes=1, filename="x", mime_type="text/plain", purpose="fine-tune")
    part = uploads.parts.create(new.id, data=b"a")
    server.database("UPDATE uploads SET expires_at = created_at - 1 WHERE id = ?", new.id)
    with pytest.raises(openai.BadRequestError, match="the upload is expired"):
        uploads.complete(new.id, part_ids=[part.id])
    for _ in range(100):  # the thread that looks for what has expired may be about to delete it
        if not (server.state / "parts" / part.id).exists():
            return
        time.sleep(0.05)
    raise AssertionError("the part of an expired upload is still there")


# --- jobs: what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": "gpt-4o-mini"}, "model"),
        ({"model": None}, "model"),
        ({"training_file": "file-none"}, "training_file"),
        ({"validation_file": "../server.sqlite"}, "validation_file"),
        ({"suffix": ""}, "suffix"),
        ({"suffix": "x" * 65}, "suffix"),
        ({"suffix": "../up"}, "suffix"),
        ({"suffix": "Upper"}, "suffix"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**31}, "seed"),
        ({"seed": "7"}, "seed"),
        ({"metadata": {str(i): "x" for i in range(17)}}, "metadata"),
        ({"metadata": {"k" * 65: "x"}}, "metadata"),
        ({"metadata": {"k": "x" * 513}}, "metadata"),
        ({"metadata": {"k": 1}}, "metadata.k"),
        ({"hyperparameters": {"n_epochs": 51}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"n_epochs": 1.5}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"batch_size": 0}}, "hyperparameters.batch_size"),
        ({"hyperparameters": {"batch_size": 257}}, "hyperparameters.batch_size"),
        ({"hyperparameters": {"batch_size": True}}, "hyperparameters.batch_size"),
        (
            {"hyperparameters": {"learning_rate_multiplier": 0}},
            "hyperparameters.learning_rate_multiplier",
        ),
        ({"hyperparameters": {"warmup": 1}}, "hyperparameters.warmup"),
        ({"hyperparameters": {"n_epochs": 2}, "method": METHOD}, "hyperparameters"),
        ({"method": {"type": "dpo", "dpo": {}}}, "method.type"),
        ({"method": {"type": "reinforcement"}}, "method.type"),
        ({"method": {"type": "supervised", "dpo": {}}}, "method.dpo"),
        ({"method": {"supervised": {}}}, "method.type"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "x"}}]}, "integrations"),
        ({"color": "red"}, "color"),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else "",
)  # fmt: skip
def test_a_job_that_cannot_be_is_refused_by_name(
    server: Running, trained: Trained, body: dict[str, Any], param: str
):
    asked = {"model": server.base, "training_file": trained.file, **body}
    asked = {k: v for k, v in asked.items() if v is not None}
    before = len(get(server, "/fine_tuning/jobs", limit=1000)["data"])
    answer = server.http.post(f"{server.url}/fine_tuning/jobs", json=asked)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param), error
    assert set(error) == {"message", "type", "param", "code"}
    assert str(server.state) not in answer.text
    assert len(get(server, "/fine_tuning/jobs", limit=1000)["data"]) == before


def test_what_is_left_out_is_refused_by_name(server: Running, trained: Trained):
    alpha = server.sdk.fine_tuning.alpha.graders
    grader: Any = {
        "type": "string_check",
        "name": "x",
        "input": "a",
        "reference": "a",
        "operation": "eq",
    }
    with pytest.raises(openai.BadRequestError, match="Grading is not supported"):
        alpha.run(grader=grader, model_sample="a")
    permissions = server.sdk.fine_tuning.checkpoints.permissions
    with pytest.raises(openai.BadRequestError, match="Sharing checkpoints"):
        permissions.create("ft:x:ckpt-step-1", project_ids=["p"])
    answer = server.http.post(f"{server.url}/fine_tuning/jobs/{trained.id}/restart")
    assert answer.status_code == 404


@pytest.mark.parametrize("field", ["model", "training_file", "suffix", "metadata"])
def test_half_a_character_is_refused(server: Running, field: str):
    body = {"model": server.base, "training_file": "file-x", field: "\ud800"}
    if field == "metadata":
        body[field] = {"k": "\ud800"}  # type: ignore[assignment]
    answer = server.http.post(f"{server.url}/fine_tuning/jobs", content=json.dumps(body))
    assert answer.status_code == 400, answer.text


def test_a_file_for_another_purpose_cannot_be_trained_on(server: Running):
    file = server.sdk.files.create(file=("x", b"x"), purpose="user_data").id
    with pytest.raises(openai.BadRequestError, match="was uploaded for user_data"):
        server.create(file)


# --- jobs: files that cannot be trained on --------------------------------------------------------

BAD: dict[str, tuple[list[Any], str]] = {
    "not JSON": ([*ROWS[:12], "{oops"], "line 13: not valid JSON"),
    "no messages": ([*ROWS[:12], {"prompt": "a", "completion": "b"}], "line 13: found the fields"),
    "too few": (ROWS[:9], "the file has 9 examples"),
    "not JSONL": (["[", *map(json.dumps, ROWS[:12]), "]"], "the file is not JSONL"),
    "no text": ([*ROWS[:12], chat(("user", "a"), ("assistant", "  "))], "line 13: message 2"),
    "no answer": ([*ROWS[:12], chat(("user", "a"))], "line 13: no turn is the assistant's"),
    "weight": ([*ROWS[:12], chat(("user", "a"), ("assistant", "b"), at1=2)], "line 13: message 2"),
    "weights": ([*ROWS[:12], chat(("user", "a"), ("assistant", "b"), at1=0)], "line 13: all 1"),
    "a special token": (
        [*ROWS[:12], chat(("user", "a"), ("assistant", "b <|end|> c"))],
        "line 13: message 2 (assistant) holds '<|end|>'",
    ),
    "too long": (
        [*ROWS[:12], chat(("user", "long " * 600), ("assistant", "b"))],
        "tokens, and the model takes 512",
    ),
    "tools": (
        [
            *ROWS[:12],
            {
                **chat(("user", "a"), ("assistant", "b")),
                "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
            },
        ],
        "line 13: tools",
    ),
    "a picture": (
        [
            *ROWS[:12],
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
                    {"role": "assistant", "content": "b"},
                ]
            },
        ],
        "line 13: message 1: only text",
    ),
    "NUL": (["\0\0\0\0"], "it is no text"),
}


def test_a_bad_file_fails_the_job_with_lines_and_reasons(server: Running):
    jobs = {name: server.create(server.upload(rows)).id for name, (rows, _) in BAD.items()}
    for name, job_id in jobs.items():
        job = server.ended(job_id)
        assert job["status"] == "failed", name
        error = job["error"]
        assert (error["code"], error["param"]) == ("invalid_training_file", "training_file")
        assert BAD[name][1] in error["message"], (name, error["message"])
        assert "\n" not in error["message"]
        assert str(server.state) not in error["message"]
        assert job["finished_at"]
        assert server.events(job_id)[-1].level == "error"
        schema("FineTuningJob")(job)


def test_many_faults_are_all_events_and_some_are_quoted(server: Running):
    rows = [*ROWS[:12], *(["{oops"] * 7)]
    job_id = server.create(server.upload(rows)).id
    message = server.ended(job_id)["error"]["message"]
    assert "line 17: " in message
    assert "And 2 more." in message
    assert sum(event.level == "error" for event in server.events(job_id)) == 7


def test_rows_of_the_training_file_must_not_validate(server: Running):
    training, dev = server.upload(ROWS), server.upload([qa(900), qa(3)])
    job = server.ended(server.create(training, validation_file=dev).id)
    assert (job["error"]["code"], job["error"]["param"]) == (
        "invalid_validation_file",
        "validation_file",
    )
    assert "line 2: the same row as line 4 of the training file" in job["error"]["message"]


def test_a_file_that_is_lost_fails_the_job(server: Running):
    file = server.upload(ROWS)
    (server.state / "files" / file).unlink()
    job = server.ended(server.create(file).id)
    assert job["status"] == "failed"
    assert "was deleted" in job["error"]["message"]
    assert server.sdk.files.delete(file).deleted


def test_a_training_that_fails_says_why_without_a_path(server: Running):
    hyper: Any = {"learning_rate_multiplier": 1e9, "n_epochs": 1}
    job = server.ended(server.create(server.upload(ROWS), hyperparameters=hyper).id)
    assert job["status"] == "failed"
    assert (job["error"]["code"], job["error"]["param"]) == ("training_failed", None)
    assert "Lower the learning rate" in job["error"]["message"]
    assert "\n" not in job["error"]["message"]
    assert "/" not in job["error"]["message"]
    assert job["estimated_finish"] is None


# --- jobs: one that succeeds ----------------------------------------------------------------------


def test_a_job_trains_what_the_trainer_trains(
    server: Running, trained: Trained, undisturbed: bytes
):
    assert trained.job.status == "succeeded"
    assert server.weights(trained.id) == undisturbed


def test_a_job_shows_how_far_it_is(server: Running, trained: Trained):
    states = list(dict.fromkeys(job["status"] for job in trained.shown))
    order = ["validating_files", "queued", "running", "succeeded"]
    assert states == [state for state in order if state in states]
    for job in trained.shown:
        schema("FineTuningJob")(job)
        running = job["status"] == "running"
        assert running or job["estimated_finish"] is None
    estimates = [job["estimated_finish"] for job in trained.shown if job["estimated_finish"]]
    assert estimates
    job = trained.job
    assert all(abs(estimate - job.finished_at) < 60 for estimate in estimates)
    assert job.fine_tuned_model.startswith(f"ft:{server.base}:tunelm:my-boxes-2:")
    assert job.organization_id == "org-tunelm"
    assert job.error is None
    assert job.trained_tokens > 0
    assert job.hyperparameters.model_dump() == {**HYPER, "learning_rate_multiplier": 1.0}
    assert not list((server.state / "jobs").glob(trained.id)), "what it was trained with is gone"


def test_events_come_newest_first_in_pages(server: Running, trained: Trained):
    sdk, steps = server.sdk, EPOCHS * len(ROWS) // BATCH
    newest = sdk.fine_tuning.jobs.list_events(trained.id, limit=1).data[0]
    assert newest.message == "The job has successfully completed"
    events = server.events(trained.id)
    assert events[0].message == f"Created fine-tuning job: {trained.id}"
    assert events[-1] == newest
    metrics = [event.data for event in events if event.type == "metrics"]
    trainings = [data for data in metrics if "train_loss" in data]
    assert [data["step"] for data in trainings] == list(range(1, steps + 1))
    assert {data["total_steps"] for data in metrics} == {steps}
    assert all(0 <= data["train_mean_token_accuracy"] <= 1 for data in trainings)
    assert sum("full_valid_loss" in data for data in metrics) == EPOCHS
    assert any(event.message.startswith(f"Step 3/{steps}: training loss=") for event in events)
    first = sdk.fine_tuning.jobs.list_events(trained.id, limit=3)
    second = sdk.fine_tuning.jobs.list_events(trained.id, limit=3, after=first.data[-1].id)
    assert [e.id for e in [*first.data, *second.data]] == [e.id for e in events[:-7:-1]]
    assert first.has_more
    schema("ListFineTuningJobEventsResponse")(get(server, f"/fine_tuning/jobs/{trained.id}/events"))
    for limit in (0, -1, "x", 10**6):
        answer = server.http.get(f"{server.url}/fine_tuning/jobs/{trained.id}/events?limit={limit}")
        assert answer.status_code == 400


def test_each_epoch_is_a_checkpoint_that_is_served(server: Running, trained: Trained):
    every = list(server.sdk.fine_tuning.jobs.checkpoints.list(trained.id, limit=3))
    steps = [len(ROWS) // BATCH * epoch for epoch in range(EPOCHS, 0, -1)]
    assert [one.step_number for one in every] == steps
    served = {model.id for model in server.sdk.models.list()}
    assert trained.job.fine_tuned_model in served
    for one in every:
        assert one.fine_tuned_model_checkpoint in served
        name = f"{trained.job.fine_tuned_model}:ckpt-step-{one.step_number}"
        assert one.fine_tuned_model_checkpoint == name
        numbers = one.metrics.model_dump()
        assert numbers.pop("step") == one.step_number
        assert len(numbers) == 6
        assert all(isinstance(value, float) for value in numbers.values()), numbers
    path = f"/fine_tuning/jobs/{trained.id}/checkpoints"
    schema("ListFineTuningJobCheckpointsResponse")(get(server, path))


def test_the_result_file_holds_the_metrics_in_base64(server: Running, trained: Trained):
    (file,) = trained.job.result_files
    assert server.sdk.files.retrieve(file).purpose == "fine-tune-results"
    text = base64.b64decode(server.sdk.files.content(file).content, validate=True).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    columns = ["step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy"]
    assert list(rows[0]) == columns
    assert [int(row["step"]) for row in rows] == list(range(1, EPOCHS * len(ROWS) // BATCH + 1))
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    epoch = len(ROWS) // BATCH
    assert all(bool(row["valid_loss"]) == (int(row["step"]) % epoch == 0) for row in rows)


def test_jobs_are_found_by_their_metadata(server: Running, trained: Trained):
    listed = server.sdk.fine_tuning.jobs.list
    assert [job.id for job in listed(metadata={"task": "one"})] == [trained.id]
    assert [job.id for job in listed(metadata={"task": "one", "a[b]": "c"})] == [trained.id]
    assert not list(listed(metadata={"task": "two"}))
    assert not list(listed(metadata={"task": "one", "other": "x"}))
    every = get(server, "/fine_tuning/jobs", limit=1000)
    without = get(server, "/fine_tuning/jobs", metadata="null", limit=1000)["data"]
    assert [job["id"] for job in without] == [j["id"] for j in every["data"] if not j["metadata"]]
    assert not every["has_more"]
    schema("ListPaginatedFineTuningJobsResponse")(every)
    pages = [job.id for job in listed(limit=2)]
    assert pages == [job["id"] for job in every["data"]]
    answer = server.http.get(f"{server.url}/fine_tuning/jobs?after=ftjob-none")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "after")


def test_a_job_that_ended_takes_no_more_orders(server: Running, trained: Trained):
    jobs = server.sdk.fine_tuning.jobs
    for act in (jobs.cancel, jobs.pause, jobs.resume):
        with pytest.raises(openai.BadRequestError, match="the job is succeeded"):
            act(trained.id)
        with pytest.raises(openai.NotFoundError, match="there is no job"):
            act("ftjob-none")
    with pytest.raises(openai.NotFoundError):
        jobs.retrieve("ftjob-none")
    with pytest.raises(openai.NotFoundError):
        jobs.list_events("ftjob-none")
    with pytest.raises(openai.NotFoundError):
        jobs.checkpoints.list("ftjob-none")


# --- jobs: order, orders, repeated requests -------------------------------------------------------


def test_a_paused_job_goes_on_and_ends_with_the_same_weights(server: Running, undisturbed: bytes):
    jobs, path = server.sdk.fine_tuning.jobs, f"{server.url}/fine_tuning/jobs"
    file, dev = server.upload(ROWS), server.upload(DEV)
    rest: Any = {"validation_file": dev, "seed": SEED, "method": METHOD}
    job_id, waiting = (server.create(file, **rest).id for _ in range(2))
    server.wait(job_id, lambda job: job["estimated_finish"] is not None)
    assert jobs.retrieve(waiting).status == "queued", "one at a time"
    assert server.http.post(f"{path}/{waiting}/pause").json()["status"] == "paused"
    assert server.http.post(f"{path}/{waiting}/pause").status_code == 400
    assert jobs.cancel(waiting).status == "cancelled"
    assert server.http.post(f"{path}/{job_id}/pause").json()["status"] == "pausing"
    paused = server.wait(job_id, lambda job: job["status"] != "pausing")
    assert paused["status"] == "paused"
    assert paused["estimated_finish"] is None
    assert jobs.resume(job_id).status == "queued"
    job = server.ended(job_id)
    assert job["status"] == "succeeded", job["error"]
    assert server.weights(job_id) == undisturbed
    steps = [e.data["step"] for e in server.events(job_id) if "train_loss" in (e.data or {})]
    assert steps == list(range(1, EPOCHS * len(ROWS) // BATCH + 1)), "each step is told once"
    cancelled = jobs.retrieve(waiting)
    assert (cancelled.status, cancelled.fine_tuned_model) == ("cancelled", None)
    assert cancelled.finished_at
    assert not (server.state / "models" / waiting).exists()
    with pytest.raises(openai.BadRequestError, match="the job is cancelled"):
        jobs.cancel(waiting)


def bad_job(server: Running, **rest: Any) -> dict[str, Any]:
    """The body of a job that is created, and soon fails."""
    return {"model": server.base, "training_file": server.upload(ROWS[:3]), **rest}


def test_an_idempotency_key_makes_one_job(server: Running):
    body = bad_job(server)
    url, headers = f"{server.url}/fine_tuning/jobs", {"Idempotency-Key": "one-and-only"}

    def post(_: int) -> httpx.Response:
        return server.http.post(url, json=body, headers=headers)

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(post, range(16)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 1
    server.sdk.files.delete(body["training_file"])
    assert post(0).json()["id"] == answers[0].json()["id"], "also when its file is gone"
    other = server.http.post(url, json={**body, "seed": 1}, headers=headers)
    assert other.status_code == 400
    assert "Idempotency-Key was used before" in other.json()["error"]["message"]


def test_a_request_that_says_it_is_a_retry_makes_no_second_job(server: Running):
    body, url = bad_job(server), f"{server.url}/fine_tuning/jobs"
    first, again = (
        server.http.post(url, json=body, headers={"x-stainless-retry-count": count}).json()["id"]
        for count in ("0", "1")
    )
    assert first == again
    assert server.http.post(url, json=body).json()["id"] != first, "an intended second one"
    other = {**body, "suffix": "x"}
    retried = server.http.post(url, json=other, headers={"x-stainless-retry-count": "2"})
    assert retried.json()["id"] != first, "the first try never came"


def test_lost_delayed_and_repeated_requests_make_the_intended_jobs(server: Running):
    outcome = benchmark("server_posts").run(server.url, bad_job(server), posts=30, seed=3)
    assert outcome.wrong == []
    assert all(outcome.faults[name] for name in ("dropped before", "dropped after", "repeated"))


# --- models ---------------------------------------------------------------------------------------


def test_only_models_of_jobs_can_be_deleted(server: Running, trained: Trained):
    models = server.sdk.models
    checkpoint = server.sdk.fine_tuning.jobs.checkpoints.list(trained.id).data[-1]
    name = checkpoint.fine_tuned_model_checkpoint
    answer = server.http.delete(f"{server.url}/models/{name}").json()
    schema("DeleteModelResponse")(answer)
    assert answer["deleted"]
    assert name not in {model.id for model in models.list()}
    assert not (server.state / "models" / f"{trained.id}-step-{checkpoint.step_number}").exists()
    with pytest.raises(openai.NotFoundError):
        models.delete(name)
    with pytest.raises(openai.PermissionDeniedError, match="was not made by a fine-tuning job"):
        models.delete(server.base)
    with pytest.raises(openai.NotFoundError):
        models.delete("ft:nobody")
