"""`E2B(…)`: the classes with options of their own."""

from __future__ import annotations

from typing import Any

import pytest

import emberbox
from emberbox import E2B

from .conftest import SANDBOX, Flavour
from .stand_in import StandIn, reply

ID = SANDBOX["sandboxID"]


def bound(sdk: Flavour, **options: Any) -> Any:
    """The sandbox class of a client."""
    client = E2B(**options)
    return client.AsyncSandbox if sdk.is_async else client.Sandbox


async def test_options_of_a_client_hold_for_all_calls(sdk: Flavour, server: StandIn) -> None:
    server.on("GET", f"/sandboxes/{ID}", reply(404))
    server.on("DELETE", f"/sandboxes/{ID}", reply(204))
    server.on("GET", "/v2/sandboxes", reply(200, []))
    cls = bound(sdk, api_key="mine", headers={"X-Mine": "1"})
    sandbox = await sdk.do(cls.create, headers={"X-Call": "2"})
    assert isinstance(sandbox, cls)
    assert isinstance(sandbox, sdk.Sandbox)
    await sdk.do(sandbox.kill)
    await sdk.do(cls.kill, ID)
    await sdk.do(cls.list().next_items)
    with pytest.raises(emberbox.SandboxNotFoundException):
        await sdk.do(cls.get_info, ID)
    assert {request.headers["x-api-key"] for request in server.requests} == {"mine"}
    assert {request.headers["x-mine"] for request in server.requests} == {"1"}
    assert server.requests[0].headers["x-call"] == "2"


async def test_an_option_of_a_call_wins(sdk: Flavour, server: StandIn) -> None:
    cls = bound(sdk, api_key="mine", api_url="http://127.0.0.1:1")
    await sdk.do(cls.create, api_key="other", api_url=server.url, domain=None)
    assert server.requests[-1].headers["x-api-key"] == "other"


async def test_clients_do_not_share_options(sdk: Flavour, server: StandIn) -> None:
    first, second = bound(sdk, api_key="first"), bound(sdk, api_key="second")
    for cls in (first, second, sdk.Sandbox):
        await sdk.do(cls.create)
    keys = [request.headers["x-api-key"] for request in server.requests]
    assert keys[:2] == ["first", "second"]
    assert keys[2] not in keys[:2]


def test_names_to_come_say_so() -> None:
    client = E2B()
    for refused in (client.Template.build, emberbox.Volume.create, emberbox.wait_for_port):
        with pytest.raises(emberbox.NotSupportedYetException, match="not supported"):
            refused("x", y=1)
    with pytest.raises(emberbox.NotSupportedYetException, match=r"AsyncSecret\.list"):
        emberbox.AsyncSecret.list()
    assert not hasattr(emberbox.Template, "_private")
