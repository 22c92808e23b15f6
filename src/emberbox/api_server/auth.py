"""Who is asking: API keys, with a short memory."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from emberbox.api_server import notices
from emberbox.api_server.errors import UnauthorizedError
from emberbox.api_server.tokens import hash_api_key

if TYPE_CHECKING:
    from datetime import datetime

    from emberbox.api_server.background import Background
    from emberbox.api_server.clock import Clock
    from emberbox.api_server.store.keys import KeyStore
    from emberbox.api_server.store.rows import Team

_REMEMBERED = timedelta(seconds=3)
_TOUCH_EVERY = timedelta(minutes=1)
_MOST_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Principal:
    """The key and the team it speaks for."""

    key_id: str
    team: Team


class Authenticator:
    """Keys to principals. A revoked key is refused after 3 seconds at the latest; sooner when a
    notice of that comes."""

    def __init__(self, keys: KeyStore, background: Background, clock: Clock) -> None:
        self._keys = keys
        self._background = background
        self._clock = clock
        self._remembered: dict[str, tuple[datetime, Principal]] = {}
        self._touched: dict[str, datetime] = {}

    async def authenticate(self, key: str | None) -> Principal:
        """The principal of a presented key. Raises UnauthorizedError with the protocol's texts."""
        if not key:
            raise UnauthorizedError("Invalid API key: give it in the X-API-KEY header")
        key_hash = hash_api_key(key)
        if key_hash is None:
            raise UnauthorizedError("Invalid API key format")
        principal = self._recall(key_hash)
        if principal is None:
            found = await self._keys.team_of_hash(key_hash)
            if found is None:
                raise UnauthorizedError("Cannot get the team for the given API key")
            principal = Principal(*found)
            self._remember(key_hash, principal)
        self._touch(principal.key_id)
        return principal

    def noticed(self, message: str) -> None:
        """Forget what another program says it changed."""
        kind, subject = notices.parse(message)
        self._remembered = {
            key_hash: (until, one)
            for key_hash, (until, one) in self._remembered.items()
            if (kind, subject)
            not in ((notices.KEY_REVOKED, one.key_id), (notices.TEAM_CHANGED, one.team.team_id))
        }

    def _recall(self, key_hash: str) -> Principal | None:
        entry = self._remembered.get(key_hash)
        if entry is None or entry[0] <= self._clock():
            return None
        return entry[1]

    def _remember(self, key_hash: str, principal: Principal) -> None:
        if len(self._remembered) >= _MOST_REMEMBERED:
            self._remembered.clear()
        self._remembered[key_hash] = (self._clock() + _REMEMBERED, principal)

    def _touch(self, key_id: str) -> None:
        now = self._clock()
        last = self._touched.get(key_id)
        if last is not None and now - last < _TOUCH_EVERY:
            return
        self._touched[key_id] = now
        self._background.start(self._keys.touch(key_id, now), "last use of a key")
