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
    """A malformed message. What came is not told: it may hold tokens, and this is logged."""

    def __init__(self, line: bytes, reason: str) -> None:
        super().__init__(f"bad message in the route feed ({reason}), {len(line)} bytes long")
