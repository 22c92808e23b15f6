from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

import pytest

from emberbox.orchestrator.network.pool import SlotPool
from tests.integration.network.world import World, make_network, write_resolv_conf

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from emberbox.orchestrator.network.addresses import NodeNetwork
    from emberbox.orchestrator.network.dns_process import DnsProcess

    MakePool = Callable[..., SlotPool]


class NoForwarder:
    """In place of the DNS forwarder, whose start takes longer than most tests."""

    async def start(self) -> None:
        pass

    stop = leave = start


@pytest.fixture
async def world() -> AsyncIterator[World]:
    if os.geteuid() != 0:
        pytest.skip("needs root: it makes network namespaces")
    with World() as made:
        yield made


@pytest.fixture
def resolv_conf(tmp_path: Path) -> Path:
    return write_resolv_conf(tmp_path, "127.0.0.53")


@pytest.fixture
def make_pool(world: World, tmp_path: Path, resolv_conf: Path) -> MakePool:
    """Pools that are not started. `dns`: with a forwarder."""

    def make(size: int = 1, network: NodeNetwork | None = None, *, dns: bool = False) -> SlotPool:
        made = SlotPool(
            network or make_network(),
            tmp_path / "state",
            size=size,
            host=world.host,
            resolv_conf=resolv_conf,
        )
        if not dns:
            made.dns = cast("DnsProcess", NoForwarder())
        return made

    return make


@pytest.fixture
async def pool(make_pool: MakePool) -> AsyncIterator[SlotPool]:
    """A pool without a DNS forwarder."""
    made = make_pool(size=2)
    await made.start()
    yield made
    await made.close(keep=set())


@pytest.fixture
async def dns_pool(make_pool: MakePool) -> AsyncIterator[SlotPool]:
    """A pool with its DNS forwarder."""
    made = make_pool(size=2, dns=True)
    await made.start()
    yield made
    await made.close(keep=set())
