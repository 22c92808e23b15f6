"""A mount namespace of one VMM's own, made by the thread that starts it.

Mounts in it are seen by the VMM alone and end with it: nothing is left to be unmounted.
"""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_CLONE_NEWNS = 0x20000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x20, 0x1000, 0x4000, 1 << 18
_MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


class Bind(NamedTuple):
    """A file or directory that is seen at another place, too."""

    source: Path
    target: Path
    read_only: bool = True
    device: bool = False


def enter_own(without: Path, binds: Iterable[Bind], last: Bind | None = None) -> None:
    """Move the calling thread into a mount namespace of its own and bind there.

    For a thread that ends with starting a child, which is born in it. What is mounted below
    `without` is not there: a jailer copies all mounts once more, which is slow with hundreds.
    `last` brings along what was bound below its source before it. Raises OSError.
    """
    _check(_libc.unshare(_CLONE_NEWNS), "unshare the mount namespace")
    # Nothing of it reaches the host, nor the other way round.
    _mount(None, b"/", _MS_REC | _MS_PRIVATE)
    _libc.umount2(os.fsencode(without), _MNT_DETACH)
    for bind in binds:
        _bind(bind)
    if last is not None:
        _mount(os.fsencode(last.source), os.fsencode(last.target), _MS_BIND | _MS_REC)


def _bind(bind: Bind) -> None:
    target = os.fsencode(bind.target)
    _mount(os.fsencode(bind.source), target, _MS_BIND)
    flags = _MS_NOSUID | _MS_NOEXEC | (0 if bind.device else _MS_NODEV)
    _mount(None, target, _MS_REMOUNT | _MS_BIND | flags | (_MS_RDONLY if bind.read_only else 0))


def _mount(source: bytes | None, target: bytes, flags: int) -> None:
    _check(_libc.mount(source, target, None, flags, None), f"mount {target.decode()}")


def _check(result: int, doing: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{doing}: {os.strerror(number)}")
