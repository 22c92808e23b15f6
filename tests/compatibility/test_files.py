"""`sandbox.files`: what files hold, and links to them, with the official Python package."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from e2b import (
    AuthenticationException,
    FileNotFoundException,
    InvalidArgumentException,
    NotEnoughSpaceException,
)

from tests.compatibility.covering import covers, covers_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.compatibility.flavours import Sdk

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

HOME = "/home/user"


@covers("Filesystem.write", "Filesystem.read")
async def test_what_is_written_is_read(box: Any) -> None:
    written = await box.files.write("made/on/the way/ä.txt", "content")
    assert (written.name, written.path) == ("ä.txt", f"{HOME}/made/on/the way/ä.txt")
    assert await box.files.read(f"{HOME}/made/on/the way/ä.txt") == "content"
    assert await box.files.read("made/on/the way/ä.txt", format="bytes") == b"content"
    info = await box.files.get_info("made/on/the way/ä.txt")
    assert (info.owner, info.permissions) == ("user", "-rw-r--r--")


@covers("Filesystem.write")
async def test_writing_again_replaces(box: Any) -> None:
    await box.files.write("again", "a longer text", metadata={"kept": "no"})
    await box.files.write("again", b"\x00\xff")
    assert await box.files.read("again", format="bytes") == b"\x00\xff"
    assert not (await box.files.get_info("again")).metadata


@covers("Filesystem.write", "Filesystem.read")
@pytest.mark.parametrize(
    "options", [{"gzip": True}, {"use_octet_stream": True}, {"use_octet_stream": False}]
)
async def test_ways_to_send(box: Any, options: dict[str, bool]) -> None:
    content = "compressible " * 10_000
    await box.files.write("sent", content, **options)
    assert await box.files.read("sent") == content
    assert await box.files.read("sent", gzip=True) == content


@covers("Filesystem.write")
async def test_data_that_is_not_in_memory(box: Any, sdk: Sdk) -> None:
    await box.files.write("from a file", io.BytesIO(b"file-like"))
    assert await box.files.read("from a file") == "file-like"
    await box.files.write("in pieces", _pieces() if sdk.flavour == "sync" else _async_pieces())
    assert await box.files.read("in pieces") == "piece 0, piece 1, piece 2, "


@covers("Filesystem.read")
async def test_reading_as_a_stream(box: Any, sdk: Sdk) -> None:
    content = bytes(range(256)) * 4096
    await box.files.write("streamed", content)
    stream = await box.files.read("streamed", format="stream")
    if sdk.flavour == "sync":
        assert b"".join(stream) == content
    else:
        assert b"".join([chunk async for chunk in stream]) == content


@covers("Filesystem.write", "Filesystem.read")
async def test_files_of_another_user(box: Any) -> None:
    await box.files.write("secret", "of root", user="root")
    assert (await box.files.get_info("/root/secret", user="root")).owner == "root"
    assert await box.files.read("secret", user="root") == "of root"


@covers("Filesystem.write")
async def test_metadata(box: Any) -> None:
    written = await box.files.write("labelled", "x", metadata={"Purpose": "test"})
    assert written.metadata == {"purpose": "test"}
    assert (await box.files.get_info("labelled")).metadata == {"purpose": "test"}


@covers("Filesystem.write_files")
@pytest.mark.parametrize("octets", [True, False])
async def test_several_files_at_once(box: Any, octets: bool) -> None:
    entries = [
        {"path": "many/text", "data": "one"},
        {"path": f"{HOME}/many/bytes", "data": b"two"},
        {"path": "many/file", "data": io.BytesIO(b"three")},
    ]
    written = await box.files.write_files(entries, use_octet_stream=octets)
    assert [one.path for one in written] == [f"{HOME}/many/{n}" for n in ("text", "bytes", "file")]
    read = [await box.files.read(one.path) for one in written]
    assert read == ["one", "two", "three"]
    assert await box.files.write_files([]) == []


@covers_error(FileNotFoundException, "Filesystem.read")
@covers_error(InvalidArgumentException, "Filesystem.read", "Filesystem.write")
@covers_error(InvalidArgumentException, "Filesystem.write_files")
@pytest.mark.parametrize("form", ["text", "bytes", "stream"])
async def test_what_is_no_file(box: Any, form: str) -> None:
    with pytest.raises(FileNotFoundException, match="path '/home/user/none' does not exist"):
        await box.files.read("none", format=form)
    with pytest.raises(InvalidArgumentException):
        await box.files.read("/tmp", format=form)
    with pytest.raises(InvalidArgumentException):
        await box.files.write("/tmp", "x")
    with pytest.raises(InvalidArgumentException):
        await box.files.write_files([{"path": "/tmp", "data": "x"}])


@covers_error(InvalidArgumentException, "Filesystem.write", "Filesystem.write_files")
async def test_arguments_that_the_package_refuses(box: Any) -> None:
    with pytest.raises(InvalidArgumentException):
        await box.files.write("x", "x", gzip=True, use_octet_stream=False)
    with pytest.raises(InvalidArgumentException):
        await box.files.write("x", "x", metadata={"not a token": "x"})
    with pytest.raises(InvalidArgumentException):
        await box.files.write_files([{"path": "x", "data": "x"}], metadata={"k": "two\nlines"})


@covers_error(AuthenticationException, "Filesystem.read", "Filesystem.write")
@covers_error(AuthenticationException, "Filesystem.write_files")
async def test_a_user_that_is_not_there(box: Any) -> None:
    files, who = box.files, {"user": "nobody-here"}
    for call in (
        files.read("x", **who),
        files.write("x", "x", **who),
        files.write_files([{"path": "x", "data": "x"}], **who),
    ):
        with pytest.raises(AuthenticationException, match="invalid username"):
            await call


@covers_error(NotEnoughSpaceException, "Filesystem.write", "Filesystem.write_files")
async def test_a_full_disk(box: Any) -> None:
    small = "sudo mkdir /small && sudo mount -t tmpfs -o size=1m,mode=777 tmpfs /small"
    await box.commands.run(small)
    much = b"x" * 2**21
    for call in (
        box.files.write("/small/much", much),
        box.files.write("/small/much", much, use_octet_stream=True),
        box.files.write_files([{"path": "/small/much", "data": much}]),
    ):
        with pytest.raises(NotEnoughSpaceException):
            await call
    await box.files.remove("/small/much")
    await box.files.write("/small/little", "fits")
    await box.commands.run("sudo umount /small")


@covers("Sandbox.download_url", "Sandbox.upload_url")
async def test_links_to_files(box: Any) -> None:
    async with httpx.AsyncClient(timeout=60) as anybody:
        sent = await anybody.post(
            await box.upload_url("linked/a b"), files={"file": ("a b", b"by link")}
        )
        assert (sent.status_code, sent.json()[0]["path"]) == (200, f"{HOME}/linked/a b")
        got = await anybody.get(await box.download_url("linked/a b", use_signature_expiration=60))
        assert (got.status_code, got.content) == (200, b"by link")
        as_root = await box.download_url("/home/user/linked/a b", user="root")
        assert (await anybody.get(as_root)).content == b"by link"


@covers_error("401 with another path", "Sandbox.download_url", "Sandbox.upload_url")
async def test_a_link_is_for_one_path(box: Any) -> None:
    await box.files.write("mine", "x")
    async with httpx.AsyncClient(timeout=60) as anybody:
        download = (await box.download_url("mine")).replace("path=mine", "path=other")
        assert (await anybody.get(download)).status_code == 401
        upload = (await box.upload_url("mine")).replace("path=mine", "path=other")
        answer = await anybody.post(upload, files={"file": b"x"})
        assert answer.status_code == 401
    assert not await box.files.exists("other")


@covers_error("401 when expired", "Sandbox.download_url", "Sandbox.upload_url")
async def test_a_link_that_expired(box: Any) -> None:
    await box.files.write("mine", "x")
    links = [
        await box.download_url("mine", use_signature_expiration=-10),
        await box.upload_url("mine", use_signature_expiration=-10),
    ]
    expired = {"code": 401, "message": "signature is already expired"}
    async with httpx.AsyncClient(timeout=60) as anybody:
        assert (await anybody.get(links[0])).json() == expired
        assert (await anybody.post(links[1], files={"file": b"x"})).json() == expired


def _pieces() -> Iterator[bytes]:
    for number in range(3):
        yield f"piece {number}, ".encode()


async def _async_pieces() -> AsyncIterator[bytes]:
    for piece in _pieces():
        yield piece
