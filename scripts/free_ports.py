"""Ports for programs that are started beside others."""

from __future__ import annotations

import socket
from contextlib import ExitStack


def find_free_ports(**lengths: int) -> list[int]:
    """The first port of a run of free ones of 127.0.0.1 for each name, in order.

    A length is how many must be free in a row, as where a program takes the next one too.
    """
    # All are held until the last is found, so that none is given twice.
    with ExitStack() as held:
        return [_hold_run(length, held) for length in lengths.values()]


def _hold_run(length: int, held: ExitStack) -> int:
    for _ in range(100):
        with ExitStack() as run:
            first = _hold(0, run)
            try:
                for offset in range(1, length):
                    _hold(first + offset, run)
            except (OSError, OverflowError):
                continue
            held.push(run.pop_all())
            return first
    raise AssertionError(f"no {length} free ports in a row")


def _hold(port: int, held: ExitStack) -> int:
    probe = held.enter_context(socket.socket())
    # As servers do: ends of earlier connections that linger keep nobody from listening. Among
    # those who do so, one that listens keeps the port.
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    probe.bind(("127.0.0.1", port))
    probe.listen()
    bound: int = probe.getsockname()[1]
    return bound
