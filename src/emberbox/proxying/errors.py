"""Errors of the forwarding engine.

EmberboxError
└── ProxyingError
    ├── BadMessageError   a peer broke HTTP/1.1 or one of our limits
    ├── BadRouteError     a request names no sandbox and port that we understand
    │   └── NoRouteError  it does not even try to name one
    └── DialError         no connection to the upstream could be made
"""

from __future__ import annotations

from emberbox.shared.errors import EmberboxError


class ProxyingError(EmberboxError):
    """Base of the engine's errors."""


class BadMessageError(ProxyingError):
    """A head or a body that we do not forward. `status` is what a client is told."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class BadRouteError(ProxyingError):
    """The plain-text 400 of the protocol: `text` is the body, word for word."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class NoRouteError(BadRouteError):
    """Neither Host nor a header names a sandbox, well or badly."""


class DialError(ProxyingError):
    """Every try to reach `address:port` failed; `__cause__` is the last failure."""

    def __init__(self, address: str, port: int) -> None:
        super().__init__(f"{address}:{port} does not accept a connection")
        self.address = address
        self.port = port
