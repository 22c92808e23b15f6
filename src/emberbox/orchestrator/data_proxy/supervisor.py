"""Starts the data proxy's workers, or takes over those that an earlier orchestrator left."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from emberbox.orchestrator import processes
from emberbox.orchestrator.helpers import Helper
from emberbox.proxying.sockets import open_listener
from emberbox.shared.errors import StartupError

if TYPE_CHECKING:
    from pathlib import Path

    from emberbox.orchestrator.data_proxy.feed import RouteFeed
    from emberbox.orchestrator.processes import ProcessIdentity

_log = structlog.get_logger()

_FIRST_WAIT = 0.1
_LONGEST_WAIT = 5.0
_LONG_LIFE = 10.0
"""Seconds after which a worker's death is taken for a first one again."""
_KILL_AFTER_DRAIN = 2.0


@dataclass(frozen=True, slots=True)
class DataProxyOptions:
    """How the workers run. `directory` holds a record and a log of each; times are seconds.

    `api_address` is host:port of the API server's internal gRPC.
    """

    directory: Path
    feed_socket: Path
    secret_file: Path
    api_address: str
    host: str = "127.0.0.1"
    port: int = 5007
    workers: int = 1
    start_timeout: float = 20.0
    drain_timeout: float = 10.0


class DataProxySupervisor:
    """Keeps `workers` workers alive. The feed must be started first: they connect to it."""

    def __init__(self, options: DataProxyOptions, feed: RouteFeed) -> None:
        self._options = options
        self._feed = feed
        self._workers: dict[int, ProcessIdentity] = {}
        self._watchers: list[asyncio.Task[None]] = []

    @property
    def pids(self) -> set[int]:
        """The workers' processes."""
        return {identity.pid for identity in self._workers.values()}

    async def start(self) -> None:
        """Return when every worker serves with the present table.

        Raises StartupError when the port is taken or a worker does not come up; then none of
        the workers started here is left.
        """
        options = self._options
        options.directory.mkdir(parents=True, exist_ok=True)
        await self._adopt()
        adopted = set(self._workers)
        if not adopted:
            # Workers share the port, so this finds a holder that their own bind would not: a
            # worker of ours that no record names.
            open_listener(options.host, options.port).close()
        try:
            for slot in set(range(options.workers)) - adopted:
                self._spawn(slot)
            await self._wait_ready()
        except BaseException:
            await self._end(set(self._workers) - adopted)
            raise
        self._watchers = [asyncio.create_task(self._watch(slot)) for slot in self._workers]

    async def stop(self) -> None:
        """Let the workers drain, then end them."""
        await self._stop_watching()
        await self._end(set(self._workers))

    async def detach(self) -> None:
        """Leave the workers running for the next orchestrator."""
        await self._stop_watching()
        self._workers.clear()

    async def _adopt(self) -> None:
        """Take over workers that run as we would start them; end and forget the others."""
        for record in sorted(self._options.directory.glob("worker-*.json")):
            slot = int(record.stem.removeprefix("worker-"))
            found = self._helper(slot).recorded()
            if found is not None and found.fits and slot < self._options.workers:
                self._workers[slot] = found.process
                _log.info("data proxy worker adopted", slot=slot, pid=found.process.pid)
                continue
            if found is not None:
                await self._end_one(found.process)
            record.unlink()

    def _helper(self, slot: int) -> Helper:
        directory = self._options.directory
        return Helper(
            "emberbox.orchestrator.data_proxy",
            tuple(self._arguments()),
            record=directory / f"worker-{slot}.json",
            log=directory / f"worker-{slot}.log",
        )

    def _arguments(self) -> list[str]:
        options = self._options
        return [
            *("--socket", str(options.feed_socket.absolute())),
            *("--secret-file", str(options.secret_file.absolute())),
            *("--api", options.api_address),
            *("--host", options.host, "--port", str(options.port)),
            *("--drain-timeout", str(options.drain_timeout)),
        ]

    def _spawn(self, slot: int) -> None:
        try:
            self._workers[slot] = self._helper(slot).start()
        except ProcessLookupError:
            raise self._not_started(slot) from None

    async def _wait_ready(self) -> None:
        ready = asyncio.create_task(self._feed.wait_ready(self.pids))
        ends = {
            asyncio.create_task(processes.wait_gone(identity)): slot
            for slot, identity in self._workers.items()
        }
        try:
            done, _ = await asyncio.wait(
                {ready, *ends},
                timeout=self._options.start_timeout,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            for task in (ready, *ends):
                task.cancel()
            await asyncio.gather(ready, *ends, return_exceptions=True)
        if ready not in done:
            slot = next((ends[task] for task in ends if task in done), None)
            raise self._not_started(slot)

    def _not_started(self, slot: int | None) -> StartupError:
        where = f"the data proxy on {self._options.host}:{self._options.port}"
        if slot is None:
            seconds = self._options.start_timeout
            return StartupError(
                f"{where} did not come up within {seconds:g} s: see {self._options.directory}"
            )
        return StartupError(f"{where} ended while starting: see {self._helper(slot).log}")

    async def _watch(self, slot: int) -> None:
        """Start a worker again whenever it dies; ever later when it dies young."""
        loop = asyncio.get_running_loop()
        wait = 0.0
        while True:
            since = loop.time()
            pid = self._workers[slot].pid
            await processes.wait_gone(self._workers[slot])
            lived = loop.time() - since
            wait = 0.0 if lived >= _LONG_LIFE else min(max(wait * 2, _FIRST_WAIT), _LONGEST_WAIT)
            _log.error("data proxy worker died", slot=slot, pid=pid, again_in=wait)
            await asyncio.sleep(wait)
            with contextlib.suppress(StartupError, OSError):
                self._spawn(slot)

    async def _stop_watching(self) -> None:
        for task in self._watchers:
            task.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        self._watchers = []

    async def _end(self, slots: set[int]) -> None:
        identities = {slot: self._workers.pop(slot) for slot in slots}
        await asyncio.gather(*map(self._end_one, identities.values()))
        for slot in identities:
            self._helper(slot).forget()

    async def _end_one(self, identity: ProcessIdentity) -> None:
        processes.send_signal(identity, signal.SIGTERM)
        try:
            async with asyncio.timeout(self._options.drain_timeout + _KILL_AFTER_DRAIN):
                await processes.wait_gone(identity)
        except TimeoutError:
            await processes.kill_and_wait(identity)
