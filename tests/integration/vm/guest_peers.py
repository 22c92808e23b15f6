"""A server for the inside of a guest that writes down how its connections end.

It runs on the guest's own Python and imports nothing of ours. Every request is answered by its
path: `/stream` begins an answer, `/poll` says nothing, `/upload` reads, `/tunnel` grants an
upgrade. Each end is one line in the file that is named on the command line: path and way.
"""

from __future__ import annotations

import socketserver
import sys

STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n"
TUNNEL = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
ANSWERS = {
    "/ready": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "/stream": STREAM,
    "/tunnel": TUNNEL,
}


class Watcher(socketserver.BaseRequestHandler):
    """One connection."""

    def handle(self) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.request.recv(1)
        path = head.split()[1].decode()
        self.request.sendall(ANSWERS.get(path, b""))
        if path == "/ready":
            return
        self.note(f"{path} open")
        self.note(f"{path} {self.end()}")

    def end(self) -> str:
        try:
            while self.request.recv(65536):
                pass
        except ConnectionResetError:
            return "reset"
        return "eof"

    def note(self, line: str) -> None:
        with open(sys.argv[3], "a") as notes:  # noqa: PTH123 - one write, appended whole
            notes.write(line + "\n")


class Server(socketserver.ThreadingTCPServer):
    """A thread for each connection."""

    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    Server((sys.argv[1], int(sys.argv[2])), Watcher).serve_forever()
