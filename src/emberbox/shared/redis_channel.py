"""Listening to one of Redis's channels, through its restarts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from emberbox.shared.redis_connection import REDIS_ERRORS

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis

log = structlog.get_logger(__name__)

_AGAIN_AFTER = 0.5
_CANCEL_AGAIN = 0.1
_POLL = 10.0
"""A connection that is quiet for so long is looked at, so that one that is dead is noticed."""


class Channel:
    """Hands over the messages of a channel until it is closed.

    Messages are lost while `connected` is False, and `lost` is called each time that it becomes
    so: whoever trusts in hearing of changes must not then.
    """

    def __init__(
        self,
        redis: Redis,
        name: str,
        handle: Callable[[str], None],
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        self.connected = False
        self._redis = redis
        self._name = name
        self._handle = handle
        self._lost = lost
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to listen."""
        self._task = asyncio.get_running_loop().create_task(self._forever(), name=self._name)

    async def close(self) -> None:
        """Listen no more."""
        task = self._task
        while task is not None and not task.done():
            # A cancellation that comes while redis-py connects may be lost.
            task.cancel()
            await asyncio.wait([task], timeout=_CANCEL_AGAIN)

    async def _forever(self) -> None:
        told = False
        while True:
            try:
                await self._listen()
            except REDIS_ERRORS as error:
                if self.connected or not told:  # once, not at every try
                    told = True
                    log.warning("Redis does not answer", channel=self._name, error=repr(error))
            if self.connected:
                self.connected = False
                self._lost()
            await asyncio.sleep(_AGAIN_AFTER)

    async def _listen(self) -> None:
        async with self._redis.pubsub() as channel:
            await channel.subscribe(self._name)
            while True:
                message = await channel.get_message(timeout=_POLL)
                if message is None:
                    await channel.ping()
                elif message["type"] == "subscribe":
                    self.connected = True
                elif message["type"] == "message":
                    self._handle(str(message["data"]))
