"""A machine and an internet made of namespaces, and a guest with a real network stack.

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
from typing import TYPE_CHECKING, Self

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

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TAG = f"t{os.getpid() % 4096:03x}"
RANGE = IPv4Network("10.77.0.0/24")
PUBLIC = "198.51.100.10"
HOST_PUBLIC = "203.0.113.2"
OTHER = "203.0.113.1"
"""Another address of the internet: the host's neighbour."""
INTERNET_ADDRESSES = (
    PUBLIC,
    "10.200.0.1",
    "100.64.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.1",
    "192.168.50.1",
    "198.18.0.1",
    "240.0.0.1",
)
"""All of them answer behind the host, so that only rules can keep a guest from them."""

VNET_HEADER = b"\0" * 10


def make_network(*, egress_allow: tuple[IPv4Network, ...] = ()) -> NodeNetwork:
    """The node under test. Its tag differs from every real node's."""
    return NodeNetwork(TAG, RANGE, egress_allow)


@dataclass
class World:
    """The host's and the internet's namespaces, with names that begin with `tag`."""

    tag: str = TAG
    guests: list[Guest] = field(default_factory=list)
    _sockets: list[socket.socket] = field(default_factory=list)

    @property
    def host(self) -> Path:
        """The machine's namespace."""
        return NETNS_DIRECTORY / f"{self.tag}-host"

    @property
    def internet(self) -> Path:
        """Everything behind its uplink."""
        return NETNS_DIRECTORY / f"{self.tag}-net"

    def __enter__(self) -> Self:
        netns.create(self.host.name)
        netns.create(self.internet.name)
        with self.internet.open() as inside:
            netns.run_in(self.host, lambda: self._connect(inside.fileno()))
        netns.run_in(self.internet, self._configure_internet)
        return self

    def __exit__(self, *_: object) -> None:
        for guest in self.guests:
            guest.close()
        for opened in self._sockets:
            opened.close()
        netns.run_in(self.host, _delete_uplink)
        netns.delete(self.host.name)
        netns.delete(self.internet.name)

    def guest(self, slot: Slot) -> Guest:
        """Plug a guest into a slot."""
        guest = Guest(slot)
        self.guests.append(guest)
        return guest

    def listen(
        self, where: Path, address: str, port: int, kind: socket.SocketKind = socket.SOCK_STREAM
    ) -> socket.socket:
        """A listening TCP socket or a bound UDP one in a namespace."""

        def bind() -> socket.socket:
            made = socket.socket(socket.AF_INET, kind)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((address, port))
            if kind is socket.SOCK_STREAM:
                made.listen()
            made.setblocking(False)
            return made

        made = netns.run_in(where, bind)
        self._sockets.append(made)
        return made

    def _connect(self, internet_fd: int) -> None:
        with Links() as links:
            links.up(links.index("lo"))
            links.add_veth("uplink", "uplink", internet_fd)
            index = links.index("uplink")
            links.add_address(index, HOST_PUBLIC, 24)
            links.up(index)
        # The route needs the other end up as well.
        netns.run_in(self.internet, self._bring_up_internet)
        with Links() as links:
            links.add_default_route(links.index("uplink"), OTHER)

    def _bring_up_internet(self) -> None:
        with Links() as links:
            index = links.index("uplink")
            links.add_address(index, OTHER, 24)
            links.up(index)

    def _configure_internet(self) -> None:
        with Links() as links:
            index = links.index("lo")
            links.up(index)
            for address in INTERNET_ADDRESSES:
                links.add_address(index, address, 32)


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


def _delete_uplink() -> None:
    with Links() as links:
        links.delete("uplink")
