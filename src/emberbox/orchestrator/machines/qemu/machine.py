"""One VM under QEMU."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

from emberbox.orchestrator.errors import MachineError, MachineGone
from emberbox.orchestrator.machines.qemu.command import CONSOLE_BYTES
from emberbox.orchestrator.machines.qemu.monitor import Monitor, event_data
from emberbox.orchestrator.machines.qemu.ram import save_ram
from emberbox.orchestrator.processes import is_alive, kill_and_wait, wait_gone
from emberbox.shared.sidefile import sync_directory

if TYPE_CHECKING:
    from pathlib import Path

    from emberbox.orchestrator.processes import ProcessIdentity

STATE_FILE = "devices"
RAM_FILE = "ram"

MIGRATION_SECONDS = 30.0
"""Loading or saving device state takes milliseconds; this is for a starved host."""

_COMPLAINTS_BYTES = 2048
_OUTPUT_BYTES = 1 << 20
_OUTPUT_CHECK_SECONDS = 10.0

_FINISHED = frozenset({"completed", "failed", "cancelled"})


class QemuMachine:
    """A running QEMU, driven through its control socket.

    `ram_fd` is the guest's memory when this machine was booted; a clone has none of its own.
    It is closed with the machine.
    """

    def __init__(
        self, identity: ProcessIdentity, monitor: Monitor, output: Path, ram_fd: int | None = None
    ) -> None:
        self._identity = identity
        self._monitor = monitor
        self._output = output
        self._ram_fd = ram_fd
        self._console = b""

    @property
    def identity(self) -> ProcessIdentity:
        """The QEMU process."""
        return self._identity

    async def pause(self) -> None:
        """Stop the vCPUs."""
        await self._monitor.execute("stop")

    async def resume(self) -> None:
        """Let the vCPUs run."""
        await self._monitor.execute("cont")

    async def snapshot(self, directory: Path) -> None:
        """Write device state and RAM of the paused machine."""
        if self._ram_fd is None:
            raise MachineError("a clone's memory is not a file of its own: it cannot be snapshot")
        state = os.open(directory / STATE_FILE, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            await migrate(self._monitor, "outgoing", state)
            os.fsync(state)
        finally:
            os.close(state)
        await asyncio.to_thread(save_ram, self._ram_fd, directory / RAM_FILE)
        sync_directory(directory)

    async def console(self) -> str:
        """The last 64 KiB of the guest's console, then what QEMU itself complained of."""
        # Reading drains QEMU's ring, so what was read is kept here.
        with contextlib.suppress(MachineError):
            new = await self._monitor.execute("ringbuf-read", device="console", size=CONSOLE_BYTES)
            self._console = (self._console + new.encode())[-CONSOLE_BYTES:]
        return self._console.decode(errors="replace") + self._complaints()

    async def stop(self) -> None:
        """End QEMU at once: the guest is not asked."""
        await kill_and_wait(self._identity)
        await self._let_go()

    async def wait(self) -> str:
        """Return when the guest has shut down or crashed, or QEMU has ended."""
        gone = asyncio.ensure_future(wait_gone(self._identity))
        ended = asyncio.ensure_future(self._guest_ended())
        bounding = asyncio.ensure_future(self._bound_output())
        try:
            await asyncio.wait({gone, ended}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done() and not ended.cancelled() and ended.exception() is None:
                return ended.result()
            await gone
            complaints = self._complaints().strip()
            return f"its VMM ended: {complaints}" if complaints else "its VMM ended"
        finally:
            for task in (gone, ended, bounding):
                task.cancel()
            await asyncio.gather(gone, ended, bounding, return_exceptions=True)

    async def detach(self) -> None:
        """Let QEMU live on without us."""
        await self._let_go()

    async def _guest_ended(self) -> str:
        """With -no-shutdown QEMU stays, stopped, when its guest has powered off or crashed."""
        async with self._monitor.events("SHUTDOWN") as events:
            if await self._is_shut_down():
                return "the guest ended"
            async for event in events:
                return f"the guest ended ({event_data(event).get('reason', 'unknown reason')})"
        raise MachineGone("QEMU ended")

    async def _bound_output(self) -> None:
        """Keep QEMU's own output small: there are complaints that a guest can cause at will."""
        while True:
            await asyncio.sleep(_OUTPUT_CHECK_SECONDS)
            with contextlib.suppress(OSError):
                if self._output.stat().st_size > _OUTPUT_BYTES:
                    os.truncate(self._output, 0)  # QEMU appends, so it goes on at the start

    async def _is_shut_down(self) -> bool:
        try:
            status = await self._monitor.execute("query-status")
        except MachineGone:
            raise
        except MachineError:
            return False  # a starved host: the event will tell
        return bool(status["status"] == "shutdown")

    async def _let_go(self) -> None:
        await self._monitor.close()
        if self._ram_fd is not None:
            os.close(self._ram_fd)
            self._ram_fd = None

    def _complaints(self) -> str:
        with contextlib.suppress(OSError), self._output.open("rb") as output:
            output.seek(max(0, self._output.stat().st_size - _COMPLAINTS_BYTES))
            return output.read().decode(errors="replace")
        return ""


async def migrate(monitor: Monitor, direction: str, state: int) -> None:
    """Save or load the device state through a descriptor; RAM stays where it is.

    `x-ignore-shared` leaves out of the stream the memory that is a file of ours.
    Raises MachineError with QEMU's reason.
    """
    capabilities = [
        {"capability": "x-ignore-shared", "state": True},
        {"capability": "events", "state": True},
    ]
    await monitor.execute("migrate-set-capabilities", capabilities=capabilities)
    await monitor.hand_over(state, "state")
    command = "migrate" if direction == "outgoing" else "migrate-incoming"
    async with monitor.events("MIGRATION") as events:
        await monitor.execute(command, uri="fd:state")
        try:
            async with asyncio.timeout(MIGRATION_SECONDS):
                async for event in events:
                    status = event_data(event).get("status")
                    if status in _FINISHED:
                        break
        except TimeoutError:
            status = f"not finished in {MIGRATION_SECONDS} s"
    if status != "completed":
        details = await monitor.execute("query-migrate")
        reason = details.get("error-desc", status)
        raise MachineError(f"QEMU could not move its device state ({direction}): {reason}")


async def connect(identity: ProcessIdentity, directory: Path) -> Monitor:
    """Connect to a QEMU that must be alive. Raises MachineGone."""
    monitor = await Monitor.connect(directory)
    if not is_alive(identity):
        await monitor.close()
        raise MachineGone("another process has taken the place of this QEMU")
    return monitor
