"""Users and groups of the guest.

/etc/passwd and /etc/group are read directly: the C library's lookup loads the name service
modules that the guest's nsswitch.conf names, and those belong to another C library than the one
envd runs on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from emberbox.envd.errors import UnauthenticatedError


@dataclass(frozen=True, slots=True)
class User:
    """A line of /etc/passwd and the supplementary groups of that user."""

    name: str
    uid: int
    gid: int
    home: str
    groups: tuple[int, ...]


@dataclass(slots=True)
class _Tables:
    users: dict[str, User] = field(default_factory=dict)
    user_names: dict[int, str] = field(default_factory=dict)
    group_names: dict[int, str] = field(default_factory=dict)


class Users:
    """Looks users up by name and names up by number; follows changes of the files."""

    def __init__(self, etc: Path = Path("/etc")) -> None:
        self._files = (etc / "passwd", etc / "group")
        self._seen: tuple[tuple[int, int, int] | None, ...] = ()
        self._tables = _Tables()

    def find(self, name: str) -> User:
        """Raises UnauthenticatedError for a user that does not exist."""
        user = self._current().users.get(name)
        if user is None:
            raise UnauthenticatedError(f"invalid username: '{name}'")
        return user

    def user_name(self, uid: int) -> str:
        """The name of `uid`, or the number as text."""
        return self._current().user_names.get(uid, str(uid))

    def group_name(self, gid: int) -> str:
        """The name of `gid`, or the number as text."""
        return self._current().group_names.get(gid, str(gid))

    def _current(self) -> _Tables:
        seen = tuple(_fingerprint(path) for path in self._files)
        if seen != self._seen:
            self._tables = _read_tables(*self._files)
            self._seen = seen
        return self._tables


def _fingerprint(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _fields(path: Path, count: int) -> list[list[str]]:
    try:
        text = path.read_text("utf-8", "surrogateescape")
    except OSError:
        return []
    rows = (line.split(":") for line in text.splitlines() if not line.startswith("#"))
    return [row for row in rows if len(row) >= count and row[2].isdigit()]


def _read_tables(passwd: Path, group: Path) -> _Tables:
    tables = _Tables()
    members: dict[str, list[int]] = {}
    for name, _, gid, listed in (row[:4] for row in _fields(group, 4)):
        tables.group_names.setdefault(int(gid), name)
        for member in filter(None, listed.split(",")):
            members.setdefault(member, []).append(int(gid))
    for row in _fields(passwd, 6):
        name, uid, gid = row[0], int(row[2]), row[3]
        if not gid.isdigit():
            continue
        groups = dict.fromkeys([int(gid), *members.get(name, ())])
        user = User(name, uid, int(gid), row[5] or "/", tuple(groups))
        tables.users.setdefault(name, user)
        tables.user_names.setdefault(uid, name)
    return tables
