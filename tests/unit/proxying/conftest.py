"""The engine under test runs on the event loop it is served with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import uvloop

from tests.unit.proxying.peers import Bench

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable, Mapping


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """uvloop, as in the programs."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """Backends and engines that are gone when the test ends."""
    bench = Bench()
    yield bench
    await bench.close()
