"""Starting the DNS forwarder, or finding it again, and keeping it alive."""

from __future__ import annotations

import asyncio
import signal
import socket
from typing import TYPE_CHECKING

import structlog

from emberbox.orchestrator.helpers import Helper
from emberbox.orchestrator.network import netns
from emberbox.orchestrator.network.errors import DnsForwarderError
from emberbox.orchestrator.processes import is_alive, kill_and_wait, send_signal, wait_gone

if TYPE_CHECKING:
    from pathlib import Path

    from emberbox.orchestrator.network.addresses import NodeNetwork
    from emberbox.orchestrator.processes import ProcessIdentity

_log = structlog.stdlib.get_logger(__name__)

_READY_S = 15.0
_POLL_S = 0.02
_RESTART_PAUSE_S = 1.0
_STOP_S = 2.0
_PROBE_CONNECT_S = 1.0


class DnsProcess:
    """The node's forwarder: one process, recorded in `dns.json` of the state directory."""

    def __init__(
        self, network: NodeNetwork, state_directory: Path, host: Path, resolv_conf: Path
    ) -> None:
        self._network = network
        self._helper = Helper(
            "emberbox.orchestrator.network.dns",
            ("--listen", self._listen(), "--resolv-conf", str(resolv_conf)),
            record=state_directory / "dns.json",
            log=state_directory / "dns.log",
        )
        self._host = host
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
        found = self._helper.recorded()
        self._identity = found.process if found and found.fits else await self._replace()
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
        self._helper.forget()

    async def _keep(self) -> None:
        while self._identity is not None:
            await wait_gone(self._identity)
            _log.error("the DNS forwarder ended; starting it again", log=str(self._helper.log))
            await asyncio.sleep(_RESTART_PAUSE_S)
            try:
                self._identity = await self._replace()
            except (OSError, DnsForwarderError) as error:
                # The old identity stays, which is gone, so the next round tries again.
                _log.warning("the DNS forwarder could not be started", error=str(error))

    async def _replace(self) -> ProcessIdentity:
        before = self._helper.recorded()
        if before is not None:
            await _end(before.process)
        # A log of this life only: an old forwarder's troubles would mislead.
        self._helper.log.unlink(missing_ok=True)
        try:
            return await netns.call_in(self._host, self._helper.start)
        except ProcessLookupError:
            raise self._does_not_answer() from None

    def _listen(self) -> str:
        return f"{self._network.dns_address}:{self._network.dns_port}"

    async def _wait_ready(self, identity: ProcessIdentity) -> None:
        try:
            async with asyncio.timeout(_READY_S):
                while not await netns.call_in(self._host, self._answers):
                    if not is_alive(identity):
                        raise self._does_not_answer()
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise self._does_not_answer() from None

    def _does_not_answer(self) -> DnsForwarderError:
        return DnsForwarderError(self._listen(), str(self._helper.log))

    def _answers(self) -> bool:
        address = (self._network.dns_address, self._network.dns_port)
        try:
            socket.create_connection(address, timeout=_PROBE_CONNECT_S).close()
        except OSError:
            return False
        return True


async def _end(identity: ProcessIdentity) -> None:
    send_signal(identity, signal.SIGTERM)
    try:
        async with asyncio.timeout(_STOP_S):
            await wait_gone(identity)
    except TimeoutError:
        await kill_and_wait(identity)
