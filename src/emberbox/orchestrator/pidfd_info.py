"""How a process ended, told by its pidfd to others than its parent.

Linux 6.15 and later do, as soon as the parent has reaped it: `PIDFD_GET_INFO` and struct
`pidfd_info` in the kernel's include/uapi/linux/pidfd.h.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import struct

_INFO = struct.Struct("=Q52xi")
"""Its first version: `mask`, what does not matter here, and `exit_code` as of wait(2)."""

_GET_INFO = 3 << 30 | _INFO.size << 16 | 0xFF << 8 | 11
"""_IOWR(PIDFS_IOCTL_MAGIC, 11, struct pidfd_info)"""

_INFO_EXIT = 1 << 3

_REAPED_SECONDS = 5.0
"""An init reaps at once, or looks around each second; one that never does is not waited for."""


async def exit_status(pidfd: int) -> int | None:
    """Of a process that has ended, negative for a signal, when its parent has reaped it.

    None when it does not in a few seconds, or on a kernel that does not tell.
    """
    if _read(pidfd) is None:  # an old kernel: no use to wait
        return None
    await _reaped(pidfd)
    mask, status = _read(pidfd) or (0, 0)
    return os.waitstatus_to_exitcode(status) if mask & _INFO_EXIT else None


async def _reaped(pidfd: int) -> None:
    loop, hung_up = asyncio.get_running_loop(), asyncio.Event()
    # A pidfd is readable from the end on: only a poll of its own waits for nothing but the hang-up.
    with select.epoll() as poll:
        poll.register(pidfd, 0)
        loop.add_reader(poll.fileno(), hung_up.set)
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(hung_up.wait(), _REAPED_SECONDS)
        finally:
            loop.remove_reader(poll.fileno())


def _read(pidfd: int) -> tuple[int, int] | None:
    """Mask of what is told, and the exit status."""
    try:
        told = fcntl.ioctl(pidfd, _GET_INFO, _INFO.pack(_INFO_EXIT, 0))
    except OSError:
        return None
    mask, status = _INFO.unpack(told)
    return mask, status
