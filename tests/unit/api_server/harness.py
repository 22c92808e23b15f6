"""A running API server in the loop of the test, over a real database file and a stand-in host."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
import uvicorn

from emberbox.api_server.app import build_app
from emberbox.api_server.bootstrap import ensure_default_key
from emberbox.api_server.main import Server, _listen
from emberbox.api_server.services import Services
from emberbox.api_server.settings import Settings
from emberbox.api_server.store import Limits, Store
from emberbox.shared.home import Home

from .contract import contract
from .standin import SECRET, Standin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from datetime import datetime
    from pathlib import Path

    from fastapi import FastAPI

    from emberbox.api_server.store import Sandbox


@dataclass
class World:
    """One API server and what it stands on."""

    host: Standin
    services: Services
    app: FastAPI
    url: str
    key: str
    http: httpx.AsyncClient

    @property
    def store(self) -> Store:
        return self.services.store

    async def create(self, **body: object) -> httpx.Response:
        """`POST /v2/sandboxes` of the template base."""
        return await self.http.post("/v2/sandboxes", json={"templateID": "base", **body})

    async def created(self, **body: object) -> str:
        """The id of a new sandbox."""
        answer = await self.create(**body)
        assert answer.status_code == 201, answer.text
        sandbox_id: str = answer.json()["sandboxID"]
        return sandbox_id

    async def row(self, sandbox_id: str) -> Sandbox:
        """The record of a sandbox."""
        found = await self.store.sandboxes.get(sandbox_id)
        assert found is not None
        return found

    async def rows(self) -> list[Sandbox]:
        """The live records of the host."""
        return await self.store.sandboxes.live_on(self.host.node_id)

    async def becomes(self, sandbox_id: str, state: str) -> Sandbox:
        """Wait until a record has a state."""
        await eventually(lambda: self._is(sandbox_id, state))
        return await self.row(sandbox_id)

    async def limit(self, **limits: int) -> None:
        """Limit the default team; the server is to forget who it has seen."""
        team = await self.store.teams.find("default")
        assert team is not None
        await self.store.teams.set_limits(team.team_id, dict(limits))
        self.services.authenticator._remembered.clear()

    async def other_team(self, name: str = "other") -> httpx.AsyncClient:
        """A client with the key of another team."""
        made = await self.store.teams.create(name, Limits(), self.now())
        assert made is not None
        key = "e2b_" + "ab" * 20
        await self.store.keys.add(made.team_id, "", key, self.now())
        return client(self.url, key)

    def now(self) -> datetime:
        return self.services.living._clock()

    async def _is(self, sandbox_id: str, state: str) -> bool:
        return (await self.row(sandbox_id)).state == state


async def paused(world: World, **body: object) -> str:
    """The id of a new sandbox that is paused."""
    sandbox_id = await world.created(**body)
    answer = await world.http.post(f"/sandboxes/{sandbox_id}/pause", json={})
    assert answer.status_code == 204, answer.text
    return sandbox_id


class Calls:
    """How often something was called."""

    def __init__(self) -> None:
        self.made = 0

    async def count(self, count: int) -> None:
        """Wait until there were so many."""

        async def reached() -> bool:
            return self.made >= count

        await eventually(reached)


def spied(target: object, name: str) -> Calls:
    """Count the calls of a method of one object from now on."""
    original, calls = getattr(target, name), Calls()

    def counted(*arguments: object, **options: object) -> object:
        calls.made += 1
        return original(*arguments, **options)

    setattr(target, name, counted)
    return calls


def client(url: str, key: str) -> httpx.AsyncClient:
    """A client that takes no answer that the application does not document."""
    hooks = {"response": [contract().check]}
    return httpx.AsyncClient(
        base_url=url, headers={"X-API-KEY": key}, verify=False, event_hooks=hooks
    )


async def eventually(look: Callable[[], Awaitable[bool]]) -> None:
    """Wait until `look` is true; the limit of the test is the limit."""
    while not await look():  # noqa: ASYNC110 - what is looked at has no event
        await asyncio.sleep(0.01)


def settings_for(home: Path, *hosts: Standin, **changes: object) -> Settings:
    """Settings of a test; background checks only when the test asks."""
    values: dict[str, object] = {
        "home": home,
        "port": 0,
        "orchestrators": ",".join(host.address for host in hosts),
        "reconcile_interval": 3600,
        "connect_timeout": 1,
        **changes,
    }
    return Settings(**values)  # type: ignore[arg-type]


_idle_apps: list[FastAPI] = []
"""Applications of worlds that have ended: FastAPI takes half a second to get one ready."""

_migrated: list[bytes] = []
"""A database with the whole schema and no rows: migrations have tests of their own."""


def _app(services: Services) -> FastAPI:
    if not _idle_apps or not _usual(services.settings):
        return build_app(services)
    app = _idle_apps.pop()
    app.state.services = services
    return app


def _usual(settings: Settings) -> bool:
    """Whether the application was built as others are: it takes this one setting itself."""
    return settings.max_body_bytes == Settings().max_body_bytes


async def _store(settings: Settings) -> Store:
    file = Home(settings.home).database
    if settings.database.endswith(str(file)) and not file.exists():
        if not _migrated:
            await (await Store.open(settings.database)).close()
            _migrated.append(file.read_bytes())
        file.write_bytes(_migrated[0])
    return await Store.open(settings.database)


@asynccontextmanager
async def running(settings: Settings, host: Standin) -> AsyncIterator[World]:
    """Serve on a free port until the end of the block."""
    store = await _store(settings)
    await ensure_default_key(store, Home(settings.home))
    services = await Services.wire(settings, store, SECRET)
    app = _app(services)
    listener = _listen("127.0.0.1", 0)
    server = Server(
        uvicorn.Config(app, http="httptools", lifespan="off", ws="none", log_config=None)
    )
    task = asyncio.create_task(server.serve([listener]))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    key = Home(settings.home).api_key.read_text().strip()
    try:
        async with client(url, key) as http:
            yield World(host, services, app, url, key, http)
    finally:
        server.end()
        await task
        await services.close()
        if _usual(settings):
            _idle_apps.append(app)
