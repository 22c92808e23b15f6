"""Addresses as clients have them."""

from __future__ import annotations

import ipaddress
from functools import lru_cache


@lru_cache(maxsize=4096)
def network_of(peer: str) -> str:
    """An IPv6 client has a whole /64 to take addresses from; an IPv4 one has its own.

    An address written in either form is the same, as a socket for both gives the IPv6 form.
    """
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return peer
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), 64), strict=False))
