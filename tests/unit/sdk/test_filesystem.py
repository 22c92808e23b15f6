"""Files, in both flavours."""

from __future__ import annotations

import asyncio
import gzip
import io
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import emberbox
from emberbox import FileType
from emberbox.sdk.json_fields import EPOCH

from .stand_in import Answer, Request, StandIn, reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .conftest import Flavour

SERVICE = "/filesystem.Filesystem/"
ENTRY = {
    "name": "a",
    "type": "FILE_TYPE_FILE",
    "path": "/home/user/a",
    "size": "5368709120",
    "mode": 420,
    "permissions": "-rw-r--r--",
    "owner": "user",
    "group": "user",
    "modifiedTime": "2026-08-21T10:00:00.123456789Z",
    "metadata": {"k": "v"},
}
SHORT = 0.5
"""A time limit that is to pass, but not before the head of an answer has come."""

MISSING = reply(404, {"code": "not_found", "message": "path '/x' does not exist"})


def echo_path(request: Request) -> Answer:
    path = request.query["path"]
    return reply(200, [{"path": path, "name": Path(path).name, "type": "file"}])


def echo_form(request: Request) -> Answer:
    return reply(200, [{"path": name, "name": name, "type": "file"} for name, _ in request.form])


async def test_read(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on("GET", "/files", Answer(200, "grüße".encode()))
    assert await sdk.do(sandbox.files.read, "a b", user="root") == "grüße"
    content = await sdk.do(sandbox.files.read, "a b", format="bytes")
    assert isinstance(content, bytearray)
    assert content == "grüße".encode()
    first, second = server.sent("/files")
    assert first.query == {"path": "a b", "username": "root"}
    assert first.headers["accept-encoding"] == "identity"
    assert first.headers["x-access-token"] == "envd-token"
    assert second.query == {"path": "a b"}


async def test_read_a_stream(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on("GET", "/files", Answer(200, [b"one", b"two"]))
    reader = await sdk.do(sandbox.files.read, "a", format="stream", request_timeout=30)
    assert b"".join(await sdk.collect(reader)) == b"onetwo"


async def test_a_stream_that_is_left_early(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on("GET", "/files", Answer(200, [b"one"], end="hang"))
    reader = await sdk.do(sandbox.files.read, "a", format="stream", stream_idle_timeout=0)
    if sdk.is_async:
        async with reader:
            assert await anext(reader) == b"one"
    else:

        def block() -> None:
            with reader:
                assert next(reader) == b"one"

        await asyncio.to_thread(block)


async def test_a_stream_that_stalls(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on("GET", "/files", Answer(200, [b"one"], end="hang"))
    reader = await sdk.do(sandbox.files.read, "a", format="stream", stream_idle_timeout=SHORT)
    with pytest.raises(emberbox.TimeoutException):
        await sdk.collect(reader)


async def test_a_stream_without_a_limit(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on("GET", "/files", Answer(200, [b"one"]))
    reader = await sdk.do(sandbox.files.read, "a", format="stream", request_timeout=0)
    assert await sdk.collect(reader) == [b"one"]


@pytest.mark.parametrize("idle", [0, 60])
async def test_a_stream_that_may_stall_does_so_no_longer_than_its_limit(
    sdk: Flavour, server: StandIn, sandbox: Any, idle: int
) -> None:
    server.on("GET", "/files", Answer(200, [b"one"], end="hang"))
    reader = await sdk.do(
        sandbox.files.read, "a", format="stream", request_timeout=SHORT, stream_idle_timeout=idle
    )
    with pytest.raises(emberbox.TimeoutException):
        await asyncio.wait_for(sdk.collect(reader), 5)


async def test_a_stream_past_its_limit(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on("GET", "/files", Answer(200, [b"one"]))
    reader = await sdk.do(sandbox.files.read, "a", format="stream", request_timeout=SHORT)
    await asyncio.sleep(SHORT)
    with pytest.raises(emberbox.TimeoutException):
        await sdk.collect(reader)


async def test_read_compressed(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    answer = Answer(200, gzip.compress(b"small"), {"Content-Encoding": "gzip"})
    server.on("GET", "/files", answer)
    assert await sdk.do(sandbox.files.read, "a", gzip=True) == "small"
    assert server.requests[-1].headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, emberbox.InvalidArgumentException),
        (401, emberbox.AuthenticationException),
        (404, emberbox.FileNotFoundException),
        (429, emberbox.RateLimitException),
        (507, emberbox.NotEnoughSpaceException),
        (500, emberbox.SandboxException),
    ],
)
async def test_refusals(
    sdk: Flavour, server: StandIn, sandbox: Any, status: int, expected: type[Exception]
) -> None:
    refusal = reply(status, {"code": status, "message": "because"})
    server.on("GET", "/files", refusal)
    server.on("POST", "/files", refusal)
    with pytest.raises(expected, match="because"):
        await sdk.do(sandbox.files.read, "a")
    with pytest.raises(expected, match="because"):
        await sdk.do(sandbox.files.write, "a", "x")


async def test_read_in_an_unknown_format(sdk: Flavour, sandbox: Any) -> None:
    with pytest.raises(emberbox.InvalidArgumentException, match="format"):
        await sdk.do(sandbox.files.read, "a", format="blob")


async def test_write(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on("POST", "/files", echo_path)
    info = await sdk.do(sandbox.files.write, "/a/b", "grüße", user="root", metadata={"k": "v"})
    assert info == emberbox.WriteInfo(name="b", type=FileType.FILE, path="/a/b")
    request = server.requests[-1]
    assert request.query == {"path": "/a/b", "username": "root"}
    assert request.body == "grüße".encode()
    assert request.headers["content-type"] == "application/octet-stream"
    assert request.headers["content-length"] == "7"
    assert request.headers["x-metadata-k"] == "v"


@pytest.mark.parametrize("size", [0, 1, 3 << 20])
async def test_write_bytes(sdk: Flavour, server: StandIn, sandbox: Any, size: int) -> None:
    server.on("POST", "/files", echo_path)
    content = bytes(range(256)) * (size // 256) if size > 1 else b"x" * size
    await sdk.do(sandbox.files.write, "a", content)
    assert server.requests[-1].body == content


@pytest.mark.parametrize("kind", [io.BytesIO, lambda raw: io.StringIO(raw.decode())])
async def test_write_a_file_in_pieces(
    sdk: Flavour, server: StandIn, sandbox: Any, kind: Any
) -> None:
    server.on("POST", "/files", echo_path)
    content = b"0123456789" * 100_000
    await sdk.do(sandbox.files.write, "a", kind(content))
    request = server.requests[-1]
    assert request.body == content
    assert request.headers["transfer-encoding"] == "chunked"


async def test_a_file_is_never_whole_in_memory(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on("POST", "/files", echo_path)
    sizes: list[int] = []

    class File(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            sizes.append(size)
            return b"x" * 10 if len(sizes) < 4 else b""

    await sdk.do(sandbox.files.write, "a", File())
    assert server.requests[-1].body == b"x" * 30
    assert all(0 < size <= 1 << 20 for size in sizes)


async def test_write_an_iterable(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    server.on("POST", "/files", echo_path)
    await sdk.do(sandbox.files.write, "a", pieces() if sdk.is_async else iter([b"one", b"two"]))
    assert server.requests[-1].body == b"onetwo"


async def test_data_that_cannot_be_written(sdk: Flavour, sandbox: Any) -> None:
    async def texts() -> AsyncIterator[str]:
        yield "text"

    bad = texts() if sdk.is_async else iter(["text"])
    with pytest.raises(emberbox.InvalidArgumentException, match="gave str"):
        await sdk.do(sandbox.files.write, "a", bad)
    with pytest.raises(emberbox.InvalidArgumentException, match="not int"):
        await sdk.do(sandbox.files.write, "a", 1)
    with pytest.raises(emberbox.InvalidArgumentException, match="metadata"):
        await sdk.do(sandbox.files.write, "a", "x", metadata={"a b": "c"})


async def test_write_compressed(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on("POST", "/files", echo_path)
    await sdk.do(sandbox.files.write, "a", "text" * 1000, gzip=True)
    request = server.requests[-1]
    assert request.headers["content-encoding"] == "gzip"
    assert gzip.decompress(request.body) == b"text" * 1000


async def test_files_in_memory_are_written_in_one_request(
    sdk: Flavour, server: StandIn, sandbox: Any
) -> None:
    server.on("POST", "/files", echo_form)
    files = [{"path": "/d/a", "data": "ü"}, {"path": "b c%22", "data": b"2"}]
    infos = await sdk.do(sandbox.files.write_files, files, user="root", metadata={"k": "v"})
    assert [info.path for info in infos] == ["/d/a", "b c%22"]
    request = server.requests[-1]
    assert request.form == [("/d/a", "ü".encode()), ("b c%22", b"2")]
    assert request.query == {"username": "root"}
    assert request.headers["x-metadata-k"] == "v"
    assert len(server.sent("/files")) == 1


@pytest.mark.parametrize("option", [{"use_octet_stream": True}, {"gzip": True}])
async def test_files_are_written_as_octet_streams(
    sdk: Flavour, server: StandIn, sandbox: Any, option: dict[str, bool]
) -> None:
    server.on("POST", "/files", echo_path)
    files = [{"path": "a", "data": "1"}, {"path": "b", "data": b"2"}]
    infos = await sdk.do(sandbox.files.write_files, files, **option)
    assert [info.path for info in infos] == ["a", "b"]
    assert [request.headers["content-type"] for request in server.sent("/files")] == [
        "application/octet-stream"
    ] * 2


async def test_files_that_are_streamed_are_octet_streams(
    sdk: Flavour, server: StandIn, sandbox: Any
) -> None:
    server.on("POST", "/files", echo_path)
    files = [{"path": "a", "data": "1"}, {"path": "b", "data": io.BytesIO(b"2")}]
    assert len(await sdk.do(sandbox.files.write_files, files)) == 2
    assert [request.body for request in server.sent("/files")] == [b"1", b"2"]


async def test_no_files_are_no_request(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    for option in (None, True, False):
        assert await sdk.do(sandbox.files.write_files, [], use_octet_stream=option) == []
    assert server.sent("/files") == []


@pytest.mark.parametrize("data", ["text", b"text", io.BytesIO, io.StringIO])
async def test_a_form_of_one_file(sdk: Flavour, server: StandIn, sandbox: Any, data: Any) -> None:
    server.on("POST", "/files", echo_path)
    content = data if isinstance(data, str | bytes) else data()
    if not isinstance(content, str | bytes):
        content.write("text" if isinstance(content, io.StringIO) else b"text")
        content.seek(0)
    info = await sdk.do(sandbox.files.write, "/a/b", content, use_octet_stream=False)
    assert info.path == "/a/b"
    request = server.requests[-1]
    assert request.form == [("/a/b", b"text")]
    assert request.query == {"path": "/a/b"}


async def test_names_that_a_form_would_change_are_sent_one_by_one(
    sdk: Flavour, server: StandIn, sandbox: Any
) -> None:
    server.on("POST", "/files", lambda r: echo_path(r) if "path" in r.query else echo_form(r))
    names = ["a", "b", 'quo"te', "back\\slash", "c", "d", "line\nbreak"]
    files = [{"path": name, "data": name} for name in names]
    infos = await sdk.do(sandbox.files.write_files, files)
    assert [info.path for info in infos] == names
    assert [request.query.get("path") for request in server.sent("/files")] == [
        None,
        'quo"te',
        "back\\slash",
        None,
        "line\nbreak",
    ]


async def test_many_files_are_several_forms(
    sdk: Flavour, server: StandIn, sandbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emberbox.sdk.upload_data.FILES_OF_A_FORM", 2)
    server.on("POST", "/files", lambda r: echo_path(r) if "path" in r.query else echo_form(r))
    names = ["a", "b", "c", "d", "e"]
    files = [{"path": name, "data": name} for name in names]
    infos = await sdk.do(sandbox.files.write_files, files)
    assert [info.path for info in infos] == names
    assert [len(request.form) for request in server.sent("/files")] == [2, 2, 1]


async def test_what_a_form_cannot_carry(sdk: Flavour, sandbox: Any) -> None:
    with pytest.raises(emberbox.InvalidArgumentException, match="gzip"):
        await sdk.do(sandbox.files.write, "a", "x", gzip=True, use_octet_stream=False)
    with pytest.raises(emberbox.InvalidArgumentException, match="use_octet_stream"):
        await sdk.do(sandbox.files.write, "a", iter([b"x"]), use_octet_stream=False)


async def test_an_answer_to_fewer_files(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on("POST", "/files", reply(200, []))
    for option in (True, False):
        with pytest.raises(emberbox.SandboxException, match="answered by 0"):
            await sdk.do(sandbox.files.write, "a", "x", use_octet_stream=option)


async def test_list(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on(
        "POST",
        SERVICE + "ListDir",
        reply(200, {"entries": [ENTRY, {"name": "socket", "type": "FILE_TYPE_UNSPECIFIED"}]}),
    )
    (entry,) = await sdk.do(sandbox.files.list, "/home/user", depth=2, user="root")
    assert (entry.name, entry.type, entry.size, entry.mode) == ("a", FileType.FILE, 5 << 30, 420)
    assert entry.modified_time == datetime(2026, 8, 21, 10, 0, 0, 123456, UTC)
    assert entry.metadata == {"k": "v"}
    request = server.requests[-1]
    assert request.json == {"path": "/home/user", "depth": 2}
    assert request.headers["authorization"] == "Basic cm9vdDo="
    assert request.headers["content-type"] == "application/json"
    assert request.headers["connect-timeout-ms"] == "60000"
    with pytest.raises(emberbox.InvalidArgumentException, match="depth"):
        await sdk.do(sandbox.files.list, "/", depth=0)


async def test_exists(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on("POST", SERVICE + "Stat", reply(200, {"entry": ENTRY}), MISSING)
    assert await sdk.do(sandbox.files.exists, "a") is True
    assert await sdk.do(sandbox.files.exists, "x") is False


async def test_get_info(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    link = {"name": "l", "type": "FILE_TYPE_FILE", "isSymlink": True, "symlinkTarget": "/t"}
    server.on("POST", SERVICE + "Stat", reply(200, {"entry": link}), MISSING)
    info = await sdk.do(sandbox.files.get_info, "l")
    assert (info.type, info.symlink_target, info.size) == (FileType.SYMLINK, "/t", 0)
    assert info.modified_time == EPOCH
    with pytest.raises(emberbox.FileNotFoundException, match="does not exist"):
        await sdk.do(sandbox.files.get_info, "x")


async def test_make_dir(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    there = reply(409, {"code": "already_exists", "message": "directory already exists"})
    server.on("POST", SERVICE + "MakeDir", reply(200, {}), there)
    assert await sdk.do(sandbox.files.make_dir, "d") is True
    assert await sdk.do(sandbox.files.make_dir, "d") is False


async def test_rename_and_remove(sdk: Flavour, server: StandIn, sandbox: Any) -> None:
    server.on("POST", SERVICE + "Move", reply(200, {"entry": ENTRY}), MISSING)
    server.on("POST", SERVICE + "Remove", reply(200, {}))
    assert (await sdk.do(sandbox.files.rename, "b", "a")).path == "/home/user/a"
    assert server.requests[-1].json == {"source": "b", "destination": "a"}
    with pytest.raises(emberbox.FileNotFoundException):
        await sdk.do(sandbox.files.rename, "x", "y")
    assert await sdk.do(sandbox.files.remove, "a") is None
