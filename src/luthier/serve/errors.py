"""Problems of a request, in the shape that OpenAI's clients expect: {"error": {message, type, param, code}}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError


class ApiError(Exception):
    """Ends a request with a status and OpenAI's error body."""

    def __init__(self, status: int, message: str, *, type: str = "invalid_request_error", param: str | None = None,
                 code: str | None = None, headers: Mapping[str, str] | None = None):
        super().__init__(message)
        self.status, self.message, self.type, self.param, self.code = status, message, type, param, code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


def unauthorized() -> ApiError:
    return ApiError(401, "A valid API key is needed: send it as 'Authorization: Bearer KEY'.",
                    code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def too_large(limit: int) -> ApiError:
    return ApiError(413, f"The request body is larger than {limit} bytes.", code="request_too_large")


def unknown_model(name: str, known: list[str]) -> ApiError:
    return ApiError(404, f"The model '{name[:100]}' does not exist; there are: {', '.join(known)}.", param="model",
                    code="model_not_found")


def queue_full(retry_after_s: float) -> ApiError:
    return ApiError(429, f"Too many requests are waiting; try again in {retry_after_s:.0f} s.",
                    type="rate_limit_error", code="queue_full", headers={"Retry-After": f"{retry_after_s:.0f}"})


def loading() -> ApiError:
    return ApiError(503, "The model is still loading; try again in a few seconds.", type="server_error",
                    code="loading", headers={"Retry-After": "2"})


def timed_out(seconds: float) -> ApiError:
    return ApiError(504, f"The answer took longer than {seconds:g} s; ask for fewer tokens (max_tokens) or try again.",
                    type="server_error", code="timeout")


def failed(message: str = "The server failed on this request.") -> ApiError:
    return ApiError(500, message, type="server_error", code="internal_error")


def unsupported(param: str, why: str) -> ApiError:
    return ApiError(400, f"'{param}' is not supported here: {why}", param=param, code="unsupported_parameter")


def from_validation(error: ValidationError) -> ApiError:
    """The first problem of a body that does not fit its model, with its path as `param`."""
    found = error.errors(include_url=False, include_context=False)[0]
    param = ".".join(str(part) for part in found["loc"] if not (isinstance(part, str) and "[" in part)) or None
    if found["type"] == "extra_forbidden":
        return ApiError(400, f"Unrecognized request argument supplied: {param}", param=param, code="unknown_parameter")
    if found["type"] == "missing":
        return ApiError(400, f"Missing required parameter: '{param}'.", param=param,
                        code="missing_required_parameter")
    if found["type"] == "json_invalid":
        return ApiError(400, f"The body is not valid JSON: {found['msg']}", code="invalid_json")
    said = found["msg"].removeprefix("Value error, ")
    return ApiError(400, f"{param}: {said}" if param else said, param=param, code="invalid_value")
