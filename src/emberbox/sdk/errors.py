"""What the SDK raises. Names and bases are those of the `e2b` package.

Exception
├── AuthenticationException
├── ServiceBusyException
└── SandboxException
    ├── ApiUnreachableException
    ├── CommandExitException (in `command_models`)
    ├── InvalidArgumentException
    ├── NotEnoughSpaceException
    ├── NotSupportedYetException
    ├── RateLimitException
    ├── NotFoundException
    │   ├── FileNotFoundException
    │   └── SandboxNotFoundException
    └── TimeoutException
        ├── SandboxNotRunningException
        └── SandboxUnreachableException
"""

from __future__ import annotations


class SandboxException(Exception):  # noqa: N818 (the name in e2b)
    """A request about or to a sandbox failed.

    `status_code` is the HTTP status of the control plane's answer, when one was the cause.
    """

    status_code: int | None = None

    def __init__(self, *args: object, status_code: int | None = None) -> None:
        super().__init__(*args)
        self.status_code = status_code


class TimeoutException(SandboxException):
    """A time limit was exceeded: of the request, of the command, or of the sandbox."""


class InvalidArgumentException(SandboxException):
    """An argument was refused, by the SDK or by the server."""


class NotEnoughSpaceException(SandboxException):
    """The sandbox's disk is full."""


class NotFoundException(SandboxException):
    """Something that was named does not exist; the subclasses say what."""


class FileNotFoundException(NotFoundException):
    """The file or directory does not exist in the sandbox."""


class SandboxNotFoundException(NotFoundException):
    """The control plane knows no such sandbox."""


class SandboxNotRunningException(TimeoutException):
    """The sandbox is confirmed gone: killed, paused or past its timeout."""


class SandboxUnreachableException(TimeoutException):
    """The sandbox did not answer and is not confirmed to be stopped."""


class RateLimitException(SandboxException):
    """The server refused for now: quota or request rate (HTTP 429)."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args, status_code=429)


class ApiUnreachableException(SandboxException):
    """No connection to the control plane could be made, or it broke before the answer."""


class NotSupportedYetException(SandboxException):
    """A part of the `e2b` interface that Emberbox does not have yet.

    `feature` is the name that was used, such as `Sandbox.pause`.
    """

    def __init__(self, feature: str) -> None:
        super().__init__(
            f"{feature} is not supported by Emberbox yet; docs/compatibility.md lists what is"
        )
        self.feature = feature


class AlreadyExistsException(SandboxException):
    """The target exists (Connect code `already_exists`)."""


class AuthenticationException(Exception):  # noqa: N818 (the name in e2b)
    """The API key or the access token is missing or wrong."""


class ServiceBusyException(Exception):  # noqa: N818 (the name in e2b)
    """The service cannot do it right now (HTTP 503); nothing was changed, retry later.

    Like `AuthenticationException`, and as in `e2b`, this is not a `SandboxException`.
    """

    status_code = 503
