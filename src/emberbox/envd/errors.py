"""What can go wrong in envd, in the terms of the E2B protocol.

EnvdError
├── InvalidArgumentError    400 invalid_argument
├── UnauthenticatedError    401 unauthenticated
├── PermissionDeniedError   403 permission_denied
├── NotFoundError           404 not_found
├── UnacceptableError       406 (plain HTTP only)
├── AlreadyExistsError      409 already_exists
├── TooLargeError           413 resource_exhausted
├── LimitReachedError       429 resource_exhausted
├── InternalError           500 internal
├── UnimplementedError      501 unimplemented
├── DeadlineExceededError   504 deadline_exceeded
└── NoSpaceError            507 resource_exhausted
"""

from __future__ import annotations

import errno
import os


class EnvdError(Exception):
    """An error that is told to the client.

    `code` is its name in the Connect protocol, `status` its status on the plain endpoints.
    """

    code = "internal"
    status = 500

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidArgumentError(EnvdError):
    """The request asks for something that makes no sense."""

    code = "invalid_argument"
    status = 400


class UnauthenticatedError(EnvdError):
    """The token, the signature or the user is missing or wrong."""

    code = "unauthenticated"
    status = 401


class PermissionDeniedError(EnvdError):
    """The asked user has no right to do this."""

    code = "permission_denied"
    status = 403


class NotFoundError(EnvdError):
    """The path, process or watcher does not exist."""

    code = "not_found"
    status = 404


class UnacceptableError(EnvdError):
    """The client refuses every encoding that we can send."""

    code = "invalid_argument"
    status = 406


class AlreadyExistsError(EnvdError):
    """What was to be made is there."""

    code = "already_exists"
    status = 409


class TooLargeError(EnvdError):
    """The request exceeds a limit of envd."""

    code = "resource_exhausted"
    status = 413


class LimitReachedError(EnvdError):
    """There is no room for more of what was asked for: watchers, watched directories, events."""

    code = "resource_exhausted"
    status = 429


class InternalError(EnvdError):
    """The system refused something that envd expected to work."""


class UnimplementedError(EnvdError):
    """The protocol knows it, this version does not."""

    code = "unimplemented"
    status = 501


class DeadlineExceededError(EnvdError):
    """The time the client gave is over."""

    code = "deadline_exceeded"
    status = 504


class NoSpaceError(EnvdError):
    """The disk of the sandbox is full."""

    code = "resource_exhausted"
    status = 507


_BY_ERRNO: dict[int, tuple[type[EnvdError], str]] = {
    errno.EACCES: (PermissionDeniedError, "permission denied: '{path}'"),
    errno.EPERM: (PermissionDeniedError, "operation not permitted: '{path}'"),
    errno.EROFS: (PermissionDeniedError, "read-only file system: '{path}'"),
    errno.ENOENT: (NotFoundError, "path '{path}' does not exist"),
    errno.EEXIST: (AlreadyExistsError, "path '{path}' already exists"),
    errno.ENOTDIR: (InvalidArgumentError, "a parent of '{path}' is not a directory"),
    errno.EISDIR: (InvalidArgumentError, "path '{path}' is a directory"),
    errno.ENOTEMPTY: (InvalidArgumentError, "directory '{path}' is not empty"),
    errno.ENAMETOOLONG: (InvalidArgumentError, "path '{path}' is too long"),
    errno.ELOOP: (InvalidArgumentError, "too many symbolic links in '{path}'"),
    errno.EINVAL: (InvalidArgumentError, "invalid path '{path}'"),
    errno.EAGAIN: (InvalidArgumentError, "'{path}' has nothing to read now and would wait"),
    errno.EBUSY: (
        InvalidArgumentError,
        "'{path}' is in use: it is a mount point, or of the system",
    ),
    errno.ENXIO: (InvalidArgumentError, "path '{path}' is not a regular file"),
    errno.ENOSPC: (NoSpaceError, "not enough disk space to write '{path}'"),
    errno.EDQUOT: (NoSpaceError, "disk quota exceeded writing '{path}'"),
}


def from_os_error(error: OSError, path: str) -> EnvdError:
    """The protocol's error for a failed system call on `path`."""
    kind, text = _BY_ERRNO.get(error.errno or 0, (InternalError, "{reason}: '{path}'"))
    reason = os.strerror(error.errno) if error.errno else str(error)
    return kind(text.format(path=path, reason=reason))
