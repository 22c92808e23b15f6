"""What sandboxes' networks cost: a slot on the create path, and rules on every packet.

All of it runs in namespaces made for it. For throughput and latency a guest's network stack is in a
namespace, too, and a veth pair takes the place of its tap, so that what is measured is the kernel
and not a VMM. One path has the rules of slot and host, the other routes the same packets through as
many namespaces without any rule; they take turns.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import os
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.figures import Clock, at_least_one, percentiles, progress
from emberbox.orchestrator.network import netns, nft, node, rules, slots
from emberbox.orchestrator.network.addresses import (
    GATEWAY_ADDRESS,
    GATEWAY_MAC,
    GUEST_ADDRESS,
    GUEST_MAC,
    GUEST_PREFIX,
    NETNS_DIRECTORY,
    TAP,
    NodeNetwork,
)
from emberbox.orchestrator.network.links import Links
from emberbox.orchestrator.network.policy import CLOSED, OPEN, EgressPolicy
from emberbox.orchestrator.network.pool import SlotPool
from scripts.fake_internet import HOST_PUBLIC, PUBLIC, FakeInternet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emberbox.orchestrator.network.addresses import Slot

_TAG = f"b{os.getpid() % 4096:03x}"
_POOLED = NodeNetwork(f"{_TAG}p", IPv4Network("10.77.0.0/22"))
_FRESH = NodeNetwork(f"{_TAG}f", IPv4Network("10.78.0.0/22"))
_PORT = 9000
_CHUNK = 1 << 20
_POLICY = EgressPolicy(deny=tuple(IPv4Network((11 << 24 | n << 9, 24)) for n in range(100)))
"""A hundred entries, for look-ups that have something to look through."""


def main(arguments: list[str]) -> dict[str, Any]:
    """Measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks network")
    parser.add_argument("--slots", type=at_least_one, default=100)
    parser.add_argument("--turns", type=at_least_one, default=10)
    parser.add_argument("--mib", type=at_least_one, default=512, help="sent in each turn")
    parser.add_argument("--trips", type=at_least_one, default=2000, help="in each turn")
    options = parser.parse_args(arguments)
    with FakeInternet(_TAG) as internet, tempfile.TemporaryDirectory() as state:
        of_slots = asyncio.run(measure_slots(internet, Path(state), options.slots))
    with ExitStack() as held:
        paths = [held.enter_context(_path(ruled=ruled)) for ruled in (False, True)]
        of_packets = measure_packets(paths, options.turns, options.mib, options.trips)
    return {**of_slots, **of_packets, "runs": vars(options)}


# Slots


async def measure_slots(internet: FakeInternet, state: Path, count: int) -> dict[str, Any]:
    """A slot that was ready, one made while the caller waits, a change of policy, and a reset."""
    pooled, fresh, policy, ended, reset = (_Series() for _ in range(5))
    ready = SlotPool(_POOLED, state / "pooled", size=1, host=internet.host)
    empty = SlotPool(_FRESH, state / "fresh", size=0, host=internet.host)
    for pool in (ready, empty):
        await pool.start()
    for number in range(count):
        while not ready.ready:  # noqa: ASYNC110 - what is looked at has no event
            await asyncio.sleep(0.001)
        with pooled.timed():
            slot = await ready.acquire(OPEN)
        with policy.timed():
            await ready.set_policy(slot, CLOSED)
        with ended.timed():
            await ready.end_forbidden(slot, CLOSED)
        with fresh.timed():
            spare = await empty.acquire(OPEN)
        await empty.release(spare)
        with reset.timed():
            await ready.release(slot)
        progress("slots", number + 1, count)
    for pool in (ready, empty):
        await pool.close(keep=set())
    return {
        "slot_ms": {"pooled": pooled.figures["p50"], "fresh": fresh.figures["p50"]},
        "slot_pooled_ms": pooled.figures,
        "slot_fresh_ms": fresh.figures,
        "slot_reset_ms": reset.figures,
        "policy_ms": policy.figures,
        "end_connections_ms": ended.figures,
    }


@dataclass
class _Series:
    """Times of one kind, in milliseconds."""

    taken: list[float] = field(default_factory=list)

    @contextmanager
    def timed(self) -> Iterator[None]:
        clock = Clock()
        with clock.running():
            yield
        self.taken.append(clock.ms)

    @property
    def figures(self) -> dict[str, float]:
        return percentiles(self.taken)


# Packets


@dataclass
class _Path:
    """A guest's namespace, and a listener on the internet behind it."""

    name: str
    guest: Path
    listener: socket.socket
    rates: list[float] = field(default_factory=list)
    trips: list[float] = field(default_factory=list)


def measure_packets(paths: list[_Path], turns: int, mib: int, trips: int) -> dict[str, Any]:
    """Throughput, and the time there and back."""
    for turn in range(turns):
        for path in paths:
            path.rates.append(_megabytes_a_second(path, mib))
            path.trips.append(_round_trip_ms(path, trips))
        progress("turns", turn + 1, turns)
    rates = {path.name: statistics.median(path.rates) for path in paths}
    trip = {path.name: statistics.median(path.trips) for path in paths}
    return {
        "throughput_mb_s": {name: round(rate) for name, rate in rates.items()},
        "added_ms": round(trip["rules"] - trip["plain"], 4),
        "round_trip_ms": {name: round(value, 4) for name, value in trip.items()},
    }


@contextmanager
def _path(*, ruled: bool) -> Iterator[_Path]:
    name = "rules" if ruled else "plain"
    network = NodeNetwork(f"{_TAG}{name[0]}", _POOLED.address_range)
    slot = network.slot(1)
    guest = NETNS_DIRECTORY / f"{network.tag}-guest"
    with FakeInternet(network.tag) as internet, tempfile.TemporaryDirectory() as state:
        netns.run_in(internet.host, lambda: node.prepare(network, Path(state)))
        slots.make(network, slot, internet.host)
        netns.create(guest.name)
        with guest.open() as inside:
            netns.run_in(slot.netns_path, lambda: _replace_tap(inside.fileno()))
        netns.run_in(guest, _be_guest)
        if ruled:
            text = rules.slot_rules(network, slot, _POLICY)
            netns.run_in(slot.netns_path, lambda: nft.load(text))
        else:
            _route_plainly(internet, slot)
        listener = internet.listen(internet.internet, PUBLIC, _PORT)
        listener.setblocking(True)
        try:
            yield _Path(name, guest, listener)
        finally:
            netns.delete(guest.name)
            slots.destroy(slot, internet.host)


def _replace_tap(guest_fd: int) -> None:
    with Links() as links:
        links.delete(TAP)
        links.add_veth(TAP, "eth0", guest_fd)
        index = links.index(TAP)
        links.up(index, GATEWAY_MAC)
        links.add_address(index, GATEWAY_ADDRESS, GUEST_PREFIX)
        links.add_neighbour(index, GUEST_ADDRESS, GUEST_MAC)


def _be_guest() -> None:
    with Links() as links:
        index = links.index("eth0")
        links.up(index, GUEST_MAC)
        links.add_address(index, GUEST_ADDRESS, GUEST_PREFIX)
        links.add_default_route(index, GATEWAY_ADDRESS)


def _route_plainly(internet: FakeInternet, slot: Slot) -> None:
    """No rules: the guest's own address is known all the way."""
    guests = f"{GUEST_ADDRESS}/32"
    for where, command in (
        (slot.netns_path, "nft flush ruleset"),
        (internet.host, "nft flush ruleset"),
        (internet.host, f"ip route add {guests} via {slot.address}"),
        (internet.internet, f"ip route add {guests} via {HOST_PUBLIC}"),
    ):
        netns.run_in(where, functools.partial(subprocess.run, command.split(), check=True))


def _connected(path: _Path) -> tuple[socket.socket, socket.socket]:
    client = netns.run_in(path.guest, socket.socket)
    client.connect((PUBLIC, _PORT))
    server, _ = path.listener.accept()
    for end in (client, server):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client, server


def _megabytes_a_second(path: _Path, mib: int) -> float:
    client, server = _connected(path)
    buffer = bytearray(_CHUNK)

    def drain() -> None:
        while server.recv_into(buffer):
            pass

    receiving = threading.Thread(target=drain)
    with client, server:
        begun = time.perf_counter()
        receiving.start()
        for _ in range(mib):
            client.sendall(buffer)
        client.shutdown(socket.SHUT_WR)
        receiving.join()
        taken = time.perf_counter() - begun
    return mib * _CHUNK / taken / 1e6


def _round_trip_ms(path: _Path, trips: int) -> float:
    """The median of one byte there and back."""
    client, server = _connected(path)

    def answer() -> None:
        while data := server.recv(1):
            server.send(data)

    answering = threading.Thread(target=answer)
    taken = []
    with client, server:
        answering.start()
        for _ in range(trips):
            begun = time.perf_counter()
            client.send(b"x")
            client.recv(1)
            taken.append((time.perf_counter() - begun) * 1000)
        client.shutdown(socket.SHUT_WR)
        answering.join()
    return statistics.median(taken)
