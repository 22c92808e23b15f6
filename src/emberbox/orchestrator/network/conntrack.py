"""The kernel's table of connections, over ctnetlink, in the calling thread's namespace.

Message and attribute numbers: linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

from emberbox.orchestrator.network.errors import KernelRefusedError
from emberbox.orchestrator.network.netlink import (
    NETLINK_NETFILTER,
    NLM_F_DUMP,
    NetlinkSocket,
    nested,
    read_attributes,
)

_GET = 1 << 8 | 1
_DELETE = 1 << 8 | 2
_HEADER = struct.pack("!BBH", socket.AF_INET, 0, 0)

_TUPLE_ORIGINAL = 1
_TUPLE_REPLY = 2
_PROTOCOL_INFO = 4
_TUPLE_ADDRESSES = 1
_TUPLE_PROTOCOL = 2
_ADDRESS_SOURCE = 1
_ADDRESS_DESTINATION = 2
_PORT_SOURCE = 2
_PORT_DESTINATION = 3
_INFO_TCP = 1
_TCP_STATE = 1
_ESTABLISHED = 3


@dataclass(frozen=True, slots=True)
class Connection:
    """One entry, as its first packet came. Ports are 0 where the protocol has none."""

    source: IPv4Address
    source_port: int
    destination: IPv4Address
    destination_port: int
    answerer: tuple[IPv4Address, int]
    """Where its packets end: not at the destination when that is rewritten."""
    established: bool
    """Of TCP: both sides have taken part."""
    key: bytes
    """How the kernel names it."""

    @classmethod
    def read(cls, body: bytes) -> Connection:
        """From the body of a message of the kernel."""
        attributes = read_attributes(body[len(_HEADER) :])
        source, destination = _ends(attributes[_TUPLE_ORIGINAL])
        answerer, _ = _ends(attributes[_TUPLE_REPLY])
        return cls(
            *source,
            *destination,
            answerer=answerer,
            established=_tcp_state(attributes) >= _ESTABLISHED,
            key=attributes[_TUPLE_ORIGINAL],
        )


class Conntrack(NetlinkSocket):
    """The table's connections of IPv4. All raise KernelRefusedError."""

    def __init__(self) -> None:
        super().__init__(NETLINK_NETFILTER)

    def connections(self) -> list[Connection]:
        """All there are now."""
        answers = self.request("list connections", _GET, NLM_F_DUMP, _HEADER)
        return [Connection.read(body) for body in answers]

    def forget(self, connection: Connection) -> None:
        """Drop one, so that its next packet counts as the first of another; it may be gone."""
        body = _HEADER + nested(_TUPLE_ORIGINAL, connection.key)
        try:
            self.request("forget a connection", _DELETE, 0, body)
        except KernelRefusedError as error:
            if not error.nothing_is_there:
                raise

    def forget_all(self) -> None:
        """Drop every one."""
        self.request("forget all connections", _DELETE, 0, _HEADER)


def _ends(data: bytes) -> tuple[tuple[IPv4Address, int], tuple[IPv4Address, int]]:
    parts = read_attributes(data)
    addresses = read_attributes(parts[_TUPLE_ADDRESSES])
    ports = read_attributes(parts[_TUPLE_PROTOCOL])
    source = IPv4Address(addresses[_ADDRESS_SOURCE]), _port(ports.get(_PORT_SOURCE))
    destination = IPv4Address(addresses[_ADDRESS_DESTINATION]), _port(ports.get(_PORT_DESTINATION))
    return source, destination


def _port(value: bytes | None) -> int:
    return 0 if value is None else int.from_bytes(value, "big")


def _tcp_state(attributes: dict[int, bytes]) -> int:
    info = read_attributes(attributes.get(_PROTOCOL_INFO, b""))
    state = read_attributes(info.get(_INFO_TCP, b"")).get(_TCP_STATE)
    return state[0] if state else 0
