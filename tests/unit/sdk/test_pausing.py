"""Pause, fork, snapshots and the lifecycle of a sandbox, in both flavours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import emberbox

from .conftest import SANDBOX, Flavour
from .stand_in import Answer, StandIn, reply

if TYPE_CHECKING:
    from emberbox.sdk.create_options import SandboxLifecycle

ID = SANDBOX["sandboxID"]
PAUSE = f"/sandboxes/{ID}/pause"
FORK = f"/sandboxes/{ID}/fork"
SNAPSHOTS = f"/sandboxes/{ID}/snapshots"
CHILD = {**SANDBOX, "sandboxID": "ichild", "envdAccessToken": "another"}


# The lifecycle


@pytest.mark.parametrize(
    ("lifecycle", "sent"),
    [
        ({}, {}),
        ({"on_timeout": None}, {}),
        ({"on_timeout": "kill", "auto_resume": False}, {"autoPause": False}),
        ({"on_timeout": {"action": "kill"}}, {"autoPause": False}),
        ({"on_timeout": "pause", "auto_resume": True}, {"autoPause": True}),
        ({"on_timeout": {"action": "pause"}}, {"autoPause": True}),
        (
            {"on_timeout": {"action": "pause", "mode": "full"}},
            {"autoPause": True, "autoPauseMemory": True},
        ),
        (
            {"on_timeout": {"action": "pause", "mode": "filesystem"}},
            {"autoPause": True, "autoPauseMemory": False},
        ),
        (
            {"on_timeout": {"action": "pause", "keep_memory": False}},
            {"autoPause": True, "autoPauseMemory": False},
        ),
    ],
)
async def test_the_lifecycle_of_a_create(
    sdk: Flavour, server: StandIn, lifecycle: SandboxLifecycle, sent: dict[str, object]
) -> None:
    await sdk.do(sdk.Sandbox.create, lifecycle=lifecycle)
    resume = lifecycle.get("auto_resume")
    enabled = {} if resume is None else {"autoResume": {"enabled": resume}}
    common = {"templateID": "base", "metadata": {}, "envVars": {}}
    assert server.requests[-1].json == {**common, **sent, **enabled}


@pytest.mark.parametrize(
    ("lifecycle", "named"),
    [
        ({"on_timeout": "sleep"}, "on_timeout must be pause or kill, got 'sleep'"),
        ({"on_timeout": {}}, r'on_timeout\["action"\] must be pause or kill, got None'),
        ({"on_timeout": {"action": "kill", "mode": "full"}}, "mode goes with .* pause only"),
        (
            {"on_timeout": {"action": "pause", "mode": "half"}},
            r'on_timeout\["mode"\] must be full or filesystem, got \'half\'',
        ),
        (
            {"on_timeout": {"action": "pause", "mode": "full", "keep_memory": True}},
            "not both",
        ),
        ({"auto_resume": True}, "auto_resume needs on_timeout to be pause"),
        (
            {"on_timeout": {"action": "pause", "mode": "filesystem"}, "auto_resume": True},
            "auto_resume needs the memory",
        ),
    ],
)
async def test_a_lifecycle_that_cannot_be(
    sdk: Flavour, server: StandIn, lifecycle: SandboxLifecycle, named: str
) -> None:
    with pytest.raises(emberbox.InvalidArgumentException, match=named):
        await sdk.do(sdk.Sandbox.create, lifecycle=lifecycle)
    assert server.requests == []


# Pausing


async def test_pause_sends_what_is_given_and_no_more(
    sdk: Flavour, server: StandIn, sandbox: Any
) -> None:
    server.on("POST", PAUSE, reply(204))
    assert await sdk.do(sandbox.pause) is True
    assert await sdk.do(sandbox.pause, mode="filesystem", strict=True) is True
    assert await sdk.do(sdk.Sandbox.pause, ID, False) is True
    assert await sdk.do(sandbox.beta_pause, mode="full") is True
    assert await sdk.do(sdk.Sandbox.beta_pause, ID) is True
    assert [request.json for request in server.sent(PAUSE)] == [
        {},
        {"memory": False, "requireHealthyGuest": True},
        {"memory": False},
        {"memory": True},
        {},
    ]


async def test_what_pause_answers(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on("POST", PAUSE, reply(409, {"code": 409, "message": "already paused"}))
    assert await sdk.do(sandbox.pause) is False
    server.on("POST", PAUSE, reply(500, {"code": 500, "message": "no"}))
    with pytest.raises(emberbox.SandboxException, match="500: no"):
        await sdk.do(sandbox.pause)
    with pytest.raises(emberbox.SandboxNotFoundException, match="other"):
        await sdk.do(sdk.Sandbox.pause, "other")
    for wrong in ({"mode": "half"}, {"mode": "full", "keep_memory": True}):
        with pytest.raises(emberbox.InvalidArgumentException, match="mode"):
            await sdk.do(sandbox.pause, **wrong)


async def test_memory_that_cannot_be_restored(sdk: Flavour, server: StandIn) -> None:
    code = emberbox.GuestUnresponsiveException.code
    refusal = reply(409, {"code": 409, "message": "hung", "error_code": code})
    server.on("POST", f"/v2/sandboxes/{ID}/connect", refusal)
    with pytest.raises(emberbox.GuestUnresponsiveException, match="on_resume='reboot'"):
        await sdk.do(sdk.Sandbox.connect, ID)


# Forks


async def test_fork(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    errors = [
        ({"code": 404, "message": "gone"}, emberbox.NotFoundException, "404: gone"),
        ({"code": 429, "message": "quota"}, emberbox.RateLimitException, "quota"),
        ({"code": 503, "message": "full"}, emberbox.ServiceBusyException, "full"),
        ({"code": 500, "message": "boom"}, emberbox.SandboxException, "500: boom"),
    ]
    results = [{"sandbox": CHILD}, *({"error": error} for error, *_ in errors), {}]
    server.on("POST", FORK, reply(201, results))
    child, *refused, empty = await sdk.do(sandbox.fork, timeout=60, count=6)
    assert server.requests[-1].json == {"timeout": 60, "count": 6}
    assert isinstance(child, sdk.Sandbox)
    assert child.sandbox_id == "ichild"
    assert child._access.envd_access_token == "another"
    for error, (_, kind, text) in zip(refused, errors, strict=True):
        assert type(error) is kind
        assert text in str(error)
    assert isinstance(empty, emberbox.SandboxException)


async def test_fork_by_id(sdk: Flavour, server: StandIn) -> None:
    server.on("POST", FORK, reply(201, [{"sandbox": CHILD}]))
    (child,) = await sdk.do(sdk.Sandbox.fork, ID)
    assert server.requests[-1].json == {}
    assert isinstance(child, sdk.Sandbox)
    with pytest.raises(emberbox.SandboxNotFoundException, match="other"):
        await sdk.do(sdk.Sandbox.fork, "other")


@pytest.mark.parametrize("count", [0, 101, -1, 1.5, True, "2"])
async def test_a_count_that_cannot_be(
    sdk: Flavour, server: StandIn, sandbox: Any, count: object
) -> None:
    asked = len(server.requests)
    with pytest.raises(emberbox.InvalidArgumentException, match="between 1 and 100"):
        await sdk.do(sandbox.fork, count=count)
    assert len(server.requests) == asked


# Snapshots


async def test_snapshots(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    made = {"snapshotID": "team/kept:v1", "names": ["team/kept"]}
    server.on("POST", SNAPSHOTS, reply(201, made))
    snapshot = await sdk.do(sandbox.create_snapshot, "kept:v1", mode="filesystem")
    assert snapshot == emberbox.SnapshotInfo("team/kept:v1", ["team/kept"])
    assert await sdk.do(sdk.Sandbox.create_snapshot, ID) == snapshot
    assert [request.json for request in server.sent(SNAPSHOTS)] == [
        {"name": "kept:v1", "memory": False},
        {},
    ]
    with pytest.raises(emberbox.SandboxNotFoundException, match="other"):
        await sdk.do(sdk.Sandbox.create_snapshot, "other")


async def test_snapshots_page_by_page(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    one = {"snapshotID": "t:default", "names": []}
    server.on("GET", "/snapshots", reply(200, [one], x_next_token="more"), reply(200, []))
    pages = sandbox.list_snapshots(limit=1, name="kept")
    assert await sdk.do(pages.next_items) == [emberbox.SnapshotInfo("t:default")]
    assert await sdk.do(pages.next_items) == []
    with pytest.raises(emberbox.SandboxException, match="No more items"):
        await sdk.do(pages.next_items)
    await sdk.do(sdk.Sandbox.list_snapshots().next_items)
    assert [request.query for request in server.sent("/snapshots")] == [
        {"sandboxID": ID, "name": "kept", "limit": "1"},
        {"sandboxID": ID, "name": "kept", "limit": "1", "nextToken": "more"},
        {},
    ]


async def test_deleting_a_snapshot(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on("DELETE", "/templates/team%2Fkept%3Av1", reply(204))
    assert await sdk.do(sdk.Sandbox.delete_snapshot, "team/kept:v1") is True
    assert await sdk.do(sandbox.delete_snapshot, "team/other") is False


@pytest.mark.parametrize(
    ("path", "call"),
    [
        (FORK, lambda sandbox: sandbox.fork),
        (SNAPSHOTS, lambda sandbox: sandbox.create_snapshot),
    ],
)
async def test_what_would_be_done_twice_is_sent_once(
    sdk: Flavour, server: StandIn, sandbox: Any, path: str, call: Any
) -> None:
    server.on("POST", path, Answer(body=[], end="reset"))
    with pytest.raises(emberbox.ApiUnreachableException):
        await sdk.do(call(sandbox))
    assert len(server.sent(path)) == 1
