"""Plays a case: a client and a server of ours with a proxy between them."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from typing import TYPE_CHECKING, Self

from tests.conformance.proxies import PATIENCE
from tests.conformance.talks import FIN, RST

if TYPE_CHECKING:
    from types import TracebackType

    from tests.conformance.proxies import Proxy
    from tests.conformance.talks import Step

_HEAD_END = b"\r\n\r\n"


class Stage:
    """One client, and the server's connection that carries the present request."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._client = proxy.connect()
        self._server: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()
        if self._server is not None:
            # The proxy must have let go of the connection before the next case begins.
            with contextlib.suppress(OSError), self._server as server:
                server.shutdown(socket.SHUT_WR)
                while server.recv(65536):
                    pass

    def play(self, steps: list[Step]) -> None:
        """Take the steps one after another. Raises AssertionError at the one that fails."""
        for number, (who, what) in enumerate(steps):
            try:
                self._step(who, what)
            except (AssertionError, TimeoutError) as error:
                raise AssertionError(f"step {number}, {who} {what!r}: {error!r}") from error

    def _step(self, who: str, what: bytes | str | int) -> None:
        match who, what:
            case "C>", bytes():
                self._client.sendall(self._proxy.as_sent(what))
            case "S>", bytes():
                self.server.sendall(what)
            case ">S", bytes():
                self._server_gets(what)
            case ">C", bytes():
                got = _receive(self._client, len(what))
                assert got == what, got
            case ">C", int():
                assert self.status() == what
            case "C>" | "S>", str():
                _end(self._client if who == "C>" else self.server, what)
            case ">C" | ">S", str():
                _sees_end(self._client if who == ">C" else self.server, what)
        if what == RST and who in ("S>", ">S"):
            self.server.close()
            self._server = None

    @property
    def server(self) -> socket.socket:
        """The connection that the request came on."""
        assert self._server is not None, "the server was not reached"
        return self._server

    def status(self) -> int:
        """Of an answer of known length."""
        head = _receive_head(self._client)
        length = next(
            int(line.split(b": ")[1])
            for line in head.split(b"\r\n")
            if line.startswith(b"Content-Length: ")
        )
        _receive(self._client, length)
        return int(head.split(b" ")[1])

    def nobody_reached_the_server(self) -> None:
        """Neither by a new connection nor by a kept one."""
        assert self._server is None
        assert not select.select([self._proxy.server], [], [], 0)[0], "the server was reached"

    def server_finishes(self) -> None:
        """Unless the proxy has had enough already."""
        with contextlib.suppress(OSError):
            self.server.shutdown(socket.SHUT_WR)

    def client_is_let_go(self) -> None:
        """The proxy ends the connection, and has said no more."""
        with contextlib.suppress(ConnectionResetError):
            more = self._client.recv(65536)
            assert more == b"", more

    def nothing_is_left(self) -> None:
        """Nobody was told more than the case says."""
        for sock in (self._client, self._server):
            if sock is not None and sock.fileno() >= 0 and select.select([sock], [], [], 0)[0]:
                with contextlib.suppress(ConnectionResetError):
                    more = sock.recv(65536)
                    assert more == b"", more

    def _server_gets(self, expected: bytes) -> None:
        head, end, body = expected.partition(_HEAD_END)
        if end and b" HTTP/1.1\r\n" in head:
            self._await_request()
            seen = self._proxy.as_seen(_receive_head(self.server))
            assert seen == head + end, seen
        else:
            body = expected
        got = _receive(self.server, len(body))
        assert got == body, got

    def _await_request(self) -> None:
        """On the connection there is, or on a new one."""
        while True:
            waiting = [self._proxy.server, *([self._server] if self._server else [])]
            ready, _, _ = select.select(waiting, [], [], PATIENCE)
            assert ready, "no request came"
            if self._server in ready and self.server.recv(1, socket.MSG_PEEK):
                return
            if self._server in ready:
                self.server.close()
                self._server = None
            if self._proxy.server in ready:
                if self._server is not None:
                    self._server.close()
                self._server, _ = self._proxy.server.accept()
                self._server.settimeout(PATIENCE)
                return


def _receive_head(sock: socket.socket) -> bytes:
    """Up to the empty line, and nothing of what follows."""
    head = b""
    while _HEAD_END not in head:
        seen = sock.recv(65536, socket.MSG_PEEK)
        assert seen, f"the end came after {head!r}"
        end = (head + seen).find(_HEAD_END)
        taken = len(seen) if end < 0 else end + len(_HEAD_END) - len(head)
        head += sock.recv(taken)
    return head


def _receive(sock: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        data = sock.recv(size - len(got))
        assert data, f"the end came after {got!r}"
        got += data
    return got


def _end(sock: socket.socket, how: str) -> None:
    if how == FIN:
        sock.shutdown(socket.SHUT_WR)
    else:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()


def _sees_end(sock: socket.socket, how: str) -> None:
    try:
        data = sock.recv(65536)
    except ConnectionResetError:
        assert how == RST, "it was reset"
        return
    assert data == b"", data
    assert how == FIN, "it ended in order"
