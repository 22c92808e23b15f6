"""The interface that every VMM is driven through.

A `Driver` starts machines; a `Machine` is one running VM. What is not particular to a VMM
(network slots, disks, images, envd, limits, records, re-adoption) lives above this interface,
and nothing above it may ask which driver it holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from emberbox.orchestrator.network.addresses import Slot
    from emberbox.orchestrator.processes import ProcessIdentity


@dataclass(frozen=True, slots=True)
class DriverReport:
    """What probing found: `missing` names the one thing to change when it is not usable."""

    name: str
    usable: bool
    accelerator: str
    version: str
    missing: str


@dataclass(frozen=True, slots=True)
class Hardware:
    """The virtual machine's size. A memory snapshot fixes it for all its clones."""

    vcpu: int
    ram_mb: int


@dataclass(frozen=True, slots=True)
class BootFiles:
    """What a cold boot reads. None of it is ever written by a VM."""

    kernel: Path
    initrd: Path
    root: Path
    runtime: Path


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The place of one VM on the host, made before it starts and reclaimed after it is gone.

    name:      the VMM's name in the process list
    directory: run directory, root's alone; the VMM reaches nothing in it by path
    slot:      the network namespace the VMM runs in, with the tap it is given
    uid:       the VMM's own unprivileged uid and gid
    scratch:   the writable disk
    """

    name: str
    directory: Path
    slot: Slot
    uid: int
    scratch: Path


@dataclass(frozen=True, slots=True)
class MachineSnapshot:
    """A machine at rest: what `Machine.snapshot` wrote and `Driver.restore` reads.

    directory holds the driver's own files (device state, RAM image); they are written once and
    never changed. The scratch disk belongs to the caller, who copies it for each clone.
    made_with is the driver's `made_with` at that time: only the same can load it.
    """

    directory: Path
    hardware: Hardware
    boot: BootFiles
    made_with: str


@dataclass(frozen=True, slots=True)
class Saved:
    """What `Machine.save` wrote. made_with is what the VM runs under, which may be older than
    the driver's after an upgrade of the VMM: a driver restores only what equals its own."""

    made_with: str
    memory_bytes: int
    state_bytes: int


class Machine(Protocol):
    """One VM. Its process lives in its own session and outlives the orchestrator."""

    @property
    def identity(self) -> ProcessIdentity:
        """The VMM's process."""

    async def pause(self) -> None:
        """Stop the vCPUs; what the guest has given to its disks is in their files then.

        Not fsynced. Raises MachineError, MachineGone.
        """

    async def resume(self) -> None:
        """Let the vCPUs run, also after a `save`, failed or not. Raises MachineError."""

    async def save(self, directory: Path) -> Saved:
        """Write device state and what the memory differs from its base into an empty directory.

        The base is the snapshot that the machine is a clone of, restored from a save or not, and
        nothing for a booted machine: a save is whole with its base alone, however often the
        machine was saved before. The machine must be paused and stays so, whatever happens.
        Files and directory are fsynced when this returns; a name for the directory that lasts is
        the caller's, and so is the scratch disk. After an error the directory holds nothing of
        use. Raises MachineError, OSError (ENOSPC among them).
        """

    async def snapshot(self, directory: Path) -> None:
        """Write device state and all RAM of a paused machine into an existing empty directory.

        Files are fsynced. For a machine that was booted; what a clone has saved becomes a
        snapshot by `Driver.materialise`. Raises MachineError, OSError.
        """

    async def console(self) -> str:
        """The last 64 KiB that the guest printed; empty when the VMM is gone."""

    def moved(self, directory: Path) -> None:
        """Its run directory has another name now; what is in it is as it was."""

    async def stop(self) -> None:
        """End the VMM at once and wait until its process is gone. Never raises for a dead one."""

    async def wait(self) -> str:
        """Return, when the guest or its VMM has ended by itself, with what is known of why."""

    async def detach(self) -> None:
        """Let go of a machine that shall live on without this process."""


class BeforeRunning(Protocol):
    """What is to be done while a continued machine still stands still."""

    async def __call__(self, machine: Machine) -> None:
        """The last moment at which nothing of the saved machine has changed."""


class Driver(Protocol):
    """Starts machines with one VMM."""

    @property
    def report(self) -> DriverReport:
        """What probing found."""

    @property
    def made_with(self) -> str:
        """Everything about VMM and host that a snapshot depends on, as one comparable text."""

    async def boot(self, hardware: Hardware, files: BootFiles, place: Surroundings) -> Machine:
        """Start a VM from its kernel. Returns when the vCPUs run. Raises MachineError."""

    async def restore(
        self,
        snapshot: MachineSnapshot,
        place: Surroundings,
        saved: Path | None = None,
        before_running: BeforeRunning | None = None,
    ) -> Machine:
        """Start a clone of a snapshot, or continue a saved machine. Returns when the vCPUs run.

        `saved` is what `Machine.save` wrote; `snapshot` is then the one that machine was a clone
        of. Of a machine that was booted, hardware and boot files of `snapshot` are used alone.
        The guest continues where it was; its wall clock is for the caller to correct. Nothing
        is changed: after an error it can be tried again.
        `before_running` is awaited when all is loaded and before the guest runs; when it raises,
        the machine is stopped. Once it has returned the machine is the caller's, also when an
        error follows.
        Raises MachineError, of it SnapshotUnusable when trying again cannot help; OSError.
        """

    async def materialise(
        self, snapshot: MachineSnapshot, saved: Path, directory: Path
    ) -> MachineSnapshot:
        """Make a snapshot, in an existing empty directory, of a saved clone of `snapshot`.

        It depends on neither any more, and is as quick to clone as a template. Files and
        directory are fsynced. Raises SnapshotUnusable, OSError.
        """

    def forget(self, snapshot: MachineSnapshot) -> None:
        """Drop what is kept for clones of a snapshot that no new one will start from."""

    async def adopt(self, identity: ProcessIdentity, place: Surroundings) -> Machine:
        """Take hold again of a VM that another orchestrator process started.

        Raises MachineGone when it has ended meanwhile.
        """
