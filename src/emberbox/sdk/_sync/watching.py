"""Watching a directory: the sandbox keeps the events until they are asked for.

The asynchronous flavour follows a stream of events and calls a handler.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from emberbox.sdk.error_mapping import FILE_RPC_ERRORS
from emberbox.sdk.errors import NotFoundException, SandboxException
from emberbox.sdk.file_models import FilesystemEvent, watch_message
from emberbox.sdk.json_fields import repeated, text

if TYPE_CHECKING:
    from emberbox.sdk.config import Username

    from .envd import Envd


class WatchesDirectories:
    """The part of `files` that watches."""

    _envd: Envd

    def watch_dir(  # noqa: PLR0917 (as in e2b)
        self,
        path: str,
        user: Username | None = None,
        request_timeout: float | None = None,
        recursive: bool = False,
        include_entry: bool = False,
        allow_network_mounts: bool = False,
    ) -> WatchHandle:
        """Watch a directory, from the moment this returns.

        Args:
            recursive: also watch the directories below it, those to come included.
            include_entry: events bring the entry's details.
            allow_network_mounts: watch network file systems too, whose events may be missing.

        Raises:
            FileNotFoundException: there is no such directory.
            InvalidArgumentException: it is not a directory, or on a network file system.
        """
        message = watch_message(
            path,
            recursive=recursive,
            include_entry=include_entry,
            allow_network_mounts=allow_network_mounts,
        )
        answer = self._envd.call(
            "filesystem.Filesystem/CreateWatcher",
            message,
            user=user,
            request_timeout=request_timeout,
            errors=FILE_RPC_ERRORS,
        )
        return WatchHandle(self._envd, text(answer, "watcherId"), user)


class WatchHandle:
    """A watch that runs; made by `files.watch_dir`."""

    def __init__(self, envd: Envd, watcher_id: str, user: Username | None) -> None:
        self._envd = envd
        self._message = {"watcherId": watcher_id}
        self._user = user
        self._stopped = False

    def get_new_events(self, request_timeout: float | None = None) -> list[FilesystemEvent]:
        """The events since the last call, or since the watch began; it does not wait for any.

        Raises SandboxException after `stop`, and NotFoundException when the sandbox has
        forgotten the watch.
        """
        if self._stopped:
            raise SandboxException("the watch is stopped: begin another with watch_dir")
        answer = self._envd.call(
            "filesystem.Filesystem/GetWatcherEvents",
            self._message,
            user=self._user,
            request_timeout=request_timeout,
        )
        return FilesystemEvent.several_from_json(repeated(answer, "events"))

    def stop(self, request_timeout: float | None = None) -> None:
        """Stop watching. Can be called again."""
        if self._stopped:
            return
        with suppress(NotFoundException):  # the sandbox has forgotten it
            self._envd.call(
                "filesystem.Filesystem/RemoveWatcher",
                self._message,
                user=self._user,
                request_timeout=request_timeout,
            )
        self._stopped = True
