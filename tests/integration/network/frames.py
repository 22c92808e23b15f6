"""Ethernet frames of any content. Of the standard library alone: it runs inside guests, too."""

from __future__ import annotations

import socket
import struct

GUEST_MAC = "02:FC:00:00:00:05"
GATEWAY_MAC = "02:FC:00:00:00:06"
GUEST = "169.254.0.21"
GATEWAY = "169.254.0.22"

MORE_FRAGMENTS = 0x2000


def mac(text: str) -> bytes:
    """The bytes of a hardware address."""
    return bytes.fromhex(text.replace(":", ""))


def ethernet(kind: int, payload: bytes, source: str = GUEST_MAC, to: str = GATEWAY_MAC) -> bytes:
    """A frame."""
    return mac(to) + mac(source) + struct.pack("!H", kind) + payload


def checksum(data: bytes) -> bytes:
    """Of the internet (RFC 1071)."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)


def ipv4(
    protocol: int,
    payload: bytes,
    to: str,
    *,
    source: str = GUEST,
    fragment: int = 0,
    options: bytes = b"",
) -> bytes:
    """A packet; `fragment` is the word of flags and offset, `options` are whole words."""
    length = 20 + len(options)
    head = struct.pack(
        "!BBHHHBBH", 0x40 + length // 4, 0, length + len(payload), 1, fragment, 64, protocol, 0
    )
    rest = socket.inet_aton(source) + socket.inet_aton(to) + options
    return head[:10] + checksum(head + rest) + rest + payload


def udp(payload: bytes, port: int) -> bytes:
    """A datagram, without a checksum."""
    return struct.pack("!HHHH", 1234, port, 8 + len(payload), 0) + payload


def arp_reply(claims: str, source: str = GUEST_MAC) -> bytes:
    """A frame that says that `claims` is at `source`."""
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2) + mac(source) + socket.inet_aton(claims)
    return ethernet(0x0806, body + mac(GATEWAY_MAC) + socket.inet_aton(GATEWAY), source)
