"""All that is Postgres's own: many API servers over one database."""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import create_async_engine

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy import URL
    from sqlalchemy.ext.asyncio import AsyncConnection

_CONNECT_SECONDS = 5
_QUERY_SECONDS = 30
_WAIT_SECONDS = 10
"""For one of the connections."""
_IDLE_IN_TRANSACTION = "60s"
"""A server that vanished in the middle of a transaction holds its locks no longer."""


class Postgres:
    """READ COMMITTED, Postgres's default: what must not run at once locks a row that all of them
    share, or is `alone`."""

    def __init__(self, url: URL) -> None:
        self.engine = create_async_engine(
            _for_driver(url),
            pool_size=5,
            max_overflow=10,
            pool_timeout=_WAIT_SECONDS,
            # A connection that a restart of Postgres has cut is noticed before it is used.
            pool_pre_ping=True,
            connect_args={
                "timeout": _CONNECT_SECONDS,
                "command_timeout": _QUERY_SECONDS,
                "server_settings": {
                    "application_name": "emberbox",
                    "idle_in_transaction_session_timeout": _IDLE_IN_TRANSACTION,
                },
            },
        )

    @property
    def writing(self) -> AbstractAsyncContextManager[object]:
        """Nothing: Postgres has many writers."""
        return contextlib.nullcontext()

    def reading_options(self) -> dict[str, object]:
        """No transaction around what only reads: at this isolation it would see the same, for
        two more round trips."""
        return {"isolation_level": "AUTOCOMMIT"}

    def writing_options(self) -> dict[str, object]:
        """As it is."""
        return {}

    async def alone(self, connection: AsyncConnection, name: str) -> None:
        """By an advisory lock that ends with the transaction."""
        await connection.execute(select(func.pg_advisory_xact_lock(_number(name))))


def _for_driver(url: URL) -> URL:
    """With our driver, whichever is named, and libpq's `sslmode`, which it calls `ssl`."""
    query = dict(url.query)
    if "sslmode" in query:
        query["ssl"] = query.pop("sslmode")
    return url.set(drivername="postgresql+asyncpg", query=query)


def _number(name: str) -> int:
    digest = hashlib.sha256(f"emberbox {name}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)
