"""A cluster does what one machine does, through its load balancers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from emberbox import Sandbox
from tests.stack import wait_until

if TYPE_CHECKING:
    from tests.cluster.topology import Cluster

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]


def test_sandboxes_on_every_host(cluster: Cluster) -> None:
    with ThreadPoolExecutor(6) as pool:
        sandboxes = list(pool.map(lambda _: Sandbox.create(timeout=300, **cluster.sdk), range(6)))

    def on_every_host() -> bool:
        """An API server hears of a new host within seconds, and then fills it first."""
        used = {cluster.host_of(one.sandbox_id).node_id for one in sandboxes}
        if len(used) < len(cluster.hosts):
            sandboxes.append(Sandbox.create(timeout=300, **cluster.sdk))
        return len(used) == len(cluster.hosts)

    try:
        wait_until(on_every_host, 60)
        for sandbox in sandboxes:
            said = sandbox.commands.run(f"echo {sandbox.sandbox_id}").stdout
            assert said == f"{sandbox.sandbox_id}\n"
        assert cluster.catalog() == cluster.records() == cluster.on_hosts()
    finally:
        for sandbox in sandboxes:
            sandbox.kill()
    assert cluster.on_hosts() == {}
