"""Archives of the `newc` cpio form that the kernel unpacks as its first root file system."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_MAGIC = "070701"
_TRAILER = "TRAILER!!!"


@dataclass(frozen=True, slots=True)
class Entry:
    """One member: `mode` with the type bits, `data` as content or as a link's target."""

    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(mode: int = 0o755) -> Entry:
    """A directory."""
    return Entry(stat.S_IFDIR | mode)


def file(data: bytes, mode: int = 0o644) -> Entry:
    """A regular file."""
    return Entry(stat.S_IFREG | mode, data)


def symlink(target: str) -> Entry:
    """A symbolic link."""
    return Entry(stat.S_IFLNK | 0o777, target.encode())


def character_device(major: int, minor: int, mode: int = 0o600) -> Entry:
    """A character device."""
    return Entry(stat.S_IFCHR | mode, device=(major, minor))


def pack(members: Mapping[str, Entry]) -> bytes:
    """The archive of `members` (names without a leading slash), the same for the same input.

    Members are sorted, owned by root and dated 1970; sorting puts directories before what is
    in them, as the kernel needs it.
    """
    parts = [_member(number, name, members[name]) for number, name in enumerate(sorted(members), 1)]
    parts.append(_member(0, _TRAILER, Entry(0)))
    return b"".join(parts)


def _member(number: int, name: str, entry: Entry) -> bytes:
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    encoded = name.encode() + b"\0"
    fields: Iterable[int] = (
        number, entry.mode, 0, 0, links, 0, len(entry.data),
        0, 0, *entry.device, len(encoded), 0,
    )  # fmt: skip
    header = _MAGIC + "".join(f"{value:08X}" for value in fields)
    return _padded(header.encode() + encoded) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
