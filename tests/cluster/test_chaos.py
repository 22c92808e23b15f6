"""Many sandboxes are used while programs are killed at random: none is lost, none is left over.

EMBERBOX_CLUSTER_SANDBOXES and EMBERBOX_CLUSTER_SECONDS set how many and how long, and
EMBERBOX_CLUSTER_SEED which order.
"""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import pytest

from emberbox import Sandbox, SandboxException, ServiceBusyException
from tests.stack import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cluster.topology import Cluster
    from tests.programs import Program

log = logging.getLogger(__name__)

SANDBOXES = int(os.environ.get("EMBERBOX_CLUSTER_SANDBOXES", "40"))
SECONDS = int(os.environ.get("EMBERBOX_CLUSTER_SECONDS", "180"))
SEED = int(os.environ.get("EMBERBOX_CLUSTER_SEED", str(random.randrange(1_000_000))))
_WORKERS = 8
_TRIES = 3
_TRY_SECONDS = 10
_REBUILT_SECONDS = 30
_AGREE_SECONDS = 150
_LIFE = 3600

pytestmark = [pytest.mark.vm, pytest.mark.exhaustive, pytest.mark.timeout(SECONDS + 1800)]


class Chaos:
    """Kills one program at a time and says what it did."""

    def __init__(self, cluster: Cluster, draw: random.Random) -> None:
        self.done: list[str] = []
        self._cluster = cluster
        self._draw = draw
        self._waiting: list[str] = []
        self._kinds: dict[str, Callable[[], str]] = {
            "api-server": lambda: self._restart(cluster.api_servers),
            "client-proxy": lambda: self._restart(cluster.proxies),
            "orchestrator": lambda: self._restart([host.program for host in cluster.hosts]),
            "data-proxy": self._data_proxy,
            "redis-flush": lambda: cluster.redis.command("FLUSHALL"),
            "redis": lambda: self._service("redis"),
            "postgres": lambda: self._service("postgres"),
            "nginx": lambda: self._service("nginx"),
        }

    def strike(self) -> str:
        """Each kind once in a random order, then each once more, …"""
        if not self._waiting:
            self._waiting = self._draw.sample(sorted(self._kinds), len(self._kinds))
        kind = self._waiting.pop()
        self._kinds[kind]()
        self.done.append(kind)
        return kind

    def _restart(self, programs: list[Program]) -> str:
        program = self._draw.choice(programs)
        program.end(signal.SIGKILL)
        program.start()
        return program.name

    def _data_proxy(self) -> str:
        host = self._draw.choice(self._cluster.hosts)
        for pid in data_proxies(host.home.orchestrator):
            os.kill(pid, signal.SIGKILL)
        return host.node_id

    def _service(self, name: str) -> str:
        service = getattr(self._cluster, name)
        service.end(service.at_once)
        service.start()
        return name


def data_proxies(orchestrator: Path) -> list[int]:
    """The workers of a host's data proxy."""
    records = (orchestrator / "data-proxy").glob("worker-*.json")
    return [json.loads(record.read_text())["process"]["pid"] for record in records]


def answers(sandbox: Sandbox) -> tuple[int, str]:
    """In which try it echoed, 0 for none, and what the others met."""
    met = ""
    for number in range(1, _TRIES + 1):
        word = f"{sandbox.sandbox_id}-{time.monotonic()}"
        began = time.monotonic()
        try:
            said = sandbox.commands.run(f"echo {word}", request_timeout=_TRY_SECONDS).stdout
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            met = f"{type(error).__name__}: {error}"
            # A refusal comes at once: what was killed needs a moment.
            time.sleep(max(0.0, 3 - (time.monotonic() - began)))
        else:
            assert said == f"{word}\n"
            return number, met
    return 0, met


def agree(cluster: Cluster) -> bool:
    """Whether records, catalog and hosts tell of the same runs."""
    try:
        on_hosts = cluster.on_hosts()
    except grpc.RpcError:
        return False
    return cluster.records() == cluster.catalog() == on_hosts


def test_nothing_is_lost_and_nothing_is_left(cluster: Cluster) -> None:
    draw = random.Random(SEED)
    chaos, refused, tries = Chaos(cluster, draw), Counter[str](), Counter[int]()
    cluster.emberbox("team", "limits", "default", "--concurrent-sandboxes", str(SANDBOXES + 1))
    with ThreadPoolExecutor(_WORKERS) as pool:
        made = list(
            pool.map(lambda _: Sandbox.create(timeout=_LIFE, **cluster.sdk), range(SANDBOXES))
        )
        log.info("seed %s: %s sandboxes", SEED, SANDBOXES)
        ends = time.monotonic() + SECONDS
        while time.monotonic() < ends:
            kind = chaos.strike()
            struck = time.monotonic()
            refused.update(_come_and_go(cluster))
            results = list(pool.map(answers, made))
            tries.update(number for number, _ in results)
            bad = [
                (one.sandbox_id, met) for one, (n, met) in zip(made, results, strict=True) if not n
            ]
            assert not bad, f"after {kind} (seed {SEED}, {chaos.done}): {bad}"
            if kind in ("redis", "redis-flush"):
                wait_until(lambda: _all_in_catalog(cluster, made), _REBUILT_SECONDS)
            log.info("%s: all answered after %.1f s", kind, time.monotonic() - struck)
    wait_until(lambda: agree(cluster), _AGREE_SECONDS)
    mine = {one.sandbox_id for one in made}
    assert set(cluster.records()) == mine
    log.info("struck %s, tries %s, refused %s", Counter(chaos.done), tries, refused)
    _kill_all(cluster, made)


def _come_and_go(cluster: Cluster) -> list[str]:
    """A create and a kill in the middle of it; what they were refused with."""
    try:
        sandbox = Sandbox.create(timeout=_LIFE, request_timeout=30, **cluster.sdk)
    except (SandboxException, ServiceBusyException) as error:
        return [type(error).__name__]
    for _ in range(20):
        try:
            sandbox.kill()
        except (SandboxException, ServiceBusyException) as error:
            last = type(error).__name__
            time.sleep(1)
        else:
            return []
    return [f"not killed: {last}"]


def _all_in_catalog(cluster: Cluster, made: list[Sandbox]) -> bool:
    catalog = cluster.catalog()
    return all(one.sandbox_id in catalog for one in made)


def _kill_all(cluster: Cluster, made: list[Sandbox]) -> None:
    with ThreadPoolExecutor(_WORKERS) as pool:
        list(pool.map(lambda one: one.kill(), made))
    wait_until(lambda: agree(cluster) and not cluster.records(), _AGREE_SECONDS)
