"""Transactions."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from emberbox.api_server.store.dialect import WRITES, open_engine, write_guard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection


class Database:
    """One engine; reading and writing transactions."""

    def __init__(self, url: str) -> None:
        self.engine = open_engine(url)
        self._guard = write_guard()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that only reads."""
        async with self.engine.connect() as connection:
            yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that writes: committed at the end of the block, rolled back on an error."""
        async with self._guard, self.engine.connect() as connection:
            await connection.execution_options(**{WRITES: True})
            async with connection.begin():
                yield connection

    async def close(self) -> None:
        """Return every connection."""
        await self.engine.dispose()
