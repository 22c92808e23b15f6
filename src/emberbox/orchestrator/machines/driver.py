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
    """

    directory: Path
    hardware: Hardware
    boot: BootFiles
    made_with: str


class Machine(Protocol):
    """One VM. Its process lives in its own session and outlives the orchestrator."""

    @property
    def identity(self) -> ProcessIdentity:
        """The VMM's process."""

    async def pause(self) -> None:
        """Stop the vCPUs. Raises MachineGone."""

    async def resume(self) -> None:
        """Let the vCPUs run. Raises MachineGone."""

    async def snapshot(self, directory: Path) -> None:
        """Write device state and RAM of a paused machine into an existing empty directory.

        Files are fsynced. Only a machine that was booted, not a clone, can do this so far.
        Raises MachineError.
        """

    async def console(self) -> str:
        """The last 64 KiB that the guest printed; empty when the VMM is gone."""

    async def stop(self) -> None:
        """End the VMM at once and wait until its process is gone. Never raises for a dead one."""

    async def wait(self) -> str:
        """Return, when the guest or its VMM has ended by itself, with what is known of why."""

    async def detach(self) -> None:
        """Let go of a machine that shall live on without this process."""


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

    async def restore(self, snapshot: MachineSnapshot, place: Surroundings) -> Machine:
        """Start a clone of a snapshot. Returns when the vCPUs run. Raises MachineError."""

    def forget(self, snapshot: MachineSnapshot) -> None:
        """Drop what is kept for clones of a snapshot that no new one will start from."""

    async def adopt(self, identity: ProcessIdentity, place: Surroundings) -> Machine:
        """Take hold again of a VM that another orchestrator process started.

        Raises MachineGone when it has ended meanwhile.
        """
