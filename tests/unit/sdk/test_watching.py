"""Watched directories: a stream of events in the async flavour, polling in the sync one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import emberbox
from emberbox import FilesystemEvent, FilesystemEventType
from emberbox.sdk.connect_protocol import encode_frame

from .stand_in import Answer, StandIn, events, reply

if TYPE_CHECKING:
    from .conftest import Flavour

SERVICE = "/filesystem.Filesystem/"
WATCH = SERVICE + "WatchDir"
START: dict[str, Any] = {"start": {}}
KEEPALIVE: dict[str, Any] = {"keepalive": {}}
MISSING = {"code": "not_found", "message": "path '/x' does not exist"}
NO_WATCHER = reply(404, {"code": "not_found", "message": "watcher w1 not found"})
GONE = reply(502, {"code": 502, "message": "The sandbox was not found"})

KINDS = ["CHMOD", "CREATE", "REMOVE", "RENAME", "WRITE"]


def happened(name: str, kind: str, **more: object) -> dict[str, Any]:
    return {"name": name, "type": f"EVENT_TYPE_{kind}", **more}


class Ears:
    """Handlers of a watch, and what they were told."""

    def __init__(self) -> None:
        self.events: list[FilesystemEvent] = []
        self.ends: list[Exception | None] = []
        self.ended = asyncio.Event()

    def on_event(self, event: FilesystemEvent) -> None:
        self.events.append(event)

    def on_exit(self, error: Exception | None) -> None:
        self.ends.append(error)
        self.ended.set()

    async def end(self) -> Exception | None:
        """What the watch ended with."""
        await asyncio.wait_for(self.ended.wait(), 5)
        (error,) = self.ends
        return error


@pytest.fixture
async def watched(server: StandIn) -> emberbox.AsyncSandbox:
    return await emberbox.AsyncSandbox.create()


async def test_events_of_a_stream(server: StandIn, watched: emberbox.AsyncSandbox) -> None:
    entry = {"name": "a", "path": "/x/a", "type": "FILE_TYPE_FILE", "size": "3"}
    messages = [
        {"filesystem": happened("a", kind, **({"entry": entry} if kind == "WRITE" else {}))}
        for kind in [*KINDS, "UNSPECIFIED"]
    ]
    server.on("POST", WATCH, events(START, KEEPALIVE, *messages))
    ears = Ears()
    await watched.files.watch_dir(
        "/x",
        ears.on_event,
        ears.on_exit,
        user="root",
        timeout=0,
        recursive=True,
        include_entry=True,
        allow_network_mounts=True,
    )
    assert await ears.end() is None
    assert [event.type for event in ears.events] == [FilesystemEventType[kind] for kind in KINDS]
    assert {event.name for event in ears.events} == {"a"}
    assert ears.events[0].entry is None
    written = ears.events[-1].entry
    assert written is not None
    assert (written.path, written.size) == ("/x/a", 3)
    request = server.requests[-1]
    assert request.message == {
        "path": "/x",
        "recursive": True,
        "includeEntry": True,
        "allowNetworkMounts": True,
    }
    assert request.headers["authorization"] == "Basic cm9vdDo="
    assert request.headers["keepalive-ping-interval"] == "50"
    assert "connect-timeout-ms" not in request.headers


async def test_handlers_that_are_coroutines(
    server: StandIn, watched: emberbox.AsyncSandbox
) -> None:
    server.on("POST", WATCH, events(START, {"filesystem": happened("a", "CREATE")}))
    ears = Ears()

    async def on_event(event: FilesystemEvent) -> None:
        await asyncio.sleep(0)
        ears.on_event(event)

    async def on_exit(error: Exception | None) -> None:
        await asyncio.sleep(0)
        ears.on_exit(error)

    await watched.files.watch_dir("/x", on_event, on_exit)
    assert server.requests[-1].headers["connect-timeout-ms"] == "60000"
    assert await ears.end() is None
    assert [event.name for event in ears.events] == ["a"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MISSING, emberbox.FileNotFoundException),
        ({"code": "invalid_argument", "message": "not a dir"}, emberbox.InvalidArgumentException),
    ],
)
async def test_what_cannot_be_watched(
    sdk: Flavour,
    server: StandIn,
    sandbox: Any,
    error: dict[str, str],
    expected: type[Exception],
) -> None:
    server.on("POST", WATCH, events(error=error))
    server.on("POST", SERVICE + "CreateWatcher", reply(400, error))
    handler = {"on_event": print} if sdk.is_async else {}
    with pytest.raises(expected, match=error["message"]):
        await sdk.do(sandbox.files.watch_dir, "/x", **handler)


@pytest.mark.parametrize(
    "answer",
    [events({"filesystem": happened("a", "WRITE")}), events()],
    ids=["begins with an event", "is empty"],
)
async def test_a_stream_that_does_not_begin_with_its_start(
    server: StandIn, watched: emberbox.AsyncSandbox, answer: Answer
) -> None:
    server.on("POST", WATCH, answer)
    with pytest.raises(emberbox.SandboxException, match="not with its start"):
        await watched.files.watch_dir("/x", print)


async def test_a_stream_that_does_not_begin_in_time(
    server: StandIn, watched: emberbox.AsyncSandbox
) -> None:
    server.on("POST", WATCH, Answer(200, [], end="hang"))
    with pytest.raises(emberbox.TimeoutException, match="request_timeout"):
        await watched.files.watch_dir("/x", print, request_timeout=0.1)
    assert await asyncio.wait_for(server.given_up.get(), 5) == WATCH


async def test_stop_gives_up_the_connection(
    server: StandIn, watched: emberbox.AsyncSandbox
) -> None:
    server.on("POST", WATCH, Answer(200, [encode_frame(START)], end="hang"))
    ears = Ears()
    handle = await watched.files.watch_dir("/x", ears.on_event, ears.on_exit)
    assert isinstance(handle, emberbox.AsyncWatchHandle)
    await handle.stop()
    assert ears.ends == [None]
    await handle.stop()
    assert ears.ends == [None]
    assert await asyncio.wait_for(server.given_up.get(), 5) == WATCH


async def test_a_handler_stops_its_own_watch(
    server: StandIn, watched: emberbox.AsyncSandbox
) -> None:
    both = [encode_frame({"filesystem": happened(name, "CREATE")}) for name in "ab"]
    server.on("POST", WATCH, Answer(200, [encode_frame(START), *both], end="hang"))
    ears = Ears()

    async def once(event: FilesystemEvent) -> None:
        ears.on_event(event)
        await handle.stop()

    handle = await watched.files.watch_dir("/x", once, ears.on_exit)
    assert await ears.end() is None
    assert [event.name for event in ears.events] == ["a"]


@pytest.mark.parametrize("end", ["close", "hang"])
async def test_stopping_lets_the_last_handler_finish(
    server: StandIn, watched: emberbox.AsyncSandbox, end: str
) -> None:
    server.on("POST", WATCH, Answer(200, [encode_frame(START)], end=end))
    ears, leaving, leave = Ears(), asyncio.Event(), asyncio.Event()

    async def on_exit(error: Exception | None) -> None:
        leaving.set()
        await leave.wait()
        ears.on_exit(error)

    handle = await watched.files.watch_dir("/x", print, on_exit)
    stopping = [asyncio.create_task(handle.stop())] if end == "hang" else []
    await asyncio.wait_for(leaving.wait(), 5)
    stopping.append(asyncio.create_task(handle.stop()))
    await asyncio.sleep(0)
    leave.set()
    await asyncio.wait_for(asyncio.gather(*stopping), 5)
    assert ears.ends == [None]


async def test_the_last_handler_may_stop_the_watch(
    server: StandIn, watched: emberbox.AsyncSandbox
) -> None:
    server.on("POST", WATCH, events(START))
    ears = Ears()

    async def on_exit(error: Exception | None) -> None:
        await handle.stop()
        ears.on_exit(error)

    handle = await watched.files.watch_dir("/x", print, on_exit)
    assert await ears.end() is None


async def test_a_handler_that_fails_ends_the_watch(
    server: StandIn, watched: emberbox.AsyncSandbox
) -> None:
    one = encode_frame({"filesystem": happened("a", "CREATE")})
    server.on("POST", WATCH, Answer(200, [encode_frame(START), one], end="hang"))
    ears = Ears()

    def fail(_event: FilesystemEvent) -> None:
        raise KeyError("mine")

    await watched.files.watch_dir("/x", fail, ears.on_exit)
    assert isinstance(await ears.end(), KeyError)
    assert await asyncio.wait_for(server.given_up.get(), 5) == WATCH


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            events(START, error={"code": "deadline_exceeded", "message": "over"}),
            emberbox.TimeoutException,
        ),
        (
            Answer(200, [encode_frame(START)], end="reset"),
            emberbox.SandboxNotRunningException,
        ),
    ],
    ids=["its time is over", "the sandbox ends"],
)
async def test_a_watch_that_breaks(
    server: StandIn,
    watched: emberbox.AsyncSandbox,
    answer: Answer,
    expected: type[Exception],
) -> None:
    server.on("POST", WATCH, answer)
    server.on("GET", "/health", GONE)
    ears = Ears()
    await watched.files.watch_dir("/x", ears.on_event, ears.on_exit)
    assert type(await ears.end()) is expected


async def test_polling(server: StandIn) -> None:
    answers = [
        reply(200, {"events": [happened(kind, kind) for kind in [*KINDS, "UNSPECIFIED"]]}),
        reply(200, {}),
    ]
    server.on("POST", SERVICE + "CreateWatcher", reply(200, {"watcherId": "w1"}))
    server.on("POST", SERVICE + "GetWatcherEvents", *answers)
    server.on("POST", SERVICE + "RemoveWatcher", reply(200, {}))

    def poll() -> None:
        sandbox = emberbox.Sandbox.create()
        handle = sandbox.files.watch_dir("/x", "root", 5, True, include_entry=True)
        assert isinstance(handle, emberbox.WatchHandle)
        assert handle.get_new_events() == [
            FilesystemEvent(kind, FilesystemEventType[kind]) for kind in KINDS
        ]
        assert handle.get_new_events(request_timeout=3) == []
        handle.stop()
        handle.stop()
        with pytest.raises(emberbox.SandboxException, match="stopped"):
            handle.get_new_events()

    await asyncio.to_thread(poll)
    (created,) = server.sent(SERVICE + "CreateWatcher")
    assert created.json == {
        "path": "/x",
        "recursive": True,
        "includeEntry": True,
        "allowNetworkMounts": False,
    }
    assert created.headers["connect-timeout-ms"] == "5000"
    _, second = server.sent(SERVICE + "GetWatcherEvents")
    assert second.json == {"watcherId": "w1"}
    assert second.headers["authorization"] == "Basic cm9vdDo="
    assert second.headers["connect-timeout-ms"] == "3000"
    assert len(server.sent(SERVICE + "RemoveWatcher")) == 1


async def test_polling_a_watch_that_the_sandbox_forgot(server: StandIn) -> None:
    server.on("POST", SERVICE + "CreateWatcher", reply(200, {"watcherId": "w1"}))
    server.on("POST", SERVICE + "GetWatcherEvents", NO_WATCHER)
    server.on("POST", SERVICE + "RemoveWatcher", NO_WATCHER)

    def poll() -> None:
        handle = emberbox.Sandbox.create().files.watch_dir("/x")
        with pytest.raises(emberbox.NotFoundException, match="w1"):
            handle.get_new_events()
        handle.stop()

    await asyncio.to_thread(poll)
