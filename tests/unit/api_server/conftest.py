"""A host, an API server over it, and a client with the first key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from . import harness
from .databases import PostgresDatabases, SqliteDatabases
from .harness import World, running, settings_for
from .standin import Standin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.services import Postgres

    from .databases import Databases


@pytest.fixture(scope="session")
def sqlite_databases(tmp_path_factory: pytest.TempPathFactory) -> SqliteDatabases:
    """SQLite files that go with the session."""
    return SqliteDatabases(tmp_path_factory.mktemp("sqlite"))


@pytest.fixture(scope="session")
def postgres_databases(postgres: Postgres) -> PostgresDatabases:
    """Databases of this session's Postgres."""
    return PostgresDatabases(postgres)


@pytest.fixture(params=["sqlite", "postgres"])
def both_databases(request: pytest.FixtureRequest) -> Databases:
    """For tests of the store itself: each kind of database."""
    databases: Databases = request.getfixturevalue(f"{request.param}_databases")
    return databases


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.exhaustive)])
def database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Databases:
    """Where `settings_for` finds its databases: `make test` runs the API over SQLite, `make soak`
    over Postgres too."""
    databases: Databases = request.getfixturevalue(f"{request.param}_databases")
    monkeypatch.setattr(harness, "databases_in_use", harness.DatabasesOfHomes(databases))
    return databases


@pytest.fixture
async def host(database: Databases) -> AsyncIterator[Standin]:
    """A stand-in orchestrator that serves."""
    standin = Standin()
    await standin.start()
    yield standin
    await standin.stop()


@pytest.fixture
async def world(tmp_path: Path, host: Standin) -> AsyncIterator[World]:
    """An API server over `host`."""
    async with running(settings_for(tmp_path, host), host) as made:
        yield made
