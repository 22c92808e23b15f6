"""All that is SQLite's own. Other databases are refused, so nothing here pretends to serve them:
what one of them needs instead is written, and tested, with it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import create_async_engine

from emberbox.shared.errors import StartupError

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection
    from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlalchemy.pool import ConnectionPoolEntry

WRITES = "emberbox_writes"
"""Execution option of a connection whose transaction will write."""

_BUSY_MILLISECONDS = 10_000
_WAL_ATTEMPTS = 100
_WAL_PAUSE = 0.01


def open_engine(url: str) -> AsyncEngine:
    """Connect lazily to `url`. Raises StartupError for a URL that cannot work."""
    try:
        parsed = make_url(url)
        _refuse_others(parsed)
        if parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_async_engine(parsed, pool_size=5, max_overflow=10)
    except (ValueError, ImportError, OSError, ArgumentError) as error:
        raise StartupError(f"EMBERBOX_DATABASE_URL cannot be used: {error}") from error
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def write_guard() -> asyncio.Lock:
    """What a writing transaction holds within this process.

    SQLite has one writer; queueing here is fair and wakes at once, where its own busy handler
    sleeps and may starve somebody.
    """
    return asyncio.Lock()


def _refuse_others(url: URL) -> None:
    backend = url.get_backend_name()
    if backend == "sqlite":
        return
    name = "Postgres" if backend in {"postgres", "postgresql"} else backend
    raise StartupError(
        f"{name} is not available yet: unset EMBERBOX_DATABASE_URL, or set it to "
        "sqlite+aiosqlite:////path/to/file.db"
    )


def _prepare_sqlite(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
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


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
