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
import re
import secrets
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from emberbox.orchestrator import failpoints
from emberbox.orchestrator.snapshots.manifest import Snapshot
from emberbox.shared.sidefile import sync_directory, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from pathlib import Path

_log = structlog.get_logger(__name__)

MANIFEST_FILE = "snapshot.json"
SCRATCH_FILE = "scratch.ext4"
MEMORY_DIRECTORY = "memory"

_DRAFT, _TRASH, _CONSUMED = ".draft-", ".trash-", "~"
_EXECUTION_ID = re.compile(r"[A-Za-z0-9-]{1,64}")

MEMORY_LOST = "its memory was lost when its host failed while it was being resumed"


def is_execution_id(text: str) -> bool:
    """Whether it can be part of a directory's name."""
    return _EXECUTION_ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Place:
    """A directory with the parts of one snapshot."""

    directory: Path

    @property
    def scratch(self) -> Path:
        """The writable disk."""
        return self.directory / SCRATCH_FILE

    @property
    def memory(self) -> Path:
        """What the driver saved."""
        return self.directory / MEMORY_DIRECTORY


class SnapshotStore:
    """Snapshots by sandbox id. Methods block on the disk.

    `others`: directories like `root` of other hosts, on the same file system.
    """

    def __init__(self, root: Path, others: Callable[[], Iterable[Path]] = tuple) -> None:
        self._root = root
        self._others = others
        root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def find(self, sandbox_id: str) -> Snapshot | None:
        """The snapshot of a sandbox that is paused."""
        return _read(self.place(sandbox_id).directory)

    def adopt(self, sandbox_id: str) -> Snapshot | None:
        """Make another host's snapshot of a sandbox our own; None when no other has one.

        By one rename, so that of several hosts that resume it, its own among them, one has it.
        """
        for other in self._others():
            try:
                (other / sandbox_id).rename(self._root / sandbox_id)
            except OSError:  # there is none, or another host was faster
                continue
            sync_directory(self._root)
            _log.info("snapshot of another host adopted", sandbox_id=sandbox_id, of=str(other))
            return self.find(sandbox_id)
        return None

    def all(self) -> list[Snapshot]:
        """Every one, by sandbox id."""
        return [found for path in self._named() if (found := _read(path)) is not None]

    def builds(self) -> set[str]:
        """The template builds that snapshots stand on, also those that are being resumed."""
        found = (_read(path) for path in self._root.iterdir() if path.name[0] != ".")
        return {snapshot.build_id for snapshot in found if snapshot is not None}

    def place(self, sandbox_id: str) -> Place:
        """Where the parts of a snapshot are."""
        return Place(self._root / sandbox_id)

    def begin(self, sandbox_id: str) -> Place:
        """An empty directory to write a snapshot into. Raises OSError."""
        draft = self._root / f"{_DRAFT}{sandbox_id}"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        return Place(draft)

    def commit(self, draft: Place, snapshot: Snapshot) -> None:
        """Make what was written the snapshot of its sandbox, durably. Raises OSError.

        After an error there is none. The parts must have been fsynced.
        """
        write_atomically(draft.directory / MANIFEST_FILE, snapshot.to_json(), 0o600)
        failpoints.reach("pause-described")
        target = self._root / snapshot.sandbox_id
        self._remove(target)  # what is there by any accident is older than this run
        _rename_durably(draft.directory, target)
        self.drop_consumed(snapshot.sandbox_id, snapshot.execution_id)

    def abandon(self, draft: Place) -> None:
        """Remove what was begun."""
        shutil.rmtree(draft.directory, ignore_errors=True)

    def consume(self, sandbox_id: str, execution_id: str) -> None:
        """Mark a snapshot as taken by a run, durably: its memory is good for nothing from now on.

        Raises OSError; the snapshot is as it was then.
        """
        _rename_durably(self._root / sandbox_id, self._consumed(sandbox_id, execution_id))

    def put_back(self, sandbox_id: str, execution_id: str) -> None:
        """Undo `consume` for a run of which nothing has run; nothing when it was not taken."""
        with contextlib.suppress(FileNotFoundError):
            _rename_durably(self._consumed(sandbox_id, execution_id), self._root / sandbox_id)

    def consumed(self, sandbox_id: str, execution_id: str) -> Snapshot | None:
        """The snapshot that this run has taken and not dropped yet."""
        return _read(self._consumed(sandbox_id, execution_id))

    def drop_consumed(self, sandbox_id: str, execution_id: str) -> None:
        """Remove a snapshot that the run does not need any more; nothing when there is none."""
        self._remove(self._consumed(sandbox_id, execution_id))

    def give_back(self, sandbox_id: str, execution_id: str) -> None:
        """Keep the files of a snapshot whose run is gone; nothing when it has taken none.

        The memory is removed: the disk has gone on without it. Raises OSError.
        """
        directory = self._consumed(sandbox_id, execution_id)
        snapshot = _read(directory)
        if snapshot is None or self.find(sandbox_id) is not None:
            self._remove(directory)  # there is a newer one
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
        """Remove the snapshot of a sandbox, taken by a run or not; whether there was one."""
        paths = [self._root / sandbox_id, *self._root.glob(f"{sandbox_id}{_CONSUMED}*")]
        removed = [self._remove(path) for path in paths]
        if any(removed):
            sync_directory(self._root)  # what was killed does not come back after a loss of power
        return any(removed)

    def sweep(self, running: Collection[tuple[str, str]]) -> None:
        """Tidy up after a crash. `running`: sandbox and execution ids that have a record.

        Only at start-up, before anything is paused or resumed.
        """
        for path in self._root.glob(f"{_DRAFT}*"):
            shutil.rmtree(path, ignore_errors=True)
        for path in self._root.glob(f"{_TRASH}*"):
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

    def _named(self) -> Iterator[Path]:
        for path in sorted(self._root.iterdir()):
            if path.name[0] != "." and _CONSUMED not in path.name:
                yield path

    def _remove(self, path: Path) -> bool:
        trash = self._root / f"{_TRASH}{secrets.token_hex(8)}"
        try:
            path.rename(trash)
        except FileNotFoundError:
            return False
        shutil.rmtree(trash, ignore_errors=True)
        return True


def link_durably(source: Path, target: Path) -> int:
    """Give a disk a second name, its content on the disk for good; the bytes that it takes.

    Raises OSError.
    """
    os.link(source, target)
    fd = os.open(target, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(fd)
        return os.fstat(fd).st_blocks * 512
    finally:
        os.close(fd)


def _rename_durably(source: Path, target: Path) -> None:
    source.rename(target)
    try:
        sync_directory(target.parent)
    except OSError:
        target.rename(source)
        raise


def _read(directory: Path) -> Snapshot | None:
    try:
        return Snapshot.from_json((directory / MANIFEST_FILE).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        _log.error("a snapshot cannot be read", directory=str(directory), error=repr(error))
        return None
