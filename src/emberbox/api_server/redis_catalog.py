"""The catalog in Redis, as an API server keeps it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from emberbox.shared.catalog import CHANNEL, CatalogEntry, key_of
from emberbox.shared.redis_connection import REDIS_ERRORS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from redis.asyncio import Redis

    from emberbox.api_server.nodes import KnownNodes
    from emberbox.api_server.store.rows import Sandbox
    from emberbox.api_server.store.sandboxes import SandboxStore

log = structlog.get_logger(__name__)

_KEPT_SECONDS = 24 * 3600
"""An entry that nobody removed goes then. One whose sandbox lives is written again before."""
_RENEWED_AFTER = _KEPT_SECONDS / 4

_REMOVE = """
local found = redis.call('GET', KEYS[1])
if found and string.sub(found, 1, #ARGV[1]) == ARGV[1] then
  redis.call('DEL', KEYS[1])
  redis.call('PUBLISH', ARGV[2], ARGV[3])
end
"""


async def remove_entries(redis: Redis, rows: Iterable[Sandbox]) -> None:
    """Delete the entries of runs that are over, unless a later run has written its own. Raises
    what `redis_connection` names."""
    remove = redis.register_script(_REMOVE)
    for row in rows:
        await remove(
            keys=[key_of(row.sandbox_id)], args=[f"{row.execution_id} ", CHANNEL, row.sandbox_id]
        )


class RedisCatalog:
    """One key a sandbox."""

    def __init__(self, redis: Redis, nodes: KnownNodes, store: SandboxStore) -> None:
        self._redis = redis
        self._nodes = nodes
        self._store = store
        self._renewed: dict[str, float] = {}
        self._failed = False

    async def put(self, row: Sandbox) -> None:
        """Write it, and tell the proxies."""
        await self._put([row])

    async def remove(self, row: Sandbox) -> None:
        """Delete the entry if it is this run's."""
        try:
            await remove_entries(self._redis, [row])
        except REDIS_ERRORS as error:
            self._tell(error)

    async def rebuild(self, rows: Iterable[Sandbox]) -> None:
        """Write those that are missing or say something else, and every few hours all."""
        wanted = {row.sandbox_id: row for row in rows}
        if not wanted:
            return
        try:
            stale = await self._stale(wanted)
        except REDIS_ERRORS as error:
            self._tell(error)
            return
        if not stale:
            self._failed = False
            return
        # What was read before the look into Redis may be out of date by now: only what the
        # records still say is written.
        now = await self._store.several(stale)
        current = [row for row in now if row.execution_id == wanted[row.sandbox_id].execution_id]
        log.info("catalog entries are written anew", count=len(current))
        await self._put([row for row in current if row.state == wanted[row.sandbox_id].state])

    async def _stale(self, wanted: dict[str, Sandbox]) -> list[str]:
        node_id = next(iter(wanted.values())).node_id
        now = time.monotonic()
        if now - self._renewed.get(node_id, -_RENEWED_AFTER) >= _RENEWED_AFTER:
            self._renewed[node_id] = now
            return list(wanted)
        found = await self._redis.mget([key_of(sandbox_id) for sandbox_id in wanted])
        told = zip(wanted.values(), found, strict=True)
        return [row.sandbox_id for row, entry in told if entry != self._entry(row)]

    def _entry(self, row: Sandbox) -> str | None:
        """None while its node is not known."""
        address = self._nodes.data_address(row.node_id)
        if address is None:
            return None
        return CatalogEntry(row.execution_id, address, row.node_id).encode()

    async def _put(self, rows: Iterable[Sandbox]) -> None:
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for row in rows:
                    entry = self._entry(row)
                    if entry is not None:
                        pipe.set(key_of(row.sandbox_id), entry, ex=_KEPT_SECONDS)
                        pipe.publish(CHANNEL, row.sandbox_id)
                await pipe.execute()
            self._failed = False
        except REDIS_ERRORS as error:
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        if not self._failed:  # once, not at every sandbox
            self._failed = True
            log.warning("the catalog is behind: Redis does not answer", error=repr(error))
