"""A machine and an internet made of namespaces, for tests and measurements of sandboxes' networks.

    host netns ── uplink ── internet netns

Nothing of the real host's network is touched.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from emberbox.orchestrator.network import netns
from emberbox.orchestrator.network.addresses import NETNS_DIRECTORY
from emberbox.orchestrator.network.links import Links

if TYPE_CHECKING:
    from pathlib import Path

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


@dataclass
class FakeInternet:
    """The host's and the internet's namespaces, with names that begin with `tag`."""

    tag: str
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
        for opened in self._sockets:
            opened.close()
        netns.run_in(self.host, _delete_uplink)
        netns.delete(self.host.name)
        netns.delete(self.internet.name)

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


def _delete_uplink() -> None:
    with Links() as links:
        links.delete("uplink")
