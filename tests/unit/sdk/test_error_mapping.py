"""The table of protocol section 3.6, without a server."""

from __future__ import annotations

import json

import pytest

from emberbox import (
    AuthenticationException,
    FileNotFoundException,
    InvalidArgumentException,
    NotEnoughSpaceException,
    NotFoundException,
    RateLimitException,
    SandboxException,
    SandboxNotRunningException,
    SandboxUnreachableException,
    ServiceBusyException,
    TimeoutException,
)
from emberbox.sdk.connect_protocol import RpcError
from emberbox.sdk.error_mapping import (
    FILE_HTTP_ERRORS,
    FILE_RPC_ERRORS,
    Health,
    api_exception,
    health_of_response,
    http_exception,
    lost_connection,
    rpc_error_of_response,
    rpc_exception,
)
from emberbox.sdk.errors import AlreadyExistsException

GONE = "The sandbox was not found"
CLOSED = "The sandbox is running but port is not open"


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [
        ("invalid_argument", "m", InvalidArgumentException),
        ("unauthenticated", "m", AuthenticationException),
        ("not_found", "m", NotFoundException),
        ("already_exists", "m", AlreadyExistsException),
        ("resource_exhausted", "m", RateLimitException),
        ("unavailable", GONE, SandboxNotRunningException),
        ("unavailable", CLOSED, SandboxUnreachableException),
        ("unavailable", "m", SandboxUnreachableException),
        ("canceled", "m", TimeoutException),
        ("deadline_exceeded", "m", TimeoutException),
        ("internal", "m", SandboxException),
        ("permission_denied", "m", SandboxException),
    ],
)
def test_connect_codes(code: str, message: str, expected: type[Exception]) -> None:
    error = rpc_exception(RpcError(code, message))
    assert type(error) is expected
    assert message in str(error)


def test_files_that_are_missing() -> None:
    assert type(rpc_exception(RpcError("not_found", "m"), FILE_RPC_ERRORS)) is FileNotFoundException
    assert type(http_exception(404, b"m", FILE_HTTP_ERRORS)) is FileNotFoundException


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (400, {"code": 400, "message": "m"}, "invalid_argument"),
        (401, {"code": 401, "message": "m"}, "unauthenticated"),
        (403, {"code": 403, "message": "m"}, "permission_denied"),
        (404, {"code": "not_found", "message": "m"}, "not_found"),
        (409, {"code": 409, "message": "m"}, "already_exists"),
        (413, {"message": "m"}, "resource_exhausted"),
        (429, {"message": "m"}, "resource_exhausted"),
        (499, {"message": "m"}, "canceled"),
        (500, {"code": "internal", "message": "m"}, "internal"),
        (501, {"message": "m"}, "unimplemented"),
        (502, {"code": 502, "message": "m"}, "unavailable"),
        (503, {"message": "m"}, "unavailable"),
        (504, {"message": "m"}, "deadline_exceeded"),
        (505, {"message": "m"}, "unimplemented"),
        (200, {"code": 502, "message": "m"}, "unavailable"),  # an int code replaces the status
        (418, {"code": "made_up", "message": "m"}, "unknown"),
    ],
)
def test_http_answers_to_calls(status: int, body: dict[str, object], code: str) -> None:
    error = rpc_error_of_response(status, json.dumps(body).encode())
    assert (error.code, error.message) == (code, "m")


def test_an_answer_that_is_not_json_is_its_own_message() -> None:
    error = rpc_error_of_response(502, b"<html>")
    assert (error.code, error.message) == ("unavailable", "<html>")


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (400, "m", InvalidArgumentException),
        (401, "m", AuthenticationException),
        (404, "m", NotFoundException),
        (429, "m", RateLimitException),
        (502, GONE, SandboxNotRunningException),
        (502, CLOSED, SandboxUnreachableException),
        (507, "m", NotEnoughSpaceException),
        (500, "m", SandboxException),
        (403, "m", SandboxException),
    ],
)
def test_http_requests(status: int, message: str, expected: type[Exception]) -> None:
    error = http_exception(status, json.dumps({"code": status, "message": message}).encode())
    assert type(error) is expected
    assert message in str(error)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, AuthenticationException),
        (429, RateLimitException),
        (503, ServiceBusyException),
        (400, SandboxException),
        (409, SandboxException),
        (500, SandboxException),
    ],
)
def test_control_plane(status: int, expected: type[Exception]) -> None:
    error = api_exception(status, json.dumps({"code": status, "message": "why"}).encode())
    assert type(error) is expected
    assert "why" in str(error)
    assert str(error).startswith(str(status))
    assert getattr(error, "status_code", status) == status


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (204, "", Health.RUNNING),
        (502, GONE, Health.GONE),
        (502, CLOSED, Health.PORT_CLOSED),
        (409, "", Health.UNKNOWN),
    ],
)
def test_health(status: int, body: str, expected: Health) -> None:
    assert health_of_response(status, json.dumps({"message": body}).encode()) is expected


@pytest.mark.parametrize("health", Health)
def test_only_a_sandbox_confirmed_gone_is_not_running(health: Health) -> None:
    expected = SandboxNotRunningException if health is Health.GONE else SandboxUnreachableException
    assert type(lost_connection(OSError("reset"), health)) is expected
