"""Slots made before they are needed."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import structlog

from emberbox.orchestrator.network import netns, node, slots
from emberbox.orchestrator.network.dns_process import DnsProcess
from emberbox.orchestrator.network.errors import (
    NetworkError,
    NoFreeSlotError,
    SlotMissingError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine, Iterable

    from emberbox.orchestrator.network.addresses import NodeNetwork, Slot
    from emberbox.orchestrator.network.policy import EgressPolicy

T = TypeVar("T")

_log = structlog.stdlib.get_logger(__name__)

DEFAULT_SIZE = 4
_MADE_AT_ONCE = 2
"""The kernel changes links one at a time; more threads only wait for one another."""

_RETRY_S = 1.0
_KEPT_OF_USED = 4
"""Slots that come back are kept for reuse until this many times the size of the pool are ready."""


class SlotPool:
    """The slots of one node. Every method belongs to the event loop in which `start` ran.

    An index is held from before its slot is made until after it is destroyed. Slots that are used
    again wait behind those that are ready, and indices go round: an address comes back as late as
    possible, so that who still holds an old route to it does not meet another guest there.
    """

    def __init__(
        self,
        network: NodeNetwork,
        state_directory: Path,
        *,
        size: int = DEFAULT_SIZE,
        host: Path | None = None,
        resolv_conf: Path = Path("/etc/resolv.conf"),
    ) -> None:
        """`size` slots are kept ready. `host` is the namespace of the host, by default ours."""
        self._network = network
        self._state_directory = state_directory
        self._size = size
        self._host = host or netns.own()
        self._resolv_conf = resolv_conf
        self.dns = DnsProcess(network, state_directory, self._host, resolv_conf)
        """The forwarder behind this node's gateways."""
        self._ready: deque[Slot] = deque()
        self._held: set[int] = set()
        self._leftovers: set[int] = set()
        self._last_index = 0
        self._making = asyncio.Semaphore(_MADE_AT_ONCE)
        self._wanted = asyncio.Event()
        self._tasks: set[asyncio.Task[object]] = set()

    @property
    def network(self) -> NodeNetwork:
        """The names and addresses of this node."""
        return self._network

    @property
    def ready(self) -> int:
        """How many slots wait to be acquired."""
        return len(self._ready)

    async def start(self) -> None:
        """Prepare the host and begin to fill the pool. Slots of an earlier start stay as they are.

        Raises NetworkError.
        """
        self._state_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        await netns.call_in(self._host, lambda: node.prepare(self._network, self._state_directory))
        self._leftovers = await self._existing()
        await self.dns.start()
        self._wanted.set()
        self._spawn(self._refill())

    async def acquire(self, policy: EgressPolicy) -> Slot:
        """A slot with that policy in force. One is made when none is ready.

        Raises NoFreeSlotError, NetworkError.
        """
        slot = self._ready.popleft() if self._ready else await self._make_for_caller()
        self._wanted.set()
        try:
            await self.set_policy(slot, policy)
        except BaseException:
            self._spawn(self.release(slot))
            raise
        return slot

    async def release(self, slot: Slot) -> None:
        """Give back a slot that is not used any more; its VMM must have ended.

        It is reset and waits for another guest, or is destroyed when enough wait or that failed. A
        failure to destroy is logged and the slot is left to `reclaim`.
        """
        await asyncio.shield(self._spawn(self._give_back(slot)))

    async def set_policy(self, slot: Slot, policy: EgressPolicy) -> None:
        """Replace what the guest may reach, in one step: open connections are held to it, too.

        Raises NetworkError; then the policy before stays.
        """
        await slots.set_policy(self._network, slot, policy)

    async def end_forbidden(self, slot: Slot, policy: EgressPolicy) -> None:
        """Reset the guest's open connections that the policy, now in force, has closed.

        It takes some ten milliseconds, as the kernel looks through the connections of all slots. A
        failure is logged: such a connection is dead, and its guest finds out when it next sends.
        """
        try:
            await slots.end_forbidden(self._network, slot, policy)
        except (NetworkError, OSError) as error:
            _log.warning("open connections not reset", slot=slot.netns, error=str(error))

    async def adopt(self, index: int, policy: EgressPolicy) -> Slot:
        """Take back the slot of a VM that lived on, its rules as a new slot's with that policy.

        Raises SlotMissingError, NetworkError.
        """
        slot = self._network.slot(index)
        missing = await self._missing_part(slot)
        if missing is not None:
            raise SlotMissingError(index, missing)
        await _finished(asyncio.to_thread(slots.renew, self._network, slot, policy))
        self._leftovers.discard(index)
        self._held.add(index)
        return slot

    async def reclaim(self, in_use: set[int]) -> None:
        """Destroy what earlier starts and failures left, except the slots in use."""
        await self._destroy_all((await self._existing()) - in_use - self._held)
        self._leftovers &= in_use
        self._wanted.set()

    async def close(self, keep: set[int]) -> None:
        """Destroy all slots but those to keep; when there are none, all else on the host too."""
        await self._stop_tasks()
        await self._destroy_all((await self._existing()) - keep)
        self._ready.clear()
        if keep:
            await self.dns.leave()
            return
        await self.dns.stop()
        await netns.call_in(self._host, lambda: node.remove(self._network))

    async def diagnose(self) -> list[str]:
        """What on this host is in the way, a sentence each with its remedy."""
        return await netns.call_in(
            self._host, lambda: node.diagnose(self._network, self._resolv_conf)
        )

    async def _refill(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                while len(self._ready) < self._size:
                    self._ready.append(await self._make())
            except NoFreeSlotError:
                continue  # the next release asks again
            except (NetworkError, OSError) as error:
                _log.warning("a network slot could not be made", error=str(error))
                await asyncio.sleep(_RETRY_S)
                self._wanted.set()

    async def _make_for_caller(self) -> Slot:
        making = self._spawn(self._make())
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            # The slot comes all the same; it is for the next caller.
            making.add_done_callback(self._keep_ready)
            raise

    def _keep_ready(self, made: asyncio.Task[Slot]) -> None:
        if not made.cancelled() and made.exception() is None:
            self._ready.append(made.result())

    async def _make(self) -> Slot:
        slot = self._network.slot(self._next_index())
        self._held.add(slot.index)
        try:
            async with self._making:
                await _finished(asyncio.to_thread(slots.make, self._network, slot, self._host))
        except BaseException:
            self._held.discard(slot.index)
            raise
        return slot

    async def _give_back(self, slot: Slot) -> None:
        # Looked at after the reset, with no await between: many may come back at once.
        if await self._reset(slot) and len(self._ready) < _KEPT_OF_USED * self._size:
            self._ready.append(slot)
            self._wanted.set()
        else:
            await self._destroy(slot)

    async def _reset(self, slot: Slot) -> bool:
        try:
            return await asyncio.to_thread(slots.reset, self._network, slot)
        except (NetworkError, OSError) as error:
            _log.warning("a network slot is not reused", slot=slot.netns, error=str(error))
            return False

    async def _destroy(self, slot: Slot) -> None:
        try:
            await _finished(asyncio.to_thread(slots.destroy, slot, self._host))
        except (NetworkError, OSError) as error:
            _log.error("a network slot could not be removed", slot=slot.netns, error=str(error))
            self._leftovers.add(slot.index)
        self._held.discard(slot.index)
        self._wanted.set()

    async def _destroy_all(self, indices: Iterable[int]) -> None:
        gone = [self._network.slot(index) for index in sorted(indices)]
        # All names first: the kernel then tears the namespaces down together.
        await _finished(asyncio.to_thread(_remove_names, gone))
        for slot in gone:
            await self._destroy(slot)

    def _next_index(self) -> int:
        unusable = self._held | self._leftovers
        capacity = self._network.capacity
        for step in range(capacity):
            index = (self._last_index + step) % capacity + 1
            if index not in unusable:
                self._last_index = index
                return index
        raise NoFreeSlotError(capacity)

    async def _existing(self) -> set[int]:
        return await netns.call_in(self._host, lambda: node.indices(self._network))

    async def _missing_part(self, slot: Slot) -> str | None:
        links = await netns.call_in(self._host, lambda: node.indices_of_links(self._network))
        if slot.index not in links:
            return f"its link {slot.link}"
        if slot.netns not in netns.names():
            return f"its namespace {slot.netns}"
        return None

    def _spawn(self, work: Coroutine[object, object, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _stop_tasks(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _remove_names(gone: list[Slot]) -> None:
    for slot in gone:
        # A failure shows again, and is logged, when the slot is destroyed.
        with contextlib.suppress(NetworkError, OSError):
            netns.delete(slot.netns)


async def _finished(work: Awaitable[None]) -> None:
    """Wait for what cannot be stopped half-way, even when cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
