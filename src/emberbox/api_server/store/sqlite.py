"""All that is SQLite's own: one machine, one file, one writer."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import event
from sqlalchemy.ext.asyncio import create_async_engine

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection
    from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
    from sqlalchemy.ext.asyncio import AsyncConnection
    from sqlalchemy.pool import ConnectionPoolEntry

_WRITES = "emberbox_writes"
_BUSY_MILLISECONDS = 10_000
_WAL_ATTEMPTS = 100
_WAL_PAUSE = 0.01


class Sqlite:
    """A file in write-ahead mode. Every writing transaction locks all of it from its beginning."""

    def __init__(self, url: URL) -> None:
        if url.database:
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        self.engine = create_async_engine(url, pool_size=5, max_overflow=10)
        event.listen(self.engine.sync_engine, "connect", _prepare)
        event.listen(self.engine.sync_engine, "begin", _begin)
        self.writing = asyncio.Lock()
        """SQLite has one writer; queueing here is fair and wakes at once, where its own busy
        handler sleeps and may starve somebody."""

    def reading_options(self) -> dict[str, object]:
        """A deferred transaction."""
        return {}

    def writing_options(self) -> dict[str, object]:
        """An immediate transaction."""
        return {_WRITES: True}

    async def alone(self, connection: AsyncConnection, name: str) -> None:
        """Every writing transaction is alone."""


def _prepare(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
    # Transactions are begun by us, below: the driver would begin them too late, at the first
    # write, where a second reader that wants to write fails instead of waiting.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={_BUSY_MILLISECONDS}")
    _switch_to_wal(cursor)
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _switch_to_wal(cursor: DBAPICursor) -> None:
    """Once in the life of a file. Programs that do it at the same moment are refused at once,
    whatever the busy timeout is, so they try again."""
    for _ in range(_WAL_ATTEMPTS):
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except Exception as error:
            if "locked" not in str(error):
                raise
            time.sleep(_WAL_PAUSE)
        else:
            return
    cursor.execute("PRAGMA journal_mode=WAL")


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
