"""The snapshots of paused sandboxes below one directory.

```
<sandbox id>/                 a snapshot, whole: snapshot.json, scratch.ext4, memory/
<sandbox id>~<execution id>/  one that this run was resumed from, until the run is recorded
.draft-<sandbox id>/          one that is being written
.trash-…/                     one that is being removed
```

A snapshot comes and goes by the rename of its directory, so that a crash at any moment leaves it
whole or leaves none. The scratch disk is a hard link of the run's: the directory must be on the
file system of the run directories.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import shutil
from typing import TYPE_CHECKING

import structlog

from emberbox.orchestrator import failpoints
from emberbox.orchestrator.snapshots.manifest import Snapshot
from emberbox.orchestrator.snapshots.store import Draft
from emberbox.shared.sidefile import sync_directory, sync_together, write_atomically

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

_log = structlog.get_logger(__name__)

MANIFEST_FILE = "snapshot.json"
SCRATCH_FILE = "scratch.ext4"
MEMORY_DIRECTORY = "memory"

_DRAFT, _TRASH, _CONSUMED = ".draft-", ".trash-", "~"

MEMORY_LOST = "its memory was lost when its host failed while it was being resumed"


class LocalSnapshotStore:
    """A `SnapshotStore` of directories. That of the run directories must be on the same file
    system: disks are given and taken as hard links, and never copied."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def find(self, sandbox_id: str) -> Snapshot | None:
        """The snapshot of a sandbox that is paused."""
        return _read(self._root / sandbox_id)

    def all(self) -> list[Snapshot]:
        """Every one, by sandbox id."""
        named = (path for path in sorted(self._root.iterdir()) if _CONSUMED not in path.name)
        return [found for path in named if path.name[0] != "." and (found := _read(path))]

    def builds(self) -> set[str]:
        """The template builds that snapshots stand on, also those that are being resumed."""
        found: dict[Path, str] = {}
        while missed := [path for path in self._whole() if path not in found]:
            # One that is renamed meanwhile is found by its other name in the next round.
            found |= {path: one.build_id for path in missed if (one := _read(path)) is not None}
            if all(path in found or path.exists() for path in missed):
                break
        return set(found.values())

    def begin(self, sandbox_id: str) -> Draft:
        """A new directory."""
        directory = self._draft(sandbox_id)
        shutil.rmtree(directory, ignore_errors=True)
        memory = directory / MEMORY_DIRECTORY
        directory.mkdir(mode=0o700)
        memory.mkdir(mode=0o700)
        return Draft(sandbox_id, memory)

    def take_disk(self, draft: Draft, disk: Path) -> int:
        """By a second name."""
        taken = self._draft(draft.sandbox_id) / SCRATCH_FILE
        os.link(disk, taken)
        sync_together(taken)
        return taken.stat().st_blocks * 512

    def commit(self, draft: Draft, snapshot: Snapshot) -> None:
        """By a rename."""
        directory, target = self._draft(draft.sandbox_id), self._root / draft.sandbox_id
        manifest = directory / MANIFEST_FILE
        write_atomically(manifest, snapshot.to_json(), 0o600, durable=False)
        sync_together(manifest, directory)
        failpoints.reach("pause-described")
        self._remove(target)  # what is there by any accident is older than this run
        _rename_durably(directory, target)
        with contextlib.suppress(OSError):  # it is there; what is left is for the next sweep
            self.drop_consumed(snapshot.sandbox_id, snapshot.execution_id)

    def abandon(self, draft: Draft) -> None:
        """With all that was written."""
        shutil.rmtree(self._draft(draft.sandbox_id), ignore_errors=True)

    def memory(self, sandbox_id: str) -> Path:
        """Where it was written."""
        return self._root / sandbox_id / MEMORY_DIRECTORY

    def give_disk(self, sandbox_id: str, disk: Path) -> None:
        """By a second name: both see what is written then."""
        os.link(self._root / sandbox_id / SCRATCH_FILE, disk)

    def consume(self, sandbox_id: str, execution_id: str) -> None:
        """By a rename."""
        _rename_durably(self._root / sandbox_id, self._consumed(sandbox_id, execution_id))

    def put_back(self, sandbox_id: str, execution_id: str) -> None:
        """By the same rename."""
        with contextlib.suppress(FileNotFoundError):
            _rename_durably(self._consumed(sandbox_id, execution_id), self._root / sandbox_id)

    def consumed(self, sandbox_id: str, execution_id: str) -> Snapshot | None:
        """By its other name."""
        return _read(self._consumed(sandbox_id, execution_id))

    def drop_consumed(self, sandbox_id: str, execution_id: str) -> None:
        """Remove a snapshot that the run does not need any more."""
        self._remove(self._consumed(sandbox_id, execution_id))

    def give_back(self, sandbox_id: str, execution_id: str) -> None:
        """Keep the files of a snapshot whose run is gone."""
        directory = self._consumed(sandbox_id, execution_id)
        snapshot = _read(directory)
        if self.find(sandbox_id) is not None:
            self._remove(directory)  # there is a newer one
            return
        if snapshot is None:  # none was taken, or it is for a person to look at
            return
        kept = dataclasses.replace(
            snapshot,
            memory=False,
            memory_bytes=0,
            lost=MEMORY_LOST if snapshot.memory else snapshot.lost,
        )
        write_atomically(directory / MANIFEST_FILE, kept.to_json(), 0o600)
        shutil.rmtree(directory / MEMORY_DIRECTORY, ignore_errors=True)
        _rename_durably(directory, self._root / sandbox_id)

    def discard(self, sandbox_id: str) -> bool:
        """Remove the snapshot of a sandbox, by whichever name."""
        paths = [self._root / sandbox_id, *self._root.glob(f"{sandbox_id}{_CONSUMED}*")]
        removed = [self._remove(path) for path in paths]
        if any(removed):
            sync_directory(self._root)  # what was killed does not come back after a loss of power
        return any(removed)

    def sweep(self, running: Collection[tuple[str, str]]) -> None:
        """Tidy up after a crash."""
        for path in (*self._root.glob(f"{_DRAFT}*"), *self._root.glob(f"{_TRASH}*")):
            shutil.rmtree(path, ignore_errors=True)
        for path in self._root.glob(f"*{_CONSUMED}*"):
            sandbox_id, _, execution_id = path.name.partition(_CONSUMED)
            if (sandbox_id, execution_id) not in running:
                self._give_back_orphan(sandbox_id, execution_id)

    def _give_back_orphan(self, sandbox_id: str, execution_id: str) -> None:
        try:
            self.give_back(sandbox_id, execution_id)
        except OSError as error:
            _log.error("a snapshot cannot be kept", sandbox_id=sandbox_id, reason=str(error))

    def _consumed(self, sandbox_id: str, execution_id: str) -> Path:
        return self._root / f"{sandbox_id}{_CONSUMED}{execution_id}"

    def _whole(self) -> list[Path]:
        return [path for path in self._root.iterdir() if path.name[0] != "."]

    def _draft(self, sandbox_id: str) -> Path:
        return self._root / f"{_DRAFT}{sandbox_id}"

    def _remove(self, path: Path) -> bool:
        trash = self._root / f"{_TRASH}{secrets.token_hex(8)}"
        try:
            path.rename(trash)
        except FileNotFoundError:
            return False
        shutil.rmtree(trash, ignore_errors=True)
        return True


def _rename_durably(source: Path, target: Path) -> None:
    """Raises OSError; then it is as before.

    A file system that can take neither the fsync nor the way back has failed under us: what its
    next reader will see is then what it shows now.
    """
    source.rename(target)
    try:
        sync_directory(target.parent)
    except OSError as error:
        try:
            target.rename(source)
        except OSError:
            _log.exception("renamed and perhaps not durable", target=str(target))
            return
        raise error from None


def _read(directory: Path) -> Snapshot | None:
    try:
        return Snapshot.from_json((directory / MANIFEST_FILE).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        _log.error("a snapshot cannot be read", directory=str(directory), error=repr(error))
        return None
