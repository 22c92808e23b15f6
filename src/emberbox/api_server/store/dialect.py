"""Which databases the store speaks to, and what each of them needs of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from emberbox.api_server.store import postgres, sqlite
from emberbox.shared.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy import URL
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine


class Dialect(Protocol):
    """One kind of database."""

    engine: AsyncEngine

    @property
    def writing(self) -> AbstractAsyncContextManager[object]:
        """What a writing transaction holds within this process."""
        ...

    def reading_options(self) -> dict[str, object]:
        """Execution options of a connection that only reads."""
        ...

    def writing_options(self) -> dict[str, object]:
        """Execution options of a connection whose transaction will write."""
        ...

    async def alone(self, connection: AsyncConnection, name: str) -> None:
        """Wait until no other transaction of this name goes on, in whatever process."""
        ...


_DIALECTS: dict[str, Callable[[URL], Dialect]] = {
    "sqlite": sqlite.Sqlite,
    "postgresql": postgres.Postgres,
    "postgres": postgres.Postgres,  # how many services write it
}


def open_dialect(url: str) -> Dialect:
    """Connect lazily to `url`. Raises StartupError for a URL that cannot work."""
    try:
        parsed = make_url(url)
        backend = parsed.drivername.partition("+")[0]
        if backend not in _DIALECTS:
            raise StartupError(
                f"EMBERBOX_DATABASE_URL: {backend} is no database that Emberbox uses: unset it, or "
                "give postgresql://user:password@host/name or sqlite+aiosqlite:////path/to/file.db"
            )
        return _DIALECTS[backend](parsed)
    except (ValueError, ImportError, OSError, ArgumentError) as error:
        raise StartupError(f"EMBERBOX_DATABASE_URL cannot be used: {error}") from error
