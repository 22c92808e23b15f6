"""The first team and key, so that one command is enough."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import structlog

from emberbox.api_server.clock import Clock, utc_now
from emberbox.api_server.store.keys import insert_key
from emberbox.api_server.store.rows import Limits
from emberbox.api_server.store.teams import any_team, insert_team
from emberbox.api_server.tokens import hash_api_key, new_api_key
from emberbox.shared.errors import StartupError
from emberbox.shared.sidefile import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from emberbox.api_server.store import Store
    from emberbox.shared.home import Home

log = structlog.get_logger(__name__)

DEFAULT_TEAM = "default"


async def ensure_default_key(store: Store, home: Home, clock: Clock = utc_now) -> None:
    """When there is no team yet, make "default" and its key, written to `home.api_key` (0600).

    A key that is there already is taken, so that a lost database does not change it. The file
    is written before the transaction commits: a crash between leaves a file that is taken next
    time, never a key that nobody has.
    """
    async with store.database.write() as connection:
        if await any_team(connection):
            return
        key = _key_of_file(home.api_key)
        now = clock()
        team = await insert_team(connection, DEFAULT_TEAM, Limits(), now)
        await insert_key(connection, team.team_id, "made at the first start", key, now)
    log.info("made the first team and key", team=DEFAULT_TEAM, key_file=str(home.api_key))


async def refuse_public_without_keys(store: Store, host: str) -> None:
    """Raises StartupError when `host` is not loopback and no key exists yet."""
    if _is_loopback(host) or await store.keys.any_valid():
        return
    raise StartupError(
        f"refusing to listen on {host} before there is an API key: run `emberbox key create` "
        "first, or start once on 127.0.0.1"
    )


def _key_of_file(path: Path) -> str:
    if path.exists():
        key = path.read_text().strip()
        if hash_api_key(key) is None:
            raise StartupError(f"{path} does not hold an API key: delete it and start again")
        return key
    key = new_api_key()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, f"{key}\n".encode(), 0o600)
    return key


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
