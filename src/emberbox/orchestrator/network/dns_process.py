"""Starting the DNS forwarder, or finding it again, and keeping it alive."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

import structlog

from emberbox.orchestrator.network import netns
from emberbox.orchestrator.network.errors import DnsForwarderError
from emberbox.orchestrator.processes import (
    ProcessIdentity,
    identify,
    is_alive,
    kill_and_wait,
    send_signal,
    wait_gone,
)
from emberbox.shared.sidefile import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from emberbox.orchestrator.network.addresses import NodeNetwork

_log = structlog.stdlib.get_logger(__name__)

_READY_S = 15.0
_POLL_S = 0.02
_RESTART_PAUSE_S = 1.0
_STOP_S = 2.0
_PROBE_CONNECT_S = 1.0


@dataclass(frozen=True, slots=True)
class _Record:
    process: ProcessIdentity
    started_as: list[str]


class DnsProcess:
    """The node's forwarder: one process, recorded in `dns.json` of the state directory."""

    def __init__(
        self, network: NodeNetwork, state_directory: Path, host: Path, resolv_conf: Path
    ) -> None:
        self._network = network
        self._record = state_directory / "dns.json"
        self._log_file = state_directory / "dns.log"
        self._host = host
        self._resolv_conf = resolv_conf
        self._identity: ProcessIdentity | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def identity(self) -> ProcessIdentity | None:
        """The process that runs now."""
        return self._identity

    async def start(self) -> None:
        """Take over the forwarder that runs, or start one, and restart it whenever it ends.

        Raises DnsForwarderError when it does not begin to answer.
        """
        self._identity = self._recorded() or await self._replace()
        await self._wait_ready(self._identity)
        self._keeper = asyncio.create_task(self._keep())

    async def leave(self) -> None:
        """Stop watching; the forwarder goes on serving the VMs that stay."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None

    async def stop(self) -> None:
        """End the forwarder."""
        await self.leave()
        if self._identity is not None:
            await _end(self._identity)
            self._identity = None
        self._record.unlink(missing_ok=True)

    async def _keep(self) -> None:
        while self._identity is not None:
            await wait_gone(self._identity)
            _log.error("the DNS forwarder ended; starting it again", log=str(self._log_file))
            await asyncio.sleep(_RESTART_PAUSE_S)
            try:
                self._identity = await self._replace()
            except OSError as error:
                # The old identity stays, which is gone, so the next round tries again.
                _log.warning("the DNS forwarder could not be started", error=str(error))

    def _recorded(self) -> ProcessIdentity | None:
        """The forwarder of an earlier start, if it runs and was started as we would start it."""
        record = self._read_record()
        if record is None or record.started_as != self._started_as():
            return None
        return record.process if is_alive(record.process) else None

    async def _replace(self) -> ProcessIdentity:
        before = self._read_record()
        if before is not None:
            await _end(before.process)
        identity = await netns.call_in(self._host, self._spawn)
        record = {"process": identity.to_json(), "started_as": self._started_as()}
        write_atomically(self._record, json.dumps(record).encode(), 0o600)
        return identity

    def _spawn(self) -> ProcessIdentity:
        with self._log_file.open("wb") as log:
            child = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=_environment(),
                start_new_session=True,
            )
        identity = identify(child.pid)
        # It outlives this object on purpose; `wait_gone` reaps it.
        child.returncode = 0
        return identity

    def _command(self) -> list[str]:
        return [
            sys.executable,
            "-m",
            "emberbox.orchestrator.network.dns",
            "--listen",
            self._listen(),
            "--resolv-conf",
            str(self._resolv_conf),
        ]

    def _listen(self) -> str:
        return f"{self._network.dns_address}:{self._network.dns_port}"

    def _started_as(self) -> list[str]:
        return [version("emberbox"), *self._command()]

    def _read_record(self) -> _Record | None:
        try:
            data = json.loads(self._record.read_bytes())
            return _Record(ProcessIdentity.from_json(data["process"]), data["started_as"])
        except (FileNotFoundError, ValueError, KeyError):
            return None

    async def _wait_ready(self, identity: ProcessIdentity) -> None:
        try:
            async with asyncio.timeout(_READY_S):
                while not await netns.call_in(self._host, self._answers):
                    if not is_alive(identity):
                        raise DnsForwarderError(self._listen(), str(self._log_file))
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise DnsForwarderError(self._listen(), str(self._log_file)) from None

    def _answers(self) -> bool:
        address = (self._network.dns_address, self._network.dns_port)
        try:
            socket.create_connection(address, timeout=_PROBE_CONNECT_S).close()
        except OSError:
            return False
        return True


def _environment() -> dict[str, str]:
    """No secret of the orchestrator's goes to a process that guests talk to."""
    kept = ("PATH", "LANG", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
    return {name: os.environ[name] for name in kept if name in os.environ}


async def _end(identity: ProcessIdentity) -> None:
    send_signal(identity, signal.SIGTERM)
    try:
        async with asyncio.timeout(_STOP_S):
            await wait_gone(identity)
    except TimeoutError:
        await kill_and_wait(identity)
