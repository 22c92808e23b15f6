"""VMMs that nobody knows: they were being started when their orchestrator was killed."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from emberbox.orchestrator.processes import identify, kill_and_wait
from emberbox.orchestrator.sandboxes.holdings import machine_name

if TYPE_CHECKING:
    from collections.abc import Collection

    from emberbox.orchestrator.processes import ProcessIdentity
    from emberbox.orchestrator.sandboxes.holdings import Host

_log = structlog.get_logger(__name__)


async def end_strays(host: Host, known: Collection[ProcessIdentity | None]) -> None:
    """End the VMMs of this node that are not `known`."""
    for identity in await asyncio.to_thread(_vmms, host):
        if identity not in known:
            _log.warning("ending a stray VMM", pid=identity.pid)
            await kill_and_wait(identity)


def _vmms(host: Host) -> list[ProcessIdentity]:
    """The live VMMs of this node, by their name and uid."""
    prefix = machine_name(host.node, "")
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ProcessLookupError):
            if process.stat().st_uid >= host.uid_base and _is_named(process, prefix):
                found.append(identify(int(process.name)))
    return found


def _is_named(process: Path, prefix: str) -> bool:
    arguments = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    return any(argument.startswith(prefix) for argument in arguments)
