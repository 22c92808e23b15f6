"""One VM under QEMU."""

from __future__ import annotations

import asyncio
import contextlib
import os
from functools import partial
from typing import TYPE_CHECKING

from emberbox.orchestrator import threads
from emberbox.orchestrator.errors import MachineError, MachineGone
from emberbox.orchestrator.machines import saved_memory
from emberbox.orchestrator.machines.driver import Saved
from emberbox.orchestrator.machines.qemu import guest_memory
from emberbox.orchestrator.machines.qemu.command import CONSOLE_BYTES
from emberbox.orchestrator.machines.qemu.monitor import Monitor, event_data
from emberbox.orchestrator.machines.qemu.ram import save_ram
from emberbox.orchestrator.machines.saved_memory import (
    MEMORY_FILE,
    RAM_FILE,
    STATE_FILE,
    base_of,
)
from emberbox.orchestrator.processes import (
    exit_status,
    how_it_ended,
    is_alive,
    kill_and_wait,
    resident_mb,
)
from emberbox.shared.sidefile import sync_together

if TYPE_CHECKING:
    from pathlib import Path

    from emberbox.orchestrator.machines.saved_memory import Pages
    from emberbox.orchestrator.processes import ProcessIdentity

OUTPUT_FILE = "vmm.log"
MADE_WITH_FILE = "made-with"
"""In the run directory: what QEMU prints, and what it was started with."""

MIGRATION_SECONDS = 30.0
"""Loading device state takes milliseconds; this is for a starved host."""

_COMPLAINTS_BYTES = 2048
_OUTPUT_BYTES = 1 << 20
_OUTPUT_CHECK_SECONDS = 10.0

_REASONS = {
    "guest-shutdown": "it powered itself off",
    "guest-reset": "it rebooted, or its kernel gave up",
    "guest-panic": "its kernel panicked",
}
"""QEMU's names for why a guest ended. Our kernels reboot when they panic."""

_FINISHED = frozenset({"completed", "failed", "cancelled"})


class QemuMachine:
    """A running QEMU, driven through its control socket.

    `directory` is its run directory. All else that is needed later is asked of the process, so
    that an adopted machine can do what a new one can.
    """

    def __init__(self, identity: ProcessIdentity, monitor: Monitor, directory: Path) -> None:
        self._identity = identity
        self._monitor = monitor
        self._console = b""
        self.moved(directory)

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

    def most_saved_mb(self, ram_mb: int) -> int:
        """All that QEMU has in memory of its own."""
        return min(ram_mb, resident_mb(self._identity.pid))

    async def save(self, directory: Path) -> Saved:
        """Write device state and what the memory differs from its base."""
        await self._require_paused()
        await self._save_devices(directory / STATE_FILE)
        return await threads.run_to_end(partial(self._save_memory, directory))

    async def snapshot(self, directory: Path) -> None:
        """Write device state and RAM."""
        await self._require_paused()
        await self._save_devices(directory / STATE_FILE)
        await threads.run_to_end(partial(self._save_ram, directory))

    async def load(self, state: Path, pages: Pages | None) -> None:
        """Take on pages over the base, if there are any, and the device state of a saved machine.

        For a QEMU that was started to be loaded. Raises MachineError, OSError.
        """
        if pages is not None:
            await threads.run_to_end(partial(self._load_memory, pages))
        fd = os.open(state, os.O_RDONLY | os.O_CLOEXEC)
        try:
            await _load_devices(self._monitor, fd)
        finally:
            os.close(fd)

    async def console(self) -> str:
        """The last 64 KiB of the guest's console, then what QEMU itself complained of."""
        # Reading drains QEMU's ring, so what was read is kept here.
        with contextlib.suppress(MachineError):
            new = await self._monitor.execute("ringbuf-read", device="console", size=CONSOLE_BYTES)
            self._console = (self._console + new.encode())[-CONSOLE_BYTES:]
        return self._console.decode(errors="replace") + self._complaints()

    def moved(self, directory: Path) -> None:
        """Its run directory has another name now."""
        self._directory = directory
        self._output = directory / OUTPUT_FILE

    async def stop(self) -> None:
        """End QEMU at once: the guest is not asked."""
        await kill_and_wait(self._identity)
        await self._let_go()

    async def wait(self) -> str:
        """Return when the guest has shut down or crashed, or QEMU has ended."""
        gone = asyncio.ensure_future(exit_status(self._identity))
        ended = asyncio.ensure_future(self._guest_ended())
        bounding = asyncio.ensure_future(self._bound_output())
        try:
            await asyncio.wait({gone, ended}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done() and not ended.cancelled() and ended.exception() is None:
                return ended.result()
            told = (how_it_ended(await gone), self._complaints().strip())
            return ": ".join(["its VMM ended", *filter(None, told)])
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
                reason = str(event_data(event).get("reason", "unknown reason"))
                return f"the guest ended: {_REASONS.get(reason, reason)}"
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
            return await self._status() == "shutdown"
        except MachineGone:
            raise
        except MachineError:
            return False  # a starved host: the event will tell

    async def _status(self) -> str:
        return str((await self._monitor.execute("query-status"))["status"])

    async def _require_paused(self) -> None:
        status = await self._status()
        if status != "paused":
            raise MachineError(f"only a paused VM can be saved; this one is in state {status}")

    async def _save_devices(self, path: Path) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            async with self._monitor.lent(fd) as name:
                # live: for Xen's own migration, which lets go of the disks.
                await self._monitor.execute("xen-save-devices-state", filename=name, live=False)
        finally:
            os.close(fd)

    def _save_memory(self, directory: Path) -> Saved:
        made_with = self._made_with()
        state = (directory / STATE_FILE).read_bytes()
        with guest_memory.opened(self._identity) as memory, memory.file() as ram:
            base = base_of(ram) if memory.based else None
            path = directory / MEMORY_FILE
            size = saved_memory.save(memory, made_with, state, path, base, durable=False)
        sync_together(path, directory / STATE_FILE, directory)
        return Saved(made_with, memory_bytes=size, state_bytes=len(state))

    def _save_ram(self, directory: Path) -> None:
        with guest_memory.opened(self._identity) as memory:
            if not memory.mapping.shared:
                raise MachineError("a clone's memory is not a file of its own: save it instead")
            with memory.file() as ram:
                save_ram(ram, directory / RAM_FILE)
        sync_together(directory / STATE_FILE, directory)

    def _load_memory(self, pages: Pages) -> None:
        with guest_memory.opened(self._identity) as memory:
            for parts in pages:
                for offset, data in parts:
                    memory.write(offset, data)

    def _made_with(self) -> str:
        try:
            return (self._directory / MADE_WITH_FILE).read_text()
        except FileNotFoundError:  # started by a version that did not write it
            return ""

    async def _let_go(self) -> None:
        await self._monitor.close()

    def _complaints(self) -> str:
        with contextlib.suppress(OSError), self._output.open("rb") as output:
            output.seek(max(0, self._output.stat().st_size - _COMPLAINTS_BYTES))
            return output.read().decode(errors="replace")
        return ""


async def _load_devices(monitor: Monitor, state: int) -> None:
    await monitor.execute(
        "migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}]
    )
    await monitor.hand_over(state, "state")
    async with monitor.events("MIGRATION") as events:
        await monitor.execute("migrate-incoming", uri="fd:state")
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
        raise MachineError(f"QEMU could not load the device state: {reason}")


async def connect(identity: ProcessIdentity, directory: Path) -> Monitor:
    """Connect to a QEMU that must be alive. Raises MachineGone."""
    monitor = await Monitor.connect(directory)
    if not is_alive(identity):
        await monitor.close()
        raise MachineGone("another process has taken the place of this QEMU")
    return monitor
