"""The driver with the stand-in behind it, and places for its machines.

Namespaces, taps, uids, mounts and the jail are real; only the VMM is none.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zlib
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from emberbox.orchestrator.images.disks import copy_sparse
from emberbox.orchestrator.machines.driver import (
    BootFiles,
    Hardware,
    MachineSnapshot,
    Surroundings,
)
from emberbox.orchestrator.machines.firecracker import installation
from emberbox.orchestrator.machines.firecracker.driver import FirecrackerDriver
from emberbox.orchestrator.machines.firecracker.installation import Installation, Options
from emberbox.orchestrator.machines.firecracker.view import View
from emberbox.orchestrator.machines.pages import PAGE
from emberbox.orchestrator.machines.saved_memory import SavedMemory
from emberbox.orchestrator.network import netns, tap
from emberbox.orchestrator.network.addresses import NodeNetwork
from tests.firecracker import standin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from emberbox.orchestrator.machines.firecracker.calls import Rates
    from emberbox.orchestrator.machines.firecracker.machine import FirecrackerMachine
    from emberbox.orchestrator.network.addresses import Slot

ONLY_JAILED = pytest.mark.parametrize("world", ["jailed"], indirect=True)
"""For what is the same without a jailer."""

ONLY_BARE = pytest.mark.parametrize("world", ["bare"], indirect=True)
"""For what a jailer prevents."""

RAM_MB = 1
PAGES = (RAM_MB << 20) // PAGE
HARDWARE = Hardware(vcpu=1, ram_mb=RAM_MB)
BOOT_CALLS = [
    "PUT /logger",
    "PUT /metrics",
    "PUT /machine-config",
    "PUT /boot-source",
    "PUT /drives/root",
    "PUT /drives/runtime",
    "PUT /drives/scratch",
    "PUT /network-interfaces/eth0",
    "PUT /entropy",
    "PUT /actions",
    "PATCH /drives/scratch",
    "PATCH /network-interfaces/eth0",
]
"""In their order, when a VM is made from its kernel."""
INTERPRETER = next(p for p in ("/usr/bin/python3", sys.executable) if Path(p).exists())
"""Not that of these tests, which a uid without rights may not be able to reach."""

_UID_BASE = 1_950_000_000 + 16 * (os.getpid() % 65536)
"""Of this test process alone: what runs as one of them is its own."""

_INSTALLATIONS: dict[tuple[str, bool], Installation] = {}
"""What was found, so that not every test has to ask the programs for their version."""

_START = """#!{interpreter} -IS
import sys
sys.path.insert(0, {directory!r})
from tests.firecracker.standin import {module}, program
{module}.run(program.load_faults({faults!r}), sys.argv[1:])
"""


@dataclass(frozen=True)
class StandIn:
    """The stand-in as programs in a directory that everybody can read."""

    directory: Path

    @property
    def firecracker(self) -> Path:
        """Firecracker's place."""
        return self.directory / "firecracker"

    @property
    def jailer(self) -> Path:
        """The jailer's."""
        return self.directory / "jailer"

    def template_of(self, made_with: str) -> Path:
        """Where a template is kept for all tests, once one of them has made it."""
        return self.directory / f"template-{zlib.crc32(made_with.encode())}"

    def go_wrong(self, **faults: Any) -> None:
        """What is to go wrong from the next start on; nothing takes it back."""
        (self.directory / "faults.json").write_text(json.dumps(faults))

    @classmethod
    @contextmanager
    def installed(cls) -> Iterator[StandIn]:
        """It is gone after the block."""
        with tempfile.TemporaryDirectory(prefix="fc-") as name:
            made = cls(Path(name))
            made.directory.chmod(0o755)
            code = made.directory / "tests/firecracker/standin"
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(Path(standin.__file__).parent, code, ignore=ignored)
            # Once, as nobody who runs it may write there.
            subprocess.run([INTERPRETER, "-m", "compileall", "-q", code], check=True)
            for program, module in ((made.firecracker, "program"), (made.jailer, "jailer")):
                text = _START.format(
                    interpreter=INTERPRETER,
                    directory=name,
                    module=module,
                    faults=str(made.directory / "faults.json"),
                )
                program.write_text(text)
                program.chmod(0o755)
            made.go_wrong()
            yield made


@contextmanager
def slots(count: int) -> Iterator[list[Slot]]:
    """Namespaces with nothing but a tap."""
    network = NodeNetwork.of_node(tempfile.mktemp(prefix="fc-"))
    made = [network.slot(index) for index in range(1, count + 1)]
    try:
        for slot in made:
            netns.create(slot.netns)
            netns.run_in(slot.netns_path, tap.add)
        yield made
    finally:
        for slot in made:
            netns.delete(slot.netns)


@dataclass
class World:
    """One test's driver, its files, and what it starts."""

    stand_in: StandIn
    free: list[Slot]
    directory: Path
    jailed: bool
    rates: Rates | None = None
    driver: FirecrackerDriver = field(init=False)
    _number: int = 0

    def __post_init__(self) -> None:
        self.driver = self.new_driver()
        for name in ("initrd", "root", "runtime"):
            (self.directory / name).write_bytes(name.encode())
            (self.directory / name).chmod(0o444)
        (self.directory / "kernel").write_bytes(b"\x7fELF and more")
        (self.directory / "kernel").chmod(0o444)

    @property
    def options(self) -> Options:
        """As an operator would set them."""
        return Options(
            self.stand_in.firecracker, None, jail=self.jailed, state=self.directory / "state"
        )

    def new_driver(self) -> FirecrackerDriver:
        """Also of another orchestrator process, or after an upgrade."""
        faults = (self.stand_in.directory / "faults.json").read_text()
        if (faults, self.jailed) not in _INSTALLATIONS:
            looked = installation.look(self.options)
            assert isinstance(looked, Installation), looked
            _INSTALLATIONS[faults, self.jailed] = looked
        found = _INSTALLATIONS[faults, self.jailed]
        report = installation.report(found, "")
        return FirecrackerDriver(found, report, self.directory / "state", self.rates)

    @property
    def files(self) -> BootFiles:
        """What a boot reads."""
        return BootFiles(
            *(self.directory / name for name in ("kernel", "initrd", "root", "runtime"))
        )

    def empty(self) -> Path:
        """An empty directory."""
        self._number += 1
        made = self.directory / f"d{self._number}"
        made.mkdir(0o700)
        return made

    def place(self, scratch: Path | None = None) -> Surroundings:
        """A run directory and a slot; with a disk of its own if none is given."""
        directory = self.empty()
        disk = directory / "scratch.ext4"
        if scratch is None:
            disk.write_bytes(bytes(PAGE))
        else:
            disk.hardlink_to(scratch)
        slot = self.free.pop()
        name = f"emberbox-{slot.netns.split('-')[1]}-i{directory.name}"
        return Surroundings(name, directory, slot, _UID_BASE + slot.index, disk)

    def leave(self, place: Surroundings) -> None:
        """Give back slot and directory of a machine that has ended."""
        shutil.rmtree(place.directory)
        self.free.append(place.slot)

    @asynccontextmanager
    async def running(
        self, machine: FirecrackerMachine, place: Surroundings
    ) -> AsyncIterator[Guest]:
        """It is gone after the block, with all that it had."""
        guest = Guest(self, machine, place)
        try:
            yield guest
        finally:
            await guest.machine.stop()
            self.leave(guest.place)

    @asynccontextmanager
    async def booted(self) -> AsyncIterator[Guest]:
        """A machine from its kernel."""
        place = self.place()
        machine = await self.driver.boot(HARDWARE, self.files, place)
        async with self.running(machine, place) as guest:
            yield guest

    @asynccontextmanager
    async def clone(
        self, snapshot: MachineSnapshot, saved: Path | None = None
    ) -> AsyncIterator[Guest]:
        """A clone, or a machine that goes on."""
        place = self.place()
        machine = await self.driver.restore(snapshot, place, saved)
        async with self.running(machine, place) as guest:
            yield guest

    async def template(self) -> MachineSnapshot:
        """A snapshot of a booted machine, whose page n is filled with n % 200 + 1."""
        directory, made = self.empty(), self.stand_in.template_of(self.driver.made_with)
        if not made.exists():
            async with self.booted() as guest:
                await guest.do(fill=[[page, page % 200 + 1] for page in range(0, PAGES, 2)])
                await guest.machine.pause()
                await guest.machine.snapshot(directory)
            shutil.copytree(directory, made, copy_function=_copy)
        else:
            shutil.copytree(made, directory, dirs_exist_ok=True, copy_function=_copy)
        return MachineSnapshot(directory, HARDWARE, self.files, self.driver.made_with)

    def left(self) -> list[str]:
        """What machines that have ended have left on the host."""
        mounts = Path("/proc/self/mounts").read_text().splitlines()
        return [mount for mount in mounts if "fc-" in mount]


@dataclass
class Guest:
    """A machine in its place, and a test in the place of its guest."""

    world: World
    machine: FirecrackerMachine
    place: Surroundings

    async def write(self, page: int, value: int) -> None:
        """Fill a page of memory."""
        await self.do(write=[page, value])

    async def read(self, page: int) -> int:
        """What a page is filled with."""
        value: int = await self.do(read=page)
        return value

    async def pages(self) -> list[int]:
        """All of them."""
        values: list[int] = await self.do(read_all=None)
        return values

    async def do(self, **order: Any) -> Any:
        """Tell the stand-in, see its `program.Program`."""
        return await tell(self.place, **order)

    async def save(self) -> Path:
        """Pause and save."""
        directory = self.world.empty()
        await self.machine.pause()
        await self.machine.save(directory)
        return directory


def saved_pages(saved: Path) -> list[int]:
    """The pages that are in what was saved."""
    with SavedMemory.opened(saved / "memory") as memory:
        return [
            page
            for run in memory.contents.runs
            for page in range(run.offset // PAGE, (run.offset + run.length) // PAGE)
        ]


async def tell(place: Surroundings, **order: Any) -> Any:
    """An order to the stand-in that runs in a place. Raises AssertionError, EOFError."""
    path = View.of(place).host / "own" / "guest.sock"
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(json.dumps(order).encode() + b"\n")
        line = await reader.readline()
        if not line:
            raise EOFError
        answer = json.loads(line)
    finally:
        writer.close()
        await writer.wait_closed()
    assert not (isinstance(answer, dict) and set(answer) == {"error"}), answer
    return answer


def _copy(source: str, target: str) -> None:
    copy_sparse(Path(source), Path(target))


def processes_of(uid: int) -> list[str]:
    """What runs as a uid that no other VMM has."""

    def runs_as_it(process: Path) -> bool:
        try:
            return process.stat().st_uid == uid
        except FileNotFoundError:
            return False

    return [process.name for process in Path("/proc").glob("[0-9]*") if runs_as_it(process)]
