"""A worker's side of the route feed: takes changes, acknowledges them, comes back when cut off."""

from __future__ import annotations

import asyncio
import select
from typing import TYPE_CHECKING, cast

import structlog

from emberbox.orchestrator.data_proxy.errors import BadFeedError
from emberbox.orchestrator.data_proxy.messages import LONGEST_LINE, Ack, decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from emberbox.orchestrator.data_proxy.messages import Message

_log = structlog.get_logger()
_FIRST_WAIT = 0.05
_LONGEST_WAIT = 1.0
_LONG_LIFE = 1.0
"""Seconds after which the loss of a feed is answered by coming back at once."""
_PATIENCE = 1.0
"""Seconds for which requests wait for a table that is known to be behind."""


class RouteFollower:
    """Applies what the orchestrator says, and knows when it has said more than was applied.

    While the orchestrator is away the last table stays; its snapshot replaces the table when it
    is back.
    """

    def __init__(self, socket_path: Path, apply: Callable[[Message], None]) -> None:
        self._path = str(socket_path)
        self._apply = apply
        self._feed: _Feed | None = None
        self._coming_back = True
        self._given_up = False
        self._progress = asyncio.Event()

    @property
    def behind(self) -> bool:
        """Whether a newer table is on its way: the feed has unread news, or is being reopened.

        So it is after this process stood still, when requests wait beside the news.
        """
        if self._given_up:
            return False
        if self._feed is None:
            return self._coming_back
        return self._feed.has_news()

    async def catch_up(self) -> None:
        """Return when the table is not behind any more, or keeps being so for too long."""
        try:
            async with asyncio.timeout(_PATIENCE):
                while self.behind:
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            _log.warning("the route feed stands still, the last table serves")
            self._given_up = True

    async def run(self) -> None:
        """Follow for ever."""
        loop = asyncio.get_running_loop()
        wait = _FIRST_WAIT
        while True:
            connected = await self._connect()
            since = loop.time()
            if connected is not None:
                await self._follow(connected)
            self._coming_back = connected is not None and loop.time() - since >= _LONG_LIFE
            self._has_progressed()
            if self._coming_back:
                wait = _FIRST_WAIT
                continue
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT)

    async def _connect(self) -> _Feed | None:
        loop = asyncio.get_running_loop()
        try:
            _, feed = await loop.create_unix_connection(
                lambda: _Feed(self._apply, self._has_progressed), self._path
            )
        except OSError as error:
            if self._coming_back:
                _log.warning("no orchestrator offers routes", reason=str(error))
            return None
        return feed

    async def _follow(self, feed: _Feed) -> None:
        """Return when the feed ends."""
        self._feed = feed
        try:
            await feed.closed
            _log.info("route feed closed, the last table stays")
        except (OSError, BadFeedError) as error:
            _log.warning("route feed lost, the last table stays", reason=str(error))
        except Exception:  # noqa: BLE001 - whatever a change of the table raised: go on following
            _log.exception("route feed failed, the last table stays")
        finally:
            self._feed = None
            feed.abort()

    def _has_progressed(self) -> None:
        self._given_up = False
        self._progress.set()


class _Feed(asyncio.Protocol):
    """One connection. What it reads is applied at once, so only the kernel holds news back."""

    def __init__(self, apply: Callable[[Message], None], progressed: Callable[[], None]) -> None:
        self._apply = apply
        self._progressed = progressed
        self._transport: asyncio.Transport | None = None
        self._poll = select.poll()
        self._line = bytearray()
        self._whole = False
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the connection is, with the error that ended it."""

    def has_news(self) -> bool:
        """Whether something was sent, or the end came, that is not applied yet."""
        if self._transport is None or self._transport.is_closing():
            return True
        return not self._whole or bool(self._line) or bool(self._poll.poll(0))

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        try:
            self._take(data)
        except BadFeedError as error:
            self._end(error)
            self.abort()
        self._progressed()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._end(exc)

    def _take(self, data: bytes) -> None:
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._apply_line(bytes(self._line + line))
            self._line.clear()
        self._line += rest
        if len(self._line) > LONGEST_LINE:
            raise BadFeedError(bytes(self._line), "too long")

    def _apply_line(self, line: bytes) -> None:
        message = decode(line)
        self._apply(message)
        self._whole = True
        if self._transport is not None:
            self._transport.write(encode(Ack(message.number)))

    def _end(self, error: Exception | None) -> None:
        if self.closed.done():
            return
        if error is None:
            self.closed.set_result(None)
        else:
            self.closed.set_exception(error)
