"""A host made of stand-ins; its run directories, snapshots and outbox are real."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest

from emberbox.orchestrator.envd_client import Identity
from emberbox.orchestrator.errors import MachineError
from emberbox.orchestrator.machines.driver import DriverReport, Hardware, Saved
from emberbox.orchestrator.network.addresses import NodeNetwork
from emberbox.orchestrator.network.policy import CLOSED, OPEN
from emberbox.orchestrator.outbox import Outbox
from emberbox.orchestrator.pool.demand import Sizes
from emberbox.orchestrator.pool.pool import WarmPool
from emberbox.orchestrator.processes import ProcessIdentity, identify
from emberbox.orchestrator.sandboxes import admission
from emberbox.orchestrator.sandboxes.beginning import CreateRequest, clonable
from emberbox.orchestrator.sandboxes.holdings import Host
from emberbox.orchestrator.sandboxes.host import Sandboxes
from emberbox.orchestrator.sandboxes.records import RunDirectories, SandboxRecord
from emberbox.orchestrator.sandboxes.starts import StartQueue
from emberbox.orchestrator.snapshots.local import LocalSnapshotStore
from emberbox.orchestrator.templates.catalog import TemplateCatalog
from emberbox.orchestrator.templates.checkpoints import Checkpoints
from emberbox.orchestrator.templates.store import Manifest, Template, TemplateSpec, TemplateStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from emberbox.orchestrator.machines.driver import BeforeRunning, MachineSnapshot
    from emberbox.orchestrator.network.addresses import Slot
    from emberbox.orchestrator.network.policy import EgressPolicy

IDENTITY = Identity("iabc", "t", "e-1", "token", {})
NETWORK = NodeNetwork.of_node("unit-test")
SIZES = Sizes(most=1, least=1)


class StandInMachine:
    """A machine that runs until it is stopped or told to end."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.identity = ProcessIdentity(1, 2, "another boot")
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.running = True
        self.directory: Path | None = None

    async def pause(self) -> None:
        self._world.did("pause machine")
        self.running = False

    async def resume(self) -> None:
        self._world.did("resume machine")
        self.running = True

    def most_saved_mb(self, ram_mb: int) -> int:
        return ram_mb

    async def save(self, directory: Path) -> Saved:
        assert not self.running
        await self._world.wait_at("save")
        self._world.did("save")
        (directory / "memory").write_text("pages")
        return Saved(self._world.made_with, memory_bytes=5, state_bytes=1)

    async def wait(self) -> str:
        return await asyncio.shield(self.ended)

    async def console(self) -> str:
        return "last words"

    async def stop(self) -> None:
        self._world.did("stop")
        if not self.ended.done():
            self.ended.set_result("stopped")

    async def detach(self) -> None:
        self._world.did("detach")

    def moved(self, directory: Path) -> None:
        assert (directory / "sandbox.json").exists()
        self.directory = directory


class World:
    """Stand-ins of slots, driver and routes, that fail where a test says so.

    `taken` is what a sandbox must give back.
    """

    def __init__(self) -> None:
        self.fails_at: str | None = None
        self.then_fails_at: str | None = None
        self.failure: Exception = MachineError("broken")
        self.done: list[str] = []
        self.taken: list[str] = []
        self.machine: StandInMachine | None = None
        self.made_with = "vmm"
        self.layers = True
        self.pinned: set[tuple[str, str]] = set()
        self.report = DriverReport("stand-in", True, "none", "1", "")
        self.presented: list[tuple[str, Identity]] = []
        self.held: dict[str, asyncio.Event] = {}
        self.waits: dict[str, asyncio.Event] = {}
        self.policy = CLOSED
        self.routed: list[SandboxRecord] = []

    def hold(self, what: str) -> asyncio.Event:
        """Let what is done wait for the event that is returned; `waits` tells that it does."""
        self.held[what], self.waits[what] = asyncio.Event(), asyncio.Event()
        return self.held[what]

    async def wait_at(self, what: str) -> None:
        if what in self.held:
            self.waits[what].set()
            await self.held[what].wait()

    def did(self, what: str) -> None:
        self.done.append(what)
        if what == self.fails_at:
            self.fails_at, self.then_fails_at = self.then_fails_at, None
            raise self.failure

    # SlotPool
    async def acquire(self, policy: EgressPolicy) -> Slot:
        self.did("closed slot" if policy == CLOSED else "slot")
        self.taken.append("slot")
        self.policy = policy
        return NETWORK.slot(3)

    async def set_policy(self, _slot: Slot, policy: EgressPolicy) -> None:
        await self.wait_at("policy")
        self.did("close slot" if policy == CLOSED else "open slot")
        self.policy = policy

    async def end_forbidden(self, _slot: Slot, policy: EgressPolicy) -> None:
        assert self.policy == policy
        self.did("end forbidden")

    async def release(self, _slot: Slot) -> None:
        await self.wait_at("release")
        self.taken.remove("slot")
        self.did("release")

    async def adopt(self, *arguments: Any) -> Any:
        if isinstance(arguments[0], int):
            self.did("adopt slot")
            self.taken.append("slot")
            self.policy = arguments[1]
            return NETWORK.slot(arguments[0])
        self.did("adopt machine")
        return self._new_machine()

    # Driver
    async def restore(
        self,
        _snapshot: object,
        _place: object,
        saved: Path | None = None,
        before_running: BeforeRunning | None = None,
    ) -> StandInMachine:
        await self.wait_at("machine")
        self.did("machine")
        machine = self._new_machine()
        if saved is not None and before_running is not None:
            assert (saved / "memory").read_text() == "pages"
            machine.running = False
            await before_running(cast("Any", machine))
            await machine.resume()
        return machine

    async def boot(self, _hardware: object, _files: object, _place: object) -> StandInMachine:
        self.did("boot")
        return self._new_machine()

    async def materialise(
        self, snapshot: MachineSnapshot, saved: Path, directory: Path, *, layered: bool
    ) -> MachineSnapshot:
        await self.wait_at("materialise")
        self.did("materialise")
        (directory / "ram").write_bytes((saved / "memory").read_bytes())
        base = snapshot.base or snapshot.directory
        return dataclasses.replace(
            snapshot, directory=directory, base=base if layered and self.layers else None
        )

    def forget(self, _snapshot: object) -> None:
        self.did("forget")

    # ImageStore
    def pin(self, image: str, by: str) -> None:
        self.pinned.add((image, by))

    def unpin(self, image: str, by: str) -> None:
        self.pinned.discard((image, by))

    # Routes
    async def open(self, record: SandboxRecord, _address: str) -> None:
        self.taken.append("route")
        self.routed.append(record)
        self.did("route")

    async def close(self, _record: object) -> None:
        if "route" in self.taken:
            self.taken.remove("route")

    def _new_machine(self) -> StandInMachine:
        self.machine = StandInMachine(self)
        return self.machine


@dataclasses.dataclass
class Setting:
    """A host made of stand-ins, its outbox and run directories real."""

    world: World
    host: Host
    sandboxes: Sandboxes
    outbox: Outbox
    pool: WarmPool
    """Not started: a test that wants warm clones does that."""
    snapshots: Path

    def outcomes(self) -> list[tuple[str, str]]:
        return [(entry.outcome, entry.reason) for entry in self.outbox.after(0)]

    def left(self) -> list[str]:
        """What a sandbox that is gone has not given back; a snapshot is meant to stay."""
        places = self.host.directories.root, self.host.directories.root.with_name("pool")
        return [*self.world.taken, *(p.name for place in places for p in place.iterdir())]


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Setting]:
    world = World()

    async def initialize(
        _slot: object, identity: Identity, _seconds: float, present: str = ""
    ) -> str:
        await world.wait_at("init")
        world.did("init")
        world.presented.append((present, identity))
        return "0.6.13"

    async def sync(*_arguments: object) -> None:
        world.did("sync")

    async def wait_healthy(*_arguments: object) -> None:
        world.did("health")

    async def resume(_slot: object, identity: Identity, _seconds: float, present: str) -> str:
        await world.wait_at("resume")
        world.did("resume")
        world.presented.append((present, identity))
        return "0.6.13"

    async def run(*_arguments: object, **_options: object) -> None:
        world.did("run")

    monkeypatch.setattr("emberbox.orchestrator.envd_client.initialize", initialize)
    monkeypatch.setattr("emberbox.orchestrator.envd_calls.initialize", initialize)
    monkeypatch.setattr("emberbox.orchestrator.envd_calls.resume", resume)
    monkeypatch.setattr("emberbox.orchestrator.envd_calls.sync", sync)
    monkeypatch.setattr("emberbox.orchestrator.envd_client.wait_healthy", wait_healthy)
    monkeypatch.setattr("emberbox.orchestrator.rehearsing.run", run)
    outbox = Outbox(tmp_path / "outbox.db")
    host = Host(
        node=NETWORK.tag,
        uid_base=900_000_000,
        driver=cast("Any", world),
        slots=cast("Any", world),
        routes=world,
        directories=RunDirectories(tmp_path / "sandboxes"),
        outbox=outbox,
        snapshots=LocalSnapshotStore(tmp_path / "snapshots"),
        builds=TemplateStore(tmp_path / "templates"),
        starts=StartQueue(at_once=2, longest_wait=30.0),
        saves=asyncio.Semaphore(2),
    )
    templates = TemplateCatalog()
    templates.offer(template(host.builds))
    limits = admission.Limits(10, 100.0, 0, 0)
    checkpoints = Checkpoints(host.driver, cast("Any", world), host.builds, templates)
    warm = dataclasses.replace(host, directories=RunDirectories(tmp_path / "pool"))
    pool = WarmPool(warm, SIZES, partial(clonable, host, templates))
    sandboxes = Sandboxes(host, templates, checkpoints, limits, pool)
    yield Setting(world, host, sandboxes, outbox, pool, tmp_path / "snapshots")
    outbox.close()


def template(store: TemplateStore, build_id: str = "b-1", root: str = "root-1") -> Template:
    spec = TemplateSpec("t", ("base",), Hardware(1, 64), 10)
    work = store.begin(spec, build_id)
    for name in ("scratch.ext4", "blank.ext4"):
        (work / name).write_bytes(b"disk")
    manifest = Manifest(
        build_id,
        "key",
        "vmm",
        "0.6.13",
        1,
        64,
        10,
        {"root": root},
        dict.fromkeys(("kernel", "initrd", "root", "runtime"), "/dev/null"),
    )
    return store.finish(spec, work, manifest)


def request(seconds: float = 60, identity: Identity = IDENTITY, **more: Any) -> CreateRequest:
    return CreateRequest(identity, "b-1", time.time() + seconds, metadata={}, **more)


def record(**changes: Any) -> SandboxRecord:
    running = SandboxRecord(
        "iabc", "e-1", "t", "b-1", 3, 1, 64, 10, OPEN, 0.0, time.time() + 60, running=True
    )
    return dataclasses.replace(running, **changes)


@pytest.fixture
def live() -> ProcessIdentity:
    """A process that lives; nobody signals it in these tests, for it is never stopped for real."""
    return identify(os.getppid())


async def ended(setting: Setting) -> None:
    """Return when no sandbox is left; the caller's time limit ends the wait."""
    await until(lambda: not list(setting.sandboxes))


async def until(condition: Callable[[], bool]) -> None:
    """Return when it is so; the caller's time limit ends the wait."""
    while not condition():  # noqa: ASYNC110 - there is no event for most of them
        await asyncio.sleep(0.005)
