"""Run inside a sandbox: lives that a pause must not be noticed by. `guest_lives.py NAME DIRECTORY`.

Each counts in DIRECTORY/NAME what it has done and found right. What it finds wrong ends it, with
the reason in DIRECTORY/NAME.failed.
"""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = 4096
TIMER_SECONDS = 12.0


def memory(processor: int) -> Iterator[None]:
    """Write all pages of some memory on one processor, and read what was written before."""
    os.sched_setaffinity(0, {processor})
    pages = bytearray(512 * PAGE)
    for turn in range(1 << 30):
        mark = hashlib.sha256(f"{processor} {turn}".encode()).digest()
        for at in range(0, len(pages), PAGE):
            pages[at : at + len(mark)] = mark
        for at in range(0, len(pages), PAGE):
            assert pages[at : at + len(mark)] == mark, (turn, at)
        yield


def sockets() -> Iterator[None]:
    """Numbers go to a server over TCP and come back."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()

        def echo() -> None:
            while data := accepted.recv(8):
                accepted.sendall(data)

        threading.Thread(target=echo, daemon=True).start()
        for number in range(1 << 30):
            client.sendall(number.to_bytes(8, "big"))
            assert client.recv(8, socket.MSG_WAITALL) == number.to_bytes(8, "big")
            time.sleep(0.02)
            yield


def timers() -> Iterator[None]:
    """A timer that is set before a pause and due long after it: it neither fires at once, for the
    time that went by outside, nor never."""
    fired = threading.Event()
    signal.signal(signal.SIGALRM, lambda *_: fired.set())
    while True:
        fired.clear()
        began = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, TIMER_SECONDS)
        while not fired.wait(0.1):
            assert time.monotonic() - began < 5 * TIMER_SECONDS
        assert time.monotonic() - began >= TIMER_SECONDS
        yield


def disk() -> Iterator[None]:
    """Files are written, some of them durably, and read again."""
    directory = Path("/root/lives")
    directory.mkdir(exist_ok=True)
    for number in range(1 << 30):
        path = directory / str(number % 8)
        if path.exists():
            content = path.read_bytes()
            assert hashlib.sha256(content[32:]).digest() == content[:32], path
        body = os.urandom(256 << 10)
        with path.open("wb") as file:
            file.write(hashlib.sha256(body).digest() + body)
            if number % 3 == 0:
                os.fsync(file.fileno())
        yield


LIVES = {
    "memory0": lambda: memory(0),
    "memory1": lambda: memory(1),
    "sockets": sockets,
    "timers": timers,
    "disk": disk,
}


def main(name: str, directory: Path) -> None:
    """Live, and count."""
    try:
        for count, _ in enumerate(LIVES[name](), 1):
            (directory / f"{name}.next").write_text(str(count))
            (directory / f"{name}.next").rename(directory / name)
    except Exception as error:
        (directory / f"{name}.failed").write_text(repr(error))
        raise


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
