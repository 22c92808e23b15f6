"""The message layer of netlink sockets (RFC 3549): requests, attributes, acknowledgements.

A netlink socket works on the namespace in which it was opened, whichever thread uses it later.
"""

from __future__ import annotations

import errno
import itertools
import socket
import struct
from typing import TYPE_CHECKING, Self

from emberbox.orchestrator.network.errors import KernelRefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_DUMP = 0x300
NLM_F_CREATE = 0x400

_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NESTED = 0x8000
_HEADER = struct.Struct("=IHHII")
_TIMEOUT_S = 10.0
"""The kernel answers at once unless it waits for the lock of all links."""

_sequence = itertools.count(1)


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def text_attribute(kind: int, value: str) -> bytes:
    """A text attribute with its closing zero."""
    return attribute(kind, value.encode() + b"\0")


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | _NESTED, b"".join(attributes))


def read_attributes(data: bytes) -> dict[int, bytes]:
    """The attributes in a run of bytes, by kind."""
    found = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        found[kind & ~_NESTED] = data[4:length]
        data = data[max(4, (length + 3) & ~3) :]
    return found


def message(kind: int, flags: int, body: bytes) -> tuple[int, bytes]:
    """One request: its sequence number and its bytes."""
    sequence = next(_sequence) & 0xFFFFFFFF
    header = _HEADER.pack(_HEADER.size + len(body), kind, flags | NLM_F_REQUEST, sequence, 0)
    return sequence, header + body


class NetlinkSocket:
    """A blocking netlink socket of the calling thread's namespace."""

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol
        )
        self._socket.settimeout(_TIMEOUT_S)
        self._socket.bind((0, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def request(self, name: str, kind: int, flags: int, body: bytes) -> list[bytes]:
        """Send one request and wait for its end; returns the bodies of the answers before it.

        Raises KernelRefusedError(name, errno).
        """
        sequence, data = message(kind, flags | NLM_F_ACK, body)
        self._socket.send(data)
        return self._collect(name, {sequence})

    def batch(self, name: str, messages: Iterable[tuple[int, bytes]], awaited: set[int]) -> None:
        """Send messages in one datagram and wait for the acknowledgements of the awaited ones.

        Raises KernelRefusedError(name, errno) with the first refusal.
        """
        self._socket.send(b"".join(data for _, data in messages))
        self._collect(name, set(awaited))

    def _collect(self, name: str, awaited: set[int]) -> list[bytes]:
        answers: list[bytes] = []
        while awaited:
            for kind, sequence, body in self._receive(name):
                if kind not in {_NLMSG_ERROR, _NLMSG_DONE}:
                    answers.append(body)
                    continue
                (number,) = struct.unpack_from("=i", body)
                if number != 0:
                    raise KernelRefusedError(name, -number)
                awaited.discard(sequence)
        return answers

    def _receive(self, name: str) -> list[tuple[int, int, bytes]]:
        try:
            data = self._socket.recv(1 << 18)
        except TimeoutError:
            raise KernelRefusedError(name, errno.ETIMEDOUT) from None
        found = []
        while len(data) >= _HEADER.size:
            length, kind, _, sequence, _ = _HEADER.unpack_from(data)
            found.append((kind, sequence, data[_HEADER.size : length]))
            data = data[(length + 3) & ~3 :]
        return found
