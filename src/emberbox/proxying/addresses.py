"""`host:port` as settings write it."""

from __future__ import annotations


def parse_address(text: str) -> tuple[str, int]:
    """Split `host:port` or `[v6]:port`. Raises ValueError that says what is expected."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ValueError(f"{text!r} is not host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)
