"""Both flavours of the SDK against the stand-in."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

import pytest

import emberbox
from emberbox.sdk._sync.transport import close_pools

from .stand_in import StandIn, reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

SANDBOX = {
    "sandboxID": "i0123456789abcdefghij",
    "templateID": "base",
    "clientID": "6532622b",
    "envdVersion": "0.6.13",
    "envdAccessToken": "envd-token",
}
API_KEY = "e2b_" + "0" * 40


class Flavour:
    """One flavour. `do` calls its methods alike: awaited, or in a thread."""

    def __init__(self, name: str) -> None:
        self.is_async = name == "async"
        # Tests call both through one name; the exact types are the business of mypy elsewhere.
        self.Sandbox: Any = emberbox.AsyncSandbox if self.is_async else emberbox.Sandbox

    async def do(self, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if self.is_async:
            answer = method(*args, **options)
            return await answer if inspect.isawaitable(answer) else answer
        return await asyncio.to_thread(method, *args, **options)

    async def collect(self, iterable: Any) -> list[Any]:
        """All that an iterator of this flavour yields."""
        if self.is_async:
            return [item async for item in iterable]
        return await asyncio.to_thread(list, iterable)


@pytest.fixture(params=["async", "sync"])
def sdk(request: pytest.FixtureRequest) -> Iterator[Flavour]:
    yield Flavour(request.param)
    close_pools()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration of the machine reaches a test."""
    for name in ("API_KEY", "API_URL", "SANDBOX_URL", "DOMAIN", "DEBUG"):
        monkeypatch.delenv(f"EMBERBOX_{name}", raising=False)
        monkeypatch.delenv(f"E2B_{name}", raising=False)


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StandIn]:
    """The stand-in, where the environment says that the servers are."""
    async with StandIn().running() as server:
        monkeypatch.setenv("EMBERBOX_API_URL", server.url)
        monkeypatch.setenv("EMBERBOX_SANDBOX_URL", server.url)
        monkeypatch.setenv("EMBERBOX_API_KEY", API_KEY)
        server.on("POST", "/v2/sandboxes", reply(201, SANDBOX))
        yield server


@pytest.fixture
async def sandbox(sdk: Flavour, server: StandIn) -> Any:
    """A sandbox of the flavour under test."""
    return await sdk.do(sdk.Sandbox.create)
