"""What happens in a watched directory, in the protocol's terms. All functions block."""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from emberbox._gen.envd.filesystem.filesystem_pb import EventType, FilesystemEvent
from emberbox.envd import entries
from emberbox.envd.errors import EnvdError, InvalidArgumentError, LimitReachedError
from emberbox.envd.watching import inotify
from emberbox.envd.watching.directories import Directories
from emberbox.envd.watching.inotify import Inotify

if TYPE_CHECKING:
    from emberbox._gen.envd.filesystem.filesystem_pb import EntryInfo
    from emberbox.envd.users import Users
    from emberbox.envd.watching.directories import Directory

_ITSELF = "."
"""The name of the watched directory itself in events."""

_TYPES = (
    (inotify.CREATE | inotify.MOVED_TO, EventType.CREATE),
    (inotify.MODIFY, EventType.WRITE),
    (inotify.DELETE | inotify.DELETE_SELF | inotify.UNMOUNT, EventType.REMOVE),
    (inotify.MOVED_FROM | inotify.MOVE_SELF, EventType.RENAME),
    (inotify.ATTRIB, EventType.CHMOD),
)
_LEAVES_AN_ENTRY = frozenset({EventType.CREATE, EventType.WRITE, EventType.CHMOD})
_TAKEN = 512
"""Changes at which `take` leaves the rest for the next call."""
_LAST = inotify.DELETE_SELF | inotify.MOVE_SELF | inotify.UNMOUNT | inotify.IGNORED


@dataclass(frozen=True, slots=True)
class Options:
    """What to watch, and how."""

    path: str
    recursive: bool
    include_entry: bool
    allow_network_mounts: bool


class Change(NamedTuple):
    """One event of the protocol; `path` is relative to the watched directory."""

    type: EventType
    path: str
    entry: EntryInfo | None = None

    def message(self) -> FilesystemEvent:
        """For the wire."""
        name = entries.readable(self.path)
        return FilesystemEvent(name=name, type=self.type, entry=self.entry)


class Changes:
    """A source of changes. Not for two threads at once, but `close`, which any may call."""

    def __init__(self, options: Options, users: Users) -> None:
        """Raises LimitReachedError."""
        self._options = options
        self._users = users
        self._queue = _new_queue()
        self._directories = Directories(
            self._queue,
            options.path,
            recursive=options.recursive,
            network=options.allow_network_mounts,
        )
        self._events: deque[inotify.Event] = deque()
        self._failure: EnvdError | None = None
        self.ended = False
        """Whether nothing can come any more: the directory is gone."""

    def fileno(self) -> int:
        """Readable when `take` has something."""
        return self._queue.fileno()

    @property
    def pending(self) -> bool:
        """Whether `take` should be called although the descriptor may not be readable."""
        return bool(self._events) or self._directories.unscanned or self._failure is not None

    @property
    def _finished(self) -> bool:
        return self.ended or self._failure is not None

    def open(self) -> None:
        """Watch from now on. Raises OSError or EnvdError."""
        path = self._options.path
        if not stat.S_ISDIR(os.stat(path).st_mode):  # noqa: PTH116 - the path as it was asked for
            raise InvalidArgumentError(f"path '{path}' is not a directory")
        if not self._options.allow_network_mounts and inotify.on_network(path):
            raise InvalidArgumentError(
                f"path '{path}' is on a network file system: set allow_network_mounts to watch it"
                " all the same; changes made elsewhere are not seen"
            )
        self._directories.open()

    def take(self) -> list[Change] | None:
        """Some of what happened, in order; None when there is nothing now.

        Raises LimitReachedError when events were lost. Nothing comes after it.
        """
        if self._failure is not None:
            raise self._failure
        if self.ended:
            return None
        if not self.pending and not self._read():
            return None
        changes: list[Change] = []
        while self.pending and not self._finished and len(changes) < _TAKEN:
            changes += self._next()
        return self._described(changes)

    def close(self) -> None:
        """Frees the kernel's queue and watches."""
        self._queue.close()

    def _read(self) -> bool:
        events, drained = self._queue.read()
        self._events.extend(events)
        if events:
            self._directories.begin_batch(drained=drained)
        return bool(events)

    def _next(self) -> list[Change]:
        # First what new directories hold: the events after theirs may build on it.
        if self._directories.unscanned:
            return self._scanned()
        changes = self._translated(self._events.popleft())
        if not self._events:
            self._directories.end_batch()
        return changes

    def _scanned(self) -> list[Change]:
        try:
            contents = self._directories.scan()
        except LimitReachedError as error:
            self._failure = error
            return []
        changes = []
        for found in contents:
            changes.append(Change(EventType.CREATE, found.path))
            if found.written:
                changes.append(Change(EventType.WRITE, found.path))
        return changes

    def _translated(self, event: inotify.Event) -> list[Change]:
        if event.mask & inotify.Q_OVERFLOW:
            self._failure = LimitReachedError(
                "events were lost: more happened than the kernel queues"
                " (fs.inotify.max_queued_events); list the directory, then watch it again"
            )
            return []
        directory = self._directories.find(event.descriptor)
        if directory is None:
            return []
        if not event.name:
            return self._of_itself(directory, event.mask)
        path = self._directories.path(directory, event.name)
        known = bool(event.mask & inotify.CREATE) and event.name in directory.found
        self._follow(directory, event)
        if path is None or known:
            return []
        return [Change(kind, path) for bits, kind in _TYPES if event.mask & bits]

    def _of_itself(self, directory: Directory, mask: int) -> list[Change]:
        if not self._directories.is_root(directory):  # its parent is told the same by name
            if mask & inotify.IGNORED:
                self._directories.lost(directory)
            return []
        self.ended = bool(mask & _LAST)
        return [Change(kind, _ITSELF) for bits, kind in _TYPES if mask & bits]

    def _follow(self, directory: Directory, event: inotify.Event) -> None:
        name, mask = event.name, event.mask
        if mask & inotify.CREATE:
            directory.found.discard(name)
        if mask & inotify.DELETE:
            self._directories.removed(directory, name)
        elif not mask & inotify.ISDIR:
            return
        elif mask & inotify.CREATE:
            self._directories.created(directory, name)
        elif mask & inotify.MOVED_FROM:
            self._directories.moved_out(directory, name, event.cookie)
        elif mask & inotify.MOVED_TO:
            self._directories.moved_in(directory, name, event.cookie)

    def _described(self, changes: list[Change]) -> list[Change]:
        if not self._options.include_entry:
            return changes
        paths = {change.path for change in changes if change.type in _LEAVES_AN_ENTRY}
        found = {path: self._describe(path) for path in paths}
        return [
            change._replace(entry=found[change.path]) if change.type in _LEAVES_AN_ENTRY else change
            for change in changes
        ]

    def _describe(self, path: str) -> EntryInfo | None:
        full = os.path.normpath(os.path.join(self._options.path, path))  # noqa: PTH118
        try:
            return entries.describe(full, self._users)
        except OSError:  # gone again, or closed to the user
            return None


def _new_queue() -> Inotify:
    try:
        return Inotify()
    except OSError as error:
        if error.errno not in {errno.EMFILE, errno.ENFILE}:
            raise
        raise LimitReachedError(
            "too many directories are watched: fs.inotify.max_user_instances or the limit of open"
            " files is reached; stop watches of this user, or raise it with sysctl"
        ) from error
