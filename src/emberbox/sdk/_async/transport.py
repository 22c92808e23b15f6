"""Connection pools, one for each event loop (the synchronous flavour has one for the process).

Connections belong to the loop they were made in, and nobody closes an SDK. An asynchronous
generator is registered with its loop and is finished by `loop.shutdown_asyncgens()`, which
`asyncio.run` calls before it closes the loop: that is when a loop's pools are closed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx2

from emberbox.sdk.transport_options import CONNECT_RETRIES, LIMITS, choose_proxy, socket_options

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

_Key = tuple[bool, str | None]


class PooledTransport(httpx2.AsyncBaseTransport):
    """Sends through the running loop's pool; closing it leaves the pool to the others."""

    def __init__(self, proxy: str | None) -> None:
        self._proxy = proxy

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send the request."""
        proxy = choose_proxy(str(request.url), self._proxy)
        pool = _pools_of_running_loop().get(secure=request.url.scheme == "https", proxy=proxy)
        return await pool.handle_async_request(request)


class _LoopPools:
    """The pools of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._pools: dict[_Key, httpx2.AsyncHTTPTransport] = {}
        self._lifetime = self._close_at_end()
        _start(self._lifetime)

    def get(self, *, secure: bool, proxy: str | None) -> httpx2.AsyncHTTPTransport:
        key = (secure, proxy)
        if key not in self._pools:
            self._pools[key] = httpx2.AsyncHTTPTransport(
                verify=secure,  # without TLS there is no reason to load certificates
                proxy=proxy,
                limits=LIMITS,
                retries=CONNECT_RETRIES,
                socket_options=socket_options(),
            )
        return self._pools[key]

    async def _close_at_end(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            _loops.pop(self._loop, None)
            for pool in self._pools.values():
                await pool.aclose()


_loops: dict[asyncio.AbstractEventLoop, _LoopPools] = {}


def _pools_of_running_loop() -> _LoopPools:
    loop = asyncio.get_running_loop()
    if loop not in _loops:
        for closed in [known for known in _loops if known.is_closed()]:
            del _loops[closed]
        _loops[loop] = _LoopPools(loop)
    return _loops[loop]


def _start(generator: AsyncGenerator[None]) -> None:
    """Run the generator to its first `yield`, which waits for nothing."""
    try:
        generator.__anext__().__await__().send(None)
    except StopIteration:
        return
