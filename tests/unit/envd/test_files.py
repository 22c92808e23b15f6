"""GET and POST /files."""

from __future__ import annotations

import asyncio
import errno
import gzip
import hashlib
import os
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from emberbox.envd.files.multipart import PartEvent, Parts
from emberbox.envd.files.target import Target
from emberbox.envd.files.upload import _unzipped
from emberbox.envd.users import Users
from emberbox.envd.workers import Workers
from tests.unit.envd.conftest import OTHER, Client, Running
from tests.unit.envd.file_calls import OCTETS, error_of, put

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


# Downloads


def test_download(client: Client, tmp_path: Path) -> None:
    data = os.urandom(1_000_000)
    (tmp_path / 'a "b" é').write_bytes(data)
    answer = client.get("/files", params={"path": str(tmp_path / 'a "b" é')})
    assert answer.status_code == 200
    assert answer.content == data
    assert answer.headers["content-length"] == "1000000"
    assert answer.headers["content-disposition"].startswith("inline;")


def test_empty_and_sizeless_files(client: Client, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    answer = client.get("/files", params={"path": f"{tmp_path}/empty"})
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == "0"
    status = client.get("/files", params={"path": "/proc/self/status"}).text
    assert status.startswith("Name:")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-3", b"0123"),
        ("bytes=8-", b"89"),
        ("bytes=-3", b"789"),
        ("bytes=5-99", b"56789"),
        ("bytes=-99", b"0123456789"),
    ],
)
def test_ranges(client: Client, tmp_path: Path, header: str, expected: bytes) -> None:
    (tmp_path / "ten").write_bytes(b"0123456789")
    url = {"params": {"path": f"{tmp_path}/ten"}, "headers": {"range": header}}
    answer = client.get("/files", **url)  # type: ignore[arg-type]
    first = 10 - len(expected) if header != "bytes=0-3" else 0
    assert (answer.status_code, answer.content) == (206, expected)
    assert answer.headers["content-range"] == f"bytes {first}-{first + len(expected) - 1}/10"


def test_ranges_that_are_not_honoured(client: Client, tmp_path: Path) -> None:
    (tmp_path / "ten").write_bytes(b"0123456789")
    too_long = f"bytes={'1' * 5000}-"
    for header in ("bytes=0-1,3-4", "items=0-1", "bytes=x", "bytes=5-2", too_long):
        answer = client.get("/files", params={"path": f"{tmp_path}/ten"}, headers={"range": header})
        assert (answer.status_code, len(answer.content)) == (200, 10), header
    answer = client.get(
        "/files", params={"path": f"{tmp_path}/ten"}, headers={"range": "bytes=10-"}
    )
    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */10")
    assert error_of(answer)[0] == 416


def test_range_of_a_file_that_has_not_changed(client: Client, tmp_path: Path) -> None:
    (tmp_path / "ten").write_bytes(b"0123456789")
    params = {"path": f"{tmp_path}/ten"}
    modified = client.get("/files", params=params).headers["last-modified"]
    for condition, status in ((modified, 206), ('"tag"', 200), (formatdate(0, usegmt=True), 200)):
        headers = {"range": "bytes=0-3", "if-range": condition}
        assert client.get("/files", params=params, headers=headers).status_code == status


def test_empty_file_has_no_ranges(client: Client, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    params, headers = {"path": f"{tmp_path}/empty"}, {"range": "bytes=0-3"}
    assert client.get("/files", params=params, headers=headers).status_code == 200


def test_head(client: Client, tmp_path: Path) -> None:
    (tmp_path / "ten").write_bytes(b"0123456789")
    params = {"path": f"{tmp_path}/ten"}
    head = client.head("/files", params=params)
    assert (head.status_code, head.content) == (200, b"")
    get = client.get("/files", params=params)
    assert dict(head.headers) == dict(get.headers)
    assert head.headers["content-length"] == "10"
    assert client.head("/files", params={"path": "/no/such"}).status_code == 404
    for path in ("/proc/self/status", str(tmp_path / "ten")):
        packed = client.head("/files", params={"path": path}, headers={"accept-encoding": "gzip"})
        assert (packed.status_code, packed.content) == (200, b"")


def test_what_cannot_be_downloaded(client: Client, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    def get(path: object, **more: str) -> tuple[int, str]:
        headers = {"accept-encoding": more.pop("accept", "gzip, deflate")}
        params = {"path": str(path), **more}
        return error_of(client.get("/files", params=params, headers=headers))

    assert get("/no/such") == (404, "path '/no/such' does not exist")
    assert get(tmp_path) == (400, f"path '{tmp_path}' is a directory")
    assert get(tmp_path / "pipe")[0] == 400
    assert get("/etc/passwd", username="nobody-here") == (401, "invalid username: 'nobody-here'")
    assert get("/etc/passwd", accept="br, identity;q=0")[0] == 406
    assert get("/etc/shadow", username=OTHER.pw_name) == (403, "permission denied: '/etc/shadow'")


def test_slow_download_does_not_gather_in_memory(running: Running, tmp_path: Path) -> None:
    size = 200_000_000
    with (tmp_path / "big").open("wb") as file:
        file.truncate(size)
    before = resident()
    request = {"params": {"path": f"{tmp_path}/big"}, "headers": {"accept-encoding": "identity"}}
    with running.client.stream("GET", "/files", **request) as answer:  # type: ignore[arg-type]
        pieces = answer.iter_raw(65536)
        got = len(next(pieces))
        time.sleep(0.3)
        assert resident() - before < 30_000_000
        assert got + sum(map(len, pieces)) == size


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_client_that_leaves_a_download_ends_it(
    client: Client, tmp_path: Path, encoding: str
) -> None:
    path = tmp_path / "big"
    with path.open("wb") as file:
        file.truncate(10**12)
    request = {"params": {"path": str(path)}, "headers": {"accept-encoding": encoding}}
    with client.stream("GET", "/files", **request) as answer:  # type: ignore[arg-type]
        pieces = answer.iter_raw()  # kept: without it the client closes the connection
        next(pieces)
        assert is_open(path)
    deadline = time.monotonic() + 20
    while is_open(path):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_open(path: Path) -> bool:
    """In this process, where the daemon of the tests runs."""
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            if os.readlink(link) == str(path):  # noqa: PTH115
                return True
    return False


# Uploads


def test_upload_octets_makes_parents_for_the_user(client: Client, shared_dir: Path) -> None:
    path = shared_dir / "new/dir/file"
    answer = client.post(
        "/files",
        params={"path": str(path), "username": OTHER.pw_name},
        content=b"data",
        headers=OCTETS,
    )
    assert answer.status_code == 200
    assert answer.json() == [{"path": str(path), "name": "file", "type": "file"}]
    assert path.read_bytes() == b"data"
    for made in (path, path.parent, path.parent.parent):
        assert (made.stat().st_uid, made.stat().st_gid) == (OTHER.pw_uid, OTHER.pw_gid)
    assert path.stat().st_mode & 0o7777 == 0o644
    assert path.parent.stat().st_mode & 0o7777 == 0o755


def test_upload_is_streamed(running: Running, tmp_path: Path) -> None:
    block = os.urandom(100_000)
    before = resident()

    def pieces() -> Iterator[bytes]:
        for number in range(1000):
            if number % 200 == 0:
                assert resident() - before < 40_000_000
            yield block

    assert put(running.client, tmp_path / "big", pieces()).status_code == 200
    found = hashlib.sha256((tmp_path / "big").read_bytes()).digest()
    assert found == hashlib.sha256(block * 1000).digest()


def test_overwriting_keeps_the_mode_and_cuts(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "tool"
    file.write_bytes(b"long content")
    file.chmod(0o755)
    assert put(client, file, b"new").status_code == 200
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"new", 0o755)
    assert put(client, file, b"").status_code == 200
    assert file.read_bytes() == b""


def test_writable_file_of_another_user_keeps_its_owner(client: Client, shared_dir: Path) -> None:
    file = shared_dir / "common"
    file.write_text("old")
    file.chmod(0o666)
    params = {"path": str(file), "username": OTHER.pw_name}
    assert client.post("/files", params=params, content=b"new", headers=OCTETS).status_code == 200
    assert (file.read_text(), file.stat().st_uid) == ("new", 0)


def test_upload_through_a_link_and_to_a_device(client: Client, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    assert put(client, tmp_path / "link", b"x").status_code == 200
    assert (tmp_path / "target").read_bytes() == b"x"
    assert put(client, "/dev/null", b"x").status_code == 200


def test_gzip_is_decoded(client: Client, tmp_path: Path) -> None:
    data = b"abc" * 1_000_000
    packed = gzip.compress(data[:10]) + gzip.compress(data[10:])
    assert put(client, tmp_path / "f", packed, content_encoding="gzip").status_code == 200
    assert (tmp_path / "f").read_bytes() == data
    for broken in (b"not gzip", packed[:-5]):
        answer = put(client, tmp_path / "f", broken, content_encoding="gzip")
        assert error_of(answer)[0] == 400
        assert not (tmp_path / "f").exists()
    assert error_of(put(client, tmp_path / "f", b"", content_encoding="br"))[0] == 400


def multipart(*parts: tuple[str, bytes], boundary: str = "xyz") -> bytes:
    body = b""
    for disposition, data in parts:
        head = f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n"
        body += head.encode() + data + b"\r\n"
    return body + f"--{boundary}--\r\n".encode()


FORM = {"content-type": "multipart/form-data; boundary=xyz"}


def test_multipart_names_one_or_many_files(client: Client, tmp_path: Path) -> None:
    tricky = b"\r\n--xy\r\n--\r\n" + os.urandom(300_000) + b"\r\n--xyZ"
    body = multipart(
        (f'name="file"; filename="{tmp_path}/a%22b/c"', tricky),
        ('name="other"', b"ignored"),
        (f'name="file"; filename="{tmp_path}/two"', b""),
        (f'name="file"; filename="{tmp_path}/q\\"uote"', b"3"),
    )
    pieces = (body[i : i + 997] for i in range(0, len(body), 997))
    answer = client.post("/files", content=pieces, headers=FORM)
    assert [f["name"] for f in answer.json()] == ["c", "two", 'q"uote']
    assert (tmp_path / "a%22b/c").read_bytes() == tricky
    assert (tmp_path / "two").read_bytes() == b""
    assert (tmp_path / 'q"uote').read_bytes() == b"3"


@pytest.mark.parametrize("disposition", ['name="file"; filename="ignored"', 'name="file"'])
def test_path_wins_over_the_filename(client: Client, tmp_path: Path, disposition: str) -> None:
    answer = client.post(
        "/files",
        params={"path": f"{tmp_path}/given"},
        content=multipart((disposition, b"x")),
        headers=FORM,
    )
    assert answer.json() == [{"path": f"{tmp_path}/given", "name": "given", "type": "file"}]


def test_relative_filename_starts_in_the_home(running: Running, tmp_path: Path) -> None:
    name = f"../{str(tmp_path).lstrip('/')}/x"
    answer = running.client.post(
        "/files", content=multipart((f'name="file"; filename="{name}"', b"x")), headers=FORM
    )
    assert answer.json()[0]["path"] == str(tmp_path / "x")


def test_bad_uploads(client: Client, tmp_path: Path) -> None:
    two = multipart(('name="file"; filename="a"', b""), ('name="file"; filename="b"', b""))
    path = {"path": f"{tmp_path}/x"}
    cases: list[tuple[dict[str, str], dict[str, str], bytes]] = [
        (path, {"content-type": "text/plain"}, b"x"),
        ({}, OCTETS, b"x"),
        (path, FORM, b"no multipart at all"),
        (path, FORM, multipart(('name="file"', b"x"))[:-9]),
        (path, FORM, multipart(('name="other"', b"x"))),
        (path, {"content-type": "multipart/form-data"}, b"x"),
        (path, FORM, two),
        ({}, FORM, multipart(('name="file"', b"x"))),
        ({"path": str(tmp_path)}, OCTETS, b"x"),
        ({"path": f"{tmp_path}/a\0b"}, OCTETS, b"x"),
    ]
    for params, headers, content in cases:
        answer = client.post("/files", params=params, headers=headers, content=content)
        assert error_of(answer)[0] == 400, (params, headers, content)
    wrong = client.post("/files", params=path | {"username": "x y"}, headers=OCTETS, content=b"")
    assert error_of(wrong) == (401, "invalid username: 'x y'")
    assert error_of(put(client, "/etc/passwd/x", b""))[0] == 400
    denied = client.post(
        "/files", params={"path": "/etc/x", "username": OTHER.pw_name}, headers=OCTETS, content=b""
    )
    assert error_of(denied) == (403, "permission denied: '/etc/x'")


def test_client_that_leaves_an_upload_leaves_no_file(running: Running, tmp_path: Path) -> None:
    def half() -> Iterator[bytes]:
        yield b"x" * 1_000_000
        while not (tmp_path / "half").exists():
            time.sleep(0.01)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        put(running.client, tmp_path / "half", half())
    deadline = time.monotonic() + 10
    while (tmp_path / "half").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_failed_upload_leaves_alone_what_took_its_place(tmp_path: Path) -> None:
    path, newer = tmp_path / "file", tmp_path / "newer"
    newer.write_text("whole")
    workers = Workers(Users())
    target = Target(str(path), workers.users.find("root"), {}, workers)
    await target.open()
    newer.rename(path)
    await target.discard()
    workers.close()
    assert path.read_text() == "whole"


def test_metadata(client: Client, tmp_path: Path) -> None:
    answer = put(client, tmp_path / "f", b"", X_Metadata_Owner="me", X_Metadata_b="é")
    assert answer.json()[0]["metadata"] == {"owner": "me", "b": "é"}
    stat = client.call("filesystem.Filesystem/Stat", {"path": f"{tmp_path}/f"}).json()
    assert stat["entry"]["metadata"] == {"owner": "me", "b": "é"}
    assert put(client, tmp_path / "f", b"").json() == [
        {"path": f"{tmp_path}/f", "name": "f", "type": "file"}
    ]
    assert os.listxattr(tmp_path / "f") == []
    (tmp_path / "f").write_bytes(b"kept")
    for headers in ({"X-Metadata-" + "k" * 247: "v"}, {"X-Metadata-k": "v" * 4096}):
        assert error_of(put(client, tmp_path / "f", b"", **headers))[0] == 400
    assert (tmp_path / "f").read_bytes() == b"kept"


@pytest.mark.parametrize("code", [errno.ENOTSUP, errno.ENOSPC, errno.E2BIG])
def test_metadata_where_it_cannot_be_kept(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, "refused")

    monkeypatch.setattr(os, "setxattr", refuse)
    (tmp_path / "old").write_bytes(b"kept")
    for name in ("old", "new"):
        status, message = error_of(put(client, tmp_path / name, b"", X_Metadata_a="b"))
        assert status == 400
        assert "metadata" in message
    assert (tmp_path / "old").read_bytes() == b"kept"
    assert not (tmp_path / "new").exists()


def test_full_disk(running: Running, tmp_path: Path) -> None:
    """In a mount of its own, seen by this test alone."""
    client = running.client
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=True)
    try:
        (disk / "old").write_bytes(b"kept")
        known = put(client, disk / "old", b"x" * 2_000_000)
        assert error_of(known)[0] == 507
        assert "not enough disk space" in known.json()["message"]
        assert (disk / "old").read_bytes() == b"kept"
        unknown = put(client, disk / "new", iter([b"x" * 1_000_000] * 3))
        assert error_of(unknown) == (507, f"not enough disk space to write '{disk}/new'")
        assert not (disk / "new").exists()
        form = multipart((f'name="file"; filename="{disk}/part"', b"x" * 2_000_000))
        assert error_of(client.post("/files", content=iter([form]), headers=FORM))[0] == 507
        assert not (disk / "part").exists()
        assert put(client, disk / "fits", b"x").status_code == 200
        for _ in range(2):  # the second takes the place of the first
            assert put(client, disk / "most", b"x" * 700_000).status_code == 200
        body = {"source_paths": [f"{disk}/most"] * 2, "destination": f"{disk}/old"}
        composed = client.post("/files/compose", json=body)
        assert error_of(composed) == (507, f"not enough disk space to write '{disk}/old'")
        assert (disk / "old").read_bytes() == b"kept"
        assert sorted(file.name for file in disk.iterdir()) == ["fits", "most", "old"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_early_refusal_does_not_break_the_connection(client: Client) -> None:
    answer = put(client, "/etc/passwd/x", iter([b"x" * 200_000] * 10))
    assert answer.status_code == 400
    assert client.get("/health").status_code == 204


def test_upload_while_others_work(running: Running, tmp_path: Path) -> None:
    """File work does not hold up the event loop."""
    stop = threading.Event()
    slowest = 0.0

    def uploads() -> None:
        with Client(base_url=running.url, timeout=30) as client:
            while not stop.is_set():
                put(client, tmp_path / "f", b"x" * 5_000_000)

    thread = threading.Thread(target=uploads)
    thread.start()
    try:
        for _ in range(50):
            begun = time.monotonic()
            assert running.client.get("/health").status_code == 204
            slowest = max(slowest, time.monotonic() - begun)
    finally:
        stop.set()
        thread.join()
    assert slowest < 5, "only a hang is a failure; figures are for benchmarks"


def test_parsing_many_parts_stops_nobody(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsing, go_on, feed = threading.Event(), threading.Event(), Parts.feed

    def slow(parts: Parts, piece: bytes) -> list[PartEvent]:
        parsing.set()
        assert go_on.wait(20)
        return feed(parts, piece)

    monkeypatch.setattr(Parts, "feed", slow)
    file = ('name="file"; filename="x"', bytes(300_000))
    with ThreadPoolExecutor(1) as threads:
        try:
            params = {"path": f"{tmp_path}/x"}
            body = multipart(file)
            post = running.client.post
            sent = threads.submit(post, "/files", params=params, content=body, headers=FORM)
            assert parsing.wait(20)
            assert running.client.get("/health", timeout=10).status_code == 204
        finally:
            go_on.set()
        assert sent.result(20).status_code == 200


async def test_inflating_lets_others_run() -> None:
    turns, done = 0, False

    async def other() -> None:
        nonlocal turns
        while not done:
            turns += 1
            await asyncio.sleep(0)

    async def body() -> AsyncIterator[bytes]:
        yield gzip.compress(bytes(8 * 1024 * 1024))

    beside = asyncio.create_task(other())
    pieces = [len(piece) async for piece in _unzipped(body())]
    done = True
    await beside
    assert sum(pieces) == 8 * 1024 * 1024
    assert turns >= len(pieces) > 8
