"""Connection pools, one for the process (the asynchronous flavour has one for each event loop).

A forked child gets pools of its own: two processes must not share a connection.
"""

from __future__ import annotations

import atexit
import os

import httpx2

from emberbox.sdk.transport_options import CONNECT_RETRIES, LIMITS, choose_proxy, socket_options

_Key = tuple[int, bool, str | None]

_pools: dict[_Key, httpx2.HTTPTransport] = {}


class PooledTransport(httpx2.BaseTransport):
    """Sends through the process's pool; closing it leaves the pool to the others."""

    def __init__(self, proxy: str | None) -> None:
        self._proxy = proxy

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send the request."""
        proxy = choose_proxy(str(request.url), self._proxy)
        return _pool(request.url.scheme == "https", proxy).handle_request(request)


def _pool(secure: bool, proxy: str | None) -> httpx2.HTTPTransport:
    key = (os.getpid(), secure, proxy)
    pool = _pools.get(key)
    if pool is None:
        new = httpx2.HTTPTransport(
            verify=secure,  # without TLS there is no reason to load certificates
            proxy=proxy,
            limits=LIMITS,
            retries=CONNECT_RETRIES,
            socket_options=socket_options(),
        )
        # Of two threads one wins; the other's pool has no connection yet and is dropped.
        pool = _pools.setdefault(key, new)
    return pool


@atexit.register
def close_pools() -> None:
    """Close the connections of this process."""
    for key in [key for key in _pools if key[0] == os.getpid()]:
        _pools.pop(key).close()
