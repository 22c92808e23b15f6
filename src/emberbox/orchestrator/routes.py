"""A sandbox's route, as the feed to the data proxy takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emberbox.orchestrator.data_proxy.messages import Route

if TYPE_CHECKING:
    from emberbox.orchestrator.data_proxy.feed import RouteFeed
    from emberbox.orchestrator.sandboxes.records import SandboxRecord


class FeedRoutes:
    """Opens and closes routes in every worker of the data proxy."""

    def __init__(self, feed: RouteFeed) -> None:
        self._feed = feed

    async def open(self, record: SandboxRecord, address: str) -> None:
        """Let traffic in; returns when the workers know."""
        await self._feed.put(
            Route(
                sandbox_id=record.sandbox_id,
                execution_id=record.execution_id,
                address=address,
                traffic_token=record.traffic_token,
                mask_host=record.mask_host,
                https_ports=record.https_ports,
                envd_token=record.envd_token,
            )
        )

    async def close(self, record: SandboxRecord) -> None:
        """Stop traffic and reset its connections; returns when the workers have."""
        await self._feed.delete(record.sandbox_id, record.execution_id)
