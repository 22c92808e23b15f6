"""The tap through which a VMM carries its guest's frames."""

from __future__ import annotations

import fcntl
import os
import struct

from emberbox.orchestrator.network import netns
from emberbox.orchestrator.network.addresses import TAP, Slot
from emberbox.orchestrator.network.errors import KernelRefusedError

_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
"""linux/if_tun.h. The virtio header lets the guest leave checksums and segmentation to us."""


def add() -> None:
    """Make the tap in the calling thread's namespace; it stays when nobody has it open.

    Raises KernelRefusedError, OSError when /dev/net/tun is missing.
    """
    fd = _attach()
    try:
        fcntl.ioctl(fd, _TUNSETPERSIST, 1)
    finally:
        os.close(fd)


def open_tap(slot: Slot) -> int:
    """A descriptor of the slot's tap for a VMM to inherit (close-on-exec; one at a time).

    Raises KernelRefusedError: EBUSY when it is open already, ENOENT when the slot is gone.
    """
    return netns.run_in(slot.netns_path, _attach)


def _attach() -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    request = struct.pack("16sH22x", TAP.encode(), _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR)
    try:
        fcntl.ioctl(fd, _TUNSETIFF, request)
    except OSError as error:
        os.close(fd)
        raise KernelRefusedError(f"open {TAP}", error.errno or 0) from error
    return fd
