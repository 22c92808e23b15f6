"""What a guest tries against everything around it. docs/security.md lists each by its text."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scripts.fake_internet import HOST_PUBLIC, PUBLIC
from tests.integration.hostile.machine import DATAGRAM_PORT, HOST_PORT
from tests.integration.network import frames

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from emberbox.orchestrator.network.addresses import Slot
    from tests.integration.hostile.machine import Box, Machine

Probe = dict[str, Any]

PRIVATE = ("10.200.0.1", "172.16.0.1", "192.168.50.1")
CARRIER = "100.64.0.1"
METADATA = "169.254.169.254"
RESERVED = ("192.0.0.1", "198.18.0.1", "240.0.0.1")
SERVED = 8000
"""What the other sandbox listens on."""

_OF_GATEWAY = (21, 22, 25, 67, 80, 111, 123, 161, 443, 445, 2049, 3306, 5432, 6379, 9090, 49983)
_IPIP = 4
_GRE = 47
_IPV6 = 0x86DD


@dataclass(frozen=True)
class Attempt:
    """One kind of attempt, as a person would say it, and its probes."""

    text: str
    probes: tuple[Probe, ...]


def all_attempts(machine: Machine, attacker: Box, other: Box) -> list[Attempt]:
    """Every attempt, by one sandbox that has the internet; `other` is its neighbour."""
    own, neighbour = attacker.slot, other.slot
    network = machine.stack.network
    ports = machine.stack.ports
    hosts = (HOST_PUBLIC, own.host_address, network.dns_address)
    services = (HOST_PORT, ports.api, ports.proxy, ports.orchestrator, ports.data, network.dns_port)
    return [
        Attempt("connect to the host's addresses", tcp(hosts, services)),
        Attempt("send datagrams to the host, its DNS forwarder among them",
                udp(hosts, (53, HOST_PORT, network.dns_port))),
        Attempt("reach the host's loopback", tuple(_to_loopback(ports.api))),
        Attempt("connect to another port of the gateway than 53",
                tcp((frames.GATEWAY,), (*_OF_GATEWAY, *services))),
        Attempt("send datagrams to another port of the gateway",
                udp((frames.GATEWAY,), (67, 69, 123, 161, 500, 1900, 5353))),
        Attempt("connect to another sandbox",
                tcp((neighbour.address, neighbour.host_address), (SERVED, 49983))),
        Attempt("connect to its own address on the host's side", tcp((own.address,), (22, 49983))),
        Attempt("reach private ranges", every_way(PRIVATE)),
        Attempt("reach the carrier's range", every_way((CARRIER,))),
        Attempt("reach link-local addresses and the metadata service", every_way((METADATA,))),
        Attempt("reach reserved, benchmarking and test ranges", every_way(RESERVED)),
        Attempt("send to broadcast and multicast addresses",
                udp(("255.255.255.255", "224.0.0.1", "224.0.0.251"), (DATAGRAM_PORT, 5353))),
        Attempt("use IPv6", (*tcp(("2001:db8::1", "fe80::1%eth0"), (80,)), *_ipv6_frames())),
        Attempt("send with another sandbox's, the host's or a stranger's address as the source",
                tuple(_spoofed_sources(own, neighbour))),
        Attempt("send with another MAC address", tuple(_spoofed_macs())),
        Attempt("claim other addresses by ARP",
                tuple(framed(frames.arp_reply(a)) for a in (own.host_address, frames.GATEWAY))),
        Attempt("send VLAN tags and other protocols than IP", tuple(_other_ethertypes())),
        Attempt("route by the source (LSRR) to a private address", tuple(_source_routed())),
        Attempt("reach a private address in fragments", tuple(_fragments())),
        Attempt("tunnel into the host (IP in IP, GRE)", tuple(_tunnels(own))),
        Attempt("redirect the gateway's routes by ICMP", (framed(_redirect()),)),
    ]  # fmt: skip


def tcp(addresses: Iterable[str], ports: Iterable[int]) -> tuple[Probe, ...]:
    """Connections."""
    return tuple({"kind": "tcp", "address": a, "port": p} for a in addresses for p in ports)


def udp(addresses: Iterable[str], ports: Iterable[int]) -> tuple[Probe, ...]:
    """Datagrams that an echo, or a resolver, would answer."""
    query = b"\x12\x34\1\0\0\1\0\0\0\0\0\0\5index\7example\0\0\1\0\1".hex()
    return tuple(
        {"kind": "udp", "address": a, "port": p, "data": query} for a in addresses for p in ports
    )


def every_way(addresses: Iterable[str]) -> tuple[Probe, ...]:
    """By TCP, UDP and ICMP."""
    addresses = tuple(addresses)
    pings = tuple({"kind": "ping", "address": address} for address in addresses)
    return (*tcp(addresses, (80,)), *udp(addresses, (DATAGRAM_PORT,)), *pings)


def framed(frame: bytes) -> Probe:
    """A frame as it is."""
    return {"kind": "frame", "frame": frame.hex()}


def datagram(
    to: str,
    port: int = DATAGRAM_PORT,
    *,
    source: str = frames.GUEST,
    mac: str = frames.GUEST_MAC,
    options: bytes = b"",
) -> bytes:
    """A frame with a datagram."""
    payload = frames.udp(b"forged", port)
    packet = frames.ipv4(socket.IPPROTO_UDP, payload, to, source=source, options=options)
    return frames.ethernet(0x0800, packet, source=mac)


def _to_loopback(port: int) -> Iterator[Probe]:
    syn = struct.pack("!HHIIBBHHH", 1234, port, 1, 0, 5 << 4, 2, 1024, 0, 0)
    for address in ("127.0.0.1", "127.0.0.53", "0.0.0.0"):
        packet = frames.ipv4(socket.IPPROTO_TCP, syn, address)
        yield framed(frames.ethernet(0x0800, packet))
        yield framed(datagram(address, 53))


def _ipv6_frames() -> Iterator[Probe]:
    head = b"\x60\0\0\0" + struct.pack("!HBB", 8, 58, 255)
    ends = socket.inet_pton(socket.AF_INET6, "2001:db8::2")
    solicitation = head + ends + socket.inet_pton(socket.AF_INET6, "ff02::2") + b"\x85" + bytes(7)
    yield framed(frames.ethernet(_IPV6, solicitation))
    yield framed(frames.ethernet(_IPV6, solicitation, to="33:33:00:00:00:02"))


def _spoofed_sources(own: Slot, neighbour: Slot) -> Iterator[Probe]:
    for source in (neighbour.address, own.host_address, HOST_PUBLIC, PUBLIC, "8.8.8.8", "127.0.0.1",
                   "169.254.0.20", "0.0.0.0"):  # fmt: skip
        yield framed(datagram(PUBLIC, source=source))


def _spoofed_macs() -> Iterator[Probe]:
    for source in ("02:FC:00:00:00:07", frames.GATEWAY_MAC, "ff:ff:ff:ff:ff:ff"):
        yield framed(datagram(PUBLIC, mac=source))


def _other_ethertypes() -> Iterator[Probe]:
    frame = datagram(PUBLIC)
    yield framed(frame[:12] + b"\x81\0\0\1" + frame[12:])
    for kind in (0x0842, 0x8863, 0x88CC, 0x88E5):  # wake-on-LAN, PPPoE, LLDP, MACsec
        yield framed(frames.ethernet(kind, bytes(46)))


def _source_routed() -> Iterator[Probe]:
    """To an open address, by way of a closed one."""
    for way in (*PRIVATE, HOST_PUBLIC):
        options = b"\x83\x07\x04" + socket.inet_aton(way) + b"\0"
        yield framed(datagram(PUBLIC, options=options))


def _fragments() -> Iterator[Probe]:
    whole = frames.udp(b"forged in two", DATAGRAM_PORT)
    parts = ((whole[:8], frames.MORE_FRAGMENTS), (whole[8:], 1), (whole, 0x0001))
    for part, word in parts:
        packet = frames.ipv4(socket.IPPROTO_UDP, part, PRIVATE[0], fragment=word)
        yield framed(frames.ethernet(0x0800, packet))


def _tunnels(own: Slot) -> Iterator[Probe]:
    inner = frames.ipv4(socket.IPPROTO_UDP, frames.udp(b"forged", DATAGRAM_PORT), PRIVATE[0])
    for to in (HOST_PUBLIC, own.host_address, frames.GATEWAY):
        yield framed(frames.ethernet(0x0800, frames.ipv4(_IPIP, inner, to)))
        gre = struct.pack("!HH", 0, 0x0800) + inner
        yield framed(frames.ethernet(0x0800, frames.ipv4(_GRE, gre, to)))


def _redirect() -> bytes:
    """Says that an open address is better reached by way of a private one."""
    about = frames.ipv4(socket.IPPROTO_UDP, frames.udp(b"", 53), PUBLIC, source=frames.GATEWAY)
    body = socket.inet_aton(PRIVATE[0]) + about[:28]
    icmp = b"\5\1" + frames.checksum(b"\5\1\0\0" + body) + body
    return frames.ethernet(0x0800, frames.ipv4(socket.IPPROTO_ICMP, icmp, frames.GATEWAY))
