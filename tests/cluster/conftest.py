"""One cluster for all its tests."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.cluster.topology import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import FreePorts

# The smallest that boots: forty of them run on two cores.
_SETTINGS = {
    "EMBERBOX_TEMPLATE_VCPU": "1",
    "EMBERBOX_TEMPLATE_RAM_MB": "256",
    "EMBERBOX_TEMPLATE_DISK_MB": "1024",
    # Warm clones of three hosts would take the processors of this one machine.
    "EMBERBOX_POOL_SIZE": "0",
    "EMBERBOX_POOL_LEAST": "0",
    # So that the tests need not wait for the minute that each of them is by default.
    "EMBERBOX_LEASE_GRACE": "15",
    "EMBERBOX_ORPHAN_GRACE": "15",
}


@pytest.fixture(scope="session")
def cluster(
    _session_leaves_nothing: None,
    images: None,
    free_ports: FreePorts,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Cluster]:
    """Three API servers, two client proxies and three hosts, ready."""
    settings = {name: os.environ.get(name, value) for name, value in _SETTINGS.items()}
    made = Cluster(tmp_path_factory.mktemp("cluster"), free_ports, **settings)
    try:
        made.start()
        yield made
    finally:
        made.stop()
