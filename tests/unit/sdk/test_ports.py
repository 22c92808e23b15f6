"""HTTP and WebSocket to a port in the sandbox, through the proxy, without DNS."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import websockets.asyncio.server
import websockets.exceptions

from .conftest import SANDBOX
from .stand_in import Answer, reply

if TYPE_CHECKING:
    from .conftest import Flavour
    from .stand_in import Request, StandIn


async def test_http(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on("GET", "/page", Answer(200, b"hello"))
    client = sandbox.http(8000)
    response = await sdk.do(client.get, "/page", params={"q": "1"})
    assert response.text == "hello"
    request: Request = server.requests[-1]
    assert request.query == {"q": "1"}
    assert request.headers["e2b-sandbox-id"] == sandbox.sandbox_id
    assert request.headers["e2b-sandbox-port"] == "8000"
    assert "x-access-token" not in request.headers
    assert "x-api-key" not in request.headers


async def test_closing_one_client_leaves_the_others(
    sdk: Flavour, server: StandIn, sandbox: Any
) -> None:
    server.on("GET", "/", Answer(200, b"hello"))
    first, second = sandbox.http(8000), sandbox.http(8000)
    assert (await sdk.do(first.get, "/")).status_code == 200
    await sdk.do(first.aclose if sdk.is_async else first.close)
    assert (await sdk.do(second.get, "/")).status_code == 200
    assert server.connections == 1


async def test_the_traffic_token_goes_along(sdk: Flavour, server: StandIn) -> None:
    server.on("POST", "/v2/sandboxes", reply(201, {**SANDBOX, "trafficAccessToken": "secret"}))
    server.on("GET", "/", Answer(200))
    sandbox = await sdk.do(sdk.Sandbox.create)
    assert sandbox.traffic_access_token == "secret"
    await sdk.do(sandbox.http(8000).get, "/")
    assert server.requests[-1].headers["e2b-traffic-access-token"] == "secret"
    server.on("POST", "/process.Process/List", reply(200, {}))
    await sdk.do(sandbox.commands.list)
    assert "e2b-traffic-access-token" not in server.requests[-1].headers


async def test_websocket(sdk: Flavour, server: StandIn) -> None:
    server.on("POST", "/v2/sandboxes", reply(201, {**SANDBOX, "trafficAccessToken": "secret"}))
    seen: dict[str, str] = {}

    async def echo(connection: websockets.asyncio.server.ServerConnection) -> None:
        assert connection.request is not None
        seen.update({k.lower(): v for k, v in connection.request.headers.raw_items()})
        seen["path"] = connection.request.path
        async for message in connection:
            await connection.send(message)

    async with websockets.asyncio.server.serve(echo, "127.0.0.1", 0) as proxy:
        port = proxy.sockets[0].getsockname()[1]
        sandbox = await sdk.do(sdk.Sandbox.create, sandbox_url=f"http://127.0.0.1:{port}")
        assert await _talk(sdk, sandbox) == "hello"
    assert seen["path"] == "/chat?room=1"
    assert seen["e2b-sandbox-id"] == sandbox.sandbox_id
    assert seen["e2b-sandbox-port"] == "8765"
    assert seen["e2b-traffic-access-token"] == "secret"
    assert seen["x-own"] == "1"


async def _talk(sdk: Flavour, sandbox: Any) -> str:
    options = {"path": "/chat?room=1", "additional_headers": {"X-Own": "1"}}
    if sdk.is_async:
        async with sandbox.websocket(8765, **options) as connection:
            await connection.send("hello")
            return str(await connection.recv())

    def talk() -> str:
        connection = sandbox.websocket(8765, **options)
        connection.send("hello")
        answer = str(connection.recv())
        connection.close()
        return answer

    return await asyncio.to_thread(talk)


async def test_a_port_that_takes_no_websocket(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    with pytest.raises(websockets.exceptions.InvalidStatus):
        await _talk(sdk, sandbox)
