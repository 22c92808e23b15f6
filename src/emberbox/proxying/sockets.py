"""What the kernel knows of connections, and listening."""

from __future__ import annotations

import resource
import select
import socket
from typing import TYPE_CHECKING

import structlog

from emberbox.shared.errors import StartupError

if TYPE_CHECKING:
    import asyncio

_log = structlog.get_logger()
_BACKLOG = 4096
_OTHER_DESCRIPTORS = 1024
"""Kept back for listening, logs, connections that are idle or being refused."""
_KEEPALIVE_IDLE = 60
"""Seconds after which a silent client is probed: one that vanished is found in minutes."""
_PROBE_EVERY = 5
_NO_WORD = 28
"""Seconds between probes of another host, and without any word of it after which its connections
end. The probe at 30 finds that, when API servers call the host unreachable too; a link that is cut
for 20 seconds ends nothing.
"""


def has_failed(transport: asyncio.Transport) -> bool:
    """Whether a RST came, or the peer stopped to answer, as far as the kernel knows."""
    return bool(_poll(transport, 0) & select.POLLERR)


def has_finished(transport: asyncio.Transport) -> bool:
    """Whether the peer's FIN came, be it behind data that is not read yet."""
    return bool(_poll(transport, select.POLLRDHUP) & select.POLLRDHUP)


def _poll(transport: asyncio.Transport, events: int) -> int:
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), events)
    return next((found for _, found in poll.poll(0)), 0)


def peer_of(transport: asyncio.Transport) -> str:
    """The address at the other end, without its port; empty when it is gone already."""
    name = transport.get_extra_info("peername")
    return str(name[0]) if isinstance(name, tuple) else ""


def end_when_host_is_gone(transport: asyncio.BaseTransport) -> None:
    """Let the kernel end a connection whose other end says nothing any more, not even that
    it has received something: without that, requests wait for ever on connections that are kept."""
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBE_EVERY)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_EVERY)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _NO_WORD * 1000)


def open_listener(host: str, port: int, *, share_port: bool = False) -> socket.socket:
    """Listen on an address. Raises StartupError that names it when that is not possible.

    With `share_port`, other processes of this user may listen on the same address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Accepted connections inherit these.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE)
        sock.setblocking(False)
        sock.bind((host, port))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise StartupError(
            f"cannot listen on {host}:{port} ({error.strerror or error}): "
            "stop what holds the port, or choose another"
        ) from error
    return sock


def room_for(connections: int) -> int:
    """Raise this process's limit of descriptors as far as it goes; how many of that many
    connections of clients it has room for, each with one to an upstream."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * connections + _OTHER_DESCRIPTORS
    if needed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(needed, hard), hard))
    room = (min(max(needed, soft), hard) - _OTHER_DESCRIPTORS) // 2
    if room < connections:
        _log.warning("few descriptors, fewer connections", wanted=connections, connections=room)
    return min(connections, room)
