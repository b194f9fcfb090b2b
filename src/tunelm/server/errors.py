"""What a client is told when something is wrong: OpenAI's error envelope, one way everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException


class ApiError(Exception):
    """An answer other than success.

    Attributes:
        status: the HTTP status.
        message: what was got, what is valid, how to mend it.
        code: a machine-readable reason, such as `model_not_found`.
        param: the field of the request that is meant, such as `messages`.
        headers: further headers, such as Retry-After.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The envelope: all four keys are always there."""
        return {
            "error": {
                "message": self.message,
                "type": _TYPES.get(self.status, "server_error"),
                "param": self.param,
                "code": self.code,
            }
        }

    def response(self) -> JSONResponse:
        """As HTTP. Official clients send a 409 again unless they are told not to."""
        headers = {"x-should-retry": "false"} if self.status == 409 else {}
        return JSONResponse(self.body(), self.status, {**headers, **self.headers})


_TYPES = {
    401: "authentication_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    **dict.fromkeys((400, 403, 404, 405, 409, 413, 415, 422), "invalid_request_error"),
}


def not_supported(param: str, what: str) -> ApiError:
    """400 for a feature of the protocol that this server does not have."""
    return ApiError(400, f"{what} is not supported by this server.", "unsupported_parameter", param)


def install(app: FastAPI) -> None:
    """Every error of the app leaves it in the envelope, and none shows a traceback."""

    @app.exception_handler(ApiError)
    async def _own(_: Request, error: ApiError) -> JSONResponse:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return ApiError(400, "the body is not valid JSON.", "invalid_json").response()
        where = ".".join(str(part) for part in first["loc"][1:])
        code = {"extra_forbidden": "unknown_parameter", "missing": "missing_required_parameter"}
        said = {"extra_forbidden": "is no parameter of this endpoint", "missing": "is missing"}
        return ApiError(
            400,
            f"{where or 'the body'}: {said.get(first['type'], first['msg'])}.",
            code.get(first["type"], "invalid_value"),
            where or None,
        ).response()

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code in (404, 405):
            message = f"no endpoint {request.method} {request.url.path} here."
            return ApiError(error.status_code, message, "unknown_url").response()
        message, headers = str(error.detail), error.headers
        return ApiError(error.status_code, message, "invalid_request", headers=headers).response()

    @app.exception_handler(Exception)
    async def _unexpected(_: Request, error: Exception) -> JSONResponse:
        return ApiError(
            500, f"the server failed at this request ({type(error).__name__}).", "server_error"
        ).response()
