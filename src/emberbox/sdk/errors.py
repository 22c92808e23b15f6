"""What the SDK raises. Names and bases are those of the `e2b` package.

Exception
├── AuthenticationException
│   └── GitAuthException
├── BuildException
│   └── FileUploadException
├── SecretException
│   └── SecretNotFoundException
├── ServiceBusyException
├── VolumeException
└── SandboxException
    ├── ApiUnreachableException
    ├── CommandExitException (in `command_models`)
    ├── GitUpstreamException
    ├── GuestUnresponsiveException
    ├── InvalidArgumentException
    ├── NotEnoughSpaceException
    ├── NotSupportedYetException
    ├── RateLimitException
    ├── TemplateException
    ├── NotFoundException
    │   ├── FileNotFoundException
    │   ├── SandboxNotFoundException
    │   ├── VolumeNotFoundException
    │   └── VolumePathNotFoundException
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


class GitUpstreamException(SandboxException):
    """git does not know which branch of which remote to push to or to pull from."""


class GuestUnresponsiveException(SandboxException):
    """A paused sandbox cannot be restored, as its daemon did not answer when it was paused.

    `connect(on_resume="reboot")` starts it from its disk.
    """

    code = "sandbox_snapshot_guest_agent_unresponsive"


class TemplateException(SandboxException):
    """A template does not fit, for instance because it is too old."""


class VolumeNotFoundException(NotFoundException):
    """There is no such volume."""


class VolumePathNotFoundException(NotFoundException):
    """The file or directory does not exist on the volume."""


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


class GitAuthException(AuthenticationException):
    """The git server wants a user name and a password, or refused those it was given."""


class BuildException(Exception):  # noqa: N818 (the name in e2b)
    """The build of a template failed."""


class FileUploadException(BuildException):
    """A file for the build of a template could not be uploaded."""


class DockerfileSyntaxError(ValueError):
    """The Dockerfile of a template cannot be read."""


class SecretException(Exception):  # noqa: N818 (the name in e2b)
    """A request about a secret failed."""


class SecretNotFoundException(SecretException):
    """There is no such secret."""


class VolumeException(Exception):  # noqa: N818 (the name in e2b)
    """A request about a volume failed."""
