"""Addresses as settings write them."""

from __future__ import annotations

import ipaddress


def parse_address(text: str) -> tuple[str, int]:
    """Split `host:port` or `[v6]:port`. Raises ValueError that says what is expected."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ValueError(f"{text!r} is not host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


def parse_addresses(text: str) -> list[str]:
    """Split `host:port,host:port`. Raises ValueError; several hosts must be IPv4 addresses, as
    gRPC takes them for one server then."""
    addresses = [part.strip() for part in text.split(",")]
    hosts = [parse_address(address)[0] for address in addresses]
    if len(hosts) > 1:
        for host in hosts:
            try:
                ipaddress.IPv4Address(host)
            except ValueError as error:
                raise ValueError(
                    f"{host!r} is no IPv4 address, which each of several must be"
                ) from error
    return addresses
