"""A program that uses both flavours and closes nothing; run by test_packaging."""

from __future__ import annotations

import asyncio
import http.server
import json
import threading

import emberbox


class Api(http.server.BaseHTTPRequestHandler):
    """Creates any sandbox."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps({"sandboxID": "i0", "templateID": "base"}).encode()
        self.send_response(201)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (theirs)
        """Say nothing."""


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api)
server.daemon_threads = True
thread = threading.Thread(target=server.serve_forever, daemon=True)
thread.start()
options: emberbox.ApiParams = {"api_key": "k", "api_url": f"http://127.0.0.1:{server.server_port}"}


async def main() -> None:
    await emberbox.AsyncSandbox.create(**options)


emberbox.Sandbox.create(**options)
asyncio.run(main())
asyncio.run(main())
server.shutdown()
server.server_close()
