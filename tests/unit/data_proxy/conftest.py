"""Workers under test run on the event loop they are served with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import uvloop

from tests.unit.data_proxy.stage import Stage

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable, Mapping


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """uvloop, as in the programs."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """Guests on loopback addresses of their own, and a worker and an edge in front of them."""
    stage = Stage()
    yield stage
    await stage.close()
