"""The host's resolvers, as its resolv.conf(5) names them now."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from pathlib import Path

_log = structlog.stdlib.get_logger(__name__)

MAX_RESOLVERS = 3
"""MAXNS of resolv.conf(5): what follows the third is ignored."""

_DEFAULT = ("127.0.0.1",)
"""What resolv.conf(5) says is used when no name server is named."""

_MAX_BYTES = 64 * 1024


class Resolvers:
    """Reads the file again when it has changed, and keeps the last list while it cannot."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version: tuple[int, int, int] | None = None
        self._addresses: tuple[str, ...] = _DEFAULT

    def current(self) -> tuple[str, ...]:
        """Addresses to ask, in order."""
        try:
            status = self._path.stat()
            version = (status.st_ino, status.st_mtime_ns, status.st_size)
            if version != self._version:
                with self._path.open(encoding="utf-8", errors="replace") as file:
                    self._addresses = parse(file.read(_MAX_BYTES))
                self._version = version
                _log.info("resolvers", path=str(self._path), addresses=self._addresses)
        except OSError as error:
            _log.warning("resolvers not readable", path=str(self._path), error=str(error))
        return self._addresses


def parse(text: str) -> tuple[str, ...]:
    """The name servers of a resolv.conf; what is not an address is passed over."""
    lines = (line.split() for line in text.splitlines())
    named = [words[1] for words in lines if len(words) >= 2 and words[0] == "nameserver"]
    return tuple(filter(_is_address, named))[:MAX_RESOLVERS] or _DEFAULT


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
