"""A host, an API server over it, and a client with the first key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .harness import World, running, settings_for
from .standin import Standin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def host() -> AsyncIterator[Standin]:
    """A stand-in orchestrator that serves."""
    standin = Standin()
    await standin.start()
    yield standin
    await standin.stop()


@pytest.fixture
async def world(tmp_path: Path, host: Standin) -> AsyncIterator[World]:
    """An API server over `host`."""
    async with running(settings_for(tmp_path, host), host) as made:
        yield made
