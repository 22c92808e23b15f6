"""What one run of a sandbox has to do with snapshots: that which it began with, and its own."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emberbox.orchestrator import threads

if TYPE_CHECKING:
    from emberbox.orchestrator.snapshots.manifest import Snapshot
    from emberbox.orchestrator.snapshots.store import SnapshotStore


@dataclass(frozen=True, slots=True)
class SnapshotsOfRun:
    """The store as one run uses it. All raise OSError."""

    store: SnapshotStore
    sandbox_id: str
    execution_id: str

    async def own(self) -> Snapshot | None:
        """The snapshot that this very run has become."""
        found = await asyncio.to_thread(self.store.find, self.sandbox_id)
        return found if found is not None and found.execution_id == self.execution_id else None

    async def taken(self) -> Snapshot | None:
        """That which it began with, as long as that is not dropped."""
        return await asyncio.to_thread(self.store.consumed, self.sandbox_id, self.execution_id)

    async def take(self) -> None:
        """Begin with it: from now on the machine may run. When cancelled, it is as before."""
        try:
            await threads.run_to_end(lambda: self.store.consume(self.sandbox_id, self.execution_id))
        except asyncio.CancelledError:
            await asyncio.to_thread(self.store.put_back, self.sandbox_id, self.execution_id)
            raise

    async def drop(self) -> None:
        """It is not needed any more."""
        await asyncio.to_thread(self.store.drop_consumed, self.sandbox_id, self.execution_id)

    async def give_back(self) -> None:
        """The run is gone: what is left of it is paused again."""
        await asyncio.to_thread(self.store.give_back, self.sandbox_id, self.execution_id)
