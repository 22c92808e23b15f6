"""The fake internet, and a guest with a real network stack behind a slot's tap.

    guest netns ── tap ~ frames carried by the test ~ tap0 ── slot netns ── host netns ── internet

Nothing of the real host's network is touched. The carried frames stand for the VMM.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from emberbox.orchestrator.network import netns
from emberbox.orchestrator.network.addresses import (
    GATEWAY_ADDRESS,
    GUEST_ADDRESS,
    GUEST_MAC,
    NETNS_DIRECTORY,
    NodeNetwork,
    Slot,
)
from emberbox.orchestrator.network.links import Links
from emberbox.orchestrator.network.tap import open_tap
from scripts.fake_internet import FakeInternet

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TAG = f"t{os.getpid() % 4096:03x}"
RANGE = IPv4Network("10.77.0.0/24")
VNET_HEADER = b"\0" * 10


def make_network(*, egress_allow: tuple[IPv4Network, ...] = ()) -> NodeNetwork:
    """The node under test. Its tag differs from every real node's."""
    return NodeNetwork(TAG, RANGE, egress_allow)


@dataclass
class World(FakeInternet):
    """The same with guests."""

    tag: str = TAG
    guests: list[Guest] = field(default_factory=list)

    def __exit__(self, *error: object) -> None:
        for guest in self.guests:
            guest.close()
        super().__exit__(*error)

    def guest(self, slot: Slot) -> Guest:
        """Plug a guest into a slot."""
        guest = Guest(slot)
        self.guests.append(guest)
        return guest


class Guest:
    """A namespace with the guest's addresses, its frames carried to and from the slot's tap."""

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self.path = NETNS_DIRECTORY / f"{TAG}-guest{slot.index}"
        netns.create(self.path.name)
        self._guest_fd = netns.run_in(self.path, _make_guest_link)
        self.tap_fd = open_tap(slot)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._guest_fd, self._carry, self._guest_fd, self.tap_fd)
        loop.add_reader(self.tap_fd, self._carry, self.tap_fd, self._guest_fd)

    def close(self) -> None:
        """Unplug."""
        loop = asyncio.get_running_loop()
        for fd in (self._guest_fd, self.tap_fd):
            loop.remove_reader(fd)
            os.close(fd)
        netns.delete(self.path.name)

    def run(self, function: Callable[[], socket.socket]) -> socket.socket:
        """Run in the guest's namespace."""
        return netns.run_in(self.path, function)

    async def connect(self, address: str, port: int, timeout: float = 5.0) -> socket.socket:
        """A TCP connection from the guest. Raises OSError; TimeoutError when nothing answers."""
        made = self.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        made.setblocking(False)
        try:
            async with asyncio.timeout(timeout):
                await asyncio.get_running_loop().sock_connect(made, (address, port))
        except BaseException:
            made.close()
            raise
        return made

    def udp(self) -> socket.socket:
        """A UDP socket in the guest."""
        made = self.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        made.setblocking(False)
        return made

    def send_frame(self, frame: bytes) -> None:
        """Put a frame on the tap as a VMM would, whatever it says."""
        os.write(self.tap_fd, VNET_HEADER + frame)

    @staticmethod
    def _carry(source: int, target: int) -> None:
        frame = os.read(source, 1 << 17)
        os.write(target, frame)


def _make_guest_link() -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", b"eth0", 0x0002 | 0x1000 | 0x4000))
    with Links() as links:
        links.up(links.index("lo"))
        index = links.index("eth0")
        links.up(index, GUEST_MAC)
        links.add_address(index, GUEST_ADDRESS, 30)
        links.add_default_route(index, GATEWAY_ADDRESS)
    return fd


def write_resolv_conf(directory: Path, address: str) -> Path:
    """A file that names this resolver, readable for the forwarder, which is nobody."""
    for place in (directory, *directory.parents):
        if place.stat().st_uid == os.getuid() and place.stat().st_mode & 0o777 == 0o700:
            place.chmod(0o711)
    path = directory / "resolv.conf"
    path.write_text(f"nameserver {address}\n")
    path.chmod(0o644)
    return path
