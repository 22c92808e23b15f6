"""What connections may cost."""

from __future__ import annotations

from dataclasses import dataclass

CONNECTIONS = 8192


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the engine. Times are seconds, sizes bytes.

    Bodies, streams and tunnels have no time limit: a silent stream may last for hours.
    """

    request_head: int = 32 * 1024
    response_head: int = 64 * 1024
    header_timeout: float = 30.0
    """From accepting (or from the first byte of a later request) to the end of the head."""
    idle_timeout: float = 620.0
    """Between two requests of one client connection; E2B's value towards clients."""
    read_ahead: int = 64 * 1024
    """What is held of a client that sends before its request can be forwarded."""
    drained_body: int = 64 * 1024
    """A refused request's body up to this size is read away so that the connection lives on."""
    linger: float = 5.0
    """How long a client that is still sending is read away, so that it sees our answer."""
    undecided_upgrade: float = 10.0
    """How long a client that has finished sending, with data behind its request for an upgrade,
    waits for the answer: until then its end cannot be passed on."""
    write_high_water: int = 256 * 1024
    """Unsent bytes towards one peer at which the other peer is no longer read."""
    connections: int = CONNECTIONS
    """Of clients, in one process. One more is answered 503."""
    per_client: int = 0
    """Connections of one address, an IPv6 /64 counting as one, in one process. One more is answered
    429. 0: no limit."""
    per_sandbox: int = 0
    """Requests and tunnels of one sandbox at a time, in one process. One more is answered 429, and
    503 for envd. 0: no limit."""
    refused_wait: float = 5.0
    """How long a connection too many may take to send the request that is answered so."""
