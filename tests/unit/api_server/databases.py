"""Databases of the tests, with the newest schema already in them: migrating takes longer than most
tests do."""

from __future__ import annotations

import asyncio
import shutil
import uuid
from typing import TYPE_CHECKING, Protocol

from emberbox.api_server.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from tests.services import Postgres


class Databases(Protocol):
    """One kind of database."""

    kind: str

    def new(self) -> str:
        """The URL of a database of its own, empty."""
        ...

    def migrated(self) -> str:
        """The URL of one with the newest schema and nothing else."""
        ...


class SqliteDatabases:
    """Files."""

    kind = "sqlite"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._template = directory / "template.db"
        _migrate(_url(self._template))

    def new(self) -> str:
        return _url(self._directory / f"{uuid.uuid4().hex}.db")

    def migrated(self) -> str:
        path = self._directory / f"{uuid.uuid4().hex}.db"
        shutil.copy(self._template, path)
        return _url(path)


class PostgresDatabases:
    """Databases of one server, which go with it."""

    kind = "postgres"

    def __init__(self, server: Postgres) -> None:
        self.server = server
        template = self._create("")
        _migrate(template)
        self._template = template.rpartition("/")[2]

    def new(self) -> str:
        return self._create("")

    def migrated(self) -> str:
        return self._create(f" TEMPLATE {self._template} STRATEGY file_copy")

    def _create(self, how: str) -> str:
        name = f"db_{uuid.uuid4().hex}"
        self.server.sql(f"CREATE DATABASE {name}{how}")
        return self.server.url(name)


def _url(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


def _migrate(url: str) -> None:
    async def migrate() -> None:
        await (await Store.open(url)).close()

    asyncio.run(migrate())
