"""One Postgres and one Redis for all tests of a session that want them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import pytest

from tests.services import Postgres, Redis, Service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import FreePorts

S = TypeVar("S", bound=Service)


@pytest.fixture(scope="session")
def postgres(_session_leaves_nothing: None, free_ports: FreePorts) -> Iterator[Postgres]:
    """A server; who uses it makes a database of their own."""
    (port,) = free_ports(postgres=1)
    yield from _running(Postgres(port))


@pytest.fixture(scope="session")
def _redis(_session_leaves_nothing: None, free_ports: FreePorts) -> Iterator[Redis]:
    (port,) = free_ports(redis=1)
    yield from _running(Redis(port))


@pytest.fixture
def redis_server(_redis: Redis) -> Redis:
    """A server that runs and has nothing in it."""
    if not _redis.runs:
        _redis.start()
    _redis.command("FLUSHALL")
    return _redis


def _running(server: S) -> Iterator[S]:
    try:
        server.start()
        yield server
    finally:
        server.remove()
