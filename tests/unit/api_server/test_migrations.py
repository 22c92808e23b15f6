"""Schema changes on each kind of database: from older ones to the newest, and nothing is lost."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

from emberbox.api_server.store import Store
from emberbox.api_server.store.database import Database
from emberbox.api_server.store.migrate import migrate
from emberbox.api_server.store.tables import metadata
from emberbox.api_server.tokens import hash_api_key, new_api_key
from emberbox.shared.errors import StartupError

if TYPE_CHECKING:
    from .databases import Databases

NOW = datetime(2026, 1, 1, tzinfo=UTC)

_SANDBOX_OF_BEFORE = """
INSERT INTO sandboxes (
    sandbox_id, team_id, execution_id, node_id, state, template_id, build_id, vcpu, ram_mb,
    disk_mb, envd_version, secure, public_traffic, options, metadata, started_at, end_at
) VALUES (
    'iold', 't', 'e', 'n', 'running', 'base', 'b', 2, 512, 1024, '0.6.13', TRUE, TRUE, '{}',
    '{"a": "b"}', :now, :later
)
"""
_TEAM_OF_BEFORE = """
INSERT INTO teams (team_id, name, created_at, max_ram_mb) VALUES ('t', 'old', :now, 4096)
"""
_KEY_OF_BEFORE = """
INSERT INTO api_keys (
    key_id, team_id, name, hash, mask_prefix, mask_first, mask_last, value_length, created_at
) VALUES ('k', 't', 'laptop', :hash, 'e2b_', 'ab', 'cdef', 40, :now)
"""
_TEMPLATE_OF_BEFORE = """
INSERT INTO templates (
    template_id, build_id, vcpu, ram_mb, disk_mb, envd_version, created_at, updated_at
) VALUES ('base', 'b', 2, 512, 1024, '0.6.13', :now, :now)
"""


async def fill(database: Database, key: str) -> None:
    """What an installation of the first version has."""
    # SQLite keeps moments as text, which its driver would write in another form.
    moment: object = NOW
    later: object = NOW + timedelta(minutes=5)
    if database.engine.dialect.name == "sqlite":
        moment, later = "2026-01-01 00:00:00.000000", "2026-01-01 00:05:00.000000"
    values = {"now": moment, "later": later, "hash": hash_api_key(key)}
    async with database.write() as connection:
        for statement in (_TEAM_OF_BEFORE, _KEY_OF_BEFORE, _TEMPLATE_OF_BEFORE, _SANDBOX_OF_BEFORE):
            await connection.execute(text(statement), values)


async def test_an_older_database_becomes_the_newest(both_databases: Databases) -> None:
    url, key = both_databases.new(), new_api_key()
    database = Database(url)
    await migrate(database, "0001")
    await fill(database, key)
    await database.close()
    store = await Store.open(url)
    row = await store.sandboxes.own("t", "iold")
    assert (row.state, row.started_at, row.end_at) == ("running", NOW, NOW + timedelta(minutes=5))
    assert (row.timeout, row.paused_at, row.notice, row.metadata) == (300, None, None, {"a": "b"})
    assert (row.auto_pause, row.auto_pause_memory, row.auto_resume) == (False, True, False)
    found = await store.keys.team_of_hash(hash_api_key(key) or "")
    assert found is not None
    assert (found[0], found[1].name, found[1].limits.max_ram_mb) == ("k", "old", 4096)
    template = await store.templates.find(["base"], "t")
    assert template is not None
    assert template.build_id == "b"
    await store.close()


async def test_migrations_make_the_tables_that_the_code_uses(both_databases: Databases) -> None:
    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    url = both_databases.new()
    store = await Store.open(url)
    async with store.database.read() as connection:
        assert await connection.run_sync(differences) == []
    await store.close()
    again = await Store.open(url)
    await again.close()


async def test_sqlite_is_set_up_for_many_readers(sqlite_databases: Databases) -> None:
    store = await Store.open(sqlite_databases.new())
    async with store.database.read() as connection:
        assert await connection.scalar(text("PRAGMA journal_mode")) == "wal"
        assert await connection.scalar(text("PRAGMA foreign_keys")) == 1
    await store.close()


async def test_servers_migrate_at_once(both_databases: Databases) -> None:
    url = both_databases.new()
    for store in await asyncio.gather(*(Store.open(url) for _ in range(4))):
        await store.close()


async def test_a_newer_database_is_refused(both_databases: Databases) -> None:
    url = both_databases.migrated()
    store = await Store.open(url)
    async with store.database.write() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    await store.close()
    with pytest.raises(StartupError, match="schema 9999, which this Emberbox does not know"):
        await Store.open(url)
