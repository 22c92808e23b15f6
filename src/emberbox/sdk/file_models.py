"""What is told about files and watched directories, and what is asked. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from .json_fields import (
    JsonObject,
    flag_or_none,
    integer,
    nested,
    text,
    text_map,
    text_or_none,
    time,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime


class FileType(Enum):
    """Kind of a file system object."""

    FILE = "file"
    DIR = "dir"
    SYMLINK = "symlink"


_TYPES = {
    "FILE_TYPE_FILE": FileType.FILE,
    "FILE_TYPE_DIRECTORY": FileType.DIR,
    "FILE_TYPE_SYMLINK": FileType.SYMLINK,
    "file": FileType.FILE,
    "dir": FileType.DIR,
}


@dataclass
class WriteInfo:
    """A file that was written."""

    name: str
    type: FileType | None
    path: str
    metadata: dict[str, str] | None = field(default=None, kw_only=True)

    @classmethod
    def from_json(cls, record: JsonObject) -> WriteInfo:
        """From an element of the answer to `POST /files`."""
        return cls(
            name=text(record, "name"),
            type=_TYPES.get(text(record, "type")),
            path=text(record, "path"),
            metadata=text_map(record, "metadata") or None,
        )


@dataclass
class EntryInfo(WriteInfo):
    """A file, directory or link."""

    size: int
    """Bytes."""
    mode: int
    """Permission bits."""
    permissions: str
    """As `ls` writes them, such as `-rw-r--r--`."""
    owner: str
    group: str
    modified_time: datetime
    symlink_target: str | None = None

    @classmethod
    def from_json(cls, record: JsonObject) -> EntryInfo:
        """From `filesystem.EntryInfo`."""
        is_link = flag_or_none(record, "isSymlink")
        return cls(
            name=text(record, "name"),
            type=FileType.SYMLINK if is_link else _TYPES.get(text(record, "type")),
            path=text(record, "path"),
            size=integer(record, "size"),
            mode=integer(record, "mode"),
            permissions=text(record, "permissions"),
            owner=text(record, "owner"),
            group=text(record, "group"),
            modified_time=time(record, "modifiedTime"),
            symlink_target=text_or_none(record, "symlinkTarget"),
            metadata=text_map(record, "metadata") or None,
        )


class FilesystemEventType(Enum):
    """What happened to an entry of a watched directory."""

    CHMOD = "chmod"
    CREATE = "create"
    REMOVE = "remove"
    RENAME = "rename"
    WRITE = "write"


_EVENT_TYPES = {f"EVENT_TYPE_{kind.name}": kind for kind in FilesystemEventType}


@dataclass
class FilesystemEvent:
    """Something that happened in a watched directory."""

    name: str
    """Path of the entry, relative to the watched directory."""
    type: FilesystemEventType
    entry: EntryInfo | None = None
    """The entry afterwards, if it was asked for and still there; never of REMOVE and RENAME."""

    @classmethod
    def several_from_json(cls, records: Sequence[JsonObject]) -> list[FilesystemEvent]:
        """From each `filesystem.FilesystemEvent` whose type is known."""
        return [
            cls(
                name=text(record, "name"),
                type=_EVENT_TYPES[text(record, "type")],
                entry=EntryInfo.from_json(entry) if (entry := nested(record, "entry")) else None,
            )
            for record in records
            if text(record, "type") in _EVENT_TYPES
        ]


def watch_message(
    path: str, *, recursive: bool, include_entry: bool, allow_network_mounts: bool
) -> dict[str, object]:
    """`filesystem.WatchDirRequest` and `filesystem.CreateWatcherRequest`."""
    return {
        "path": path,
        "recursive": recursive,
        "includeEntry": include_entry,
        "allowNetworkMounts": allow_network_mounts,
    }


def file_parameters(path: str | None, user: str | None) -> dict[str, str]:
    """Query of a request to `/files`."""
    given = {"path": path, "username": user or None}
    return {name: value for name, value in given.items() if value is not None}
