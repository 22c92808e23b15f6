"""Calls of one datagram, answered by envd's own side of them."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from typing import TYPE_CHECKING, Any, cast

import pytest

from emberbox.envd.state import VERSION
from emberbox.orchestrator import envd_calls
from emberbox.orchestrator.envd_client import Identity
from emberbox.orchestrator.errors import GuestUnreachable
from tests.unit.envd.conftest import HOST, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.envd.conftest import Running

IDENTITY = Identity("iabc", "t", "e-2", "token", {})
SLOT = cast("Any", None)


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    with serving() as running:
        reach(monkeypatch, running.envd.settings.port)
        running.init(accessToken="token")
        running.system.done.clear()
        yield running


def reach(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    async def datagram_socket(*_arguments: object) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        made.bind((HOST, port))
        made.connect(("127.0.0.1", port))
        return made

    monkeypatch.setattr(envd_calls, "datagram_socket", datagram_socket)


@pytest.fixture
def by_http(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Identity, str]]:
    """What was told by HTTP instead."""
    told: list[tuple[Identity, str]] = []

    async def initialize(_slot: object, identity: Identity, _seconds: float, present: str) -> str:
        told.append((identity, present))
        return "by http"

    monkeypatch.setattr("emberbox.orchestrator.envd_client.initialize", initialize)
    return told


async def test_a_guest_that_goes_on_is_told(
    guest: Running, by_http: list[tuple[Identity, str]]
) -> None:
    assert await envd_calls.resume(SLOT, IDENTITY, 10, "token") == VERSION
    while guest.envd.state.lifecycle_id != "e-2":  # noqa: ASYNC110 - told to envd after the answer
        await asyncio.sleep(0.001)
    assert [name for name, _ in guest.system.done] == ["clock", "entropy"]
    assert by_http == []


async def test_a_clone_is_told_who_it_is(
    guest: Running, by_http: list[tuple[Identity, str]]
) -> None:
    identity = dataclasses.replace(IDENTITY, access_token="new", env_vars={"A": "é"})
    assert await envd_calls.initialize(SLOT, identity, 10, "token") == VERSION
    state = guest.envd.state
    assert (state.sandbox_id, state.lifecycle_id, state.access_token, state.env_vars) == (
        "iabc",
        "e-2",
        "new",
        {"A": "é"},
    )
    assert by_http == []


@pytest.mark.parametrize(
    ("identity", "present"),
    [
        (dataclasses.replace(IDENTITY, env_vars={"A": "b" * 1400}), "token"),
        (IDENTITY, "wrong"),
    ],
)
async def test_a_clone_that_a_datagram_does_not_reach_is_told_by_http(
    guest: Running, by_http: list[tuple[Identity, str]], identity: Identity, present: str
) -> None:
    assert await envd_calls.initialize(SLOT, identity, 10, present) == "by http"
    assert by_http == [(identity, present)]
    assert guest.system.done == []


async def test_disks_are_written(guest: Running) -> None:
    await envd_calls.sync(SLOT, 10)
    assert guest.system.done == []


@pytest.mark.parametrize(
    ("identity", "present"),
    [
        (dataclasses.replace(IDENTITY, env_vars={"A": "b"}), "token"),
        (dataclasses.replace(IDENTITY, access_token="new"), "token"),
        (dataclasses.replace(IDENTITY, access_token="wrong"), "wrong"),
    ],
)
async def test_what_is_more_than_a_datagram_can_tell_is_told_by_http(
    guest: Running, by_http: list[tuple[Identity, str]], identity: Identity, present: str
) -> None:
    assert await envd_calls.resume(SLOT, identity, 10, present) == "by http"
    assert by_http == [(identity, present)]
    assert guest.system.done == []


async def test_an_envd_that_knows_no_datagrams_is_told_by_http(
    by_http: list[tuple[Identity, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(envd_calls, "_CALL_SECONDS", 0.05)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        reach(monkeypatch, deaf.getsockname()[1])
        assert await envd_calls.resume(SLOT, IDENTITY, 10, "token") == "by http"
    assert by_http == [(IDENTITY, "token")]


async def test_it_asks_again_until_it_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envd_calls, "_ASK_AGAIN_SECONDS", 0.005)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as guest:
        guest.bind(("127.0.0.1", 0))
        reach(monkeypatch, guest.getsockname()[1])
        loop = asyncio.get_running_loop()
        asking = asyncio.create_task(envd_calls.sync(SLOT, 10))
        first = await loop.sock_recv(guest, 1024)
        again, host = await loop.sock_recvfrom(guest, 1024)
        assert first == again
        await loop.sock_sendto(guest, b"another\0\0", host)
        await loop.sock_sendto(guest, again[:8] + b"\0", host)
        await asking


async def test_a_guest_where_nobody_listens_yet_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(envd_calls, "_ASK_AGAIN_SECONDS", 0.005)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    reach(monkeypatch, port)
    asking = asyncio.create_task(envd_calls.sync(SLOT, 10))
    await asyncio.sleep(0.02)  # the kernel refuses meanwhile
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as guest:
        guest.bind(("127.0.0.1", port))
        loop = asyncio.get_running_loop()
        call, host = await loop.sock_recvfrom(guest, 1024)
        await loop.sock_sendto(guest, call[:8] + b"\0", host)
        await asking


async def test_a_guest_that_is_silent_or_refuses_is_told_of(
    guest: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(GuestUnreachable, match="refused"):
        await envd_calls._resume(SLOT, dataclasses.replace(IDENTITY, access_token="x"), 10)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        reach(monkeypatch, deaf.getsockname()[1])
        with pytest.raises(GuestUnreachable, match="does not answer"):
            await envd_calls.sync(SLOT, 0.02)
    assert guest.system.done == []
