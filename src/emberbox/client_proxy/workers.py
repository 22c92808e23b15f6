"""Keeps several workers of the client proxy alive.

They listen on the same ports (SO_REUSEPORT), so that the kernel gives the connections of one that
has died to the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from emberbox.proxying.counts import total
from emberbox.proxying.sockets import open_listener
from emberbox.shared.errors import StartupError

if TYPE_CHECKING:
    from emberbox.client_proxy.settings import Settings
    from emberbox.proxying.counts import Counts

_log = structlog.get_logger()
READY = b"ready\n"
_START_TIMEOUT = 20.0
_FIRST_WAIT = 0.1
_LONGEST_WAIT = 5.0
_KILL_AFTER_DRAIN = 2.0


@dataclass(slots=True)
class _Worker:
    process: asyncio.subprocess.Process
    row: Path

    @classmethod
    async def start(cls, row: Path) -> _Worker:
        """Return when it serves. Raises StartupError."""
        module = ("-P", "-m", "emberbox.client_proxy.worker", "--row", str(row))
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable, *module, stdin=pipe, stdout=pipe
        )
        worker = cls(process, row)
        try:
            await worker._wait_ready()
        except BaseException:
            await worker.drain(0)
            raise
        return worker

    async def _wait_ready(self) -> None:
        assert self.process.stdout is not None  # noqa: S101 - it is a pipe
        said = b""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_TIMEOUT):
                said = await self.process.stdout.readline()
        if said != READY:
            raise StartupError("a worker of the client proxy did not start: see the log")

    async def drain(self, seconds: float) -> None:
        """SIGTERM, and SIGKILL when that is not enough."""
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        try:
            async with asyncio.timeout(seconds + _KILL_AFTER_DRAIN):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


class Workers:
    """As many as the settings say."""

    def __init__(self, settings: Settings) -> None:
        """Raises StartupError when a port is taken: workers share ports, so that their own
        attempts would not tell."""
        self._settings = settings
        self._place = tempfile.TemporaryDirectory(prefix="emberbox-client-proxy-")
        self._rows = [Path(self._place.name, f"{n}.counts") for n in range(settings.workers)]
        self._watchers: list[asyncio.Task[None]] = []
        self._running: dict[Path, _Worker] = {}
        for port, _ in settings.ports:
            open_listener(settings.host, port).close()

    def read_counts(self) -> Counts:
        """Of all workers that there are and were."""
        return total(self._rows)

    async def serve(self) -> None:
        """Return when all serve. Raises StartupError, and leaves none running."""
        started = await asyncio.gather(*map(_Worker.start, self._rows), return_exceptions=True)
        self._running = {worker.row: worker for worker in started if isinstance(worker, _Worker)}
        failure = next((error for error in started if isinstance(error, BaseException)), None)
        if failure is not None:
            await self.drain()
            raise failure
        self._watchers = [asyncio.create_task(self._watch(row)) for row in self._rows]

    async def drain(self) -> int:
        """End them; the workers' logs tell how many connections were cut."""
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        timeout = self._settings.drain_timeout
        await asyncio.gather(*(worker.drain(timeout) for worker in self._running.values()))
        self._place.cleanup()
        return 0

    async def _watch(self, row: Path) -> None:
        """Start a worker again whenever it ends: at once when it had served, else ever later."""
        while True:
            worker = self._running[row]
            status = await worker.process.wait()
            _log.error("client proxy worker died", pid=worker.process.pid, status=status)
            wait = _FIRST_WAIT
            while (again := await _try_to_start(row)) is None:
                await asyncio.sleep(wait)
                wait = min(wait * 2, _LONGEST_WAIT)
            self._running[row] = again


async def _try_to_start(row: Path) -> _Worker | None:
    try:
        return await _Worker.start(row)
    except (StartupError, OSError) as error:
        _log.error("client proxy worker did not start again", reason=str(error))
        return None
