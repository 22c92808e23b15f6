"""Sandboxes: create, connect, list and so on, in both flavours."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any

import pytest

import emberbox
from emberbox import SandboxQuery, SandboxState

from .conftest import API_KEY, SANDBOX, Flavour
from .stand_in import Answer, StandIn, reply

ID = SANDBOX["sandboxID"]
DETAIL = {
    **SANDBOX,
    "alias": "base",
    "startedAt": "2026-08-21T10:00:00.123456Z",
    "endAt": "2026-08-21T10:05:00Z",
    "cpuCount": 2,
    "memoryMB": 512,
    "diskSizeMB": 1024,
    "state": "running",
    "metadata": {"k": "v"},
    "lifecycle": {"autoResume": False, "onTimeout": "kill"},
    "network": {
        "allowPublicTraffic": False,
        "allowOut": ["example.com"],
        "denyOut": None,
        "egressProxy": {
            "address": "p:1080",
            "username": "u",
            "tls": {"enabled": True, "serverName": "p"},
        },
    },
    "envdUnresponsiveAtPause": True,
}
BUSY = reply(503, {"code": 503, "message": "no room"}, Retry_After="0")


async def test_create_sends_what_is_given_and_no_more(sdk: Flavour, server: StandIn) -> None:
    await sdk.do(sdk.Sandbox.create)
    await sdk.do(
        sdk.Sandbox.create,
        "python",
        timeout=30,
        metadata={"a": "b"},
        envs={"E": "1"},
        secure=False,
        allow_internet_access=False,
        headers={"X-Extra": "1"},
    )
    plain, full = server.sent("/v2/sandboxes")
    assert plain.json == {"templateID": "base", "metadata": {}, "envVars": {}}
    assert plain.headers["x-api-key"] == API_KEY
    assert plain.headers["user-agent"].startswith("emberbox-python")
    assert full.headers["x-extra"] == "1"
    assert full.json == {
        "templateID": "python",
        "metadata": {"a": "b"},
        "envVars": {"E": "1"},
        "timeout": 30,
        "allow_internet_access": False,
    }


async def test_a_sandbox_knows_itself(sandbox: Any) -> None:
    assert sandbox.sandbox_id == ID
    assert sandbox.traffic_access_token is None
    assert sandbox.get_host(8000).startswith(f"8000-{ID}.localhost:")


async def test_repeats_of_a_create_carry_one_key(sdk: Flavour, server: StandIn) -> None:
    server.on("POST", "/v2/sandboxes", BUSY, BUSY, reply(201, SANDBOX))
    await sdk.do(sdk.Sandbox.create)
    keys = [request.headers["idempotency-key"] for request in server.requests]
    assert len(keys) == 3
    assert len(set(keys)) == 1
    await sdk.do(sdk.Sandbox.create, idempotency_key="mine")
    assert server.requests[-1].headers["idempotency-key"] == "mine"


async def test_repeats_are_bounded(sdk: Flavour, server: StandIn) -> None:
    server.on("POST", "/v2/sandboxes", BUSY)
    with pytest.raises(emberbox.ServiceBusyException, match="no room"):
        await sdk.do(sdk.Sandbox.create)
    assert len(server.requests) == 4
    with pytest.raises(emberbox.ServiceBusyException):
        await sdk.do(sdk.Sandbox.create, retries=0)
    assert len(server.requests) == 5


async def test_a_wait_beyond_the_request_timeout_is_not_begun(
    sdk: Flavour, server: StandIn
) -> None:
    server.on("POST", "/v2/sandboxes", reply(429, {"message": "later"}, Retry_After="30"))
    with pytest.raises(emberbox.RateLimitException, match="later"):
        await sdk.do(sdk.Sandbox.create, request_timeout=20)
    assert len(server.requests) == 1


async def test_should_retry_false_is_final(sdk: Flavour, server: StandIn) -> None:
    server.on("POST", "/v2/sandboxes", reply(503, {"message": "full"}, Should_Retry="false"))
    with pytest.raises(emberbox.ServiceBusyException):
        await sdk.do(sdk.Sandbox.create)
    assert len(server.requests) == 1


async def test_a_missing_key_is_found_before_any_request(
    sdk: Flavour, server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EMBERBOX_API_KEY")
    with pytest.raises(emberbox.AuthenticationException, match="EMBERBOX_API_KEY"):
        await sdk.do(sdk.Sandbox.create)
    assert server.requests == []


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, emberbox.SandboxException),
        (401, emberbox.AuthenticationException),
        (404, emberbox.SandboxException),
        (500, emberbox.SandboxException),
    ],
)
async def test_refusals_of_create(
    sdk: Flavour, server: StandIn, status: int, expected: type[Exception]
) -> None:
    server.on("POST", "/v2/sandboxes", reply(status, {"code": status, "message": "because"}))
    with pytest.raises(expected, match="because"):
        await sdk.do(sdk.Sandbox.create)


async def test_an_answer_that_is_no_json(sdk: Flavour, server: StandIn) -> None:
    server.on("POST", "/v2/sandboxes", Answer(201, b"<html>"))
    with pytest.raises(emberbox.SandboxException, match="not JSON"):
        await sdk.do(sdk.Sandbox.create)


async def test_no_server_at_all(sdk: Flavour, server: StandIn) -> None:
    with pytest.raises(emberbox.ApiUnreachableException, match="emberbox up"):
        await sdk.do(sdk.Sandbox.create, api_url="http://127.0.0.1:1")


async def test_a_connection_that_breaks_is_made_again_once(sdk: Flavour, server: StandIn) -> None:
    broken = Answer(body=[], end="reset")
    server.on("POST", "/v2/sandboxes", broken, reply(201, SANDBOX))
    await sdk.do(sdk.Sandbox.create)
    assert len({request.headers["idempotency-key"] for request in server.requests}) == 1
    server.on("POST", "/v2/sandboxes", broken)
    with pytest.raises(emberbox.ApiUnreachableException):
        await sdk.do(sdk.Sandbox.create)
    assert len(server.requests) == 4


async def test_a_server_that_does_not_answer(sdk: Flavour, server: StandIn) -> None:
    async def never(_request: object) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError

    server.on("POST", "/v2/sandboxes", never)
    with pytest.raises(emberbox.TimeoutException, match="request_timeout"):
        await sdk.do(sdk.Sandbox.create, request_timeout=0.1)


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("mcp", {}, "mcp"),
        ("iam", {}, "iam"),
        ("volume_mounts", {}, "volume_mounts"),
        ("network", {"deny_out": ["10.0.0.0/8"]}, "network.deny_out"),
        ("network", {"allow_public_traffic": True, "https_ports": []}, "network.https_ports"),
    ],
)
async def test_options_to_come_are_refused(
    sdk: Flavour, server: StandIn, option: str, value: object, named: str
) -> None:
    with pytest.raises(emberbox.NotSupportedYetException, match=named):
        await sdk.do(sdk.Sandbox.create, **{option: value})
    assert server.requests == []


async def test_ports_that_are_not_for_everybody(sdk: Flavour, server: StandIn) -> None:
    await sdk.do(sdk.Sandbox.create, network={"allow_public_traffic": False})
    assert server.requests[-1].json["network"] == {"allowPublicTraffic": False}


async def test_connect_by_id_and_again(sdk: Flavour, server: StandIn) -> None:
    server.on("POST", f"/v2/sandboxes/{ID}/connect", reply(200, SANDBOX), reply(201, SANDBOX))
    sandbox = await sdk.do(sdk.Sandbox.connect, ID, timeout=60)
    assert isinstance(sandbox, sdk.Sandbox)
    assert await sdk.do(sandbox.connect, on_resume="reboot") is sandbox
    assert [request.json for request in server.requests] == [{"timeout": 60}, {"memory": False}]


async def test_connect_to_nothing(sdk: Flavour, server: StandIn) -> None:
    with pytest.raises(emberbox.SandboxNotFoundException, match="nothing"):
        await sdk.do(sdk.Sandbox.connect, "nothing")
    with pytest.raises(emberbox.InvalidArgumentException, match="on_resume"):
        await sdk.do(sdk.Sandbox.connect, ID, on_resume="x")


async def test_kill_in_all_its_forms(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on("DELETE", f"/sandboxes/{ID}", reply(204))
    assert await sdk.do(sandbox.kill) is True
    assert await sdk.do(sdk.Sandbox.kill, ID) is True
    assert await sdk.do(sdk.Sandbox.kill, sandbox) is True
    assert await sdk.do(sdk.Sandbox.kill, "other") is False


async def test_set_timeout(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on("POST", f"/sandboxes/{ID}/timeout", reply(204))
    await sdk.do(sandbox.set_timeout, 5)
    await sdk.do(sdk.Sandbox.set_timeout, ID, 6)
    assert [r.json for r in server.sent(f"/sandboxes/{ID}/timeout")] == [
        {"timeout": 5},
        {"timeout": 6},
    ]
    with pytest.raises(emberbox.SandboxNotFoundException):
        await sdk.do(sdk.Sandbox.set_timeout, "other", 5)


async def test_get_info(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on("GET", f"/sandboxes/{ID}", reply(200, DETAIL))
    info = await sdk.do(sandbox.get_info)
    assert info == await sdk.do(sdk.Sandbox.get_info, ID)
    assert info.started_at == datetime(2026, 8, 21, 10, 0, 0, 123456, UTC)
    assert (info.name, info.cpu_count, info.memory_mb) == ("base", 2, 512)
    assert info.state is SandboxState.RUNNING
    assert info.metadata == {"k": "v"}
    assert info.lifecycle == {"on_timeout": "kill", "auto_resume": False}
    assert info.network == {
        "allow_public_traffic": False,
        "allow_out": ["example.com"],
        "egress_proxy": {"address": "p:1080", "username": "u", "tls": {"server_name": "p"}},
    }
    assert info.envd_unresponsive_at_pause is True
    with pytest.raises(emberbox.SandboxNotFoundException):
        await sdk.do(sdk.Sandbox.get_info, "other")


async def test_options_of_one_call(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on("GET", f"/sandboxes/{ID}", reply(200, DETAIL))
    await sdk.do(sandbox.get_info, api_key="another")
    assert server.requests[-1].headers["x-api-key"] == "another"


async def test_list_page_by_page(sdk: Flavour, server: StandIn) -> None:
    server.on("GET", "/v2/sandboxes", reply(200, [DETAIL], x_next_token="more"), reply(200, []))
    query = SandboxQuery(
        metadata={"a b": "c/d"},
        state=[SandboxState.RUNNING, SandboxState.PAUSED],
        started_after=datetime(2026, 1, 1, tzinfo=UTC),
        template="base",
    )
    paginator = sdk.Sandbox.list(query=query, limit=1, order="asc")
    assert paginator.has_next
    assert [info.sandbox_id for info in await sdk.do(paginator.next_items)] == [ID]
    assert paginator.next_token == "more"
    assert await sdk.do(paginator.next_items) == []
    assert not paginator.has_next
    with pytest.raises(emberbox.SandboxException, match="No more items"):
        await sdk.do(paginator.next_items)
    first, second = (request.query for request in server.requests)
    assert first["metadata"] == "a%2520b=c%2Fd"
    assert first["state"] == "running,paused"
    assert datetime.fromisoformat(first["startedAfter"]) == query.started_after
    assert (first["limit"], first["order"], first["template"]) == ("1", "asc", "base")
    assert second["nextToken"] == "more"


async def test_list_with_an_unknown_order(sdk: Flavour, server: StandIn) -> None:
    with pytest.raises(emberbox.InvalidArgumentException, match="order"):
        await sdk.do(sdk.Sandbox.list(order="up").next_items)


async def test_a_sandbox_is_killed_at_the_end_of_its_block(sdk: Flavour, server: StandIn) -> None:
    server.on("DELETE", f"/sandboxes/{ID}", reply(204))
    if sdk.is_async:
        async with await sdk.Sandbox.create() as sandbox:
            assert sandbox.sandbox_id == ID
    else:

        def block() -> None:
            with sdk.Sandbox.create() as sandbox:
                assert sandbox.sandbox_id == ID

        await asyncio.to_thread(block)
    assert server.requests[-1].method == "DELETE"


async def test_a_logger_gets_requests_and_answers(
    sdk: Flavour, server: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "mine"):
        await sdk.do(sdk.Sandbox.create, logger=logging.getLogger("mine"))
    assert caplog.messages == [f"Request POST {server.url}/v2/sandboxes", "Response 201"]


async def test_connections_are_kept(sdk: Flavour, server: StandIn) -> None:
    for _ in range(3):
        await sdk.do(sdk.Sandbox.create)
    assert server.connections == 1
