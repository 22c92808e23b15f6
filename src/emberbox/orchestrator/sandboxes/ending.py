"""What is written down, told and removed when a run of a sandbox ends.

The run directory goes last: while it is there, the next orchestrator does what was left undone.
"""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3
import time
from typing import TYPE_CHECKING

import structlog

from emberbox.orchestrator import metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from emberbox.orchestrator.sandboxes.holdings import Host
    from emberbox.orchestrator.sandboxes.lifecycle import Outcome
    from emberbox.orchestrator.sandboxes.records import SandboxRecord

_log = structlog.get_logger(__name__)


class Ending:
    """The end of one run. `note` writes into its story. Raises nothing of ours."""

    def __init__(self, host: Host, note: Callable[[str], None]) -> None:
        self._host = host
        self._note = note
        self._undone = False

    def write_down(self, record: SandboxRecord, outcome: Outcome, reason: str) -> SandboxRecord:
        """Keep why it ends; the record that says so."""
        record = dataclasses.replace(record, ended=(outcome.value, reason))
        try:
            self._host.directories.save(record)
        except OSError as error:
            # A full disk must not keep a sandbox alive. Without it a crash before the report
            # tells "crashed" of what was killed.
            self._note(f"its end could not be written down: {error}")
        return record

    def report(self, run: SandboxRecord, outcome: Outcome, reason: str) -> None:
        """Tell the API server, through the outbox."""
        _log.info("ended", sandbox_id=run.sandbox_id, outcome=outcome.value, reason=reason)
        metrics.count_end(outcome.value)
        try:
            self._host.outbox.add(
                run.sandbox_id, run.execution_id, outcome.value, reason, time.time()
            )
        except sqlite3.Error as error:
            self._leave(run, f"its end could not be reported: {error}")

    async def forget(self, run: SandboxRecord, *, discard: bool) -> None:
        """Remove its files, with `discard` its snapshot as well. Off the loop: a scratch disk of
        gigabytes takes its time to unlink."""
        if discard:
            try:
                await asyncio.to_thread(self._host.snapshots.discard, run.sandbox_id)
            except OSError as error:
                self._leave(run, f"its snapshot could not be removed: {error}")
        if not self._undone:
            await asyncio.to_thread(self._host.directories.remove, run.sandbox_id)

    def _leave(self, run: SandboxRecord, what: str) -> None:
        """For the next start."""
        self._note(what)
        _log.error("the run directory stays", sandbox_id=run.sandbox_id, reason=what)
        self._undone = True
