"""A host that nobody reaches: for a moment, for long, and for ever."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from emberbox import Sandbox, SandboxException, ServiceBusyException
from tests.stack import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.hosts import Host
    from tests.cluster.topology import Cluster

pytestmark = [pytest.mark.vm, pytest.mark.exhaustive, pytest.mark.timeout(900)]

SILENT_AFTER = 30
"""Seconds; the default of EMBERBOX_NODE_SILENT_AFTER."""
BACK_SECONDS = 30


@pytest.fixture
def placed(cluster: Cluster) -> Iterator[tuple[Sandbox, Host]]:
    """A sandbox, and the host that it is on."""
    sandbox = Sandbox.create(timeout=600, **cluster.sdk)
    yield sandbox, cluster.host_of(sandbox.sandbox_id)
    sandbox.kill()


def detail(cluster: Cluster, sandbox: Sandbox) -> dict[str, Any]:
    """What the API says of it."""
    headers = {"X-API-Key": cluster.sdk["api_key"]}
    url = f"{cluster.api_url}/sandboxes/{sandbox.sandbox_id}"
    answer: dict[str, Any] = httpx2.get(url, headers=headers).json()
    return answer


def echoes(sandbox: Sandbox) -> bool:
    try:
        return sandbox.commands.run("echo here", request_timeout=10).stdout == "here\n"
    except SandboxException:
        return False


def test_cut_for_20_seconds(cluster: Cluster, placed: tuple[Sandbox, Host]) -> None:
    sandbox, host = placed
    with host.cut():
        ends = time.monotonic() + 20
        while time.monotonic() < ends:
            assert "unreachableSince" not in detail(cluster, sandbox)
            time.sleep(1)
        other = Sandbox.create(timeout=60, **cluster.sdk)
        assert cluster.host_of(other.sandbox_id) is not host
        other.kill()
    wait_until(lambda: echoes(sandbox), BACK_SECONDS)
    assert detail(cluster, sandbox)["state"] == "running"
    assert "unreachableSince" not in detail(cluster, sandbox)


def test_cut_for_2_minutes(cluster: Cluster, placed: tuple[Sandbox, Host]) -> None:
    sandbox, host = placed
    sandbox.files.write("/home/user/kept", "before")
    short = make_on(cluster, host, timeout=50)
    with host.cut():
        began = time.monotonic()
        wait_until(lambda: "unreachableSince" in detail(cluster, sandbox), SILENT_AFTER + 15)
        assert "unreachable" in cluster.emberbox("nodes")
        assert cluster.state_of(short.sandbox_id) == "running"
        with pytest.raises(SandboxException, match="does not answer"):
            sandbox.commands.run("true", request_timeout=10)
        with pytest.raises(ServiceBusyException, match="does not answer"):
            sandbox.set_timeout(900)
        # The deadline is the lease: after it and the grace the quota is free again.
        wait_until(lambda: cluster.state_of(short.sandbox_id) == "expired", 90)
        while time.monotonic() - began < 120:
            assert sandbox.sandbox_id in cluster.records()
            time.sleep(1)
    wait_until(lambda: "unreachableSince" not in detail(cluster, sandbox), BACK_SECONDS)
    wait_until(lambda: echoes(sandbox), BACK_SECONDS)
    assert sandbox.files.read("/home/user/kept") == "before"
    # The host has kept to its side of the lease.
    assert short.sandbox_id not in host.running()
    wait_until(lambda: cluster.records() == cluster.catalog() == cluster.on_hosts(), 60)


def test_forgotten_for_good(cluster: Cluster, placed: tuple[Sandbox, Host]) -> None:
    sandbox, host = placed
    with host.cut():
        with pytest.raises(AssertionError, match="was heard"):
            cluster.emberbox("node", "forget", host.node_id)
        wait_until(lambda: "unreachableSince" in detail(cluster, sandbox), SILENT_AFTER + 15)
        assert "forgotten with 1 sandboxes" in cluster.emberbox("node", "forget", host.node_id)
        assert sandbox.sandbox_id not in cluster.records()
        assert not sandbox.is_running()
    # It comes back, and what it still runs is over.
    wait_until(lambda: host.node_id in cluster.nodes(), BACK_SECONDS)
    wait_until(lambda: host.running() == {}, 60)


def test_paused_here_and_resumed_there(cluster: Cluster, placed: tuple[Sandbox, Host]) -> None:
    sandbox, host = placed
    sandbox.files.write("/home/user/kept", "before")
    handle = sandbox.commands.run("sleep 1000", background=True)
    sandbox.pause()
    with host.cut():
        began = time.monotonic()
        while True:
            try:
                sandbox.connect(timeout=600)
                break
            except (SandboxException, ServiceBusyException):
                assert time.monotonic() - began < SILENT_AFTER + 30
                time.sleep(1)
        other = cluster.host_of(sandbox.sandbox_id)
        assert other is not host
        assert sandbox.files.read("/home/user/kept") == "before"
        # The very process: the hosts have the same build of the template.
        assert handle.pid in [one.pid for one in sandbox.commands.list()]
    wait_until(host.ready, BACK_SECONDS)
    wait_until(lambda: cluster.records() == cluster.catalog() == cluster.on_hosts(), 60)
    assert cluster.host_of(sandbox.sandbox_id) is other


def make_on(cluster: Cluster, host: Host, **options: Any) -> Sandbox:
    """A sandbox on this host; those that land elsewhere are killed again."""
    for _ in range(12):
        sandbox = Sandbox.create(**options, **cluster.sdk)
        if cluster.host_of(sandbox.sandbox_id) is host:
            return sandbox
        sandbox.kill()
    raise AssertionError(f"nothing is placed on {host.node_id}")
