"""Doing things with the rights of a user.

On Linux credentials belong to threads; the C library only makes them look per process. Raw system
calls change those of the calling thread alone, so a thread can act as the user while the rest of
envd stays root. The kernel then decides every permission: there is no check of ours to be wrong,
and no time between a check and its use.

Children inherit them too. That is how processes are started: `subprocess` uses vfork, far cheaper
than fork for a program of our size, only if it is not asked to change the user itself.

Not on the main thread: the kernel judges signals and /proc ownership by the main thread's
credentials, so a `pkill -u user` in that instant would end envd.
"""

from __future__ import annotations

import ctypes
import os
import threading
from array import array
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from emberbox.envd.errors import PermissionDeniedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emberbox.envd.users import User

# setresuid, setresgid, setgroups
_NUMBERS: Final = {"x86_64": (117, 119, 116), "aarch64": (147, 149, 159)}
_SETRESUID, _SETRESGID, _SETGROUPS = _NUMBERS[os.uname().machine]
# PyDLL keeps the interpreter lock: these calls are shorter than giving it up and taking it back.
_syscall = ctypes.PyDLL(None, use_errno=True).syscall


def _call(number: int, *arguments: int | bytes) -> None:
    longs = (ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)
    if _syscall(ctypes.c_long(number), *longs):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _set_groups(groups: tuple[int, ...]) -> None:
    # As bytes: making a ctypes array type costs more than all the calls here.
    _call(_SETGROUPS, len(groups), array("I", groups).tobytes())


@contextmanager
def acting_as(user: User) -> Iterator[None]:
    """The calling thread has the rights of `user` inside the block.

    The saved ids stay root's, which is the way back; an exec drops them for good.
    Raises PermissionDeniedError if envd itself may not become that user.
    """
    uid, gid = os.geteuid(), os.getegid()
    if user.uid == uid == 0:
        yield
        return
    if uid != 0:
        if user.uid != uid:
            raise PermissionDeniedError(f"envd does not run as root, so it cannot be '{user.name}'")
        yield
        return
    if threading.current_thread() is threading.main_thread():
        raise RuntimeError("the main thread must not change its credentials")
    groups = tuple(os.getgroups())
    _set_groups(user.groups)
    try:
        _call(_SETRESGID, user.gid, user.gid, gid)
        _call(_SETRESUID, user.uid, user.uid, uid)
        yield
    finally:
        _call(_SETRESUID, uid, uid, uid)
        _call(_SETRESGID, gid, gid, gid)
        _set_groups(groups)
