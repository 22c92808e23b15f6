"""Errors of the data proxy.

EmberboxError
└── DataProxyError
    └── BadFeedError    a line of the route feed that cannot be what the other side meant
"""

from __future__ import annotations

from emberbox.shared.errors import EmberboxError


class DataProxyError(EmberboxError):
    """Base of the data proxy's errors."""


class BadFeedError(DataProxyError):
    """A malformed message. `line` is what came, cut to a printable length."""

    def __init__(self, line: bytes, reason: str) -> None:
        self.line = line[:200]
        super().__init__(f"bad message in the route feed ({reason}): {self.line!r}")
