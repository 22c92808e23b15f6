"""Connections to upstreams."""

from __future__ import annotations

import asyncio
import enum
from typing import TYPE_CHECKING

from emberbox.proxying import sockets
from emberbox.proxying.errors import DialError
from emberbox.proxying.tls import unverified_context
from emberbox.proxying.upstream import UpstreamConnection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from emberbox.proxying.connection import Outbox
    from emberbox.proxying.limits import Limits
    from emberbox.proxying.resolving import Target


class WhenRefused(enum.Enum):
    """What to do about a port on which nothing listens."""

    DIAL_AGAIN = enum.auto()
    WAIT = enum.auto()
    GIVE_UP = enum.auto()


async def _wait(_target: Target) -> WhenRefused:
    return WhenRefused.WAIT


class Dialer:
    """Dials a target up to `1 + len(waits)` times.

    `connect_refused(target)` is asked once, at the first refusal. `connect_timeout` is seconds
    for one try; a host that does not answer for that long is not tried again.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        waits: tuple[float, ...] = (),
        connect_timeout: float = 10.0,
        connect_refused: Callable[[Target], Awaitable[WhenRefused]] = _wait,
    ) -> None:
        self._limits = limits
        self._waits = waits
        self._connect_timeout = connect_timeout
        self._connect_refused = connect_refused

    async def dial(self, target: Target, outbox: Outbox) -> UpstreamConnection:
        """Return a fresh connection that writes through `outbox`.

        Raises DialError; cancelling leaves nothing open.
        """
        verdict: WhenRefused | None = None
        waits = iter(self._waits)
        while True:
            wait: float | None = None
            try:
                return await self._dial_once(target, outbox)
            except ConnectionRefusedError as error:
                if verdict is None:
                    verdict = await self._connect_refused(target)
                    if verdict is WhenRefused.DIAL_AGAIN:
                        continue
                if verdict is WhenRefused.WAIT:
                    wait = next(waits, None)
                failure: OSError = error
            except TimeoutError as error:
                failure = error
            except OSError as error:
                wait = next(waits, None)
                failure = error
            if wait is None:
                raise DialError(target.address, target.port) from failure
            await asyncio.sleep(wait)

    async def _dial_once(self, target: Target, outbox: Outbox) -> UpstreamConnection:
        connection = UpstreamConnection(self._limits, outbox)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout):
                transport, _ = await loop.create_connection(
                    lambda: connection,
                    target.address,
                    target.port,
                    ssl=unverified_context() if target.tls else None,
                )
            if target.pool_key is not None and not transport.is_closing():
                sockets.end_when_host_is_gone(transport)
        except BaseException:
            connection.abort()
            raise
        return connection
