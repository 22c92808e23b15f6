"""`sandbox.files.watch_dir`: polled in the sync flavour, streamed in the async one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from e2b import (
    AuthenticationException,
    FileNotFoundException,
    FilesystemEventType,
    InvalidArgumentException,
    NotFoundException,
    SandboxException,
    TimeoutException,
)

from tests.compatibility.covering import covers, covers_error, only_async, only_sync
from tests.compatibility.flavours import eventually

if TYPE_CHECKING:
    from tests.compatibility.flavours import Sdk

pytestmark = [pytest.mark.vm, pytest.mark.smoke, pytest.mark.timeout(300)]

NEW_FILE = [FilesystemEventType.CREATE, FilesystemEventType.CHMOD, FilesystemEventType.WRITE]


class Watch:
    """What a watcher has told so far, in either flavour."""

    def __init__(self, box: Any, flavour: str) -> None:
        self._box = box
        self._is_sync = flavour == "sync"
        self.events: list[Any] = []
        self.ends: list[Exception | None] = []
        self.handle: Any = None

    async def start(self, path: str, **options: Any) -> Watch:
        """Watch a directory."""
        if not self._is_sync:
            options |= {"on_event": self.events.append, "on_exit": self.ends.append}
        self.handle = await self._box.files.watch_dir(path, **options)
        return self

    async def tells(self, name: str, kind: FilesystemEventType) -> Any:
        """Wait for an event; the first such one."""

        async def told() -> bool:
            return (name, kind) in [(event.name, event.type) for event in await self.so_far()]

        await eventually(told)
        return next(event for event in self.events if (event.name, event.type) == (name, kind))

    async def so_far(self) -> list[Any]:
        """All events until now."""
        if self._is_sync:
            self.events += await self.handle.get_new_events()
        return self.events


@pytest.fixture
def watch(box: Any, sdk: Sdk) -> Watch:
    """A watcher that is not started yet."""
    return Watch(box, sdk.flavour)


@covers("Filesystem.watch_dir", "WatchHandle.stop")
async def test_an_upload_is_three_events(box: Any, watch: Watch) -> None:
    await box.files.make_dir("uploads")
    await watch.start("uploads")
    await box.files.write("uploads/new", "content")
    await watch.tells("new", FilesystemEventType.WRITE)
    await box.files.remove("uploads/new")
    await watch.tells("new", FilesystemEventType.REMOVE)
    before = [event.type for event in watch.events if event.name == "new"]
    assert before == [*NEW_FILE, FilesystemEventType.REMOVE]
    await watch.handle.stop()


@covers("Filesystem.watch_dir")
async def test_directories_below(box: Any, watch: Watch) -> None:
    await box.files.make_dir("deep")
    await watch.start("deep", recursive=True)
    await box.files.make_dir("deep/made/later")
    await watch.tells("made", FilesystemEventType.CREATE)

    async def written() -> bool:
        await box.files.write("deep/made/later/file", "x")
        return any(event.name == "made/later/file" for event in await watch.so_far())

    await eventually(written)
    await watch.handle.stop()


@covers("Filesystem.watch_dir")
async def test_a_name_changes(box: Any, watch: Watch) -> None:
    await box.files.write("named/old", "")
    await watch.start("named")
    await box.files.rename("named/old", "named/new")
    await watch.tells("old", FilesystemEventType.RENAME)
    await watch.tells("new", FilesystemEventType.CREATE)
    await watch.handle.stop()


@covers("Filesystem.watch_dir")
async def test_events_with_what_it_was_about(box: Any, watch: Watch) -> None:
    await box.files.make_dir("entries")
    await watch.start("entries", include_entry=True)
    await box.files.write("entries/sized", "12345")
    event = await watch.tells("sized", FilesystemEventType.WRITE)
    assert (event.entry.path, event.entry.size) == ("/home/user/entries/sized", 5)
    await watch.handle.stop()


@only_sync
@covers("WatchHandle.get_new_events")
async def test_events_are_told_once(box: Any, watch: Watch) -> None:
    await box.files.make_dir("once")
    await watch.start("once")
    assert await watch.handle.get_new_events() == []
    await box.files.write("once/file", "x")
    await watch.tells("file", FilesystemEventType.WRITE)
    assert await watch.handle.get_new_events() == []
    await watch.handle.stop()


@only_sync
@covers_error(SandboxException, "WatchHandle.get_new_events")
@covers_error(NotFoundException, "WatchHandle.stop")
async def test_a_watcher_that_was_stopped(box: Any, watch: Watch) -> None:
    await watch.start("/home/user")
    await watch.handle.stop()
    with pytest.raises(SandboxException, match="stopped"):
        await watch.handle.get_new_events()
    with pytest.raises(NotFoundException):
        await watch.handle.stop()


@only_async
@covers("WatchHandle.stop")
async def test_stopping_is_a_clean_end(box: Any, watch: Watch) -> None:
    await box.files.make_dir("stopped")
    await watch.start("stopped")
    await box.files.write("stopped/file", "x")
    await watch.tells("file", FilesystemEventType.WRITE)  # the handle listens by now
    await watch.handle.stop()
    assert watch.ends == [None]


@only_async
@covers_error(TimeoutException, "Filesystem.watch_dir")
async def test_a_watcher_that_stays_too_long(watch: Watch) -> None:
    async def ended() -> bool:
        return bool(watch.ends)

    async def watched_to_the_end() -> None:
        await watch.start("/home/user", timeout=2)
        await eventually(ended)
        raise watch.ends[0] or AssertionError("a clean end")

    with pytest.raises(TimeoutException):  # it may take that long to start, too
        await watched_to_the_end()


@covers_error(FileNotFoundException, "Filesystem.watch_dir")
@covers_error(InvalidArgumentException, "Filesystem.watch_dir")
@covers_error(AuthenticationException, "Filesystem.watch_dir")
async def test_what_cannot_be_watched(box: Any, watch: Watch) -> None:
    await box.files.write("a-file", "")
    with pytest.raises(FileNotFoundException):
        await watch.start("/none")
    with pytest.raises(InvalidArgumentException):
        await watch.start("a-file")
    with pytest.raises(AuthenticationException):
        await watch.start("/home/user", user="nobody-here")
