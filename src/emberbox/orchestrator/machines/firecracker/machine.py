"""One VM under Firecracker."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
from functools import partial
from typing import TYPE_CHECKING

from emberbox.orchestrator import threads
from emberbox.orchestrator.errors import MachineError, MachineGone
from emberbox.orchestrator.machines import saved_memory
from emberbox.orchestrator.machines.descriptors import opened
from emberbox.orchestrator.machines.driver import Saved
from emberbox.orchestrator.machines.firecracker import calls, dumps, view
from emberbox.orchestrator.machines.firecracker.api import Api
from emberbox.orchestrator.machines.firecracker.pipes import Output
from emberbox.orchestrator.machines.firecracker.view import LOG, METRICS
from emberbox.orchestrator.machines.pages import Run
from emberbox.orchestrator.machines.saved_memory import (
    MEMORY_FILE,
    RAM_FILE,
    STATE_FILE,
    SavedMemory,
)
from emberbox.orchestrator.processes import (
    exit_status,
    how_it_ended,
    is_alive,
    kill_and_wait,
    resident_mb,
)
from emberbox.shared.sidefile import sync_directory, sync_together, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from emberbox.orchestrator.machines.firecracker.calls import Call
    from emberbox.orchestrator.machines.firecracker.facts import Facts
    from emberbox.orchestrator.machines.firecracker.view import View
    from emberbox.orchestrator.processes import ProcessIdentity

DUMP_SECONDS = 300.0
LOAD_SECONDS = 30.0
"""Writing and mapping guest memory: for gigabytes on a starved host."""

SOCKET_SECONDS = 10.0
_SOCKET_POLL = 0.002
_LOOK_SECONDS = 1.0
_LOG_LINES = 10


class FirecrackerMachine:
    """A running Firecracker, driven through its API."""

    def __init__(self, identity: ProcessIdentity, own: View, facts: Facts) -> None:
        self._identity, self._view, self._facts = identity, own, facts
        self._api: Api | None = None
        self._output = Output(own.console, own.host / LOG, own.host / METRICS)

    @property
    def identity(self) -> ProcessIdentity:
        """The Firecracker process."""
        return self._identity

    # Beginning

    async def connect(self) -> None:
        """Connect, as soon as its socket is there. Raises MachineGone, MachineError."""
        try:
            async with asyncio.timeout(SOCKET_SECONDS):
                while not await self._try_to_connect():
                    if not is_alive(self._identity):
                        raise MachineGone("Firecracker ended before its socket was there")
                    await asyncio.sleep(_SOCKET_POLL)
        except TimeoutError as error:
            raise MachineError(
                f"Firecracker's socket was not there after {SOCKET_SECONDS} s"
            ) from error
        if not is_alive(self._identity):
            raise MachineGone("another process has taken the place of this Firecracker")

    async def put_all(self, wanted: Iterable[Call]) -> None:
        """PUTs in order. Raises MachineError."""
        for call in wanted:
            await self._required_api.put(call.path, call.body)

    async def load(self, call: Call) -> None:
        """Take on memory and device state; it stands still then. Raises MachineError."""
        await self._required_api.put(call.path, call.body, LOAD_SECONDS)

    async def limit(self, rates: calls.Rates) -> None:
        """Set what it may move in a second. Raises MachineError."""
        for call in calls.limits(rates):
            await self._required_api.patch(call.path, call.body)

    def track(self) -> None:
        """From here on its log of dirty pages tells what has changed. Raises OSError."""
        (self._view.directory / view.TRACKED).touch()

    def moved(self, directory: Path) -> None:
        """Its run directory has another name now."""
        self._view = dataclasses.replace(self._view, directory=directory)

    # Pausing and saving

    async def pause(self) -> None:
        """Stop the vCPUs."""
        await self._required_api.patch(*calls.PAUSE)

    async def resume(self) -> None:
        """Let the vCPUs run, if they do not."""
        if await self._state() != "Running":
            await self._required_api.patch(*calls.RESUME)

    def most_saved_mb(self, ram_mb: int) -> int:
        """By Firecracker, and by us who copy it."""
        if not (self._facts.tracks_changes and self._tracked):
            return 2 * ram_mb
        changes = min(ram_mb, resident_mb(self._identity.pid))
        return 2 * changes + min(ram_mb, changes + self._facts.saved_mb)

    async def save(self, directory: Path) -> Saved:
        """Write device state and what the memory differs from its base."""
        await self._require_paused()
        changes = await asyncio.to_thread(self._can_tell_changes)
        # Firecracker begins a new log with each dump: when anything fails, the pages in this one
        # are known to nobody, and the next save takes all memory.
        (self._view.directory / view.TRACKED).unlink(missing_ok=True)
        await self._dump(changes=changes)
        return await threads.run_to_end(partial(self._take, directory, changes=changes))

    async def snapshot(self, directory: Path) -> None:
        """Write device state and RAM."""
        await self._require_paused()
        if self._facts.based:
            raise MachineError("a clone's memory has a base: save it instead")
        await self._dump(changes=False)
        await threads.run_to_end(partial(self._take_whole, directory))

    # Looking

    async def console(self) -> str:
        """The last 64 KiB of the guest's console, then the end of Firecracker's log."""
        return self._output.console.read() + self._complaints()

    async def wait(self) -> str:
        """Return when Firecracker has ended: it ends with its guest."""
        looking = asyncio.ensure_future(self._look_after_output())
        try:
            how = how_it_ended(await exit_status(self._identity))
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
        return ": ".join(["its VMM ended", *filter(None, (how, self._complaints().strip()))])

    # Ending

    async def stop(self) -> None:
        """End Firecracker at once: the guest is not asked."""
        await kill_and_wait(self._identity)
        await self.console()  # which is asked for later, when the pipes are closed
        self._let_go()

    async def detach(self) -> None:
        """Let Firecracker live on without us."""
        self._let_go()

    def _let_go(self) -> None:
        if self._api is not None:
            self._api.close()
            self._api = None
        self._output.close()

    async def _try_to_connect(self) -> bool:
        try:
            api = Api(self._view.open_socket())
        except FileNotFoundError:
            return False
        try:
            await api.connect()
        except ConnectionRefusedError:  # it does not listen yet
            api.close()
            return False
        except (OSError, TimeoutError) as error:
            api.close()
            raise MachineGone(f"Firecracker does not answer on its socket: {error!r}") from error
        self._api = api
        return True

    @property
    def _required_api(self) -> Api:
        if self._api is None:
            raise MachineGone("Firecracker has ended")
        return self._api

    async def _state(self) -> str:
        return str((await self._required_api.get("/")).get("state", "unknown"))

    async def _require_paused(self) -> None:
        if (state := await self._state()) != "Paused":
            raise MachineError(f"only a paused VM can be saved; this one is in state {state}")

    async def _dump(self, *, changes: bool) -> None:
        self._view.remove_dumped()
        call = calls.dump(changes=changes)
        try:
            await self._required_api.put(call.path, call.body, DUMP_SECONDS)
        except BaseException:
            self._view.remove_dumped()
            raise

    @property
    def _tracked(self) -> bool:
        return (self._view.directory / view.TRACKED).exists()

    def _can_tell_changes(self) -> bool:
        exact = dumps.exact_holes(self._view.directory)
        return self._facts.tracks_changes and self._tracked and exact

    def _take(self, directory: Path, *, changes: bool) -> Saved:
        """Copy what was dumped, with what was known before."""
        own = self._view.directory
        with self._dumped() as (state, dump), contextlib.ExitStack() as stack:
            base = stack.enter_context(opened(own / view.BASE)) if self._facts.based else None
            memory: saved_memory.Source = dumps.Whole(dump, self._ram_bytes, self._facts.based)
            if changes:
                dumps.add(dump, own / view.CHANGES)
                self._view.remove_dumped()
                memory = self._changed(stack)
            below = saved_memory.base_of(base) if base is not None else None
            path, made_with = directory / MEMORY_FILE, self._facts.made_with
            size = saved_memory.save(memory, made_with, state, path, below, durable=False)
        write_atomically(directory / STATE_FILE, state, 0o444, durable=False)
        sync_together(path, directory / STATE_FILE, directory)
        if changes:
            self.track()
        return Saved(made_with, memory_bytes=size, state_bytes=len(state))

    def _changed(self, stack: contextlib.ExitStack) -> dumps.Changed:
        """All that has changed since the load, and by then."""
        own = self._view.directory
        loaded, before = own / view.BASE, tuple[Run, ...]()
        if (own / view.LAYER).exists():
            loaded = own / view.LOADED
            layer = stack.enter_context(SavedMemory.opened(own / view.LAYER))
            before = layer.contents.runs
        return dumps.Changed(
            stack.enter_context(opened(loaded)),
            stack.enter_context(opened(own / view.CHANGES)),
            self._ram_bytes,
            based=self._facts.based,
            before=before,
        )

    def _take_whole(self, directory: Path) -> None:
        """Copy all memory, without what is zero."""
        with self._dumped() as (state, fd):
            dumps.write_sparse(fd, self._ram_bytes, directory / RAM_FILE)
        write_atomically(directory / STATE_FILE, state, 0o444)
        sync_directory(directory)

    @contextlib.contextmanager
    def _dumped(self) -> Iterator[tuple[bytes, int]]:
        """Device state and memory file of a dump, which is removed after the block."""
        try:
            state = self._view.read_dumped_state()
            fd = self._view.open_dumped_memory(self._ram_bytes)
            try:
                yield state, fd
            finally:
                os.close(fd)
        finally:
            self._view.remove_dumped()

    @property
    def _ram_bytes(self) -> int:
        return self._facts.ram_mb << 20

    async def _look_after_output(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self._output.console.make_room()
            self._output.log.make_room()
            self._keep_metrics()

    def _keep_metrics(self) -> None:
        """Firecracker writes a line each minute; the last whole one is kept for people."""
        for line in reversed(self._output.metrics.take_lines()):
            with contextlib.suppress(ValueError, OSError):
                json.loads(line)
                path = self._view.directory / view.METRICS_FILE
                write_atomically(path, line, 0o600, durable=False)
                return

    def _complaints(self) -> str:
        return "\n".join(self._output.log.read().splitlines()[-_LOG_LINES:])
