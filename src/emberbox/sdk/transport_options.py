"""How connections are made, the same for both flavours. No I/O."""

from __future__ import annotations

import socket
import urllib.request
from typing import TypeAlias

import httpx2

from .config import is_loopback

SocketOption: TypeAlias = tuple[int, int, int]

CONNECT_RETRIES = 2
"""Repeats of a connection that was refused or not answered, waiting 0.5 s and 1 s."""

# Each running command holds a connection, so their number is not limited; idle ones are.
LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=60)

TIMED_OUT = (httpx2.ReadTimeout, httpx2.WriteTimeout, httpx2.PoolTimeout)
"""The server was reached and took too long; a connection that failed is something else."""

BROKEN = (httpx2.ReadError, httpx2.WriteError, httpx2.RemoteProtocolError)
"""A connection that had been made ended: perhaps a kept one, closed by the server meanwhile."""


def socket_options() -> list[SocketOption]:
    """Notice within two minutes that the peer of a silent stream has vanished."""
    wanted = [("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)]
    return [
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        *(
            (socket.IPPROTO_TCP, getattr(socket, name), value)
            for name, value in wanted
            if hasattr(socket, name)
        ),
    ]


def choose_proxy(url: str, configured: str | None) -> str | None:
    """The HTTP proxy on the way to `url`: as configured, else as `HTTPS_PROXY` and others say.

    This machine is never reached through a proxy that only the environment names.
    """
    if configured:
        return configured
    parsed = httpx2.URL(url)
    if is_loopback(url) or urllib.request.proxy_bypass(parsed.host):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get(parsed.scheme) or proxies.get("all")


def limits(seconds: float | None, connect: float | None = None) -> httpx2.Timeout:
    """Limit of each step of a request; None for no limit."""
    return httpx2.Timeout(connect=connect or seconds, read=seconds, write=seconds, pool=None)


def shorter(one: float | None, other: float | None) -> float | None:
    """The shorter of two limits; None for no limit."""
    return min((limit for limit in (one, other) if limit is not None), default=None)
