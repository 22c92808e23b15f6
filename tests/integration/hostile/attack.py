"""Runs inside a sandbox, as root: makes every attempt of a plan and prints what came of each.

The plan is a list of objects: `kind` (tcp, udp, ping or frame) with `address` and `port`, or the
`frame` in hex. Of the standard library alone.
"""

from __future__ import annotations

import errno
import json
import resource
import selectors
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any

PATIENCE_S = 4.0
MOST_SOCKETS = 8192
LINK = "eth0"
ANSWERED = ("connected", "answered")
"""Outcomes of an attempt that succeeded."""


def main(plan: list[dict[str, Any]]) -> list[str]:
    """What came of each: connected, answered, or how it was refused."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (MOST_SOCKETS, MOST_SOCKETS))
    results = ["silent"] * len(plan)
    selector = selectors.DefaultSelector()
    for number, attempt in enumerate(plan):
        try:
            opened, events = begin(attempt)
        except OSError as error:
            results[number] = name_of(error)
        else:
            selector.register(opened, events, number)
    deadline = time.monotonic() + PATIENCE_S
    while selector.get_map() and (left := deadline - time.monotonic()) > 0:
        for key, _ in selector.select(left):
            assert isinstance(key.fileobj, socket.socket)
            results[key.data] = outcome(plan[key.data]["kind"], key.fileobj)
            selector.unregister(key.fileobj)
    return results


def begin(attempt: dict[str, Any]) -> tuple[socket.socket, int]:
    """Send the first packet; the socket, and what to wait for."""
    kind = attempt["kind"]
    if kind == "frame":
        return send_frame(bytes.fromhex(attempt["frame"])), selectors.EVENT_READ
    address, port = attempt["address"], attempt.get("port", 0)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    if kind == "ping":
        made = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        made.connect((address, 0))
        made.send(struct.pack("!BBHHH", 8, 0, 0xF7FF, 0, 0))
        return made, selectors.EVENT_READ
    made = socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
    made.setblocking(False)
    if kind == "udp":
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        made.connect((address, port))
        made.send(bytes.fromhex(attempt.get("data", "00")))
        return made, selectors.EVENT_READ
    error = made.connect_ex((address, port))
    if error not in (0, errno.EINPROGRESS):  # no way there: nothing was sent
        made.close()
        raise OSError(error, "")
    return made, selectors.EVENT_WRITE


def send_frame(frame: bytes) -> socket.socket:
    """Nothing answers it on this socket: what it leads to is seen outside."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
        link.bind((LINK, 0))
        link.send(frame)
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def outcome(kind: str, opened: socket.socket) -> str:
    """What a socket that has become ready says."""
    number = opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number:
        return name_of(OSError(number, ""))
    if kind == "tcp":
        return "connected"
    try:
        opened.recv(4096)
    except OSError as error:
        return name_of(error)
    return "answered"


def name_of(error: OSError) -> str:
    """As in errno(3)."""
    return errno.errorcode[error.errno or 0]


if __name__ == "__main__":
    json.dump(main(json.loads(Path(sys.argv[1]).read_text())), sys.stdout)
