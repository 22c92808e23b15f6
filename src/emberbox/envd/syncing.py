"""POST /sync: the host is about to stop the machine and wants the disks to be whole."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from emberbox.envd.errors import PermissionDeniedError

if TYPE_CHECKING:
    from collections.abc import Collection

    from emberbox.envd.asgi import Request
    from emberbox.envd.workers import Workers


class Syncing:
    """Answers the host alone: `peers` are the addresses it asks from."""

    def __init__(self, workers: Workers, peers: Collection[str]) -> None:
        self._workers = workers
        self._peers = frozenset(peers)

    async def handle(self, request: Request) -> None:
        """Write out what the kernel keeps in memory. Raises PermissionDeniedError."""
        if request.peer not in self._peers:
            raise PermissionDeniedError("/sync is not accepted from this address")
        await self._workers.run(os.sync)
