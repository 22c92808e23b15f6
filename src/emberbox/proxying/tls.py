"""TLS: the certificate that clients are shown, read again when its files change, and no questions
about those of servers in sandboxes."""

from __future__ import annotations

import asyncio
import ssl
from functools import lru_cache
from typing import TYPE_CHECKING

import structlog

from emberbox.shared.errors import StartupError

if TYPE_CHECKING:
    from pathlib import Path

_log = structlog.get_logger()
_LOOK_EVERY = 2.0


@lru_cache(maxsize=1)
def unverified_context() -> ssl.SSLContext:
    """For servers in sandboxes: whoever runs them may show what certificate he likes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


class Certificate:
    """A chain and its key in PEM files, and the context that serves them.

    TLS 1.2 and later, HTTP/1.1 only (docs/architecture.md says why).
    """

    def __init__(self, chain: Path, key: Path) -> None:
        """Raises StartupError when the files are not a certificate and its key."""
        self._chain = chain
        self._key = key
        try:
            self._seen = self._stamp()
            self.context = self._load()
        except (OSError, ssl.SSLError) as error:
            raise StartupError(f"the certificate {chain} with the key {key}: {error}") from error

    async def follow(self) -> None:
        """Look for new files now and then, for ever."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            self.reload_if_changed()

    def reload_if_changed(self) -> bool:
        """Show the new certificate in handshakes from now on; whether there was a good one.

        Files that are not whole yet, or do not fit together, change nothing: the log says so once.
        """
        try:
            stamp = self._stamp()
            if stamp == self._seen:
                return False
            self._seen = stamp
            self._load()
            self.context.load_cert_chain(self._chain, self._key)
        except (OSError, ssl.SSLError) as error:
            _log.error("the old certificate stays", chain=str(self._chain), reason=str(error))
            return False
        _log.info("certificate reloaded", chain=str(self._chain))
        return True

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(self._chain, self._key)
        return context

    def _stamp(self) -> tuple[int, ...]:
        files = [path.stat() for path in (self._chain, self._key)]
        return tuple(number for file in files for number in (file.st_ino, file.st_mtime_ns))
