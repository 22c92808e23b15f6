"""Changing what a sandbox may reach while it runs."""

from __future__ import annotations

import asyncio
import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from emberbox.orchestrator.network.addresses import Slot
    from emberbox.orchestrator.network.policy import EgressPolicy
    from emberbox.orchestrator.network.pool import SlotPool
    from emberbox.orchestrator.sandboxes.records import SandboxRecord


@dataclass(slots=True)
class Egress:
    """The changes of one sandbox: one after the other, and its record says what holds.

    `record` gives the record, `save` replaces it, `note` writes into the sandbox's story.
    """

    slots: SlotPool
    record: Callable[[], SandboxRecord]
    save: Callable[[SandboxRecord], None]
    note: Callable[[str], None]
    _changing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def replace(self, slot: Slot, policy: EgressPolicy) -> None:
        """Put another policy in force. Raises NetworkError or OSError; all is as before then."""
        async with self._changing:
            before = self.record().egress
            # The record first: adoption after a crash brings the rules to what it says.
            self._write(policy)
            try:
                await self.slots.set_policy(slot, policy)
            except BaseException:
                self._write(before)
                raise
            await self.slots.end_forbidden(slot, policy)
        self.note(f"egress {policy.describe()}")

    def _write(self, policy: EgressPolicy) -> None:
        self.save(dataclasses.replace(self.record(), egress=policy))
