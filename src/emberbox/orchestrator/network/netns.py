"""Named network namespaces, and code that runs inside one.

A namespace belongs to a thread. Ours run in threads made for one call and never used again, so
that nothing of the host ever runs in a guest's namespace by accident. Nothing forks: grpcio lives
in the same process. (`os.setns` comes with Python 3.12.)
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from emberbox.orchestrator import threads
from emberbox.orchestrator.network.addresses import NETNS_DIRECTORY
from emberbox.orchestrator.network.errors import KernelRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_MS_BIND = 0x1000
_MS_REC = 0x4000
_MS_SHARED = 1 << 20
_MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def own() -> Path:
    """The namespace of this process (of its main thread)."""
    return Path(f"/proc/{os.getpid()}/ns/net")


def enter(path: Path) -> None:
    """Move the calling thread into a namespace. For threads that end with that work.

    Raises KernelRefusedError, with ENOENT when there is none, EPERM when we are not root.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelRefusedError(f"open {path}", error.errno or 0) from error
    try:
        _check(_libc.setns(fd, _CLONE_NEWNET), f"setns {path}")
    finally:
        os.close(fd)


def enter_new(name: str) -> None:
    """Move the calling thread into a new namespace and give it a name that outlives the thread.

    Raises KernelRefusedError, with EEXIST when the name is taken.
    """
    prepare_directory()
    path = NETNS_DIRECTORY / name
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))
    except FileExistsError:
        raise KernelRefusedError(f"create namespace {name}", errno.EEXIST) from None
    try:
        _check(_libc.unshare(_CLONE_NEWNET), "unshare the network namespace")
        _mount("/proc/thread-self/ns/net", path, _MS_BIND)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def create(name: str) -> None:
    """Make an empty named namespace. Raises KernelRefusedError."""
    _in_thread(lambda: enter_new(name)).result()


def delete(name: str) -> None:
    """Remove a name; the namespace goes with its last user. Nothing happens when it is absent."""
    path = NETNS_DIRECTORY / name
    if _libc.umount2(os.fsencode(path), _MNT_DETACH) != 0:
        number = ctypes.get_errno()
        # Not mounted: a crash came between the file and its mount, or the machine was restarted.
        if number not in {errno.EINVAL, errno.ENOENT}:
            raise KernelRefusedError(f"unmount {path}", number)
    path.unlink(missing_ok=True)


def names() -> list[str]:
    """All named namespaces of this machine."""
    try:
        return sorted(os.listdir(NETNS_DIRECTORY))  # noqa: PTH208 - names are wanted, not paths
    except FileNotFoundError:
        return []


def prepare_directory() -> None:
    """Make the directory of names, with mounts in it shared as iproute2 does.

    Shared: a name that is removed here disappears from mount namespaces made since, too.
    """
    NETNS_DIRECTORY.mkdir(mode=0o755, exist_ok=True)
    with contextlib.suppress(KernelRefusedError):
        _mount("none", NETNS_DIRECTORY, _MS_SHARED | _MS_REC)
        return
    _mount(str(NETNS_DIRECTORY), NETNS_DIRECTORY, _MS_BIND | _MS_REC)
    _mount("none", NETNS_DIRECTORY, _MS_SHARED | _MS_REC)


def run_in(path: Path, function: Callable[[], T]) -> T:
    """Run `function` in a thread of its own inside the namespace; blocks until it is done.

    A process that it starts begins in the namespace. Raises KernelRefusedError, and what
    `function` raises.
    """
    return _in_thread(lambda: _entered(path, function)).result()


async def call_in(path: Path, function: Callable[[], T]) -> T:
    """As `run_in`, without blocking the loop. A cancelled caller does not stop the function."""
    return await asyncio.wrap_future(_in_thread(lambda: _entered(path, function)))


def _entered(path: Path, function: Callable[[], T]) -> T:
    enter(path)
    return function()


def _in_thread(function: Callable[[], T]) -> Future[T]:
    return threads.start(function, "emberbox-netns")


def _mount(source: str, target: Path, flags: int) -> None:
    result = _libc.mount(source.encode(), os.fsencode(target), b"none", flags, None)
    _check(result, f"mount {target}")


def _check(result: int, request: str) -> None:
    if result != 0:
        raise KernelRefusedError(request, ctypes.get_errno())
