"""What all programs of one cluster share."""

from __future__ import annotations

import secrets
import uuid
from typing import TYPE_CHECKING

from sqlalchemy import insert, select

from emberbox.api_server.store.tables import cluster_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from emberbox.api_server.store.database import Database


class ClusterStore:
    """Settings made once, at the first start."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def token_seed(self) -> str:
        """The secret that the tokens of sandboxes are derived from."""
        return await self._get_or_make("token_seed", lambda: secrets.token_hex(32))

    async def cluster_id(self) -> str:
        """Names this database to the nodes: an orphan is ended only by its own cluster."""
        return await self._get_or_make("cluster_id", lambda: str(uuid.uuid4()))

    async def _get_or_make(self, name: str, make: Callable[[], str]) -> str:
        query = select(cluster_settings.c.value).where(cluster_settings.c.name == name)
        async with self._database.write(alone="cluster settings") as connection:
            found: str | None = await connection.scalar(query)
            if found is not None:
                return found
            value = make()
            await connection.execute(insert(cluster_settings).values(name=name, value=value))
            return value
