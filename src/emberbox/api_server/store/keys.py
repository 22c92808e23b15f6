"""API keys: their hashes, never the keys."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from sqlalchemy import insert, select, update

from emberbox.api_server.store.rows import ApiKey
from emberbox.api_server.store.tables import api_keys, teams
from emberbox.api_server.store.teams import team_of
from emberbox.api_server.tokens import KeyMask, hash_api_key, mask_api_key

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Row
    from sqlalchemy.ext.asyncio import AsyncConnection

    from emberbox.api_server.store.database import Database
    from emberbox.api_server.store.rows import Team


class KeyStore:
    """Rows of `api_keys`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, team_id: str, name: str, key: str, now: datetime) -> str:
        """Let `key` speak for a team; the id of the row."""
        async with self._database.write() as connection:
            return await insert_key(connection, team_id, name, key, now)

    async def list(self, team_id: str | None = None) -> list[ApiKey]:
        """Keys by age, of one team or of all; revoked ones too."""
        query = select(api_keys).order_by(api_keys.c.created_at, api_keys.c.key_id)
        if team_id is not None:
            query = query.where(api_keys.c.team_id == team_id)
        async with self._database.read() as connection:
            return [_key_of(row) for row in await connection.execute(query)]

    async def revoke(self, key_id: str, now: datetime) -> bool:
        """Make a key invalid; False when there is no such valid key."""
        change = (
            update(api_keys)
            .where(api_keys.c.key_id == key_id, api_keys.c.revoked_at.is_(None))
            .values(revoked_at=now)
        )
        async with self._database.write() as connection:
            return (await connection.execute(change)).rowcount == 1

    async def team_of_hash(self, key_hash: str) -> tuple[str, Team] | None:
        """The key's id and its team; None when the key is unknown or revoked."""
        query = (
            select(api_keys.c.key_id, *teams.c)
            .join_from(api_keys, teams)
            .where(api_keys.c.hash == key_hash, api_keys.c.revoked_at.is_(None))
        )
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
            return (row.key_id, team_of(row)) if row else None

    async def touch(self, key_id: str, now: datetime) -> None:
        """Note that a key was used."""
        change = update(api_keys).where(api_keys.c.key_id == key_id).values(last_used_at=now)
        async with self._database.write() as connection:
            await connection.execute(change)

    async def any_valid(self) -> bool:
        """Whether there is a key that would be accepted."""
        query = select(api_keys.c.key_id).where(api_keys.c.revoked_at.is_(None)).limit(1)
        async with self._database.read() as connection:
            return await connection.scalar(query) is not None


async def insert_key(
    connection: AsyncConnection, team_id: str, name: str, key: str, now: datetime
) -> str:
    """Insert within the caller's transaction."""
    mask = mask_api_key(key)
    key_id = str(uuid.uuid4())
    await connection.execute(
        insert(api_keys).values(
            key_id=key_id,
            team_id=team_id,
            name=name,
            hash=hash_api_key(key),
            mask_prefix=mask.prefix,
            mask_first=mask.first,
            mask_last=mask.last,
            value_length=mask.length,
            created_at=now,
        )
    )
    return key_id


async def is_revoked(connection: AsyncConnection, key: str) -> bool | None:
    """Whether `key` was revoked; None when it was never known."""
    query = select(api_keys.c.revoked_at).where(api_keys.c.hash == hash_api_key(key))
    row = (await connection.execute(query)).first()
    return None if row is None else row.revoked_at is not None


def _key_of(row: Row[tuple[object, ...]]) -> ApiKey:
    values = row._mapping
    mask = KeyMask(
        values["mask_prefix"], values["mask_first"], values["mask_last"], values["value_length"]
    )
    return ApiKey(
        key_id=values["key_id"],
        team_id=values["team_id"],
        name=values["name"],
        mask=str(mask),
        created_at=values["created_at"],
        last_used_at=values["last_used_at"],
        revoked_at=values["revoked_at"],
    )
