"""Routes that tell of sandboxes as they begin and cease to run."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from emberbox.orchestrator.sandboxes.holdings import Routes
    from emberbox.orchestrator.sandboxes.records import SandboxRecord
    from emberbox.orchestrator.telemetry.telemetry import Telemetry

_log = structlog.get_logger(__name__)


class ObservedRoutes:
    """Opens and closes routes, and lets telemetry begin and end with them.

    A route is open exactly while a sandbox runs, also one that was taken over, and it is closed
    before the machine is stopped.
    """

    def __init__(self, routes: Routes, telemetry: Telemetry) -> None:
        self._routes = routes
        self._telemetry = telemetry

    async def open(self, record: SandboxRecord, address: str) -> None:
        """Let traffic in; returns when the workers know."""
        # Beside each other: a create waits for both.
        beginning = asyncio.create_task(_harmless(self._telemetry.begin(record), record))
        try:
            await self._routes.open(record, address)
        finally:
            await beginning

    async def close(self, record: SandboxRecord) -> None:
        """Stop traffic and reset its connections; returns when the workers have."""
        await asyncio.gather(
            self._routes.close(record), _harmless(self._telemetry.end(record), record)
        )


async def _harmless(work: Coroutine[None, None, None], record: SandboxRecord) -> None:
    """Whatever is wrong with telemetry, sandboxes start and end."""
    try:
        await work
    except Exception:  # noqa: BLE001 - logged whole; see above
        _log.exception("telemetry failed", sandbox_id=record.sandbox_id)
