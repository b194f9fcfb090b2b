"""The endpoints of fine-tuning jobs."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from tunelm.config import ModelConfig
from tunelm.server.errors import ApiError, not_supported
from tunelm.server.files import get_file
from tunelm.server.job_runner import Runner
from tunelm.server.job_table import (
    NewJob,
    cancel,
    checkpoint_object,
    create_job,
    event_object,
    get_job,
    job_object,
    pause,
    resume,
    same_job,
)
from tunelm.server.pages import check_limit, page
from tunelm.server.store import Store
from tunelm.types import content_hash

MOST_PAIRS, MOST_KEY, MOST_VALUE = 16, 64, 512
"""Of metadata."""
MOST_SEED = 2**31 - 1

_SUFFIX = re.compile(r"[a-z0-9-]{1,64}")
_METADATA = re.compile(r"metadata\[(.*)\]", re.DOTALL)


def _invalid(said: str) -> PydanticCustomError:
    return PydanticCustomError("invalid_value", "{said}", {"said": said})


def _number(low: float, high: float, whole: bool) -> BeforeValidator:
    """`auto`, or a number in a range; one message for whatever else there is."""

    def check(value: object) -> object:
        fits = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if value == "auto" or (fits and low <= value <= high):  # pyright: ignore[reportOperatorIssue]
            return value
        kind = f"a whole number from {low} to {high}" if whole else "a number above 0"
        raise _invalid(f'expected "auto" or {kind}')

    return BeforeValidator(check)


def _metadata(value: dict[str, str]) -> dict[str, str]:
    if len(value) > MOST_PAIRS:
        raise _invalid(f"{len(value)} pairs, at most {MOST_PAIRS} are taken")
    for key, text in value.items():
        if not 1 <= len(key) <= MOST_KEY or len(text) > MOST_VALUE:
            raise _invalid(f"a key has 1 to {MOST_KEY} characters, a value up to {MOST_VALUE}")
    return value


def _suffix(value: str) -> str:
    if not _SUFFIX.fullmatch(value):
        raise _invalid("expected 1 to 64 lower-case letters, digits and hyphens")
    return value


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Hyperparameters(_Body):
    """Of the supervised method."""

    n_epochs: Annotated[int | str, _number(1, 50, True)] = "auto"
    batch_size: Annotated[int | str, _number(1, 256, True)] = "auto"
    learning_rate_multiplier: Annotated[float | str, _number(1e-9, 1e9, False)] = "auto"


class Supervised(_Body):
    """Settings of the supervised method."""

    hyperparameters: Hyperparameters | None = None


class Method(_Body):
    """How to train. Others than supervised are known, to be refused by name."""

    type: str
    supervised: Supervised | None = None
    dpo: Any = None
    reinforcement: Any = None


class CreateJob(_Body):
    """The body of POST /fine_tuning/jobs."""

    model: str
    training_file: str
    validation_file: str | None = None
    suffix: Annotated[str, AfterValidator(_suffix)] | None = None
    seed: Annotated[int, Field(ge=0, le=MOST_SEED)] | None = None
    metadata: Annotated[dict[str, str], AfterValidator(_metadata)] | None = None
    method: Method | None = None
    hyperparameters: Hyperparameters | None = None
    integrations: list[Any] | None = None


def router(store: Store, base_name: str, base: ModelConfig, runner: Runner) -> APIRouter:
    """The endpoints under /fine_tuning/jobs; `base_name` is the one model that can be tuned."""
    api = APIRouter(prefix="/fine_tuning/jobs")
    _add_creation(api, store, base_name, base, runner)

    @api.get("")
    def listed(request: Request, after: str | None = None, limit: int = 20) -> dict[str, Any]:
        check_limit(limit)
        rows, more = page(store, "jobs", _filter(request), after, limit)
        return {"object": "list", "data": [job_object(row) for row in rows], "has_more": more}

    @api.get("/{job_id}")
    def one(job_id: str) -> dict[str, Any]:
        return job_object(get_job(store, job_id))

    def order(act: Callable[[Store, str], None]) -> Callable[[str], dict[str, Any]]:
        def changed(job_id: str) -> dict[str, Any]:
            get_job(store, job_id)
            act(store, job_id)
            runner.wake()
            return job_object(get_job(store, job_id))

        return changed

    for act in (cancel, pause, resume):
        api.post(f"/{{job_id}}/{act.__name__}")(order(act))

    @api.get("/{job_id}/events")
    def events(job_id: str, after: str | None = None, limit: int = 20) -> dict[str, Any]:
        check_limit(limit)
        where = ("job_id = ?", (get_job(store, job_id)["id"],))
        rows, more = page(store, "events", where, after, limit)
        return {"object": "list", "data": [event_object(row) for row in rows], "has_more": more}

    @api.get("/{job_id}/checkpoints")
    def checkpoints(job_id: str, after: str | None = None, limit: int = 10) -> dict[str, Any]:
        check_limit(limit)
        where = ("job_id = ?", (get_job(store, job_id)["id"],))
        rows, more = page(store, "checkpoints", where, after, limit)
        data = [checkpoint_object(row) for row in rows]
        return {
            "object": "list",
            "data": data,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
            "has_more": more,
        }

    return api


def _add_creation(
    api: APIRouter, store: Store, base_name: str, base: ModelConfig, runner: Runner
) -> None:
    creating = threading.Lock()

    @api.post("")
    def create(
        body: CreateJob,
        idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
        x_stainless_retry_count: Annotated[str | None, Header()] = None,
    ) -> dict[str, Any]:
        chosen = _checked(body, base_name)
        new = NewJob(
            model=base_name,
            base=base.model_dump_json(),
            training_file=body.training_file,
            validation_file=body.validation_file,
            suffix=body.suffix,
            seed=secrets.randbelow(MOST_SEED) if body.seed is None else body.seed,
            metadata=body.metadata,
            hyperparameters=chosen.model_dump(),
            request=content_hash(body.model_dump()),
            key=idempotency_key or None,
            retry=(x_stainless_retry_count or "0") != "0",
        )
        with creating:
            row = same_job(store, new)
            if row is None:
                for param in ("training_file", "validation_file"):
                    _check_file(store, getattr(body, param), param)
                row = create_job(store, new)
        runner.wake()
        return job_object(row)


def _checked(body: CreateJob, base_name: str) -> Hyperparameters:
    """The hyperparameters asked for. Raises ApiError for what this server cannot do."""
    if body.model != base_name:
        raise ApiError(
            400,
            f"model: {body.model[:80]!r} cannot be fine-tuned here; this server tunes {base_name}.",
            "model_not_available",
            "model",
        )
    if body.integrations:
        raise not_supported("integrations", "Sending metrics to another service")
    method = body.method
    if method is None:
        return body.hyperparameters or Hyperparameters()
    if method.type != "supervised":
        raise not_supported("method.type", f"The method {method.type[:40]!r} (only supervised)")
    for param in ("dpo", "reinforcement"):
        if getattr(method, param) is not None:
            raise not_supported(f"method.{param}", f"The method {param}")
    asked, old = method.supervised and method.supervised.hyperparameters, body.hyperparameters
    if asked and old and old.model_fields_set and old != asked:
        raise ApiError(
            400,
            "hyperparameters: they differ from those of method.supervised. Give one of the two.",
            "invalid_value",
            "hyperparameters",
        )
    return asked or old or Hyperparameters()


def _check_file(store: Store, file_id: str | None, param: str) -> None:
    """Raises ApiError (400) for a file that is not there, or was uploaded for something else."""
    if file_id is None:
        return
    try:
        row = get_file(store, file_id)
    except ApiError as error:
        raise ApiError(400, f"{param}: {error.message}", "file_not_found", param) from None
    if row["purpose"] != "fine-tune":
        raise ApiError(
            400,
            f"{param}: {file_id} was uploaded for {row['purpose']}. Upload it with the purpose "
            "fine-tune.",
            "invalid_file_purpose",
            param,
        )


def _filter(request: Request) -> tuple[str, tuple[object, ...]]:
    """The condition of `metadata[KEY]=VALUE`, repeated, or `metadata=null`."""
    conditions, values = ["1"], list[object]()
    for name, value in request.query_params.multi_items():
        if name == "metadata" and value in ("null", ""):
            conditions.append("metadata IS NULL")
        elif match := _METADATA.fullmatch(name):
            found = "SELECT 1 FROM json_each(metadata) WHERE key = ? AND value = ?"
            conditions.append(f"EXISTS ({found})")
            values += [match[1], value]
        elif name not in ("after", "limit"):
            raise ApiError(
                400,
                f"{name[:80]} is no parameter of this endpoint.",
                "unknown_parameter",
                name[:80],
            )
    return " AND ".join(conditions), tuple(values)
