"""Transactions."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from emberbox.api_server.errors import DatabaseUnavailableError
from emberbox.api_server.store.dialect import open_dialect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine


class Database:
    """One engine; reading and writing transactions.

    Both raise DatabaseUnavailableError when the database does not answer. Whether a transaction
    that was being committed then was is unknown.
    """

    def __init__(self, url: str) -> None:
        self._dialect = open_dialect(url)

    @property
    def engine(self) -> AsyncEngine:
        """The pool of connections."""
        return self._dialect.engine

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that only reads."""
        async with _available(), self.engine.connect() as connection:
            await connection.execution_options(**self._dialect.reading_options())
            yield connection

    @asynccontextmanager
    async def write(self, alone: str | None = None) -> AsyncIterator[AsyncConnection]:
        """A transaction that writes: committed at the end of the block, rolled back on an error.

        Those with the same name in `alone` run one after the other.
        """
        async with self._dialect.writing, _available(), self.engine.connect() as connection:
            await connection.execution_options(**self._dialect.writing_options())
            async with connection.begin():
                if alone is not None:
                    await self._dialect.alone(connection, alone)
                yield connection

    async def close(self) -> None:
        """Return every connection."""
        await self.engine.dispose()


@asynccontextmanager
async def _available() -> AsyncIterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeoutError, OSError, TimeoutError) as error:
        raise DatabaseUnavailableError(error) from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise DatabaseUnavailableError(error) from error
        raise
