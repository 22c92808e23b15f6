"""Telling a guest that its policy has closed connections which are open.

The rules drop what passes from then on, and answer the next packet of either side with a reset. A
guest that only waits for data would send none. So it gets one that makes it speak: to a SYN within
an open connection TCP answers where it stands (RFC 5961, section 4), and that answer is refused.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import TYPE_CHECKING

from emberbox.orchestrator.network.addresses import (
    GATEWAY_ADDRESS,
    GATEWAY_MAC,
    GUEST_ADDRESS,
    GUEST_MAC,
    TAP,
)
from emberbox.orchestrator.network.conntrack import Conntrack

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from emberbox.orchestrator.network.conntrack import Connection
    from emberbox.orchestrator.network.netlink import NetlinkSocket
    from emberbox.orchestrator.network.policy import EgressPolicy
    from emberbox.orchestrator.network.sets import Endpoint

_IPV4 = 0x0800
_SYN = 0x02
_TTL = 64
_WINDOW = 1024


def end_forbidden(policy: EgressPolicy, servers: Collection[Endpoint]) -> NetlinkSocket:
    """Have the guest find out which of its connections the policy, now in force, has closed.

    Those to its gateway that do not lead to one of `servers` are forgotten, so that the next query
    goes there. Runs in the calling thread's namespace, a slot's. Raises KernelRefusedError,
    OSError. Returns a socket to close when nobody waits (see `sets.replace_contents`).
    """
    table = Conntrack()
    try:
        own = [one for one in table.connections() if str(one.source) == GUEST_ADDRESS]
        for one in own:
            if str(one.destination) == GATEWAY_ADDRESS and one.answerer not in servers:
                table.forget(one)
        permits = policy.judge()
        closed = [one for one in own if one.established and not permits(one.destination)]
        if closed:  # closing such a socket takes a while, too
            _make_speak(closed)
    except BaseException:
        table.close()
        raise
    return table


def _make_speak(connections: Iterable[Connection]) -> None:
    # By the link itself: the namespace's own table of connections must not see these.
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
        link.bind((TAP, _IPV4))
        for one in connections:
            with contextlib.suppress(BlockingIOError):  # a guest that takes no packets
                link.send(_frame(one))


def _frame(one: Connection) -> bytes:
    """A SYN of the far end, as a frame for the guest."""
    head = bytes.fromhex((GUEST_MAC + GATEWAY_MAC).replace(":", "")) + struct.pack("!H", _IPV4)
    ends = one.destination.packed + one.source.packed
    segment = struct.pack(
        "!HHIIBBHHH", one.destination_port, one.source_port, 0, 0, 5 << 4, _SYN, _WINDOW, 0, 0
    )
    over = ends + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(segment))
    segment = segment[:16] + _checksum(over + segment) + segment[18:]
    packet = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0, _TTL, socket.IPPROTO_TCP, 0)
    return head + packet[:10] + _checksum(packet + ends) + ends + segment


def _checksum(data: bytes) -> bytes:
    """The internet checksum (RFC 1071)."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)
