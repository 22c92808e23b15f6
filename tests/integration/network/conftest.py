from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from emberbox.orchestrator.network.pool import SlotPool
from tests.integration.network.world import World, make_network

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
    # The forwarder is nobody when it reads the file.
    directory = tmp_path
    while directory != directory.parent and directory.stat().st_uid == os.getuid():
        if directory.stat().st_mode & 0o777 == 0o700:
            directory.chmod(0o711)
        directory = directory.parent
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 127.0.0.53\n")
    path.chmod(0o644)
    return path


@pytest.fixture
async def pool(world: World, tmp_path: Path, resolv_conf: Path) -> AsyncIterator[SlotPool]:
    made = SlotPool(
        make_network(), tmp_path / "state", size=2, host=world.host, resolv_conf=resolv_conf
    )
    await made.start()
    yield made
    await made.close(keep=set())
