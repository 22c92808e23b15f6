"""The shell around the lifecycle: what was taken is given back, whatever fails."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import os
import sqlite3
import time
from typing import TYPE_CHECKING, Any, cast

import pytest

from emberbox.orchestrator.envd_client import Identity
from emberbox.orchestrator.errors import GuestUnreachable, MachineError, OrchestratorError
from emberbox.orchestrator.machines.driver import Hardware
from emberbox.orchestrator.network.addresses import NodeNetwork
from emberbox.orchestrator.network.errors import SlotMissingError
from emberbox.orchestrator.outbox import Outbox
from emberbox.orchestrator.processes import ProcessIdentity, identify
from emberbox.orchestrator.sandboxes import admission
from emberbox.orchestrator.sandboxes.holdings import Host
from emberbox.orchestrator.sandboxes.beginning import CreateRequest
from emberbox.orchestrator.sandboxes.host import Sandboxes
from emberbox.orchestrator.sandboxes.lifecycle import Outcome, State
from emberbox.orchestrator.sandboxes.records import RunDirectories, SandboxRecord
from emberbox.orchestrator.templates.catalog import TemplateCatalog
from emberbox.orchestrator.templates.store import Manifest, Template, TemplateSpec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from emberbox.orchestrator.network.addresses import Slot

IDENTITY = Identity("iabc", "t", "e-1", "token", {})
NETWORK = NodeNetwork.of_node("unit-test")


class StandInMachine:
    """A machine that runs until it is stopped or told to end."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.identity = ProcessIdentity(1, 2, "another boot")
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

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


class World:
    """Stand-ins of slots, driver and routes, that fail where a test says so.

    `taken` is what a sandbox must give back.
    """

    def __init__(self) -> None:
        self.fails_at: str | None = None
        self.failure: Exception = MachineError("broken")
        self.done: list[str] = []
        self.taken: set[str] = set()
        self.machine: StandInMachine | None = None

    def did(self, what: str) -> None:
        self.done.append(what)
        if what == self.fails_at:
            self.fails_at = None
            raise self.failure

    # SlotPool
    async def acquire(self, _policy: object) -> Slot:
        self.did("slot")
        self.taken.add("slot")
        return NETWORK.slot(3)

    async def release(self, _slot: Slot) -> None:
        self.taken.discard("slot")
        self.did("release")

    async def adopt(self, *arguments: Any) -> Any:
        if len(arguments) == 1:
            self.did("adopt slot")
            self.taken.add("slot")
            return NETWORK.slot(arguments[0])
        self.did("adopt machine")
        return self._new_machine()

    # Driver
    async def restore(self, _snapshot: object, _place: object) -> StandInMachine:
        self.did("machine")
        return self._new_machine()

    # Routes
    async def open(self, _record: object, _address: str) -> None:
        self.taken.add("route")
        self.did("route")

    async def close(self, _record: object) -> None:
        self.taken.discard("route")

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

    def outcomes(self) -> list[tuple[str, str]]:
        return [(entry.outcome, entry.reason) for entry in self.outbox.after(0)]

    def left(self) -> list[str]:
        return [*self.world.taken, *(p.name for p in self.host.directories.root.iterdir())]


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Setting]:
    world = World()

    async def initialize(*_arguments: object) -> str:
        world.did("init")
        return "0.6.13"

    monkeypatch.setattr("emberbox.orchestrator.envd_client.initialize", initialize)
    outbox = Outbox(tmp_path / "outbox.db")
    host = Host(
        node=NETWORK.tag,
        uid_base=900_000_000,
        driver=cast("Any", world),
        slots=cast("Any", world),
        routes=world,
        directories=RunDirectories(tmp_path / "sandboxes"),
        outbox=outbox,
        starts=asyncio.Semaphore(2),
    )
    templates = TemplateCatalog()
    templates.offer(template(tmp_path / "build"))
    limits = admission.Limits(10, 100.0, 0, 0)
    yield Setting(world, host, Sandboxes(host, templates, limits), outbox)
    outbox.close()


def template(directory: Path) -> Template:
    directory.mkdir()
    (directory / "scratch.ext4").write_bytes(b"disk")
    spec = TemplateSpec("t", ("base",), Hardware(1, 64), 10)
    manifest = Manifest(
        "b-1",
        "key",
        "vmm",
        "0.6.13",
        1,
        64,
        10,
        {},
        dict.fromkeys(("kernel", "initrd", "root", "runtime"), "/nowhere"),
    )
    return Template(spec, directory, manifest)


def request(seconds: float = 60, identity: Identity = IDENTITY) -> CreateRequest:
    return CreateRequest(identity, "b-1", time.time() + seconds, internet=True, metadata={})


async def test_a_created_sandbox_runs_and_a_killed_one_is_gone(setting: Setting) -> None:
    sandbox = await setting.sandboxes.create(request())
    assert sandbox.state is State.RUNNING
    assert sandbox.record.envd_version == "0.6.13"
    assert any("cloned from the snapshot of build b-1" in line for line in sandbox.story())
    await setting.sandboxes.delete("iabc", "asked")
    assert setting.left() == []
    assert setting.outcomes() == [("killed", "asked")]
    assert list(setting.sandboxes) == []


@pytest.mark.parametrize("step", ["slot", "machine", "init", "route"])
@pytest.mark.parametrize("failure", [MachineError("broken"), OSError(errno.ENOSPC, "disk full")])
async def test_a_start_that_fails_at_any_step_leaves_nothing(
    setting: Setting, step: str, failure: Exception
) -> None:
    setting.world.fails_at, setting.world.failure = step, failure
    with pytest.raises(type(failure)):
        await setting.sandboxes.create(request())
    assert setting.left() == []
    assert setting.outcomes() == []
    assert list(setting.sandboxes) == []
    # The room is free again: the same id can be used at once.
    await setting.sandboxes.create(request())
    await setting.sandboxes.end_all("test")


async def test_a_full_disk_while_copying_reaches_the_caller(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("emberbox.orchestrator.sandboxes.holdings.copy_sparse", full)
    monkeypatch.setattr(RunDirectories, "save", full)
    with pytest.raises(OSError, match="No space left"):
        await asyncio.wait_for(setting.sandboxes.create(request()), 5)
    assert setting.left() == []


async def test_a_kill_while_starting_waits_for_the_start(setting: Setting) -> None:
    starting = asyncio.ensure_future(setting.sandboxes.create(request()))
    await asyncio.sleep(0)
    await setting.sandboxes.delete("iabc", "asked")
    with pytest.raises(MachineError, match="killed while it was starting"):
        await starting
    assert setting.left() == []
    assert setting.outcomes() == [("killed", "asked")]


async def test_the_same_create_twice_is_one_sandbox(setting: Setting) -> None:
    first, second = await asyncio.gather(
        setting.sandboxes.create(request()), setting.sandboxes.create(request())
    )
    assert first is second
    other = dataclasses.replace(IDENTITY, execution_id="e-2")
    with pytest.raises(OrchestratorError, match="another execution"):
        await setting.sandboxes.create(request(identity=other))
    await setting.sandboxes.end_all("test")


async def test_a_deadline_ends_it(setting: Setting) -> None:
    await setting.sandboxes.create(request(seconds=0.05))
    await ended(setting)
    assert setting.outcomes() == [("expired", "its deadline passed")]
    assert setting.left() == []


async def test_a_machine_that_dies_is_reclaimed_and_its_last_words_are_told(
    setting: Setting,
) -> None:
    await setting.sandboxes.create(request())
    assert setting.world.machine
    setting.world.machine.ended.set_result("the guest ended (guest-panic)")
    await ended(setting)
    [(outcome, reason)] = setting.outcomes()
    assert outcome == "crashed"
    assert "guest-panic" in reason
    assert "last words" in reason


async def test_a_full_disk_does_not_keep_a_sandbox_alive(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    await setting.sandboxes.create(request())

    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(RunDirectories, "save", full)
    await asyncio.wait_for(setting.sandboxes.delete("iabc", "asked"), 5)
    assert setting.left() == []


async def test_an_outcome_that_cannot_be_kept_stays_in_the_run_directory(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    await setting.sandboxes.create(request())

    def broken(*_arguments: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patched:
        patched.setattr(Outbox, "add", broken)
        await asyncio.wait_for(setting.sandboxes.delete("iabc", "asked"), 5)
    assert setting.left() == ["iabc"]
    [record] = setting.host.directories.load_all()
    assert record.ended == ("killed", "asked")
    await setting.sandboxes.adopt_all()
    await ended(setting)
    assert setting.outcomes() == [("killed", "asked")]
    assert setting.left() == []


async def test_a_slot_is_not_given_back_before_its_machine_is_gone(setting: Setting) -> None:
    await setting.sandboxes.create(request())
    setting.world.fails_at, setting.world.failure = "stop", OSError(errno.EMFILE, "no descriptor")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("emberbox.orchestrator.sandboxes.holdings._RETRY_SECONDS", 0.01)
        await setting.sandboxes.delete("iabc", "asked")
    assert setting.world.done[-3:] == ["stop", "stop", "release"]


@pytest.mark.parametrize("sandbox_id", ["", "..", "../templates", "a,b", "A", "a" * 64])
async def test_what_is_no_id_is_refused_and_touches_nothing(
    setting: Setting, sandbox_id: str
) -> None:
    identity = dataclasses.replace(IDENTITY, sandbox_id=sandbox_id)
    with pytest.raises(OrchestratorError, match="sandbox_id"):
        await setting.sandboxes.create(request(identity=identity))
    assert setting.world.done == []
    assert setting.host.directories.root.is_dir()


# After a restart


def record(**changes: Any) -> SandboxRecord:
    running = SandboxRecord(
        "iabc", "e-1", "t", "b-1", 3, 1, 64, 10, True, 0.0, time.time() + 60, running=True
    )
    return dataclasses.replace(running, **changes)


@pytest.fixture
def live() -> ProcessIdentity:
    """A process that lives; nobody signals it in these tests, for it is never stopped for real."""
    return identify(os.getppid())


async def test_a_vm_that_lives_runs_on(setting: Setting, live: ProcessIdentity) -> None:
    setting.host.directories.create(record(process=live))
    assert await setting.sandboxes.adopt_all() == {3}
    sandbox = setting.sandboxes.get("iabc")
    assert sandbox.state is State.RUNNING
    assert "route" in setting.world.taken
    await setting.sandboxes.end_all("test")


@pytest.mark.parametrize(
    ("changes", "outcomes"),
    [
        ({}, [("crashed", "its VM had ended while no orchestrator watched it")]),
        ({"ended": ("killed", "asked")}, [("killed", "asked")]),
        ({"running": False}, []),
        ({"running": False, "ended": ("killed", "asked")}, [("killed", "asked")]),
    ],
)
@pytest.mark.parametrize("process", [None, ProcessIdentity(1, 2, "an earlier boot")])
async def test_what_died_meanwhile_is_reported_and_reclaimed(
    setting: Setting,
    changes: dict[str, Any],
    outcomes: list[tuple[str, str]],
    process: ProcessIdentity | None,
) -> None:
    setting.host.directories.create(record(process=process, **changes))
    assert await setting.sandboxes.adopt_all() == set()
    await ended(setting)
    assert setting.outcomes() == outcomes
    assert setting.left() == []


@pytest.mark.parametrize(
    ("step", "failure"),
    [
        ("adopt slot", SlotMissingError(3, "its link")),
        ("adopt machine", GuestUnreachable("silent")),
        ("adopt machine", OSError(errno.EMFILE, "no descriptor")),
    ],
)
async def test_a_vm_that_cannot_be_adopted_is_ended_and_blocks_nobody(
    setting: Setting,
    monkeypatch: pytest.MonkeyPatch,
    live: ProcessIdentity,
    step: str,
    failure: Exception,
) -> None:
    killed: list[ProcessIdentity] = []

    async def kill(identity: ProcessIdentity) -> None:
        killed.append(identity)

    monkeypatch.setattr("emberbox.orchestrator.sandboxes.holdings.kill_and_wait", kill)
    setting.host.directories.create(record(process=live))
    setting.world.fails_at, setting.world.failure = step, failure
    await setting.sandboxes.adopt_all()
    await ended(setting)
    assert killed == [live]
    assert [outcome for outcome, _ in setting.outcomes()] == [Outcome.CRASHED.value]
    assert setting.left() == []


async def test_a_vm_that_is_left_is_detached_not_stopped(setting: Setting) -> None:
    await setting.sandboxes.create(request())
    await setting.sandboxes.detach_all()
    assert "detach" in setting.world.done
    assert "stop" not in setting.world.done
    assert setting.left() != []


async def ended(setting: Setting) -> None:
    """Return when no sandbox is left; the caller's time limit ends the wait."""
    for _ in range(1000):
        if not list(setting.sandboxes):
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"still there: {[s.story() for s in setting.sandboxes]}")
