"""Where the snapshots of paused sandboxes are kept.

What a store of objects, such as S3, needs in place of the local directory: parts are uploaded
under a name that is never used again, and one small object, the manifest, is written last and
names them. Commit, consume and their undoing are then the conditional write or removal of that one
object, as they are one rename here, and what no manifest names is garbage for `sweep`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from emberbox.orchestrator.snapshots.manifest import Snapshot

_EXECUTION_ID = re.compile(r"[A-Za-z0-9-]{1,64}")


def is_execution_id(text: str) -> bool:
    """Whether it can be part of a name in any store."""
    return _EXECUTION_ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Draft:
    """A snapshot that is being written. `memory` is a new directory for what the driver saves."""

    sandbox_id: str
    memory: Path


class SnapshotStore(Protocol):
    """Snapshots by sandbox id, each whole or not there. Methods block: they are for threads.

    A snapshot is begun as a draft and is there once it is committed. A run that goes on from it
    consumes it in the last moment before it changes anything; when nothing has run it is put
    back, and when the run is recorded it is dropped. All raise OSError when the store fails.
    """

    def find(self, sandbox_id: str) -> Snapshot | None:
        """The snapshot of a sandbox that is paused. Quick enough for the event loop."""

    def all(self) -> list[Snapshot]:
        """Every one, by sandbox id."""

    def builds(self) -> set[str]:
        """The template builds that snapshots stand on, also those that are being resumed."""

    # Writing

    def begin(self, sandbox_id: str) -> Draft:
        """A draft, in place of any that was left."""

    def take_disk(self, draft: Draft, disk: Path) -> int:
        """Make the disk of a machine that stands still a part of the draft, durably; the bytes
        that it takes. The run's own disk stays what and where it is."""

    def commit(self, draft: Draft, snapshot: Snapshot) -> None:
        """Make what was written the snapshot of its sandbox, durably. After an error there is
        none. What the driver saved must have been fsynced."""

    def abandon(self, draft: Draft) -> None:
        """Remove a draft. Raises nothing."""

    # Reading

    def memory(self, sandbox_id: str) -> Path:
        """A directory of this host with what the driver saved; it is not written to."""

    def give_disk(self, sandbox_id: str, disk: Path) -> None:
        """Give a run its disk, at a path where nothing is. The snapshot stays whole until the run
        has written to it, which is not before `consume`."""

    def consume(self, sandbox_id: str, execution_id: str) -> None:
        """Hand a snapshot over to this run, durably: its memory is good for nothing from now on.

        After an error the snapshot is as it was.
        """

    def put_back(self, sandbox_id: str, execution_id: str) -> None:
        """Undo `consume` for a run of which nothing has run; nothing when it was not taken."""

    def consumed(self, sandbox_id: str, execution_id: str) -> Snapshot | None:
        """The snapshot that this run has taken and not dropped yet."""

    # Garbage

    def drop_consumed(self, sandbox_id: str, execution_id: str) -> None:
        """Remove a snapshot that the run does not need any more; nothing when there is none."""

    def give_back(self, sandbox_id: str, execution_id: str) -> None:
        """Keep the files of a snapshot whose run is gone; nothing when it has taken none.

        The memory is removed: the disk has gone on without it.
        """

    def discard(self, sandbox_id: str) -> bool:
        """Remove the snapshot of a sandbox, durably, taken by a run or not; whether there was
        one."""

    def sweep(self, running: Collection[tuple[str, str]]) -> None:
        """Tidy up after a crash. `running`: sandbox and execution ids that have a record.

        Only at start-up, before anything is paused or resumed.
        """
