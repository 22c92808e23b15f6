"""Reaching an upstream: tries, waits, and what is done about refusals."""

from __future__ import annotations

import asyncio
import socket

import pytest

from emberbox.proxying.connection import Outbox
from emberbox.proxying.dialing import Dialer, WhenRefused
from emberbox.proxying.errors import DialError
from emberbox.proxying.limits import Limits
from emberbox.proxying.resolving import Target
from tests.unit.proxying.peers import Backend, Connection


async def _hold(connection: Connection) -> None:
    await connection.ended()


def target(port: int, pool_key: tuple[str, int] | None = None) -> Target:
    return Target(
        address="127.0.0.1", port=port, sandbox_id="i0", sandbox_port=port, pool_key=pool_key
    )


class Scripted:
    """Answers refusals and opens the port at the given one."""

    def __init__(self, verdict: WhenRefused, backend_port: int = 0) -> None:
        self.verdict = verdict
        self.asked = 0
        self.port = backend_port
        self.server: asyncio.Server | None = None

    async def __call__(self, refused: Target) -> WhenRefused:
        self.asked += 1
        if self.port:
            self.server = await asyncio.start_server(
                lambda _r, w: w.close(), "127.0.0.1", self.port
            )
        assert refused.port
        return self.verdict


async def test_connects() -> None:
    backend = Backend(_hold)
    await backend.start()
    connection = await Dialer(Limits()).dial(target(backend.port), Outbox())
    connection.abort()
    await backend.stop()


@pytest.mark.parametrize("kept", [True, False])
async def test_kept_connections_end_when_nothing_is_heard_of_their_host(kept: bool) -> None:
    """What the kernel then does takes a host of its own: tests/cluster/test_link.py."""
    backend = Backend(_hold)
    await backend.start()
    wanted = target(backend.port, ("e0", backend.port) if kept else None)
    connection = await Dialer(Limits()).dial(wanted, Outbox())
    assert connection._transport is not None
    sock = connection._transport.get_extra_info("socket")
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == kept
    limit = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    assert (20_000 < limit <= 30_000) == kept
    connection.abort()
    await backend.stop()


async def test_dials_again_after_the_hook_opened_the_port(free_port: int) -> None:
    opening = Scripted(WhenRefused.DIAL_AGAIN, free_port)
    connection = await Dialer(Limits(), connect_refused=opening).dial(target(free_port), Outbox())
    connection.abort()
    assert opening.server is not None
    opening.server.close()
    await opening.server.wait_closed()


async def test_gives_up_when_the_hook_says_so(free_port: int) -> None:
    hook = Scripted(WhenRefused.GIVE_UP)
    dialer = Dialer(Limits(), waits=(60.0,), connect_refused=hook)
    with pytest.raises(DialError):
        await dialer.dial(target(free_port), Outbox())


async def test_gives_up_when_the_port_stays_closed_after_the_hook(free_port: int) -> None:
    hook = Scripted(WhenRefused.DIAL_AGAIN)
    dialer = Dialer(Limits(), waits=(60.0,), connect_refused=hook)
    with pytest.raises(DialError):
        await dialer.dial(target(free_port), Outbox())
    assert hook.asked == 1


async def test_waits_between_tries(free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    hook = Scripted(WhenRefused.WAIT)
    dialer = Dialer(Limits(), waits=(0.01, 0.02), connect_refused=hook)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(DialError):
        await dialer.dial(target(free_port), Outbox())
    assert waited == [0.01, 0.02]
    assert hook.asked == 1
