"""From what servers and connections say to the exceptions users catch. No I/O.

The tables follow the released `e2b` package, so that `except` clauses keep their meaning.
"""

from __future__ import annotations

import enum
import json
from typing import TYPE_CHECKING

from .connect_protocol import RpcError
from .errors import (
    AlreadyExistsException,
    ApiUnreachableException,
    AuthenticationException,
    FileNotFoundException,
    GuestUnresponsiveException,
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

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    ErrorTable = Mapping[str, Callable[[str], Exception]]
    StatusTable = Mapping[int, Callable[[str], Exception]]

# The proxies' messages; which of the two it is decides what is raised.
NOT_FOUND_TEXT = "was not found"
PORT_CLOSED_TEXT = "port is not open"

CODE_OF_STATUS: Mapping[int, str] = {
    400: "invalid_argument",
    401: "unauthenticated",
    403: "permission_denied",
    404: "not_found",
    409: "already_exists",
    413: "resource_exhausted",
    429: "resource_exhausted",
    499: "canceled",
    500: "internal",
    501: "unimplemented",
    502: "unavailable",
    503: "unavailable",
    504: "deadline_exceeded",
    505: "unimplemented",
}
CONNECT_CODES = frozenset(CODE_OF_STATUS.values()) | {
    "aborted",
    "data_loss",
    "failed_precondition",
    "out_of_range",
    "unknown",
}


class Health(enum.Enum):
    """What a look at the sandbox's `/health` told after a request had failed."""

    RUNNING = enum.auto()
    GONE = enum.auto()
    PORT_CLOSED = enum.auto()
    UNKNOWN = enum.auto()
    NO_ANSWER = enum.auto()


def unavailable(message: str) -> Exception:
    """The exception for a sandbox that the proxy cannot serve."""
    if NOT_FOUND_TEXT in message:
        return SandboxNotRunningException(
            f"{message}: the sandbox was killed or reached its timeout; create or set_timeout"
            " with a longer timeout keeps it"
        )
    if PORT_CLOSED_TEXT in message:
        return SandboxUnreachableException(
            f"{message}: the sandbox is running but its daemon cannot be reached;"
            " Sandbox.get_info() tells its state"
        )
    return SandboxUnreachableException(
        f"{message}: the sandbox could not be reached and its state is unknown;"
        " Sandbox.get_info() tells its state"
    )


def _deadline_exceeded(message: str) -> Exception:
    return TimeoutException(
        f"{message}: 'timeout' of the command or 'request_timeout' was exceeded;"
        " pass a larger value, or 0 for no limit"
    )


RPC_ERRORS: ErrorTable = {
    "invalid_argument": InvalidArgumentException,
    "unauthenticated": AuthenticationException,
    "not_found": NotFoundException,
    "already_exists": lambda message: AlreadyExistsException(f"already_exists: {message}"),
    "resource_exhausted": RateLimitException,
    "unavailable": unavailable,
    "canceled": TimeoutException,
    "deadline_exceeded": _deadline_exceeded,
}
FILE_RPC_ERRORS: ErrorTable = {**RPC_ERRORS, "not_found": FileNotFoundException}

HTTP_ERRORS: StatusTable = {
    400: InvalidArgumentException,
    401: AuthenticationException,
    404: NotFoundException,
    429: RateLimitException,
    502: unavailable,
    507: NotEnoughSpaceException,
}
FILE_HTTP_ERRORS: StatusTable = {**HTTP_ERRORS, 404: FileNotFoundException}


def rpc_exception(error: RpcError, table: ErrorTable = RPC_ERRORS) -> Exception:
    """The public exception for a Connect error."""
    factory = table.get(error.code)
    return factory(error.message) if factory else SandboxException(str(error))


def is_ambiguous(error: RpcError) -> bool:
    """Whether `unavailable` was said without saying if the sandbox still exists."""
    return error.code == "unavailable" and not any(
        known in error.message for known in (NOT_FOUND_TEXT, PORT_CLOSED_TEXT)
    )


def rpc_error_of_response(status: int, body: bytes) -> RpcError:
    """The error in a non-200 answer to a call: a Connect error, or what a proxy said.

    A Connect error has a known string `code`; an int `code` of a proxy replaces the status.
    """
    record = _object(body)
    code = record.get("code")
    message = error_message(body)
    if isinstance(code, str) and code in CONNECT_CODES:
        return RpcError(code, message)
    if isinstance(code, int):
        status = code
    return RpcError(CODE_OF_STATUS.get(status, "unknown"), message)


def http_exception(status: int, body: bytes, table: StatusTable = HTTP_ERRORS) -> Exception:
    """The public exception for a failed plain HTTP request to the sandbox's daemon."""
    message = error_message(body)
    factory = table.get(status)
    return factory(message) if factory else SandboxException(f"{status}: {message}")


def health_of_response(status: int, body: bytes) -> Health:
    """What the answer to `GET /health` says."""
    if 200 <= status < 300:
        return Health.RUNNING
    if status != 502:
        return Health.UNKNOWN
    return Health.GONE if NOT_FOUND_TEXT in error_message(body) else Health.PORT_CLOSED


def lost_connection(error: Exception, health: Health) -> Exception:
    """The exception for a connection that could not be made or broke, given the health."""
    cause = str(error) or type(error).__name__
    if health is Health.GONE:
        return SandboxNotRunningException(
            f"{cause}: the sandbox was killed or reached its end of life while the request"
            " was in flight"
        )
    found = {
        Health.RUNNING: "the connection was lost, the sandbox is still running",
        Health.PORT_CLOSED: "the sandbox is running but its daemon cannot be reached",
        Health.UNKNOWN: "the connection was lost and the sandbox's state is unknown",
        Health.NO_ANSWER: "the sandbox could not be reached and its health probe failed too",
    }[health]
    return SandboxUnreachableException(f"{cause}: {found}; Sandbox.get_info() tells its state")


def api_exception(status: int, body: bytes) -> Exception:
    """The public exception for a refusal by the control plane."""
    if _object(body).get("error_code") == GuestUnresponsiveException.code:
        return GuestUnresponsiveException(
            f"{error_message(body)}; on_resume='reboot' starts it from its disk"
        )
    return refusal(status, error_message(body))


def refusal(status: int, message: str) -> Exception:
    """The public exception for a status of the control plane, be it inside an answer."""
    suffix = f" - {message}" if message else ""
    if status == 401:
        return AuthenticationException(f"401: Unauthorized, please check your credentials.{suffix}")
    if status == 429:
        return RateLimitException(f"429: Rate limit exceeded, please try again later.{suffix}")
    if status == 503:
        return ServiceBusyException(f"503: Service temporarily unavailable, please retry.{suffix}")
    return SandboxException(f"{status}: {message}", status_code=status)


def request_timed_out(option: str = "request_timeout") -> Exception:
    """The exception for a request that took longer than the limit in its option."""
    return TimeoutException(
        f"the request timed out; a larger '{option}' allows more, 0 means no limit"
    )


def api_unreachable(url: str, error: Exception) -> Exception:
    """The exception for a control plane that does not answer."""
    return ApiUnreachableException(
        f"cannot reach the API server at {url}: {error}; is `emberbox up` running, and"
        " EMBERBOX_API_URL right?"
    )


def error_message(body: bytes) -> str:
    """The string `message` of a JSON error body, else the body's text."""
    message = _object(body).get("message")
    return message if isinstance(message, str) else body.decode(errors="replace")


def _object(body: bytes) -> dict[str, object]:
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
