"""The directories that one watch covers. All functions block and act for the calling thread's user.

A tree rather than a table of paths: a directory that is renamed takes all below it along.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from emberbox.envd.errors import LimitReachedError
from emberbox.envd.watching import inotify

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emberbox.envd.watching.inotify import Inotify

_CHANGES = (
    inotify.CREATE
    | inotify.DELETE
    | inotify.MODIFY
    | inotify.ATTRIB
    | inotify.MOVED_FROM
    | inotify.MOVED_TO
    | inotify.ONLYDIR
    | inotify.EXCL_UNLINK
)
_ROOT_MASK = _CHANGES | inotify.DELETE_SELF | inotify.MOVE_SELF
_BELOW_MASK = _CHANGES | inotify.DONT_FOLLOW

_MAX_FOUND = 16384
"""In one directory; as many as the kernel queues by default."""

_LIMIT_FILE = Path("/proc/sys/fs/inotify/max_user_watches")


@dataclass(eq=False, slots=True)
class Directory:
    """One that is watched."""

    name: str
    parent: Directory | None
    descriptor: int
    children: dict[str, Directory] = field(default_factory=dict)
    found: set[str] = field(default_factory=set)
    """Told as new by a scan; the events of their creation may still be queued."""
    missing: set[str] = field(default_factory=set)
    """Directories in it that were gone when they should have been watched."""

    def below(self) -> Iterator[Directory]:
        """Itself and all that is watched below it."""
        waiting = [self]
        while waiting:
            directory = waiting.pop()
            yield directory
            waiting.extend(directory.children.values())


@dataclass(frozen=True, slots=True)
class Found:
    """An entry of a new directory, there before the directory was watched."""

    path: str
    written: bool


class Directories:
    """What is watched under `root`, by the kernel's descriptors."""

    def __init__(self, queue: Inotify, root: str, *, recursive: bool, network: bool) -> None:
        self._queue = queue
        self._path = root
        self._recursive = recursive
        self._network = network
        self._root: Directory | None = None
        self._watched: dict[int, Directory] = {}
        self._new: deque[tuple[Directory, str]] = deque()
        self._told: set[Directory] = set()
        self._expiring: set[Directory] = set()
        self._moving: dict[int, Directory] = {}
        self._stranded: list[int] = []

    @property
    def unscanned(self) -> bool:
        """Whether there are new directories for `scan`."""
        return bool(self._new)

    def open(self) -> None:
        """Watch the root and all below it. Raises OSError or LimitReachedError."""
        self._root = self._watch(self._path, _ROOT_MASK, "", None)
        if self._recursive and self._root:
            self._list(self._root)
            while self._new:
                directory = self._enter(*self._new.popleft())
                if directory is not None:
                    self._list(directory)

    def find(self, descriptor: int) -> Directory | None:
        """None for one that is no longer watched."""
        return self._watched.get(descriptor)

    def is_root(self, directory: Directory) -> bool:
        """Whether it is the directory that was asked for."""
        return directory is self._root

    def path(self, directory: Directory, name: str) -> str | None:
        """Of an entry, relative to the root; None while the directory is on its way elsewhere."""
        parts = [name] if name else []
        step: Directory | None = directory
        while step is not None and step is not self._root:
            parts.append(step.name)
            step = step.parent
        return None if step is None else "/".join(reversed(parts))

    # What events tell

    def created(self, directory: Directory, name: str) -> None:
        """A subdirectory is new; `scan` will look into it."""
        if self._recursive and name not in directory.children:
            self._new.append((directory, name))

    def removed(self, directory: Directory, name: str) -> None:
        """An entry is gone."""
        directory.found.discard(name)
        directory.missing.discard(name)
        if gone := directory.children.pop(name, None):
            self._forget(gone)

    def moved_out(self, directory: Directory, name: str, cookie: int) -> None:
        """A subdirectory left; `moved_in` with the same cookie may follow."""
        directory.found.discard(name)
        if leaving := directory.children.pop(name, None):
            leaving.parent = None
            self._moving[cookie] = leaving

    def moved_in(self, directory: Directory, name: str, cookie: int) -> None:
        """A subdirectory arrived, from elsewhere in the tree or from outside."""
        arriving = self._moving.pop(cookie, None)
        if arriving is None:
            self.created(directory, name)
            return
        if replaced := directory.children.pop(name, None):
            self._forget(replaced)
        arriving.name, arriving.parent = name, directory
        directory.children[name] = arriving
        for moved in arriving.below():
            self._new.extend((moved, lost) for lost in sorted(moved.missing))
            moved.missing.clear()

    def lost(self, directory: Directory) -> None:
        """The kernel watches it no longer."""
        parent = directory.parent
        if parent is not None and parent.children.get(directory.name) is directory:
            del parent.children[directory.name]
        self._forget(directory)

    def begin_batch(self, *, drained: bool) -> None:
        """Events were read. `drained`: all that were queued."""
        self._expiring = self._told if drained else set()
        self._told = set() if drained else self._told
        self._stranded = list(self._moving)

    def end_batch(self) -> None:
        """The events that were read are handled."""
        for directory in self._expiring:  # nothing from before their scans is left
            directory.found.clear()
        self._expiring = set()
        for cookie in self._stranded:  # moved a batch ago and not arrived: moved out for good
            if gone := self._moving.pop(cookie, None):
                self._forget(gone)

    # New directories

    def scan(self) -> list[Found]:
        """Watch one of the new directories and tell what is in it already.

        Raises LimitReachedError when there are more than can be watched or told.
        """
        directory = self._enter(*self._new.popleft())
        return [] if directory is None else self._contents(directory)

    def _enter(self, parent: Directory, name: str) -> Directory | None:
        relative = self.path(parent, name)
        if relative is None:
            return None
        path = os.path.join(self._path, relative)  # noqa: PTH118 - text in, text out
        try:
            if not self._network and inotify.on_network(path):
                return None
            return self._watch(path, _BELOW_MASK, name, parent)
        except FileNotFoundError:
            parent.missing.add(name)
        except OSError as error:
            if error.errno == errno.EBADF:  # the client is gone and the queue closed
                raise
        # Another kind of file by now, closed to this user, or too deep: told, but not entered.
        return None

    def _watch(self, path: str, mask: int, name: str, parent: Directory | None) -> Directory | None:
        try:
            descriptor = self._queue.add(path, mask)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise _too_many() from error
            raise
        if descriptor in self._watched:  # the same directory, mounted or moved to a second place
            return None
        directory = Directory(name, parent, descriptor)
        self._watched[descriptor] = directory
        if parent is not None:
            parent.children[name] = directory
        return directory

    def _list(self, directory: Directory) -> None:
        for entry in self._entries(directory):
            if entry.is_dir(follow_symlinks=False):
                self._new.append((directory, entry.name))

    def _contents(self, directory: Directory) -> list[Found]:
        entries = self._entries(directory)
        if len(entries) > _MAX_FOUND:
            raise LimitReachedError(
                f"a new directory, '{directory.name}', came with more than {_MAX_FOUND} entries:"
                " list the watched directory, then watch it again"
            )
        directory.found.update(entry.name for entry in entries)
        self._told.add(directory)
        found = []
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                self._new.append((directory, entry.name))
            path = self.path(directory, entry.name)
            if path is not None:
                found.append(Found(path, _has_content(entry)))
        return found

    def _entries(self, directory: Directory) -> list[os.DirEntry[str]]:
        relative = self.path(directory, "") or ""
        try:
            with os.scandir(os.path.join(self._path, relative)) as entries:  # noqa: PTH118
                return sorted(entries, key=lambda entry: entry.name)
        except FileNotFoundError:
            if directory.parent is not None:  # moved or removed meanwhile, as events will tell
                directory.parent.missing.add(directory.name)
                self.lost(directory)
        except OSError:
            pass  # its events are seen all the same
        return []

    def _forget(self, directory: Directory) -> None:
        for gone in directory.below():
            self._told.discard(gone)
            self._expiring.discard(gone)
            if self._watched.get(gone.descriptor) is gone:
                del self._watched[gone.descriptor]
                self._queue.remove(gone.descriptor)


def _has_content(entry: os.DirEntry[str]) -> bool:
    try:
        return (
            entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_size > 0
        )
    except OSError:
        return False


def _too_many() -> LimitReachedError:
    return LimitReachedError(
        "too many directories are watched: the kernel's limit, fs.inotify.max_user_watches, is"
        f" {_LIMIT_FILE.read_text().strip()}; watch a smaller directory, remove watchers, or"
        " raise it with sysctl"
    )
