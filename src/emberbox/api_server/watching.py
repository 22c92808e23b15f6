"""The background loops of one API server, and which nodes it looks after.

Each node is looked after by one API server at a time, so that the work does not grow with their
number; the database says by which. What two do at once, when one of them was slow, is
compare-and-set and so done once.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import structlog

from emberbox.api_server.errors import DatabaseUnavailableError, NodeError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from emberbox.api_server.clock import Clock
    from emberbox.api_server.node import Node
    from emberbox.api_server.nodes import KnownNodes
    from emberbox.api_server.reconcile import Reconciler
    from emberbox.api_server.settings import Settings
    from emberbox.api_server.store.nodes import NodeStore

log = structlog.get_logger(__name__)

_LOOK_FOR_NODES_EVERY = 5.0
_EVENTS_AGAIN_AFTER = 1.0
_SHORTEST_LEASE = 15.0
"""Seconds; so long a node's news wait when its API server was killed."""


class Watcher:
    """Loops over the nodes, until it is closed."""

    def __init__(
        self,
        *,
        reconciler: Reconciler,
        nodes: KnownNodes,
        store: NodeStore,
        settings: Settings,
        clock: Clock,
    ) -> None:
        self._reconciler = reconciler
        self._nodes = nodes
        self._store = store
        self._interval = settings.reconcile_interval
        self._clock = clock
        # The same after a restart, which then need not wait for its own lease to end.
        self._name = f"{socket.gethostname()}:{settings.port}"
        self._tasks: list[asyncio.Task[None]] = []
        self._loops: dict[Node, asyncio.Task[None]] = {}

    def start(self) -> None:
        """Begin the loops."""
        loops = (
            (self._watch, min(self._interval, _LOOK_FOR_NODES_EVERY)),
            (self._reconciler.tidy, self._interval),
        )
        self._tasks = [asyncio.create_task(_forever(work, interval)) for work, interval in loops]

    async def close(self) -> None:
        """End the loops, and leave the nodes to other API servers."""
        tasks = [*self._tasks, *self._loops.values()]
        await _end(*tasks)
        if tasks:
            with suppress(DatabaseUnavailableError):
                await self._store.leave(self._name)

    async def _watch(self) -> None:
        """Learn which nodes there are, and have a loop for each."""
        await self._nodes.refresh()
        nodes = self._nodes.all()
        for node in nodes:
            if node not in self._loops:
                self._loops[node] = asyncio.create_task(self._look_after(node))
        await _end(*(self._loops.pop(node) for node in list(self._loops) if node not in nodes))

    async def _look_after(self, node: Node) -> None:
        """While the node is ours, follow its events and check it every so often."""
        following: asyncio.Task[None] | None = None

        async def one_round() -> None:
            nonlocal following
            if not await self._is_ours(node):
                if following is not None:
                    await _end(following)
                    following = None
                return
            if following is None:
                follow = partial(self._reconciler.follow_events, node)
                following = asyncio.create_task(_forever(follow, _EVENTS_AGAIN_AFTER))
            await self._reconciler.check(node)

        try:
            await _forever(one_round, self._interval)
        finally:
            if following is not None:
                await _end(following)

    async def _is_ours(self, node: Node) -> bool:
        if node.node_id is None:  # of the list of the settings, and not met yet
            await self._nodes.refresh()
        if node.node_id is None:
            return False
        now = self._clock()
        lease = timedelta(seconds=max(3 * self._interval, _SHORTEST_LEASE))
        return await self._store.keep(node.node_id, self._name, now, now + lease)


async def _end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _forever(work: Callable[[], Coroutine[None, None, None]], interval: float) -> None:
    failed = ""
    while True:
        try:
            await work()
            failed = ""
        except (NodeError, DatabaseUnavailableError) as error:
            if failed != str(error):  # once, not at every pass
                failed = str(error)
                log.warning("no answer", error=failed, reason=error.reason)
        except Exception:
            log.exception("reconciling failed; nothing was changed by guess")
        await asyncio.sleep(interval)
