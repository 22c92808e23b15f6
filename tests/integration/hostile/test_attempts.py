"""A guest that is root attacks all around it. Nothing answers, and nothing of it gets through."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from emberbox.orchestrator.network import netns
from scripts.fake_internet import HOST_PUBLIC, PUBLIC
from tests.integration.hostile import attack
from tests.integration.hostile.attempts import (
    CARRIER,
    METADATA,
    PRIVATE,
    RESERVED,
    SERVED,
    all_attempts,
    tcp,
    udp,
)
from tests.integration.hostile.machine import DATAGRAM_PORT, HOST_PORT
from tests.integration.network import frames
from tests.stack import wait_until

if TYPE_CHECKING:
    from tests.integration.hostile.attempts import Probe
    from tests.integration.hostile.machine import Box, Machine

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

SECURITY = Path(__file__).parents[3] / "docs/security.md"
WITNESSED = (*PRIVATE, CARRIER, METADATA, *RESERVED)
"""Addresses at which the witness answers, on this machine alone."""
_PACKET_OUTGOING = 4
_SO_RCVBUFFORCE = 33


def test_every_attempt_is_refused_and_listed(host: Machine) -> None:
    attacker, other = host.create(), host.create()
    serve(other)
    attempts = all_attempts(host, attacker, other)
    probes = [probe for attempt in attempts for probe in attempt.probes]
    targets_answer_others(host, attacker, other)
    host.witness.reached.clear()
    with Wire(host, attacker) as wire:
        results = attack_with(attacker, [*probes, *udp((PUBLIC,), (DATAGRAM_PORT,))])
        assert results.pop() == "answered", "the internet is not there either"
        strays = wire.strays()
    succeeded = [
        (probe, result)
        for probe, result in zip(probes, results, strict=True)
        if result in attack.ANSWERED
    ]
    assert succeeded == []
    # By the order of frames on one link, all that came before the last has come through or not.
    assert host.witness.reached == [f"{PUBLIC}:{DATAGRAM_PORT}"]
    assert strays == []
    listed = SECURITY.read_text()
    assert [attempt.text for attempt in attempts if attempt.text not in listed] == []


def test_the_gateway_answers_names_and_nothing_else(host: Machine) -> None:
    box = host.create()
    ports = range(1, 1025)
    results = attack_with(box, [*tcp((frames.GATEWAY,), ports), *udp((frames.GATEWAY,), (53,))])
    assert results.pop() == "answered"
    answering = [port for port, result in zip(ports, results, strict=True) if result == "connected"]
    assert answering == [53]
    assert box.run("getent hosts index.example").stdout.split()[0] == PUBLIC


def targets_answer_others(host: Machine, attacker: Box, other: Box) -> None:
    """What the guest is to be kept from is there: the machine itself reaches it."""
    targets = [
        (HOST_PUBLIC, HOST_PORT),
        (attacker.slot.host_address, HOST_PORT),
        (other.slot.address, SERVED),
        ("127.0.0.1", host.stack.ports.api),
        *((address, 80) for address in WITNESSED),
    ]
    for address, port in targets:
        host.inside(lambda to=(address, port): socket.create_connection(to, 5).close())  # type: ignore[misc]
    seen = {f"{address}:80" for address in WITNESSED}
    wait_until(lambda: seen <= set(host.witness.reached), 10)


def attack_with(box: Box, probes: list[Probe]) -> list[str]:
    """What came of each."""
    box.write("/tmp/plan.json", json.dumps(probes))
    box.write("/tmp/attack.py", Path(attack.__file__).read_text())
    results: list[str] = json.loads(box.run("python3 /tmp/attack.py /tmp/plan.json").stdout)
    return results


def serve(box: Box) -> None:
    """Answer on a port of a sandbox."""
    box.begin(f"python3 -m http.server {SERVED}")
    to = box.slot.address, SERVED

    def answers() -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(to, 5).close()
            return True
        return False

    wait_until(lambda: box.machine.inside(answers), 120)


class Wire:
    """The host's end of a sandbox's link, where all that leaves the slot is seen."""

    def __init__(self, host: Machine, box: Box) -> None:
        self._slot = box.slot
        self._socket = netns.run_in(host.world.host, self._listen)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def strays(self) -> list[str]:
        """Frames that are neither IP from the slot's own address nor its own ARP."""
        found: list[str] = []
        while True:
            try:
                frame, (_, kind, way, *_) = self._socket.recvfrom(65536)
            except BlockingIOError:
                return found
            own = kind == 0x0806 or (kind == 0x0800 and self._is_own(frame))
            if way != _PACKET_OUTGOING and not own:
                found.append(frame.hex())

    def _is_own(self, frame: bytes) -> bool:
        (source,) = struct.unpack_from("!4s", frame, 14 + 12)
        return bool(source == socket.inet_aton(self._slot.address))

    def _listen(self) -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
        made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 << 20)
        made.bind((self._slot.link, 0x0003))
        made.setblocking(False)
        return made
