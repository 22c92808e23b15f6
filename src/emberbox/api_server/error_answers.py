"""Every error in the protocol's form: `{"code", "message", "error_code"?}`.

The Python SDK raises KeyError at any other body, so the framework's own errors are included.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, cast

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from emberbox.api_server.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import Response


def error_response(
    status: int,
    message: str,
    error_code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """An error body with its status."""
    # What was sent may be quoted in the message, and be no text.
    text = message.encode(errors="backslashreplace").decode()
    body: dict[str, int | str] = {"code": status, "message": text}
    if error_code is not None:
        body["error_code"] = error_code
    return JSONResponse(body, status, headers)


def install(app: FastAPI) -> None:
    """Replace the framework's handlers."""
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _framework_error)
    app.add_exception_handler(Exception, _unexpected)


async def _api_error(request: Request, error: Exception) -> Response:
    api_error = cast("ApiError", error)
    headers = {**_fields_of_answers(request), **api_error.headers}
    return error_response(api_error.status, api_error.message, api_error.error_code, headers)


async def _invalid_request(request: Request, error: Exception) -> Response:
    first = cast("RequestValidationError", error).errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
    what = first.get("ctx", {}).get("error", first["msg"])
    message = f"Error when parsing request: {where}: {what}"
    return error_response(400, message, headers=_fields_of_answers(request))


async def _framework_error(request: Request, error: Exception) -> Response:
    http = cast("HTTPException", error)
    message = http.detail or HTTPStatus(http.status_code).phrase
    headers = {**_fields_of_answers(request), **(http.headers or {})}
    return error_response(http.status_code, message, headers=headers)


def _fields_of_answers(request: Request) -> dict[str, str]:
    """What the route's checks add to every answer."""
    return getattr(request.state, "fields", {})


async def _unexpected(_request: Request, _error: Exception) -> Response:
    # The framework raises it again after this answer, and the server logs it with its trace.
    return error_response(500, "Internal server error: the API server's log has the reason")
