"""The first team and key, so that one command is enough."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import structlog

from emberbox.api_server.clock import Clock, utc_now
from emberbox.api_server.store.keys import insert_key, is_revoked
from emberbox.api_server.store.rows import Limits
from emberbox.api_server.store.teams import any_team, find_team, insert_team
from emberbox.api_server.tokens import hash_api_key, new_api_key
from emberbox.shared.errors import StartupError
from emberbox.shared.sidefile import write_atomically

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncConnection

    from emberbox.api_server.store import Store
    from emberbox.api_server.store.rows import Team
    from emberbox.shared.home import Home

log = structlog.get_logger(__name__)

DEFAULT_TEAM = "default"


async def ensure_default_key(store: Store, home: Home, clock: Clock = utc_now) -> None:
    """Make `home.api_key` (0600) hold a key that is accepted: `up` prints what is in it.

    A key in the file is taken, so that a lost database does not change it; one that was revoked
    is replaced. The keys belong to the team "default", made when there is no team at all. When
    that team was deleted nothing is made: somebody gives out keys by hand.
    The file is written before the transaction commits: a crash between leaves a file that is
    taken next time, never a key that nobody has.
    Raises StartupError when the file holds something else, or cannot be read or written.
    """
    async with store.database.write(alone="teams") as connection:
        key = _key_of_file(home.api_key)
        revoked = await is_revoked(connection, key) if key else None
        if revoked is False:
            return
        team = await _default_team(connection, clock())
        if team is None:
            log.warning("no team to make a key for", team=DEFAULT_TEAM, key_file=str(home.api_key))
            return
        if key is None or revoked:
            key = _write_new_key(home.api_key)
        await insert_key(connection, team.team_id, "made at a start", key, clock())
    log.info("made a key", team=DEFAULT_TEAM, key_file=str(home.api_key))


async def refuse_public_without_keys(store: Store, host: str) -> None:
    """Raises StartupError when `host` is not loopback and no key exists yet."""
    if _is_loopback(host) or await store.keys.any_valid():
        return
    raise StartupError(
        f"refusing to listen on {host} before there is an API key: run `emberbox key create` "
        "first, or start once on 127.0.0.1"
    )


async def _default_team(connection: AsyncConnection, now: datetime) -> Team | None:
    if await any_team(connection):
        return await find_team(connection, DEFAULT_TEAM)
    return await insert_team(connection, DEFAULT_TEAM, Limits(), now)


def _key_of_file(path: Path) -> str | None:
    try:
        key = path.read_text().strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StartupError(f"{path} cannot be read: {error.strerror}") from error
    if hash_api_key(key) is None:
        raise StartupError(f"{path} does not hold an API key: delete it and start again")
    return key


def _write_new_key(path: Path) -> str:
    key = new_api_key()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, f"{key}\n".encode(), 0o600)
    except OSError as error:
        raise StartupError(f"{path} cannot be written: {error.strerror}") from error
    return key


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
