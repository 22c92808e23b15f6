"""Machines started by the driver alone: no orchestrator, no API, slots of their own."""

from __future__ import annotations

import asyncio
import http.client
import shutil
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

import pytest

from emberbox.cli.servers import load_settings
from emberbox.orchestrator import envd_client
from emberbox.orchestrator.images import ImageStore, ensure_images
from emberbox.orchestrator.images.disks import copy_sparse
from emberbox.orchestrator.machines.driver import Hardware, Surroundings
from emberbox.orchestrator.machines.probe import select_driver
from emberbox.orchestrator.network.addresses import GUEST_ADDRESS, NodeNetwork
from emberbox.orchestrator.network.policy import CLOSED
from emberbox.orchestrator.network.pool import SlotPool
from emberbox.orchestrator.network.slots import connect
from emberbox.orchestrator.settings import Settings
from emberbox.orchestrator.templates.build import Builder
from emberbox.orchestrator.templates.prepare import base_template
from emberbox.orchestrator.templates.store import Template, TemplateStore
from emberbox.shared.errors import StartupError
from emberbox.shared.protocol import ENVD_PORT
from tests.integration.images.guest import run_by_envd
from tests.stack import LANE

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator
    from pathlib import Path

    from emberbox.orchestrator.machines.driver import Driver, Machine
    from tests.stack import Stack

_NETWORK = NodeNetwork.of_node(
    f"machine-tests-{LANE}", IPv4Network(f"10.204.{16 * LANE}.0/20"), dns_port=10453 + LANE
)
_UID_BASE = 1_900_000_000 + 65536 * LANE
_ANSWER_SECONDS = 180.0
_HARDWARE, _DISK_MB = Hardware(2, 512), 10240


@dataclass
class MachineHost:
    """Driver, slots and a template, and a place for each machine."""

    directory: Path
    template: Template
    slots: SlotPool
    driver: Driver
    _number: int = 0

    def restarted(self) -> None:
        """Go on as another orchestrator process, that knows nothing of its machines."""
        self.driver = new_driver(self.driver.report.name)

    async def place(self, scratch: Path) -> Surroundings:
        """A new run directory and slot around a copy of a disk."""
        directory = self._new_directory()
        await asyncio.to_thread(copy_sparse, scratch, directory / "scratch")
        return await self._surroundings(directory)

    async def moved(self, place: Surroundings) -> Surroundings:
        """Another place with the very disk of one whose machine has ended."""
        directory = self._new_directory()
        place.scratch.rename(directory / "scratch")
        await self.leave(place)
        return await self._surroundings(directory)

    async def leave(self, place: Surroundings) -> None:
        """Give back the slot of a machine that has ended, and remove its directory."""
        await self.slots.release(place.slot)
        shutil.rmtree(place.directory)

    @asynccontextmanager
    async def clone(self) -> AsyncIterator[Guest]:
        """A clone of the template that answers; it is gone after the block."""
        place = await self.place(self.template.scratch)
        guest = Guest(self, await self.driver.restore(self.template.snapshot, place), place)
        async with guest.running():
            yield guest

    def empty(self) -> Path:
        """An empty directory."""
        return self._new_directory()

    def _new_directory(self) -> Path:
        self._number += 1
        directory = self.directory / str(self._number)
        directory.mkdir()
        return directory

    async def _surroundings(self, directory: Path) -> Surroundings:
        slot = await self.slots.acquire(CLOSED)
        return Surroundings(
            name=f"emberbox-{_NETWORK.tag}-{directory.name}",
            directory=directory,
            slot=slot,
            uid=_UID_BASE + slot.index,
            scratch=directory / "scratch",
        )


@dataclass
class Guest:
    """One machine in its place; both change when it is saved and continued."""

    host: MachineHost
    machine: Machine
    place: Surroundings

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answers when the block begins, and is gone after it."""
        try:
            await self.healthy()
            yield
        finally:
            await self.machine.stop()
            await self.host.leave(self.place)

    async def healthy(self) -> None:
        """Return when envd answers."""
        await envd_client.wait_healthy(self.place.slot, _ANSWER_SECONDS)

    async def run(self, script: str) -> str:
        """What a script prints that must succeed, run as root by envd."""
        connection = await connect(self.place.slot, ENVD_PORT)
        ended = await asyncio.to_thread(run_by_envd, _http(connection), script, "root")
        assert ended.succeeded, f"{script}: {ended}"
        return ended.output.strip()

    async def save(self) -> Path:
        """Pause and save the machine into a new directory."""
        directory = self.host.empty()
        await self.machine.pause()
        await self.machine.save(directory)
        return directory

    async def away_and_back(self) -> Path:
        """Save it, end its VMM, continue it elsewhere; what was saved."""
        saved = await self.save()
        await self.machine.stop()
        self.place = await self.host.moved(self.place)
        self.machine = await self.host.driver.restore(
            self.host.template.snapshot, self.place, saved
        )
        await self.healthy()
        return saved


def _http(connection: socket.socket) -> http.client.HTTPConnection:
    connection.settimeout(_ANSWER_SECONDS)
    speaking = http.client.HTTPConnection(GUEST_ADDRESS)
    speaking.sock = connection
    return speaking


DRIVERS = ("qemu", "firecracker")


def new_driver(name: str) -> Driver:
    """The driver of that name; skips the test where it cannot run, with the reason."""
    try:
        return select_driver(name, load_settings(Settings).firecracker_options)
    except StartupError as error:
        pytest.skip(str(error))


@asynccontextmanager
async def machine_host(stack: Stack, directory: Path, name: str) -> AsyncIterator[MachineHost]:
    """A host for machines of the base template under that driver."""
    driver = new_driver(name)
    slots = SlotPool(_NETWORK, directory / "network", size=0)
    await slots.start()
    try:
        template = await _template(stack, driver, slots)
        (directory / "machines").mkdir()
        yield MachineHost(directory / "machines", template, slots, driver)
    finally:
        await slots.close(keep=set())


async def _template(stack: Stack, driver: Driver, slots: SlotPool) -> Template:
    """The stack's own, or for another driver than the stack's one that is made once."""
    spec = base_template(_HARDWARE, _DISK_MB)
    for template in TemplateStore(stack.home.templates).builds(spec):
        if template.manifest.made_with == driver.made_with:
            return template
    store = TemplateStore(stack.home.root / "templates-of-other-drivers")
    images = await asyncio.to_thread(ensure_images, ImageStore(stack.home.images))
    builder = Builder(_NETWORK.tag, _UID_BASE, driver, slots, store)
    return await builder.ensure(spec, images, lambda _text: None)
