"""Large bodies: nothing piles up in the proxy."""

from __future__ import annotations

import asyncio
import hashlib
import resource
from pathlib import Path

import pytest

from tests.unit.proxying.peers import BLOCK, GET, MIB, Bench, Connection, send_until_blocked

SIZE = 50 * MIB
MOST_EXTRA = 24 * MIB


def resident() -> int:
    """Bytes of memory of this process that are in use now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


async def _send_body(connection: Connection, chunked: bool) -> None:
    for _ in range(SIZE // len(BLOCK)):
        if chunked:
            await connection.send(b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK))
        else:
            await connection.send(BLOCK)
    if chunked:
        await connection.send(b"0\r\n\r\n")


async def _digest(connection: Connection, chunked: bool) -> str:
    digest, left = hashlib.sha256(), SIZE
    while chunked and (chunk := await connection.read_chunk()):
        digest.update(chunk)
    while not chunked and left:
        data = await connection.reader.read(MIB)
        left -= len(data)
        digest.update(data)
    return digest.hexdigest()


def _framing(chunked: bool) -> bytes:
    return b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % SIZE


EXPECTED = hashlib.sha256(BLOCK * (SIZE // len(BLOCK))).hexdigest()


@pytest.mark.parametrize("chunked", [False, True])
async def test_large_download_is_whole_and_takes_little_memory(bench: Bench, chunked: bool) -> None:
    async def download(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % _framing(chunked))
        await _send_body(connection, chunked)

    client = await bench.connect(await bench.proxied(await bench.backend(download)))
    before = resident()
    await client.send(GET)
    await client.read_head()
    assert await _digest(client, chunked) == EXPECTED
    assert resident() - before < MOST_EXTRA


@pytest.mark.parametrize("chunked", [False, True])
async def test_large_upload_is_whole_and_takes_little_memory(bench: Bench, chunked: bool) -> None:
    async def upload(connection: Connection) -> None:
        await connection.read_head()
        digest = await _digest(connection, chunked)
        if chunked:
            await connection.reader.readexactly(2)
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n" + digest.encode())

    client = await bench.connect(await bench.proxied(await bench.backend(upload)))
    before = resident()
    await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n" % _framing(chunked))
    await _send_body(client, chunked)
    assert (await client.read_message()).body == EXPECTED.encode()
    assert resident() - before < MOST_EXTRA


async def test_slow_client_holds_the_backend(bench: Bench) -> None:
    blocked: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def download(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
        blocked.set_result(await send_until_blocked(connection))
        left = SIZE - blocked.result() - len(BLOCK)
        await connection.send(bytes(left))

    client = await bench.connect(await bench.proxied(await bench.backend(download)))
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await client.send(GET)
    assert await blocked < SIZE // 2
    client.writer.transport.resume_reading()  # type: ignore[attr-defined]
    await client.read_head()
    assert len(await client.reader.readexactly(SIZE)) == SIZE


async def test_slow_backend_holds_the_client(bench: Bench) -> None:
    go_on = asyncio.Event()

    async def upload(connection: Connection) -> None:
        await connection.read_head()
        await go_on.wait()
        await connection.reader.readexactly(SIZE)
        await connection.send(b"HTTP/1.1 204 No Content\r\n\r\n")

    client = await bench.connect(await bench.proxied(await bench.backend(upload)))
    await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % SIZE)
    sent = await send_until_blocked(client)
    assert sent < SIZE // 2
    go_on.set()
    await client.send(bytes(SIZE - sent - len(BLOCK)))
    assert (await client.read_message()).status == 204


async def test_client_that_pipelines_without_reading_is_served_no_further(bench: Bench) -> None:
    served = 0

    async def large(connection: Connection) -> None:
        nonlocal served
        await connection.read_head()
        served += 1
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (8 * MIB))
        await connection.send(bytes(8 * MIB))

    client = await bench.connect(await bench.proxied(await bench.backend(large)))
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    before = resident()
    await client.send(GET * 10)
    await asyncio.sleep(0.5)
    assert served <= 2
    assert resident() - before < MOST_EXTRA
    client.writer.transport.resume_reading()  # type: ignore[attr-defined]
    for _ in range(10):
        await client.read_head()
        await client.reader.readexactly(8 * MIB)
