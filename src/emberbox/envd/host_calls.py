"""What the host asks of a guest at moments when every millisecond counts: calls of one datagram.

Under software emulation code is translated when it first runs after a resume, and an answer by
HTTP takes three times as much code as one by a datagram that a thread waits for.

    call    number (8 bytes, of the host's choice), kind (1 byte), what the kind needs
    answer  the same number, status (1 byte), text

Kinds are
    `I`  the machine is another from now on: unix time in nanoseconds (8 bytes, little-endian), seed
         (64 bytes), the access token with its length before it (1 byte), then the rest of what
         the body of /init has: how many fields (1 byte), and their names and values, then those of
         the variables, with a NUL after each
    `R`  it goes on as another run of the same sandbox: time and seed as before, the run's id with
         its length before it, the access token
    `S`  write to the disks what the kernel keeps in memory

A call that is repeated is answered again and not done again, but that the clock is set by each.
What is no call has no answer, and the host turns to /init, which says what is wrong. The socket is
connected to the host's address and port: the kernel lets nobody else in.

Neither JSON nor regular expressions are used on the way to an answer: to translate them for one
call takes a sixth of its time.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from emberbox.envd.auth import same
from emberbox.envd.errors import InvalidArgumentError
from emberbox.envd.init import read_changes
from emberbox.envd.state import VERSION
from emberbox.envd.system import tolerated

if TYPE_CHECKING:
    import asyncio

    from emberbox.envd.init import Initializer
    from emberbox.envd.state import State
    from emberbox.envd.system import System
    from emberbox.envd.telemetry import Telemetry

logger = logging.getLogger(__name__)

_MAX_CALL = 2048
_NUMBER, _TIME, _SEED = 8, 8, 64
_BODY = _NUMBER + 1
_DONE, _REFUSED = b"\0", b"\1"
_VERSION = _DONE + VERSION.encode()


class HostCalls:
    """Answers from a thread of its own while it is open."""

    def __init__(
        self, state: State, system: System, initializer: Initializer, telemetry: Telemetry
    ) -> None:
        self._state = state
        self._system = system
        self._initializer = initializer
        self._telemetry = telemetry
        self._last: tuple[bytes, bytes] = (b"", b"")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._socket: socket.socket | None = None

    def open(self, loop: asyncio.AbstractEventLoop, own: tuple[str, int], host: str) -> None:
        """Answer calls that reach address and port `own` from the same port of `host`.

        Without a network they are not answered, which the log tells.
        """
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            made.bind(own)
            made.connect((host, own[1]))
        except OSError as error:
            made.close()
            logger.warning("the host's calls are not answered: %s", error)
            return
        self._loop, self._socket = loop, made
        threading.Thread(target=self._serve, args=(made,), name="host", daemon=True).start()

    def close(self) -> None:
        """Answer no more."""
        if self._socket is not None:
            with suppress(OSError):  # it is connected no more
                self._socket.shutdown(socket.SHUT_RDWR)

    def _serve(self, calls: socket.socket) -> None:
        with calls:
            while True:
                try:
                    call = calls.recv(_MAX_CALL)
                except OSError:
                    continue  # an answer did not arrive, as who had asked is gone
                if not call:
                    return  # closed: every call has a number
                with suppress(OSError):  # the host asks again
                    self._take(calls, call)

    def _take(self, calls: socket.socket, call: bytes) -> None:
        number, kind = call[:_NUMBER], call[_NUMBER:_BODY]
        if kind == b"I":
            self._introduce(calls, number, call)
        elif kind == b"R":
            self._resume(calls, number, call)
        elif kind == b"S":
            if number != self._last[0]:
                os.sync()
                self._last = number, number + _DONE
            calls.send(self._last[1])

    def _introduce(self, calls: socket.socket, number: bytes, call: bytes) -> None:
        told = _cut(call)
        if told is None:
            return
        now, seed, token, body = told
        if number == self._last[0]:
            self._set_clock(now)
            calls.send(number + _VERSION)
            return
        if not self._is_known(token):
            calls.send(number + _REFUSED)
            return
        try:
            changes = read_changes(_fields(body), now, seed)
        except (ValueError, InvalidArgumentError):
            return
        self._initializer.apply(changes)
        self._last = number, b""
        try:
            calls.send(number + _VERSION)
        finally:
            self._begin_run()  # nobody waits for it

    def _resume(self, calls: socket.socket, number: bytes, call: bytes) -> None:
        told = _cut(call)
        if told is None:
            return
        now, seed, run, token = told
        if not self._is_known(token):
            calls.send(number + _REFUSED)
            return
        self._set_clock(now)
        calls.send(number + _VERSION)
        # What follows nobody waits for. No other machine goes on from where this one was, so its
        # random numbers are its own also before.
        if number != self._last[0]:
            self._last = number, b""
            with tolerated("feed the random generator"):
                self._system.add_entropy(seed)
            self._state.lifecycle_id = run.decode("latin-1")
            self._begin_run()

    def _is_known(self, token: bytes) -> bool:
        expected = self._state.access_token
        return expected is None or same(token.decode("latin-1"), expected)

    def _set_clock(self, now: int) -> None:
        with tolerated("set the clock"):
            self._system.set_clock(now)

    def _begin_run(self) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._telemetry.begin, self._state.lifecycle_id)


def _fields(told: bytes) -> dict[str, object]:
    """As the body of /init has them. Raises ValueError when they are not whole, or no text."""
    *words, end = told[1:].decode().split("\0")
    pairs = list(zip(words[::2], words[1::2], strict=True))
    if end or not told or told[0] > len(pairs):
        raise ValueError("cut off")
    fields = told[0]
    body: dict[str, object] = dict(pairs[:fields])
    if variables := dict(pairs[fields:]):
        body["envVars"] = variables
    return body


def _cut(call: bytes) -> tuple[int, bytes, bytes, bytes] | None:
    """Time, seed, what has its length before it, and the rest; None when it is too short."""
    seed = _BODY + _TIME
    first = seed + _SEED + 1
    if len(call) < first:
        return None
    rest = first + call[first - 1]
    now = int.from_bytes(call[_BODY:seed], "little")
    return now, call[seed : first - 1], call[first:rest], call[rest:]
