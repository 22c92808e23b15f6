"""Limits of heads. What else is refused is in tests/conformance."""

from __future__ import annotations

import pytest

from emberbox.proxying.limits import Limits
from tests.unit.proxying.peers import GET, Bench


@pytest.mark.parametrize("whole", [True, False])
async def test_oversized_head(bench: Bench, whole: bool) -> None:
    limits = Limits(request_head=1000)
    client = await bench.connect(await bench.proxied(await bench.echo(), limits=limits))
    end = b"\r\n\r\n" if whole else b""
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 1000 + end)
    assert (await client.read_message()).status == 431
    assert await client.ended() in ("eof", "reset")


async def test_head_of_the_size_of_the_limit(bench: Bench) -> None:
    start = b"GET / HTTP/1.1\r\nHost: a\r\nX: "
    limits = Limits(request_head=1000)
    client = await bench.connect(await bench.proxied(await bench.echo(), limits=limits))
    await client.send(start + b"y" * (1000 - len(start)) + b"\r\n\r\n")
    assert (await client.read_message()).status == 200


async def test_head_may_come_byte_by_byte(bench: Bench) -> None:
    client = await bench.connect(await bench.proxied(await bench.echo()))
    for index in range(len(GET)):
        await client.send(GET[index : index + 1])
    assert (await client.read_message()).status == 200
