"""Clients that send nonsense through both proxies, servers that judge what reaches them, and
clients that behave and must not notice.

The judges are h11, strict and by other hands than ours: what a proxy forwards must be well-formed
to it, and name the sandbox that it was forwarded to.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, cast

import h11

from tests.conformance import mutations

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PATIENCE = 20.0
"""Seconds in which a client that has finished sending must be let go: less than a proxy waits for
the rest of a head."""
BROKEN = mutations.SANDBOXES + 1
"""The sandbox whose answers are spoilt."""


@dataclass
class Findings:
    """What is wrong, and how much was tried."""

    wrong: list[str] = field(default_factory=list)
    sent: int = 0
    reached: int = 0
    answered: int = 0
    served: int = 0

    def add(self, text: str, data: bytes) -> None:
        """Of some bytes."""
        self.wrong.append(f"{text}: {data!r}")


class Guest(asyncio.Protocol):
    """The server of one sandbox: it judges requests and stamps its number on answers."""

    def __init__(
        self,
        number: int,
        findings: Findings,
        rng: random.Random,
        opened: set[asyncio.Transport],
    ) -> None:
        self._number = number
        self._findings = findings
        self._rng = rng
        self._open = opened
        self._judge = h11.Connection(h11.SERVER, max_incomplete_event_size=100_000)
        self._seen = b""
        self._upgrade = self._to_head = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._open.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        assert self._transport is not None
        self._open.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._seen += data
        if self._judge.their_state is h11.SWITCHED_PROTOCOL:
            self._transport.write(data)
            return
        try:
            self._judge.receive_data(data)
            self._take_events(self._transport)
        except h11.RemoteProtocolError as error:
            self._findings.add(f"malformed request forwarded ({error})", self._seen)
            self._transport.abort()

    def _take_events(self, transport: asyncio.Transport) -> None:
        while True:
            event = self._judge.next_event()
            if isinstance(event, h11.Request):
                self._look_at(event)
                self._upgrade = b"upgrade" in dict(event.headers)
                self._to_head = event.method == b"HEAD"
            elif isinstance(event, h11.EndOfMessage) and self._upgrade:
                self._switch(transport)
                return
            elif isinstance(event, h11.EndOfMessage):
                self._answer(transport)
            elif isinstance(event, (type, h11.ConnectionClosed)):  # NEED_DATA or PAUSED
                return

    def _look_at(self, request: h11.Request) -> None:
        self._findings.reached += 1
        hosts = [value for name, value in request.headers if name == b"host"]
        ids = [value for name, value in request.headers if name == b"e2b-sandbox-id"]
        # Names of hosts are the same in capitals.
        named = hosts[0].lower().partition(b".")[0].partition(b"-")[2].partition(b"-")[0]
        own = b"i%d" % self._number
        if len(hosts) != 1 or own not in (named, *(value.partition(b"-")[0] for value in ids)):
            self._findings.add(f"request of another sandbox reached i{self._number}", self._seen)
        names = [name for name, _ in request.headers]
        if names.count(b"content-length") + names.count(b"transfer-encoding") > 1:
            self._findings.add("a length that can be read in two ways was forwarded", self._seen)
        if any(name.startswith(b"x-emberbox-") for name in names):
            self._findings.add("an internal field reached a sandbox", self._seen)

    def _switch(self, transport: asyncio.Transport) -> None:
        head = h11.InformationalResponse(
            status_code=101, headers=[("Connection", "Upgrade"), ("Upgrade", "websocket")]
        )
        try:
            transport.write(self._judge.send(head) or b"")
        except h11.LocalProtocolError:  # there is a body too: this server wants none
            transport.abort()

    def _answer(self, transport: asyncio.Transport) -> None:
        if self._number == BROKEN:
            transport.write(mutations.answer(self._rng))
            transport.close()
            return
        stamp = b"i%d" % self._number
        fields = [(b"X-Stamp", stamp), (b"Content-Length", b"%d" % len(stamp))]
        sent = self._judge.send(h11.Response(status_code=200, headers=fields)) or b""
        if not self._to_head:
            sent += self._judge.send(h11.Data(data=stamp)) or b""
        sent += self._judge.send(h11.EndOfMessage()) or b""
        transport.write(sent)
        if self._judge.our_state is h11.MUST_CLOSE:
            transport.close()
        else:
            self._judge.start_next_cycle()


class Fuzz:
    """One run. `port` is the client proxy's."""

    def __init__(self, port: int, seed: int) -> None:
        self._port = port
        self._rng = random.Random(seed)
        self.findings = Findings()

    async def run(self, address_of: Callable[[int], str], seconds: float) -> None:
        """Serve the sandboxes at their addresses, and let all clients go on for so long."""
        loop = asyncio.get_running_loop()
        opened: set[asyncio.Transport] = set()
        servers = [
            await loop.create_server(
                partial(Guest, number, self.findings, self._rng, opened), address_of(number), 8000
            )
            for number in range(1, BROKEN + 1)
        ]
        end = loop.time() + seconds
        clients = [self._until(end, self._send_nonsense) for _ in range(8)]
        clients += [self._until(end, self._meet_broken_answers)]
        clients += [self._behave(end, number) for number in range(1, mutations.SANDBOXES + 1)]
        await asyncio.gather(*clients)
        for server in servers:
            server.close()
        for transport in opened:
            transport.abort()
        while opened:  # noqa: ASYNC110 - a transport says to its protocol alone that it has ended
            await asyncio.sleep(0)

    async def _until(self, end: float, work: Callable[[], Awaitable[None]]) -> None:
        while asyncio.get_running_loop().time() < end and not self.findings.wrong:
            await work()

    async def _send_nonsense(self) -> None:
        data = mutations.requests(self._rng)
        self.findings.sent += 1
        got, _ = await self._exchange(mutations.in_pieces(data, self._rng), data)
        self.findings.answered += b"X-Stamp" in got
        for number in range(1, mutations.SANDBOXES + 1):
            stamped = b"X-Stamp: i%d\r\n" % number in got
            if stamped and b"i%d" % number not in data:
                self.findings.add(f"answer of i{number}, which was not asked", data)

    async def _meet_broken_answers(self) -> None:
        data = mutations.request_of(BROKEN, self._rng)
        method = data.partition(b" ")[0]
        self.findings.sent += 1
        got, reset = await self._exchange([data], data)
        if got or not reset:  # a reset may overtake an answer that was cut short
            self._judge_answer(method, got, data)

    def _judge_answer(self, method: bytes, got: bytes, data: bytes) -> None:
        """What a client gets is well-formed as far as it goes."""
        judge = h11.Connection(h11.CLIENT, max_incomplete_event_size=200_000)
        headers = [("Host", "a"), *([("Upgrade", "websocket")] if b"Upgrade:" in data else [])]
        judge.send(h11.Request(method=method, target="/", headers=headers))
        judge.send(h11.EndOfMessage())
        judge.receive_data(got)
        try:
            while True:
                event = judge.next_event()
                if isinstance(event, (type, h11.ConnectionClosed, h11.EndOfMessage)):
                    return
        except h11.RemoteProtocolError as error:
            self.findings.add(f"malformed answer ({error}) to {data!r}", got)

    async def _exchange(self, pieces: list[bytes], data: bytes) -> tuple[bytes, bool]:
        """Send, finish, and read until the end, which must come; whether it was a reset."""
        got, reset = b"", True
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            async with asyncio.timeout(PATIENCE):
                with contextlib.suppress(ConnectionError):
                    for piece in pieces:
                        writer.write(piece)
                        await writer.drain()
                        await asyncio.sleep(0)
                    writer.write_eof()
                    while more := await reader.read(65536):
                        got += more
                    reset = False
        except TimeoutError:
            self.findings.add("a client that finished was not let go", data)
        finally:
            writer.transport.abort()
        return got, reset

    async def _behave(self, end: float, number: int) -> None:
        """A client on kept connections that must get its own answers, whatever others do."""
        loop = asyncio.get_running_loop()
        host = b"Host: 8000-i%d.example.com\r\n" % number
        expected = b"X-Stamp: i%d\r\nContent-Length: 2\r\n\r\ni%d" % (number, number)
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            for turn in itertools.count():
                if loop.time() > end or self.findings.wrong:
                    return
                body = b"%d" % turn
                head = b"POST / HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n" % (host, len(body))
                writer.write(head + body)
                async with asyncio.timeout(PATIENCE):
                    got = await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(2)
                if expected not in got:
                    self.findings.add(f"a client of i{number} was served otherwise", got)
                self.findings.served += 1
                await asyncio.sleep(0.01)
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError) as error:
            self.findings.add(f"a client of i{number} was not served ({error!r})", b"")
        finally:
            writer.transport.abort()
