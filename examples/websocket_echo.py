"""A WebSocket server that sends each message back; needs nothing but Python.

Usage: websocket_echo.py PORT. Knows messages of up to 64 KiB in one frame, no more.
"""

from __future__ import annotations

import base64
import hashlib
import socketserver
import struct
import sys

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
CLOSE = 8


class Echo(socketserver.StreamRequestHandler):
    """One connection: the handshake, then a frame back for each frame."""

    def handle(self) -> None:
        head = iter(lambda: self.rfile.readline().decode().strip(), "")
        fields = dict(line.split(": ", 1) for line in head if ": " in line)
        key = {name.lower(): value for name, value in fields.items()}["sec-websocket-key"]
        accept = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()
        self.wfile.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            + f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
        )
        opcode = 0
        while opcode != CLOSE:
            first, second = self.rfile.read(2)
            opcode, length = first & 15, second & 127
            if length == 126:
                (length,) = struct.unpack(">H", self.rfile.read(2))
            mask, masked = self.rfile.read(4), self.rfile.read(length)
            payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(masked))
            size = bytes([length]) if length < 126 else struct.pack(">BH", 126, length)
            self.wfile.write(bytes([first]) + size + payload)


socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("127.0.0.1", int(sys.argv[1])), Echo).serve_forever()
