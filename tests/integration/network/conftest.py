from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator.network.pool import SlotPool
from tests.integration.network.world import World, make_network, write_resolv_conf

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


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
async def pool(world: World, tmp_path: Path, resolv_conf: Path) -> AsyncIterator[SlotPool]:
    made = SlotPool(
        make_network(), tmp_path / "state", size=2, host=world.host, resolv_conf=resolv_conf
    )
    await made.start()
    yield made
    await made.close(keep=set())
